"""Inspect a model: what its file states, what it costs where we can read it, and what stands against converting it.

A file is listed from its own tables first (interfaces.Lister), so that one that our reader refuses is shown all the
same, with the reader's reason.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn.contract import Contract
from edgecnn.count import Cost, count
from edgecnn.errors import InputFileError
from edgecnn.graph import Graph, Port, Tensor, external_shape
from edgecnn.interfaces import Format, ListedPort, Lister, Listing, Reader
from edgecnn.ops import Opaque, Transpose
from edgecnn.ports import IMAGE_RANK
from edgecnn.quantization.recognize import Storage, recognize
from edgecnn.source import Choices, Source, existing, format_of, is_zoo_name, load_source


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What is known of a model.

    Attributes:
        model: As it was named.
        format: Name of the file's format, or "zoo".
        files: File name -> bytes on disk; empty for a zoo network.
        listing: What the file's tables state, ports completed from the Graph; a zoo network's is made from its Graph.
        graph: The network, or None where it could not be read.
        cost: Of the Graph.
        refusal: Why it cannot be converted, empty where it can.
        contract: What an app must know, or None where the file has none.
    """

    model: str
    format: str
    files: Mapping[str, int]
    listing: Listing
    graph: Graph | None
    cost: Cost | None
    refusal: str
    contract: Contract | None

    @property
    def size_bytes(self) -> int:
        """Bytes on disk of all files together."""
        return sum(self.files.values())

    @property
    def unknown(self) -> dict[str, int]:
        """Operators of the file that have no row in our vocabulary, and how often each occurs."""
        nodes = self.graph.nodes if self.graph else ()
        return dict(Counter(node.op.kind for node in nodes if isinstance(node.op, Opaque)).most_common())

    @property
    def storage(self) -> Storage | None:
        """How the network's numbers are stored, or None where it could not be read."""
        return None if self.graph is None else recognize(self.graph)

    @property
    def transposes(self) -> int:
        """Transposes that the Graph is left with, because the order of elements itself matters."""
        return sum(isinstance(node.op, Transpose) for node in self.graph.nodes) if self.graph else 0


def inspect(model: str, choices: Choices | None = None) -> Inspection:
    """Inspect a zoo name or a file.

    Args:
        model: "mobilenet_v2", or a path.
        choices: What the user settles that the model leaves open; a part of it is counted, its file is listed whole.

    Raises:
        InputFileError: When the file's own tables are damaged; one that merely cannot be read is listed.
    """
    if is_zoo_name(model):
        return _of_graph(model, load_source(model, choices, values=False).graph)
    path = Path(model)
    form = format_of(path) if path.suffix else None
    if not isinstance(form, Lister):
        return _of_graph(model, load_source(model, choices).graph, form)
    listing = form.listing(existing(path))
    source, refusal = _read(model, choices, form)
    graph = None if source is None else source.graph
    listing = listing if source is None else _completed(listing, source.read, form)
    return Inspection(
        model=model,
        format=form.name,
        files=_sizes(form, path),
        listing=listing,
        graph=graph,
        cost=None if graph is None else count(graph),
        refusal=refusal or _unknown_operators(graph),
        contract=form.read_contract(path) or (graph.contract if graph else None),
    )


def _read(model: str, choices: Choices | None, form: Format) -> tuple[Source | None, str]:
    """Return the network, or the reason why there is none."""
    if not isinstance(form, Reader):
        return None, f"edgecnn does not read {form.suffix} files"
    try:
        return load_source(model, choices), ""
    except InputFileError as error:
        return None, str(error)


def _sizes(form: Format, path: Path) -> dict[str, int]:
    """Return file name -> bytes on disk."""
    return {file.name: file.stat().st_size for file in form.files(path) if file.is_file()}


def _of_graph(model: str, graph: Graph, form: Format | None = None) -> Inspection:
    """Return the inspection of a network without tables of its own (from no file, or of no Lister): its Graph's."""
    types = Counter(tensor.stored_dtype for tensor in graph.tensors.values())
    stored = Counter[str]()
    for tensor in graph.tensors.values():
        if tensor.data is not None:
            stored[str(tensor.data.dtype)] += tensor.data.nbytes
    listing = Listing(
        facts={},
        inputs=tuple(_port(graph, port) for port in graph.inputs),
        outputs=tuple(_port(graph, port) for port in graph.outputs),
        operators={},
        tensors=dict(types.most_common()),
        constant_bytes=dict(stored.most_common()),
    )
    return Inspection(
        model=model,
        format=form.name if form else "zoo",
        files=_sizes(form, Path(model)) if form else {},
        listing=listing,
        graph=graph,
        cost=count(graph),
        refusal=_unknown_operators(graph),
        contract=graph.contract,
    )


def _port(graph: Graph, port: Port) -> ListedPort:
    tensor = graph.tensors[port.tensor]
    shape = external_shape(tensor.shape, port.layout)
    scale, zero_point = _per_tensor(tensor)
    return ListedPort(
        name=port.name,
        shape=shape,
        dtype=tensor.stored_dtype,
        layout=port.layout or "",
        scale=scale,
        zero_point=zero_point,
    )


def _per_tensor(tensor: Tensor) -> tuple[float, int] | tuple[None, None]:
    """Return scale and zero point of a tensor that has one of each."""
    found = tensor.quantization
    return (None, None) if found is None or found.axis is not None else (found.scale[0], found.zero_point[0])


def _completed(listing: Listing, graph: Graph, form: Format) -> Listing:
    """Return the listing with what the file leaves to be worked out: shapes of outputs, types, layouts of pictures."""

    def of(ports: tuple[ListedPort, ...], known: tuple[Port, ...]) -> tuple[ListedPort, ...]:
        if len(ports) != len(known):
            return ports
        return tuple(_with(port, graph, read, form) for port, read in zip(ports, known, strict=True))

    return replace(listing, inputs=of(listing.inputs, graph.inputs), outputs=of(listing.outputs, graph.outputs))


def _with(port: ListedPort, graph: Graph, read: Port, form: Format) -> ListedPort:
    tensor = graph.tensors[read.tensor]
    layout = port.layout or read.layout or (form.default_layout if len(tensor.shape) >= IMAGE_RANK else "")
    return replace(
        port,
        shape=external_shape(tensor.shape, layout) if port.shape is None else port.shape,
        dtype=port.dtype or tensor.stored_dtype,
        scale=_per_tensor(tensor)[0] if port.scale is None else port.scale,
        zero_point=_per_tensor(tensor)[1] if port.scale is None else port.zero_point,
        layout=layout,
    )


def _unknown_operators(graph: Graph | None) -> str:
    if graph is None:
        return ""
    kinds = Counter(node.op.kind for node in graph.nodes if isinstance(node.op, Opaque))
    listed = ", ".join(f"{kind} ({times})" for kind, times in kinds.most_common())
    return f"operators that are not known: {listed}" if listed else ""
