"""Real images to measure on: a folder, or the photographs that scikit-image or scikit-learn carry."""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from edgecnn.contract import Contract
from edgecnn.errors import MissingError, NotThereError
from edgecnn.extras import require
from edgecnn.graph import Array
from edgecnn.vision.preprocess import SUFFIXES, from_pixels, read_image

Item = TypeVar("Item")

CARRIERS = {
    "skimage": (
        "data",
        (
            "astronaut.png",
            "brick.png",
            "camera.png",
            "cell.png",
            "chelsea.png",
            "coffee.png",
            "coins.png",
            "grass.png",
            "gravel.png",
            "hubble_deep_field.jpg",
            "ihc.png",
            "moon.png",
            "motorcycle_left.png",
            "motorcycle_right.png",
            "page.png",
            "retina.jpg",
            "rocket.jpg",
        ),
    ),
    "sklearn": ("datasets/images", ("china.jpg", "flower.jpg")),
}
"""Package -> (folder inside it, photographs)."""

MINIMUM = 16
"""Fewest images that a parity figure may rest on."""

CROPS_PER_SIDE = 4
"""Where a package has fewer photographs than MINIMUM, each is cut into this many rows and columns."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Real images as a network's input.

    Attributes:
        values: (N, height, width, channels) float32.
        origin: Where they come from, for people.
    """

    values: Array
    origin: str


def load_images(folder: Path | None, contract: Contract, *, limit: int) -> Images:
    """Return real images, preprocessed by contract.

    Args:
        folder: With pictures, searched recursively in name order; None takes an installed package's photographs.
        contract: How to crop, resize and scale.
        limit: At most this many, spread evenly over what there is.

    Raises:
        NotThereError: When the folder is not there or has no picture.
        MissingError: When there is no folder and no package with photographs.
    """
    if folder is not None:
        paths = image_files(folder)
        values = [read_image(path, contract) for path in _spread(paths, limit)]
        return Images(values=np.stack(values), origin=str(folder))
    package, paths = carried_photographs()
    if len(paths) >= MINIMUM:
        values = [read_image(path, contract) for path in _spread(paths, limit)]
        return Images(values=np.stack(values), origin=f"{len(values)} photographs of {package}")
    crops = _spread([crop for path in paths for crop in _crops(path)], limit)
    origin = f"{len(crops)} crops of {len(paths)} photographs of {package}"
    return Images(values=np.stack([from_pixels(crop, contract) for crop in crops]), origin=origin)


def _spread(items: Sequence[Item], limit: int) -> list[Item]:
    """Return at most `limit` items, evenly spread over all of them."""
    return [items[i] for i in np.linspace(0, len(items) - 1, min(limit, len(items))).astype(int)]


def image_files(folder: Path) -> list[Path]:
    """Return the pictures below a folder, in name order."""
    if not folder.is_dir():
        raise NotThereError(f"{folder}: a folder with images was wanted; there is none.")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise NotThereError(f"{folder}: images ({', '.join(sorted(SUFFIXES))}) were wanted; the folder has none.")
    return paths


def carried_photographs() -> tuple[str, list[Path]]:
    """Return (package, photographs) of the first installed package that carries any; the package is not imported."""
    for package, (folder, names) in CARRIERS.items():
        spec = importlib.util.find_spec(package)
        if spec is not None and spec.origin is not None:
            paths = [Path(spec.origin).parent / folder / name for name in names]
            found = [path for path in paths if path.is_file()]
            if found:
                return package, found
    raise MissingError(
        "real images were wanted; there is no --data, and neither scikit-image nor scikit-learn is installed. "
        "Pass --data DIR with 16 or more photographs, or run: python -m pip install scikit-image"
    )


def _crops(path: Path) -> list[Array]:
    image_module = require("PIL.Image", purpose="reading images")
    with image_module.open(path) as opened:
        pixels = np.asarray(opened.convert("RGB"))
    height, width = (size // CROPS_PER_SIDE for size in pixels.shape[:2])
    return [
        pixels[row * height : (row + 1) * height, column * width : (column + 1) * width]
        for row in range(CROPS_PER_SIDE)
        for column in range(CROPS_PER_SIDE)
    ]
