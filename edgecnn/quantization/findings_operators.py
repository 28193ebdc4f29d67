"""What a network's operators tell about its future in integers, and where they run: one function for each cause."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from edgecnn import ops
from edgecnn.graph import Graph, Node
from edgecnn.quantization.finding import Examined, Finding, Victim
from edgecnn.quantization.rules import INTEGER_OPERATORS

MOST_JOINED = 5
"""Operands of a CONCATENATION that XNNPACK takes."""

LARGEST_MEAN = 4096
"""Positions of a MEAN that Ethos-U takes where the scales of input and output differ."""

Fits = Callable[[Graph, Node], bool]


def floating(examined: Examined) -> Iterator[Finding]:
    """Operators that no format computes in integers stay float, between Dequantize and Quantize."""
    found = [
        node
        for node in examined.prepared.nodes
        if not isinstance(node.op, INTEGER_OPERATORS["int8"] + NO_ARITHMETIC) and _is_float(examined.prepared, node)
    ]
    if found:
        kinds = sorted({_kind(node) for node in found})
        yield Finding(
            severity="worth knowing",
            cause="operators that stay float",
            what=f"{', '.join(kinds)}: no precision is lost there, but each costs a Dequantize before and a Quantize "
            "behind (TFLite, ONNX Runtime, OpenVINO), and an NPU hands it to the CPU.",
            victims=_of_kinds(found),
            remedy="cut them off with --outputs where they end the network; else let the app compute them",
        )


NO_ARITHMETIC = (ops.Cast, ops.Quantize, ops.Dequantize)


def _is_float(graph: Graph, node: Node) -> bool:
    return any(graph.tensors[name].dtype == "float32" for name in (*node.inputs, *node.outputs))


def _kind(node: Node) -> str:
    return node.op.kind if isinstance(node.op, ops.Opaque) else node.kind


def _of_kinds(nodes: Iterable[Node]) -> tuple[Victim, ...]:
    return tuple(Victim(node=node.name, figure=_kind(node)) for node in nodes)


def unknown(examined: Examined) -> Iterator[Finding]:
    """What the Graph does not know cannot be converted at all."""
    found = [node for node in examined.graph.nodes if isinstance(node.op, ops.Opaque)]
    if found:
        yield Finding(
            severity="will fail",
            cause="operators that are not known",
            what="The network can be listed, not converted or quantized.",
            victims=_of_kinds(found),
            remedy="--outputs ends the network before them",
        )


def probabilities(examined: Examined) -> Iterator[Finding]:
    """What ends in 0..1 has 256 steps there, which hide small scores."""
    found = []
    for port in examined.graph.outputs:
        node = examined.editor.producer(port.tensor)
        while node is not None and isinstance(node.op, ops.Reshape):
            node = examined.editor.producer(node.inputs[0])
        op = None if node is None else getattr(node.op, "activation", None) or node.op
        if node is not None and isinstance(op, ops.Softmax | ops.Sigmoid):
            found.append((node, type(op).__name__))
    if found:
        before = found[0][0].inputs[0]
        yield Finding(
            severity="worth knowing",
            cause="probabilities at the output",
            what="Steps are 1/256 there: a score below 0.002 is 0, and ranks among small scores are lost. Compare "
            "artifacts at logits.",
            victims=tuple(Victim(node=node.name, figure=f"{kind} ends the network") for node, kind in found),
            remedy="--head logits" if examined.is_zoo else f"--outputs {before}; the app computes the rest",
        )


def float16_constants(examined: Examined) -> Iterator[Finding]:
    """Constants that are float16 already have lost what 8 bits would not show."""
    found = [node for node in examined.read.nodes if _is_half(examined.read, node)]
    if found:
        yield Finding(
            severity="worth knowing",
            cause="float16 already",
            what=f"{len(found)} layers have float16 weights: quantizing starts from rounded numbers (by about 0.05 %, "
            "far below a step of 8 bits).",
            victims=tuple(Victim(node=node.name, figure="float16 kernel") for node in found),
            remedy="none is needed; the float32 original is the better source",
        )


def _is_half(graph: Graph, node: Node) -> bool:
    kernel = graph.constant(node, "kernel")
    return kernel is not None and kernel.data is not None and str(kernel.data.dtype) == "float16"


def transposed(examined: Examined) -> Iterator[Finding]:
    """Where the kernel is no multiple of the stride, pixels are sums of different numbers of products."""
    found = []
    for node in examined.graph.nodes:
        op: Any = node.op
        if isinstance(op, ops.ConvTranspose):
            size = examined.graph.tensors[node.inputs[1]].shape[: len(op.stride)]
            uneven = any((length or 0) % stride for length, stride in zip(size, op.stride, strict=True))
            shown = "x".join(map(str, size)), "x".join(map(str, op.stride))
            grid = "; no multiple, so that errors of rounding form a grid" if uneven else ""
            found.append((not uneven, node, f"kernel {shown[0]}, stride {shown[1]}{grid}"))
    if found:
        found.sort(key=lambda each: each[0])
        yield Finding(
            severity="worth knowing",
            cause="transposed convolutions",
            what="Each runtime has a kernel of its own for them, and NPUs take stride 2 at most.",
            victims=tuple(Victim(node=node.name, figure=text) for _, node, text in found),
            remedy="verify every artifact; before training, a resize and a convolution do the same",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """What a runtime does not take in int8.

    Attributes:
        text: What, in the runtime's words.
        is_outside: Tells of a node of the prepared Graph.
    """

    text: str
    is_outside: Fits


def _kinds(*kinds: type[ops.Op]) -> Fits:
    return lambda graph, node: isinstance(node.op, kinds)


def _spatial(graph: Graph, node: Node) -> list[int]:
    """Return the height and width of a node's input."""
    return [size or 1 for size in graph.tensors[node.inputs[0]].shape[1:-1]]


def _is_large_mean(graph: Graph, node: Node) -> bool:
    op: Any = node.op
    shape = graph.tensors[node.inputs[0]].shape
    count = 1
    for axis in getattr(op, "axes", ()):
        count *= shape[axis] or 1
    return isinstance(op, ops.Mean) and count > LARGEST_MEAN


def _is_odd_resize(graph: Graph, node: Node) -> bool:
    op: Any = node.op
    if not isinstance(op, ops.Resize):
        return False
    ratios = {new / old for new, old in zip(op.size, _spatial(graph, node), strict=False)}
    return not (len(ratios) == 1 and ratios <= {1.0, 2.0, 4.0, 8.0})


def _has_long_stride(graph: Graph, node: Node) -> bool:
    return isinstance(node.op, ops.Conv) and max(node.op.stride) > 3


XNNPACK = (
    Rule(text="RELU and RELU6 on their own", is_outside=_kinds(ops.ReLU, ops.ReLU6)),
    Rule(text="AVERAGE_POOL_2D", is_outside=_kinds(ops.AveragePool)),
    Rule(
        text="SOFTMAX of pictures",
        is_outside=lambda graph, node: isinstance(node.op, ops.Softmax) and len(graph.tensors[node.output].shape) > 2,
    ),
    Rule(text="PRELU", is_outside=_kinds(ops.PReLU)),
    Rule(text="GELU", is_outside=_kinds(ops.GELU)),
    Rule(text="MAXIMUM", is_outside=_kinds(ops.Maximum)),
    Rule(text="GATHER", is_outside=_kinds(ops.Gather)),
    Rule(text="ARG_MAX", is_outside=_kinds(ops.ArgMax)),
    Rule(text="L2_NORMALIZATION", is_outside=_kinds(ops.L2Normalize)),
    Rule(
        text=f"CONCATENATION of more than {MOST_JOINED}",
        is_outside=lambda graph, node: isinstance(node.op, ops.Concat) and len(node.inputs) > MOST_JOINED,
    ),
    Rule(text="operators that stay float", is_outside=_kinds(ops.Div, ops.Exp, ops.Log, ops.Sqrt, ops.Pow, ops.LRN)),
)
"""What LiteRT 2.3's XNNPACK leaves to slower kernels in int8; found by running each operator."""

ETHOS_U = (
    Rule(
        text="operators without integers",
        is_outside=lambda graph, node: not isinstance(node.op, INTEGER_OPERATORS["int8"]),
    ),
    Rule(text=f"MEAN over more than {LARGEST_MEAN} positions", is_outside=_is_large_mean),
    Rule(text="RESIZE by another factor than 2, 4 or 8", is_outside=_is_odd_resize),
    Rule(text="convolutions of stride above 3", is_outside=_has_long_stride),
    Rule(
        text="tensors of more than 4 axes",
        is_outside=lambda graph, node: any(len(shape) > 4 for shape in graph.shapes(node.outputs)),
    ),
)
"""What Arm's compiler leaves to the CPU. Source: Vela 3.6, SUPPORTED_OPS.md."""


def _placed(examined: Examined, rules: Iterable[Rule]) -> tuple[Victim, ...]:
    graph = examined.prepared
    return tuple(
        Victim(node=node.name, figure=rule.text)
        for rule in rules
        for node in graph.nodes
        if rule.is_outside(graph, node)
    )


def outside_xnnpack(examined: Examined) -> Iterator[Finding]:
    """What LiteRT's fast CPU kernels do not take in int8."""
    what = "LiteRT runs them in slower kernels on the CPU, between its fast ones."
    return _outside(
        examined, "XNNPACK", XNNPACK, what, _npu_safe(examined, "none is needed; edgecnn bench tells what they cost")
    )


def outside_npu(examined: Examined) -> Iterator[Finding]:
    """What Ethos-U does not take in int8."""
    what = "an Ethos-U leaves them to the CPU, and others are stricter still."
    remedy = _npu_safe(examined, "change them before training") + ", with --io int8"
    return _outside(examined, "Ethos-U", ETHOS_U, what, remedy)


def _outside(examined: Examined, place: str, rules: Iterable[Rule], what: str, remedy: str) -> Iterator[Finding]:
    """Yield what the rules of a place keep outside it."""
    victims = _placed(examined, rules)
    if victims:
        yield Finding(
            severity="worth knowing",
            cause=f"int8 outside {place}",
            what=f"{_texts(victims)}: {what}",
            victims=victims,
            remedy=remedy,
        )


def _texts(victims: Iterable[Victim]) -> str:
    return ", ".join(dict.fromkeys(victim.figure for victim in victims))


def _npu_safe(examined: Examined, otherwise: str) -> str:
    is_curable = any(isinstance(node.op, ops.Swish | ops.HardSwish | ops.LRN) for node in examined.graph.nodes)
    return "--npu-safe, before training" if examined.is_zoo and is_curable else otherwise
