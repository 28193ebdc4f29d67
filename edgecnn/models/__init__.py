"""The zoo: one family per file, the paper's table as rows and a builder; the registry name is the function's name."""

BUILTIN = {
    "lenet5": "edgecnn.models.lenet5:lenet5",
    "mobilenet_v1": "edgecnn.models.mobilenet_v1:mobilenet_v1",
    "mobilenet_v2": "edgecnn.models.mobilenet_v2:mobilenet_v2",
}
