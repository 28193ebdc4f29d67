"""Rows of the reductions. Source: onnx/onnx, docs/Operators.md."""

from collections.abc import Callable

from edgecnn import ops
from edgecnn.ops import known

from ._onnx_read_axes import reduced_axes
from ._onnx_read_call import Call, Row
from ._onnx_read_sizes import check_size
from ._onnx_read_state import Value

Reduction = type[ops.Mean] | type[ops.Sum] | type[ops.Max] | type[ops.Min] | type[ops.Prod]


def _op(call: Call, kind: Reduction, axes: tuple[int, ...]) -> ops.Op:
    return kind(axes=axes, keep_dims=bool(call.integer("keepdims", 1)))


def _reduction(kind: Reduction, before: Callable[[Call, str], str] | None = None, after: ops.Op | None = None) -> Row:
    """Return the row of a reduction of something, with something done to it afterwards."""

    def row(call: Call) -> Value:
        axes, x = reduced_axes(call), call.tensor(0)
        if before is not None:
            x = before(call, x)
        if axes is None:
            return x if after is None else call.emit(after, x)
        op = _op(call, kind, axes)
        return call.emit(op, x) if after is None else call.emit(after, call.emit(op, x, suffix="reduced"))

    return row


def _squared(call: Call, x: str) -> str:
    return call.emit(ops.Mul(), x, x, suffix="squared")


def _magnitude(call: Call, x: str) -> str:
    return call.emit(ops.Abs(), x, suffix="abs")


def _log_sum_exp(call: Call) -> Value:
    """Read ReduceLogSumExp as max + log(sum(exp(x - max))), which does not overflow."""
    axes, x = reduced_axes(call), call.tensor(0)
    if axes is None:
        return x
    largest = call.emit(ops.Max(axes=axes, keep_dims=True), x, suffix="max")
    powers = call.emit(ops.Exp(), call.emit(ops.Sub(), x, largest, suffix="shifted"), suffix="exp")
    log = call.emit(ops.Log(), call.emit(_op(call, ops.Sum, axes), powers, suffix="sum"), suffix="log")
    if not call.integer("keepdims", 1):
        largest = call.emit(ops.Max(axes=axes), x, suffix="largest")
    return call.emit(ops.Add(), log, largest)


def _arg(is_smallest: bool) -> Row:
    def row(call: Call) -> Value:
        x = call.tensor(0)
        if is_smallest:
            x = call.emit(ops.Neg(), x, suffix="negative")
        axis = call.axis(call.integer("axis", 0), len(call.shape()))
        op = ops.ArgMax(axis=axis, keep_dims=bool(call.integer("keepdims", 1)))
        if not call.integer("select_last_index", 0):
            return call.emit(op, x)
        # The last of equals is the first one seen from behind.
        last = known(call.shape()[axis]) - 1
        check_size([last])
        order = call.made("order", range(last, -1, -1), "int64")
        behind = call.emit(op, call.emit(ops.Gather(axis=axis), x, order, suffix="reversed"), suffix="behind")
        return call.emit(ops.Sub(), call.made("last", last, "int64"), behind)

    return row


ROWS: dict[str, Row] = {
    "ArgMax": _arg(False),
    "ArgMin": _arg(True),
    "ReduceL1": _reduction(ops.Sum, _magnitude),
    "ReduceL2": _reduction(ops.Sum, _squared, ops.Sqrt()),
    "ReduceLogSum": _reduction(ops.Sum, None, ops.Log()),
    "ReduceLogSumExp": _log_sum_exp,
    "ReduceMax": _reduction(ops.Max),
    "ReduceMean": _reduction(ops.Mean),
    "ReduceMin": _reduction(ops.Min),
    "ReduceProd": _reduction(ops.Prod),
    "ReduceSum": _reduction(ops.Sum),
    "ReduceSumSquare": _reduction(ops.Sum, _squared),
}
