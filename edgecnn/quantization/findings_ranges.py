"""What the expected ranges of activations tell about a network's future in integers: one function for each cause."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.quantization.finding import LOSES_DB, Examined, Finding, Victim, total_db
from edgecnn.quantization.predicted_errors import STEPS, step
from edgecnn.quantization.reasons import FEW_STEPS, SWISH_MINIMUM
from edgecnn.quantization.rules import FIXED_OUTPUT, SAME_SCALE, WEIGHTED

LARGEST_HALF = 65504.0
"""The largest float16."""

LOBES: dict[type[ops.Op], float] = {ops.Swish: -SWISH_MINIMUM, ops.HardSwish: 0.375, ops.GELU: 0.17}
"""Activation -> depth of its lobe below 0. Source: x relu6(x + 3) / 6 at -1.5; x Phi(x) at -0.75."""

ADDED_DB = 8.0
"""Expected SNR at the output below which it is named.

Expected and then measured without repairs: MobileFaceNet 5 and 5, YOLOX-nano 0 and 1, MobileNet v1 0.25 with one scale
for each kernel 7 and 1; DeepLab 9 and 19, MobileNet v1 0.25 17 and 10, VWW 17 and 22, ResNet-8 20 and 23.
"""

LISTED = 5
"""Layers that are listed where all have a share."""

LONGEST_CHAIN = 4
"""Nodes from a layer to the next that a remedy takes along."""

MERGED = 1.02
"""Step of an input over the step of a pixel, from which on pixels are worth counting that become one integer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One part of a predicted error, in words."""

    cause: str
    what: str
    remedy: str


PARTS = {
    "input": Part(
        cause="channels of unlike ranges share a scale",
        what="Its input has one scale, in which its small channels round to few steps; its large weights for them show "
        "it.",
        remedy="{}",
    ),
    "output": Part(
        cause="a range far wider than what varies",
        what="A few channels set the step of its output.",
        remedy="--observer mean_squared_error, or {}",
    ),
    "kernel": Part(
        cause="rounded weights", what="Rounding its kernel alone costs more than all other rounding.", remedy="{}"
    ),
}
"""Part of a predicted error -> what it means."""


def rounding(examined: Examined) -> Iterator[Finding]:
    """Layers that are expected to lose most, by where their error comes from."""
    for part, words in PARTS.items():
        found = [error for name, error in examined.errors.items() if _is_victim(examined, name, part)]
        if not found:
            continue
        found.sort(key=lambda error: error.snr_db)
        nodes = [examined.editor.nodes[error.node] for error in found]
        yield Finding(
            severity=examined.severity(error.node for error in found),
            cause=words.cause,
            what=words.what,
            victims=tuple(
                Victim(node=error.node, figure=f"{error.snr_db:.0f} dB expected{_channels(examined, node, part)}")
                for error, node in zip(found, nodes, strict=True)
            ),
            remedy=words.remedy.format(_exact(examined, nodes, part)),
        )


def _exact(examined: Examined, nodes: list[Node], part: str) -> str:
    """Return the options that let layers lose less; what gives a rounded input has to be exact, too.

    MobileFaceNet: 4.6 dB; with its worst layer and the PReLU before it in float 5.0 dB; with the layer before that,
    too, 12.2 dB; equalized 11.7 dB.
    """
    if part != "input":
        is_avoidable = part == "kernel" and examined.scales == "tensor"
        return ("--scales channel; or " if is_avoidable else "") + examined.in_float(nodes)
    chains = [each for node in nodes for each in (*_back_to_layer(examined, node), node)]
    is_linked = bool(examined.linked.keys() & {node.name for node in nodes})
    return ("--equalize; or " if is_linked else "") + examined.in_float(chains)


def _back_to_layer(examined: Examined, node: Node) -> list[Node]:
    """Return what gives a node its input, from the layer before it on, in order."""
    chain: list[Node] = []
    giver = examined.editor.producer(node.inputs[0])
    while giver is not None and len(chain) < LONGEST_CHAIN:
        chain.insert(0, giver)
        giver = None if isinstance(giver.op, WEIGHTED) else examined.editor.producer(giver.inputs[0])
    return chain


def _is_victim(examined: Examined, name: str, part: str) -> bool:
    """Tell whether most of a low figure comes from one part; what has a fixed scale, or moves, cannot be helped."""
    error, op = examined.errors[name], examined.editor.nodes[name].op
    is_bound = isinstance(op, SAME_SCALE) or (type(op), "int8") in FIXED_OUTPUT
    return not is_bound and error.snr_db < LOSES_DB and max(error.parts, key=lambda each: error.parts[each]) == part


def _channels(examined: Examined, node: Node, part: str) -> str:
    """Return how unlike the channels are of what the error comes from."""
    moments = examined.moments.get({"input": node.inputs[0], "output": node.output}.get(part, ""))
    spans = np.zeros(1) if moments is None else moments.high - moments.low
    least = float(np.quantile(spans[spans > 0], 0.1)) if (spans > 0).any() else 0.0
    return f"; channels of its {part} span 1:{float(spans.max()) / least:.0f}" if least else ""


def adding_up(examined: Examined) -> Iterator[Finding]:
    """Errors of layers that are small on their own add up over many."""
    errors = [
        error
        for name, error in examined.errors.items()
        if (type(examined.editor.nodes[name].op), "int8") not in FIXED_OUTPUT
    ]
    total = total_db(errors)
    if total < ADDED_DB:
        yield Finding(
            severity="will lose accuracy",
            cause="many errors add up",
            what=f"{len(errors)} operators leave about {round(total)} dB at the output, if nothing is repaired.",
            victims=tuple(
                Victim(node=error.node, figure=f"{error.snr_db:.0f} dB expected")
                for error in sorted(errors, key=lambda each: each.snr_db)[:LISTED]
            ),
            remedy="--recipe static_w8_a16 where the target runs it; else the remedies for the worst layers",
        )


def lobes(examined: Examined) -> Iterator[Finding]:
    """What an activation without an upper bound reaches decides how many steps its lobe below 0 has."""
    found = []
    for node in examined.graph.nodes:
        op: Any = getattr(node.op, "activation", None) or node.op
        if type(op) in LOBES and node.output in examined.moments:
            steps = LOBES[type(op)] / max(step(examined.moments[node.output]), 1e-12)
            found.append((steps, node, type(op).__name__))
    if not found:
        return
    found.sort(key=lambda each: each[0])
    few = [each for each in found if each[0] < FEW_STEPS]
    kinds = " and ".join(sorted({kind for *_, kind in found}))
    yield Finding(
        severity=examined.severity(node.name for _, node, _ in found),
        cause=f"{kinds}: a lobe of few steps" if few else f"{kinds} has no upper bound",
        what=f"{len(found)} activations reach as far as their inputs; what lies below 0 shares the same 255 steps.",
        victims=tuple(
            Victim(
                node=node.name, figure=f"up to {examined.moments[node.output].range[1]:.3g}: {steps:.0f} steps below 0"
            )
            for steps, node, _ in (few or found[:1])
        ),
        remedy=(
            "--npu-safe (ReLU6 in its place), before training; "
            if examined.is_zoo
            else "--observer mean_squared_error; "
        )
        + "or --recipe static_w8_a16",
    )


def squeeze_excite(examined: Examined) -> Iterator[Finding]:
    """A gate over a whole image: one number for each channel, which scales all of it."""
    found = [node for node in examined.graph.nodes if isinstance(node.op, ops.Mul) and _is_gated(examined, node)]
    if found:
        found.sort(key=lambda node: examined.errors[node.name].snr_db if node.name in examined.errors else LOSES_DB)
        yield Finding(
            severity=examined.severity(node.name for node in found),
            cause="squeeze-excite",
            what=f"{len(found)} gates scale whole channels: an error of a gate is an error of all its pixels, and many "
            "accelerators leave them to the CPU.",
            victims=tuple(Victim(node=node.name, figure=_expected(examined, node)) for node in found),
            remedy="--npu-safe (without them), before training" if examined.is_zoo else "--recipe static_w8_a16",
        )


def _expected(examined: Examined, node: Node) -> str:
    error = examined.errors.get(node.name)
    return "error not predicted" if error is None else f"{error.snr_db:.0f} dB expected in 8 bits"


def _is_gated(examined: Examined, node: Node) -> bool:
    """Tell whether a product takes a picture and one number in 0..1 for each of its channels."""
    shapes = examined.graph.shapes(node.inputs)
    gates = [examined.editor.producer(name) for name in node.inputs]
    return any(
        gate is not None
        and isinstance(getattr(gate.op, "activation", None) or gate.op, ops.Sigmoid | ops.HardSigmoid)
        and len(shape) == 4
        and shape[1:3] == (1, 1) != other[1:3]
        for gate, shape, other in zip(gates, shapes, reversed(shapes), strict=True)
    )


def half_overflow(examined: Examined) -> Iterator[Finding]:
    """Sums over many positions can pass the largest float16 where a GPU or NPU computes in it (LiteRT#9249)."""
    found = []
    for node in examined.graph.nodes:
        known = examined.moments.get(node.inputs[0]) if node.inputs else None
        if known is None or not isinstance(node.op, ops.Sum | ops.Mean):
            continue
        shape = examined.graph.tensors[node.inputs[0]].shape
        count = float(np.prod([shape[axis] or 1 for axis in node.op.axes]))
        bound = count * float((np.abs(known.mean) + np.sqrt(known.variance)).max())
        if bound > LARGEST_HALF / 4:
            found.append((bound, node, f"{count:.0f} values of one image may add up to {bound:.3g}"))
    for node in examined.graph.nodes:
        reach = max(map(abs, examined.moments[node.output].range)) if node.output in examined.moments else 0.0
        if reach > LARGEST_HALF:
            found.append((reach, node, f"reaches {reach:.3g}"))
    if found:
        found.sort(key=lambda each: -each[0])
        yield Finding(
            severity="will fail" if found[0][0] > LARGEST_HALF else "worth knowing",
            cause="float16 overflow on GPUs and NPUs",
            what=f"The largest float16 is {LARGEST_HALF:.0f}; what computes in it (not the CPU, which computes float16 "
            "artifacts in float32) gives infinity from there on.",
            victims=tuple(Victim(node=node.name, figure=text) for _, node, text in found),
            remedy="ask the GPU for float32 precision; int8 is not concerned",
        )


def assumed_input(examined: Examined) -> Iterator[Finding]:
    """What is expected depends on what the network is fed with."""
    contract = examined.graph.contract
    if examined.is_assumed and contract is not None:
        low, high = (bound + 0.0 for bound in contract.input_range)  # -0.0 becomes 0
        yield Finding(
            severity="worth knowing",
            cause="input range assumed",
            what=f"The model does not say how pixels enter; {low:.0f}..{high:.0f} is assumed, where its layers are "
            "expected to lose least.",
            remedy="--contract FILE",
        )


def input_steps(examined: Examined) -> Iterator[Finding]:
    """One scale for channels that are normalised differently is wider than a pixel."""
    contract = examined.graph.contract
    if contract is None or contract.is_assumed or len(examined.graph.inputs) != 1:
        return
    low, high = contract.input_range
    ratio = (max(high, 0.0) - min(low, 0.0)) / STEPS * max(contract.std)
    if ratio > MERGED:
        yield Finding(
            severity="worth knowing",
            cause="input steps wider than a pixel",
            what=f"One scale for {low:.3g}..{high:.3g} has steps of {ratio:.2f} pixels; the smallest networks feel it.",
            victims=(Victim(node=examined.graph.inputs[0].name, figure=f"a step is {ratio:.2f} pixels"),),
            remedy="--io uint8 takes the bytes as they are",
        )
