"""Keras models that users bring: .h5 of Keras 2 and 3, models in models, keras.ops, and published files."""

import json
import os
import runpy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from edgecnn.benchmarks.keras_applications import compare_application

from edgecnn import ops, registry
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, UnsupportedError
from edgecnn.execute import execute
from edgecnn.graph import with_batch
from edgecnn.passes.deploy import deploy
from edgecnn.source import format_of, load_model, readable
from edgecnn.verify import MINIMUM_SNR_DB, snr_db
from edgecnn.vision.photographs import load_images
from tests.test_keras_file import assert_agrees, random_inputs, randomise

# Keras 3.15 turns TensorFlow's variables into arrays without NumPy 2's copy keyword; nothing of it is ours to change.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file"),
]

ROOT = Path(__file__).parents[1]
KERAS = registry.load("converters", "keras")


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    module: ModuleType = KERAS.framework(purpose="the tests")
    return module


def both_files(model: Any, folder: Path) -> list[Path]:
    """Save a model in both of Keras 3's formats."""
    paths = [folder / f"a{suffix}" for suffix in (".keras", ".h5")]
    for path in paths:
        model.save(path)
    return paths


def test_h5_is_a_suffix_of_the_keras_format() -> None:
    assert format_of(Path("a.H5")) is KERAS
    assert {".keras", ".h5", ".hdf5"} <= set(readable())


def test_the_page_lists_what_the_tables_hold() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_keras.py"))["page"]
    assert (ROOT / "docs" / "keras.md").read_text() == page(), "run python docs/make_keras.py"


# --- models in models ------------------------------------------------------------------------------------------------


def nested_model(keras: ModuleType) -> Any:
    """A Functional in a Functional, a Sequential in that, one of them called twice, two outputs."""
    k = keras.layers
    inner = keras.Sequential([keras.Input((8, 8, 3)), k.Conv2D(3, 3, padding="same", name="c"), k.ReLU()], name="inner")
    x = keras.Input((8, 8, 3))
    y = k.BatchNormalization(name="b")(inner(x))
    middle = keras.Model(x, [k.Dense(4, name="d")(y), inner(y)], name="middle")
    image = keras.Input((8, 8, 3), name="image")
    first, second = middle(image)
    third = k.Conv2D(3, 1, name="c")(second)
    again, _ = middle(third)
    return randomise(keras.Model(image, [first, k.Flatten(name="flat")(again), k.Dense(2, name="d2")(third)]))


def test_models_in_models(tmp_path: Path, keras: ModuleType) -> None:
    model = nested_model(keras)
    for path in both_files(model, tmp_path):
        graph = KERAS.read(path)
        assert_agrees(graph, model, random_inputs(graph))
        convolutions = [node for node in graph.nodes if isinstance(node.op, ops.Conv)]
        assert len(convolutions) == 5
        assert {node.inputs[1] for node in convolutions} == {"middle/inner/c/kernel", "c/kernel"}


def test_models_nested_too_deeply_are_refused(tmp_path: Path) -> None:
    def config(depth: int) -> dict[str, Any]:
        layers: list[Any] = [{"class_name": "InputLayer", "config": {"name": "i", "batch_shape": [None, 4]}}]
        if depth:
            layers.append(config(depth - 1))
        return {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}

    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.attrs["model_config"] = json.dumps(config(20))
    with pytest.raises(UnsupportedError, match="at most 16 models in one another are read"):
        KERAS.read(tmp_path / "a.h5")


# --- keras.ops -------------------------------------------------------------------------------------------------------

OPERATIONS: dict[str, Callable[[Any, Any], Any]] = {
    "arithmetic": lambda o, x: (2.0 * x + np.arange(4, dtype=np.float32)) / 3.0 - x * x,
    "reverse": lambda o, x: 1.0 - x,
    "power": lambda o, x: o.exp(x) ** 0.5,
    "negative": lambda o, x: -o.abs(x),
    "clip": lambda o, x: o.clip(x, -0.5, 0.25),
    "extremes": lambda o, x: o.maximum(o.minimum(x, 0.5), -0.5),
    "reductions": lambda o, x: (
        o.mean(x, axis=[1, 2], keepdims=True) + o.sum(x, axis=-1, keepdims=True) * o.max(x, axis=1, keepdims=True)
    ),
    "shapes": lambda o, x: o.squeeze(o.expand_dims(o.reshape(o.transpose(x, (0, 3, 1, 2)), (-1, 4, 72)), 1), 1),
    "slices": lambda o, x: x[:, 1:-1:2, ..., 1:],
    "position": lambda o, x: x[:, 0, :, -1],
    "split": lambda o, x: o.concatenate(o.split(x, 2, axis=-1)[::-1], axis=1),
    "pad": lambda o, x: o.pad(x, [[0, 0], [1, 2], [0, 0], [0, 1]], constant_values=2.0),
    "resize": lambda o, x: o.image.resize(x, (5, 12)),
    "matmul": lambda o, x: o.matmul(x, np.linspace(0, 1, 12, dtype=np.float32).reshape(4, 3)),
    "roots": lambda o, x: o.sqrt(o.square(x) + 1.0) + o.log(o.exp(x) + 1.0) + o.rsqrt(o.square(x) + 0.5),
    "activations": lambda o, x: o.relu(x) + o.silu(x) * o.hard_silu(x) - o.leaky_relu(x, 0.1) + o.softmax(x) + o.elu(x),
    "more_activations": lambda o, x: o.relu6(x) + o.hard_sigmoid(x) + o.softsign(x) + o.selu(x) + o.gelu(x) + o.tanh(x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_operations_are_read(name: str, tmp_path: Path, keras: ModuleType) -> None:
    x = keras.Input((8, 9, 4))
    model = keras.Model(x, OPERATIONS[name](keras.ops, x))
    model.save(tmp_path / "a.keras")
    graph = KERAS.read(tmp_path / "a.keras")
    assert_agrees(graph, model, random_inputs(graph))


def test_unknown_operations_are_refused_by_name(tmp_path: Path, keras: ModuleType) -> None:
    x = keras.Input((8, 9, 4))
    keras.Model(x, keras.ops.tan(x)).save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedError, match=r"layer 'tan\w*' \(Tan\): this operation of keras.ops is not read"):
        KERAS.read(tmp_path / "a.keras")


# --- .h5 of Keras 2 --------------------------------------------------------------------------------------------------


def keras_2_file(path: Path, layers: list[dict[str, Any]], variables: dict[str, dict[str, np.ndarray]]) -> Path:
    config = {
        "name": "m",
        "layers": layers,
        "input_layers": [["i", 0, 0]],
        "output_layers": [[layers[-1]["name"], 0, 0]],
    }
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps({"class_name": "Functional", "config": config}).encode()
        file.attrs["keras_version"] = b"2.11.0"
        for layer, values in variables.items():
            group = file.create_group(f"model_weights/{layer}")
            group.attrs["weight_names"] = [f"{layer}/{name}:0".encode() for name in values]
            for name, data in values.items():
                group[f"{layer}/{name}:0"] = data
    return path


def keras_2_layer(class_name: str, name: str, *inputs: list[Any], **config: object) -> dict[str, Any]:
    return {
        "class_name": class_name,
        "name": name,
        "config": {"name": name, **config},
        "inbound_nodes": [list(inputs)] if inputs else [],
    }


INPUT = keras_2_layer("InputLayer", "i", batch_input_shape=[None, 6])


def test_hard_sigmoid_of_keras_2_and_a_tensorflow_function(tmp_path: Path) -> None:
    layers = [
        INPUT,
        keras_2_layer("Activation", "a", ["i", 0, 0, {}], activation="hard_sigmoid"),
        keras_2_layer("TFOpLambda", "t", ["a", 0, 0, {"y": 2.0, "name": None}], function="math.multiply"),
        keras_2_layer("TFOpLambda", "u", ["t", 0, 0, {"y": ["i", 0, 0]}], function="__operators__.add"),
    ]
    graph = KERAS.read(keras_2_file(tmp_path / "a.h5", layers, {}))
    x = np.linspace(-4, 4, 12, dtype=np.float32).reshape(2, 6)
    np.testing.assert_allclose(execute(graph, {"i": x})["u"], 2 * np.clip(0.2 * x + 0.5, 0, 1) + x, rtol=1e-6)


def test_other_tensorflow_functions_are_refused(tmp_path: Path) -> None:
    layers = [INPUT, keras_2_layer("TFOpLambda", "t", ["i", 0, 0, {}], function="linalg.inv")]
    with pytest.raises(UnsupportedError, match=r"layer 't' \(TFOpLambda\): the function 'linalg.inv' is not read"):
        KERAS.read(keras_2_file(tmp_path / "a.h5", layers, {}))


def test_weights_alone_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_group("model_weights")
    with pytest.raises(InputFileError, match="a whole model was wanted; this file has weights only"):
        KERAS.read(tmp_path / "a.h5")


def test_damaged_h5(tmp_path: Path) -> None:
    dense = keras_2_layer("Dense", "d", ["i", 0, 0, {}], units=5)
    values = {"d": {"kernel": np.ones((6, 5), np.float32), "bias": np.zeros(5, np.float32)}}
    path = keras_2_file(tmp_path / "a.h5", [INPUT, dense], values)
    assert KERAS.read(path).tensors["d/kernel"].shape == (6, 5)
    data = path.read_bytes()
    for kept in range(0, len(data), len(data) // 30):
        (tmp_path / "cut.h5").write_bytes(data[:kept])
        with pytest.raises(InputFileError, match=r"cut\.h5"):
            KERAS.read(tmp_path / "cut.h5")


def test_ten_gigabytes_in_a_configuration(tmp_path: Path) -> None:
    dense = keras_2_layer("Dense", "d", ["i", 0, 0, {}], units=2**31 - 1)
    values = {"d": {"kernel": np.ones((6, 5), np.float32), "bias": np.zeros(5, np.float32)}}
    with pytest.raises(InputFileError, match="variable 'kernel' of 6x2147483647 was wanted; found 6x5"):
        KERAS.read(keras_2_file(tmp_path / "a.h5", [INPUT, dense], values))


# --- a whole model of a user -----------------------------------------------------------------------------------------


def users_model(keras: ModuleType) -> Any:
    k = keras.layers
    image, other = keras.Input((16, 16, 3), name="image"), keras.Input((8,), name="other")
    x = k.Conv2D(8, 3, padding="valid")(k.ZeroPadding2D(1)(image))
    x = k.PReLU(shared_axes=[1, 2])(x)
    x = k.Add()([x, k.SeparableConv2D(8, 3, padding="same", activation="relu")(x)])
    low = k.MaxPooling2D()(x)
    near, smooth = (k.UpSampling2D(interpolation=each)(low) for each in ("nearest", "bilinear"))
    up = k.Conv2DTranspose(8, 3, strides=2, padding="same")(low)
    x = k.Concatenate()([x, near, smooth, up])
    x = k.LayerNormalization()(k.Cropping2D(2)(x))
    pooled = k.GlobalMaxPooling2D()(x)
    flat = k.Dense(8)(k.Flatten()(k.MaxPooling2D(4)(x)))
    shaped = k.Flatten()(k.Reshape((2, 4))(flat))
    joined = k.Concatenate()([pooled, shaped, k.Dense(4, activation="tanh")(other)])
    return randomise(keras.Model([image, other], k.Dense(5, name="logits")(joined)))


def test_a_users_model_to_all_formats(tmp_path: Path, keras: ModuleType) -> None:
    model = users_model(keras)
    for path in both_files(model, tmp_path):
        assert_agrees(KERAS.read(path), model, random_inputs(KERAS.read(path)))
    graph = deploy(with_batch(KERAS.read(tmp_path / "a.keras"), 1)).graph
    assert not graph.kinds()["Transpose"]
    for name in ("tflite", "onnx", "openvino"):
        writer = registry.load("converters", name)
        operators = writer.write(graph, tmp_path / f"a{writer.suffix}").operators
        assert sum(count for kind, count in operators.items() if kind.lower() == "transpose") == 0, operators


# --- published files -------------------------------------------------------------------------------------------------


def data_folder() -> Path:
    for path in (Path(os.environ.get("EDGECNN_TEST_DATA", "")), Path(__file__).parents[2] / "shared" / "data"):
        if (path / "weights" / "mlperf_tiny").is_dir():
            return path
    pytest.skip("needs EDGECNN_TEST_DATA or ../shared/data")


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "twin", "size", "divisor"),
    [("vww_96.h5", "vww_96_float.tflite", 96, 255), ("pretrainedResnet.h5", "pretrainedResnet.tflite", 32, 1)],
)
def test_published_h5_agrees_with_its_tflite_twin(name: str, twin: str, size: int, divisor: int) -> None:
    from ai_edge_litert.interpreter import Interpreter

    folder = data_folder()
    weights = folder / "weights" / "mlperf_tiny"
    contract = Contract(height=size, width=size, mean=(0.0,) * 3, std=(float(divisor),) * 3)
    images = load_images(folder / "imagenet_sample_500", contract, limit=100).values
    interpreter = Interpreter(str(weights / twin))
    interpreter.allocate_tensors()
    port, wanted = interpreter.get_input_details()[0]["index"], []
    for image in images:
        interpreter.set_tensor(port, image[None])
        interpreter.invoke()
        wanted.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    graph = deploy(load_model(str(weights / name))).graph
    (found,) = execute(graph, {graph.inputs[0].name: images}).values()
    assert (found.argmax(1) == np.array(wanted).argmax(1)).all()
    assert snr_db(np.array(wanted), found) >= MINIMUM_SNR_DB


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size"), [("MobileNetV3Small", 96), ("EfficientNetB0", 64), ("NASNetMobile", 96), ("ConvNeXtTiny", 64)]
)
def test_keras_applications_agree(name: str, size: int) -> None:
    images = load_images(None, Contract(height=size, width=size), limit=8).values
    assert compare_application(name, images).agrees
