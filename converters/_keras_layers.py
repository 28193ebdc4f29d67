"""The layer table, both directions: one row per Keras layer class that is read, one per operator that is written.

A new layer type is a reader (in _keras_readers), a writer (in _keras_writers) and a row in each table.
"""

from collections.abc import Callable

from edgecnn import ops

from . import _keras_readers as read
from . import _keras_writers as write
from ._keras_call import LayerCall

READERS: dict[str, Callable[[LayerCall], str]] = {
    "InputLayer": read.read_input,
    "Conv1D": read.read_conv,
    "Conv2D": read.read_conv,
    "Conv3D": read.read_conv,
    "DepthwiseConv1D": read.read_depthwise_conv,
    "DepthwiseConv2D": read.read_depthwise_conv,
    "Dense": read.read_dense,
    "BatchNormalization": read.read_batch_norm,
    "ReLU": read.read_relu,
    "Activation": read.read_activation,
    "Softmax": read.read_softmax,
    "MaxPooling1D": read.read_pool(ops.MaxPool),
    "MaxPooling2D": read.read_pool(ops.MaxPool),
    "MaxPooling3D": read.read_pool(ops.MaxPool),
    "AveragePooling1D": read.read_pool(ops.AveragePool),
    "AveragePooling2D": read.read_pool(ops.AveragePool),
    "AveragePooling3D": read.read_pool(ops.AveragePool),
    "GlobalAveragePooling1D": read.read_global_average_pool,
    "GlobalAveragePooling2D": read.read_global_average_pool,
    "GlobalAveragePooling3D": read.read_global_average_pool,
    "Add": read.read_elementwise(ops.Add),
    "Subtract": read.read_elementwise(ops.Sub, inputs=2),
    "Multiply": read.read_elementwise(ops.Mul),
    "Concatenate": read.read_concatenate,
    "ZeroPadding1D": read.read_zero_padding,
    "ZeroPadding2D": read.read_zero_padding,
    "ZeroPadding3D": read.read_zero_padding,
    "Flatten": read.read_flatten,
    "Reshape": read.read_reshape,
    "Permute": read.read_permute,
    "Dropout": read.read_dropout,
    "Identity": read.read_identity,
    "ActivityRegularization": read.read_identity,
    "AlphaDropout": read.read_identity,
    "GaussianDropout": read.read_identity,
    "GaussianNoise": read.read_identity,
    "SpatialDropout1D": read.read_identity,
    "SpatialDropout2D": read.read_identity,
    "SpatialDropout3D": read.read_identity,
}
"""Keras class -> reader of one call."""

WRITERS: dict[type[ops.Op], write.Writer] = {
    ops.Conv: write.write_conv,
    ops.Dense: write.write_dense,
    ops.BatchNorm: write.write_batch_norm,
    ops.ReLU: write.write_as("ReLU"),
    ops.ReLU6: write.write_as("ReLU", {"max_value": 6.0}),
    ops.Clip: write.write_clip,
    ops.Sigmoid: write.write_as("Activation", {"activation": "sigmoid"}),
    ops.Tanh: write.write_as("Activation", {"activation": "tanh"}),
    ops.Softmax: write.write_as("Softmax"),
    ops.MaxPool: write.write_pool("MaxPooling"),
    ops.AveragePool: write.write_pool("AveragePooling"),
    ops.Mean: write.write_mean,
    ops.Add: write.write_elementwise("Add"),
    ops.Sub: write.write_elementwise("Subtract"),
    ops.Mul: write.write_elementwise("Multiply"),
    ops.Concat: write.write_concat,
    ops.Pad: write.write_pad,
    ops.Reshape: write.write_reshape,
    ops.Transpose: write.write_transpose,
    ops.Dropout: write.write_dropout,
    ops.Identity: write.write_as("Identity"),
}
"""Operator -> writer."""
