"""Outputs appear whole or not at all: written aside, then renamed; nothing is overwritten without `force`."""

import os.path
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from edgecnn.errors import EdgeCNNError, OutputError


@contextmanager
def staged(folder: Path, names: Sequence[str], *, force: bool) -> Iterator[Path]:
    """Yield a scratch folder; the named files that are in it when the block ends well move to `folder` together.

    When the block raises, the scratch folder goes, and so do the folders that were made for it.

    Args:
        folder: Where the outputs belong; made when it is not there.
        names: Plain file names.
        force: Whether existing files may be replaced.

    Raises:
        OutputError: Before the block, when a name exists already (without force) or the folder cannot be written; after
            it, when the disk is full or the like.
    """
    refuse_existing([folder / name for name in names], force=force)
    made = _missing_parents(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=".edgecnn-", dir=folder))
    except OSError as error:
        _remove_empty(made)
        raise OutputError(f"{folder}: a writable folder was wanted: {error.strerror}. Choose another -o.") from None
    try:
        yield scratch
        for name in names:
            if (scratch / name).exists():
                (scratch / name).replace(folder / name)
    except BaseException as error:
        shutil.rmtree(scratch, ignore_errors=True)
        _remove_empty(made)
        if isinstance(error, OSError) and not isinstance(error, EdgeCNNError):
            raise OutputError(f"{folder}: the outputs could not be written: {error}") from error
        raise
    shutil.rmtree(scratch)


def refuse_existing(paths: Sequence[Path], *, force: bool) -> None:
    """Raise OutputError when a file exists already (without force), or a folder stands in a file's place."""
    existing = [path for path in paths if os.path.exists(path)]
    if existing and not force:
        raise OutputError(f"{existing[0]} exists already. Use --force to replace it, or another -o.")
    folders = [path for path in existing if path.is_dir()]
    if folders:
        raise OutputError(f"{folders[0]}: a file was to be written; there is a folder of that name. Choose another -o.")


def safe_name(name: str) -> str:
    """Return a plain file name for a name that may come from a file: no separators, no leading dot.

    >>> safe_name("../my net")
    'my_net'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip("._") or "model"


def _missing_parents(folder: Path) -> list[Path]:
    return [path for path in (folder, *folder.parents) if not os.path.exists(path)]


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        if os.path.isdir(folder) and not any(folder.iterdir()):
            folder.rmdir()
