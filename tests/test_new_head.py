"""A fresh classifier on the features of any network, and training it alone."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import UsageError
from edgecnn.execute import execute
from edgecnn.graph import Graph
from edgecnn.ops import Mean, ReLU6, Reshape, Softmax
from edgecnn.training import datasets, fit
from edgecnn.training.head import classifier, with_new_head

GREY = Contract(height=16, width=16, colour_order="GRAY", mean=(127.5,), std=(127.5,), output="probabilities")


def network(head: str) -> Graph:
    """Build stem, features and a head: dense, a convolution before or behind the pooling, or one on flat features."""
    b = GraphBuilder("small", initialise=he_normal(0))
    x = b.conv_bn(b.input("image", (None, 16, 16, 1)), "stem", 8, ReLU6(), kernel_size=3, stride=4)
    if head == "flat":
        x = b.dense(b.node("flat", Reshape(shape=(None, 128)), x), "old", 5)
    elif head == "dense":
        x = b.dense(b.node("pool", Mean(axes=(1, 2)), x), "old", 5)
    elif head == "convolution":
        x = b.conv(b.node("pool", Mean(axes=(1, 2), keep_dims=True), x), "old", 5, kernel_size=1)
        x = b.node("flat", Reshape(shape=(None, 5)), x)
    else:
        x = b.node("pool", Mean(axes=(1, 2)), b.conv(x, "old", 5, kernel_size=1))
    return b.finish({"classes": b.node("softmax", Softmax(), x)}, contract=GREY)


@pytest.mark.parametrize(("head", "features"), [("dense", 8), ("convolution", 8), ("maps", 8), ("flat", 128)])
def test_a_new_head_takes_the_features_that_the_old_one_took(head: str, features: int) -> None:
    graph = network(head)
    headed = with_new_head(graph, 10, seed=0)
    assert classifier(graph).name == "old"
    assert classifier(headed).name == "new_head"
    assert headed.tensors["new_head/kernel"].shape == (features, 10)
    assert "old" not in {node.name for node in headed.nodes}
    assert headed.contract is not None
    assert (headed.contract.output, headed.contract.labels) == ("logits", ())
    images = np.random.default_rng(0).standard_normal((3, 16, 16, 1), dtype=np.float32)
    stem = execute(graph, {"image": images}, fetch=["stem/relu6"])["stem/relu6"]
    pooled = stem.reshape(3, -1) if head == "flat" else stem.mean(axis=(1, 2))
    found = execute(headed, {"image": images})["logits"]
    np.testing.assert_allclose(found, pooled @ headed.tensors["new_head/kernel"].value(), rtol=1e-4, atol=1e-5)


def test_a_head_can_be_replaced_again() -> None:
    twice = with_new_head(with_new_head(network("convolution"), 10, seed=0), 3, seed=1)
    assert twice.tensors[twice.outputs[0].tensor].shape == (None, 3)


def test_a_network_without_a_classifier_is_refused() -> None:
    b = GraphBuilder("bare", initialise=he_normal(0))
    bare = b.finish({"features": b.node("pool", Mean(axes=(1, 2)), b.input("image", (None, 16, 16, 1)))})
    with pytest.raises(UsageError, match=r"bare: one output behind a dense layer .* was wanted, .* found 1 out"):
        with_new_head(bare, 2, seed=0)
    dense = network("dense")
    forked = replace(dense, outputs=(*dense.outputs, replace(dense.outputs[0], name="again")))
    with pytest.raises(UsageError, match=r"found 2 output\(s\) and an input"):
        with_new_head(forked, 2, seed=0)


def test_what_cannot_be_trained_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"its output is probabilities\. Use --head logits, or --new-head for a file"):
        fit.check_trainable(network("dense"), 5)
    with pytest.raises(UsageError, match=r"an output of Nx3 was wanted, .* found Nx10\. --new-head replaces it"):
        fit.check_trainable(with_new_head(network("dense"), 10, seed=0), 3)


@pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning")
@pytest.mark.parametrize("head_only", [True, False])
def test_the_head_alone_is_trained_where_that_is_asked_for(head_only: bool) -> None:
    graph = with_new_head(network("dense"), 10, seed=0)
    assert graph.contract is not None
    data = datasets.digits(replace(graph.contract, is_assumed=True), seed=0)
    trained = fit.train(graph, data, epochs=1, batch_size=64, learning_rate=1e-2, seed=0, head_only=head_only).graph
    constants = [name for name, tensor in graph.tensors.items() if tensor.is_constant]
    same = {n for n in constants if np.array_equal(graph.tensors[n].value(), trained.tensors[n].value())}
    moving = {"new_head/kernel", "new_head/bias"}
    assert same == (set(constants) - moving if head_only else set())
    assert trained.contract is not None
    assert not trained.contract.is_assumed, "it was trained with this contract"
