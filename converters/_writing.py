"""What every writer does first and last: refuse what the format cannot carry, and describe what was written."""

from collections import Counter
from collections.abc import Container, Mapping
from dataclasses import replace
from pathlib import Path

from edgecnn.contract import Layout
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, Format
from edgecnn.ops import Op


def refuse_unknown(
    graph: Graph, known: Container[type[Op]], form: Format, remedy: str, refused: Mapping[type[Op], str] | None = None
) -> None:
    """Raise UnsupportedError naming the first operator that a format cannot carry.

    Args:
        graph: What is to be written.
        known: The format's table of rows.
        form: The format.
        remedy: What to do about an operator outside the vocabulary.
        refused: Operator of the vocabulary that the format cannot carry -> what to do instead.
    """
    for node in graph.nodes:
        if type(node.op) not in known:
            kind = node.op.attributes().get("kind", node.kind)
            instead = (refused or {}).get(type(node.op), remedy)
            raise UnsupportedError(f"{node.name}: {form.name} has no row for the operator {kind}. {instead}")


def contract_json(graph: Graph, default: Layout) -> str | None:
    """Return the contract as this artifact's callers need it, with the layout that its input has."""
    if graph.contract is None:
        return None
    layout: Layout = "NCHW" if (graph.inputs[0].layout or default) == "NCHW" else "NHWC"
    return replace(graph.contract, layout=layout).to_json()


def describe(form: Format, path: Path, operators: Counter[str]) -> Artifact:
    """Return the record of an artifact that was just written."""
    size = sum(file.stat().st_size for file in form.files(path))
    return Artifact(path=path, format=form.name, size_bytes=size, operators=dict(operators.most_common()))
