"""File formats, one per module: each reads a file into a Graph, writes a Graph to a file, or both."""

if __name__ != "edgecnn.converters":
    raise ImportError(f"import edgecnn.converters, not {__name__}: a second copy of its classes would come to life")

BUILTIN = {
    "tflite": "edgecnn.converters.tflite_file:TFLITE",
    "onnx": "edgecnn.converters.onnx_file:ONNX",
    "openvino": "edgecnn.converters.openvino_ir:OPENVINO",
    "keras": "edgecnn.converters.keras_file:KERAS",
}
