"""Where the error of a quantized network comes from: float against integer at the same point, layer by layer.

Two figures for each layer. *In the network*: its output against the float network's, with all that went wrong before
it. *On its own*: the layer fed with the float network's values, rounded only by its own operands' scales; the layers
with the lowest figure are where a remedy helps. Both are SNR in dB with each element's mean over the images removed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Node
from edgecnn.kernels.quantized import Rounding, evaluate_quantized
from edgecnn.ops import Dequantize, Quantize
from edgecnn.quantization.reasons import Seen, reason
from edgecnn.verify import with_any_batch

BATCH = 4
"""Images at a time: every inner tensor of both networks is held."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerError:
    """How far one layer of a quantized network is from the float network.

    Attributes:
        node: Its name.
        position: Among the layers that are compared, from the input on.
        kind: Its operator.
        tensor: Its output, the point of comparison.
        snr_db: In the network.
        own_snr_db: On its own.
        saturated: Share of its output's integers at either end of their range beyond what a clamp puts there.
        reason: What explains it, or empty.
    """

    node: str
    position: int
    kind: str
    tensor: str
    snr_db: float
    own_snr_db: float
    saturated: float
    reason: str


class Energy:
    """Sums, over images that come a few at a time, that give an SNR with the mean over the images removed."""

    def __init__(self) -> None:
        self.count = 0
        self._sums: list[Array] = []
        self._squares = [0.0, 0.0]

    def add(self, reference: Array, found: Array) -> None:
        """Take some images (n, ...) in."""
        parts = (reference.astype(np.float64), found.astype(np.float64) - reference)
        self.count += len(reference)
        sums = [part.sum(axis=0) for part in parts]
        self._sums = [old + new for old, new in zip(self._sums, sums, strict=True)] if self._sums else sums
        self._squares = [old + float(np.square(part).sum()) for old, part in zip(self._squares, parts, strict=True)]

    @property
    def snr_db(self) -> float:
        """10 log10(signal / error); infinite without an error, -infinite without a signal."""
        signal, error = (
            square - float(np.square(total).sum()) / self.count
            for square, total in zip(self._squares, self._sums, strict=True)
        )
        if signal <= 0:
            return -np.inf
        return 10 * float(np.log10(signal / error)) if error > 0 else np.inf


def layer_errors(
    reference: Graph, quantized: Graph, inputs: Mapping[str, Array], *, rounding: Rounding = "float32"
) -> tuple[LayerError, ...]:
    """Return the error of every integer layer that the float network has too, in the network's order.

    Args:
        reference: The prepared float Graph.
        quantized: What was made of it; tensors that stand for the same value have the same name.
        inputs: Port name -> (N, ...) real values.
        rounding: Of the integer arithmetic.
    """
    nodes = [node for node in quantized.nodes if _is_compared(reference, quantized, node)]
    together, alone = ({node.name: Energy() for node in nodes} for _ in range(2))
    seen = {node.name: Seen() for node in nodes}
    loose = {node.name: node for node in with_any_batch(quantized).nodes}  # a Reshape may state the batch of the file
    for exact, found in _runs(reference, quantized, nodes, inputs, rounding):
        for node in nodes:
            own = _alone(quantized, loose[node.name], exact, rounding)
            known = quantized.tensors[node.output].quantization
            numbers = found[node.output] if known is None else known.dequantize(found[node.output])
            together[node.name].add(exact[node.output], numbers)
            alone[node.name].add(exact[node.output], own)
            seen[node.name].add(exact[node.output], found[node.output], known)
    return tuple(
        LayerError(
            node=node.name,
            position=position,
            kind=node.kind,
            tensor=node.output,
            snr_db=together[node.name].snr_db,
            own_snr_db=alone[node.name].snr_db,
            saturated=seen[node.name].saturated,
            reason=reason(reference, quantized, node, seen),
        )
        for position, node in enumerate(nodes)
    )


def _is_compared(reference: Graph, quantized: Graph, node: Node) -> bool:
    known = quantized.tensors[node.output].quantization
    return known is not None and node.output in reference.tensors and not isinstance(node.op, Quantize | Dequantize)


def _runs(
    reference: Graph, quantized: Graph, nodes: Sequence[Node], inputs: Mapping[str, Array], rounding: Rounding
) -> Iterator[tuple[dict[str, Array], dict[str, Array]]]:
    """Yield the values of both networks (the quantized one's as integers), a few images at a time."""
    exact, found = with_any_batch(reference), with_any_batch(quantized)
    outputs = [node.output for node in nodes]
    taken = {_origin(quantized, name) for node in nodes for name in node.inputs}
    wanted = [n for n in {*outputs, *taken} if n in reference.tensors and not reference.tensors[n].is_constant]
    count = len(next(iter(inputs.values())))
    for start in range(0, count, BATCH):
        batch = {name: values[start : start + BATCH] for name, values in inputs.items()}
        yield execute(exact, batch, fetch=wanted), execute(found, batch, fetch=outputs, rounding=rounding, stored=True)


def _alone(quantized: Graph, node: Node, exact: Mapping[str, Array], rounding: Rounding) -> Array:
    """Return what a layer makes of the float network's values, as numbers."""
    tensors = [quantized.tensors[name] for name in node.inputs]
    values = []
    for tensor in tensors:
        if tensor.data is not None:
            values.append(tensor.data)
            continue
        numbers = exact.get(_origin(quantized, tensor.name))
        if numbers is None:
            return np.zeros_like(exact[node.output])
        values.append(numbers if tensor.quantization is None else tensor.quantization.quantize(numbers))
    own = [tensor.quantization for tensor in tensors]
    given = [quantized.tensors[name].quantization for name in node.outputs]
    (integers, *_), known = evaluate_quantized(node.op, values, own, given, rounding), given[0]
    return integers if known is None else known.dequantize(integers)


def _origin(quantized: Graph, name: str) -> str:
    """Return the tensor that a Quantize or Dequantize turned into this one, which has the same values."""
    conversions = (node for node in quantized.nodes if isinstance(node.op, Quantize | Dequantize))
    found = next((node.inputs[0] for node in conversions if node.output == name), None)
    return name if found is None else _origin(quantized, found)
