"""Write x * sigmoid(x) as the one operator that it is: Swish, also called SiLU."""

from edgecnn.ops import Mul, Sigmoid, Swish
from edgecnn.passes.pattern import apply, becomes, fusion, leaf, product

X = leaf("x")

PASS = fusion(name="fuse_swish", roots=(Mul,), pattern=product(1, X, apply(Sigmoid, X)), make=becomes(Swish()))
