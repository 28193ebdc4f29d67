"""Write the decomposed leaky rectifier as one operator: PReLU, or LeakyReLU where the slope is one number.

    prelu(x) = relu(x) + slope * (x - |x|) / 2 = relu(x) - slope * relu(-x) = relu(x) + slope * min(x, 0)
             = max(x, slope * x), where 0 <= slope <= 1

The second is how Keras computes it, and what its TFLite files hold.
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import Abs, Add, LeakyReLU, Maximum, Minimum, PReLU, Sub
from edgecnn.passes.editor import GraphEditor
from edgecnn.passes.pattern import Found, Pattern, apply, clipped, either, fusion, leaf, number, product

SLOPES = {"slope": 1.0, "minus_slope": -1.0, "half_slope": 2.0, "leak": 1.0}
"""Name in the patterns -> what makes the slope of it."""

X = leaf("x")
POSITIVE = clipped(X, 0)
MIRRORED = clipped(product(-1, X), 0)
TWICE_NEGATIVE = apply(Sub, X, apply(Abs, X))
NEGATIVE = apply(Minimum, X, number(0))


def _scaled(name: str, inner: Pattern) -> Pattern:
    """A number, or a constant of several numbers, times the inner value."""
    return either(product(name, inner), product(1, leaf(name, is_constant=True), inner))


def _spelled(name: str, found: Found) -> bool:
    return name in found.numbers or name in found.tensors


def check(editor: GraphEditor, found: Found) -> str | None:
    """Return why the operator cannot say it."""
    leak = found.numbers.get("leak", 0.0)
    if not 0 <= leak <= 1:
        return f"the larger of x and {leak:g} x is no leaky rectifier"
    tensors = [tensor for name, tensor in found.tensors.items() if name in SLOPES]
    shape, image = editor.tensors[tensors[0]].shape if tensors else (), editor.tensors[found.tensors["x"]].shape
    return "its slopes differ between pictures" if len(shape) == len(image) and shape[:1] != (1,) else None


def make(editor: GraphEditor, node: Node, found: Found) -> Node:
    """Return the LeakyReLU or PReLU."""
    x, name = found.tensors["x"], next(name for name in SLOPES if _spelled(name, found))
    if name in found.numbers:
        return replace(node, op=LeakyReLU(slope=SLOPES[name] * found.numbers[name]), inputs=(x,))
    slope = editor.tensors[found.tensors[name]]
    values = slope.value() * slope.value().dtype.type(SLOPES[name])
    while values.ndim > 1 and len(values) == 1:
        values = values[0]
    return replace(node, op=PReLU(), inputs=(x, editor.add_constant(f"{node.name}/slope", values)))


PASS = fusion(
    name="fuse_prelu",
    roots=(Add, Sub, Maximum),
    pattern=either(
        apply(Add, POSITIVE, _scaled("half_slope", TWICE_NEGATIVE)),
        apply(Add, POSITIVE, product(0.5, leaf("slope", is_constant=True), TWICE_NEGATIVE)),
        apply(Add, POSITIVE, _scaled("minus_slope", MIRRORED)),
        apply(Add, POSITIVE, product(-1, leaf("slope", is_constant=True), MIRRORED)),
        apply(Sub, POSITIVE, _scaled("slope", MIRRORED)),
        apply(Add, POSITIVE, _scaled("slope", NEGATIVE)),
        apply(Maximum, X, product("leak", X)),
    ),
    make=make,
    check=check,
)
