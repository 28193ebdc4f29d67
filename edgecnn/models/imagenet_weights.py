"""Where Keras keeps the ImageNet weights of each family, and getting them through Keras' own download.

Nothing is downloaded unless somebody asks for `--weights imagenet`; a file that Keras has fetched before is taken from
its cache without importing Keras. Source of names and addresses: Keras 3, keras/src/applications/*.py.
"""

import contextlib
import json
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from edgecnn.errors import InputFileError, NotThereError, UsageError
from edgecnn.extras import require

STORE = "https://storage.googleapis.com/"
APPLICATIONS = f"{STORE}tensorflow/keras-applications/"
IMAGENET_CLASSES = 1000
CLASS_INDEX = "imagenet_class_index.json"
CLASS_INDEX_FOLDER = f"{STORE}download.tensorflow.org/data/"

ALPHAS = {0.25: "2_5", 0.5: "5_0", 0.75: "7_5", 1.0: "1_0"}
"""Width multiplier -> how MobileNet v1's file names write it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Published:
    """Where one family's weights lie.

    Attributes:
        folder: Address, with a slash behind it.
        file: (width multiplier, resolution) -> file name, or None where Keras has none of that size.
    """

    folder: str
    file: Callable[[float, int], str | None]


def _fixed(name: str) -> Callable[[float, int], str | None]:
    return lambda width, resolution: name if width == 1.0 else None


def _mobilenet_v1(width: float, resolution: int) -> str | None:
    known = width in ALPHAS and resolution in (128, 160, 192, 224)
    return f"mobilenet_{ALPHAS[width]}_{resolution}_tf.h5" if known else None


def _mobilenet_v2(width: float, resolution: int) -> str | None:
    known = width in (0.35, 0.5, 0.75, 1.0, 1.3, 1.4) and resolution in (96, 128, 160, 192, 224)
    return f"mobilenet_v2_weights_tf_dim_ordering_tf_kernels_{float(width)}_{resolution}.h5" if known else None


def _mobilenet_v3(kind: str, widths: tuple[float, ...]) -> Callable[[float, int], str | None]:
    return lambda width, resolution: (
        f"weights_mobilenet_v3_{kind}_224_{float(width)}_float.h5" if width in widths else None
    )


PUBLISHED: dict[str, Published] = {
    "mobilenet_v1": Published(folder=f"{APPLICATIONS}mobilenet/", file=_mobilenet_v1),
    "mobilenet_v2": Published(folder=f"{APPLICATIONS}mobilenet_v2/", file=_mobilenet_v2),
    "resnet50": Published(
        folder=f"{APPLICATIONS}resnet/", file=_fixed("resnet50_weights_tf_dim_ordering_tf_kernels.h5")
    ),
    "vgg16": Published(folder=f"{APPLICATIONS}vgg16/", file=_fixed("vgg16_weights_tf_dim_ordering_tf_kernels.h5")),
    **{
        f"mobilenet_v3_{kind}": Published(
            folder=f"{APPLICATIONS}mobilenet_v3/",
            file=_mobilenet_v3(kind, (1.0,) if kind.endswith("minimalistic") else (0.75, 1.0)),
        )
        for kind in ("large", "small", "large_minimalistic", "small_minimalistic")
    },
    **{
        f"efficientnet_b{size}": Published(folder=f"{STORE}keras-applications/", file=_fixed(f"efficientnetb{size}.h5"))
        for size in range(8)
    },
}
"""Registered name -> where Keras Applications has its ImageNet weights."""


def imagenet_file(name: str, *, width_multiplier: float, resolution: int) -> Path:
    """Return the weight file of a network trained on ImageNet, fetched by Keras where it is not in its cache.

    Args:
        name: Registered name.
        width_multiplier: Of the network.
        resolution: Of its input; files of families with weights for one resolution serve every other.

    Raises:
        UsageError: When Keras publishes none for this network and size.
        NotThereError: When it cannot be fetched, saying which file to fetch.
    """
    published = PUBLISHED.get(name)
    if published is None:
        raise UsageError(
            f"{name}: Keras has no ImageNet weights for it; it has them for {', '.join(sorted(PUBLISHED))}"
        )
    file = published.file(width_multiplier, resolution)
    if file is None:
        raise UsageError(
            f"{name}: Keras has no ImageNet weights for width {width_multiplier:g} and resolution {resolution}"
        )
    return fetched(published.folder, file)


def imagenet_labels() -> tuple[str, ...]:
    """Return the 1,000 class names in output order, from the file that Keras decodes predictions by.

    Raises:
        NotThereError: When it cannot be fetched.
        InputFileError: When it is not what it should be.
    """
    path = fetched(CLASS_INDEX_FOLDER, CLASS_INDEX)
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        return tuple(str(index[str(number)][1]) for number in range(len(index)))
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise InputFileError(f"{path}: a table of ImageNet classes was wanted; it cannot be read: {error}") from None


def fetched(folder: str, file: str) -> Path:
    """Return a file from Keras' cache, fetched by Keras where it is not there yet."""
    cache = Path(os.environ.get("KERAS_HOME", Path.home() / ".keras")) / "models"
    if (cache / file).is_file():
        return cache / file
    remedy = f"Fetch {folder}{file} and put it into {cache}, or pass it with --weights FILE."
    keras_utils = require("keras.utils", purpose="fetching ImageNet weights")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # Keras announces downloads on stdout
            return Path(keras_utils.get_file(file, folder + file, cache_subdir="models"))
    except Exception as error:  # noqa: BLE001 - Keras raises a bare Exception when a download fails
        raise NotThereError(f"{file}: Keras could not fetch it: {str(error).splitlines()[0]} {remedy}") from None
