"""Remove the outputs that only training reads, and the nodes that only they need.

GoogLeNet trains with two further classifiers on inner stages, whose losses reach the early layers sooner; inference
discards them. Source: Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, section 5.
"""

from edgecnn.graph import Node
from edgecnn.passes.editor import GraphEditor, Pass


def match(editor: GraphEditor, node: Node) -> bool:
    """Match a node that an auxiliary output shows."""
    return any(port.is_auxiliary and port.tensor in node.outputs for port in editor.output_ports)


def check(editor: GraphEditor, node: Node) -> str | None:
    """Return why the output must stay."""
    return "the Graph has no other output" if all(port.is_auxiliary for port in editor.output_ports) else None


def rewrite(editor: GraphEditor, node: Node) -> None:
    """Drop the node's auxiliary ports, and prune."""
    editor.output_ports = [
        port for port in editor.output_ports if not (port.is_auxiliary and port.tensor in node.outputs)
    ]
    editor.prune(node)


PASS = Pass(name="remove_auxiliary_heads", match=match, check=check, rewrite=rewrite)
