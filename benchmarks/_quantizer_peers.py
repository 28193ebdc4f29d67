"""The specialists' own quantizers: each takes a float file and images, and writes its artifact; called in a child.

Every function is (float model, calibration images as .npy, artifact to write, settings) -> None, and follows the tool's
own guide: all calibration images, one at a time.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib import import_module
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

import numpy as np

from edgecnn import registry
from edgecnn.convert import Plan, convert
from edgecnn.errors import MissingError, UnsupportedError
from edgecnn.feeding import Feeds, artifact_exterior
from edgecnn.graph import Array, to_layout
from edgecnn.interfaces import SessionOptions
from edgecnn.source import format_of, load_model
from edgecnn.verify import run_batches
from edgecnn.vision.photographs import MINIMUM

RUNTIMES = {"tflite": "litert_cpu", "onnx": "onnxruntime_cpu", "openvino": "openvino_cpu"}
"""Format -> the target that runs everybody's artifacts of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A tool that quantizes.

    Attributes:
        name: For people.
        module: Its top-level module.
        format: Of what it writes, and of our float file that it starts from.
        function: Name of the function here.
        settings: Recipe -> the settings that are tried, by the function's own names; the best counts.
    """

    name: str
    module: str
    format: str
    function: str
    settings: Mapping[str, tuple[str, ...]]

    def version(self) -> str:
        """Return the version that is installed.

        Raises:
            MissingError: When none is.
        """
        _require(self.module)
        return version(packages_distributions()[self.module][0])


def ai_edge_quantizer(model: str, images: str, artifact: str, settings: str) -> None:
    """Quantize by a recipe of ai-edge-quantizer, named as it names them. Source: its README, quick start."""
    quantizer, recipe = (_require(f"ai_edge_quantizer.{name}") for name in ("quantizer", "recipe"))
    tool = quantizer.Quantizer(model, getattr(recipe, settings)())
    signature, name = _tflite_signature(model)
    rows = [{name: each} for each in _images(images)]
    found = tool.calibrate({signature: rows}, num_threads=os.cpu_count() or 1)
    Path(artifact).write_bytes(tool.quantize(found).quantized_model)


def tensorflow(model: str, images: str, artifact: str, settings: str) -> None:
    """Convert by TensorFlow's converter, through a Keras model. Source: its guide, Post-training quantization."""
    tf, keras = _require("tensorflow"), _require("keras")
    network = keras.models.load_model(_as_keras(model, images, f"{artifact}.keras"), compile=False)
    # Variables are frozen only on the way through a SavedModel; a fixed batch is what the other tools get, too.
    signature = [keras.InputSpec(shape=(1, *network.inputs[0].shape[1:]), dtype="float32", name="image")]
    network.export(f"{artifact}.saved", format="tf_saved_model", input_signature=signature, verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(f"{artifact}.saved")
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([each] for each in _images(images))
    converter.target_spec.supported_ops = [getattr(tf.lite.OpsSet, settings)]
    Path(artifact).write_bytes(converter.convert())


def onnxruntime(model: str, images: str, artifact: str, settings: str) -> None:
    """Quantize by quantize_static: per channel, QDQ, pre-processed. Source: its guide, Quantize ONNX Models.

    Args:
        model: A float .onnx file.
        images: (N, height, width, channels).
        artifact: To write.
        settings: Type of activations and of weights: "QUInt8 QInt8".
    """
    tool = _require("onnxruntime.quantization")
    preprocess = _require("onnxruntime.quantization.shape_inference")
    (name,) = [each.name for each in _require("onnx").load(model).graph.input]
    activations, weights = settings.split()

    class Reader(tool.CalibrationDataReader):  # type: ignore[misc, name-defined]
        rows = ({name: to_layout(each, "NCHW")} for each in _images(images))

        def get_next(self) -> dict[str, Array] | None:
            return next(self.rows, None)

    prepared = f"{artifact}.prepared.onnx"
    preprocess.quant_pre_process(model, prepared, skip_symbolic_shape=True)  # every size is a number in our files
    tool.quantize_static(
        prepared,
        artifact,
        Reader(),
        quant_format=tool.QuantFormat.QDQ,
        per_channel=True,
        activation_type=getattr(tool.QuantType, activations),
        weight_type=getattr(tool.QuantType, weights),
    )


def nncf(model: str, images: str, artifact: str, settings: str) -> None:
    """Quantize by nncf.quantize with a preset. Source: its guide, Basic quantization flow."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # see targets/openvino_cpu.py
    tool, openvino = _require("nncf"), _require("openvino")
    rows = [to_layout(each, "NCHW") for each in _images(images)]
    preset = getattr(tool.QuantizationPreset, settings)
    made = tool.quantize(
        openvino.Core().read_model(model), tool.Dataset(rows), preset=preset, subset_size=max(len(rows), 1)
    )
    openvino.save_model(made, artifact, compress_to_fp16=False)


def run(artifact: str, images: str, found: str) -> None:
    """Run an artifact of one input and one output on images, and save its outputs, channels last, as .npy."""
    path = Path(artifact)
    form = format_of(path)
    target = registry.load("targets", RUNTIMES[form.name])
    with closing(target.open(path, SessionOptions(threads=os.cpu_count() or 1))) as session:
        outputs = run_batches(session, {"image": np.load(images)}, artifact_exterior(path, form.default_layout))
    if len(outputs) != 1:
        raise UnsupportedError(f"{path}: one output was wanted; it has {sorted(outputs)}")
    np.save(found, next(iter(outputs.values())))


def _as_keras(model: str, images: str, folder: str) -> Path:
    """Write a float file for Keras, verified on the images, because TensorFlow's converter starts from there."""
    graph = load_model(model)
    # TensorFlow's scopes refuse some characters that names of converted files have.
    nodes = tuple(replace(node, name=f"layer_{place}") for place, node in enumerate(graph.nodes))
    ports = tuple(replace(port, name=f"output_{place}") for place, port in enumerate(graph.outputs))
    renamed = replace(graph, nodes=nodes, outputs=ports)
    feeds = Feeds(values={graph.inputs[0].name: np.load(images)[:MINIMUM]}, origin=images)
    plan = Plan(formats=("keras",))
    made = convert(renamed, Path(folder), plan, load=lambda graph, contract: feeds)
    return made.artifacts[0].path


def _images(path: str) -> Iterator[Array]:
    """Yield (1, height, width, channels) float32."""
    return (np.ascontiguousarray(each[None]) for each in np.load(path))


def _tflite_signature(model: str) -> tuple[str, str]:
    """Return the name of a file's only signature and of its only input."""
    interpreter = _require("ai_edge_litert.interpreter").Interpreter(model_path=model)
    ((signature, ports),) = interpreter.get_signature_list().items()
    (name,) = ports["inputs"]
    return signature, name


def _require(module: str) -> ModuleType:
    """Import a peer's module.

    Raises:
        MissingError: With the command that installs it.
    """
    package = module.partition(".")[0]
    if find_spec(package) is None:
        raise MissingError(
            f"edgecnn.benchmarks.quantizers compares with {package}, which is not installed. "
            "Run: python -m pip install 'edgecnn[peers]'"
        )
    return import_module(module)


BOTH = ("static_w8_a8", "static_w8_a16")
PEERS = (
    Peer(
        name="ai-edge-quantizer",
        module="ai_edge_quantizer",
        format="tflite",
        function="ai_edge_quantizer",
        settings=dict(zip(BOTH, [("static_wi8_ai8",), ("static_wi8_ai16",)], strict=True)),
    ),
    Peer(
        name="TensorFlow",
        module="tensorflow",
        format="tflite",
        function="tensorflow",
        settings=dict(
            zip(
                BOTH,
                [("TFLITE_BUILTINS_INT8",), ("EXPERIMENTAL_TFLITE_BUILTINS_ACTIVATIONS_INT16_WEIGHTS_INT8",)],
                strict=True,
            )
        ),
    ),
    Peer(
        name="ONNX Runtime",
        module="onnxruntime",
        format="onnx",
        function="onnxruntime",
        settings=dict(zip(BOTH, [("QUInt8 QInt8", "QInt8 QInt8"), ("QUInt16 QInt8",)], strict=True)),
    ),
    Peer(
        name="NNCF",
        module="nncf",
        format="openvino",
        function="nncf",
        settings={"static_w8_a8": ("PERFORMANCE", "MIXED")},
    ),
)
"""In the order of the report."""
