"""What the expected ranges of activations tell about a network's future in integers: one function for each cause."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.quantization.calibration import Calibration, Statistics
from edgecnn.quantization.finding import LOSES_DB, Examined, Finding, Victim
from edgecnn.quantization.predicted_errors import STEPS, step
from edgecnn.quantization.reasons import FEW_STEPS, SWISH_MINIMUM
from edgecnn.quantization.rules import FIXED_OUTPUT, SAME_SCALE
from edgecnn.quantization.separate_ranges import LARGEST_RATIO, separate_ranges

LARGEST_HALF = 65504.0
"""The largest float16."""

LOBES: dict[type[ops.Op], float] = {ops.Swish: -SWISH_MINIMUM, ops.HardSwish: 0.375, ops.GELU: 0.17}
"""Activation -> depth of its lobe below 0. Source: x relu6(x + 3) / 6 at -1.5; x Phi(x) at -0.75."""

UNLIKE = 16.0
"""Ratio of ranges that leaves the narrower one 16 steps."""

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
        remedy="--equalize (between layers with ReLU); or {}",
    ),
    "output": Part(
        cause="a range far wider than what varies",
        what="A few channels set the step of its output.",
        remedy="--observer mean_squared_error, or {}",
    ),
    "kernel": Part(
        cause="rounded weights",
        what="Rounding its kernel alone costs more than all other rounding.",
        remedy="--bias-correction empirical (the default); or {}",
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
        givers = [examined.editor.producer(nodes[0].inputs[0])] if part == "input" else []
        yield Finding(
            severity=examined.severity(error.node for error in found),
            cause=words.cause,
            what=words.what,
            victims=tuple(
                Victim(node=error.node, figure=f"{error.snr_db:.0f} dB expected in 8 bits{_channels(examined, node)}")
                for error, node in zip(found, nodes, strict=True)
            ),
            remedy=words.remedy.format(examined.in_float([*givers, *nodes])),
        )


def _is_victim(examined: Examined, name: str, part: str) -> bool:
    """Tell whether most of a low figure comes from one part; what has a fixed scale, or moves, cannot be helped."""
    error, op = examined.errors[name], examined.editor.nodes[name].op
    is_bound = isinstance(op, SAME_SCALE) or (type(op), "int8") in FIXED_OUTPUT
    return not is_bound and error.snr_db < LOSES_DB and max(error.parts, key=lambda each: error.parts[each]) == part


def _channels(examined: Examined, node: Node) -> str:
    """Return how unlike the channels of a node's input are."""
    moments = examined.moments.get(node.inputs[0])
    if moments is None:
        return ""
    spans = moments.high - moments.low
    middle = float(np.median(spans[spans > 0])) if (spans > 0).any() else 0.0
    return f"; channels of its input span 1:{float(spans.max()) / middle:.0f}" if middle else ""


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
        severity="will lose accuracy" if few and few[0][0] < FEW_STEPS / 2 else "worth knowing",
        cause=f"{kinds}: a lobe of few steps" if few else f"{kinds} has no upper bound",
        what=f"{len(found)} activations reach as far as their inputs do, and what lies below 0 shares the same 255 steps.",
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


def unlike_sums(examined: Examined) -> Iterator[Finding]:
    """The narrow operand of a sum is rounded in the steps of the wide one's range."""
    found = []
    for node in examined.graph.nodes:
        widths = [examined.width(name) for name in node.inputs]
        if isinstance(node.op, ops.Add) and min(widths) > 0 and max(widths) / min(widths) > UNLIKE:
            open_ones = [name for name in node.inputs if not _is_bounded(examined, name)]
            text = f"ranges 1:{max(widths) / min(widths):.0f}; {len(open_ones)} of them without a bound"
            found.append((max(widths) / min(widths), node, text))
    if found:
        found.sort(key=lambda each: -each[0])
        yield Finding(
            severity=examined.severity(node.name for _, node, _ in found),
            cause="sums of unlike ranges",
            what="The sum has the wide operand's step; the narrow one is rounded in it.",
            victims=tuple(Victim(node=node.name, figure=text) for _, node, text in found),
            remedy="ReLU6 in place of unbounded activations, before training; or "
            + examined.in_float(node for _, node, _ in found),
        )


def _is_bounded(examined: Examined, tensor: str) -> bool:
    producer = examined.editor.producer(tensor)
    op = None if producer is None else getattr(producer.op, "activation", None) or producer.op
    return isinstance(op, ops.ReLU6 | ops.Clip | ops.Sigmoid | ops.HardSigmoid | ops.Tanh | ops.Softmax)


def concatenations(examined: Examined) -> Iterator[Finding]:
    """A Concat of integers has one scale for all that goes in."""
    apart = separate_ranges(examined.graph, as_calibration(examined))
    joined = [node for node in examined.graph.nodes if isinstance(node.op, ops.Concat)]
    ratios = {node.name: _ratio(examined, node) for node in joined}
    wide = sorted((node for node in joined if ratios[node.name] > LARGEST_RATIO), key=lambda n: -ratios[n.name])
    at_output, inside = ([node for node in wide if (node.name in apart.nodes) is there] for there in (True, False))
    if at_output:
        yield Finding(
            severity="worth knowing",
            cause="unlike outputs in one tensor",
            what="Boxes beside scores, say: in one scale the narrow ones lose most steps. With float outputs they are "
            "put together in float; integer outputs (--io int8, uint8) have one scale, and will fail.",
            victims=tuple(Victim(node=node.name, figure=_parts(examined, node)) for node in at_output),
            remedy="--separate-ranges (the default) with --io float32; for integer outputs --outputs "
            + ",".join(at_output[0].inputs[:3]),
        )
    if inside:
        is_lossy = ratios[inside[0].name] > STEPS / FEW_STEPS
        yield Finding(
            severity="will lose accuracy" if is_lossy else "worth knowing",
            cause="concatenation of unlike ranges",
            what="All that it joins shares one scale, and layers read the result.",
            victims=tuple(Victim(node=node.name, figure=_parts(examined, node)) for node in inside),
            remedy=examined.in_float(inside),
        )


def as_calibration(examined: Examined) -> Calibration:
    """Return the expected ranges in the form in which a calibration has the observed ones."""
    statistics = {
        name: Statistics(
            low=found.range[0],
            high=found.range[1],
            minimum=found.low,
            maximum=found.high,
            mean=found.mean,
            variance=found.variance,
        )
        for name, found in examined.moments.items()
    }
    return Calibration(
        statistics=statistics,
        images=0,
        origin="the weights",
        is_random=False,
        backend="none",
        observer="predicted",
        convergence={},
    )


def _widths(examined: Examined, node: Node) -> list[float]:
    """Return the widths of what a Concat joins; operators with a fixed scale have that one's."""
    widths = []
    for name in node.inputs:
        producer = examined.editor.producer(name)
        fixed = None if producer is None else FIXED_OUTPUT.get((type(producer.op), "int8"))
        widths.append(examined.width(name) if fixed is None else fixed.scale[0] * STEPS)
    return [width for width in widths if width > 0]


def _ratio(examined: Examined, node: Node) -> float:
    widths = _widths(examined, node)
    return max(widths) / min(widths) if widths else 1.0


def _parts(examined: Examined, node: Node) -> str:
    widths = _widths(examined, node)
    return f"ranges {min(widths):.3g} to {max(widths):.3g} wide: the narrowest keeps {STEPS * min(widths) / max(widths):.0f} steps"


def padding(examined: Examined) -> Iterator[Finding]:
    """What pads lies in the range that it pads, or widens it."""
    found = []
    for node in examined.graph.nodes:
        op: Any = node.op
        known = examined.moments.get(node.inputs[0]) if isinstance(op, ops.Pad) and op.mode == "constant" else None
        if known is None or known.range[0] <= op.value <= known.range[1]:
            continue
        low, high = known.range
        grown = (max(high, op.value) - min(low, op.value)) / max(high - low, 1e-12)
        found.append((grown, node, f"pads {low:.3g}..{high:.3g} with {op.value:.3g}: {STEPS / grown:.0f} steps are left"))
    if found:
        found.sort(key=lambda each: -each[0])
        is_lost, is_narrow = found[0][0] > STEPS / FEW_STEPS, found[0][0] > 2
        yield Finding(
            severity="will fail" if is_lost else "will lose accuracy" if is_narrow else "worth knowing",
            cause="padding outside the range",
            what="One scale holds the values and what pads them.",
            victims=tuple(Victim(node=node.name, figure=text) for _, node, text in found),
            remedy=examined.in_float(node for _, node, _ in found),
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
            what=f"One scale for {low:.3g}..{high:.3g} has steps of {ratio:.2f} pixels, which the smallest networks feel.",
            victims=(Victim(node=examined.graph.inputs[0].name, figure=f"a step is {ratio:.2f} pixels"),),
            remedy="--io uint8 takes the bytes as they are",
        )


CAUSES: tuple[Callable[[Examined], Iterator[Finding]], ...] = (
    *(rounding, lobes, squeeze_excite, unlike_sums, concatenations, padding, half_overflow, input_steps),
)
"""In the order in which findings of like severity are shown."""
