"""From image files to a network's input."""

import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from edgecnn.contract import Contract
from edgecnn.errors import InputFileError, MissingError, NotThereError
from edgecnn.graph import Array
from edgecnn.vision.photographs import CARRIERS, MINIMUM, carried_photographs, image_files, load_images
from edgecnn.vision.preprocess import crop_box, from_pixels, read_image

SMALL = Contract(height=8, width=8)
sizes = st.integers(1, 3000)


def picture(folder: Path, name: str, pixels: Array) -> Path:
    Image.fromarray(pixels).save(folder / name)
    return folder / name


def coloured(height: int, width: int, colour: tuple[int, int, int]) -> Array:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)).copy()


@given(width=sizes, height=sizes, wide=st.integers(1, 640), high=st.integers(1, 640), fraction=st.floats(0.05, 1))
def test_the_crop_is_centred_inside_and_has_the_outputs_aspect_ratio(
    width: int, height: int, wide: int, high: int, fraction: float
) -> None:
    contract = Contract(height=high, width=wide, crop_fraction=fraction)
    left, top, right, bottom = crop_box((width, height), contract)
    assert 0 <= left < right <= width, "Pillow refuses a box that leaves the image by a rounding error"
    assert 0 <= top < bottom <= height
    assert left == pytest.approx(width - right, abs=1e-6)
    assert top == pytest.approx(height - bottom, abs=1e-6)
    assert (right - left) / (bottom - top) == pytest.approx(wide / high)
    assert max((right - left) / width, (bottom - top) / height) == pytest.approx(fraction)


def test_stretching_keeps_the_whole_image() -> None:
    assert crop_box((320, 240), Contract(height=8, width=8, resize="stretch")) == (0, 0, 320, 240)


def test_a_size_whose_crop_rounds_below_zero_can_be_read(tmp_path: Path) -> None:
    contract = Contract(height=224, width=224, crop_fraction=1.0)
    path = picture(tmp_path, "x.png", coloured(266, 253, (255, 0, 0)))
    assert read_image(path, contract).shape == (224, 224, 3)


def test_pixels_become_p_minus_mean_over_std_in_each_channel(tmp_path: Path) -> None:
    contract = Contract(height=4, width=6, mean=(10, 20, 30), std=(1, 2, 4))
    values = read_image(picture(tmp_path, "x.png", coloured(20, 30, (110, 120, 130))), contract)
    assert (values.shape, str(values.dtype)) == ((4, 6, 3), "float32")
    assert_allclose(values[2, 3], [100, 50, 25])


def test_bgr_turns_the_channels_and_mean_and_std_stay_in_contract_order(tmp_path: Path) -> None:
    path = picture(tmp_path, "x.png", coloured(9, 9, (110, 120, 130)))
    contract = Contract(height=8, width=8, colour_order="BGR", mean=(30, 20, 10), std=(4, 2, 1))
    assert_allclose(read_image(path, contract)[0, 0], [25, 50, 100])


def test_grey_takes_the_luma_and_one_channel(tmp_path: Path) -> None:
    contract = Contract(height=8, width=8, colour_order="GRAY", mean=(0,), std=(1,))
    values = read_image(picture(tmp_path, "x.png", coloured(9, 9, (200, 100, 50))), contract)
    assert values.shape == (8, 8, 1)
    assert values[3, 3, 0] == pytest.approx(0.299 * 200 + 0.587 * 100 + 0.114 * 50, abs=1)


def test_a_grey_picture_fills_three_channels_and_transparency_is_dropped(tmp_path: Path) -> None:
    grey = read_image(picture(tmp_path, "grey.png", np.full((9, 9), 255, np.uint8)), SMALL)
    assert_array_equal(grey, np.ones((8, 8, 3)))
    rgba = read_image(picture(tmp_path, "rgba.png", np.full((9, 9, 4), (255, 0, 255, 0), np.uint8)), SMALL)
    assert_array_equal(rgba[0, 0], [1, -1, 1])


def test_the_middle_is_what_is_kept(tmp_path: Path) -> None:
    pixels = coloured(100, 200, (0, 0, 0))
    pixels[:, 50:150] = 255
    path = picture(tmp_path, "x.png", pixels)
    assert read_image(path, Contract(height=8, width=8, crop_fraction=0.9)).min() == 1
    assert read_image(path, Contract(height=8, width=8, resize="stretch")).min() == -1


def test_pixels_in_memory_are_treated_like_a_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    assert_array_equal(from_pixels(pixels, SMALL), read_image(picture(tmp_path, "x.png", pixels), SMALL))


def jpeg() -> bytes:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "cannot identify image file"),
        (b"no picture", "cannot identify image file"),
        (jpeg()[:400], "Truncated File Read"),
        (jpeg()[:2000], "truncated"),
    ],
    ids=["empty", "text", "header", "half"],
)
def test_what_is_no_picture_is_refused_with_its_path(tmp_path: Path, data: bytes, words: str) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(data)
    with pytest.raises(InputFileError, match=f"an image was wanted; Pillow cannot read it: .*({words})") as caught:
        read_image(path, SMALL)
    assert str(caught.value).startswith(f"{path}: ")


def test_a_picture_of_unreasonable_size_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = picture(tmp_path, "x.png", coloured(30, 30, (0, 0, 0)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 400)
    with pytest.raises(InputFileError, match="decompression bomb"):
        read_image(path, SMALL)


def test_a_missing_picture_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThereError) as caught:
        read_image(tmp_path / "x.png", SMALL)
    assert str(caught.value) == f"{tmp_path / 'x.png'}: an image was wanted; there is no such file."


def test_a_folder_is_searched_below_in_name_order_and_spread_evenly(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for index in range(9):
        picture(tmp_path / "inner", f"{index}.png", coloured(9, 9, (index, 0, 0)))
    (tmp_path / "notes.txt").write_text("no picture")
    assert [path.name for path in image_files(tmp_path)] == [f"{index}.png" for index in range(9)]
    images = load_images(tmp_path, Contract(height=8, width=8, mean=(0,) * 3, std=(1,) * 3), limit=3)
    assert (images.origin, images.values.shape) == (str(tmp_path), (3, 8, 8, 3))
    assert_array_equal(images.values[:, 0, 0, 0], [0, 4, 8])
    assert len(load_images(tmp_path, SMALL, limit=99).values) == 9


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NotThereError) as caught:
        load_images(tmp_path / "gone", SMALL, limit=1)
    assert str(caught.value) == f"{tmp_path / 'gone'}: a folder with images was wanted; there is none."
    with pytest.raises(NotThereError) as caught:
        load_images(tmp_path, SMALL, limit=1)
    wanted = f"{tmp_path}: images (.bmp, .jpeg, .jpg, .png, .webp) were wanted; the folder has none."
    assert str(caught.value) == wanted


def hide_packages(monkeypatch: pytest.MonkeyPatch, *hidden: str) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name in hidden else find(name, *rest))


def test_scikit_image_carries_enough_different_photographs() -> None:
    package, paths = carried_photographs()
    assert (package, len(paths) >= MINIMUM) == ("skimage", True)
    images = load_images(None, SMALL, limit=MINIMUM)
    assert images.origin == "16 photographs of skimage"
    assert len({image.tobytes() for image in images.values}) == MINIMUM


def test_with_scikit_learn_alone_two_photographs_are_cut_into_enough_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_packages(monkeypatch, "skimage")
    images = load_images(None, SMALL, limit=MINIMUM)
    assert images.origin == "16 crops of 2 photographs of sklearn"
    assert images.values.shape == (MINIMUM, 8, 8, 3)
    assert len({image.tobytes() for image in images.values}) == MINIMUM
    every = load_images(None, SMALL, limit=99).values
    assert len(every) == 32
    assert_array_equal(images.values[[0, -1]], every[[0, -1]])


def test_without_any_photographs_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    hide_packages(monkeypatch, *CARRIERS)
    with pytest.raises(MissingError) as caught:
        load_images(None, SMALL, limit=MINIMUM)
    assert str(caught.value) == (
        "real images were wanted; there is no --data, and neither scikit-image nor scikit-learn is installed. "
        "Pass --data DIR with 16 or more photographs, or run: python -m pip install scikit-image"
    )


def test_a_palette_picture_reads_as_its_colours(tmp_path: Path) -> None:
    image: Any = Image.fromarray(coloured(9, 9, (0, 255, 0))).quantize(4)
    image.save(tmp_path / "x.png")
    assert_array_equal(read_image(tmp_path / "x.png", SMALL)[4, 4], [-1, 1, -1])


def test_a_photograph_that_a_camera_turned_is_set_upright(tmp_path: Path) -> None:
    pixels = coloured(8, 8, (0, 0, 0))
    pixels[:, :4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held so that the stored left edge is the top
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    contract = Contract(height=8, width=8, crop_fraction=1.0)
    found = read_image(tmp_path / "turned.png", contract)
    assert found[0].min() == 1
    assert found[-1].max() == -1
