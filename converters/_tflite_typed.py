"""Rows of TFLite's operators between element types, and of the one that keeps the best boxes."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.extras import require
from edgecnn.graph import Node

from ._tflite_emitter import DEQUANTIZE, Spec, TfliteEmitter

Row = Callable[[TfliteEmitter, Node], None]


def _plain(kind: str, options: str) -> Row:
    spec = Spec(kind=kind, options=options)
    return lambda e, node: e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])


def _cast(e: TfliteEmitter, node: Node) -> None:
    """op_version.cc gives float16 and float64 version 5, int8 version 3."""
    source, target = e.value(node.inputs[0]), e.value(node.output)
    types = {e.dtype(source), e.dtype(target)}
    fields = {"inDataType": e.type_number(e.dtype(source)), "outDataType": e.type_number(e.dtype(target))}
    version = 5 if types & {"float16", "float64"} else 3 if "int8" in types else 1
    e.operator(Spec(kind="CAST", options="Cast", fields=fields, version=version), [source], [target])


def _argmax(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    shape = e.shape(node.inputs[0])
    spec = Spec(kind="ARG_MAX", options="ArgMax", fields={"outputType": e.type_number(op.dtype)})
    inputs = [e.value(node.inputs[0]), e.integers(f"{node.name}/axis", [op.axis])]
    if not op.keep_dims:
        e.operator(spec, inputs, [e.value(node.output)])
        return
    found = e.step(f"{node.name}/found", (*shape[: op.axis], *shape[op.axis + 1 :]), spec, inputs, op.dtype)
    e.reshaped(found, node.output, e.shape(node.output), e.value(node.output))


def _detection(e: TfliteEmitter, node: Node) -> None:
    """A custom operator that every TFLite runtime brings along. Source: LiteRT, kernels/detection_postprocess.cc."""
    op: Any = node.op
    options = {
        "max_detections": op.max_detections,
        "max_classes_per_detection": op.max_classes,
        "detections_per_class": op.detections_per_class,
        "use_regular_nms": op.is_per_class,
        "nms_score_threshold": op.score_threshold,
        "nms_iou_threshold": op.iou_threshold,
        "num_classes": op.classes,
        **dict(zip(("y_scale", "x_scale", "h_scale", "w_scale"), op.scales, strict=True)),
    }
    flexbuffers = require("flatbuffers.flexbuffers", purpose="writing .tflite files")
    spec = Spec(kind="TFLite_Detection_PostProcess", custom=bytes(flexbuffers.Dumps(options)))
    e.operator(spec, [e.value(name) for name in node.inputs], [e.value(name) for name in node.outputs])


def _dequantize(e: TfliteEmitter, node: Node) -> None:
    """DEQUANTIZE; of a constant, each operator that takes it has it in its own arrangement (see `constant_behind`)."""
    if not e.graph.tensors[node.inputs[0]].is_constant:
        e.operator(DEQUANTIZE, [e.value(node.inputs[0])], [e.value(node.output)])


ROWS: dict[type[ops.Op], Row] = {
    ops.Quantize: _plain("QUANTIZE", "Quantize"),
    ops.Dequantize: _dequantize,
    ops.Cast: _cast,
    ops.ArgMax: _argmax,
    ops.Greater: _plain("GREATER", "Greater"),
    ops.GreaterOrEqual: _plain("GREATER_EQUAL", "GreaterEqual"),
    ops.Less: _plain("LESS", "Less"),
    ops.LessOrEqual: _plain("LESS_EQUAL", "LessEqual"),
    ops.Equal: _plain("EQUAL", "Equal"),
    ops.And: _plain("LOGICAL_AND", "LogicalAnd"),
    ops.Or: _plain("LOGICAL_OR", "LogicalOr"),
    ops.Not: _plain("LOGICAL_NOT", "LogicalNot"),
    ops.Where: _plain("SELECT_V2", "SelectV2"),
    ops.DetectionPostProcess: _detection,
}
