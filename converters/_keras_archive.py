"""The container of a .keras file: members of a zip archive, read within bounds.

The file is untrusted. A member is read by its exact name, never extracted, and only after the size that it states is
found reasonable. Source: Keras 3, keras/src/saving/saving_lib.py: `config.json`, `metadata.json`, `model.weights.h5`.
"""

import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

from edgecnn.errors import InputFileError

CONFIG, METADATA, WEIGHTS, CONTRACT = "config.json", "metadata.json", "model.weights.h5", "edgecnn.json"
LIMITS = {CONFIG: 16 << 20, METADATA: 1 << 20, WEIGHTS: 4 << 30, CONTRACT: 1 << 20}
"""Member -> the most bytes that it may have. A network of a thousand layers has a configuration of about 1 MB."""

EXPANSION = 100
EXPANSION_FREE = 64 << 20
"""A compressed member may be this many times its stored size, and that only counts beyond so many bytes (Keras stores
its members uncompressed; trained weights hardly compress)."""

ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    NotImplementedError,
    OverflowError,
    UnicodeDecodeError,
)
"""What zipfile raises on damaged archives."""


def read_member(path: Path, name: str) -> bytes | None:
    """Return a member's bytes, checksum verified, or None where the archive has no such member.

    Raises:
        InputFileError: When the file is no zip archive, or the member is damaged, encrypted or larger than its limit.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            info = archive.NameToInfo.get(name)
            if info is None:
                return None
            _check_size(path, info)
            return archive.read(info)
    except ZIP_ERRORS as error:
        reason = getattr(error, "strerror", None) or error
        raise InputFileError(f"{path}: a .keras file (a zip archive) was wanted; it is damaged: {reason}") from None


def _check_size(path: Path, info: zipfile.ZipInfo) -> None:
    limit = LIMITS[info.filename]
    if info.file_size > limit:
        raise InputFileError(f"{path}: {info.filename} of at most {limit} bytes was wanted; found {info.file_size}")
    if info.file_size > max(EXPANSION_FREE, EXPANSION * info.compress_size):
        raise InputFileError(
            f"{path}: {info.filename} would grow from {info.compress_size} to {info.file_size} bytes; "
            f"at most {EXPANSION} times was wanted. Save the model again with Keras."
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputFileError(
            f"{path}: {info.filename} stored or deflated was wanted; found method {info.compress_type}. "
            "Save the model again with Keras."
        )
    if info.flag_bits & 1:
        raise InputFileError(
            f"{path}: {info.filename} is encrypted; a plain archive was wanted. Save it without a password."
        )


def read_config(path: Path) -> Mapping[str, object]:
    """Return the network's configuration, a JSON object."""
    text = read_member(path, CONFIG)
    if text is None:
        raise InputFileError(f"{path}: the member {CONFIG} was wanted; there is none. Save the model with Keras 3.")
    return parse_object(f"{path}: {CONFIG}", text)


def parse_object(where: str, text: bytes | str) -> Mapping[str, object]:
    """Return a JSON object from its text."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputFileError(f"{where}: JSON was wanted; it cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise InputFileError(f"{where}: a JSON object was wanted; found {type(config).__name__}")
    return config


def read_version(path: Path) -> str:
    """Return the version of Keras that saved an archive, or "3" where it does not say."""
    text = read_member(path, METADATA)
    version = None if text is None else parse_object(f"{path}: {METADATA}", text).get("keras_version")
    return version if isinstance(version, str) else "3"


def group_name(class_name: str) -> str:
    """Return the HDF5 group of a layer class, before numbering.

    Source: Keras 3, keras/src/utils/naming.py, to_snake_case.

    >>> group_name("DepthwiseConv2D")
    'depthwise_conv2d'
    """
    name = re.sub(r"\W+", "", class_name)
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def append_contract(path: Path, text: str) -> None:
    """Add the contract to a .keras file that Keras has written; Keras passes by members that it does not know."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONTRACT, text)
