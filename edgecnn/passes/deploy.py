"""The passes that turn a trained Graph into one to ship, in order."""

from dataclasses import dataclass

from edgecnn.graph import Graph
from edgecnn.passes import (
    fold_batch_norm,
    fold_constants,
    fold_padding,
    fold_reshape_into_reduction,
    fuse_activation,
    lower_batch_norm,
    remove_auxiliary_heads,
    remove_identities,
)

DEPLOYMENT = (
    remove_auxiliary_heads.PASS,
    remove_identities.PASS,
    fold_constants.PASS,
    fold_padding.PASS,
    fold_reshape_into_reduction.PASS,
    fold_batch_norm.PASS,
    lower_batch_norm.PASS,
    fuse_activation.PASS,
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Deployment:
    """A Graph to ship and how it came about.

    Attributes:
        graph: Without training-time nodes.
        applied: Pass -> how many times it was applied.
        refused: (pass, node, reason), for what had a pattern and stayed.
    """

    graph: Graph
    applied: dict[str, int]
    refused: tuple[tuple[str, str, str], ...]


def deploy(graph: Graph) -> Deployment:
    """Apply the deployment passes."""
    applied, refused = {}, []
    for each in DEPLOYMENT:
        result = each(graph)
        graph = result.graph
        applied[each.name] = len(result.applied)
        refused += [(each.name, node, reason) for node, reason in result.refused]
    return Deployment(graph=graph, applied=applied, refused=tuple(refused))
