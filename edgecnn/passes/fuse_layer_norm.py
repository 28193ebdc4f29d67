"""Write the decomposed normalisation of each position's channels as one operator.

    c = x - mean(x)     layer_norm(x) = c / sqrt(mean(c^2) + epsilon)

over the last axis. The Mul and Add of gamma and beta that follow it are folded into it like those behind a convolution
(fold_scale_into_layer). TensorFlow spells it with gamma and beta inside:

    x r + (beta - mean(x) r),  r = gamma / sqrt(mean(c^2) + epsilon)
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Node
from edgecnn.ops import Add, Div, LayerNorm, Mean, Mul, Pow, Rsqrt, Sqrt, Sub, known
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.pattern import Found, apply, either, fusion, leaf, number, product
from edgecnn.shapes import Shape


def _keeps_last(op: Mean, shape: Shape) -> bool:
    return op.keep_dims and op.axes == (len(shape) - 1,)


X = leaf("x")
GAMMA, BETA = leaf("gamma", is_constant=True), leaf("beta", is_constant=True)
MEAN = apply(Mean, X, when=_keeps_last)
CENTRED = apply(Sub, X, MEAN)
VARIANCE = apply(Mean, product(1, CENTRED, CENTRED), when=_keeps_last)
SPREAD = apply(Add, VARIANCE, number("epsilon"))
ROOT = either(apply(Sqrt, SPREAD), apply(Pow, SPREAD, number(0.5)))
INVERSE = either(apply(Rsqrt, SPREAD), apply(Div, number(1), ROOT), apply(Pow, SPREAD, number(-0.5)))


def check(editor: GraphEditor, found: Found) -> str | None:
    """Return why the operator cannot say it."""
    if found.numbers["epsilon"] <= 0:
        return "its epsilon is not positive"
    channels = known(editor.tensors[found.tensors["x"]].shape[-1])
    for name in ("gamma", "beta"):
        shape = editor.tensors[found.tensors[name]].shape if name in found.tensors else ()
        if shape and (shape[-1] not in (1, channels) or set(shape[:-1]) - {1}):
            return f"its {name} is not one number for each channel"
    return None


def make(editor: GraphEditor, node: Node, found: Found) -> Node:
    """Return the LayerNorm, with the gamma and beta of the expression or with ones and zeros."""
    x = found.tensors["x"]
    channels = known(editor.tensors[x].shape[-1])
    names = []
    for operand, default in (("gamma", 1.0), ("beta", 0.0)):
        given = found.tensors.get(operand)
        values = np.full(channels, default) if given is None else editor.tensors[given].value().ravel()
        data = np.array(np.broadcast_to(values, channels), editor.tensors[x].dtype)
        names.append(editor.add_constant(f"{node.name}/{operand}", data))
    return replace(node, op=LayerNorm(epsilon=found.numbers["epsilon"]), inputs=(x, *names))


PASS = fusion(
    name="fuse_layer_norm",
    roots=(Add, Sub, Mul, Div),
    pattern=either(
        apply(Div, CENTRED, ROOT),
        product(1, CENTRED, INVERSE),
        apply(Add, product(1, X, INVERSE, GAMMA), apply(Sub, BETA, product(1, MEAN, INVERSE, GAMMA))),
        apply(Add, product(1, X, INVERSE), apply(Sub, BETA, product(1, MEAN, INVERSE))),
    ),
    make=make,
    check=check,
)
