"""The Keras door: out and back unchanged, read without Keras; what cannot be read or written is refused by name."""

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
from edgecnn.converters._keras_layers import IDENTITIES, READERS

from edgecnn import ops, registry
from edgecnn.contract import Contract
from edgecnn.count import count
from edgecnn.errors import InputFileError, UnsupportedError, UsageError
from edgecnn.execute import execute, with_image_statistics
from edgecnn.graph import Graph
from edgecnn.interfaces import Reader, Writer
from edgecnn.models.build import ZooOptions, build
from edgecnn.passes.deploy import deploy

# Keras 3.15 turns TensorFlow's variables into arrays without NumPy 2's copy keyword; nothing of it is ours to change.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

KERAS = registry.load("converters", "keras")
SMALL = {"width_multiplier": 0.35, "resolution": 96}
ZOO = {
    "lenet5": ("lenet5", ZooOptions()),
    "lenet5_softmax_dropout": ("lenet5", ZooOptions(head="softmax", dropout=0.3, in_channels=3)),
    "mobilenet_v1": ("mobilenet_v1", ZooOptions(width_multiplier=0.25, resolution=96, classes=12)),
    "mobilenet_v2": ("mobilenet_v2", ZooOptions(**SMALL, classes=12)),  # type: ignore[arg-type]
    "mobilenet_v2_normal": ("mobilenet_v2", ZooOptions(**SMALL, classes=12, convolution="normal")),  # type: ignore[arg-type]
}


@pytest.fixture(scope="module")
def keras() -> ModuleType:
    module: ModuleType = KERAS.framework(purpose="the tests")
    return module


def with_random_statistics(graph: Graph) -> Graph:
    """Return the Graph with statistics under which activations keep their size, and random gamma and beta."""
    rng = np.random.default_rng(3)
    shape = tuple(size or 4 for size in graph.tensors[graph.inputs[0].tensor].shape)
    graph = with_image_statistics(graph, {graph.inputs[0].name: rng.standard_normal(shape, dtype=np.float32)})
    tensors = dict(graph.tensors)
    for node in graph.nodes:
        if isinstance(node.op, ops.BatchNorm):
            for name, centre in zip(node.inputs[1:3], (1.0, 0.0), strict=True):
                values = centre + 0.2 * rng.standard_normal(tensors[name].value().shape)
                tensors[name] = replace(tensors[name], data=values.astype(np.float32))
    return replace(graph, tensors=tensors)


def zoo(name: str) -> Graph:
    return with_random_statistics(build(*ZOO[name]))


def assert_same(found: Graph, wanted: Graph) -> None:
    """Both Graphs have the same nodes, ports, contract and constants; only the twin's kernels may have other names."""
    assert (found.name, found.inputs, found.outputs, found.contract) == (
        wanted.name,
        wanted.inputs,
        wanted.outputs,
        wanted.contract,
    )
    assert [(n.name, n.op, n.outputs) for n in found.nodes] == [(n.name, n.op, n.outputs) for n in wanted.nodes]
    for a, b in zip(found.nodes, wanted.nodes, strict=True):
        assert a.inputs == tuple(name.replace("normal_kernel", "kernel") for name in b.inputs)
        for x, y in zip(a.inputs, b.inputs, strict=True):
            assert found.tensors[x].shape == wanted.tensors[y].shape
            if wanted.tensors[y].is_constant:
                np.testing.assert_array_equal(found.tensors[x].value(), wanted.tensors[y].value())
    assert len(found.tensors) == len(wanted.tensors)


def assert_agrees(graph: Graph, model: Any, inputs: list[np.ndarray], tolerance: float = 1e-5) -> None:
    """`execute` and the Keras model differ by at most this share of the output's range."""
    fed = {port.name: values for port, values in zip(graph.inputs, inputs, strict=True)}
    wanted = model(inputs if len(inputs) > 1 else inputs[0], training=False)
    arrays = [np.asarray(each) for each in (wanted if isinstance(wanted, list) else [wanted])]
    for found, expected in zip(execute(graph, fed).values(), arrays, strict=True):
        assert found.shape == expected.shape
        assert np.abs(found - expected).max() <= tolerance * np.ptp(expected)


def random_inputs(graph: Graph, batch: int = 2) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = [graph.tensors[port.tensor].shape for port in graph.inputs]
    return [rng.standard_normal((batch, *(s or 0 for s in shape[1:])), dtype=np.float32) for shape in shapes]


# --- the zoo, out and back -------------------------------------------------------------------------------------------


def test_it_is_a_reader_and_a_writer() -> None:
    assert isinstance(KERAS, Reader)
    assert isinstance(KERAS, Writer)
    assert KERAS.files(Path("a.keras")) == (Path("a.keras"),)


@pytest.mark.parametrize("name", ZOO)
def test_zoo_graph_comes_back_unchanged(name: str, tmp_path: Path, keras: ModuleType) -> None:
    graph = zoo(name)
    artifact = KERAS.write(graph, tmp_path / "a.keras")
    assert artifact.size_bytes == artifact.path.stat().st_size
    assert artifact.operators["InputLayer"] == 1
    assert KERAS.read_contract(artifact.path) == graph.contract
    assert_same(KERAS.read(artifact.path), graph)
    loaded = keras.models.load_model(artifact.path)
    assert_agrees(graph, loaded, random_inputs(graph))


@pytest.mark.parametrize("name", ["lenet5", "mobilenet_v1", "mobilenet_v2"])
def test_keras_counts_the_same_parameters(name: str) -> None:
    graph = build(*ZOO[name])
    model, cost = KERAS.to_keras(graph), count(graph)
    assert sum(w.size for w in model.get_weights()) == cost.total
    assert sum(int(np.prod(w.shape)) for w in model.trainable_weights) == cost.trainable


def test_weights_come_back_from_a_model_that_changed() -> None:
    graph = zoo("mobilenet_v2")
    model = KERAS.to_keras(graph)
    rng = np.random.default_rng(5)
    model.set_weights([w * rng.uniform(0.8, 1.2, w.shape).astype(np.float32) for w in model.get_weights()])
    changed = KERAS.with_keras_weights(graph, model)
    assert changed.nodes == graph.nodes
    assert not np.array_equal(changed.tensors["stem/bn/mean"].value(), graph.tensors["stem/bn/mean"].value())
    assert_agrees(changed, model, random_inputs(graph))


def test_weights_of_another_model_are_refused() -> None:
    graph = build("lenet5")
    narrow = KERAS.to_keras(build("lenet5", ZooOptions(width_multiplier=0.5)))
    with pytest.raises(UsageError, match=r"c1: weights of 5x5x1x6, 6 were wanted; found 5x5x1x3, 3"):
        KERAS.with_keras_weights(graph, narrow)
    with pytest.raises(UsageError, match="a model with the layer 'stem' was wanted; it has none of that name"):
        KERAS.with_keras_weights(build("mobilenet_v1", ZOO["mobilenet_v1"][1]), narrow)


def test_a_contract_of_an_nchw_artifact_becomes_channels_last(tmp_path: Path) -> None:
    graph = build("lenet5")
    turned = replace(graph, contract=replace(graph.contract or Contract(height=1, width=1), layout="NCHW"))
    KERAS.write(turned, tmp_path / "a.keras")
    assert KERAS.read_contract(tmp_path / "a.keras") == graph.contract


def test_a_deployed_graph_is_written_too(tmp_path: Path, keras: ModuleType) -> None:
    graph = zoo("mobilenet_v1")
    KERAS.write(deploy(graph).graph, tmp_path / "a.keras")
    back = KERAS.read(tmp_path / "a.keras")
    assert not back.kinds()["BatchNorm"]
    x = {"image": random_inputs(graph)[0]}
    wanted, found = execute(graph, x)["logits"], execute(back, x)["logits"]
    assert np.abs(wanted - found).max() <= 1e-4 * np.ptp(wanted)


# --- models that users bring -----------------------------------------------------------------------------------------

AUGMENTATIONS: dict[str, tuple[Any, ...]] = {
    "RandomColorJitter": (),
    "RandomElasticTransform": (),
    "RandomErasing": (),
    "RandomFlip": (),
    "RandomGaussianBlur": (),
    "RandomGrayscale": (),
    "RandomInvert": (),
    "RandomPerspective": (),
    "RandomShear": (),
    "RandomTranslation": (0.1, 0.1),
    "RandomPosterization": (4,),
}
"""Positional arguments of random layers; the others take a factor."""


def augmentation(name: str) -> Callable[[Any], Any]:
    return lambda k: getattr(k, name)(*AUGMENTATIONS.get(name, (0.1,)))


IMAGE, ROW, VOLUME, FLAT = (8, 9, 4), (12, 4), (5, 6, 7, 4), (6,)
LAYERS: dict[str, tuple[tuple[int, ...], Callable[[Any], Any]]] = {
    "Conv1D": (ROW, lambda k: k.Conv1D(5, 3, padding="causal", dilation_rate=2, activation="tanh")),
    "Conv2D": (IMAGE, lambda k: k.Conv2D(6, (3, 2), strides=(2, 1), padding="same", groups=2, activation="relu6")),
    "Conv3D": (VOLUME, lambda k: k.Conv3D(3, 2, activation="sigmoid", use_bias=False)),
    "DepthwiseConv1D": (ROW, lambda k: k.DepthwiseConv1D(3, strides=2, padding="same")),
    "DepthwiseConv2D": (IMAGE, lambda k: k.DepthwiseConv2D(3, depth_multiplier=2, padding="same", activation="relu")),
    "Dense": (IMAGE, lambda k: k.Dense(7, activation="softmax")),
    "BatchNormalization": (IMAGE, lambda k: k.BatchNormalization(axis=3, scale=False, epsilon=0.01)),
    "ReLU": (IMAGE, lambda k: k.ReLU(max_value=1.0)),
    "Activation": (IMAGE, lambda k: k.Activation("relu6")),
    "Softmax": (IMAGE, lambda k: k.Softmax()),
    "MaxPooling1D": (ROW, lambda k: k.MaxPooling1D(3, strides=2, padding="same")),
    "MaxPooling2D": (IMAGE, lambda k: k.MaxPooling2D((2, 3))),
    "MaxPooling3D": (VOLUME, lambda k: k.MaxPooling3D(2, strides=1)),
    "AveragePooling1D": (ROW, lambda k: k.AveragePooling1D(3, strides=2, padding="same")),
    "AveragePooling2D": (IMAGE, lambda k: k.AveragePooling2D(3, strides=2, padding="same")),
    "AveragePooling3D": (VOLUME, lambda k: k.AveragePooling3D(2)),
    "GlobalAveragePooling1D": (ROW, lambda k: k.GlobalAveragePooling1D()),
    "GlobalAveragePooling2D": (IMAGE, lambda k: k.GlobalAveragePooling2D(keepdims=True)),
    "GlobalAveragePooling3D": (VOLUME, lambda k: k.GlobalAveragePooling3D()),
    "Add": (IMAGE, lambda k: lambda x: k.Add()((x, x, k.ReLU()(x)))),
    "Subtract": (IMAGE, lambda k: lambda x: k.Subtract()([x, k.ReLU()(x)])),
    "Multiply": (IMAGE, lambda k: lambda x: k.Multiply()([x, k.GlobalAveragePooling2D()(x)])),
    "Concatenate": (IMAGE, lambda k: lambda x: k.Concatenate(axis=-2)([x, k.ReLU()(x)])),
    "ZeroPadding1D": (ROW, lambda k: k.ZeroPadding1D((1, 2))),
    "ZeroPadding2D": (IMAGE, lambda k: k.ZeroPadding2D(((0, 1), (2, 3)))),
    "ZeroPadding3D": (VOLUME, lambda k: k.ZeroPadding3D(1)),
    "Flatten": (IMAGE, lambda k: k.Flatten()),
    "Reshape": (IMAGE, lambda k: k.Reshape((-1, 4))),
    "Permute": (IMAGE, lambda k: k.Permute((3, 1, 2))),
    "Dropout": (FLAT, lambda k: k.Dropout(0.4)),
    "Identity": (FLAT, lambda k: k.Identity()),
    "ActivityRegularization": (FLAT, lambda k: k.ActivityRegularization(0.1)),
    "AlphaDropout": (FLAT, lambda k: k.AlphaDropout(0.1)),
    "GaussianDropout": (FLAT, lambda k: k.GaussianDropout(0.1)),
    "GaussianNoise": (FLAT, lambda k: k.GaussianNoise(0.1)),
    "SpatialDropout1D": (ROW, lambda k: k.SpatialDropout1D(0.1)),
    "SpatialDropout2D": (IMAGE, lambda k: k.SpatialDropout2D(0.1)),
    "SpatialDropout3D": (VOLUME, lambda k: k.SpatialDropout3D(0.1)),
    "SeparableConv1D": (ROW, lambda k: k.SeparableConv1D(5, 3, activation="selu")),
    "SeparableConv2D": (IMAGE, lambda k: k.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", strides=2)),
    "Conv1DTranspose": (ROW, lambda k: k.Conv1DTranspose(5, 4, strides=3, padding="same", activation="silu")),
    "Conv2DTranspose": (IMAGE, lambda k: k.Conv2DTranspose(5, 3, strides=2, padding="same", output_padding=1)),
    "Conv3DTranspose": (VOLUME, lambda k: k.Conv3DTranspose(3, 2, strides=2, use_bias=False)),
    "LayerNormalization": (IMAGE, lambda k: k.LayerNormalization(axis=[3], epsilon=0.01, center=False)),
    "UnitNormalization": (IMAGE, lambda k: k.UnitNormalization()),
    "GroupNormalization": (IMAGE, lambda k: k.GroupNormalization(2)),
    "Normalization": (IMAGE, lambda k: k.Normalization(mean=[1.0, 2, 3, 4], variance=[1.0, 4, 2, 3])),
    "Rescaling": (IMAGE, lambda k: k.Rescaling(0.5, offset=-1)),
    "LeakyReLU": (IMAGE, lambda k: k.LeakyReLU(0.1)),
    "PReLU": (IMAGE, lambda k: k.PReLU(shared_axes=[1])),
    "ELU": (IMAGE, lambda k: k.ELU(0.7)),
    "GlobalMaxPooling1D": (ROW, lambda k: k.GlobalMaxPooling1D(keepdims=True)),
    "GlobalMaxPooling2D": (IMAGE, lambda k: k.GlobalMaxPooling2D()),
    "GlobalMaxPooling3D": (VOLUME, lambda k: k.GlobalMaxPooling3D()),
    "Average": (IMAGE, lambda k: lambda x: k.Average()([x, k.ReLU()(x), x])),
    "Maximum": (IMAGE, lambda k: lambda x: k.Maximum()([x, k.ELU()(x), k.Rescaling(0.5)(x)])),
    "Minimum": (IMAGE, lambda k: lambda x: k.Minimum()([x, k.ReLU()(x)])),
    "Cropping1D": (ROW, lambda k: k.Cropping1D((1, 2))),
    "Cropping2D": (IMAGE, lambda k: k.Cropping2D(((0, 1), (2, 3)))),
    "Cropping3D": (VOLUME, lambda k: k.Cropping3D(1)),
    "UpSampling1D": (ROW, lambda k: k.UpSampling1D(3)),
    "UpSampling2D": (IMAGE, lambda k: k.UpSampling2D((2, 3), interpolation="bilinear")),
    "UpSampling3D": (VOLUME, lambda k: k.UpSampling3D(2)),
    "Resizing": (IMAGE, lambda k: k.Resizing(5, 12)),
    "CenterCrop": (IMAGE, lambda k: k.CenterCrop(5, 4)),
    **{name: ((8, 9, 3), augmentation(name)) for name in IDENTITIES if name.startswith("Random")},
}


def randomise(model: Any) -> Any:
    rng = np.random.default_rng(7)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape).astype(np.float32) for w in model.get_weights()])
    return model


def test_each_row_of_the_layer_table_is_tried() -> None:
    elsewhere = {"InputLayer", "Convolution2D", "LayerScale", "StochasticDepth", "CustomScaleLayer"}
    assert set(LAYERS) | elsewhere == set(READERS)


@pytest.mark.parametrize("name", LAYERS)
def test_layer_is_read(name: str, tmp_path: Path, keras: ModuleType) -> None:
    shape, make = LAYERS[name]
    x = keras.Input(shape)
    model = randomise(keras.Model(x, make(keras.layers)(x)))
    model.save(tmp_path / "a.keras")
    graph = KERAS.read(tmp_path / "a.keras")
    assert_agrees(graph, model, random_inputs(graph))


def test_sequential_model_with_default_names(tmp_path: Path, keras: ModuleType) -> None:
    k = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3), name="photo"),
            k.Conv2D(4, 3, activation="relu", name="first.conv"),
            k.MaxPooling2D(),
            k.DepthwiseConv2D(3, name="depth"),
            k.Conv2D(5, 1, name="second"),
            k.GlobalAveragePooling2D(),
            k.Dense(3, activation="softmax", name="out"),
        ],
        name="net",
    )
    randomise(model).save(tmp_path / "a.keras")
    graph = KERAS.read(tmp_path / "a.keras")
    assert (graph.name, graph.inputs[0].name, graph.outputs[0].name) == ("net", "photo", "out/softmax")
    assert [node.name for node in graph.nodes[:2]] == ["first/conv", "first/conv/relu"]
    assert graph.tensors["depth/kernel"].shape == (3, 3, 1, 4)
    assert graph.contract == Contract(height=16, width=16, output="probabilities", is_assumed=True)
    assert_agrees(graph, model, random_inputs(graph))
    assert KERAS.read_contract(tmp_path / "a.keras") is None
    KERAS.write(graph, tmp_path / "b.keras")
    assert_same(KERAS.read(tmp_path / "b.keras"), graph)


def test_functional_model_with_branches_shared_layers_and_several_ports(tmp_path: Path, keras: ModuleType) -> None:
    k = keras.layers
    b, a = keras.Input((8, 8, 4), name="b"), keras.Input((8, 8, 4), name="a")
    shared = k.Conv2D(4, 3, padding="same", activation="relu6", name="shared")
    x, y = shared(a), shared(b)
    joined = k.Concatenate(name="joined")([k.Add()([x, a]), k.Conv2D(3, 1, name="side")(y)])
    model = randomise(keras.Model([b, a], [k.Flatten(name="flat")(joined), k.Dense(2, name="small")(y)]))
    model.save(tmp_path / "a.keras")
    graph = KERAS.read(tmp_path / "a.keras")
    assert [port.name for port in graph.inputs] == ["b", "a"]
    assert [port.name for port in graph.outputs] == ["flat", "small"]
    assert [n.inputs[1] for n in graph.nodes if n.name.startswith("shared") and n.kind == "Conv"] == [
        "shared/kernel"
    ] * 2
    assert graph.contract is None
    assert_agrees(graph, model, random_inputs(graph))
    again = KERAS.to_keras(graph)
    assert again.count_params() == model.count_params()
    assert_agrees(graph, again, random_inputs(graph))


def test_reading_needs_neither_keras_nor_tensorflow(tmp_path: Path) -> None:
    graph = zoo("mobilenet_v2")
    KERAS.write(graph, tmp_path / "a.keras")
    code = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("keras", "tensorflow", "torch", "jax"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Block())
from pathlib import Path
import numpy as np
from edgecnn.execute import execute
from edgecnn.errors import MissingError
from edgecnn.source import load_model
graph = load_model(sys.argv[1])
x = np.load(sys.argv[2])
np.save(sys.argv[3], execute(graph, {"image": x})["logits"])
from edgecnn import registry
try:
    registry.load("converters", "keras").write(graph, Path("b.keras"))
except MissingError as error:
    print(error)
"""
    x, out = random_inputs(graph)[0], tmp_path / "out.npy"
    np.save(tmp_path / "x.npy", x)
    command = [sys.executable, "-c", code, str(tmp_path / "a.keras"), str(tmp_path / "x.npy"), str(out)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    np.testing.assert_array_equal(np.load(out), execute(graph, {"image": x})["logits"])
    assert done.stdout == (
        "a Keras model needs the package tensorflow, which is not installed. "
        "Run: python -m pip install 'edgecnn[train]'\n"
    )


# --- what is refused -------------------------------------------------------------------------------------------------


def refusals(k: Any) -> dict[str, tuple[Any, str]]:
    """Return name -> (layers behind an input of 8x8x4, part of the message)."""
    return {
        "lambda": (
            k.Lambda(lambda x: x, name="mine"),
            "layer 'mine' (Lambda): it holds code, which is never executed.",
        ),
        "unknown": (k.Masking(name="unit"), "layer 'unit' (Masking): this layer class is not read."),
        "channels_first": (
            k.MaxPooling2D(data_format="channels_first", name="p"),
            "layer 'p' (MaxPooling2D): data_format 'channels_last' was wanted; found 'channels_first'.",
        ),
        "activation": (k.Activation("glu", name="a"), "layer 'a' (Activation): one of the activations linear, relu"),
        "activation_layer": (k.Conv2D(2, 1, activation=k.PReLU(), name="c"), "layer 'c' (Conv2D): one of the"),
        "axis": (k.BatchNormalization(axis=1, name="b"), "statistics over the last axis was wanted; found axis=1"),
        "threshold": (k.ReLU(threshold=0.1, name="r"), "layer 'r' (ReLU): threshold=0 was wanted; found 0.1"),
        "float16": (k.Dense(2, dtype="float16", name="d"), "a dtype policy of float32, mixed_float16, mixed_bfloat16"),
    }


@pytest.mark.parametrize(
    "case", ["lambda", "unknown", "channels_first", "activation", "activation_layer", "axis", "threshold", "float16"]
)
def test_layers_are_refused_by_name(case: str, tmp_path: Path, keras: ModuleType) -> None:
    layer, message = refusals(keras.layers)[case]
    x = keras.Input((8, 8, 4))
    keras.Model(x, layer(x)).save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedError) as caught:
        KERAS.read(tmp_path / "a.keras")
    assert message in str(caught.value)
    assert str(tmp_path / "a.keras") in str(caught.value)


def test_custom_classes_are_refused(tmp_path: Path, keras: ModuleType) -> None:
    @keras.saving.register_keras_serializable(package="Mine")
    class Scale(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x

    x = keras.Input((4,))
    keras.Model(x, Scale(name="scaled")(x)).save(tmp_path / "a.keras")
    with pytest.raises(
        UnsupportedError, match="layer 'scaled' is of the custom class 'Mine>Scale', whose code is never"
    ):
        KERAS.read(tmp_path / "a.keras")
    rewrite(tmp_path / "a.keras", config=lambda c: c | {"class_name": "Net", "registered_name": "Mine>Net"})
    with pytest.raises(
        UnsupportedError, match="a Functional or Sequential model was wanted; found the custom class 'Net'"
    ):
        KERAS.read(tmp_path / "a.keras")


def test_open_sizes_are_refused(tmp_path: Path, keras: ModuleType) -> None:
    x = keras.Input((None, None, 3), name="image")
    keras.Model(x, keras.layers.Conv2D(2, 3)(x)).save(tmp_path / "a.keras")
    with pytest.raises(UnsupportedError, match=r"only the batch may be open; found \[None, None, None, 3\]"):
        KERAS.read(tmp_path / "a.keras")


# --- damaged files ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def lenet(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("lenet") / "a.keras"
    KERAS.write(build("lenet5"), path)
    return path.read_bytes()


@pytest.fixture
def file(tmp_path: Path, lenet: bytes) -> Path:
    path = tmp_path / "a.keras"
    path.write_bytes(lenet)
    return path


def rewrite(
    path: Path,
    *,
    config: Callable[[dict[str, Any]], object] | None = None,
    drop: str = "",
    add: dict[str, bytes] | None = None,
    compression: int = zipfile.ZIP_STORED,
) -> None:
    """Change members of an archive in place."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != drop} | (add or {})
    if config is not None:
        members["config.json"] = json.dumps(config(json.loads(members["config.json"]))).encode()
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def set_layer(name: str, **values: object) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """Return a change of one layer: entries of its configuration, or `inbound` for the layer that it is called on."""

    def change(config: dict[str, Any]) -> dict[str, Any]:
        row = next(row for row in config["config"]["layers"] if row["name"] == name)
        if "inbound" in values:
            row["inbound_nodes"][0]["args"][0]["config"]["keras_history"] = values.pop("inbound")
        row["config"].update(values)
        return config

    return change


def weights(change: Callable[[h5py.File], object], data: bytes) -> bytes:
    """Return an HDF5 file with a change."""
    buffer = io.BytesIO(data)
    with h5py.File(buffer, "r+") as opened:
        change(opened)
    return buffer.getvalue()


def link(name: str, target: h5py.ExternalLink | h5py.SoftLink) -> Callable[[h5py.File], None]:
    def change(opened: h5py.File) -> None:
        del opened[name]
        opened[name] = target

    return change


CONFIGS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no_object": (lambda c: [c], "config.json: a JSON object was wanted; found list"),
    "no_layers": (lambda c: c | {"config": {"name": "x"}}, "layers: a JSON array was wanted; found None"),
    "no_class": (lambda c: c | {"class_name": 3}, "class_name: text was wanted; found 3"),
    "huge_dense": (
        set_layer("c5", units=2**31 - 1),
        "layer 'c5' (Dense): variable 'kernel' of 400x2147483647 was wanted; found 400x120",
    ),
    "beyond_int32": (
        set_layer("c5", units=2**31),
        "layer 'c5' (Dense): units: an integer was wanted; found 2147483648",
    ),
    "negative": (set_layer("c1", filters=-6), "layer 'c1' (Conv2D): filters: an integer was wanted; found -6"),
    "kernel_size": (
        set_layer("c1", kernel_size="5"),
        "kernel_size: a list of 2 positive integer(s) was wanted; found '5'",
    ),
    "large_kernel": (set_layer("c1", kernel_size=[99, 99]), "variable 'kernel' of 99x99x1x6 was wanted; found 5x5x1x6"),
    "large_pool": (set_layer("c1.pool", pool_size=[99, 99]), "the kernel must fit the padded input"),
    "padding": (set_layer("c1", padding="full"), "padding must be 'same', 'valid' or explicit numbers; got 'full'"),
    "use_bias": (set_layer("c1", use_bias="no"), "layer 'c1' (Conv2D): use_bias: true or false was wanted; found 'no'"),
    "cycle": (set_layer("c1", inbound=["logits", 0, 0]), "layers without a cycle were wanted; 'c1' depends on itself"),
    "dangling": (
        set_layer("c1", inbound=["ghost", 0, 0]),
        "call 0 of layer 'ghost' is used, but there is no such call",
    ),
    "no_such_call": (set_layer("c1", inbound=["image", 7, 0]), "call 7 of layer 'image' is used"),
    "history": (set_layer("c1", inbound=["image", "0", 0]), "keras_history of [layer, call, output] was wanted"),
    "input_shape": (set_layer("image", batch_shape=[None, 32, "32", 1]), "batch_shape: a list of integers was wanted"),
    "output": (
        lambda c: c | {"config": c["config"] | {"output_layers": ["ghost", 0, 0]}},
        "call 0 of layer 'ghost' is used, but there is no such call",
    ),
    "input": (
        lambda c: c | {"config": c["config"] | {"input_layers": ["c1", 0, 0]}},
        "input_layers ['image'] were wanted; found ['c1']",
    ),
    "twice": (
        lambda c: c | {"config": c["config"] | {"layers": c["config"]["layers"] * 2}},
        "layer names that differ were wanted; found two layers 'image'",
    ),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_damaged_configuration(case: str, file: Path) -> None:
    change, message = CONFIGS[case]
    rewrite(file, config=change)
    with pytest.raises(InputFileError) as caught:
        KERAS.read(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert caught.value.exit_code == 3


WEIGHTS: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "missing": (lambda h: h.pop("layers/conv2d/vars/1"), "2 variables were wanted in model.weights.h5/conv2d: '1' of"),
    "no_group": (
        lambda h: h.pop("layers/dense"),
        "layer 'c5' (Dense): 2 variables were wanted in model.weights.h5/dense",
    ),
    "external": (
        link("layers/conv2d/vars/0", h5py.ExternalLink("/etc/passwd", "/x")),
        "'0' of layers/conv2d/vars/0 is a ExternalLink",
    ),
    "soft": (link("layers/conv2d/vars/0", h5py.SoftLink("/layers/conv2d/vars/1")), "is a SoftLink"),
    "text": (
        lambda h: (h.pop("layers/conv2d/vars/1"), h.create_dataset("layers/conv2d/vars/1", data=np.zeros(6, "S4"))),
        "variable 'bias' of float16, float32, float64 was wanted; found |S4",
    ),
    "unwritten": (
        lambda h: (
            h.pop("layers/dense/vars/0"),
            h.create_dataset("layers/dense/vars/0", (400, 120), "f8", chunks=True),
        ),
        "variable 'kernel' of 400x120 is larger than the file that holds it",
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_damaged_variables(case: str, file: Path) -> None:
    change, message = WEIGHTS[case]
    with zipfile.ZipFile(file) as archive:
        data = archive.read("model.weights.h5")
    rewrite(file, add={"model.weights.h5": weights(change, data)})
    with pytest.raises(InputFileError) as caught:
        KERAS.read(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))


ARCHIVES: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (
        lambda p: p.write_bytes(b""),
        "a .keras file (a zip archive) was wanted; it is damaged: File is not a zip",
    ),
    "truncated": (lambda p: p.write_bytes(p.read_bytes()[:-200]), "it is damaged: File is not a zip file"),
    "flipped": (
        lambda p: p.write_bytes(p.read_bytes().replace(b'"filters": 6', b'"filters": 7', 1)),
        "it is damaged: Bad CRC-32 for file 'config.json'",
    ),
    "no_config": (lambda p: rewrite(p, drop="config.json"), "the member config.json was wanted; there is none."),
    "no_weights": (
        lambda p: rewrite(p, drop="model.weights.h5"),
        "the member model.weights.h5 was wanted; there is none.",
    ),
    "climbing": (
        lambda p: rewrite(p, drop="config.json", add={"../config.json": b"{}"}),
        "the member config.json was wanted; there is none.",
    ),
    "no_json": (lambda p: rewrite(p, add={"config.json": b"{"}), "config.json: JSON was wanted; it cannot be read"),
    "deep_json": (lambda p: rewrite(p, add={"config.json": b"[" * 200_000}), "config.json: JSON was wanted"),
    "no_text": (lambda p: rewrite(p, add={"config.json": b"\xff\xfe\xfa"}), "config.json: JSON was wanted"),
    "large_config": (
        lambda p: rewrite(p, add={"config.json": b" " * (17 << 20)}, compression=zipfile.ZIP_DEFLATED),
        "config.json of at most 16777216 bytes was wanted; found 17825792",
    ),
    "bomb": (
        lambda p: rewrite(p, add={"model.weights.h5": bytes(65 << 20)}, compression=zipfile.ZIP_DEFLATED),
        "at most 100 times was wanted",
    ),
    "no_hdf5": (
        lambda p: rewrite(p, add={"model.weights.h5": b"no"}),
        "model.weights.h5: an HDF5 file was wanted; it is damaged",
    ),
    "contract": (
        lambda p: rewrite(p, add={"edgecnn.json": b"{}"}),
        "a contract of schema_version 1 was wanted; got None",
    ),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_damaged_archive(case: str, file: Path) -> None:
    change, message = ARCHIVES[case]
    change(file)
    with pytest.raises(InputFileError) as caught:
        KERAS.read(file)
    assert message in str(caught.value)
    assert str(caught.value).startswith(str(file))


def test_truncated_weights_of_any_length(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        data = archive.read("model.weights.h5")
    for kept in range(0, len(data), len(data) // 40):
        rewrite(file, add={"model.weights.h5": data[:kept]})
        with pytest.raises(InputFileError, match=r"a\.keras"):
            KERAS.read(file)


def test_a_sequential_model_that_was_never_built_is_refused(file: Path) -> None:
    layers = [{"class_name": "ReLU", "config": {"name": "r"}}]
    config = {"class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    rewrite(file, config=lambda c: config)
    with pytest.raises(UnsupportedError, match="a Sequential model with its input's shape was wanted"):
        KERAS.read(file)


def test_compressed_archives_are_read(file: Path) -> None:
    wanted = KERAS.read(file)
    rewrite(file, compression=zipfile.ZIP_DEFLATED)
    assert_same(KERAS.read(file), wanted)
