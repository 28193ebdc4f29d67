"""Bisect: find the first node at which an artifact leaves its source, and the smallest model that shows it.

Every tensor of the Graph is made an output, a few at a time, and compared in topological order: the first one that
diverges has only inputs that do not. Where observing hides the error (a runtime may fuse otherwise then), truncated
models with one output each are searched instead, half by half. The node is then tried alone, on the inputs that it has
in the source; where it is right alone, the nodes before it are added until the error shows again.

float32's rounding adds up along a network, so that an inner tensor counts as wrong only 20 dB below parity. What is
subtler (an approximation, another epsilon) is looked for node by node, each alone, where nothing has added up.
"""

import tempfile
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from edgecnn.cut import cut
from edgecnn.errors import InputFileError
from edgecnn.graph import Array, Graph, Node, to_layout
from edgecnn.interfaces import SessionOptions, Target, Writer
from edgecnn.ops import elements
from edgecnn.outputs import staged
from edgecnn.ports import default_layout, exterior
from edgecnn.verify import (
    MINIMUM_SNR_DB,
    allowed_error,
    reference_outputs,
    relative_error,
    resolvable_db,
    run_batches,
    snr_db,
)

IMAGES = 8
"""At most so many of the images, spread evenly, are compared."""

INNER_SNR_DB = 60.0
"""Below which an inner tensor of a whole network is wrong, and not only rounded."""

ROUNDING = 1e-5
"""Largest error of one operator alone, as a share of its output's range, that float32's rounding may explain."""

CHUNK_BYTES = 256 << 20
"""Of reference values that are held at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Suspect:
    """A Graph whose artifact diverges, and how to try parts of it.

    Attributes:
        graph: What was written.
        writer: Writes it.
        target: Runs it.
        inputs: Port name -> real values.
        threads: For the runtime.
    """

    graph: Graph
    writer: Writer
    target: Target
    inputs: Mapping[str, Array]
    threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Trial:
    """A part of the Graph, fed with the source's own values.

    Attributes:
        graph: The part.
        inputs: Port name -> values.
        expected: Output name -> values by the source.
        found: The same by the artifact; empty where the runtime refuses it.
        refusal: The runtime's words then.
    """

    graph: Graph
    inputs: Mapping[str, Array]
    expected: Mapping[str, Array]
    found: Mapping[str, Array]
    refusal: str = ""

    @property
    def diverging(self) -> list[str]:
        """The outputs that are wrong, in order."""
        if self.refusal:
            return list(self.expected)
        return [name for name, values in self.expected.items() if diverges(values, self.found[name])]


@dataclass(frozen=True, kw_only=True, slots=True)
class Divergence:
    """Where an artifact leaves its source.

    Attributes:
        format: Of the artifact.
        node: The first node whose output diverges while its inputs do not.
        kind: Its operator.
        operators: How many nodes the smallest model that shows it has.
        snr_db: Of that model's worst output; -inf where the runtime refuses it.
        max_error: As a share of the output's range.
        refusal: The runtime's words where it refuses the model.
        model: The model's file.
        values: Its inputs, expected and found outputs (.npz), in the file's own layout.
    """

    format: str
    node: str
    kind: str
    operators: int
    snr_db: float
    max_error: float
    refusal: str
    model: Path
    values: Path


def diverges(expected: Array, found: Array) -> bool:
    """Tell whether an inner tensor is wrong; an SNR counts only where float32 resolves it."""
    if expected.shape != found.shape:
        return True
    snr = snr_db(expected, found) if resolvable_db(expected) >= INNER_SNR_DB else np.inf
    return snr < INNER_SNR_DB or relative_error(expected, found) > allowed_error(INNER_SNR_DB)


def differs(expected: Array, found: Array) -> bool:
    """Tell whether one operator alone gives something else than its source, however little."""
    return relative_error(expected, found) > ROUNDING and snr_db(expected, found) < MINIMUM_SNR_DB


def bisect(suspect: Suspect, folder: Path, stem: str) -> Divergence | None:
    """Find the first node that diverges and save the smallest model that shows it.

    Args:
        suspect: What diverges.
        folder: Where the model and its values belong.
        stem: How their names begin.

    Returns:
        None where every node alone is right: rounding that adds up is all that was found.
    """
    graph = replace(suspect.graph, outputs=(), contract=None)  # so that every output is named after its tensor
    few = {name: values[:: max(1, len(values) // IMAGES)][:IMAGES] for name, values in suspect.inputs.items()}
    suspect = replace(suspect, graph=graph, inputs=few)
    for search in (_observed, _truncated):
        node = search(suspect)
        smallest = _smallest(suspect, node) if node else None
        if node and smallest:
            return _save(suspect, node, smallest, folder, stem)
    for node, trial in _each_alone(suspect):
        if any(differs(values, trial.found[name]) for name, values in trial.expected.items()):
            return _save(suspect, node, trial, folder, stem)
    return None


def _observed(suspect: Suspect) -> Node | None:
    """Return the first node whose output diverges where it is an output of the whole network."""
    for nodes in _chunks(suspect.graph):
        names = [name for node in nodes for name in node.outputs]
        part = cut(suspect.graph, (), names)
        trial = _tried(suspect, part, suspect.inputs)
        if trial.refusal:
            return None  # which of them is refused, only the truncated models tell
        wrong = set(trial.diverging)
        for node in nodes:
            if wrong.intersection(node.outputs):
                return node
    return None


def _chunks(graph: Graph) -> Iterator[list[Node]]:
    """Yield the nodes in order, as many at a time as their outputs fit in CHUNK_BYTES."""
    chunk: list[Node] = []
    size = 0
    for node in graph.nodes:
        chunk.append(node)
        size += sum(IMAGES * 4 * elements(graph.tensors[name].shape[1:]) for name in node.outputs)
        if size >= CHUNK_BYTES:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def _truncated(suspect: Suspect) -> Node | None:
    """Return the first node at which a truncated model diverges, if an error that came stays."""
    graph = suspect.graph

    def is_wrong(node: Node) -> bool:
        return bool(_tried(suspect, cut(graph, (), node.outputs), suspect.inputs).diverging)

    place = bisect_left(graph.nodes, True, key=is_wrong)
    return graph.nodes[place] if place < len(graph.nodes) else None


def _each_alone(suspect: Suspect) -> Iterator[tuple[Node, Trial]]:
    """Yield each node, tried alone on the inputs that it has in the source."""
    graph = suspect.graph
    for nodes in _chunks(graph):
        parts = [(node, _alone(graph, {node.name}, node)) for node in nodes]
        names = {port.tensor for _, part in parts for port in part.inputs}
        values = reference_outputs(graph, suspect.inputs, fetch=sorted(names))
        for node, part in parts:
            yield node, _tried(suspect, part, {port.name: values[port.tensor] for port in part.inputs})


def _smallest(suspect: Suspect, node: Node) -> Trial | None:
    """Return a small part that ends in a node and diverges on the source's own values; None if none does.

    Parts grow backwards, each time by twice as many steps, so that few have to be tried in a deep network.
    """
    graph, inside, steps = suspect.graph, {node.name}, 1
    producers = {name: each.name for each in graph.nodes for name in each.outputs}
    while True:
        part = _alone(graph, inside, node)
        names = [port.tensor for port in part.inputs]
        values = reference_outputs(graph, suspect.inputs, fetch=names)
        trial = _tried(suspect, part, {port.name: values[port.tensor] for port in part.inputs})
        if trial.diverging:
            return trial
        if not any(name in producers for name in names):
            return None
        for _ in range(steps):
            taken = {name for each in graph.nodes if each.name in inside for name in each.inputs}
            inside |= {producers[name] for name in taken if name in producers}
        steps *= 2


def _alone(graph: Graph, inside: set[str], node: Node) -> Graph:
    """Return the part of a Graph that consists of some nodes, the last of which gives the outputs."""
    nodes = [each for each in graph.nodes if each.name in inside]
    made = {name for each in nodes for name in each.outputs}
    taken = dict.fromkeys(name for each in nodes for name in each.inputs)
    starts = [name for name in taken if name not in made and not graph.tensors[name].is_constant]
    return cut(graph, starts, node.outputs)


def _tried(suspect: Suspect, part: Graph, inputs: Mapping[str, Array]) -> Trial:
    """Write a part, run it, and set what its runtime gives beside what NumPy gives."""
    fed = {port.name: inputs[port.name] for port in part.inputs}
    expected = reference_outputs(part, fed)
    with tempfile.TemporaryDirectory(prefix="edgecnn-") as folder:
        path = Path(folder) / f"part{suspect.writer.suffix}"
        suspect.writer.write(part, path)
        options = SessionOptions(threads=suspect.threads)
        try:
            with closing(suspect.target.open(path, options)) as session:
                found = run_batches(session, fed, exterior(part, suspect.writer.default_layout))
        except InputFileError as error:
            return Trial(graph=part, inputs=fed, expected=expected, found={}, refusal=str(error))
    return Trial(graph=part, inputs=fed, expected=expected, found=found)


def _save(suspect: Suspect, node: Node, trial: Trial, folder: Path, stem: str) -> Divergence:
    """Write the smallest model and its values beside it, under a name that is free."""
    path, number = folder / f"{stem}_diverges{suspect.writer.suffix}", 1
    while any(file.exists() for file in _evidence(suspect.writer, path)):
        number += 1
        path = folder / f"{stem}_diverges_{number}{suspect.writer.suffix}"
    files = _evidence(suspect.writer, path)
    with staged(folder, [file.name for file in files], force=False) as scratch:
        suspect.writer.write(replace(trial.graph, name=path.stem), scratch / path.name)
        with (scratch / files[-1].name).open("wb") as file:
            np.savez(file, **_arrays(trial, suspect.writer))
    pairs = [(trial.expected[each], trial.found[each]) for each in trial.found]
    return Divergence(
        format=suspect.writer.name,
        node=node.name,
        kind=node.kind,
        operators=len(trial.graph.nodes),
        snr_db=min((snr_db(*pair) for pair in pairs), default=-np.inf),
        max_error=max((relative_error(*pair) for pair in pairs), default=np.inf),
        refusal=trial.refusal,
        model=path,
        values=files[-1],
    )


def _evidence(writer: Writer, path: Path) -> tuple[Path, ...]:
    """Return the files of a model and, last, that of its values."""
    return (*writer.files(path), path.with_name(f"{path.name}.npz"))


def _arrays(trial: Trial, writer: Writer) -> dict[str, Any]:
    """Return "input/NAME", "expected/NAME" and "found/NAME" -> values as the file's callers feed and get them."""
    chosen = {port.name: port.layout for port in (*trial.graph.inputs, *trial.graph.outputs)}
    parts = {"input": trial.inputs, "expected": trial.expected, "found": trial.found}
    return {
        f"{what}/{name}": to_layout(values, chosen[name] or default_layout(values.shape, writer.default_layout))
        for what, named in parts.items()
        for name, values in named.items()
    }
