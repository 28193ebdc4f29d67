"""What TFLite's 8-bit specification asks of each operator's scales; the strictest of the three formats' rules.

Source: TensorFlow, lite/g3doc/performance/quantization_spec.md.
"""

import numpy as np

from edgecnn import ops
from edgecnn.quantization.parameters import Quantization, per_channel, per_tensor

WEIGHTED = (ops.Conv, ops.ConvTranspose, ops.Dense)
"""Operators with a constant kernel, quantized symmetrically in -127..127, and an int32 bias of scale input * kernel."""

SAME_SCALE: tuple[type[ops.Op], ...] = (
    *(ops.MaxPool, ops.AveragePool, ops.Max, ops.Min, ops.Maximum, ops.Minimum),
    *(ops.Concat, ops.Split, ops.Slice, ops.Gather, ops.Pad, ops.Tile, ops.Reshape, ops.Transpose, ops.Resize),
    *(ops.DepthToSpace, ops.SpaceToDepth, ops.Identity, ops.Dropout),
)
"""Operators that move or choose: one scale for everything that goes in and comes out."""

FIXED_OUTPUT: dict[tuple[type[ops.Op], str], Quantization] = {
    (ops.Softmax, "int8"): per_tensor(1 / 256, -128),
    (ops.Sigmoid, "int8"): per_tensor(1 / 256, -128),
    (ops.Tanh, "int8"): per_tensor(1 / 128),
    (ops.L2Normalize, "int8"): per_tensor(1 / 128),
    **{(kind, "int16"): per_tensor(1 / 32768, 0, "int16") for kind in (ops.Softmax, ops.Sigmoid, ops.Tanh)},
}
"""(operator, type of its activations) -> the quantization that its output must have."""

READS_INTEGERS = (ops.ArgMax,)
"""Operators that take integers and give a type of their own."""

INTEGER_OPERATORS: dict[str, tuple[type[ops.Op], ...]] = {
    "int8": (
        *(*WEIGHTED, *SAME_SCALE, *READS_INTEGERS),
        *(ops.Add, ops.Sub, ops.Mul, ops.Mean, ops.Softmax, ops.L2Normalize),
        *(ops.ReLU, ops.ReLU6, ops.LeakyReLU, ops.PReLU, ops.ELU, ops.HardSwish, ops.Sigmoid, ops.Tanh, ops.GELU),
    ),
    "int16": (
        *(*WEIGHTED, ops.Concat, ops.Split, ops.Slice, ops.Pad, ops.Reshape, ops.Transpose, ops.Resize, ops.Identity),
        *(ops.MaxPool, ops.AveragePool, ops.Maximum, ops.Minimum, ops.Dropout),
        *(ops.Add, ops.Sub, ops.Mul, ops.Mean, ops.Softmax, ops.LeakyReLU, ops.ReLU, ops.Sigmoid, ops.Tanh),
    ),
}
"""Type of activations -> operators that TFLite computes in it; every other one stays float between Dequantize and
Quantize.
"""

SUM_RATIOS = (2.0**-10, 2.0**8)
"""Operand scale / output scale of a sum: from the first on and below the second XNNPACK takes it, else slow kernels.

Source: XNNPACK, src/operators/binary-elementwise-nd.c: "scale ratio must be in [2**-10, 2**8) range".
"""


def bias_quantization(source: Quantization, kernel: Quantization, dtype: str | None = None) -> Quantization:
    """Return what a layer's bias stands for: integers in steps of the products, symmetric.

    Args:
        source: Of the layer's input; one scale.
        kernel: Of its kernel; per output channel, or one scale.
        dtype: NumPy name of the type; None takes int32, or int64 beside 16-bit activations.
    """
    scales = np.float32(source.scale[0]) * np.asarray(kernel.scale, np.float32)
    dtype = dtype or ("int64" if source.dtype == "int16" else "int32")
    return per_tensor(scales[0], dtype=dtype) if kernel.axis is None else per_channel(scales, axis=0, dtype=dtype)
