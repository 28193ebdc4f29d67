"""The layer table: one row per Keras layer class and per operation of keras.ops that is read.

A new layer type is a reader (in _keras_read_*) and a row. What is written stands in _keras_operators.
"""

from collections.abc import Callable

from edgecnn import ops

from . import _keras_read_activations as activations
from . import _keras_read_layers as layers
from . import _keras_read_moving as moving
from . import _keras_read_operations as operations
from . import _keras_read_typed as typed
from . import _keras_read_windows as windows
from ._keras_call import LayerCall

Reader = Callable[[LayerCall], str | tuple[str, ...]]
"""One call -> its output tensor, or tensors."""

IDENTITIES = (
    *("Identity", "ActivityRegularization", "AlphaDropout", "GaussianDropout", "GaussianNoise", "StochasticDepth"),
    *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "RandomBrightness", "RandomColorDegeneration"),
    *("RandomColorJitter", "RandomContrast", "RandomElasticTransform", "RandomErasing", "RandomFlip"),
    *("RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective", "RandomPosterization"),
    *("RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom"),
)
"""Layers that give their input unchanged outside training."""

READERS: dict[str, Reader] = {
    "InputLayer": layers.read_input,
    **dict.fromkeys(("Conv1D", "Conv2D", "Convolution2D", "Conv3D"), windows.read_conv),
    **dict.fromkeys(("DepthwiseConv1D", "DepthwiseConv2D"), windows.read_depthwise_conv),
    **dict.fromkeys(("SeparableConv1D", "SeparableConv2D"), windows.read_separable_conv),
    **dict.fromkeys(("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose"), windows.read_conv_transpose),
    "Dense": layers.read_dense,
    "BatchNormalization": layers.read_batch_norm,
    "LayerNormalization": layers.read_layer_norm,
    "GroupNormalization": layers.read_group_norm,
    "UnitNormalization": layers.read_unit_normalization,
    "Normalization": layers.read_normalization,
    "Rescaling": layers.read_rescaling,
    "LayerScale": layers.read_layer_scale,
    "CustomScaleLayer": layers.read_custom_scale,
    "Activation": activations.read_activation,
    "ReLU": activations.read_relu,
    "LeakyReLU": activations.read_leaky_relu,
    "PReLU": activations.read_prelu,
    "ELU": activations.read_elu,
    "Softmax": activations.read_softmax,
    **{f"MaxPooling{n}D": windows.read_pool(ops.MaxPool) for n in (1, 2, 3)},
    **{f"AveragePooling{n}D": windows.read_pool(ops.AveragePool) for n in (1, 2, 3)},
    **{f"GlobalAveragePooling{n}D": windows.read_global_pool(ops.Mean) for n in (1, 2, 3)},
    **{f"GlobalMaxPooling{n}D": windows.read_global_pool(ops.Max) for n in (1, 2, 3)},
    "Add": layers.read_elementwise(ops.Add),
    "Subtract": layers.read_elementwise(ops.Sub, inputs=2),
    "Multiply": layers.read_elementwise(ops.Mul),
    "Average": layers.read_elementwise(ops.Add, is_mean=True),
    "Maximum": layers.read_elementwise(ops.Maximum),
    "Minimum": layers.read_elementwise(ops.Minimum),
    "Concatenate": layers.read_concatenate,
    **{f"ZeroPadding{n}D": moving.read_zero_padding for n in (1, 2, 3)},
    **{f"Cropping{n}D": moving.read_cropping for n in (1, 2, 3)},
    **{f"UpSampling{n}D": moving.read_up_sampling for n in (1, 2, 3)},
    "Resizing": moving.read_resizing,
    "CenterCrop": moving.read_center_crop,
    "Flatten": moving.read_flatten,
    "Reshape": moving.read_reshape,
    "Permute": moving.read_permute,
    "Dropout": layers.read_dropout,
    **dict.fromkeys(IDENTITIES, layers.read_identity),
}
"""Keras class -> reader of one call."""

OPERATIONS: dict[str, Reader] = {
    "Add": operations.read_binary(ops.Add),
    "Subtract": operations.read_binary(ops.Sub),
    "Multiply": operations.read_binary(ops.Mul),
    "Divide": operations.read_binary(ops.Div),
    "TrueDivide": operations.read_binary(ops.Div),
    "Power": operations.read_binary(ops.Pow),
    "Maximum": operations.read_binary(ops.Maximum),
    "Minimum": operations.read_binary(ops.Minimum),
    "Negative": activations.apply_operator(ops.Neg()),
    "Reciprocal": operations.read_with(ops.Div(), constant=1.0, is_first=True),
    "Square": operations.read_square,
    "Rsqrt": activations.apply_operator(ops.Rsqrt()),
    "Abs": activations.apply_operator(ops.Abs()),
    "Absolute": activations.apply_operator(ops.Abs()),
    "Floor": activations.apply_operator(ops.Floor()),
    "Ceil": activations.apply_operator(ops.Ceil()),
    "Round": operations.read_round,
    "Sin": activations.apply_operator(ops.Sin()),
    "Cos": activations.apply_operator(ops.Cos()),
    "Erf": activations.apply_operator(ops.Erf()),
    "Clip": operations.read_clip,
    "Relu": activations.apply_named("relu"),
    "Relu6": activations.apply_named("relu6"),
    "Sigmoid": activations.apply_named("sigmoid"),
    "Tanh": activations.apply_named("tanh"),
    "Silu": activations.apply_named("silu"),
    "HardSigmoid": activations.apply_named("hard_sigmoid"),
    "HardSilu": activations.apply_named("hard_silu"),
    "Softplus": activations.apply_named("softplus"),
    "Softsign": activations.apply_named("softsign"),
    "SoftSign": activations.apply_named("softsign"),
    "Selu": activations.apply_named("selu"),
    "LeakyRelu": operations.read_leaky_relu,
    "Elu": operations.read_elu,
    "Gelu": operations.read_gelu,
    "Softmax": operations.read_softmax,
    "Exp": activations.apply_named("exponential"),
    "Log": activations.apply_operator(ops.Log()),
    "Sqrt": activations.apply_operator(ops.Sqrt()),
    "Mean": operations.read_reduction(ops.Mean),
    "Sum": operations.read_reduction(ops.Sum),
    "Max": operations.read_reduction(ops.Max),
    "Min": operations.read_reduction(ops.Min),
    "Prod": operations.read_reduction(ops.Prod),
    "Argmax": typed.read_arg_max,
    "Cast": typed.read_cast,
    "Greater": typed.read_operands(ops.Greater(), "x1", "x2"),
    "GreaterEqual": typed.read_operands(ops.GreaterOrEqual(), "x1", "x2"),
    "Less": typed.read_operands(ops.Less(), "x1", "x2"),
    "LessEqual": typed.read_operands(ops.LessOrEqual(), "x1", "x2"),
    "Equal": typed.read_operands(ops.Equal(), "x1", "x2"),
    "LogicalAnd": typed.read_operands(ops.And(), "x1", "x2"),
    "LogicalOr": typed.read_operands(ops.Or(), "x1", "x2"),
    "LogicalNot": typed.read_operands(ops.Not(), "x"),
    "Where": typed.read_operands(ops.Where(), "condition", "x1", "x2", first=1),
    "Take": typed.read_take,
    "Tile": operations.read_tile,
    "Normalize": operations.read_normalize,
    "Reshape": operations.read_reshape,
    "Transpose": operations.read_transpose,
    "ExpandDims": operations.read_expand_dims,
    "Squeeze": operations.read_squeeze,
    "Concatenate": operations.read_concatenate,
    "Pad": operations.read_pad,
    "GetItem": operations.read_get_item,
    "Split": operations.read_split,
    "Resize": operations.read_resize,
    "Matmul": operations.read_matmul,
    "Identity": layers.read_identity,
}
"""Class of keras.ops -> reader of one call."""

FUNCTIONS: dict[str, str] = {
    "__operators__.add": "Add",
    "math.add": "Add",
    "math.subtract": "Subtract",
    "math.multiply": "Multiply",
    "math.truediv": "TrueDivide",
    "math.divide": "TrueDivide",
    "math.maximum": "Maximum",
    "math.minimum": "Minimum",
    "nn.relu": "Relu",
    "nn.relu6": "Relu6",
    "nn.silu": "Silu",
    "math.sigmoid": "Sigmoid",
    "math.tanh": "Tanh",
}
"""TensorFlow function in a TFOpLambda of Keras 2 -> the operation of keras.ops that it is."""
