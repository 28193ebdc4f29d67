"""Runtimes and their accelerators, one per module: each opens an artifact and runs it."""

if __name__ != "edgecnn.targets":
    raise ImportError(f"import edgecnn.targets, not {__name__}: a second copy of its classes would come to life")

BUILTIN = {
    "litert_cpu": "edgecnn.targets.litert_cpu:LITERT_CPU",
    "onnxruntime_cpu": "edgecnn.targets.onnxruntime_cpu:ONNXRUNTIME_CPU",
    "openvino_cpu": "edgecnn.targets.openvino_cpu:OPENVINO_CPU",
    "reference": "edgecnn.targets.reference:REFERENCE",
    "keras_cpu": "edgecnn.targets.keras_cpu:KERAS_CPU",
}
"""In the order in which they are asked for a format that nobody chose a target for."""
