"""The messages of an ONNX file that are read, as tables of their fields.

Subgraphs, functions, sparse tensors and training information are views that nothing here follows.
Source: onnx/onnx, onnx/onnx.proto.
"""

from ._protobuf import Schema

MODEL: Schema = {
    1: ("ir_version", "int", False),
    7: ("graph", "bytes", False),
    8: ("opset_import", "bytes", True),
    14: ("metadata_props", "bytes", True),
}
GRAPH: Schema = {
    1: ("node", "bytes", True),
    2: ("name", "text", False),
    5: ("initializer", "bytes", True),
    11: ("input", "bytes", True),
    12: ("output", "bytes", True),
    13: ("value_info", "bytes", True),
    15: ("sparse_initializer", "bytes", True),
}
NODE: Schema = {
    1: ("input", "text", True),
    2: ("output", "text", True),
    3: ("name", "text", False),
    4: ("op_type", "text", False),
    5: ("attribute", "bytes", True),
    7: ("domain", "text", False),
}
ATTRIBUTE: Schema = {
    1: ("name", "text", False),
    2: ("f", "float", False),
    3: ("i", "int", False),
    4: ("s", "bytes", False),
    5: ("t", "bytes", False),
    6: ("g", "bytes", False),
    7: ("floats", "float", True),
    8: ("ints", "int", True),
    9: ("strings", "bytes", True),
    20: ("type", "int", False),
}
TENSOR: Schema = {
    1: ("dims", "int", True),
    2: ("data_type", "int", False),
    4: ("float_data", "float", True),
    5: ("int32_data", "int", True),
    7: ("int64_data", "int", True),
    8: ("name", "text", False),
    9: ("raw_data", "bytes", False),
    10: ("double_data", "double", True),
    11: ("uint64_data", "int", True),
    13: ("external_data", "bytes", True),
    14: ("data_location", "int", False),
}
VALUE_INFO: Schema = {1: ("name", "text", False), 2: ("type", "bytes", False)}
TYPE: Schema = {1: ("tensor_type", "bytes", False)}
TENSOR_TYPE: Schema = {1: ("elem_type", "int", False), 2: ("shape", "bytes", False)}
SHAPE: Schema = {1: ("dim", "bytes", True)}
DIMENSION: Schema = {1: ("dim_value", "int", False), 2: ("dim_param", "text", False)}
OPERATOR_SET: Schema = {1: ("domain", "text", False), 2: ("version", "int", False)}
ENTRY: Schema = {1: ("key", "text", False), 2: ("value", "text", False)}

DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""TensorProto.DataType -> NumPy's name; bfloat16 has none and is widened where it is met."""

DATA_FIELDS = {
    "float32": "float_data",
    "float64": "double_data",
    "int64": "int64_data",
    "uint32": "uint64_data",
    "uint64": "uint64_data",
}
"""Type -> the field of a tensor that holds its numbers where raw_data does not; every other type uses int32_data."""

ATTRIBUTE_FIELDS = {1: "f", 2: "i", 3: "s", 4: "t", 6: "floats", 7: "ints", 8: "strings"}
"""AttributeProto.AttributeType -> the field that holds the value."""
