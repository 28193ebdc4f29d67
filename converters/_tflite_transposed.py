"""The row of TFLite's transposed convolution: over one or two dimensions TRANSPOSE_CONV, over three CONV_3D_TRANSPOSE.

Both state the size of their output and know SAME and VALID only: any other cut becomes VALID and one SLICE. The kernel
of a dilation is spread with zeros instead. They have no groups: a few become an operator each; many of a picture a
convolution, with the kernel turned round, of the image that is spread with zeros.
"""

from functools import partial
from typing import Any

import numpy as np

from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array, Node
from edgecnn.ops import elements, known
from edgecnn.shapes import Shape, effective_kernel_size

from ._tflite_emitter import Spec, TfliteEmitter
from ._tflite_pieces import cut, join, run
from ._tflite_windows import as_image, convolve, from_image

Sizes = tuple[int, ...]

MOST_SPLIT = 8
"""Groups up to which each has a TRANSPOSE_CONV of its own.

Kernel 4 x 4, stride 2, between two 1 x 1 convolutions, one thread of an AVX-512 CPU, split against spread: 14 x 14 x 32
in 4 groups 108 and 142 us, in 16 groups 224 and 158 us, in 32 groups 416 and 48 us.
"""


def conv_transpose(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    output = e.shape(node.output)
    source, image = as_image(e, node)
    window = _Window(e.shape(node.inputs[1]), op)
    sizes = (*window.ones, *map(known, output[1:-1]))
    if op.groups > MOST_SPLIT and len(op.stride) < 3:
        flat = (window.kernel_size, (1, 1), window.dilation, ())
        framed = _framed(e, node, window, _spread(e, node, window, source), sizes)
        convolve(e, node, flat, framed, e.s.Padding.VALID, window.turned)
        return
    if output[0] is None:
        raise UnsupportedError(f"{node.name}: tflite wants a fixed batch for it; got a symbolic one. Fix the batch.")
    padding, full = _cut(node, window, tuple(map(known, image[1:-1])), sizes)
    whole = (output[0], *full, known(output[-1]))
    emit = partial(_each_group, e, node, window, _spec(e, node, padding, window.stride), source)
    if full == sizes:
        from_image(e, node, emit)
        return
    inner = e.tensor(f"{node.name}/whole", whole, e.elements(e.value(node.output)))
    emit(inner)
    from_image(e, node, lambda result: cut(e, inner, (0, *window.befores, 0), result, node.name))


def _each_group(e: TfliteEmitter, node: Node, window: "_Window", spec: Spec, source: int, result: int) -> None:
    """Fill an image (N, spatial..., C) with one TRANSPOSE_CONV for each group."""
    op: Any = node.op
    outputs, channels = (known(e.sizes(image)[-1]) // op.groups for image in (result, source))
    shape = (*map(known, e.sizes(result)[:-1]), outputs)
    sizes = e.integers(f"{node.name}/sizes", shape)
    constant = e.constant_behind(node.inputs[1])
    zero = constant.quantization.zero_point[0] if constant and constant.quantization else 0

    def inputs_of(group: int, label: str) -> list[int]:
        own = slice(group * outputs, (group + 1) * outputs)
        image = (
            run(e, source, len(shape) - 1, group * channels, channels, f"{node.name}{label}/input") if label else source
        )
        # Runtimes before LiteRT have no TRANSPOSE_CONV of float numbers with an int8 kernel.
        arranged = partial(window.arranged, zero=zero)
        kernel = e.kernel(node, arranged, axis=window.out_axis, part=own, label=label, is_wide=True)
        inputs = [sizes, kernel, image]
        return [*inputs, e.bias(node, kernel, part=own, label=label)] if node.operand("bias") else inputs

    if op.groups == 1:
        e.operator(spec, inputs_of(0, ""), [result])
        return
    labels = [f"/group_{group}" for group in range(op.groups)]
    kind = e.elements(result)
    pieces = [
        e.step(f"{node.name}{each}", shape, spec, inputs_of(group, each), kind) for group, each in enumerate(labels)
    ]
    join(e, pieces, len(shape) - 1, result)


def _spread(e: TfliteEmitter, node: Node, window: "_Window", image: int) -> int:
    """Return the image (N, height, width, C) with zeros between its positions and behind the last.

    With everything behind an axis seen as one row of numbers, zeros behind each row are positions of zeros.
    """
    for axis in (2, 1):
        stride, sizes = window.stride[axis - 1], e.sizes(image)
        if stride > 1:
            head, row = sizes[: axis + 1], elements(sizes[axis + 1 :])
            rows, label = (*head, row), f"{node.name}/rows_{axis}"
            flat = image if sizes == rows else e.reshaped(image, label, rows)
            flat = e.padded(flat, label, rows, (*((0, 0),) * len(head), (0, row * (stride - 1))))
            wide = (*head[:-1], known(head[-1]) * stride, *sizes[axis + 1 :])
            image = e.reshaped(flat, f"{node.name}/spread_{axis}", wide)
    return image


def _framed(e: TfliteEmitter, node: Node, window: "_Window", image: int, sizes: Sizes) -> int:
    """Return the spread image, cut or padded so that a convolution of stride 1 gives these sizes."""
    padding: list[tuple[int, int]] = [(0, 0)]
    for axis, (size, span, outside) in enumerate(zip(sizes, window.spans, window.befores, strict=True), start=1):
        laid, before = known(e.sizes(image)[axis]), span - 1 - outside
        after = size + span - 1 - laid - before
        if min(before, after) < 0:
            first, kept = max(-before, 0), laid - max(-before, 0) - max(-after, 0)
            image = run(e, image, axis, first, kept, f"{node.name}/inside_{axis}")
        padding.append((max(before, 0), max(after, 0)))
    padding.append((0, 0))
    return e.padded(image, node.name, e.sizes(image), tuple(padding)) if any(map(any, padding)) else image


def _spec(e: TfliteEmitter, node: Node, padding: str, stride: Sizes) -> Spec:
    """Return the operator: of TRANSPOSE_CONV, a bias came with version 3, an activation inside with 4."""
    op: Any = node.op
    fields: dict[str, object] = {
        "padding": getattr(e.s.Padding, padding),
        "strideH": stride[-2],
        "strideW": stride[-1],
        "fusedActivationFunction": e.fused(node),
    }
    if len(stride) == 3:
        fields |= {"strideD": stride[0], **dict.fromkeys(("dilationDFactor", "dilationHFactor", "dilationWFactor"), 1)}
        return Spec(kind="CONV_3D_TRANSPOSE", options="Conv3D", fields=fields)
    version = 4 if op.activation is not None else 3 if node.operand("bias") else 1
    return Spec(kind="TRANSPOSE_CONV", options="TransposeConv", fields=fields, version=version)


class _Window:
    """A transposed convolution over one dimension as one over two; `ones` stands for the missing one."""

    def __init__(self, kernel: Shape, op: Any) -> None:
        self.ones = (1,) * (2 - len(op.stride))
        self.stride: Sizes = (*self.ones, *op.stride)
        self.dilation: Sizes = (*self.ones, *op.dilation)
        self.befores: Sizes = (*(0 for _ in self.ones), *(before for before, _ in op.padding))
        self.kernel_size: Sizes = (*self.ones, *map(known, kernel[:-2]))
        self.out_axis = 3 if len(self.kernel_size) == 3 else 0
        self.spans = tuple(effective_kernel_size(f, d) for f, d in zip(self.kernel_size, self.dilation, strict=True))

    def arranged(self, kernel: Array, zero: int = 0) -> Array:
        """Return the kernel (spatial..., in, out), its positions `dilation` apart, as TFLite has it.

        That is (out, height, width, in), but (depth, height, width, out, in). Between them lies what stands for zero.
        """
        result = np.full((*self.spans, *kernel.shape[-2:]), zero, kernel.dtype)
        result[tuple(slice(None, None, step) for step in self.dilation)] = kernel.reshape(*self.ones, *kernel.shape)
        return np.moveaxis(result, -1, self.out_axis)

    def turned(self, kernel: Array) -> Array:
        """Return the kernel (spatial..., in, out), its positions in the opposite order."""
        return np.flip(kernel, tuple(range(kernel.ndim - 2)))


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
