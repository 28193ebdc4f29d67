"""Remove nodes that no output needs: files hold leftovers of other outputs, cuts leave what stood behind them."""

from edgecnn.graph import Node
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node whose outputs neither a node nor an output port takes."""
    return not any(editor.consumers(name) or name in editor.outputs for name in node.outputs)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the node must stay: there is no reason."""
    return None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Remove the node, and what only it needed."""
    editor.prune(node)


PASS = Pass(name="remove_unused", match=match, check=check, rewrite=rewrite)
