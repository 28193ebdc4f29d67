"""The documentation says what the program does."""

import importlib.util
import runpy
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_command_line_reference_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("make_cli", ROOT / "docs" / "make_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert (ROOT / "docs" / "cli.md").read_text(encoding="utf-8") == module.command_line_reference(), (
        "run: python docs/make_cli.py"
    )


def test_the_table_of_operators_is_what_the_writers_write() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "make_operators.py"))["page"]
    assert (ROOT / "docs" / "operators.md").read_text(encoding="utf-8") == page(), "run: python docs/make_operators.py"
