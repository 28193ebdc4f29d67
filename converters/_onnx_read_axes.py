"""Axes and bounds, which an operator means the same way on known values (folded at once) and on computed ones."""

from typing import Any

from edgecnn.errors import InputFileError

from ._onnx_read_call import Call


def slice_bounds(call: Call, rank: int) -> tuple[tuple[int, ...], ...]:
    """Return (starts, ends, axes, steps) of a Slice, from its attributes (opset 9) or its inputs."""
    if call.opset < 10:
        begin, end = call.several("starts", ()), call.several("ends", ())
        axes = call.several("axes", ()) or tuple(range(len(begin)))
        step = (1,) * len(begin)
    else:
        begin, end = call.integers(1, "starts"), call.integers(2, "ends")
        axes = call.integers(3, "axes") if call.has(3) else tuple(range(len(begin)))
        step = call.integers(4, "steps") if call.has(4) else (1,) * len(begin)
    if not len(begin) == len(end) == len(axes) == len(step) or 0 in step:
        raise InputFileError(f"a start, an end and a step that is not 0 for each axis were wanted; found {step}")
    return begin, end, tuple(call.axis(axis, rank) for axis in axes), step


def as_slice(size: int, begin: int, end: int, step: int) -> slice:
    """Return the bounds of one axis as Python's: ONNX starts a way back at the front where `begin` lies before it."""
    if step > 0:
        return slice(begin, end, step)
    return slice(max(begin, -size), None if end < -size else end, step)


def unsqueezed(call: Call, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return a shape with ones at an Unsqueeze's axes, which count in the new shape."""
    found = call.several("axes", ()) if call.opset < 13 else call.integers(1, "axes")
    rank, left = len(shape) + len(found), iter(shape)
    axes = {call.axis(axis, rank) for axis in found}
    if len(axes) != len(found):
        raise InputFileError(f"different axes were wanted; found {found}")
    return tuple(1 if axis in axes else next(left) for axis in range(rank))


def reduced_axes(call: Call) -> tuple[int, ...] | None:
    """Return the axes to reduce, or None where nothing is to be done; ReduceSum took them as an input first."""
    rank = len(call.shape())
    until = 12 if call.node.op_type == "ReduceSum" else 17
    axes = call.axes(1, rank, attribute_until=until)
    if axes:
        return axes
    return None if call.integer("noop_with_empty_axes", 0) else tuple(range(rank))
