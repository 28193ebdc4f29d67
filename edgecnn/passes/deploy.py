"""The passes that turn a trained Graph into one to ship, in order."""

from dataclasses import dataclass

from edgecnn.graph import Graph
from edgecnn.passes import (
    broadcast_instead_of_tile,
    focus_to_space_to_depth,
    fold_batch_norm,
    fold_constants,
    fold_gather_into_layer,
    fold_padding,
    fold_reshape_into_reduction,
    fold_scale_before_layer,
    fold_scale_into_layer,
    fuse_activation,
    fuse_gelu,
    fuse_hard_sigmoid,
    fuse_hard_swish,
    fuse_l2_normalize,
    fuse_layer_norm,
    fuse_prelu,
    fuse_repeat,
    fuse_swish,
    global_pool_as_mean,
    lower_batch_norm,
    merge_padding,
    merge_reshapes,
    remove_auxiliary_heads,
    remove_identities,
    remove_unused,
    settle_layout,
)

DEPLOYMENT = (
    # First less to look at: what only training reads, what does nothing (it would hide the patterns below), what is
    # known already (the constants that the patterns below ask for).
    remove_auxiliary_heads.PASS,
    remove_unused.PASS,
    fold_constants.PASS,
    remove_identities.PASS,
    broadcast_instead_of_tile.PASS,  # its operand may be held in any order then
    settle_layout.PASS,  # a Transpose would hide the patterns, too
    fuse_repeat.PASS,  # before its Reshapes are merged with others
    merge_reshapes.PASS,  # PyTorch slices one axis at a time: the focus shows only once its slices are one
    # Idioms, before any of their constants is folded into a layer (the 0.5 of a GELU behind a dense layer would be).
    focus_to_space_to_depth.PASS,
    fuse_hard_sigmoid.PASS,  # what hard swish may consist of
    fuse_hard_swish.PASS,
    fuse_swish.PASS,
    fuse_gelu.PASS,
    fuse_prelu.PASS,
    fuse_layer_norm.PASS,
    fuse_l2_normalize.PASS,
    # Into the layer that can do the work as well; a BatchNorm first, since lowered it is a scale and a shift, whose
    # rules see it again: into the layer before, or else into the one behind.
    fold_padding.PASS,
    merge_padding.PASS,
    global_pool_as_mean.PASS,
    fold_reshape_into_reduction.PASS,  # the reductions that it looks for include those means
    fold_batch_norm.PASS,
    lower_batch_norm.PASS,
    fold_scale_into_layer.PASS,
    fold_scale_before_layer.PASS,
    fold_gather_into_layer.PASS,  # a scale between Gather and convolution is gone by now
    fuse_activation.PASS,  # last: a layer with an activation takes nothing more over
)


INTEGERS_KEPT = (remove_auxiliary_heads.PASS, remove_unused.PASS, remove_identities.PASS, settle_layout.PASS)
"""The passes for a Graph that is quantized already: none makes new numbers of constants."""


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
    """Apply the deployment passes; those that keep integers as they are to a quantized Graph."""
    applied, refused = {}, []
    for each in INTEGERS_KEPT if graph.is_quantized else DEPLOYMENT:
        result = each(graph)
        graph = result.graph
        applied[each.name] = len(result.applied)
        refused += [(each.name, node, reason) for node, reason in result.refused]
    return Deployment(graph=graph, applied=applied, refused=tuple(refused))
