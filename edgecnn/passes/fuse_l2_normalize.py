"""Write the decomposed normalisation to length one as one operator.

    x / max(sqrt(sum(x^2)), epsilon)  =  x * rsqrt(max(sum(x^2), epsilon^2))

over the last axis. PyTorch's functional.normalize exports the first (and spreads the norm with an Expand, a Tile here),
tf.math.l2_normalize the second.
"""

from dataclasses import replace
from math import sqrt

from edgecnn.graph import Node
from edgecnn.ops import Div, L2Normalize, Mul, Rsqrt, Sqrt, Sum, Tile
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.pattern import Found, apply, clipped, either, fusion, leaf, product
from edgecnn.shapes import Shape


def _keeps_last(op: Sum, shape: Shape) -> bool:
    return op.keep_dims and op.axes == (len(shape) - 1,)


def _spreads_last(op: Tile, shape: Shape) -> bool:
    return all(times == 1 for times in op.multiples[:-1])


X = leaf("x")
ENERGY = apply(Sum, product(1, X, X), when=_keeps_last)
NORM = clipped(apply(Sqrt, ENERGY), "epsilon")
LIMITED = clipped(ENERGY, "squared_epsilon")


def check(editor: GraphEditor, found: Found) -> str | None:
    """Return why the operator cannot say it."""
    return None if all(value > 0 for value in found.numbers.values()) else "its epsilon is not positive"


def make(editor: GraphEditor, node: Node, found: Found) -> Node:
    """Return the L2Normalize."""
    epsilon = found.numbers.get("epsilon") or sqrt(found.numbers["squared_epsilon"])
    return replace(node, op=L2Normalize(epsilon=epsilon), inputs=(found.tensors["x"],))


PASS = fusion(
    name="fuse_l2_normalize",
    roots=(Div, Mul),
    pattern=either(
        apply(Div, X, NORM),
        apply(Div, X, apply(Tile, NORM, when=_spreads_last)),
        apply(Div, X, apply(Sqrt, LIMITED)),
        product(1, X, apply(Rsqrt, LIMITED)),
    ),
    make=make,
    check=check,
)
