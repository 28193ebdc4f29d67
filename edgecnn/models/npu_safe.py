"""npu-safe: the same network with what integer accelerators run well, made before training.

    swish, hard-swish    become ReLU6: their range is open, and 8 bits do not hold it (EfficientNet-Lite0 with swish
                         falls from 75 % to 46 % top-1 in int8, with ReLU6 from 75.1 % to 74.4 %)
    squeeze-excite       goes: a gate over the whole image, which many accelerators leave to the CPU
    LRN                  goes: few accelerators have it, and it does not help (Simonyan and Zisserman, arXiv:1409.1556,
                         section 4.1, network A-LRN)

The weights of what stays are kept, but they were not trained for it: train the result.

Source: tensorflow/tpu, models/official/efficientnet/lite/README.md; Higher accuracy on vision models with
EfficientNet-Lite, TensorFlow blog, 2020.
"""

from collections import Counter
from dataclasses import dataclass, replace

from edgecnn.graph import Graph, Node, Tensor, validate
from edgecnn.models.squeeze_excite import find_squeeze_excite
from edgecnn.ops import LRN, HardSwish, ReLU6, Swish
from edgecnn.passes.editor import GraphEditor


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One part that was replaced or removed.

    Attributes:
        where: The node, or what the nodes of a squeeze-excite have in common in their names.
        what: "Swish", "HardSwish", "squeeze-excite" or "LRN".
        replacement: "ReLU6", or "" where it was removed.
    """

    where: str
    what: str
    replacement: str = ""


def npu_safe(graph: Graph) -> tuple[Graph, tuple[Change, ...]]:
    """Return the npu-safe Graph, and what changed; the same Graph where nothing had to.

    Args:
        graph: As built, with activations as nodes of their own.

    >>> from edgecnn.models.build import ZooOptions, build
    >>> graph, changes = npu_safe(build("mobilenet_v2", values=False))
    >>> changes
    ()
    """
    editor = GraphEditor(graph)
    gone, instead, changes = _squeeze_excites(editor)
    nodes: list[Node] = []
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        inputs = tuple(_now(name, instead) for name in node.inputs)
        if node.name in gone:
            continue
        if isinstance(node.op, LRN) and node.output not in editor.outputs:
            instead[node.output] = inputs[0]
            changes.append(Change(where=node.name, what="LRN"))
        elif isinstance(node.op, Swish | HardSwish):
            safe = _relu6(editor, replace(node, inputs=inputs))
            instead[node.output] = safe.output
            tensors[safe.output] = replace(tensors[node.output], name=safe.output)
            changes.append(Change(where=node.name, what=node.kind, replacement="ReLU6"))
            nodes.append(safe)
        else:
            nodes.append(replace(node, inputs=inputs))
    if not changes:
        return graph, ()
    result = replace(graph, nodes=tuple(nodes), tensors=_used(graph, nodes, tensors))
    validate(result)
    return result, tuple(changes)


def describe(name: str, changes: tuple[Change, ...]) -> str:
    """Return one line for people that says what npu-safe changed.

    >>> describe("tiny", (Change(where="stem/swish", what="Swish", replacement="ReLU6"),))
    'tiny, npu-safe: Swish x1 became ReLU6. Train it before use.'
    >>> describe("tiny", ())
    'tiny, npu-safe: it needs no change.'
    """
    if not changes:
        return f"{name}, npu-safe: it needs no change."
    kinds = Counter((change.what, change.replacement) for change in changes)
    parts = [
        f"{what} x{times} {f'became {replacement}' if replacement else 'removed'}"
        for (what, replacement), times in kinds.items()
    ]
    return f"{name}, npu-safe: {', '.join(parts)}. Train it before use."


def _squeeze_excites(editor: GraphEditor) -> tuple[set[str], dict[str, str], list[Change]]:
    """Return the nodes of every squeeze-excite, what to take instead of its output, and the changes."""
    gone: set[str] = set()
    instead: dict[str, str] = {}
    changes: list[Change] = []
    for tensor in list(editor.tensors):
        found = find_squeeze_excite(editor, tensor)
        if found is None or found.excite.output in editor.outputs:
            continue
        gone.update(node.name for node in (*found.branch, found.excite))
        instead[found.excite.output] = tensor
        changes.append(Change(where=found.excite.name.rpartition("/")[0], what="squeeze-excite"))
    return gone, instead, changes


def _now(name: str, instead: dict[str, str]) -> str:
    while name in instead:
        name = instead[name]
    return name


def _relu6(editor: GraphEditor, node: Node) -> Node:
    """Return the ReLU6 for a swish, renamed with it: block_1/expand/swish becomes block_1/expand/relu6."""
    if node.output in editor.outputs:
        return replace(node, op=ReLU6())
    stem, _, last = node.name.rpartition("/")
    name = f"{stem}/relu6" if last in ("swish", "hardswish") else node.name
    name = name if name == node.name else editor.free_name(name)
    return Node(name=name, op=ReLU6(), inputs=node.inputs, outputs=(name,))


def _used(graph: Graph, nodes: list[Node], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    used = {port.tensor for port in (*graph.inputs, *graph.outputs)}
    used |= {name for node in nodes for name in (*node.inputs, *node.outputs)}
    return {name: tensor for name, tensor in tensors.items() if name in used}
