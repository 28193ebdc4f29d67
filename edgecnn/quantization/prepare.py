"""Bring a deployed float Graph into the vocabulary that integers have, without changing what it computes."""

from dataclasses import dataclass, replace

import numpy as np

from edgecnn import ops
from edgecnn.contract import Contract
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph, Node
from edgecnn.passes import lower_activation, unfuse_activation
from edgecnn.passes.channel_scale import scaled_before
from edgecnn.passes.editor import GraphEditor


def prepared(graph: Graph) -> Graph:
    """Return the Graph whose every range can be observed: each tensor that will be rounded is there."""
    for each in (unfuse_activation.PASS, lower_activation.PASS):
        graph = each(graph).graph
    return graph


@dataclass(frozen=True, kw_only=True, slots=True)
class RawInput:
    """A Graph that takes the bytes of a picture.

    Attributes:
        graph: Its input is pixel - zero_point, as float, and its contract says so.
        note: What it costs, or empty.
    """

    graph: Graph
    note: str


def take_bytes(graph: Graph) -> RawInput:
    """Fold the contract's normalisation into the layers that read the picture: (p - mean) / std = x.

    With z the integer nearest to the mean of all channels, w * x + b = (w / std) * (p - z) + (b + w (z - mean) / std).
    What pads the first convolution is then z, not each channel's mean: its borders differ by (z - mean) / std, which is
    half a step for mean 127.5.

    Raises:
        UnsupportedError: When there is no contract, or something besides a convolution or dense layer reads an input
            that is not raw pixels already.
    """
    contract = graph.contract
    if contract is None or len(graph.inputs) != 1:
        raise UnsupportedError(
            f"{graph.name}: uint8 inputs want one picture with a contract that says how its pixels are scaled. Give "
            "--contract FILE, or take --io int8."
        )
    editor = GraphEditor(graph)
    source = graph.inputs[0].tensor
    zero = min(max(round(float(np.mean(contract.mean))), 0), 255)
    scale = 1 / np.asarray(contract.std, np.float64)
    shift = (zero - np.asarray(contract.mean, np.float64)) * scale
    is_raw = not shift.any() and bool((scale == 1).all())  # then whatever reads the picture may
    for node in () if is_raw else editor.consumers(source):
        _refuse_reader(editor, node, source)
        editor.put(replace(node, inputs=(source, *scaled_before(editor, node, scale, shift)[1:])))
    channels = contract.channels
    raw: Contract = replace(contract, mean=(float(zero),) * channels, std=(1.0,) * channels)
    cost = float(np.abs(shift).max())
    note = f"the first layer pads with pixel {zero}, which is up to {cost:.2g} from the contract's 0" if cost else ""
    return RawInput(graph=replace(editor.finish(), contract=raw), note=note)


def _refuse_reader(editor: GraphEditor, node: Node, source: str) -> None:
    """Raise UnsupportedError for a reader of the picture that cannot take its scaling over."""
    is_layer = isinstance(node.op, ops.Conv | ops.Dense) and node.inputs[0] == source
    if not is_layer or not editor.has_constants(node) or source in editor.outputs:
        got = node.kind if not is_layer else "computed weights" if source not in editor.outputs else "an output, too"
        raise UnsupportedError(
            f"{node.name}: uint8 inputs want layers with constant weights behind the picture, and nothing else, which "
            f"take its scaling over; got {got}. Take --io int8."
        )
