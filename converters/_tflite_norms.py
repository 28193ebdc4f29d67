"""Rows of TFLite's normalisations; what it has no operator for is spelled out, with the reciprocal square root."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Node
from edgecnn.ops import elements, known
from edgecnn.shapes import Shape

from ._tflite_elementwise import ADD, MAXIMUM, MUL
from ._tflite_emitter import Spec, TfliteEmitter

SUB = Spec(kind="SUB", options="Sub")
MEAN, SUM = (Spec(kind=kind, options="Reducer", fields={"keepDims": True}) for kind in ("MEAN", "SUM"))
SQUARED_DIFFERENCE = Spec(kind="SQUARED_DIFFERENCE", options="SquaredDifference")
RSQRT = Spec(kind="RSQRT")


def _centred(e: TfliteEmitter, node: Node, x: int, shape: Shape, axes: Sequence[int]) -> tuple[int, int]:
    """Return (x - mean, 1 / sqrt(variance + epsilon)), mean and variance over axes, which are kept as 1."""
    op: Any = node.op
    narrow = tuple(1 if axis in axes else size for axis, size in enumerate(shape))
    over = e.integers(f"{node.name}/axes", axes)
    mean = e.step(f"{node.name}/mean", narrow, MEAN, [x, over])
    squares = e.step(f"{node.name}/squares", shape, SQUARED_DIFFERENCE, [x, mean])
    variance = e.step(f"{node.name}/variance", narrow, MEAN, [squares, over])
    raised = e.step(f"{node.name}/raised", narrow, ADD, [variance, e.scalar(f"{node.name}/epsilon", op.epsilon)])
    factor = e.step(f"{node.name}/factor", narrow, RSQRT, [raised])
    return e.step(f"{node.name}/centred", shape, SUB, [x, mean]), factor


def _layer_norm(e: TfliteEmitter, node: Node) -> None:
    shape, (x, gamma, beta) = e.shape(node.output), map(e.value, node.inputs)
    centred, factor = _centred(e, node, x, shape, [len(shape) - 1])
    normal = e.step(f"{node.name}/normal", shape, MUL, [centred, factor])
    scaled = e.step(f"{node.name}/scaled", shape, MUL, [normal, gamma])
    e.operator(ADD, [scaled, beta], [e.value(node.output)])


def _by_group(e: TfliteEmitter, node: Node, operand: str, run: Sequence[int]) -> int:
    tensor = e.graph.constant(node, operand)
    if tensor is None or tensor.data is None:
        raise UnsupportedError(f"{node.name}: tflite wants a constant {operand}; got a computed one")
    return e.constant(tensor.name, tensor.data.reshape(run), tensor.dtype)


def _group_norm(e: TfliteEmitter, node: Node) -> None:
    """Spell the definition out; one group, or one for each channel, needs no reshape.

    gamma goes into the factor, which is small, so that three operators walk over the image and not four.
    """
    op: Any = node.op
    shape, x = e.shape(node.output), e.value(node.inputs[0])
    channels, last = known(shape[-1]), len(shape) - 1
    if op.groups in (1, channels):
        inner, run = shape, [channels]
        axes = list(range(1, last if op.groups > 1 else last + 1))
        gamma, beta = map(e.value, node.inputs[1:])
    else:
        run = [op.groups, channels // op.groups]
        inner, axes = (shape[0], elements(shape[1:-1]), *run), [1, 3]
        x = e.reshaped(x, f"{node.name}/groups", inner)
        gamma, beta = (_by_group(e, node, name, run) for name in ("gamma", "beta"))
    centred, factor = _centred(e, node, x, inner, axes)
    narrow = (shape[0], *(1,) * (len(inner) - len(run) - 1), *run)
    slope = e.step(f"{node.name}/slope", narrow, MUL, [factor, gamma])
    scaled = e.step(f"{node.name}/scaled", inner, MUL, [centred, slope])
    if inner == shape:
        e.operator(ADD, [scaled, beta], [e.value(node.output)])
        return
    shifted = e.step(f"{node.name}/shifted", inner, ADD, [scaled, beta])
    e.reshaped(shifted, node.output, shape, e.value(node.output))


def _l2_normalize(e: TfliteEmitter, node: Node) -> None:
    """The input / sqrt(max(sum of squares, epsilon^2)).

    L2_NORMALIZATION, whose epsilon is 1e-6, is outside of XNNPACK and not faster: one vector of 128 behind a dense
    layer takes 3.1 us either way, 13 x 13 x 64 takes 14.9 us spelled out and 20.5 us with the operator. Integers are
    left to the operator.
    """
    op: Any = node.op
    shape, x = e.shape(node.output), e.value(node.inputs[0])
    if e.dtype(x) != "float32":
        e.operator(Spec(kind="L2_NORMALIZATION", options="L2Norm"), [x], [e.value(node.output)])
        return
    least = max(op.epsilon**2, float(np.finfo(np.float32).tiny))
    squares = e.step(f"{node.name}/squares", shape, MUL, [x, x])
    inputs = [squares, e.integers(f"{node.name}/axes", [len(shape) - 1])]
    total = e.step(f"{node.name}/total", (*shape[:-1], 1), SUM, inputs)
    raised = e.step(f"{node.name}/raised", (*shape[:-1], 1), MAXIMUM, [total, e.scalar(f"{node.name}/least", least)])
    factor = e.step(f"{node.name}/factor", (*shape[:-1], 1), RSQRT, [raised])
    e.operator(MUL, [x, factor], [e.value(node.output)])


def _lrn(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    if len(e.shape(node.output)) != 4:
        raise UnsupportedError(f"{node.name}: tflite normalises images (N, height, width, C) locally; got another rank")
    fields = {"radius": op.size // 2, "bias": op.bias, "alpha": op.alpha, "beta": op.beta}
    spec = Spec(kind="LOCAL_RESPONSE_NORMALIZATION", options="LocalResponseNormalization", fields=fields)
    e.operator(spec, [e.value(node.inputs[0])], [e.value(node.output)])


ROWS: dict[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.LayerNorm: _layer_norm,
    ops.GroupNorm: _group_norm,
    ops.L2Normalize: _l2_normalize,
    ops.LRN: _lrn,
}
