"""Diagnose: what a float network alone tells about its accuracy and its speed in 8-bit integers.

Each cause of trouble is one function from the network, with what is expected of its activations (predicted_moments) and
of its layers' errors (predicted_errors), to findings. No image is needed, so that everything here is a prediction;
`layer_errors` measures.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from math import inf
from typing import get_args

from edgecnn.assume import RANGES, first_guess
from edgecnn.graph import Graph, Node
from edgecnn.ops import BatchNorm
from edgecnn.passes.deploy import Deployment, deploy
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization import findings_operators, findings_ranges, findings_shared_scales, findings_weights
from edgecnn.quantization.channel_links import Link, find_link
from edgecnn.quantization.finding import Examined, Finding, Severity, Victim, total_db
from edgecnn.quantization.predicted_errors import PredictedError, predicted_errors
from edgecnn.quantization.predicted_moments import Moments, predicted_moments
from edgecnn.quantization.prepare import prepared
from edgecnn.quantization.recipe import Spread
from edgecnn.quantization.recognize import recognize
from edgecnn.quantization.rules import WEIGHTED

Cause = Callable[[Examined], Iterator[Finding]]

CAUSES: tuple[Cause, ...] = (
    *(findings_operators.unknown, findings_weights.broken_weights),
    *(findings_weights.random_weights, findings_operators.float16_constants),
    *(findings_weights.weight_spread, findings_ranges.rounding, findings_ranges.adding_up, findings_weights.outliers),
    *(findings_shared_scales.concatenations, findings_shared_scales.padding, findings_shared_scales.unlike_sums),
    *(findings_ranges.lobes, findings_ranges.squeeze_excite, findings_weights.high_bias, findings_weights.mean_shift),
    *(findings_weights.unfolded_batch_norms, findings_weights.dead_channels, findings_operators.transposed),
    *(findings_ranges.assumed_input, findings_ranges.input_steps, findings_ranges.half_overflow),
    findings_operators.probabilities,
    *(findings_operators.floating, findings_operators.outside_xnnpack, findings_operators.outside_npu),
)
"""In the order in which findings of one severity are shown."""


OF_TRAINED: tuple[Cause, ...] = (
    *(findings_ranges.rounding, findings_ranges.adding_up, findings_ranges.half_overflow),
    *(findings_weights.mean_shift, findings_weights.high_bias, findings_shared_scales.unlike_sums),
)
"""Causes that read predicted errors, which tell nothing of fresh weights."""


def diagnose(graph: Graph, *, scales: Spread = "channel", is_zoo: bool = False) -> tuple[Finding, ...]:
    """Return what is expected to go wrong with a network in 8-bit integers, the worst first.

    Args:
        graph: As read or built, not deployed: BatchNorm tells most.
        scales: One for each output channel of a convolution's kernel, or one for the whole.
        is_zoo: Whether options can change its definition.
    """
    if graph.is_quantized:
        return (_quantized(graph),)
    examined = examine(graph, scales=scales, is_zoo=is_zoo)
    is_fresh = any(findings_weights.random_weights(examined))
    causes = [cause for cause in CAUSES if not is_fresh or cause not in OF_TRAINED]
    found = [finding for cause in causes for finding in cause(examined)]
    return tuple(sorted(found, key=lambda finding: get_args(Severity).index(finding.severity)))


def examine(graph: Graph, *, scales: Spread = "channel", is_zoo: bool = False) -> Examined:
    """Return a float network with what is expected of it; the arguments are those of `diagnose`."""
    graph, deployment, moments, errors = _by_best_input(graph, scales)
    editor = GraphEditor(deployment.graph)
    layers = (node for node in deployment.graph.nodes if isinstance(node.op, WEIGHTED))
    links = (find_link(editor, layer) for layer in layers)
    return Examined(
        read=graph,
        graph=deployment.graph,
        prepared=prepared(deployment.graph),
        editor=editor,
        moments=moments,
        errors=errors,
        scales=scales,
        linked={link.last: link.first for link in links if isinstance(link, Link)},
        unfolded=_unfolded(graph, deployment),
        is_assumed=graph.contract is not None and graph.contract.is_assumed,
        is_zoo=is_zoo,
    )


def _by_best_input(
    graph: Graph, scales: Spread
) -> tuple[Graph, Deployment, dict[str, Moments], dict[str, PredictedError]]:
    """Return what is expected with the network's own contract, or else with the best of those that are usual.

    Normalisation is folded into many a network's first layer; fed with other pixels, biases hide what varies.
    """
    deployment, contract = deploy(graph), graph.contract or first_guess(graph)
    tried = [contract]
    if contract is not None and contract.is_assumed:
        channels = contract.channels
        tried = [replace(contract, mean=(mean,) * channels, std=(std,) * channels) for mean, std in RANGES]
    found = []
    for each in tried:
        deployed = replace(deployment.graph, contract=each)
        moments = predicted_moments(graph, deployed)
        errors = predicted_errors(deployed, moments, scales=scales)
        found.append((replace(graph, contract=each), replace(deployment, graph=deployed), moments, errors))
    return max(found, key=lambda each: total_db(each[3].values()) if each[3] else -inf)


def _unfolded(read: Graph, deployment: Deployment) -> dict[str, str]:
    """Return each BatchNorm whose output no layer gives in the end, with the reason that its pass gave."""
    givers = {name: node for node in deployment.graph.nodes for name in node.outputs}
    outputs = {node.name: node.output for node in read.nodes if isinstance(node.op, BatchNorm)}
    reasons: Sequence[tuple[str, str, str]] = deployment.refused
    return {
        name: reason
        for rule, name, reason in reasons
        if rule == "fold_batch_norm" and name in outputs and _is_alone(givers, outputs[name])
    }


def _is_alone(givers: Mapping[str, Node], tensor: str) -> bool:
    return tensor in givers and not isinstance(givers[tensor].op, WEIGHTED)


def _quantized(graph: Graph) -> Finding:
    """Return the finding for what somebody quantized."""
    storage = recognize(graph)
    layers = ", ".join(f"{count} layers {name}" for name, count in storage.layers.items())
    return Finding(
        severity="worth knowing",
        cause="quantized already",
        what=f"This network is {storage.precision} ({layers}): its float original tells what it lost.",
        victims=(Victim(node=graph.name, figure=storage.precision),),
        remedy="diagnose the float original; --dequantize reads the float equivalent of this one",
    )
