"""Calibration images: how they are streamed, and what is said of ones that will not do."""

import io
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal
from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.graph import Array, Graph
from edgecnn.quantization.calibrate import calibrate
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.image_checks import FEWEST, FLAT_LEVELS
from edgecnn.quantization.lint import Inspection, lint
from edgecnn.quantization.samples import Sample, array_batches, image_batches, random_batches
from edgecnn.vision.preprocess import read_image

CONTRACT = Contract(height=24, width=20, crop_fraction=1.0)
CAFFE = replace(CONTRACT, colour_order="BGR", mean=(104.0, 117.0, 123.0), std=(1.0, 1.0, 1.0))


def scene(seed: int, height: int = 48, width: int = 40) -> Array:
    """A colour picture with coarse and fine detail, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 5, 3), dtype=np.uint8)).resize((width, height))
    return np.asarray(coarse)


def save(pixels: Array, path: Path, quality: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=quality)  # which a PNG takes no notice of
    return path


def folder_of(folder: Path, count: int = 10, first: int = 0) -> Path:
    for number in range(count):
        save(scene(first + number), folder / f"{number:02}.png")
    return folder


def kinds(folder: Path, contract: Contract = CONTRACT, evaluation: Path | None = None) -> dict[str, str]:
    return {flaw.kind: flaw.message for flaw in lint(folder, contract, evaluation)}


def arrays(count: int = 10, contract: Contract = CONTRACT) -> Array:
    """Preprocessed values, as a user would save them."""
    pixels = np.stack([scene(n, contract.height, contract.width) for n in range(count)]).astype(np.float32)
    pixels = pixels[..., ::-1] if contract.colour_order == "BGR" else pixels
    return np.asarray((pixels - np.asarray(contract.mean)) / np.asarray(contract.std), np.float32)


def test_a_folder_is_streamed_in_name_order_evenly_spread(tmp_path: Path) -> None:
    folder_of(tmp_path / "b", 6)
    folder_of(tmp_path / "a", 6, first=6)
    found = image_batches(tmp_path, CONTRACT, port="image", limit=5, batch=2)
    shapes = [batch["image"].shape for batch in found]
    assert shapes == [(2, 24, 20, 3), (2, 24, 20, 3), (1, 24, 20, 3)]
    assert (found.count, found.is_random) == (5, False)
    assert found.origin == f"5 images of {tmp_path}"
    first, *_, last = (image for batch in found for image in batch["image"])  # gone through a second time
    assert_array_equal(first, read_image(tmp_path / "a" / "00.png", CONTRACT))
    assert_array_equal(last, read_image(tmp_path / "b" / "05.png", CONTRACT))


def test_files_that_are_named_are_taken_in_their_order(tmp_path: Path) -> None:
    folder_of(tmp_path, 3)
    files = [tmp_path / "02.png", tmp_path / "00.png"]
    (batch,) = image_batches(files, CONTRACT, port="x")
    assert_array_equal(batch["x"], np.stack([read_image(path, CONTRACT) for path in files]))


@pytest.mark.parametrize("form", ["npy", "npz", "packed npz"])
@pytest.mark.parametrize("is_first", [False, True])
def test_arrays_are_values_that_are_preprocessed_already(form: str, is_first: bool, tmp_path: Path) -> None:
    values = arrays(7)
    stored = values.transpose(0, 3, 1, 2) if is_first else values
    path = tmp_path / f"values.{form[-3:]}"
    {"npy": np.save, "npz": np.savez, "packed npz": np.savez_compressed}[form](path, np.ascontiguousarray(stored))
    found = image_batches(tmp_path, CONTRACT, port="x", limit=3)
    (batch,) = found
    assert_array_equal(batch["x"], values[[0, 3, 6]])
    assert batch["x"].dtype == np.float32


def test_an_array_may_be_one_grey_picture_without_channels(tmp_path: Path) -> None:
    grey = Contract(height=4, width=6, colour_order="GRAY", mean=(0.0,), std=(1.0,))
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    np.save(tmp_path / "one.npy", values)
    (batch,) = image_batches(tmp_path, grey, port="x")
    assert_array_equal(batch["x"][0, :, :, 0], values)


def header(text: str) -> bytes:
    body = text.encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(body).to_bytes(2, "little") + body


def members(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


SHAPE = "(9, 24, 20, 3)"
HOSTILE = {
    "empty.npy": b"",
    "no_magic.npy": b"hello, world; this is no array",
    "cut.npy": header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}}}") + bytes(5000),
    "objects.npy": header(f"{{'descr': '|O', 'fortran_order': False, 'shape': {SHAPE}}}") + bytes(99999),
    "fortran.npy": header(f"{{'descr': '<f4', 'fortran_order': True, 'shape': {SHAPE}}}") + bytes(99999),
    "code.npy": header("__import__('os').getcwd()"),
    "endless.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 24, 20, 3)}"),
    "other_size.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (2, 5, 5, 3)}") + bytes(600),
    "scalar.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': ()}") + bytes(4),
    "no_zip.npz": b"PK\x03\x04 and then nothing that a zip file has",
    "cut.npz": members("x.npy", header(f"{{'descr': '<f4', 'fortran_order': False, 'shape': {SHAPE}}}") + b"12345"),
    "nan.npy": header("{'descr': '<f4', 'fortran_order': False, 'shape': (1, 24, 20, 3)}")
    + np.full((24, 20, 3), np.nan, np.float32).tobytes(),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_array_ends_in_an_error_that_names_it(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name])
    with pytest.raises(InputFileError, match=name):
        list(image_batches(tmp_path, CONTRACT, port="x"))


def test_no_images_is_not_there(tmp_path: Path) -> None:
    for source in (tmp_path, tmp_path / "nowhere", [], [tmp_path / "notes.txt"]):
        with pytest.raises(NotThereError):
            image_batches(source, CONTRACT, port="x")
    np.save(tmp_path / "none.npy", np.zeros((0, 24, 20, 3), np.float32))
    with pytest.raises(NotThereError):
        image_batches(tmp_path, CONTRACT, port="x")
    with pytest.raises(UsageError):
        image_batches(tmp_path, CONTRACT, port="x", limit=0)


def two_inputs() -> Graph:
    b = GraphBuilder("two", initialise=he_normal(0))
    one, two = b.input("one", (1, 5)), b.input("two", (1, 5))
    return b.finish({"y": b.node("sum", ops.Add(), one, two)})


def test_inputs_that_are_no_pictures_take_an_array_each(tmp_path: Path) -> None:
    one, two = np.random.default_rng(0).standard_normal((2, 9, 5))
    np.savez(tmp_path / "values.npz", one=one, two=two)
    found = array_batches(tmp_path / "values.npz", two_inputs(), batch=4)
    assert [len(batch["one"]) for batch in found] == [4, 4, 1]
    statistics = calibrate(two_inputs(), found, origin=found.origin).statistics["sum"]
    assert statistics.high == pytest.approx((one + two).max())
    np.savez(tmp_path / "other.npz", one=one, two=two[:3])
    with pytest.raises(InputFileError, match=r"an array 'one' \(N, 5\), N the same for all, was wanted; got \(9, 5\)"):
        array_batches(tmp_path / "other.npz", two_inputs())


def test_random_inputs_are_asked_for_and_say_so() -> None:
    graph = two_inputs()
    found = random_batches(graph, 10, seed=3)
    again, other = random_batches(graph, 10, seed=3), random_batches(graph, 10, seed=4)
    assert found.is_random
    assert found.origin == "10 random inputs, seed 3"
    assert [batch["one"].shape for batch in found] == [(8, 5), (2, 5)]
    assert_array_equal(next(iter(found))["two"], next(iter(again))["two"])
    assert (next(iter(found))["two"] != next(iter(other))["two"]).any()
    assert (next(iter(found))["one"] != next(iter(found))["two"]).any()


def test_random_pictures_lie_in_the_contracts_range() -> None:
    b = GraphBuilder("picture", initialise=he_normal(0))
    graph = b.finish({"y": b.node("y", ops.ReLU(), b.input("x", (1, 24, 20, 3)))}, contract=CONTRACT)
    values = next(iter(random_batches(graph, 8, seed=0)))["x"]
    assert (values.min(), values.max()) == CONTRACT.input_range


def test_good_images_are_passed(tmp_path: Path) -> None:
    assert kinds(folder_of(tmp_path / "a"), evaluation=folder_of(tmp_path / "b", first=100)) == {}
    np.save(tmp_path / "values.npy", arrays(12))
    assert kinds(tmp_path / "values.npy") == {}


def test_few_images_are_a_warning(tmp_path: Path) -> None:
    (flaw,) = lint(folder_of(tmp_path, FEWEST - 1), CONTRACT)
    assert (flaw.kind, flaw.severity) == ("few_images", "warning")
    assert flaw.message == "8 or more calibration images were wanted, better 100; got 7."


def test_copies_are_found_exact_and_near(tmp_path: Path) -> None:
    folder_of(tmp_path)
    save(scene(3), tmp_path / "again.png")
    save(scene(4), tmp_path / "compressed.jpg", quality=60)
    darker = (scene(5) * 0.8).astype(np.uint8)
    save(darker, tmp_path / "darker.png")
    found = {flaw.kind: flaw for flaw in lint(tmp_path, CONTRACT)}
    assert found["duplicates"].files == ("03.png = again.png",)
    assert found["duplicates"].figures == {"count": 1, "of": 13}
    assert set(found["near_duplicates"].files) == {"04.png ~ compressed.jpg", "05.png ~ darker.png"}
    assert found.keys() == {"duplicates", "near_duplicates"}


def test_frames_of_a_video_are_counted_once_each(tmp_path: Path) -> None:
    folder_of(tmp_path)
    for number in range(6):
        save((scene(0) * (0.9 - 0.01 * number)).astype(np.uint8), tmp_path / f"frame{number}.png")
    found = {flaw.kind: flaw.figures["count"] for flaw in lint(tmp_path, CONTRACT)}
    assert found == {"near_duplicates": 6}


def test_images_without_content_are_named(tmp_path: Path) -> None:
    folder_of(tmp_path)
    save(np.full((48, 40, 3), 7, np.uint8), tmp_path / "dark.png")
    noise = np.random.default_rng(0).normal(128, FLAT_LEVELS / 2, (48, 40, 1)).repeat(3, axis=2).astype(np.uint8)
    save(noise, tmp_path / "fog.png")
    (flaw,) = lint(tmp_path, CONTRACT)
    assert flaw.files == ("dark.png", "fog.png")
    assert flaw.message.startswith("2 of 12 images are the same almost everywhere: dark.png, fog.png.")


def test_grey_pictures_do_for_a_grey_network_only(tmp_path: Path) -> None:
    for number in range(10):
        save(scene(number)[:, :, 0], tmp_path / f"{number}.png")
    assert kinds(tmp_path).keys() == {"grey"}
    assert kinds(tmp_path, replace(CONTRACT, colour_order="GRAY", mean=(0.0,), std=(255.0,))) == {}
    folder_of(tmp_path / "colour", 40)
    assert kinds(tmp_path) == {}, "a few among photographs are normal"


WRONG_RANGES: dict[str, tuple[Contract, Callable[[Array], Array], str]] = {
    "0..1 for -1..1": (CONTRACT, lambda x: (x + 1) / 2, "error"),
    "0..255 for -1..1": (CONTRACT, lambda x: (x + 1) * 127.5, "error"),
    "0..1 for 0..255": (replace(CONTRACT, mean=(0.0,) * 3, std=(1.0,) * 3), lambda x: x / 255, "error"),
    "0..1 for ImageNet's mean and deviation": (
        replace(CONTRACT, mean=(123.7, 116.3, 103.5), std=(58.4, 57.1, 57.4)),
        lambda x: np.clip((x * (58.4, 57.1, 57.4) + (123.7, 116.3, 103.5)) / 255, 0, 1),
        "error",
    ),
    "hardly any contrast": (CONTRACT, lambda x: x / 10, "warning"),
}


@pytest.mark.parametrize("case", WRONG_RANGES)
def test_values_that_contradict_the_contract_are_said(case: str, tmp_path: Path) -> None:
    contract, wrong, severity = WRONG_RANGES[case]
    np.save(tmp_path / "x.npy", wrong(arrays(12, contract)))
    (flaw,) = lint(tmp_path, contract)
    assert (flaw.kind, flaw.severity) == ("range", severity)
    wanted = case.partition(" for ")[0]
    assert (f"They look like {wanted}." in flaw.message) == (severity == "error")
    np.save(tmp_path / "x.npy", arrays(12, contract))
    assert lint(tmp_path, contract) == ()


def test_swapped_channels_are_seen_where_the_contract_states_means(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    tint = rng.normal((123, 117, 104), 8, (20, 1, 1, 3))  # RGB
    pixels = np.stack([scene(n, 24, 20) for n in range(20)]).astype(np.float32)
    pixels = pixels - pixels.mean(axis=(1, 2), keepdims=True) + tint
    bgr = pixels[..., ::-1] - np.asarray(CAFFE.mean)
    np.save(tmp_path / "x.npy", bgr.clip(-104, 131))
    assert lint(tmp_path, CAFFE) == ()
    rgb = pixels - np.asarray(CAFFE.mean)
    np.save(tmp_path / "x.npy", rgb.clip(-104, 131))
    (flaw,) = lint(tmp_path, CAFFE)
    assert (flaw.kind, flaw.severity) == ("channel_order", "warning")
    same = replace(CAFFE, mean=(127.5,) * 3)  # says nothing about the order
    assert "channel_order" not in kinds(tmp_path, same)


def test_images_of_the_evaluation_are_found_whatever_they_are_called(tmp_path: Path) -> None:
    folder_of(tmp_path / "a")
    folder_of(tmp_path / "b", first=50)
    save(scene(2), tmp_path / "b" / "same.png")
    save(scene(3), tmp_path / "b" / "class" / "smaller.jpg", quality=70)
    (flaw,) = lint(tmp_path / "a", CONTRACT, tmp_path / "b")
    assert flaw.kind == "overlap"
    assert flaw.files == ("03.png = smaller.jpg", "02.png = same.png")
    assert f"2 of 12 images of {tmp_path / 'b'} are among the calibration images" in flaw.message


def test_a_class_without_images_is_named_once_there_is_room_for_all(tmp_path: Path) -> None:
    labels = replace(CONTRACT, labels=("cat", "dog", "emu", "fox"))
    for name, first in (("cat", 0), ("dog", 10), ("fox", 20)):
        folder_of(tmp_path / name, 4, first)
    (flaw,) = lint(tmp_path, labels)
    assert (flaw.kind, flaw.files) == ("missing_classes", ("emu",))
    many = replace(CONTRACT, labels=(*labels.labels, *map(str, range(20))))
    assert lint(tmp_path, many) == (), "12 images cannot cover 24 classes"
    assert lint(tmp_path, replace(CONTRACT, labels=("x", "y"))) == (), "folders that are no classes"


def calibration(convergence: dict[int, float], images: int) -> Calibration:
    return Calibration(
        statistics={},
        images=images,
        origin="",
        is_random=False,
        backend="",
        observer="min_max",
        convergence=convergence,
    )


def test_ranges_that_still_grow_ask_for_more_images(tmp_path: Path) -> None:
    inspection = Inspection(CONTRACT)
    for number in range(FEWEST):
        inspection.add(Sample(path=Path(f"{number}.png")), scene(number, 24, 20) / 127.5 - 1)
    settled = calibration({1: 0.9, 6: 0.01, 8: 0.0}, 8)
    growing = calibration({1: 0.9, 6: 0.3, 8: 0.0}, 8)
    assert inspection.flaws(calibration=settled) == ()
    (flaw,) = inspection.flaws(calibration=growing)
    assert flaw.message == (
        "ranges that have settled were wanted; the last quarter of 8 images brought 30% of a tensor's range. "
        "Calibrate on more images."
    )


def test_images_are_looked_at_on_their_way_to_calibration(tmp_path: Path) -> None:
    folder_of(tmp_path)
    save(scene(3), tmp_path / "again.png")
    inspection = Inspection(CONTRACT)
    batches = image_batches(tmp_path, CONTRACT, port="x", watch=inspection.add)
    for _ in range(2):  # gone through twice, each image is looked at once
        assert sum(len(batch["x"]) for batch in batches) == 11
    assert inspection.flaws() == lint(tmp_path, CONTRACT) != ()
