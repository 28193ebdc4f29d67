"""Rows of TFLite's matrix products, normalisations and reductions."""

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known
from edgecnn.shapes import show_shape

from ._tflite_read_call import Call, Row, in_float
from ._tflite_read_network import HINT, Constant, Value


def _dense(call: Call) -> Value:
    """FULLY_CONNECTED: kernel (out, in); unless keepNumDims, all axes but the last become one.

    Source: LiteRT, tflite/kernels/fully_connected.cc.
    """
    if call.option_or("weightsFormat", 0) != 0:
        raise call.unsupported("shuffled weights are not read")
    if call.has(2) and not isinstance(call.value(1), Constant):
        call.compute_in_float()
    kernel = call.turned(call.value(1), (1, 0), "kernel")
    features = known(call.network.shape(kernel)[0])
    x = call.vector(0) if call.option_or("keepNumDims", False) else _rows(call, features)
    bias = call.bias(2, x, kernel)
    if isinstance(kernel, Constant):
        return call.node(ops.Dense(), x, kernel, *bias)
    if not bias:
        return call.node(ops.MatMul(), x, kernel)
    return call.node(ops.Add(), call.step("product", ops.MatMul(), x, kernel), *bias)


def _rows(call: Call, features: int) -> Value:
    """Return the input as (rows, features)."""
    shape = call.shape(0)
    if len(shape) == 2 and shape[1] == features:
        return call.value(0)
    total = ops.elements(shape)
    if features < 1 or total % features:
        raise InputFileError(f"{call.where}: rows of {features} features were wanted; got {show_shape(shape)}")
    if None in shape and total != features:
        raise call.unsupported(f"the rows of {show_shape(shape)} run over its open batch. {HINT}")
    rows = None if None in shape else total // features
    return call.step("rows", ops.Reshape(shape=(rows, features)), call.value(0))


def _batch_matmul(call: Call) -> Value:
    """BATCH_MATMUL; a constant matrix behind it makes a Dense."""
    a, b = (
        _adjoint(call, call.vector(position), call.option_or(option, False), label)
        for position, option, label in ((0, "adjX", "a"), (1, "adjY", "b"))
    )
    if isinstance(b, Constant) and len(b.data.shape) == 2:
        return call.node(ops.Dense(), a, b)
    return call.node(ops.MatMul(), a, b)


def _adjoint(call: Call, value: Value, is_turned: bool, label: str) -> Value:
    rank = len(call.network.shape(value))
    if not is_turned or rank < 2:
        return value
    return call.turned(value, (*range(rank - 2), rank - 1, rank - 2), label)


def _reduction(kind: type[ops.Op]) -> Row:
    def read(call: Call) -> Value:
        rank = len(call.shape(0))
        axes = sorted({call.axis(axis, rank) for axis in call.integers(1)})
        if not axes:
            return call.node(ops.Identity(), call.value(0))
        keep = bool(call.option_or("keepDims", False))
        if None in call.shape(0) and 0 in axes:
            raise call.unsupported(f"it runs over the batch, which is open. {HINT}")
        return call.node(kind(axes=tuple(axes), keep_dims=keep), call.value(0))  # type: ignore[call-arg]

    return read


def _softmax(call: Call) -> Value:
    beta = float(call.option_or("beta", 1.0)) or 1.0
    if beta != 1:
        call.compute_in_float()
    x = call.vector(0)
    scaled = x if beta == 1 else call.step("scaled", ops.Mul(), x, call.scalar("beta", beta))
    return call.node(ops.Softmax(), scaled)


def _log_softmax(call: Call) -> Value:
    """Log-softmax: x - max - log(sum(exp(x - max))) over the last axis."""
    x, last = call.vector(0), (len(call.shape(0)) - 1,)
    top = call.step("top", ops.Max(axes=last, keep_dims=True), x)
    below = call.step("below", ops.Sub(), x, top)
    total = call.step("total", ops.Sum(axes=last, keep_dims=True), call.step("powers", ops.Exp(), below))
    return call.node(ops.Sub(), below, call.step("log", ops.Log(), total))


def _local_response(call: Call) -> Value:
    radius = call.option("radius")
    op = ops.LRN(
        size=2 * radius + 1,
        alpha=call.option_or("alpha", 0.0),
        beta=call.option_or("beta", 0.0),
        bias=call.option_or("bias", 0.0),
    )
    return call.node(op, call.vector(0))


def _arg(*, is_least: bool) -> Row:
    def read(call: Call) -> Value:
        x, rank = call.value(0), len(call.shape(0))
        dtype = call.network.stated_dtype(call.operator.outputs[0])
        if dtype not in ("int32", "int64"):
            raise InputFileError(f"{call.where}: an output of int32 or int64 was wanted; got {dtype}")
        op = ops.ArgMax(axis=call.axis(call.integer(1), rank), dtype="int32" if dtype == "int32" else "int64")
        return call.node(op, call.step("negated", ops.Neg(), x) if is_least else x)

    return read


ROWS: dict[str, Row] = {
    "FULLY_CONNECTED": _dense,
    "BATCH_MATMUL": _batch_matmul,
    "SOFTMAX": _softmax,
    "LOG_SOFTMAX": in_float(_log_softmax),
    "L2_NORMALIZATION": lambda call: call.node(ops.L2Normalize(epsilon=1e-6), call.vector(0)),
    "LOCAL_RESPONSE_NORMALIZATION": _local_response,
    "MEAN": _reduction(ops.Mean),
    "SUM": _reduction(ops.Sum),
    "REDUCE_MAX": _reduction(ops.Max),
    "REDUCE_MIN": _reduction(ops.Min),
    "REDUCE_PROD": _reduction(ops.Prod),
    "ARG_MAX": _arg(is_least=False),
    "ARG_MIN": in_float(_arg(is_least=True)),
}
