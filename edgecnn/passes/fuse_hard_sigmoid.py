"""Write the decomposed hard sigmoid as one operator: relu6(x + 3) / 6 = clip(x / 6 + 0.5, 0, 1) = hard_sigmoid(x)."""

from edgecnn.ops import Add, Clip, Div, HardSigmoid, Minimum, Mul
from edgecnn.passes.pattern import apply, becomes, clipped, either, fusion, leaf, number, product

X = leaf("x")
RELU6_OF_3_MORE = clipped(apply(Add, X, number(3)), 0, 6)

PASS = fusion(
    name="fuse_hard_sigmoid",
    roots=(Mul, Div, Clip, Minimum),
    pattern=either(product(1 / 6, RELU6_OF_3_MORE), clipped(apply(Add, product(1 / 6, X), number(0.5)), 0, 1)),
    make=becomes(HardSigmoid()),
)
