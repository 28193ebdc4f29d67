"""A Hypothesis strategy that builds small valid Graphs over the whole vocabulary.

Structure and attributes are drawn; constants are seeded normal numbers, so that nothing lies exactly on a threshold.
"""

from dataclasses import replace
from typing import cast

from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.contract import Layout
from edgecnn.errors import ShapeError
from edgecnn.graph import Graph, Port
from edgecnn.passes.store_float16 import store_float16
from edgecnn.ports import LAYOUT_RANK
from tests.random_steps import ACTIVATIONS, STEPS, Draw, RandomBuilder, Step

LARGEST = 4096
"""Elements of a tensor."""

UNARY: dict[str, Step] = {str(op): lambda b, x, draw, op=op: b.then(op, x) for op in ACTIVATIONS}  # type: ignore[misc]
OF_LAYOUT = (
    *("transpose", "transpose", "reshape", "reshape", "rejoin", "rejoin", "conv", "pool", "resize", "dense", "concat"),
    *("split", "slice", "gather", "reduction", "arithmetic", "prelu", "norm", "mat_mul", "tile", "pad", "where"),
    "second_input",
)
"""Steps that ask in which order a tensor is held."""

NAMES = st.one_of(st.sampled_from(OF_LAYOUT), st.sampled_from([*STEPS, *UNARY]))

INPUTS = (
    *((1, 6, 5, 4), (1, 8, 8, 3), (1, 4, 7, 6), (None, 5, 6, 4), (2, 6, 4, 4), (1, 6, 6, 1)),
    *((1, 7, 4), (None, 6, 8), (1, 12), (None, 10), (1, 4, 5, 3, 2), (None, 3, 4, 4, 2)),
)


@st.composite
def graphs(draw: Draw) -> Graph:
    """Draw a Graph of one or two inputs and one to three float32 outputs."""
    b = RandomBuilder(draw(st.integers(0, 2**16)))
    x = b.input("image", draw(st.sampled_from(INPUTS)))
    inner = x
    for _ in range(draw(st.integers(1, 10))):
        found = _stepped(b, x, draw)
        if len(b.shape(found)) > 1 and ops.elements(b.shape(found)) <= LARGEST:
            inner, x = x, found
    outputs = {"result": b.then(ops.ReLU(), x) if x == "image" else x}
    if inner not in ("image", x) and draw(st.booleans()):
        outputs["inner"] = inner
    if draw(st.integers(0, 19)) == 0:
        outputs["fed"] = "image"
    graph = _with_layouts(b.finish(outputs), draw)
    return store_float16(graph) if draw(st.integers(0, 7)) == 0 else graph


def _stepped(b: RandomBuilder, x: str, draw: Draw) -> str:
    """Take one step: the first of three that has a form for this tensor."""
    for name in draw(st.lists(NAMES, min_size=3, max_size=3)):
        try:
            found = {**STEPS, **UNARY}[name](b, x, draw)
        except ShapeError:
            continue
        if found != x:
            return found
    return x


def _with_layouts(graph: Graph, draw: Draw) -> Graph:
    """Choose a layout for a port here and there."""

    def chosen(port: Port) -> Port:
        if len(graph.tensors[port.tensor].shape) < LAYOUT_RANK:
            return port
        layouts = (None, None, None, "NHWC", "NCHW")
        return replace(port, layout=cast(Layout | None, draw(st.sampled_from(layouts))))

    return replace(graph, inputs=tuple(map(chosen, graph.inputs)), outputs=tuple(map(chosen, graph.outputs)))
