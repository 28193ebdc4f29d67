"""The row of Einsum of two operands: both turned to (shared..., own, summed), one matrix product, turned back.

    bhic,bhjc->bhij     a (b, h, i, c)   b (b, h, c, j)

Letters that both operands and the output have are shared, those that the output has not are summed.
Source: onnx/onnx, docs/Operators.md (Einsum).
"""

from math import prod

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.ops import known

from ._onnx_read_call import Call, Row, require
from ._onnx_read_state import Value


def _einsum(call: Call) -> Value:
    equation = call.text("equation", "").replace(" ", "")
    sides, arrow, output = equation.partition("->")
    left, _, right = sides.partition(",")
    plain = bool(arrow) and all(each.isalpha() and len(set(each)) == len(each) for each in (left, right, output))
    require(plain and len(call.node.inputs) == 2, "an equation of two operands such as bij,bjk->bik", equation)
    if (len(left), len(right)) != (len(call.shape(0)), len(call.shape(1))) or not set(output) <= {*left, *right}:
        raise InputFileError(
            f"letters for each axis of {call.shape(0)} and {call.shape(1)} were wanted; got {equation}"
        )
    shared = [each for each in left if each in right and each in output]
    summed = [each for each in left if each in right and each not in output]
    rows, columns = ([each for each in side if each not in (*shared, *summed)] for side in (left, right))
    require(set(rows + columns) <= set(output), "letters summed only where both operands have them", equation)
    a = _arranged(call, 0, left, (shared, rows, summed))
    b = _arranged(call, 1, right, (shared, summed, columns))
    return _spread(call, call.emit(ops.MatMul(), a, b, suffix="product"), (*shared, *rows, *columns), output)


def _sizes(call: Call, letters: str | tuple[str, ...] | list[str]) -> tuple[int | None, ...]:
    """Return the sizes that letters stand for."""
    sides = call.text("equation", "").replace(" ", "").partition("->")[0].split(",")
    found = {each: size for place, side in enumerate(sides) for each, size in zip(side, call.shape(place), strict=True)}
    return tuple(found[each] for each in letters)


def _arranged(call: Call, place: int, letters: str, groups: tuple[list[str], list[str], list[str]]) -> str:
    """Return an operand as (shared..., the second group, the third)."""
    shared, *others = groups
    order = tuple(letters.index(each) for group in groups for each in group)
    x = call.tensor(place)
    if order != tuple(range(len(order))):
        x = call.emit(ops.Transpose(permutation=order), x, suffix=f"turned_{place}")
    if all(len(group) == 1 for group in others):
        return x
    joined = tuple(prod(map(known, _sizes(call, group))) for group in others)
    return call.emit(ops.Reshape(shape=(*_sizes(call, shared), *joined)), x, suffix=f"joined_{place}")


def _spread(call: Call, product: str, letters: tuple[str, ...], output: str) -> str:
    """Return the product with an axis for each letter, in the output's order."""
    shape = _sizes(call, letters)
    order = tuple(letters.index(each) for each in output)
    is_last = order == tuple(range(len(order)))
    product = call.emit(ops.Reshape(shape=shape), product, suffix="" if is_last else "apart")
    return product if is_last else call.emit(ops.Transpose(permutation=order), product)


ROWS: dict[str, Row] = {"Einsum": _einsum}
