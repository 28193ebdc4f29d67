"""Write the decomposed GELU as one operator, exact or approximate.

    gelu(x) = x / 2 * (1 + erf(x / sqrt(2)))
            ~ x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 x^3)))

Source: Hendrycks and Gimpel, arXiv:1606.08415, section 2.
"""

from dataclasses import replace
from math import pi, sqrt

from edgecnn.graph import Node
from edgecnn.ops import GELU, Add, Div, Erf, Mul, Tanh
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.pattern import Found, apply, either, fusion, leaf, number, product

X = leaf("x")
CUBIC = either(
    product(sqrt(2 / pi), apply(Add, X, product(0.044715, X, X, X))),
    product(sqrt(2 / pi), X, apply(Add, number(1), product(0.044715, X, X))),
)
GATE = either(apply(Erf, product(1 / sqrt(2), X)), apply(Tanh, CUBIC))


def make(editor: GraphEditor, node: Node, found: Found) -> Node:
    """Return the GELU that the expression is."""
    is_approximate = any(isinstance(editor.nodes[each].op, Tanh) for each in found.nodes)
    return replace(node, op=GELU(approximate=is_approximate), inputs=(found.tensors["x"],))


PASS = fusion(name="fuse_gelu", roots=(Mul, Div), pattern=product(0.5, X, apply(Add, number(1), GATE)), make=make)
