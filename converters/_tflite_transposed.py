"""The row of TFLite's transposed convolution.

TRANSPOSE_CONV states the size of its output and knows SAME and VALID only: any other cut becomes VALID and one SLICE.
It has no dilation: the kernel is spread with zeros instead.
"""

from typing import Any

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Node
from edgecnn.ops import known
from edgecnn.shapes import Shape, effective_kernel_size

from ._tflite_emitter import Spec, TfliteEmitter
from ._tflite_windows import as_image, from_image

Sizes = tuple[int, ...]


def conv_transpose(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    output = e.shape(node.output)
    if len(op.stride) == 3:
        raise UnsupportedError(f"{node.name}: tflite transposes convolutions of 1 or 2 dimensions here; got 3")
    if output[0] is None:
        raise UnsupportedError(f"{node.name}: tflite wants a fixed batch for it; got a symbolic one. Fix the batch.")
    source, image = as_image(e, node)
    window = _Window(e.shape(node.inputs[1]), op)
    sizes = (*window.ones, *map(known, output[1:-1]))
    padding, full = _cut(node, window, tuple(map(known, image[1:-1])), sizes)
    whole = (output[0], *full, known(output[-1]))
    weights = e.arranged(node, "kernel", window.arranged)
    inputs = [e.integers(f"{node.name}/sizes", whole), weights, source]
    if node.operand("bias"):
        inputs.append(e.bias(node, whole[-1]))
    spec = _spec(e, node, padding, window.stride)
    if full == sizes:
        from_image(e, node, lambda result: e.operator(spec, inputs, [result]))
        return
    begin = e.integers(f"{node.name}/begin", (0, *window.befores, 0))
    box = e.integers(f"{node.name}/size", (whole[0], *sizes, whole[-1]))
    inner = e.step(f"{node.name}/whole", whole, spec, inputs)
    from_image(e, node, lambda result: e.operator(Spec(kind="SLICE", options="Slice"), [inner, begin, box], [result]))


def _spec(e: TfliteEmitter, node: Node, padding: str, stride: Sizes) -> Spec:
    """Return the operator: a bias came with version 3, an activation inside with 4."""
    op: Any = node.op
    fields: dict[str, object] = {
        "padding": getattr(e.s.Padding, padding),
        "strideH": stride[0],
        "strideW": stride[1],
        "fusedActivationFunction": e.fused(node),
    }
    version = 4 if op.activation is not None else 3 if node.operand("bias") else 1
    return Spec(kind="TRANSPOSE_CONV", options="TransposeConv", fields=fields, version=version)


class _Window:
    """A transposed convolution over one or two dimensions as one over two; `ones` stands for the missing one."""

    def __init__(self, kernel: Shape, op: Any) -> None:
        self.ones = (1,) * (2 - len(op.stride))
        self.stride: Sizes = (*self.ones, *op.stride)
        self.dilation: Sizes = (*self.ones, *op.dilation)
        self.befores: Sizes = (*(0 for _ in self.ones), *(before for before, _ in op.padding))
        sizes = (*self.ones, *map(known, kernel[:-2]))
        self.spans = tuple(effective_kernel_size(f, d) for f, d in zip(sizes, self.dilation, strict=True))

    def arranged(self, kernel: Array) -> Array:
        """Return the kernel (spatial..., in, out) as (out, height, width, in), its positions `dilation` apart."""
        result = np.zeros((kernel.shape[-1], *self.spans, kernel.shape[-2]), kernel.dtype)
        image = kernel.reshape(*self.ones, *kernel.shape)
        result[:, :: self.dilation[0], :: self.dilation[1]] = np.moveaxis(image, -1, 0)
        return result


def _cut(node: Node, window: _Window, image: Sizes, sizes: Sizes) -> tuple[str, Sizes]:
    """Return TFLite's padding and the output that it must give, which may have to be cut afterwards.

    Args:
        node: The transposed convolution.
        window: Over two dimensions.
        image: Input positions along each dimension.
        sizes: Output positions that are wanted.
    """
    op: Any = node.op
    laid = tuple((n - 1) * s + f for n, f, s in zip(image, window.spans, window.stride, strict=True))
    same = tuple(max(n - size, 0) // 2 for n, size in zip(laid, sizes, strict=True))
    if window.befores == same and image == tuple(-(-n // s) for n, s in zip(sizes, window.stride, strict=True)):
        return "SAME", sizes
    full = tuple(max(n, before + size) for n, before, size in zip(laid, window.befores, sizes, strict=True))
    if any(size - n >= s for size, n, s in zip(full, laid, window.stride, strict=True)):
        raise UnsupportedError(f"{node.name}: tflite wants output_padding below the stride; got {op.output_padding}")
    return "VALID", full
