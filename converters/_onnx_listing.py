"""What the messages of an .onnx file state: quantized operators, custom domains and newer opsets included.

Source: onnx/onnx, onnx/onnx.proto.
"""

from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

from edgecnn.errors import InputFileError
from edgecnn.interfaces import ListedPort, Listing
from edgecnn.shapes import Shape

from . import _onnx_messages as messages
from ._protobuf import Schema, mapped, numbers, read_message

HEADER: Schema = {**messages.MODEL, 2: ("producer_name", "text", False), 3: ("producer_version", "text", False)}
TENSOR_HEADER: Schema = {number: messages.TENSOR[number] for number in (1, 2, 8)}
"""Sizes, type and name; the numbers themselves are passed by."""

OTHER_TYPES = {8: "text", 17: "float8_e4m3fn", 18: "float8_e4m3fnuz", 19: "float8_e5m2", 20: "float8_e5m2fnuz"}
HALF_BYTES = {21: "uint4", 22: "int4", 23: "float4_e2m1"}
"""Types of 4 bits. Source: onnx.proto, TensorProto.DataType."""

ITEM_BITS = {"float64": 64, "int64": 64, "uint64": 64, "float32": 32, "int32": 32, "uint32": 32}
ITEM_BITS |= {"float16": 16, "bfloat16": 16, "int16": 16, "uint16": 16, **dict.fromkeys(HALF_BYTES.values(), 4)}
"""Type -> bits of one element; 8 where it is not here."""


def listing(path: Path) -> Listing:
    """Return what a file states. See interfaces.Lister."""
    try:
        model = read_message(mapped(path), HEADER)
        graph = read_message(model.get("graph", memoryview(b"")), messages.GRAPH)
        if not model.get("ir_version") or not graph.get("output"):
            raise InputFileError("the file holds no graph")
        return _listing(model, graph)
    except InputFileError as error:
        raise InputFileError(f"{path}: an ONNX model was wanted; the file cannot be decoded: {error}") from None


def _listing(model: dict[str, Any], graph: dict[str, Any]) -> Listing:
    nodes = [read_message(each, messages.NODE) for each in graph.get("node", [])]
    constants = [read_message(each, TENSOR_HEADER) for each in [*graph.get("initializer", []), *_bound(nodes)]]
    named = {constant.get("name", "") for constant in constants}
    inputs, outputs, inner = ([_port(each) for each in graph.get(k, [])] for k in ("input", "output", "value_info"))
    inputs = [port for port in inputs if port.name not in named]
    constant_bytes: Counter[str] = Counter()
    for constant in constants:
        constant_bytes[_type(constant.get("data_type", 0))] += _bytes(constant)
    types = Counter(port.dtype for port in (*inputs, *outputs, *inner) if port.dtype)
    types.update(_type(constant.get("data_type", 0)) for constant in constants)
    return Listing(
        facts=_facts(model, graph),
        inputs=tuple(inputs),
        outputs=tuple(outputs),
        operators=dict(Counter(_kind(node) for node in nodes).most_common()),
        tensors=dict(types.most_common()),
        constant_bytes=dict(constant_bytes.most_common()),
    )


def _facts(model: dict[str, Any], graph: dict[str, Any]) -> dict[str, str]:
    sets = [read_message(each, messages.OPERATOR_SET) for each in model.get("opset_import", [])]
    opsets = [f"{each.get('domain', '') or 'ai.onnx'} {each.get('version', 0)}" for each in sets]
    return {
        "IR version": str(model["ir_version"]),
        "opsets": ", ".join(opsets),
        "producer": f"{model.get('producer_name', '')} {model.get('producer_version', '')}".strip(),
        "name": graph.get("name", ""),
    }


def _bound(nodes: list[dict[str, Any]]) -> list[memoryview]:
    """Return the tensors that Constant nodes carry."""
    held = [each for node in nodes if node.get("op_type") == "Constant" for each in node.get("attribute", [])]
    values = [read_message(each, messages.ATTRIBUTE).get("t") for each in held]
    return [value for value in values if value is not None]


def _kind(node: dict[str, Any]) -> str:
    """Return an operator's name, with its domain where that is not ONNX's own."""
    domain, kind = node.get("domain", ""), str(node.get("op_type", ""))
    return kind if domain in ("", "ai.onnx") else f"{domain}.{kind}"


def _port(data: memoryview) -> ListedPort:
    stated = read_message(data, messages.VALUE_INFO)
    kind = read_message(stated.get("type", memoryview(b"")), messages.TYPE)
    tensor = read_message(kind.get("tensor_type", memoryview(b"")), messages.TENSOR_TYPE)
    dtype = _type(tensor["elem_type"]) if "elem_type" in tensor else ""
    return ListedPort(name=stated.get("name", ""), shape=_shape(tensor.get("shape")), dtype=dtype)


def _shape(data: memoryview | None) -> Shape | None:
    if data is None:
        return None
    sizes = [read_message(each, messages.DIMENSION) for each in read_message(data, messages.SHAPE).get("dim", [])]
    return tuple(size["dim_value"] if size.get("dim_value", 0) > 0 else None for size in sizes)


def _type(number: int) -> str:
    return {**messages.DTYPES, **OTHER_TYPES, **HALF_BYTES}.get(number, f"type {number}")


def _bytes(constant: dict[str, Any]) -> int:
    sizes = [int(size) for size in numbers(constant.get("dims", []), "int64")]
    if any(size < 0 for size in sizes) or len(sizes) > 32:
        raise InputFileError(f"at most 32 sizes, none negative, were wanted; found {sizes[:40]}")
    return -(-prod(sizes) * ITEM_BITS.get(_type(constant.get("data_type", 0)), 8) // 8)
