"""Every convolutional network of Keras Applications under 60 M parameters, read from a file and held against Keras.

    python -m edgecnn.benchmarks.keras_applications MobileNetV2 EfficientNetB0

Each network is made with random weights, its normalisations get random gammas and betas, and its BatchNorm the
statistics of real images. Keras saves it, edgecnn reads the file and computes it in NumPy; outputs are compared before
the last activation and behind it, on the same images. Images are small, because that changes no layer.

Both sides are computed twice. In float64 they must be the same function: at most 1e-5 of the output's range apart. In
float32, where the order of additions differs, they drift apart by more the deeper a network of random weights is (each
BatchNorm amplifies what rounding left); that is reported, and is no difference of what is computed.
"""

import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import numpy as np
from rich.console import Console

from edgecnn import registry
from edgecnn.cli import guarded
from edgecnn.console import emit, message, table
from edgecnn.contract import Contract
from edgecnn.errors import CheckFailedError, UsageError
from edgecnn.execute import execute, with_image_statistics
from edgecnn.graph import Array, Graph
from edgecnn.ops import BatchNorm, Sigmoid, Softmax
from edgecnn.vision.photographs import load_images

TOLERANCE = 1e-5
"""Largest error, as a share of the output's range."""

IMAGES = 8

SIZES = {
    **dict.fromkeys(("MobileNet", "MobileNetV2", "MobileNetV3Small", "MobileNetV3Large", "NASNetMobile"), 96),
    **dict.fromkeys((f"EfficientNetB{n}" for n in range(7)), 64),
    **dict.fromkeys(("EfficientNetV2B0", "EfficientNetV2B1", "EfficientNetV2B2", "EfficientNetV2B3"), 64),
    **dict.fromkeys(("EfficientNetV2S", "EfficientNetV2M"), 64),
    **dict.fromkeys(("DenseNet121", "DenseNet169", "DenseNet201"), 64),
    **dict.fromkeys(("ResNet50", "ResNet101", "ResNet50V2", "ResNet101V2"), 64),
    **dict.fromkeys(("InceptionV3", "InceptionResNetV2", "Xception"), 96),
    **dict.fromkeys(("ConvNeXtTiny", "ConvNeXtSmall"), 64),
}
"""Network -> height and width in pixels that it is tried at. Without those over 60 M parameters: VGG-16 and 19,
ResNet-152 (60.4 M), EfficientNet-B7 and V2L, NASNetLarge, ConvNeXt from Base up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Agreement:
    """One network, compared.

    Attributes:
        name: In keras.applications.
        resolution: Height and width of the images in pixels.
        parameters: All of them, in units of one.
        nodes: Of the Graph as read.
        logits_error: Largest error before the last activation in float64, as a share of the output's range.
        output_error: The same behind it.
        float32_error: Before the last activation in float32.
        read_s: Time to read the file.
        execute_s: Time to compute the images in NumPy.
    """

    name: str
    resolution: int
    parameters: int
    nodes: int
    logits_error: float
    output_error: float
    float32_error: float
    read_s: float
    execute_s: float

    @property
    def agrees(self) -> bool:
        """Tell whether both errors are within the tolerance."""
        return max(self.logits_error, self.output_error) <= TOLERANCE


def compare_application(name: str, images: Array, *, seed: int = 0) -> Agreement:
    """Build, save, read and compare one network.

    Args:
        name: In keras.applications.
        images: (N, height, width, 3) with values in [-1, 1].
        seed: Of the weights.
    """
    form = registry.load("converters", "keras")
    keras = form.framework(purpose="comparing with Keras Applications")
    keras.utils.set_random_seed(seed)
    model = getattr(keras.applications, name)(weights=None, input_shape=images.shape[1:])
    _scatter(model, np.random.default_rng(seed))
    if any(type(layer).__name__ == "Rescaling" for layer in model.layers[:4]):
        images = (images + 1) * np.float32(127.5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        graph = _with_statistics(form, model, path, images)
        model.save(path)
        start = time.perf_counter()
        graph = form.read(path)
        read_s = time.perf_counter() - start
    port, last = graph.outputs[0], next(node for node in graph.nodes if node.output == graph.outputs[0].tensor)
    logits = last.inputs[0] if isinstance(last.op, Sigmoid | Softmax) else port.tensor
    start = time.perf_counter()
    found = execute(graph, {graph.inputs[0].name: images}, fetch=(logits,))
    execute_s = time.perf_counter() - start
    exact = execute(in_float64(graph), {graph.inputs[0].name: images}, fetch=(logits,))
    wanted = _keras_outputs(keras, _twin_in_float64(keras, model, name), images.astype(np.float64))
    return Agreement(
        name=name,
        resolution=images.shape[1],
        parameters=model.count_params(),
        nodes=len(graph.nodes),
        logits_error=_share(exact[logits], wanted[0]),
        output_error=_share(exact[port.name], wanted[1]),
        float32_error=_share(found[logits], _keras_outputs(keras, model, images)[0]),
        read_s=read_s,
        execute_s=execute_s,
    )


def _keras_outputs(keras: ModuleType, model: Any, images: Array) -> tuple[Array, Array]:
    """Return what a model gives before its last activation, and behind it."""
    behind = np.asarray(model(images, training=False))
    model.layers[-1].activation = keras.activations.linear
    return np.asarray(model(images, training=False)), behind


def _twin_in_float64(keras: ModuleType, model: Any, name: str) -> Any:
    """Return the same network with the same weights, computing in float64."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    try:
        keras.config.set_floatx("float64")
        keras.config.set_dtype_policy("float64")
        twin = getattr(keras.applications, name)(weights=None, input_shape=model.input_shape[1:])
    finally:
        keras.config.set_floatx(before[0])
        keras.config.set_dtype_policy(before[1])
    twin.set_weights(model.get_weights())
    return twin


def in_float64(graph: Graph) -> Graph:
    """Return the Graph computing in float64."""
    return replace(graph, tensors={name: replace(each, dtype="float64") for name, each in graph.tensors.items()})


def _scatter(model: Any, rng: np.random.Generator) -> None:
    """Give normalisations and layer scales random gammas and betas, which start as constants."""
    for layer in model.layers:
        for name, centre in (("gamma", 1.0), ("beta", 0.0)):
            variable = getattr(layer, name, None)
            if variable is not None and hasattr(variable, "assign"):
                variable.assign(rng.uniform(centre - 0.3, centre + 0.3, variable.shape).astype(np.float32))


def _with_statistics(form: Any, model: Any, path: Path, images: Array) -> Graph:
    """Give the model's BatchNorm the statistics of images, by way of the Graph that is read of it."""
    model.save(path)
    graph: Graph = with_image_statistics(form.read(path), {form.read(path).inputs[0].name: images})
    layers = {layer.name.replace(".", "/"): layer for layer in model.layers}
    for node in graph.nodes:
        if isinstance(node.op, BatchNorm):
            mean, variance = (graph.tensors[name].value() for name in node.inputs[3:])
            layers[node.name].moving_mean.assign(mean)
            layers[node.name].moving_variance.assign(variance)
    return graph


def _share(found: Array, wanted: Array) -> float:
    return float(np.abs(found - wanted).max() / np.ptp(wanted))


def compare_all(names: Sequence[str], data: Path | None) -> Iterator[Agreement]:
    """Compare networks one by one.

    Args:
        names: In keras.applications.
        data: Folder with images, or None for an installed package's photographs.
    """
    for name in names:
        contract = Contract(height=SIZES[name], width=SIZES[name])
        yield compare_application(name, load_images(data, contract, limit=IMAGES).values)


def _show(found: Sequence[Agreement], console: Console) -> None:
    columns = (
        "<network",
        "pixels",
        "M parameters",
        "nodes",
        "logits error",
        "output error",
        "float32 error",
        "read s",
        "NumPy s",
        "<",
    )
    rows = [
        (
            each.name,
            each.resolution,
            f"{each.parameters / 1e6:.1f}",
            each.nodes,
            f"{each.logits_error:.1e}",
            f"{each.output_error:.1e}",
            f"{each.float32_error:.1e}",
            f"{each.read_s:.2f}",
            f"{each.execute_s:.1f}",
            "agrees" if each.agrees else "DIFFERS",
        )
        for each in found
    ]
    title = f"Keras Applications, random weights, {IMAGES} real images: largest error as a share of the range"
    console.print(table(title, columns, rows))


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--data", type=click.Path(path_type=Path), help="Folder with images.")
@click.option("--json", "as_json", is_flag=True)
def main(*, names: tuple[str, ...], data: Path | None, as_json: bool) -> None:
    """Compare networks of Keras Applications (all under 60 M parameters without NAME); exits 1 where one differs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    unknown = sorted(set(names) - SIZES.keys())
    if unknown:
        raise UsageError(f"no network is named '{unknown[0]}'; there are {', '.join(SIZES)}")
    found = []
    for each in compare_all(names or tuple(SIZES), data):
        found.append(each)
        message(f"{each.name}: {each.logits_error:.1e} of the range, in float32 {each.float32_error:.1e}")
    rows = [asdict(each) | {"agrees": each.agrees} for each in found]
    emit({"tolerance": TOLERANCE, "networks": rows}, lambda console: _show(found, console), as_json=as_json)
    over = [each.name for each in found if not each.agrees]
    if over:
        raise CheckFailedError(f"{', '.join(over)}: an error of at most {TOLERANCE} of the range was wanted")


if __name__ == "__main__":
    guarded(main)
