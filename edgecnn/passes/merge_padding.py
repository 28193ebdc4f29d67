"""Move padding into the pooling behind it, where no window can tell the difference.

    average(pad_0(x))  =  average over x with padding that is counted
    max(pad_v(x))      =  max over x with padding, where v never wins

v never wins when it is the lowest number, or not above anything that x can be: 0 behind a ReLU.
"""

from dataclasses import replace
from typing import Any

from edgecnn.graph import Node
from edgecnn.ops import AveragePool, MaxPool, Pad
from edgecnn.passes.editor import GraphEditor, Pass
from edgecnn.passes.value_range import value_range

LOWEST = -3e38
"""What pads below any number of float32 that is left after a pooling (its lowest is -3.4e38)."""


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a pooling over what a Pad gives."""
    before = editor.producer(node.inputs[0]) if isinstance(node.op, AveragePool | MaxPool) else None
    return before is not None and isinstance(before.op, Pad)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the padding must stay."""
    before = editor.producer(node.inputs[0])
    if before is None or not isinstance(before.op, Pad) or not isinstance(node.op, AveragePool | MaxPool):
        return "nothing is padded before it"
    pad, pool = before.op, node.op
    if pad.mode != "constant":
        return f"{before.name} does not pad with one value"
    if any((*pad.padding[0], *pad.padding[-1])):
        return f"{before.name} pads the batch or the channels"
    if editor.only_consumer(before.output) is None:
        return f"the output of {before.name} is used elsewhere too"
    together = [max(b + c, a + d) for (b, a), (c, d) in zip(pool.padding, pad.padding[1:-1], strict=True)]
    if any(most >= size for most, size in zip(together, pool.kernel_size, strict=True)):
        return "a window would lie in the padding alone"
    return _refuse_value(editor, before, pool)


def _refuse_value(editor: GraphEditor, before: Node, pool: AveragePool | MaxPool) -> str | None:
    value = before.op.value if isinstance(before.op, Pad) else 0.0
    if isinstance(pool, AveragePool):
        own = any(map(any, pool.padding))
        if own and not pool.count_include_pad:
            return "its own padding is not counted"
        return None if value == 0 else f"{before.name} pads with another value than zero"
    low, _ = value_range(editor, before.inputs[0])
    return None if value <= max(low, LOWEST) else f"the {value:g} of {before.name} may be larger than what it pads"


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Add the padding to the pooling's own."""
    before, op = editor.producer(node.inputs[0]), node.op
    if before is None or not isinstance(before.op, Pad) or not isinstance(op, AveragePool | MaxPool):
        return
    extra = before.op.padding[1:-1]
    changes: dict[str, Any] = {} if isinstance(op, MaxPool) else {"count_include_pad": True}
    changes["padding"] = tuple((b + c, a + d) for (b, a), (c, d) in zip(op.padding, extra, strict=True))
    editor.put(replace(node, op=replace(op, **changes), inputs=before.inputs))
    editor.prune(before)


PASS = Pass(name="merge_padding", match=match, check=check, rewrite=rewrite)
