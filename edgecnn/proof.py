"""Prove: artifacts against their source, and our reading of a source file against the file's own runtime."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn import registry
from edgecnn.assume import assume_contract
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, InputFileError, MissingError, UsageError
from edgecnn.feeding import Feeds
from edgecnn.graph import Array, Graph
from edgecnn.passes.dequantize import dequantize
from edgecnn.ports import exterior
from edgecnn.probe import IN_PYTHON, probe
from edgecnn.source import Source, format_of, target_for
from edgecnn.tolerance import Tolerance, computes_in_integers, judged, tolerance
from edgecnn.verify import (
    MAXIMUM_RELATIVE_ERROR,
    MINIMUM_SNR_DB,
    Parity,
    allowed_error,
    reference_outputs,
    refuse_others,
    verify,
)

MINIMUM_SNR_FLOAT16_DB = 40.0
"""Of our reading of a file with float16 constants against its runtime, which may compute in float16 (11 bits)."""

ROUNDING_SNR_DB = 60.0
"""A single value of an output may differ so much by rounding; an operator that is read wrongly shows in all of them."""

PROVERS = {"keras": "keras_cpu"}
"""Format -> the target that proves it where it is installed, though another one opens it first, and faster."""

Load = Callable[[Graph, Contract | None], Feeds]
"""(source, contract of its input) -> what to feed it."""


class References:
    """What Graphs compute on real images; each is executed once for each contract that feeds it differently."""

    def __init__(self, load: Load) -> None:
        """Start with nothing executed.

        Args:
            load: Gives the images.
        """
        self._load = load
        self._feeds: dict[Any, dict[str, Array]] = {}
        self._outputs: dict[Any, tuple[Graph, dict[str, Array]]] = {}
        self._floats: dict[int, tuple[Graph, Graph]] = {}

    def inputs(self, graph: Graph, contract: Contract | None) -> dict[str, Array]:
        """Return input name -> (N, ...) values."""
        shapes = tuple((port.name, graph.tensors[port.tensor].shape[1:]) for port in graph.inputs)
        key = shapes, _feeding(contract)
        if key not in self._feeds:
            self._feeds[key] = self._load(graph, contract).values
        return self._feeds[key]

    def float_outputs(self, graph: Graph, contract: Contract | None) -> dict[str, Array]:
        """Return the outputs of the float network that a Graph stands for."""
        if graph.is_quantized and id(graph) not in self._floats:
            self._floats[id(graph)] = graph, dequantize(graph)
        return self.outputs(self._floats[id(graph)][1] if graph.is_quantized else graph, contract)

    def outputs(self, graph: Graph, contract: Contract | None) -> dict[str, Array]:
        """Return output name -> (N, ...) values."""
        key = id(graph), _feeding(contract)
        if key not in self._outputs:
            # the Graph is kept, because an id is only unique as long as its object lives
            self._outputs[key] = graph, _finite(graph, self.inputs(graph, contract))
        return self._outputs[key][1]


def _finite(graph: Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Execute a Graph, and refuse outputs by which nothing can be proved."""
    with np.errstate(all="ignore"):
        found = reference_outputs(graph, inputs)
    for name, values in found.items():
        if not np.isfinite(values).all():
            raise CheckFailedError(
                f"{graph.name}: finite outputs were wanted; '{name}' holds NaN or infinity on real images, by which "
                "nothing is proved. Repair the network, or see whether its input has the range it was trained with."
            )
    return found


def _feeding(contract: Contract | None) -> Contract | None:
    """Return what of a contract decides how pixels become the input."""
    if contract is None:
        return None
    return replace(
        contract,
        layout="NHWC",
        output="logits",
        labels=(),
        recipe="float32",
        calibration="",
        macs=None,
        is_assumed=False,
    )


def check(
    source: Graph,
    shipped: Graph,
    artifacts: Sequence[Path],
    references: References,
    *,
    proof: "SourceProof | None" = None,
    threads: int = 1,
    advance: Callable[[str], None] = lambda what: None,
    target: str | None = None,
) -> tuple[Parity, ...]:
    """Verify artifacts of one source.

    Args:
        source: The source Graph, any batch.
        shipped: What was written: the reference for rounded constants.
        artifacts: Files.
        references: Gives real images, and what Graphs make of them.
        proof: Of the source file: what feeds it where it has no contract, and how far its own runtime is from NumPy;
            float32's rounding is then known to make so much of a difference, and as much again is let pass.
        threads: For the runtimes.
        advance: Called with what was just finished.
        target: Name of the target, or None for each format's own.
    """
    checked = []
    for path in artifacts:
        form = format_of(path)
        stored = form.read_contract(path)
        contract = stored or feeding(source, proof)
        exact = _float_outputs(source, references, contract, proof)
        rounded = references.outputs(shipped, contract) if shipped.is_quantized or has_float16(shipped) else None
        if rounded is not None:
            refuse_others(path, exact, rounded)
        wanted = tolerance(shipped, exact, rounded, maximum_error(proof))
        parity = verify(
            rounded or exact,
            path,
            _prover(path, target),
            references.inputs(shipped, contract),
            rounding=exact if rounded else None,
            threads=threads,
            exterior=exterior(shipped, form.default_layout, stored),
            minimum_snr_db=wanted.minimum_snr_db,
            maximum_error=wanted.maximum_error,
        )
        checked.append(judged(parity, wanted))
        advance(f"verified {path.name}")
    return tuple(checked)


def _float_outputs(
    source: Graph, references: References, contract: Contract | None, proof: "SourceProof | None"
) -> dict[str, Array]:
    """Return what the float network of a source computes; an artifact that takes bytes is fed by another contract."""
    own = feeding(source, proof)
    if own is not None and contract is not None and own.input_range != contract.input_range:
        contract = own
    return references.float_outputs(source, contract)


def feeding(graph: Graph, proof: "SourceProof | None") -> Contract | None:
    """Return what feeds a Graph: its own contract, or what was assumed for its file where it still has that input."""
    if graph.contract is not None or proof is None or proof.assumed is None:
        return graph.contract
    picture = (proof.assumed.height, proof.assumed.width, proof.assumed.channels)
    shapes = [graph.tensors[port.tensor].shape[1:] for port in graph.inputs]
    return proof.assumed if shapes == [picture] else None


def maximum_error(proof: "SourceProof | None") -> float:
    """Return the relative error that an artifact may have: twice what the source file itself has, if that is more."""
    parity = proof.parity if proof else None
    own = parity.max_error if parity is not None and parity.snr_db >= MINIMUM_SNR_DB else 0.0
    return max(MAXIMUM_RELATIVE_ERROR, 2 * own)


def _prover(path: Path, name: str | None) -> Any:
    """Return the target that was asked for, or the one that proves a file's format best."""
    best = PROVERS.get(format_of(path).name)
    if name is None and best is not None and registry.load("targets", best).status().state == "available":
        name = best
    return target_for(path, name)


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceProof:
    """Whether we read a source file as its own runtime does.

    Attributes:
        parity: Of the file in its runtime with what was read, or None where that could not be run.
        note: Why it could not be run.
        assumed: How pixels are assumed to become the input of a file that does not say so.
    """

    parity: Parity | None
    note: str = ""
    assumed: Contract | None = None


def check_source(source: Source, references: References, *, threads: int = 1) -> SourceProof | None:
    """Run a source file in its own runtime on the same images and compare what was read with it.

    The file is the user's: a child process tries it first.

    Returns:
        None where there is no file, or no runtime besides our own reading of it.
    """
    path, graph = source.path, source.read
    if path is None or (target := target_for(path, None)).name in IN_PYTHON:
        return None
    contract, assumed = graph.contract or source.graph.contract, None
    minimum = MINIMUM_SNR_FLOAT16_DB if has_float16(graph) else MINIMUM_SNR_DB
    limit = allowed_error(min(minimum, ROUNDING_SNR_DB))
    try:
        probe([path])
        if contract is None:
            contract = assumed = assume_contract(source, lambda each: references.inputs(graph, each), threads=threads)
        golden = references.outputs(graph, contract)
        wanted = Tolerance(minimum_snr_db=minimum, maximum_error=limit)
        if computes_in_integers(graph):
            wanted = tolerance(graph, references.float_outputs(graph, contract), golden, limit)
        parity = verify(
            golden,
            path,
            target,
            references.inputs(graph, contract),
            exterior=exterior(graph, source.default_layout),
            threads=threads,
            minimum_snr_db=wanted.minimum_snr_db,
            maximum_error=wanted.maximum_error,
        )
    except (MissingError, InputFileError, UsageError) as error:
        return SourceProof(parity=None, note=f"{path}: our reading of it could not be proved in {target.name}: {error}")
    return SourceProof(parity=judged(parity, wanted), assumed=assumed)


def has_float16(graph: Graph) -> bool:
    """Tell whether any constant is stored as float16."""
    return any(tensor.data is not None and tensor.data.dtype == "float16" for tensor in graph.tensors.values())
