"""Write the decomposed hard swish as one operator: x * relu6(x + 3) / 6 = x * hard_sigmoid(x) = hard_swish(x).

PyTorch exports it as Add, Clip, Mul, Div; TFLite files hold the ReLU6 inside the ADD.
"""

from edgecnn.ops import Div, HardSigmoid, HardSwish, Mul
from edgecnn.passes.fuse_hard_sigmoid import RELU6_OF_3_MORE
from edgecnn.passes.pattern import TOLERANCE, apply, becomes, either, fusion, leaf, product
from edgecnn.shapes import Shape

X = leaf("x")


def _is_sixth(op: HardSigmoid, shape: Shape) -> bool:
    return abs(op.slope * 6 - 1) <= TOLERANCE and abs(op.offset - 0.5) <= TOLERANCE


PASS = fusion(
    name="fuse_hard_swish",
    roots=(Mul, Div),
    pattern=either(product(1 / 6, X, RELU6_OF_3_MORE), product(1, X, apply(HardSigmoid, X, when=_is_sixth))),
    make=becomes(HardSwish()),
)
