"""A fresh classifier on a network's features: what a network from a file needs to learn other classes.

Source: Yosinski et al., How transferable are features in deep neural networks?, arXiv:1411.1792.
"""

from dataclasses import replace

from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.cut import cut
from edgecnn.errors import UsageError
from edgecnn.graph import Graph, Node
from edgecnn.ops import AveragePool, Conv, Dense, Dropout, Mean, Reshape, Sigmoid, Softmax

CLASSIFIERS = (Conv, Dense)
"""Layers that turn features into one number for each class."""

PASSED_BY = (AveragePool, Dropout, Mean, Reshape, Sigmoid, Softmax)
"""What may stand between such a layer and the output."""

NAME = "new_head"


def with_new_head(graph: Graph, classes: int, *, seed: int) -> Graph:
    """Return a classifier whose last layer, and what follows it, is replaced by a fresh dense layer to logits.

    What the old layer was fed, (N, spatial..., features), is averaged over its spatial axes first. Auxiliary heads go,
    labels too, and constants stored as float16 become float32, which training moves.

    Args:
        graph: With one output, its auxiliary ones not counted.
        classes: How many it shall tell apart.
        seed: Of the first weights (He's).

    Raises:
        UsageError: When no dense layer or convolution stands before the output.
    """
    body = cut(graph, outputs=[classifier(graph).inputs[0]])
    builder = _replayed(body, seed)
    features = body.outputs[0].tensor
    *spatial, size = builder.shape(features)[1:]
    if spatial:
        is_pooled = all(each == 1 for each in spatial)
        pool = Reshape(shape=(None, size)) if is_pooled else Mean(axes=tuple(range(1, 1 + len(spatial))))
        features = builder.node(f"{NAME}/features", pool, features)
    contract = graph.contract and replace(graph.contract, output="logits", labels=(), macs=None)
    headed = builder.finish({"logits": builder.dense(features, NAME, classes)}, contract=contract)
    return replace(headed, inputs=body.inputs)


def classifier(graph: Graph) -> Node:
    """Return the layer that gives a network's classes: the last one with parameters before its output."""
    producers = {name: node for node in graph.nodes for name in node.outputs}
    final = [port.tensor for port in graph.outputs if not port.is_auxiliary]
    node = producers.get(final[0]) if len(final) == 1 else None
    while node is not None and isinstance(node.op, PASSED_BY):
        node = producers.get(node.inputs[0])
    if node is None or not isinstance(node.op, CLASSIFIERS):
        found = "an input" if node is None else f"{node.kind} '{node.name}'"
        raise UsageError(
            f"{graph.name}: one output behind a dense layer or a convolution was wanted, which a new head replaces; "
            f"found {len(final)} output(s) and {found}"
        )
    return node


def _replayed(body: Graph, seed: int) -> GraphBuilder:
    """Return a builder that goes on where a Graph ends."""
    builder = GraphBuilder(body.name, initialise=he_normal(seed))
    for port in body.inputs:
        builder.input(port.tensor, body.tensors[port.tensor].shape, dtype=body.tensors[port.tensor].dtype)
    for name, tensor in body.tensors.items():
        if tensor.is_constant:
            builder.constant(name, tensor.value())
    for node in body.nodes:
        builder.nodes(node.name, node.op, node.inputs, node.outputs)
    return builder
