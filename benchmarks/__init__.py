"""Measuring: timing, statistics, plans, reports."""

if __name__ != "edgecnn.benchmarks":
    raise ImportError(f"import edgecnn.benchmarks, not {__name__}: a second copy of its classes would come to life")
