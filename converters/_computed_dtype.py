"""The type that a Graph computes a file's type in: float32 for every floating-point one."""

WIDENED = {"float16": "float32", "float64": "float32", "bfloat16": "float32"}


def computed_dtype(dtype: str) -> str:
    """Return the type that the Graph computes a file's type in; float16 constants stay stored as they are."""
    return WIDENED.get(dtype, dtype)
