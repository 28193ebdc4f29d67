"""Train a Graph: through Keras and back, the same Graph with other constants."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np

from edgecnn import registry
from edgecnn.errors import UsageError
from edgecnn.execute import execute, with_image_statistics
from edgecnn.graph import Graph
from edgecnn.ops import elements
from edgecnn.training.augmentation import Augmentation
from edgecnn.training.datasets import Dataset, Split
from edgecnn.training.head import classifier

STATISTICS_IMAGES = (16, 512)
"""Fewest and most images that BatchNorm statistics are taken from."""

LARGEST_ELEMENTS = 40_000_000
"""Elements of the largest tensor while they are taken, over all images: 160 MB of float32 and twice that of float64."""

EVALUATION_BATCH = 64

AUXILIARY_WEIGHT = 0.3
"""Of an auxiliary head's loss. Source: Szegedy et al., Going deeper with convolutions, arXiv:1409.4842, section 5."""

NONE = Augmentation()
"""Training images as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Epoch:
    """What one pass over the training images gave, measured while training (Dropout on, weights moving).

    Attributes:
        number: From 1.
        loss: Mean cross-entropy in nats.
        accuracy: Share of images classified right, 0..1.
    """

    number: int
    loss: float
    accuracy: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Trained:
    """A trained Graph.

    Attributes:
        graph: With the data set's labels in its contract.
        history: One record per epoch.
        accuracy: Share of the held-out images that `execute` classifies right, 0..1.
        test_images: How many those are.
    """

    graph: Graph
    history: tuple[Epoch, ...]
    accuracy: float
    test_images: int


def train(
    graph: Graph,
    dataset: Dataset,
    *,
    epochs: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    augmentation: Augmentation = NONE,
    head_only: bool = False,
    report: Callable[[Epoch], object] = lambda epoch: None,
) -> Trained:
    """Train a classifier on a data set with Adam, cross-entropy at the logits and a cosine decay to zero.

    Few steps leave BatchNorm's moving averages behind (at momentum 0.99, a third of the first values is still in them
    after 100 steps), so at the end every mean and variance is computed anew, from up to 512 training images at once.

    The seed sets the random states of Python, NumPy and Keras, for the shuffling and Dropout.

    Args:
        graph: A zoo Graph, or one read from a file: one input, one output of logits (auxiliary ones besides,
            whose losses count 0.3), a contract.
        dataset: Prepared by this Graph's contract.
        epochs: Passes over the training images, at least 1.
        batch_size: Images per step, at least 1.
        learning_rate: Adam's at the start, above 0.
        seed: Of the training.
        augmentation: How training images are changed at random.
        head_only: Train the classifier alone, on features that stay as they are.
        report: Called after each epoch.

    Raises:
        UsageError: When the Graph cannot be trained on this data set, with the reason.
        MissingError: When Keras or TensorFlow is not installed.
    """
    check_trainable(graph, len(dataset.labels))
    _check_settings(graph, epochs, batch_size, learning_rate)
    door = registry.load("converters", "keras")
    keras = door.framework(purpose="edgecnn train")
    keras.utils.set_random_seed(seed)
    model = door.to_keras(graph)
    if head_only:
        trained_layer = door.layer_name(classifier(graph).name)
        for layer in model.layers:
            layer.trainable = layer.name == trained_layer
    taught = _augmented(keras, model, augmentation, seed=seed)
    steps = epochs * ceil(len(dataset.train.images) / batch_size)
    _compile(keras, taught, graph, keras.optimizers.schedules.CosineDecay(learning_rate, steps))
    history: list[Epoch] = []
    taught.fit(
        dataset.train.images,
        [dataset.train.classes] * len(graph.outputs),
        epochs=epochs,
        batch_size=batch_size,
        shuffle=True,
        verbose=0,
        callbacks=[keras.callbacks.LambdaCallback(on_epoch_end=_recorder(history, report))],
    )
    trained = door.with_keras_weights(graph, model)
    if not head_only:
        trained = _with_fresh_statistics(trained, dataset.train, seed=seed)
    trained = replace(trained, contract=replace(dataset.contract, is_assumed=False))  # it was trained that way
    return Trained(
        graph=trained,
        history=tuple(history),
        accuracy=accuracy(trained, dataset.test),
        test_images=len(dataset.test.images),
    )


def _augmented(keras: Any, model: Any, augmentation: Augmentation, *, seed: int) -> Any:
    """Return a Keras model behind layers that change its images at random."""
    image = keras.Input(model.input_shape[1:])
    changed = image
    for layer in augmentation.layers(keras, seed=seed):
        changed = layer(changed)
    return keras.Model(image, model(changed))


def _compile(keras: Any, model: Any, graph: Graph, learning_rate: Any) -> None:
    """Give a Keras model its optimizer and a loss for each output of the Graph that it trains."""
    model.compile(
        optimizer=keras.optimizers.Adam(learning_rate),
        loss=[keras.losses.SparseCategoricalCrossentropy(from_logits=True) for _ in graph.outputs],
        loss_weights=[AUXILIARY_WEIGHT if port.is_auxiliary else 1.0 for port in graph.outputs],
        metrics=[[] if port.is_auxiliary else ["accuracy"] for port in graph.outputs],
    )


def check_trainable(graph: Graph, classes: int) -> None:
    """Raise UsageError, with the reason, unless a Graph can be trained to tell so many classes apart."""
    final = [port for port in graph.outputs if not port.is_auxiliary]
    if len(graph.inputs) != 1 or len(final) != 1:
        raise UsageError(
            f"{graph.name}: one input and one output were wanted; found {len(graph.inputs)} and {len(final)}"
        )
    if graph.contract is None:
        raise UsageError(
            f"{graph.name}: a contract was wanted, which says how pixels become the input; the network has none. "
            "Its input must be an image of 1 or 3 channels."
        )
    if graph.contract.output != "logits":
        raise UsageError(
            f"{graph.name}: logits were wanted to train on; its output is {graph.contract.output}. Use --head logits, "
            "or --new-head for a file."
        )
    for port in graph.outputs:
        shape = graph.tensors[port.tensor].shape
        if len(shape) != 2 or shape[1] != classes:
            found = "x".join(str(size or "N") for size in shape)
            raise UsageError(
                f"{graph.name}: an output of Nx{classes} was wanted, one logit per class; found {found}. "
                "--new-head replaces it."
            )


def accuracy(graph: Graph, split: Split) -> float:
    """Return the share of images that a classifier gets right, computed by `execute`."""
    right = 0
    logits = next(port.name for port in graph.outputs if not port.is_auxiliary)
    for start in range(0, len(split.images), EVALUATION_BATCH):
        chosen = slice(start, start + EVALUATION_BATCH)
        found = execute(graph, {graph.inputs[0].name: split.images[chosen]})[logits]
        right += int((found.argmax(axis=1) == split.classes[chosen]).sum())
    return right / len(split.images)


def _check_settings(graph: Graph, epochs: int, batch_size: int, learning_rate: float) -> None:
    if epochs < 1 or batch_size < 1 or not 0 < learning_rate < float("inf"):
        raise UsageError(
            f"{graph.name}: epochs, batch_size and learning_rate must be positive; "
            f"got {epochs}, {batch_size}, {learning_rate}"
        )


def _recorder(history: list[Epoch], report: Callable[[Epoch], object]) -> Callable[[int, dict[str, Any]], None]:
    def record(index: int, logs: dict[str, Any]) -> None:
        (right,) = (value for name, value in logs.items() if name.endswith("accuracy"))
        history.append(Epoch(number=index + 1, loss=float(logs["loss"]), accuracy=float(right)))
        report(history[-1])

    return record


def _with_fresh_statistics(graph: Graph, split: Split, *, seed: int) -> Graph:
    """Return the Graph with BatchNorm statistics of training images: as many as memory allows, within bounds."""
    fewest, most = STATISTICS_IMAGES
    largest = max(elements(tensor.shape[1:]) for tensor in graph.tensors.values() if not tensor.is_constant)
    count = min(len(split.images), max(fewest, min(most, LARGEST_ELEMENTS // largest)))
    chosen = np.random.default_rng(seed).choice(len(split.images), count, replace=False)
    return with_image_statistics(graph, {graph.inputs[0].name: split.images[chosen]})
