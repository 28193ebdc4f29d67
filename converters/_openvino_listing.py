"""What an OpenVINO model's XML states: layers of any type, ports, and how constants are stored."""

from collections import Counter
from pathlib import Path

from edgecnn.interfaces import ListedPort, Listing

from ._openvino_read_xml import IrLayer, IrModel, IrPort, read_model

SILENT = ("Const", "Parameter", "Result")
"""Layers that compute nothing."""

DTYPES = {
    **{"FP32": "float32", "FP16": "float16", "FP64": "float64", "BF16": "bfloat16", "BOOL": "bool"},
    **{"I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8", "I4": "int4"},
    **{"U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8", "U4": "uint4", "U1": "uint1"},
}
"""How a port spells its type -> NumPy's name, or what NumPy would call it."""


def listing(path: Path) -> Listing:
    """Return what a file states. See interfaces.Lister."""
    model = read_model(path)
    layers = list(model.layers.values())
    stored: Counter[str] = Counter()
    for layer in layers:
        size = layer.data.get("size", "")
        if layer.kind == "Const" and size.isdecimal() and len(size) < 19:
            stored[_type(next(iter(layer.outputs.values()), None))] += int(size)
    return Listing(
        facts={"IR version": model.version, "name": model.name},
        inputs=tuple(_inputs(layers)),
        outputs=tuple(_outputs(model)),
        operators=dict(Counter(layer.kind for layer in layers if layer.kind not in SILENT).most_common()),
        tensors=dict(Counter(_type(port) for layer in layers for port in layer.outputs.values()).most_common()),
        constant_bytes=dict(stored.most_common()),
    )


def _inputs(layers: list[IrLayer]) -> list[ListedPort]:
    found = [(layer, port) for layer in layers if layer.kind == "Parameter" for port in layer.outputs.values()]
    return [_port(layer, port) for layer, port in found]


def _outputs(model: IrModel) -> list[ListedPort]:
    """Return the values behind the Results, by their tensor names."""
    found = []
    for layer in model.layers.values():
        if layer.kind == "Result":
            for number, port in model.sources(layer):
                source = model.layers.get(number)
                if source is not None and port in source.outputs:
                    found.append(_port(source, source.outputs[port]))
    return found


def _port(layer: IrLayer, port: IrPort) -> ListedPort:
    layout = port.layout.strip("[]").replace(",", "")
    return ListedPort(name=port.name or layer.name, shape=port.shape, dtype=_type(port), layout=layout)


def _type(port: IrPort | None) -> str:
    return "" if port is None else DTYPES.get(port.precision, port.precision)
