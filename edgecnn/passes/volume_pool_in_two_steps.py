"""Write a pooling over volumes as two over pictures, for formats that pool pictures only.

The largest and the mean of a box are those of its columns first and then of the rest; how much of a window lies inside
the volume is a product over the axes, too. A picture whose channels are a volume's width and channels together is free:

    pool_{d x h x w}(N, D, H, W, C)  =  pool_{1 x w}(pool_{d x h}(N, D, H, W C) as (N, D' H', W, C))
"""

from dataclasses import replace

from edgecnn.graph import Node
from edgecnn.ops import AveragePool, MaxPool, Reshape, known
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a pooling over three dimensions."""
    return isinstance(node.op, MaxPool | AveragePool) and len(node.op.stride) == 3


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return None: there is always a way."""
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Put two poolings and the reshapes around them in its place; the last one carries the name."""
    op = node.op
    if not isinstance(op, MaxPool | AveragePool):
        return
    batch, depth, height, width, channels = editor.tensors[node.inputs[0]].shape
    _, fewer_layers, fewer_rows, *_ = whole = editor.tensors[node.output].shape
    layers_and_rows, columns = (
        replace(op, kernel_size=op.kernel_size[:2], stride=op.stride[:2], padding=op.padding[:2], activation=None),
        replace(op, kernel_size=(1, op.kernel_size[2]), stride=(1, op.stride[2]), padding=((0, 0), op.padding[2])),
    )
    flat = known(fewer_layers) * known(fewer_rows)
    x = node.inputs[0]
    for label, step in (
        ("rows", Reshape(shape=(batch, depth, height, known(width) * known(channels)))),
        ("layers_and_rows", layers_and_rows),
        ("columns", Reshape(shape=(batch, flat, width, channels))),
        ("pooled", columns),
    ):
        name = editor.free_name(f"{node.name}/{label}")
        editor.put(Node(name=name, op=step, inputs=(x,), outputs=(name,)))
        x = name
    editor.put(replace(node, op=Reshape(shape=whole), inputs=(x,)))


PASS = Pass(name="volume_pool_in_two_steps", match=match, check=check, rewrite=rewrite)
