"""Outputs appear whole or not at all."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecnn.errors import OutputError
from edgecnn.outputs import safe_name, staged

BOTH = ("model.xml", "model.bin")


def everything_below(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() if p.is_file() else "/" for p in folder.rglob("*")}


def write_both(folder: Path, text: str, *, force: bool = False) -> None:
    with staged(folder, BOTH, force=force) as scratch:
        for name in BOTH:
            (scratch / name).write_text(text)


def write_one_and_raise(folder: Path, error: BaseException, *, force: bool = False, beside: Path | None = None) -> None:
    with staged(folder, BOTH, force=force) as scratch:
        (scratch / "model.xml").write_text("new")
        if beside is not None:
            beside.write_text("x")
        raise error


def test_all_files_appear_together_when_the_block_ends(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    with staged(out, BOTH, force=False) as scratch:
        for name in BOTH:
            (scratch / name).write_text("new")
        (scratch / "leftover").write_text("x")
        assert not any((out / name).exists() for name in BOTH)
        assert scratch.parent == out, "on the same file system, so that renaming cannot fail half-way"
    assert everything_below(out) == {"model.xml": "new", "model.bin": "new"}


def test_nothing_appears_and_made_folders_go_when_the_block_fails(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError):
        write_one_and_raise(tmp_path / "a/b/c", RuntimeError())
    assert everything_below(tmp_path) == {"a": "/"}


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_one_and_raise(tmp_path / "out", KeyboardInterrupt())
    assert everything_below(tmp_path) == {}


def test_what_other_people_put_into_a_made_folder_stays(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        write_one_and_raise(tmp_path / "out", RuntimeError(), beside=tmp_path / "out" / "theirs")
    assert everything_below(tmp_path) == {"out": "/", "out/theirs": "x"}


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("old")
    with pytest.raises(OutputError) as caught:
        write_both(tmp_path, "new")
    wanted = f"{tmp_path / 'model.bin'} exists already. Use --force to replace it, or another -o."
    assert str(caught.value) == wanted
    assert everything_below(tmp_path) == {"model.bin": "old"}
    write_both(tmp_path, "new", force=True)
    assert everything_below(tmp_path) == {"model.xml": "new", "model.bin": "new"}


def test_a_forced_block_that_fails_keeps_the_old_files(tmp_path: Path) -> None:
    write_both(tmp_path, "old")
    with pytest.raises(RuntimeError):
        write_one_and_raise(tmp_path, RuntimeError(), force=True)
    assert everything_below(tmp_path) == {"model.xml": "old", "model.bin": "old"}


def test_names_that_the_block_did_not_write_are_passed_over(tmp_path: Path) -> None:
    with staged(tmp_path, BOTH, force=False) as scratch:
        (scratch / "model.bin").write_text("new")
    assert everything_below(tmp_path) == {"model.bin": "new"}


def test_a_folder_of_the_outputs_name_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(OutputError) as caught:
        write_both(tmp_path, "new", force=True)
    wanted = f"{tmp_path / 'model.bin'}: a file was to be written; there is a folder of that name. Choose another -o."
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    ("below", "reason"), [("file/inner", "Not a directory"), ("file", "File exists"), ("n" * 300, "File name too long")]
)
def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path, below: str, reason: str) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError) as caught:
        write_both(tmp_path / below, "new")
    assert str(caught.value) == f"{tmp_path / below}: a writable folder was wanted: {reason}. Choose another -o."
    assert everything_below(tmp_path) == {"file": "x"}


@given(name=st.text())
def test_a_safe_name_is_one_visible_part_of_a_path(name: str) -> None:
    safe = safe_name(name)
    assert Path(safe).name == safe
    assert not safe.startswith(".")
    assert safe == safe_name(safe)
