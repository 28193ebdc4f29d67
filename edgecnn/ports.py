"""Ports as the outside sees them: the order of axes, and the integers, of each input and output of an artifact.

The Graph stores N, spatial..., C. An artifact's own shapes tell whether a port is NHWC or NCHW; where both fit (3x3x3),
what was chosen for the port decides, and then the default of the format. Callers feed and get real numbers: an integer
port's quantization, from the Graph or from the artifact's own tables, says which integers stand for them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np

from edgecnn.contract import CHOICES, Contract, Layout
from edgecnn.errors import UnknownNameError, UsageError
from edgecnn.graph import Array, Graph, Port, Tensor, external_shape
from edgecnn.quantization.parameters import Quantization
from edgecnn.shapes import Shape, show_shape

IMAGE_RANK = 4
"""Ports of this rank or more are pictures: nobody has to choose a layout for a format's default to hold."""

LAYOUT_RANK = 3
"""Below this rank both layouts are the same."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Exterior:
    """What is known of an artifact's ports before its own shapes are seen.

    Attributes:
        default: Layout that the format gives pictures.
        inputs: Port name -> layout that was chosen.
        outputs: The same for outputs.
        shapes: Output name -> shape in the Graph's order; empty where there is no Graph.
        input_integers: Name of a quantized input -> what its integers stand for.
        output_integers: The same for outputs.
    """

    default: Layout
    inputs: Mapping[str, Layout] = field(default_factory=dict)
    outputs: Mapping[str, Layout] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=dict)
    input_integers: Mapping[str, Quantization] = field(default_factory=dict)
    output_integers: Mapping[str, Quantization] = field(default_factory=dict)

    def of_input(self, name: str, shape: Shape, found: Shape) -> Layout:
        """Return an input's layout, from its shape in the Graph's order and the artifact's own."""
        return observed_layout(shape, found, self.inputs.get(name) or default_layout(shape, self.default))

    def of_output(self, name: str, found: Shape) -> Layout:
        """Return an output's layout, from the shape of the array that the artifact gave."""
        preferred = self.outputs.get(name) or default_layout(found, self.default)
        return observed_layout(self.shapes[name], found, preferred) if name in self.shapes else preferred

    def to_stored(self, name: str, values: Array, dtype: str) -> Array:
        """Return real numbers as an input's own elements; what has the port's type already goes in as it is.

        Args:
            name: The port.
            values: Real numbers, or stored integers.
            dtype: NumPy's name of the element type that the port takes.

        Raises:
            UsageError: When an integer port gets fractions, or what its type cannot hold, and nothing says what its
                integers stand for.
        """
        if str(values.dtype) == dtype:
            return values
        quantization = _fitting(self.input_integers, name, dtype)
        if quantization is not None:
            return quantization.quantize(values.astype(np.float32))
        with np.errstate(invalid="ignore"):  # what an integer type cannot hold, refused below
            cast_values = values.astype(dtype)
        if np.issubdtype(cast_values.dtype, np.integer) and not np.array_equal(cast_values, values):
            raise UsageError(
                f"input '{name}': {dtype} integers were wanted; got numbers that {dtype} cannot hold, and nothing says "
                "what the port's integers stand for. Feed integers, or give a contract of raw pixels (mean 0, std 1)."
            )
        return cast_values

    def to_real(self, name: str, values: Array) -> Array:
        """Return what an output's integers stand for; numbers that stand for themselves as they are."""
        quantization = _fitting(self.output_integers, name, str(values.dtype))
        return values if quantization is None else quantization.dequantize(values)


def exterior(graph: Graph, default: Layout, stored: Contract | None = None) -> Exterior:
    """Return what a Graph and the contract inside an artifact say of the artifact's ports.

    Args:
        graph: What the artifact was written from, or was read into.
        default: Of the artifact's format.
        stored: The artifact's own contract, whose layout is that of its first input.
    """
    inputs = {port.name: cast(Layout, port.layout) for port in graph.inputs if port.layout}
    if stored is not None and graph.inputs:
        inputs[graph.inputs[0].name] = stored.layout
    return Exterior(
        default=default,
        inputs=inputs,
        outputs={port.name: cast(Layout, port.layout) for port in graph.outputs if port.layout},
        shapes={port.name: graph.tensors[port.tensor].shape for port in graph.outputs},
        input_integers=port_integers(graph, graph.inputs),
        output_integers=port_integers(graph, graph.outputs),
    )


def port_integers(graph: Graph, ports: Iterable[Port]) -> dict[str, Quantization]:
    """Return port name -> what its integers stand for, of the quantized ones among some ports."""
    tensors: dict[str, Tensor] = {port.name: graph.tensors[port.tensor] for port in ports}
    return {name: tensor.quantization for name, tensor in tensors.items() if tensor.quantization is not None}


def _fitting(known: Mapping[str, Quantization], name: str, dtype: str) -> Quantization | None:
    """Return a port's quantization where its type is the one found; an only port may have another name."""
    only = next(iter(known.values())) if len(known) == 1 else None
    quantization = known.get(name, only)
    return quantization if quantization is not None and quantization.dtype == dtype else None


def default_layout(shape: Shape, default: Layout) -> Layout:
    """Return the layout of a port that nobody chose one for: the format's own for pictures."""
    return default if len(shape) >= IMAGE_RANK else "NHWC"


def observed_layout(shape: Shape, found: Shape, preferred: Layout) -> Layout:
    """Return the only layout in which `found` is `shape`; the preferred one where both are, or none is.

    >>> observed_layout((1, 8, 9, 3), (None, 3, 8, 9), "NHWC")
    'NCHW'
    """
    layouts: tuple[Layout, Layout] = ("NHWC", "NCHW")
    fitting = [layout for layout in layouts if _is_alike(external_shape(shape, layout), found)]
    return fitting[0] if len(fitting) == 1 else preferred


def _is_alike(shape: Shape, found: Shape) -> bool:
    """Compare all axes but the batch; a size that is open fits any."""
    pairs = zip(shape[1:], found[1:], strict=False)
    return len(shape) == len(found) and all(None in (a, b) or a == b for a, b in pairs)


def parse_layouts(text: str) -> Layout | dict[str, Layout]:
    """Read --io-layout: one layout for every picture, or one for each named port.

    >>> parse_layouts("image:nchw,mask:nhwc")
    {'image': 'NCHW', 'mask': 'NHWC'}
    """
    if ":" not in text:
        return _parsed(text)
    pairs = [part.strip().rpartition(":") for part in text.split(",")]
    return {name: _parsed(layout) for name, _, layout in pairs}


def _parsed(text: str) -> Layout:
    layout = text.strip().upper()
    if layout not in CHOICES["layout"]:
        raise UsageError(f"--io-layout: nhwc or nchw, or NAME:nchw for each port was wanted; got {text!r}")
    return cast(Layout, layout)


def with_layouts(graph: Graph, chosen: Layout | Mapping[str, Layout]) -> Graph:
    """Return the Graph with external layouts that somebody chose.

    Args:
        graph: Any.
        chosen: One for every picture, or port name -> layout for any port with channels (rank 3 and more).

    Raises:
        UnknownNameError: When no port has that name.
        UsageError: When a port has no channels to move.
    """
    ports = (*graph.inputs, *graph.outputs)
    if not isinstance(chosen, str):
        for name in chosen:
            _refuse(graph, name, [port for port in ports if port.name == name])

    def turned(port: Port) -> Port:
        is_picture = len(graph.tensors[port.tensor].shape) >= IMAGE_RANK
        layout = (chosen if is_picture else None) if isinstance(chosen, str) else chosen.get(port.name)
        return replace(port, layout=layout or port.layout)

    return replace(graph, inputs=tuple(map(turned, graph.inputs)), outputs=tuple(map(turned, graph.outputs)))


def _refuse(graph: Graph, name: str, ports: list[Port]) -> None:
    if not ports:
        raise UnknownNameError(nearest("input or output", name, [p.name for p in (*graph.inputs, *graph.outputs)]))
    for shape in (graph.tensors[port.tensor].shape for port in ports):
        if len(shape) < LAYOUT_RANK:
            raise UsageError(
                f"--io-layout: '{name}' with spatial axes and channels was wanted; it is {show_shape(shape)}"
            )


def nearest(kind: str, name: str, known: Iterable[str]) -> str:
    """Return the message for a name that nothing in a network has, with the nearest or the first few that there are."""
    names = sorted(set(known))
    import difflib  # only a wrong name needs it

    near = difflib.get_close_matches(name, names, n=1)
    listed = ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    return f"No {kind} is named '{name}'. " + (f"Did you mean '{near[0]}'?" if near else f"There are: {listed}.")


def differing_layouts(graph: Graph, source: Layout, artifact: Layout) -> list[tuple[str, Layout, Layout]]:
    """Return (port, layout in the source's format, in the artifact's) where nobody chose and the defaults differ."""
    ports = [p for p in (*graph.inputs, *graph.outputs) if len(graph.tensors[p.tensor].shape) >= IMAGE_RANK]
    if source == artifact:
        return []
    return [(port.name, source, artifact) for port in ports if port.layout is None]
