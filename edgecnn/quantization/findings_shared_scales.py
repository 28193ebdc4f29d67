"""What shares one scale although its ranges are unlike: sums, concatenations, padding; one function for each cause."""

from collections.abc import Iterator
from typing import Any

from edgecnn import ops
from edgecnn.graph import Node
from edgecnn.quantization.calibration import Calibration, Statistics
from edgecnn.quantization.finding import Examined, Finding, Victim
from edgecnn.quantization.predicted_errors import STEPS
from edgecnn.quantization.reasons import FEW_STEPS
from edgecnn.quantization.rules import FIXED_OUTPUT
from edgecnn.quantization.separate_ranges import LARGEST_RATIO, separate_ranges

UNLIKE = 16.0
"""Ratio of ranges that leaves the narrower one 16 steps."""


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
            "put together in float; integer outputs (--io int8, uint8) have one scale.",
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
    kept = STEPS * min(widths) / max(widths)
    return f"ranges {min(widths):.3g} to {max(widths):.3g} wide: the narrowest keeps {kept:.0f} steps"


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
        found.append(
            (grown, node, f"pads {low:.3g}..{high:.3g} with {op.value:.3g}: {STEPS / grown:.0f} steps are left")
        )
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
