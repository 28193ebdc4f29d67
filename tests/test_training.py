"""Training: data sets that are held apart, a Graph that learns, and what is refused."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from edgecnn import registry
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.commands.build import build as build_command
from edgecnn.commands.train import train as train_command
from edgecnn.contract import Contract
from edgecnn.errors import NotThereError, OutputError, UsageError
from edgecnn.execute import execute
from edgecnn.models.build import ZooOptions, build
from edgecnn.ops import Mean, ReLU6
from edgecnn.passes.deploy import deploy
from edgecnn.training import datasets, fit
from edgecnn.training.augmentation import Augmentation

# Keras 3.15 turns TensorFlow's variables into arrays without NumPy 2's copy keyword; nothing of it is ours to change.
pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning"
)

KERAS = registry.load("converters", "keras")
GREY = Contract(height=16, width=16, colour_order="GRAY", mean=(127.5,), std=(127.5,), crop_fraction=1.0)


def picture_folder(folder: Path, images: int = 5) -> Path:
    """Make two classes that differ in brightness."""
    rng = np.random.default_rng(0)
    for name, level in (("dark", 40), ("bright", 180)):
        (folder / name).mkdir(parents=True)
        for index in range(images):
            pixels = rng.integers(level, level + 40, (20, 24, 3)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{index}.png")
    return folder


# --- data sets -------------------------------------------------------------------------------------------------------


def test_digits_are_whole_stratified_and_seeded() -> None:
    data = datasets.digits(replace(GREY, crop_fraction=0.5), seed=0)
    assert data.labels == tuple("0123456789")
    assert data.contract.crop_fraction == 1.0
    assert (len(data.train.images), len(data.test.images)) == (1438, 359)
    assert data.train.images.shape[1:] == (16, 16, 1)
    assert data.train.images.dtype == np.float32
    assert (data.train.images.min(), data.train.images.max()) == (-1.0, 1.0)
    shares = np.bincount(data.test.classes) / (np.bincount(data.test.classes) + np.bincount(data.train.classes))
    assert np.abs(shares - 0.2).max() < 0.005
    again, other = datasets.digits(GREY, seed=0), datasets.digits(GREY, seed=1)
    np.testing.assert_array_equal(again.test.images, data.test.images)
    assert not np.array_equal(other.test.classes, data.test.classes)


def test_folder_takes_its_classes_from_sub_folders(tmp_path: Path) -> None:
    data = datasets.folder(picture_folder(tmp_path), Contract(height=8, width=8), seed=0)
    assert data.labels == ("bright", "dark")
    assert (data.train.images.shape, data.test.images.shape) == ((8, 8, 8, 3), (2, 8, 8, 3))
    assert (data.train.images.mean(axis=(1, 2, 3)) > 0).tolist() == (data.train.classes == 0).tolist()


def test_folders_that_are_no_data_set_are_refused(tmp_path: Path) -> None:
    contract = Contract(height=8, width=8)
    with pytest.raises(NotThereError, match="'digits' or a folder with one sub-folder per class was wanted"):
        datasets.load_dataset(str(tmp_path / "no"), contract, seed=0)
    (tmp_path / "one").mkdir()
    with pytest.raises(UsageError, match="two or more sub-folders, one per class, were wanted; found 1"):
        datasets.load_dataset(str(tmp_path), contract, seed=0)
    (tmp_path / "two").mkdir()
    with pytest.raises(NotThereError, match=r"images .* were wanted; the folder has none"):
        datasets.load_dataset(str(tmp_path), contract, seed=0)
    lonely = picture_folder(tmp_path / "lonely", images=1)
    with pytest.raises(UsageError, match="two or more images of class 'bright' were wanted; found 1"):
        datasets.load_dataset(str(lonely), contract, seed=0)


def test_a_data_set_larger_than_memory_is_refused_before_it_is_loaded() -> None:
    with pytest.raises(UsageError, match=r"at most 4\.3 GB of images were wanted; 1797 of 9999x9999 take 718\.7 GB"):
        datasets.digits(replace(GREY, height=9999, width=9999), seed=0)


# --- training --------------------------------------------------------------------------------------------------------


def test_lenet_learns_the_digits_in_three_epochs() -> None:
    graph = build("lenet5")
    assert graph.contract is not None
    data = datasets.digits(graph.contract, seed=0)
    seen: list[fit.Epoch] = []
    trained = fit.train(graph, data, epochs=3, batch_size=32, learning_rate=1e-3, seed=0, report=seen.append)
    assert trained.accuracy > 0.9
    assert trained.test_images == 359
    assert tuple(seen) == trained.history
    assert [epoch.number for epoch in seen] == [1, 2, 3]
    assert seen[-1].loss < seen[0].loss
    assert trained.graph.contract == replace(graph.contract, labels=data.labels)
    assert trained.graph.nodes == graph.nodes
    right = execute(trained.graph, {"image": data.test.images})["logits"].argmax(axis=1) == data.test.classes
    assert trained.accuracy == right.mean()


def test_statistics_are_those_of_training_images_not_stale_averages() -> None:
    b = GraphBuilder("small", initialise=he_normal(0))
    x = b.conv_bn(b.input("image", (None, 16, 16, 1)), "stem", 8, ReLU6(), kernel_size=3, stride=2)
    x = b.node("pool", Mean(axes=(1, 2)), b.conv_bn(x, "second", 16, ReLU6(), kernel_size=3, stride=2))
    graph = b.finish({"logits": b.dense(x, "logits", 10)}, contract=GREY)
    data = datasets.digits(GREY, seed=0)
    few = replace(data, train=datasets.Split(images=data.train.images[:64], classes=data.train.classes[:64]))
    trained = fit.train(graph, few, epochs=1, batch_size=32, learning_rate=1e-3, seed=0).graph
    for name in ("stem", "second"):
        values = execute(trained, {"image": few.train.images}, fetch=[name])[name]
        for statistic, wanted in (("mean", values.mean(axis=(0, 1, 2))), ("variance", values.var(axis=(0, 1, 2)))):
            np.testing.assert_allclose(trained.tensors[f"{name}/bn/{statistic}"].value(), wanted, rtol=1e-4, atol=1e-5)


UNTRAINABLE = {
    "contract": (ZooOptions(in_channels=2), "lenet5: a contract was wanted, which says how pixels become the input"),
    "softmax": (ZooOptions(head="softmax"), "lenet5: logits were wanted to train on; its output is probabilities."),
    "classes": (ZooOptions(classes=3), "an output of Nx10 was wanted, one logit per class; found Nx3"),
}


@pytest.mark.parametrize("case", UNTRAINABLE)
def test_networks_that_cannot_be_trained_are_refused(case: str) -> None:
    options, message = UNTRAINABLE[case]
    data = datasets.digits(GREY, seed=0)
    with pytest.raises(UsageError) as caught:
        fit.train(build("lenet5", options), data, epochs=1, batch_size=32, learning_rate=1e-3, seed=0)
    assert message in str(caught.value)


def test_several_outputs_are_refused() -> None:
    graph = build("lenet5")
    forked = replace(graph, outputs=(*graph.outputs, replace(graph.outputs[0], name="again")))
    with pytest.raises(UsageError, match="lenet5: one input and one output were wanted; found 1 and 2"):
        fit.check_trainable(forked, 10)


def test_settings_must_be_positive() -> None:
    data = datasets.digits(GREY, seed=0)
    with pytest.raises(UsageError, match=r"epochs, batch_size and learning_rate must be positive; got 1, 32, -1\.0"):
        fit.train(build("lenet5"), data, epochs=1, batch_size=32, learning_rate=-1.0, seed=0)


# --- the commands ----------------------------------------------------------------------------------------------------


def test_build_and_train_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    pictures = picture_folder(tmp_path / "pictures")
    run = CliRunner().invoke(build_command, ["lenet5", "--resolution", "16", "--classes", "2", "--in-channels", "3"])
    assert run.exit_code == 0, run.output
    assert run.stdout.startswith("Written: lenet5.keras (")
    arguments = [
        "lenet5.keras",
        "--data",
        str(pictures),
        "--epochs",
        "2",
        "-o",
        "out/trained.keras",
        "--seed",
        "4",
        "--json",
    ]
    run = CliRunner().invoke(train_command, arguments)
    assert run.exit_code == 0, run.output
    result = json.loads(run.stdout)
    assert (result["schema_version"], result["test_images"], len(result["history"])) == (1, 2, 2)
    contract = KERAS.read_contract(tmp_path / "out" / "trained.keras")
    assert contract.labels == ("bright", "dark")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lenet5.keras", "out", "pictures"]


def test_train_command_fits_the_zoo_network_to_the_data(tmp_path: Path) -> None:
    pictures, output = picture_folder(tmp_path / "pictures"), tmp_path / "a.keras"
    arguments = ["lenet5", "--resolution", "16", "--in-channels", "3", "--data", str(pictures), "--epochs", "1"]
    run = CliRunner().invoke(train_command, [*arguments, "-o", str(output)])
    assert run.exit_code == 0, run.output
    assert "Accuracy on 2 held-out images" in run.stdout
    assert KERAS.read(output).tensors["logits"].shape == (None, 2)
    again = CliRunner().invoke(train_command, [*arguments, "-o", str(output)])
    assert isinstance(again.exception, OutputError)
    wrong = CliRunner().invoke(build_command, ["lenet5", "-o", str(tmp_path / "a.h5")])
    assert wrong.exit_code == 2
    assert "a file that ends in .keras was wanted" in wrong.stderr


@pytest.mark.parametrize(("shift", "rotation"), [(1.0, 0.0), (-0.1, 0.0), (0.0, 181.0)])
def test_impossible_augmentations_are_refused(shift: float, rotation: float) -> None:
    with pytest.raises(UsageError, match=r"shift in \[0, 1\) and rotation_degrees in \[0, 180\] were wanted"):
        Augmentation(shift=shift, rotation_degrees=rotation)


def test_augmentation_changes_images_while_training_only() -> None:
    keras = pytest.importorskip("keras")
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 1), dtype=np.float32)
    layers = Augmentation(shift=0.2, rotation_degrees=20, mirror=True).layers(keras, seed=0)
    assert len(layers) == 3
    model = keras.Sequential(layers)
    np.testing.assert_array_equal(np.asarray(model(images, training=False)), images)
    assert np.abs(np.asarray(model(images, training=True)) - images).max() > 0.1
    assert Augmentation().layers(keras, seed=0) == []


def test_auxiliary_heads_are_trained_and_then_left_out() -> None:
    b = GraphBuilder("headed", initialise=he_normal(0))
    x = b.conv_bn(b.input("image", (None, 16, 16, 1)), "stem", 8, ReLU6(), kernel_size=3, stride=2)
    early = b.dense(b.node("early", Mean(axes=(1, 2)), x), "side", 10)
    x = b.conv_bn(x, "late", 16, ReLU6(), kernel_size=3, stride=2)
    logits = b.dense(b.node("pool", Mean(axes=(1, 2)), x), "logits", 10)
    contract = Contract(height=16, width=16, colour_order="GRAY", mean=(127.5,), std=(127.5,))
    graph = b.finish({"logits": logits, "side": early}, contract=contract)
    graph = replace(graph, outputs=(graph.outputs[0], replace(graph.outputs[1], is_auxiliary=True)))
    data = datasets.digits(contract, seed=0)
    trained = fit.train(graph, data, epochs=2, batch_size=64, learning_rate=1e-2, seed=0)
    assert trained.accuracy > 0.3
    before, after = (each.tensors["side/kernel"].value() for each in (graph, trained.graph))
    assert np.abs(before - after).max() > 1e-3, "the auxiliary loss reached its head"
    assert [port.name for port in deploy(trained.graph).graph.outputs] == ["logits"]
