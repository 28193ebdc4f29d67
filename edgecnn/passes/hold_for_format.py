"""Hold a Graph's tensors in the order that a format stores them in, and its ports in the order that callers see.

The Graph is channels last; ONNX and OpenVINO define windows (convolution, pooling, resizing) channels first only. The
walk of `settle_layout` does the work: a window holds its image as (N, C, spatial...), everything else follows or
insists, and what Transposes are left stand in the result as nodes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from edgecnn import ops
from edgecnn.graph import Graph, Node, Port
from edgecnn.passes.axis_order import Order, channels_first, identity, inverse, turned
from edgecnn.passes.layout_rules import RULES, Rule, Turned
from edgecnn.passes.settle_layout import Settler
from edgecnn.shapes import Shape

WINDOWS = (
    *(ops.Conv, ops.ConvTranspose, ops.MaxPool, ops.AveragePool, ops.LRN, ops.GroupNorm),
    *(ops.Resize, ops.DepthToSpace, ops.SpaceToDepth),
)
"""Operators over space and channels."""

OVER_CHANNELS = (ops.Softmax, ops.LayerNorm, ops.L2Normalize)
"""Operators over the last axis, which a format can be told to be another one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChannelsFirst(ops.Op):
    """An operator whose first operand and outputs are held channels first; its constants are the Graph's.

    Attributes:
        op: With the Graph's attributes.
    """

    op: ops.Op

    @property
    def operands(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the inputs, as the operator's own."""
        return self.op.operands

    def output_shapes(self, shapes: Sequence[Shape]) -> tuple[Shape, ...]:
        """Return the held shapes of the outputs."""
        found = self.op.output_shapes((turned(shapes[0], _last(shapes[0])), *shapes[1:]))
        return tuple(turned(shape, channels_first(len(shape))) for shape in found)

    def output_dtype(self, dtypes: Sequence[str]) -> str:
        """Return the operator's own."""
        return self.op.output_dtype(dtypes)


def _last(shape: Sequence[object]) -> Order:
    """Return the order that gives (N, spatial..., C) from what is held channels first."""
    return inverse(channels_first(len(shape)))


def _window(s: Settler, node: Node) -> Turned:
    order = _last(s.shape(node.inputs[0]))
    constants = tuple(s.held_as(name, identity(len(s.shape(name)))) for name in node.inputs[1:])
    inputs = (s.held_as(node.inputs[0], order), *constants)
    return Turned(op=ChannelsFirst(op=node.op), inputs=inputs, order=order)


def _over_channels(s: Settler, node: Node) -> Turned | None:
    """Stay where the channels are: first, last, or else turned to the last place."""
    order = s.view(node.inputs[0]).order
    return _window(s, node) if len(order) > 2 and order == _last(order) else RULES[type(node.op)](s, node)


CHANNELS_FIRST: dict[type[ops.Op], Rule] = {
    **RULES,
    **dict.fromkeys(WINDOWS, _window),
    **dict.fromkeys(OVER_CHANNELS, _over_channels),
}
"""Operator -> how it is written for a format that stores windows channels first."""


def hold_for_format(graph: Graph, is_first: Callable[[Port], bool], *, windows_first: bool) -> Graph:
    """Return the Graph as a format stores it: shapes, attributes and constants in the held order, Transposes as nodes.

    Args:
        graph: A deployed Graph.
        is_first: Tells whether callers see a port channels first.
        windows_first: Whether the format's windows are channels first (ONNX, OpenVINO) or last (TFLite).
    """
    settler = Settler(graph, CHANNELS_FIRST, first=WINDOWS) if windows_first else Settler(graph)

    def outside(port: Port) -> Order:
        shape = graph.tensors[port.tensor].shape
        return _last(shape) if is_first(port) else identity(len(shape))

    for port in graph.inputs:
        settler.open(port.tensor, outside(port))
    settler.walk()
    outputs = tuple(replace(port, tensor=settler.held_as(port.tensor, outside(port))) for port in graph.outputs)
    return settler.finish(graph.inputs, outputs)
