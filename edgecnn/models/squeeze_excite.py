"""Squeeze-and-excite: each channel is weighed by what the whole image says about it. Built here, and found again.

    x ── mean over height and width ── conv 1x1 (narrower), activation ── conv 1x1, gate ── weight ┐
    └────────────────────────────────────────────────────────────────────────────────── x * weight ┘

Source: Hu et al., Squeeze-and-Excitation Networks, arXiv:1709.01507, section 3.
"""

from dataclasses import dataclass

from edgecnn.builder import GraphBuilder
from edgecnn.graph import Node
from edgecnn.ops import Activation, Mean, Mul
from edgecnn.passes.editor import GraphEditor


@dataclass(frozen=True, kw_only=True, slots=True)
class SqueezeExcite:
    """The narrow width, and the two activations."""

    channels: int
    activation: Activation
    gate: Activation


@dataclass(frozen=True, kw_only=True, slots=True)
class Branch:
    """A squeeze-excite in a Graph: from the mean to the gate, and the product that ends it."""

    branch: tuple[Node, ...]
    excite: Node


def squeeze_excite(b: GraphBuilder, x: str, name: str, spec: SqueezeExcite) -> str:
    """Add a squeeze-excite: (N, H, W, C) -> (N, H, W, C)."""
    channels = int(b.shape(x)[-1] or 0)
    weight = b.node(f"{name}/squeeze", Mean(axes=(1, 2), keep_dims=True), x)
    weight = b.conv(weight, f"{name}/reduce", spec.channels, kernel_size=1, use_bias=True)
    weight = b.activate(weight, f"{name}/reduce", spec.activation)
    weight = b.conv(weight, f"{name}/expand", channels, kernel_size=1, use_bias=True)
    weight = b.activate(weight, f"{name}/expand", spec.gate)
    return b.node(f"{name}/excite", Mul(), x, weight)


def find_squeeze_excite(editor: GraphEditor, tensor: str) -> Branch | None:
    """Return the squeeze-excite that alone takes a tensor, or None where something else does."""
    takers = {type(node.op): node for node in editor.consumers(tensor)}
    if takers.keys() != {Mean, Mul} or len(editor.consumers(tensor)) != 2 or tensor in editor.outputs:
        return None
    excite, node = takers[Mul], takers[Mean]
    branch = [node]
    while (taker := editor.only_consumer(node.output)) is not None:
        if taker.name == excite.name:
            return Branch(branch=tuple(branch), excite=excite)
        if not editor.has_constants(taker):
            return None
        branch.append(node := taker)
    return None
