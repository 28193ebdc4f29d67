"""Rows of normalisation: over channels, groups of them, and neighbours."""

from math import sqrt

import numpy as np

from edgecnn import ops
from edgecnn.ops import known

from ._openvino_read_call import Call, Row


def _lrn(call: Call) -> str | None:
    """OpenVINO divides its alpha by the size of the window; the Graph does not."""
    size = call.integer("size", 1)
    if call.axes(1, len(call.shape())) != (1,) or size < 1 or size % 2 == 0:
        return None
    op = ops.LRN(
        size=size, alpha=call.number("alpha", 1.0) / size, beta=call.number("beta", 1.0), bias=call.number("bias", 1.0)
    )
    return call.channels_first(call.node(op, call.channels_last()))


def _batch_norm(call: Call) -> str | None:
    op = ops.BatchNorm(epsilon=call.number("epsilon", 1e-3))
    return call.channels_first(call.node(op, call.channels_last(), *(call.tensor(i) for i in range(1, 5))))


def _group_norm(call: Call) -> str | None:
    op = ops.GroupNorm(groups=call.integer("num_groups", 1), epsilon=call.number("epsilon", 1e-5))
    return call.channels_first(call.node(op, call.channels_last(), call.tensor(1), call.tensor(2)))


def _mean_variance(call: Call) -> str | None:
    """MVN over the last axis or the channels is a LayerNorm, over space a GroupNorm, both with scale 1 and shift 0."""
    shape = call.shape()
    axes, rank, epsilon = call.axes(1, len(shape)), len(shape), call.number("eps", 1e-6)
    is_plain = call.flag("normalize_variance", default=True) and call.text("eps_mode", "inside_sqrt") == "inside_sqrt"
    if not is_plain or axes is None or rank < 2:
        return None
    if len(axes) == 1:
        return _over_one_axis(call, axes[0], epsilon)
    if axes not in (tuple(range(1, rank)), tuple(range(2, rank))) or rank < 3:
        return None
    channels = known(shape[1])
    op = ops.GroupNorm(groups=channels if axes[0] == 2 else 1, epsilon=epsilon)
    return call.channels_first(call.node(op, call.channels_last(), *_scale_and_shift(call, channels)))


def _over_one_axis(call: Call, axis: int, epsilon: float) -> str:
    shape = call.shape()
    order = (*(each for each in range(len(shape)) if each != axis), axis)
    x = call.turned(call.tensor(0), order, "last")
    y = call.node(ops.LayerNorm(epsilon=epsilon), x, *_scale_and_shift(call, known(shape[axis])))
    return call.turned(y, [order.index(each) for each in range(len(shape))], "back")


def _scale_and_shift(call: Call, size: int) -> tuple[str, str]:
    values = (np.broadcast_to(np.float32(value), (size,)) for value in (1, 0))
    gamma, beta = (call.constant(name, each) for name, each in zip(("gamma", "beta"), values, strict=True))
    return gamma, beta


def _l2_normalize(call: Call) -> str | None:
    """OpenVINO puts its eps under the root, the Graph compares its own with the norm: the rest is spelled out."""
    axes, epsilon = call.axes(1, len(call.shape())), max(call.number("eps", 0.0), 0.0)
    is_largest = call.text("eps_mode", "add") == "max"
    if axes is None:
        return None
    if axes == (1,) and is_largest:
        return call.channels_first(call.node(ops.L2Normalize(epsilon=sqrt(epsilon)), call.channels_last()))
    x, eps = call.tensor(0), call.constant("eps", np.asarray(epsilon, np.float32))
    total = call.step("sum", ops.Sum(axes=axes, keep_dims=True), call.step("squares", ops.Mul(), x, x))
    raised = call.step("raised", ops.Maximum() if is_largest else ops.Add(), total, eps)
    return call.node(ops.Div(), x, call.step("norm", ops.Sqrt(), raised))


ROWS: dict[str, Row] = {
    "LRN": _lrn,
    "BatchNormInference": _batch_norm,
    "GroupNormalization": _group_norm,
    "MVN": _mean_variance,
    "NormalizeL2": _l2_normalize,
}
"""Layer type -> how it is read."""
