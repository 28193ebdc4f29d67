"""Rewrites of a Graph: one file each, with its mathematics, a pattern, a check that gives a reason, the rewrite."""
