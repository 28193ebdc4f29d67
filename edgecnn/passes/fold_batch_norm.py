"""Fold BatchNorm into the convolution or dense layer before it.

    gamma * (w * x + b - mean) / sqrt(variance + epsilon) + beta  =  (g w) * x + (b - mean) g + beta
    g = gamma / sqrt(variance + epsilon), one number per output channel

The output channel is the last axis of every kernel, depthwise and transposed ones included: one broadcast serves all.
It is computed in float64 and rounded once.
"""

import numpy as np

from edgecnn.graph import Array, Node
from edgecnn.ops import BatchNorm, Conv, ConvTranspose, Dense
from edgecnn.passes.editor import GraphEditor, Pass, absorb


def match(editor: GraphEditor, node: Node) -> bool:
    """Match every BatchNorm."""
    return isinstance(node.op, BatchNorm)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the BatchNorm may not be folded into what comes before it."""
    producer = editor.producer(node.inputs[0])
    if producer is None or not isinstance(producer.op, Conv | ConvTranspose | Dense):
        before = producer.kind if producer else "a graph input"
        return f"it follows {before}, not a convolution or dense layer"
    kernel = producer.operand("kernel") or ""
    reasons = {
        f"an activation lies between it and {producer.name}": producer.op.activation is not None,
        f"the output of {producer.name} is used elsewhere too": editor.only_consumer(producer.output) is None,
        f"the parameters of {producer.name} are computed, not constant": not editor.has_constants(producer),
        "its own parameters are computed, not constant": not editor.has_constants(node),
        f"the kernel of {producer.name} is shared with another layer": len(editor.consumers(kernel)) > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), None)


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Scale the kernel, make the bias, and let the layer give the BatchNorm's output."""
    producer = editor.producer(node.inputs[0])
    if producer is None:
        return
    scale, shift = scale_and_shift(editor, node)
    kernel, bias = editor.constant(producer, "kernel"), editor.constant(producer, "bias")
    if kernel is None:
        return
    old_bias = bias.value() if bias is not None else 0.0
    new_kernel = editor.add_constant(f"{producer.name}/kernel_folded", (kernel.value() * scale).astype(np.float32))
    new_bias = editor.add_constant(f"{producer.name}/bias_folded", (old_bias * scale + shift).astype(np.float32))
    absorb(editor, node, producer, producer.op, (producer.inputs[0], new_kernel, new_bias))


def scale_and_shift(editor: GraphEditor, node: Node) -> tuple[Array, Array]:
    """Return a BatchNorm as y = scale * x + shift, in float64."""
    gamma, beta, mean, variance = (editor.tensors[name].value().astype(np.float64) for name in node.inputs[1:])
    epsilon = node.op.epsilon if isinstance(node.op, BatchNorm) else 0.0
    scale = gamma / np.sqrt(variance + epsilon)
    return scale, beta - mean * scale


PASS = Pass(name="fold_batch_norm", match=match, check=check, rewrite=rewrite)
