"""The operator table: one row per operator of the vocabulary, saying as which Keras layers it is written.

DepthToSpace, SpaceToDepth, LRN and Opaque have no row: the first three are lowered to operators that have one
(_keras_groups), the last is refused.
"""

from edgecnn import ops

from . import _keras_writers as write

WRITERS: dict[type[ops.Op], write.Writer] = {
    ops.Conv: write.write_conv,
    ops.ConvTranspose: write.write_conv_transpose,
    ops.Dense: write.write_dense,
    ops.BatchNorm: write.write_batch_norm,
    ops.LayerNorm: write.write_layer_norm,
    ops.ReLU: write.write_as("ReLU"),
    ops.ReLU6: write.write_as("ReLU", {"max_value": 6.0}),
    ops.LeakyReLU: write.write_leaky_relu,
    ops.PReLU: write.write_prelu,
    ops.ELU: write.write_elu,
    ops.GELU: write.write_gelu,
    ops.Clip: write.write_clip,
    ops.Sigmoid: write.write_activation("sigmoid"),
    ops.HardSigmoid: write.write_activation("hard_sigmoid"),
    ops.Tanh: write.write_activation("tanh"),
    ops.Swish: write.write_activation("silu"),
    ops.HardSwish: write.write_activation("hard_silu"),
    ops.Softplus: write.write_activation("softplus"),
    ops.Exp: write.write_activation("exponential"),
    ops.Log: write.write_function("log"),
    ops.Sqrt: write.write_function("sqrt"),
    ops.Softmax: write.write_as("Softmax"),
    ops.MaxPool: write.write_pool("MaxPooling"),
    ops.AveragePool: write.write_pool("AveragePooling"),
    ops.Mean: write.write_reduction("mean", "GlobalAveragePooling"),
    ops.Max: write.write_reduction("max", "GlobalMaxPooling"),
    ops.Sum: write.write_reduction("sum"),
    ops.Add: write.write_elementwise("add", "Add"),
    ops.Sub: write.write_elementwise("subtract", "Subtract"),
    ops.Mul: write.write_elementwise("multiply", "Multiply"),
    ops.Div: write.write_elementwise("divide"),
    ops.Pow: write.write_elementwise("power"),
    ops.Maximum: write.write_elementwise("maximum", "Maximum"),
    ops.Minimum: write.write_elementwise("minimum", "Minimum"),
    ops.Concat: write.write_concat,
    ops.Pad: write.write_pad,
    ops.Slice: write.write_slice,
    ops.Reshape: write.write_reshape,
    ops.Transpose: write.write_transpose,
    ops.Resize: write.write_resize,
    ops.Dropout: write.write_dropout,
    ops.Identity: write.write_as("Identity"),
}
"""Operator -> writer."""
