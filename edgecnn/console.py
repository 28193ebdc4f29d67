"""What people and programs see: tables and JSON on stdout, progress and messages on stderr."""

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

SCHEMA_VERSION = 1
WIDTH = 1000
"""Width of tables where stdout is no terminal: one row is one line, for grep and cut."""


def emit(data: dict[str, Any], show: Callable[[Console], None], *, as_json: bool) -> None:
    """Print a command's result: JSON with its schema_version for programs, or what `show` draws for people."""
    if as_json:
        click.echo(json.dumps({"schema_version": SCHEMA_VERSION, **_finite(data)}, indent=2, allow_nan=False))
        return
    show(Console(width=None if sys.stdout.isatty() else WIDTH, highlight=False, markup=False))


def _finite(data: Any) -> Any:
    """Return data for JSON, which has no infinity: the SNR of equal outputs becomes null."""
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


def message(text: str) -> None:
    """Print a message for people to stderr."""
    click.echo(text, err=True)


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table; columns whose name starts with "<" are text and stand left, the others stand right."""
    drawn = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False, min_width=len(title)
    )
    for column in columns:
        left = column.startswith("<")
        drawn.add_column(column.lstrip("<"), justify="left" if left else "right", overflow="fold")
    for row in rows:
        drawn.add_row(*(str(cell) for cell in row))
    return drawn


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    """Show a bar on stderr while the block runs; the yielded function advances it by one."""
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"))
    is_hidden = not sys.stderr.isatty()
    with Progress(
        *columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True, disable=is_hidden
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def show_count(number: float | None) -> str:
    """Return a count with thousands separators, or "unknown".

    >>> show_count(300774272)
    '300,774,272'
    """
    return "unknown" if number is None else f"{number:,}"


def show_bytes(size: int) -> str:
    """Return a size in GB (10^9 bytes), MB or kB, whichever suits it.

    >>> show_bytes(13_990_000)
    '13.99 MB'
    """
    for unit, bytes_of_it in (("GB", 1e9), ("MB", 1e6)):
        if size >= bytes_of_it / 10:
            return f"{size / bytes_of_it:.2f} {unit}"
    return f"{size / 1e3:.1f} kB"


def show_ms(seconds: float | None) -> str:
    """Return seconds as milliseconds, or "unknown".

    >>> show_ms(0.0012345)
    '1.234'
    """
    return "unknown" if seconds is None else f"{seconds * 1e3:.3f}"
