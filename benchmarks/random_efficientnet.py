"""EfficientNet-B0 with random weights and the BatchNorm statistics of real images: a hard case for quantizers.

    python -m edgecnn.benchmarks.random_efficientnet efficientnet.keras --data FOLDER

Nothing was ever trained to withstand rounding here: 65 swishes and gates amplify whatever a layer lost before them, so
that 40 dB behind each layer are less than 20 at the logits. Weights are drawn as published for training from scratch,
which no choice of ours makes easier, and each BatchNorm normalises what real images bring to it, as after training.

Source: Tan and Le's released code (tensorflow/tpu, efficientnet_model.py): convolutions normal(0, 2 / fan_out), the
last layer uniform in +-1 / sqrt(outputs), biases 0. Keras' EfficientNet cuts the normal distribution at two standard
deviations and widens it to the same variance (VarianceScaling "truncated_normal"); so does this file, as its peers read
it from Keras.
"""

import zlib
from math import prod, sqrt
from pathlib import Path
from typing import Any

import click
import numpy as np

from edgecnn import registry
from edgecnn.builder import Initialiser, no_values
from edgecnn.cli import guarded
from edgecnn.commands.build import output_path
from edgecnn.commands.model_options import force_option
from edgecnn.console import message, show_bytes
from edgecnn.execute import with_image_statistics
from edgecnn.graph import Array, Graph
from edgecnn.models.efficientnet import efficientnet_b0
from edgecnn.outputs import staged
from edgecnn.vision.photographs import load_images

SEED = 0

IMAGES = 32
"""For the statistics of BatchNorm: the deepest layers see 49 positions of each, 1568 values for a channel."""

CUT = 2.0
"""Standard deviations at which the normal distribution ends."""

CUT_DEVIATION = 0.87962566103423978
"""Standard deviation of what is left of a normal distribution of 1. Source: Keras, VarianceScaling."""


def random_efficientnet(images: Array, *, seed: int = SEED) -> Graph:
    """Return the trainable network: image (N, 224, 224, 3) -> logits (N, 1000).

    Args:
        images: (N, 224, 224, 3) real ones, preprocessed by the network's own contract, 16 or more.
        seed: Of the weights.
    """
    graph = efficientnet_b0(initialise=published_initialiser(seed))
    return with_image_statistics(graph, {graph.inputs[0].name: images})


def published_initialiser(seed: int) -> Initialiser:
    """Return an initialiser as published, seeded by tensor name, so that order does not matter."""

    def initialise(name: str, shape: tuple[int, ...]) -> Array:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
        if len(shape) == 2:
            return rng.uniform(-1, 1, shape).astype(np.float32) / np.float32(sqrt(shape[-1]))
        # Each channel of a depthwise kernel (height, width, 1, channels) is an output on its own.
        outputs = 1 if shape[-2] == 1 else shape[-1]
        deviation = sqrt(2 / (prod(shape[:-2]) * outputs)) / CUT_DEVIATION
        return np.float32(deviation) * cut_normal(rng, shape)

    return initialise


def cut_normal(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Return float32 normal numbers of deviation 1; those beyond the cut are drawn again."""
    values = rng.standard_normal(shape, dtype=np.float32)
    while (beyond := np.abs(values) > CUT).any():
        values[beyond] = rng.standard_normal(int(beyond.sum()), dtype=np.float32)
    return values


@click.command()
@click.argument("output")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with images; else an installed package's.")
@click.option("--seed", default=SEED, show_default=True, help="Of the weights.")
@force_option
def main(*, output: str, data: Path | None, seed: int, force: bool) -> None:
    """Write the network to OUTPUT, a .keras file."""
    path = output_path(output, "random_efficientnet")
    contract: Any = efficientnet_b0(initialise=no_values).contract
    images = load_images(data, contract, limit=IMAGES)
    graph = random_efficientnet(images.values, seed=seed)
    with staged(path.parent, [path.name], force=force) as scratch:
        artifact = registry.load("converters", "keras").write(graph, scratch / path.name)
    message(f"Written: {path} ({show_bytes(artifact.size_bytes)}); BatchNorm statistics of {images.origin}")


if __name__ == "__main__":
    guarded(main)
