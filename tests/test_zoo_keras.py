"""The zoo against Keras Applications: total parameters, and every layer's parameters in Keras' order."""

from typing import Any

import pytest

from edgecnn.count import count
from edgecnn.graph import Graph
from edgecnn.models.build import ZooOptions, build

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]  # Keras' own, at import

FAMILIES = [  # our name, our options, Keras' class, its options, numbers that only Keras has (its Normalization layer)
    ("mobilenet_v1", {"width_multiplier": 0.5}, "MobileNet", {"alpha": 0.5}, 0),
    ("mobilenet_v2", {"width_multiplier": 0.35}, "MobileNetV2", {"alpha": 0.35}, 0),
    ("mobilenet_v2", {"width_multiplier": 1.4}, "MobileNetV2", {"alpha": 1.4}, 0),
    ("mobilenet_v3_large", {}, "MobileNetV3Large", {}, 0),
    ("mobilenet_v3_large", {"width_multiplier": 1.25}, "MobileNetV3Large", {"alpha": 1.25}, 0),
    ("mobilenet_v3_small", {"width_multiplier": 0.75}, "MobileNetV3Small", {"alpha": 0.75}, 0),
    ("mobilenet_v3_large_minimalistic", {}, "MobileNetV3Large", {"minimalistic": True}, 0),
    ("mobilenet_v3_small_minimalistic", {}, "MobileNetV3Small", {"minimalistic": True}, 0),
    ("resnet50", {}, "ResNet50", {}, 0),
    ("vgg16", {}, "VGG16", {}, 0),
    *((f"efficientnet_b{number}", {}, f"EfficientNetB{number}", {}, 7) for number in range(8)),
]


def sizes(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
    """Return a parameter's sizes without those of 1: a dense kernel and a 1x1 one are the same numbers."""
    return tuple(size for size in shape if size != 1)


def our_layers(graph: Graph) -> list[list[Any]]:
    layers = [
        [sizes(graph.tensors[n].shape) for n in node.inputs if graph.tensors[n].is_constant] for node in graph.nodes
    ]
    return [layer for layer in layers if layer]


def keras_layers(network: Any) -> list[list[Any]]:
    return [
        [sizes(tuple(weight.shape)) for weight in layer.weights]
        for layer in network.layers
        if layer.weights and type(layer).__name__ != "Normalization"
    ]


@pytest.mark.parametrize(("name", "options", "family", "keras_options", "extra"), FAMILIES)
def test_parameters_equal_those_of_keras_layer_by_layer(
    name: str, options: dict[str, Any], family: str, keras_options: dict[str, Any], extra: int
) -> None:
    import keras

    network = getattr(keras.applications, family)(weights=None, **keras_options)
    graph = build(name, ZooOptions(**options), values=False)
    assert count(graph).total == network.count_params() - extra
    assert our_layers(graph) == keras_layers(network)
