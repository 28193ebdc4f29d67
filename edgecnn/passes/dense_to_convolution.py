"""Write a dense layer over the channels of an image as a convolution of kernel size 1, for channels-first formats.

    (N, spatial..., in) @ (in, out)  =  conv((N, spatial..., in), (1..., in, out))

A matrix product works on the last axis, which costs a channels-first format a transpose before and after it.
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Node
from edgecnn.ops import Conv, Dense
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.quantization.axes import moved_scales


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a dense layer over images or volumes."""
    return isinstance(node.op, Dense) and len(editor.tensors[node.inputs[0]].shape) in (4, 5)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the layer must stay."""
    return None if editor.constant(node, "kernel") is not None else "its kernel is computed, not constant"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put the convolution in its place, its kernel stored as it was."""
    kernel = editor.constant(node, "kernel")
    if not isinstance(node.op, Dense) or kernel is None or kernel.data is None:
        return
    ones = (1,) * (len(editor.tensors[node.inputs[0]].shape) - 2)
    data = np.ascontiguousarray(kernel.data).reshape(*ones, *kernel.data.shape)
    name = editor.add_constant(f"{node.name}/kernel_of_1", data, dtype=kernel.dtype)
    scales = moved_scales(kernel.quantization, len(ones))
    editor.tensors[name] = replace(editor.tensors[name], quantization=scales)
    op = Conv(stride=ones, padding=((0, 0),) * len(ones), dilation=ones, activation=node.op.activation)
    inputs = (node.inputs[0], name, *node.inputs[2:])
    editor.put(Node(name=node.name, op=op, inputs=inputs, outputs=node.outputs))


PASS = Pass(name="dense_to_convolution", match=match, check=check, rewrite=rewrite)
