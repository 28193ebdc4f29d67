"""Rows of matrix products, normalisations and Softmax. Source: onnx/onnx, docs/Operators.md."""

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Shape

from ._onnx_read_call import Call, Row, require
from ._onnx_read_sizes import as_shape, as_sizes, check_size, product, sizes_of
from ._onnx_read_state import Value

SMALLEST_NORM = 1e-12
"""What LpNormalization divides by where a norm is 0: ONNX leaves it open, and the result is 0."""


def _gemm(call: Call) -> str:
    alpha, beta = call.number("alpha", 1.0), call.number("beta", 1.0)
    is_turned = bool(call.integer("transB", 0))
    if len(call.shape(0)) != 2 or len(call.shape(1)) != 2:
        raise InputFileError(f"two matrices were wanted; found {call.shape(0)} and {call.shape(1)}")
    x = call.tensor(0)
    if call.integer("transA", 0):
        x = call.emit(ops.Transpose(permutation=(1, 0)), x, suffix="turned")
    bias = call.known(2) if beta else None
    width = call.shape(1)[0 if is_turned else -1]
    has_addend = call.has(2) and beta != 0
    takes_bias = call.known(1) is not None and (not has_addend or (bias is not None and _is_vector(bias, width)))
    if takes_bias:
        biases = (_bias(call, width, beta),) if has_addend else ()
        return call.emit(ops.Dense(), x, _kernel(call, alpha, is_turned), *biases)
    if call.known(1) is not None:
        product = call.emit(ops.Dense(), x, _kernel(call, alpha, is_turned), suffix="product")
        return call.emit(ops.Add(), product, _scaled(call, call.tensor(2), beta, "addend"))
    right = call.tensor(1)
    if is_turned:
        right = call.emit(ops.Transpose(permutation=(1, 0)), right, suffix="right")
    if not has_addend and alpha == 1:
        return call.emit(ops.MatMul(), x, right)
    product = _scaled(call, call.emit(ops.MatMul(), x, right, suffix="product"), alpha, "scaled")
    if not has_addend:
        return call.emit(ops.Identity(), product)
    return call.emit(ops.Add(), product, _scaled(call, call.tensor(2), beta, "addend"))


def _kernel(call: Call, alpha: float, is_turned: bool) -> str:
    """Return constant weights as (in_features, out_features): a view where nothing scales them."""

    def arrange(weights: Array) -> Array:
        if weights.ndim != 2:
            raise InputFileError(f"weights of two axes were wanted; found {weights.shape}")
        turned = weights.T if is_turned else weights
        return turned if alpha == 1 else turned * np.asarray(alpha, turned.dtype)

    return call.arranged(1, f"dense {is_turned} {alpha}", arrange)


def _is_vector(bias: Array, width: int | None) -> bool:
    return bias.size in (1, width) and bias.shape[-1:] in ((), (1,), (width,)) and bias.ndim <= 2


def _bias(call: Call, width: int | None, beta: float) -> str:
    check_size([known(width)])

    def arrange(bias: Array) -> Array:
        flat = bias.ravel() if bias.size == width else np.broadcast_to(bias.ravel(), (known(width),))
        return flat if beta == 1 else flat * np.asarray(beta, flat.dtype)

    return call.arranged(2, f"bias {width} {beta}", arrange)


def _scaled(call: Call, tensor: str, factor: float, suffix: str) -> str:
    if factor == 1:
        return tensor
    return call.emit(ops.Mul(), tensor, call.made(f"{suffix}_factor", factor), suffix=suffix)


def _mat_mul(call: Call) -> str:
    left, right = call.shape(0), call.shape(1)
    if not left or not right:
        raise InputFileError("two matrices or vectors were wanted; found a scalar")
    constant = call.known(1)
    is_dense = constant is not None and constant.ndim <= 2 and call.known(0) is None and len(left) > 1
    if is_dense and len(right) == 2:
        return call.emit(ops.Dense(), call.tensor(0), call.arranged(1, "", lambda data: data))
    a, b = call.tensor(0), call.tensor(1)
    if len(left) == 1:
        a = call.emit(ops.Reshape(shape=(1, left[0])), a, suffix="row")
    if len(right) == 1:
        b = call.emit(ops.Reshape(shape=(right[0], 1)), b, suffix="column")
    if len(left) > 1 and len(right) > 1:
        return call.emit(ops.MatMul(), a, b)
    product = call.emit(ops.MatMul(), a, b, suffix="product")
    found = call.shape_of(product)
    kept = (*found[:-2], *(found[-2:-1] if len(left) > 1 else ()), *(found[-1:] if len(right) > 1 else ()))
    return call.emit(ops.Reshape(shape=kept), product)


def _batch_norm(call: Call) -> str:
    require(not call.integer("training_mode", 0), "training_mode=0", "training_mode=1")
    require(call.integer("spatial", 1) == 1, "spatial=1", "spatial=0")
    names = ("scale", "bias", "mean", "variance")
    operands = []
    for position, name in enumerate(names, start=1):
        call.constant(position, name)
        operands.append(call.tensor(position))
    op = ops.BatchNorm(epsilon=call.number("epsilon", 1e-5), momentum=call.number("momentum", 0.9))
    return call.layer(op, call.image(), *operands)


def channels_of(call: Call) -> int:
    """Return the number of channels of an input (N, C, ...)."""
    shape = call.shape()
    if len(shape) < 3:
        raise InputFileError(f"an input (N, C, positions...) was wanted; found the shape {shape}")
    return known(shape[1])


def _instance_norm(call: Call) -> str:
    channels, epsilon = channels_of(call), call.number("epsilon", 1e-5)
    for position, name in ((1, "scale"), (2, "bias")):
        call.constant(position, name)
    op = ops.GroupNorm(groups=channels, epsilon=epsilon)
    found = call.layer(op, call.image(), call.tensor(1), call.tensor(2))
    call.reading.origins[found] = ("InstanceNormalization", (call.tensor(0), call.known(1), call.known(2), epsilon))
    return found


def _group_norm(call: Call) -> str:
    """Read GroupNormalization, whose scale and bias were one for each group before opset 21."""
    channels, groups = channels_of(call), call.integer("num_groups", 1)
    if groups < 1 or channels % groups:
        raise InputFileError(f"num_groups that divides {channels} channels was wanted; found {groups}")

    check_size([channels])

    def per_channel(values: Array) -> Array:
        return values if call.opset >= 21 else np.repeat(values, channels // groups)

    operands = [call.arranged(position, f"group {groups} {channels}", per_channel) for position in (1, 2)]
    op = ops.GroupNorm(groups=groups, epsilon=call.number("epsilon", 1e-5))
    return call.layer(op, call.image(), *operands)


def _layer_norm(call: Call) -> Value | tuple[Value, ...]:
    shape, epsilon = call.shape(), call.number("epsilon", 1e-5)
    rank = len(shape)
    axis = call.axis(call.integer("axis", -1), rank)
    scale, bias = call.known(1), call.known(2)
    is_plain = axis == rank - 1 and scale is not None and scale.shape == shape[-1:]
    if is_plain and (bias is not None or not call.has(2)) and not call.gives(1) and not call.gives(2):
        beta = call.tensor(2) if call.has(2) else call.made("beta", np.zeros(known(shape[-1])))
        return call.emit(ops.LayerNorm(epsilon=epsilon), call.tensor(0), call.tensor(1), beta)
    normal, mean, deviation = normalised(call, call.tensor(0), tuple(range(axis, rank)), epsilon)
    scaled = call.emit(ops.Mul(), normal, call.tensor(1), suffix="scaled" if call.has(2) else "")
    found = call.emit(ops.Add(), scaled, call.tensor(2)) if call.has(2) else scaled
    if not call.gives(1) and not call.gives(2):
        return found
    return found, mean, call.emit(ops.Div(), call.made("one", 1), deviation, suffix="inverse")


def normalised(call: Call, x: str, axes: tuple[int, ...], epsilon: float) -> tuple[str, str, str]:
    """Return (x - mean) / sqrt(variance + epsilon) over axes, the mean, and the square root, spelled out."""
    mean = call.emit(ops.Mean(axes=axes, keep_dims=True), x, suffix="mean")
    centred = call.emit(ops.Sub(), x, mean, suffix="centred")
    squared = call.emit(ops.Mul(), centred, centred, suffix="squared")
    variance = call.emit(ops.Mean(axes=axes, keep_dims=True), squared, suffix="variance")
    stable = call.emit(ops.Add(), variance, call.made("epsilon", epsilon), suffix="stable")
    deviation = call.emit(ops.Sqrt(), stable, suffix="deviation")
    return call.emit(ops.Div(), centred, deviation, suffix="normal"), mean, deviation


def _mean_variance(call: Call) -> str:
    """Read MeanVarianceNormalization; its epsilon is fixed. Source: onnx/onnx, docs/Operators.md."""
    rank = len(call.shape())
    axes = tuple(call.axis(axis, rank) for axis in call.several("axes", ()) or (0, 2, 3))
    return call.emit(ops.Identity(), normalised(call, call.tensor(0), axes, 1e-9)[0])


def _lrn(call: Call) -> str:
    size = call.integer("size", 0)
    require(size % 2 == 1, "an odd size", f"size={size}")
    op = ops.LRN(
        size=size,
        alpha=call.number("alpha", 1e-4) / size,
        beta=call.number("beta", 0.75),
        bias=call.number("bias", 1.0),
    )
    return call.layer(op, call.image())


def _lp_normalization(call: Call) -> str:
    axis, power = call.axis(call.integer("axis", -1), len(call.shape())), call.integer("p", 2)
    require(power in (1, 2), "p=1 or p=2", f"p={power}")
    if power == 2:
        return along(call, ops.L2Normalize(epsilon=SMALLEST_NORM), axis)
    sizes = call.emit(ops.Abs(), call.tensor(0), suffix="abs")
    norm = call.emit(ops.Sum(axes=(axis,), keep_dims=True), sizes, suffix="sum")
    norm = call.emit(ops.Maximum(), norm, call.made("epsilon", SMALLEST_NORM), suffix="norm")
    return call.emit(ops.Div(), call.tensor(0), norm)


def along(call: Call, op: ops.Op, axis: int) -> str:
    """Add an operator that works over the last axis, over any axis: between two Transposes."""
    rank = len(call.shape())
    if axis == rank - 1:
        return call.emit(op, call.tensor(0))
    if axis == 1:
        return call.layer(op, call.image())
    order = (*(each for each in range(rank) if each != axis), axis)
    back = tuple(order.index(each) for each in range(rank))
    inner = call.emit(op, call.emit(ops.Transpose(permutation=order), call.tensor(0), suffix="turned"), suffix="last")
    return call.emit(ops.Transpose(permutation=back), inner)


def _softmax(call: Call) -> str:
    """Read Softmax; before opset 13 it works over all axes from one on, flattened."""
    shape = call.shape()
    axis = call.axis(call.integer("axis", -1 if call.opset >= 13 else 1), len(shape))
    if call.opset >= 13 or _is_alone(shape, axis):
        return along(call, ops.Softmax(), axis if call.opset >= 13 else _alone(shape, axis))
    flat = call.emit(ops.Reshape(shape=flattened(shape, axis)), call.tensor(0), suffix="flat")
    return call.emit(ops.Reshape(shape=shape), call.emit(ops.Softmax(), flat, suffix="softmax"))


def _is_alone(shape: Shape, axis: int) -> bool:
    """Tell whether only one of the axes from one on has more than one position."""
    return sum(size != 1 for size in shape[axis:]) <= 1


def _alone(shape: Shape, axis: int) -> int:
    return next((each for each in range(axis, len(shape)) if shape[each] != 1), len(shape) - 1)


def flattened(shape: Shape, axis: int) -> Shape:
    """Return (elements before an axis, elements from it on), as ONNX's Flatten does."""
    sizes = as_sizes(sizes_of(shape))
    return as_shape([product(sizes[:axis]), product(sizes[axis:])])


def _log_softmax(call: Call) -> str:
    """Read LogSoftmax as x - max - log(sum(exp(x - max))), which no small probability brings to -inf."""
    rank = len(call.shape())
    axis = call.axis(call.integer("axis", -1 if call.opset >= 13 else 1), rank)
    axes = (axis,) if call.opset >= 13 else tuple(range(axis, rank))
    x = call.tensor(0)
    shifted = call.emit(ops.Sub(), x, call.emit(ops.Max(axes=axes, keep_dims=True), x, suffix="max"), suffix="shifted")
    total = call.emit(ops.Sum(axes=axes, keep_dims=True), call.emit(ops.Exp(), shifted, suffix="exp"), suffix="total")
    return call.emit(ops.Sub(), shifted, call.emit(ops.Log(), total, suffix="log"))


ROWS: dict[str, Row] = {
    "BatchNormalization": _batch_norm,
    "Gemm": _gemm,
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp_normalization,
    "MatMul": _mat_mul,
    "MeanVarianceNormalization": _mean_variance,
    "Softmax": _softmax,
}
