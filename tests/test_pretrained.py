"""Pretrained weights: a Keras weight file gives a zoo network the outputs that Keras Applications has."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.execute import execute
from edgecnn.graph import Array
from edgecnn.models import imagenet_weights
from edgecnn.models.build import ZooOptions, build
from edgecnn.models.imagenet_weights import imagenet_file
from edgecnn.models.pretrained import load_weights

keras = pytest.importorskip("keras")


@dataclass(frozen=True, kw_only=True, slots=True)
class Peer:
    """A zoo network and what Keras Applications calls the same."""

    model: str
    make: Callable[[], Any]
    options: ZooOptions


SHAPE = (96, 96, 3)
PEERS = [
    Peer(
        model="mobilenet_v1",
        make=lambda: keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=SHAPE),
        options=ZooOptions(width_multiplier=0.25, resolution=96, head="softmax"),
    ),
    Peer(
        model="mobilenet_v2",
        make=lambda: keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=SHAPE),
        options=ZooOptions(width_multiplier=0.35, resolution=96, head="softmax"),
    ),
]


def randomised(model: Any) -> Any:
    """Give each BatchNorm numbers that are not the identity: fresh ones would hide a swapped operand."""
    rng = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.set_weights([rng.uniform(0.5, 1.5, np.shape(w)).astype(np.float32) for w in layer.get_weights()])
    return model


@pytest.fixture(scope="module", params=PEERS, ids=lambda peer: peer.model)
def peer(request: pytest.FixtureRequest) -> tuple[Peer, Any]:
    keras.utils.set_random_seed(0)
    return request.param, randomised(request.param.make())


def saved(model: Any, folder: Path, suffix: str) -> Path:
    path = folder / f"weights{suffix}"
    (model.save_weights if suffix == ".weights.h5" else model.save)(path)
    return path


def images() -> Array:
    return np.random.default_rng(1).uniform(-1, 1, (2, *SHAPE)).astype(np.float32)


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
@pytest.mark.parametrize("suffix", [".weights.h5", ".keras", ".h5"])
def test_every_kind_of_file_gives_what_keras_computes(suffix: str, peer: tuple[Peer, Any], tmp_path: Path) -> None:
    known, model = peer
    graph = build(known.model, known.options)
    loaded = load_weights(graph, saved(model, tmp_path, suffix))
    wanted = model.predict(images(), verbose=0)
    found = execute(loaded.graph, {"image": images()})["probabilities"]
    assert np.abs(found - wanted).max() <= 1e-5 * np.ptp(wanted)
    assert loaded.fresh == ()


def test_another_number_of_classes_keeps_a_fresh_classifier(peer: tuple[Peer, Any], tmp_path: Path) -> None:
    known, model = peer
    options = ZooOptions(width_multiplier=known.options.width_multiplier, resolution=96, classes=7)
    assert load_weights(build(known.model, options), saved(model, tmp_path, ".weights.h5")).fresh == ("logits",)


def test_a_file_of_another_network_is_refused_with_what_did_not_fit(peer: tuple[Peer, Any], tmp_path: Path) -> None:
    known, model = peer
    path = saved(model, tmp_path, ".weights.h5")
    wider = build(known.model, ZooOptions(width_multiplier=1.0, resolution=96))
    with pytest.raises(
        InputFileError, match=r"layers do not fit: 'block_\d/depthwise' wants a kernel of 3x3x1x"
    ) as told:
        load_weights(wider, path)
    assert " more. Is it a file of this network, width and head?" in str(told.value)
    with pytest.raises(InputFileError, match="'depthwise_conv2d' of the file has no place in the network"):
        load_weights(build("lenet5"), path)


def test_damaged_files_are_refused(peer: tuple[Peer, Any], tmp_path: Path) -> None:
    known, model = peer
    path = saved(model, tmp_path, ".weights.h5")
    whole = path.read_bytes()
    for damaged in (b"", b"no HDF5", whole[: len(whole) // 2], whole[:3000]):
        path.write_bytes(damaged)
        with pytest.raises(InputFileError, match=r"weights\.weights\.h5: "):
            load_weights(build(known.model, known.options), path)


def test_imagenet_files_are_named_as_keras_names_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    name = "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_0.5_160.h5"
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / name).write_bytes(b"")
    found = imagenet_file("mobilenet_v2", width_multiplier=0.5, resolution=160)
    assert found == tmp_path / "models" / name
    with pytest.raises(UsageError, match=r"no ImageNet weights for width 0\.6 and resolution 224"):
        imagenet_file("mobilenet_v2", width_multiplier=0.6, resolution=224)
    with pytest.raises(UsageError, match="lenet5: Keras has no ImageNet weights for it"):
        imagenet_file("lenet5", width_multiplier=1.0, resolution=32)


def test_without_a_network_it_says_which_file_to_fetch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*arguments: object, **options: object) -> str:
        raise Exception("URL fetch failure on somewhere: None -- no network")

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(keras.utils, "get_file", refuse)
    with pytest.raises(NotThereError) as told:
        imagenet_file("vgg16", width_multiplier=1.0, resolution=224)
    assert "vgg16_weights_tf_dim_ordering_tf_kernels.h5 and put it into" in str(told.value)
    assert str(tmp_path / "models") in str(told.value)


def test_labels_come_from_the_table_that_keras_decodes_by(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    table = tmp_path / "models" / imagenet_weights.CLASS_INDEX
    table.parent.mkdir()
    table.write_text('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}')
    assert imagenet_weights.imagenet_labels() == ("tench", "goldfish")
    table.write_text('{"0": []}')
    with pytest.raises(InputFileError, match="a table of ImageNet classes was wanted"):
        imagenet_weights.imagenet_labels()
