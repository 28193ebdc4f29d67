"""Dynamic range in an ONNX file: what is multiplied as integers under scales that are found while it runs.

    DynamicQuantizeLinear(x) -> (q, s, z),    y = Cast(ConvInteger(q, w, z, w_zero)) * (s * w_scale)

is a convolution of float activations with a kernel of integers, and MatMulInteger a product like that. These operators
are one float operator in the Graph, whose kernel holds the integers themselves (TFLite's dynamic range).
Source: onnx/onnx, docs/Operators.md; onnxruntime.quantization.quantize_dynamic writes them.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.graph import Array

from ._onnx_read_call import Call, Row
from ._onnx_read_model import OnnxModel, OnnxNode, flat
from ._onnx_read_qlinear import FLOAT_ROWS
from ._onnx_read_quantized import MICROSOFT, dequantized
from ._onnx_read_state import Value

OWN = "edgecnn"
"""Domain of the operators that `with_dynamic_range` puts into a file's list."""

FLOAT = {"ConvInteger": "Conv", "MatMulInteger": "MatMul"}
"""Operator over integers -> the same over numbers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wiring:
    """Who gives and who takes a file's values."""

    givers: Mapping[str, OnnxNode]
    takers: Mapping[str, list[OnnxNode]]
    outputs: frozenset[str]

    def only_taker(self, node: OnnxNode, op_type: str) -> OnnxNode | None:
        """Return the one operator, of this type, that takes a node's first output."""
        takers = self.takers.get(node.outputs[0], []) if node.outputs else []
        is_only = len(takers) == 1 and node.outputs[0] not in self.outputs and takers[0].op_type == op_type
        return takers[0] if is_only else None

    def factors(self, node: OnnxNode) -> Iterator[str]:
        """Yield what a product multiplies; one level of products within it is taken apart."""
        for name in node.inputs:
            giver = self.givers.get(name)
            yield from giver.inputs if giver is not None and giver.op_type == "Mul" else (name,)


def with_dynamic_range(model: OnnxModel) -> OnnxModel:
    """Return the file's records with one operator in place of each product under dynamic scales."""
    integer = [node for node in model.nodes if node.op_type in FLOAT and not node.domain]
    if not integer:
        return model
    takers: dict[str, list[OnnxNode]] = {}
    for node in flat(model.nodes):
        for name in node.taken:
            takers.setdefault(name, []).append(node)
    wiring = _Wiring(
        givers={name: node for node in model.nodes for name in node.outputs if name},
        takers=takers,
        outputs=frozenset(value.name for value in model.outputs),
    )
    found = {node.outputs: node for node in (_joined(wiring, each) for each in integer) if node is not None}
    return replace(model, nodes=tuple(found.get(node.outputs, node) for node in model.nodes))


def _joined(wiring: _Wiring, node: OnnxNode) -> OnnxNode | None:
    """Return the operator that a product, its Cast and the Mul by both scales are, with the Mul's output."""
    first = wiring.givers.get(node.inputs[0]) if node.inputs and node.outputs else None
    cast = wiring.only_taker(node, "Cast") if first is not None else None
    scaled = wiring.only_taker(cast, "Mul") if cast is not None and cast.outputs else None
    if first is None or not first.inputs or cast is None or scaled is None or len(node.inputs) < 3:
        return None
    is_dynamic = first.op_type == "DynamicQuantizeLinear" and first.outputs[::2] == (node.inputs[0], node.inputs[2])
    wanted = {cast.outputs[0], first.outputs[1]} if is_dynamic else set()
    factors = list(wiring.factors(scaled))
    if len(factors) < 3:  # Mul(Mul(product, s), w_scale), the other way round
        outer = wiring.only_taker(scaled, "Mul")
        scaled, factors = (scaled, []) if outer is None else (outer, list(wiring.factors(outer)))
    scales = [name for name in factors if name not in wanted]
    if not is_dynamic or len(factors) != 3 or len(scales) != 1:
        return None
    inputs = (first.inputs[0], node.inputs[1], scales[0], *node.inputs[3:4])
    return replace(node, name=scaled.name, domain=OWN, inputs=inputs, outputs=scaled.outputs[:1])


def _product(call: Call) -> Value:
    """Read one of our own: (x, kernel, kernel's scale, kernel's zero point)."""
    kind = FLOAT[call.node.op_type]
    axis = 0 if kind == "Conv" else len(call.shape(1)) - 1
    return _over_kernel(call, kind, (1, 2, 3), axis)


def _over_kernel(call: Call, kind: str, places: tuple[int, int, int], axis: int, name: str = "") -> str:
    """Read a float operator over the first input and a kernel of integers."""
    kernel, scale, zero = places
    flat_call = _with_flat_scale(call, kernel, scale, axis)
    stored = dequantized(flat_call, kernel, (scale, zero), axis, is_direct=True)
    call.reading.values[stored] = stored
    node = replace(call.node, op_type=kind, domain="", inputs=(call.node.inputs[0], stored))
    inner = replace(call, node=replace(node, outputs=(name,)), title=name) if name else replace(call, node=node)
    found = FLOAT_ROWS[kind](inner)
    if not isinstance(found, str):
        raise UnsupportedError(f"a computed result of {kind} was wanted; found a known one")
    return found


def _with_flat_scale(call: Call, kernel: int, scale: int, axis: int) -> Call:
    """Return the call with a scale that multiplies a result as one number for each channel of the kernel."""
    found, shape = call.constant(scale, "scales"), call.shape(kernel)
    if found.ndim < 2 and (found.size == 1 or axis == len(shape) - 1):
        return call
    wide = (shape[0], *(1 for _ in shape[2:])) if axis == 0 else shape[-1:]
    if found.size != 1 and _trimmed(found) != wide:
        raise InputFileError(f"a scale that multiplies channels was wanted; found one of the shape {found.shape}")
    name = call.reading.free_name(f"{call.node.inputs[scale]}/flat")
    call.reading.values[name] = found.ravel()
    inputs = (name if place == scale else each for place, each in enumerate(call.node.inputs))
    return replace(call, node=replace(call.node, inputs=tuple(inputs)))


def _trimmed(values: Array) -> tuple[int, ...]:
    """Return a shape without the ones that lead it."""
    first = next((axis for axis, size in enumerate(values.shape) if size != 1), values.ndim)
    return values.shape[first:]


def _microsoft_product(call: Call) -> Value | tuple[Value, ...]:
    """Read com.microsoft.DynamicQuantizeMatMul: (x, kernel, scale, zero point, float bias)."""
    name = call.reading.free_name(f"{call.output}/product") if call.has(4) else ""
    found = _over_kernel(call, "MatMul", (1, 2, 3), len(call.shape(1)) - 1, name)
    if not call.has(4):
        return found
    call.reading.values[found] = found
    node = replace(call.node, op_type="Add", domain="", inputs=(found, call.node.inputs[4]))
    return FLOAT_ROWS["Add"](replace(call, node=node))


def _refused(call: Call) -> Value:
    raise UnsupportedError(
        "DynamicQuantizeLinear, ConvInteger or MatMulInteger, Cast and Mul by both scales were wanted, one behind the "
        "other; found it alone"
    )


ROWS: dict[str, Row] = {
    **dict.fromkeys(("DynamicQuantizeLinear", "ConvInteger", "MatMulInteger"), _refused),
    **{f"{OWN}.{kind}": _product for kind in FLOAT},
    f"{MICROSOFT}DynamicQuantizeMatMul": _microsoft_product,
}
"""Operator, with its domain where that is not ONNX's own -> its row."""
