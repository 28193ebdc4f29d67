"""Write a BatchNorm that could not be folded as a multiplication and an addition, which every format has.

gamma * (x - mean) / sqrt(variance + epsilon) + beta  =  scale * x + shift
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Node
from edgecnn.ops import Add, BatchNorm, Mul
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.fold_batch_norm import scale_and_shift


def match(editor: GraphEditor, node: Node) -> bool:
    """Match every BatchNorm that is left."""
    return isinstance(node.op, BatchNorm)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the BatchNorm must stay."""
    return None if editor.has_constants(node) else "its parameters are computed, not constant"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put Mul and Add in its place; the Add gives the BatchNorm's output."""
    scale, shift = (values.astype(np.float32) for values in scale_and_shift(editor, node))
    scaled = editor.free_name(f"{node.name}/scaled")
    factor = editor.add_constant(f"{node.name}/scale", scale)
    editor.put(Node(name=scaled, op=Mul(), inputs=(node.inputs[0], factor), outputs=(scaled,)))
    editor.put(replace(node, op=Add(), inputs=(scaled, editor.add_constant(f"{node.name}/shift", shift))))


PASS = Pass(name="lower_batch_norm", match=match, check=check, rewrite=rewrite)
