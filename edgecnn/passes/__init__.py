"""Rewrites of a Graph: one file each, with its mathematics, a pattern, a check that returns a reason, and the rewrite."""
