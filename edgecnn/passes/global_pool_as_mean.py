"""Write an average over one window that covers the picture as a mean over its positions.

    average_pool_{h x w}(x of h x w positions)  =  mean over the spatial axes, which stay with size 1

Every format runs a mean, XNNPACK in int8 too, which takes no AVERAGE_POOL_2D there; quantization leaves a mean free.
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import AveragePool, Mean, known
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match an average pooling of one window that covers the picture."""
    if not isinstance(node.op, AveragePool):
        return False
    sizes, outputs = (editor.tensors[name].shape[1:-1] for name in (node.inputs[0], node.output))
    windows = zip(sizes, node.op.padding, node.op.kernel_size, strict=True)
    return set(outputs) == {1} and all(before + known(n) <= kernel for n, (before, _), kernel in windows)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the pooling must stay."""
    if not isinstance(node.op, AveragePool):
        return "it is no average pooling"
    if node.op.activation is not None:
        return "a mean cannot carry its activation"
    return "it counts its padding" if node.op.count_include_pad and any(map(any, node.op.padding)) else None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put the mean in its place."""
    spatial = tuple(range(1, len(editor.tensors[node.output].shape) - 1))
    editor.put(replace(node, op=Mean(axes=spatial, keep_dims=True)))


PASS = Pass(name="global_pool_as_mean", match=match, check=check, rewrite=rewrite)
