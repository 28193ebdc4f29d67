"""Every inner tensor of a float Graph on real inputs, from the fastest runtime that is here.

The Graph is written with its inner tensors as outputs and run image by image. ONNX Runtime comes first, then LiteRT; a
network that neither carries runs in NumPy. Where the tensors of one image would take more than GROUP_BYTES, several
such files give a part of them each, so that memory stays bounded.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import numpy as np

from edgecnn import registry
from edgecnn.errors import InputFileError, MissingError, ShapeError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array, Graph, Port, to_layout, with_batch
from edgecnn.interfaces import Session, SessionOptions
from edgecnn.ops import elements
from edgecnn.ports import Exterior, exterior
from edgecnn.shapes import Shape, check_shape

BACKENDS = (("onnx", "onnxruntime_cpu"), ("tflite", "litert_cpu"))
"""(format, target) in the order in which they are tried."""

GROUP_BYTES = 1 << 29
"""Of inner tensors that one run gives."""

Inner = Iterator[tuple[str, Array, int]]
"""(tensor, its values, which axis holds the channels: 1 or -1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracer:
    """A Graph that is ready to show its inner tensors.

    Attributes:
        backend: What runs it, with its version.
        batch: How many images one run takes.
        run: Port name -> (batch, ...) values in the Graph's order; gives the tensors, inputs first.
    """

    backend: str
    batch: int
    run: Callable[[Mapping[str, Array]], Inner]


def float_tensors(graph: Graph) -> list[str]:
    """Return the names of all float inputs and of every float tensor that a node computes, in order."""
    names = [port.tensor for port in graph.inputs] + [name for node in graph.nodes for name in node.outputs]
    return [name for name in names if graph.tensors[name].dtype.startswith("float")]


def in_runs(batches: Iterable[Mapping[str, Array]], size: int) -> Iterator[tuple[dict[str, Array], int]]:
    """Yield runs of `size` images, and how many of them are new: the last image fills up what is missing.

    Args:
        batches: Port name -> (n, ...) values; any n.
        size: Of the batch that a tracer takes.

    Raises:
        UsageError: When a batch has more images of one input than of another.
    """
    for batch in batches:
        counts = {len(values) for values in batch.values()}
        if len(counts) != 1:
            raise UsageError(f"a batch with as many images for each input was wanted; got {sorted(counts)}")
        (count,) = counts
        for start in range(0, count, size):
            places = np.minimum(np.arange(start, start + size), count - 1)
            yield {name: values[places] for name, values in batch.items()}, min(size, count - start)


@contextmanager
def open_tracer(graph: Graph, tensors: Sequence[str], *, threads: int = 1) -> Iterator[Tracer]:
    """Make a float Graph ready to show tensors.

    Args:
        graph: Deployed. It runs image by image, or in the batch that an operator ties it to.
        tensors: Names of inputs and of computed tensors.
        threads: For the runtime.
    """
    with suppress(ShapeError):  # an operator may tie the batch to a number
        graph = with_batch(graph, 1)
    ports = {port.tensor: port.name for port in graph.inputs}
    inputs = {name: ports[name] for name in tensors if name in ports}
    inner = [name for name in tensors if name not in ports]
    batch = next((shape[0] for shape in graph.shapes(port.tensor for port in graph.inputs) if shape), None) or 1
    with ExitStack() as stack:
        backend, show = _fastest(graph, inner, stack, threads)

        def run(values: Mapping[str, Array]) -> Inner:
            for port in graph.inputs:
                _check(graph, port, values)
            yield from ((name, values[port], -1) for name, port in inputs.items())
            yield from show(values)

        yield Tracer(backend=backend, batch=batch, run=run)


def _check(graph: Graph, port: Port, values: Mapping[str, Array]) -> None:
    if port.name not in values:
        raise UsageError(f"{graph.name}: values for the input '{port.name}' were wanted; got {sorted(values)}")
    check_shape(f"{graph.name}: input '{port.name}'", values[port.name].shape, graph.tensors[port.tensor].shape)


def _fastest(
    graph: Graph, inner: Sequence[str], stack: ExitStack, threads: int
) -> tuple[str, Callable[[Mapping[str, Array]], Inner]]:
    """Return the first backend that carries the Graph, and what runs it there."""
    for form, target in BACKENDS if inner else ():
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgecnn-")))
        try:
            opened = [
                _open(graph, part, form, target, folder / f"{number}", threads)
                for number, part in enumerate(_groups(graph, inner))
            ]
        except (InputFileError, MissingError):  # it is not installed, or an operator is not carried: the next one may
            continue
        for each in opened:
            stack.callback(each.session.close)
        return opened[0].session.facts.runtime, partial(_shown, opened)
    return f"numpy {np.__version__}", lambda values: _executed(graph, inner, values)


def _shown(opened: Sequence["_Opened"], values: Mapping[str, Array]) -> Inner:
    return (item for each in opened for item in each.run(values))


def _executed(graph: Graph, inner: Sequence[str], values: Mapping[str, Array]) -> Inner:
    found = execute(replace(graph, outputs=()), values, fetch=inner)
    return ((name, found[name], -1) for name in inner)


def _groups(graph: Graph, names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the tensors, as many at a time as fit in GROUP_BYTES."""
    group: list[str] = []
    size = 0
    for name in names:
        group.append(name)
        size += 4 * elements(graph.tensors[name].shape)
        if size >= GROUP_BYTES:
            yield group
            group, size = [], 0
    if group:
        yield group


@dataclass(frozen=True, kw_only=True, slots=True)
class _Opened:
    """An artifact whose outputs are inner tensors.

    Attributes:
        session: Of its runtime.
        names: Output name -> tensor.
        exterior: Of its ports.
        axes: Output name -> axis of its channels, filled by the first run.
    """

    session: Session
    names: Mapping[str, str]
    exterior: Exterior
    axes: dict[str, int] = field(default_factory=dict)

    def run(self, values: Mapping[str, Array]) -> Inner:
        """Yield what one run gives."""
        feeds = {}
        for name, found in self.session.input_shapes.items():
            layout = self.exterior.of_input(name, values[name].shape, found)
            feeds[name] = to_layout(values[name], layout).astype(self.session.input_dtypes[name], copy=False)
        for name, array in self.session.run(feeds).items():
            yield self.names[name], array, self._channel_axis(name, array.shape)

    def _channel_axis(self, name: str, shape: Shape) -> int:
        """Return which axis of an output holds the channels; found out once, since all runs give the same shapes."""
        if name not in self.axes:
            is_first = len(shape) > 2 and self.exterior.of_output(name, shape) == "NCHW"
            self.axes[name] = 1 if is_first else -1
        return self.axes[name]


def _open(graph: Graph, tensors: Sequence[str], form: str, target: str, path: Path, threads: int) -> _Opened:
    """Write the part of a Graph that leads to some tensors, and load it."""
    # Names of their own: a tensor may be called what an input port is called.
    outputs = tuple(Port(name=f"inner/{number}", tensor=name) for number, name in enumerate(tensors))
    inputs = tuple(replace(port, layout=None) for port in graph.inputs)
    shown = replace(graph, inputs=inputs, outputs=outputs, contract=None)
    writer = registry.load("converters", form)
    path = path.with_suffix(writer.suffix)
    writer.write(shown, path)
    session: Session = registry.load("targets", target).open(path, SessionOptions(threads=threads))
    names = {port.name: port.tensor for port in outputs}
    return _Opened(session=session, names=names, exterior=exterior(shown, writer.default_layout))
