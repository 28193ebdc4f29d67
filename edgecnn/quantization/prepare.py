"""Bring a deployed float Graph into the vocabulary that integers have, without changing what it computes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from edgecnn import ops
from edgecnn.contract import Contract
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph, Node
from edgecnn.passes import lower_activation, unfuse_activation
from edgecnn.passes.channel_scale import scaled_before
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.parameters import Quantization, per_tensor


def prepared(graph: Graph) -> Graph:
    """Return the Graph whose every range can be observed: each tensor that will be rounded is there."""
    for each in (unfuse_activation.PASS, lower_activation.PASS):
        graph = each(graph).graph
    return graph


@dataclass(frozen=True, kw_only=True, slots=True)
class RawInput:
    """A Graph that takes the bytes of a picture.

    Attributes:
        graph: Its input is pixel - zero_point, as float.
        ports: Input port -> the quantization under which its bytes are what is fed.
        note: What it costs, or empty.
    """

    graph: Graph
    ports: Mapping[str, Quantization]
    note: str


def take_bytes(graph: Graph) -> RawInput:
    """Fold the contract's normalisation into the layers that read the picture: (p - mean) / std = x.

    With z the integer nearest to the mean of all channels, w * x + b = (w / std) * (p - z) + (b + w (z - mean) / std).
    What pads the first convolution is then z, not each channel's mean: its borders differ by (z - mean) / std, which is
    half a step for mean 127.5.

    Raises:
        UnsupportedError: When there is no contract, or something besides a convolution or dense layer reads the input.
    """
    contract = graph.contract
    if contract is None or len(graph.inputs) != 1:
        raise UnsupportedError(
            f"{graph.name}: uint8 inputs want one picture with a contract that says how its pixels are scaled. Give "
            "--contract FILE, or take --io int8."
        )
    editor = GraphEditor(graph)
    source = graph.inputs[0].tensor
    zero = round(float(np.mean(contract.mean)))
    scale = 1 / np.asarray(contract.std, np.float64)
    shift = (zero - np.asarray(contract.mean, np.float64)) * scale
    for node in editor.consumers(source):
        if not isinstance(node.op, ops.Conv | ops.Dense) or node.inputs[0] != source:
            raise UnsupportedError(
                f"{node.name}: uint8 inputs want convolutions behind the picture, which take its scaling over; got "
                f"{node.kind}. Take --io int8."
            )
        editor.put(replace(node, inputs=(source, *scaled_before(editor, node, scale, shift)[1:])))
    channels = contract.channels
    raw: Contract = replace(contract, mean=(float(zero),) * channels, std=(1.0,) * channels)
    cost = float(np.abs(shift).max())
    note = f"the first layer pads with pixel {zero}, which is up to {cost:.2g} from the contract's 0" if cost else ""
    port = graph.inputs[0].name
    changed = replace(editor.finish(), contract=raw)
    return RawInput(graph=changed, ports={port: per_tensor(1.0, zero, "uint8")}, note=note)


def is_layer(node: Node) -> bool:
    """Tell whether a node has a kernel of weights."""
    return isinstance(node.op, ops.Conv | ops.ConvTranspose | ops.Dense)
