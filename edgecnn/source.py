"""MODEL on the command line: a zoo name with its options, or a file."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgecnn import registry
from edgecnn.contract import Contract, Layout, parse_contract
from edgecnn.cut import cut
from edgecnn.errors import InputFileError, NotThereError, UnknownNameError, UsageError
from edgecnn.graph import Graph, external_shape, with_batch
from edgecnn.interfaces import Format, Reader
from edgecnn.models.build import ZooOptions, build
from edgecnn.outputs import safe_name
from edgecnn.passes.dequantize import dequantize
from edgecnn.ports import nearest, with_layouts
from edgecnn.shapes import Shape, show_shape

OPEN_SIZES = ("onnx", "tflite")
"""Formats whose files may leave any size open, so that their readers take input_shapes."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choices:
    """What a user settles that a model leaves open, or wants otherwise.

    Attributes:
        zoo: Options of a zoo name.
        input_shapes: Input name -> shape in the file's own order.
        inputs: Where the part that is wanted begins (see cut); none for the model's own.
        outputs: Where it ends.
        io_layout: External layout of every picture, or of each named port.
        contract: File with the contract of a model that brings none.
        dequantize: Whether the float network is wanted that a quantized one stands for.
    """

    zoo: ZooOptions | None = None
    input_shapes: Mapping[str, Shape] = field(default_factory=dict)
    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    io_layout: Layout | Mapping[str, Layout] | None = None
    contract: Path | None = None
    dequantize: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """A model as it was found.

    Attributes:
        graph: With the user's choices.
        read: As read, the whole of it.
        path: Its file, or None for a zoo name.
        default_layout: Of pictures in the file's format.
        size_bytes: Of the file; None for a zoo name.
    """

    graph: Graph
    read: Graph
    path: Path | None = None
    default_layout: Layout = "NHWC"
    size_bytes: int | None = None


def load_source(
    model: str,
    choices: Choices | None = None,
    *,
    values: bool = True,
    report: Callable[[str], None] = lambda what: None,
) -> Source:
    """Return a model and what is known of where it came from; see load_model.

    Args:
        model: A zoo name or a path.
        choices: What the user settles.
        values: False is enough for counting.
        report: Called with what pretrained weights filled and what they left.

    Raises:
        UsageError: When a choice does not fit the model.
    """
    choices = choices or Choices()
    read = load_model(model, choices.zoo, values=values, report=report, input_shapes=choices.input_shapes)
    graph = chosen(read, choices)
    if is_zoo_name(model):
        return Source(graph=graph, read=read)
    path = Path(model)
    form = format_of(path)
    size = sum(file.stat().st_size for file in form.files(path) if file.is_file())
    return Source(graph=graph, read=read, path=path, default_layout=form.default_layout, size_bytes=size)


def chosen(graph: Graph, choices: Choices) -> Graph:
    """Return a Graph with a user's choices but for input_shapes, which belong to reading."""
    if choices.contract is not None:
        graph = replace(graph, contract=_contract(graph, choices.contract))
    if choices.inputs or choices.outputs:
        graph = cut(graph, choices.inputs, choices.outputs)
    if choices.dequantize:
        graph = _in_float(graph)
    return graph if choices.io_layout is None else with_layouts(graph, choices.io_layout)


def _in_float(graph: Graph) -> Graph:
    """Return the float equivalent of a quantized Graph, whose contract no longer says that it holds integers."""
    found, contract = dequantize(graph), graph.contract
    if contract is None or found is graph:
        return found
    return replace(found, contract=replace(contract, recipe="float32", calibration=""))


def _contract(graph: Graph, path: Path) -> Contract:
    """Return the contract in a file, after checking that it fits a Graph that has none."""
    if graph.contract is not None and not graph.contract.is_assumed:
        raise UsageError(f"{graph.name}: --contract is for a model that brings none; this one does. Leave it out.")
    contract = parse_contract(existing(path).read_bytes(), str(path))
    picture = (None, contract.height, contract.width, contract.channels)
    shapes = [graph.tensors[port.tensor].shape for port in graph.inputs]
    fitting = [(None, *shape[1:]) for shape in (picture, external_shape(picture, "NCHW"))]
    if len(shapes) != 1 or (None, *shapes[0][1:]) not in fitting:
        found = ", ".join(map(show_shape, shapes))
        raise UsageError(f"{path}: one input {show_shape(picture)} was wanted for it; {graph.name} has {found}")
    return replace(contract, is_assumed=False)


def load_model(
    model: str,
    options: ZooOptions | None = None,
    *,
    values: bool = True,
    report: Callable[[str], None] = lambda what: None,
    input_shapes: Mapping[str, Shape] | None = None,
) -> Graph:
    """Return the Graph behind a zoo name or a file.

    Args:
        model: "mobilenet_v2", or a path.
        options: For zoo names only.
        values: False is enough for counting.
        report: Called with what pretrained weights filled and what they left.
        input_shapes: Input name -> shape in the file's own order, for what the file leaves open.

    Raises:
        UnknownNameError: When it is neither.
        UsageError: When zoo options stand beside a file, or an input cannot have the shape that was chosen.
        NotThereError: When it looks like a file that is not there.
    """
    path = Path(model)
    if is_zoo_name(model):
        return _with_input_shapes(build(model, options, values=values, report=report), input_shapes or {})
    if not path.suffix and len(path.parts) == 1 and not path.exists():
        raise UnknownNameError(registry.unknown("model", model, registry.entries("models")))
    if options is not None and options != ZooOptions():
        raise UsageError(f"{model}: options such as --width belong to zoo names; a file is taken as it is")
    reader = format_of(path)
    if not isinstance(reader, Reader):
        raise UsageError(f"{model}: a model that can be read was wanted ({', '.join(readable())}); got {path.suffix}")
    if input_shapes and reader.name in OPEN_SIZES:
        sized: Any = reader
        graph: Graph = sized.read(existing(path), input_shapes=input_shapes)
    else:
        graph = _with_input_shapes(reader.read(existing(path)), input_shapes or {})
    return replace(graph, name=safe_name(path.stem))


def _with_input_shapes(graph: Graph, shapes: Mapping[str, Shape]) -> Graph:
    """Return a Graph whose open batch is what was chosen; every other size is part of the network."""
    ports = {port.name: graph.tensors[port.tensor].shape for port in graph.inputs}
    for name, shape in shapes.items():
        if name not in ports:
            raise UnknownNameError(f"--input-shape: {nearest('input', name, ports)}")
        if len(shape) != len(ports[name]) or any(a not in (None, b) for a, b in zip(ports[name], shape, strict=True)):
            raise UsageError(
                f"--input-shape: '{name}' is {show_shape(ports[name])} in {graph.name}, and only an open size can be "
                f"chosen; got {show_shape(shape)}. A zoo network takes --resolution and --in-channels."
            )
    batches = {shape[0] for shape in shapes.values()}
    if len(batches) > 1:
        raise UsageError(f"--input-shape: one batch for all inputs was wanted; got {sorted(map(str, batches))}")
    return with_batch(graph, batches.pop()) if batches else graph


def is_zoo_name(model: str) -> bool:
    """Tell whether MODEL is a zoo name; what has a suffix is a file."""
    return not Path(model).suffix and model in registry.entries("models")


def existing(path: Path) -> Path:
    """Return the path of a file that is there."""
    if not path.is_file():
        raise NotThereError(f"{path}: a file was wanted; there is none.")
    return path


def format_of(path: Path) -> Format:
    """Return the format that a file's suffix names.

    Raises:
        InputFileError: When no format has that suffix.
    """
    for each in formats():
        if path.suffix.lower() in (each.suffix, *each.aliases):
            return each
    known = ", ".join(suffix for each in formats() for suffix in (each.suffix, *each.aliases))
    raise InputFileError(f"{path}: a file that ends in one of {known} was wanted; got '{path.suffix}'")


def formats() -> Iterator[Format]:
    """Yield every format, loaded as it is asked for."""
    return (registry.load("converters", name) for name in registry.names("converters"))


def readable() -> list[str]:
    """Return the suffixes of the formats that can be read."""
    return [suffix for each in formats() if isinstance(each, Reader) for suffix in (each.suffix, *each.aliases)]


def target_for(artifact: Path, name: str | None) -> Any:
    """Return the target of that name, or the CPU target that opens the artifact's format first.

    Raises:
        UsageError: When the named target does not open that format, or none does.
    """
    kind = format_of(artifact).name
    if name is not None:
        target = registry.load("targets", name)
        if kind not in target.formats:
            raise UsageError(f"{name} opens {', '.join(target.formats)}; {artifact} is {kind}. Leave --target out.")
        return target
    for each in registry.names("targets"):
        target = registry.load("targets", each)
        if kind in target.formats:
            return target
    raise UsageError(f"{artifact}: a target that opens {kind} files was wanted; none is installed")
