"""Find models, formats and targets by name, as strings until asked for.

Built-in entries are the BUILTIN table of each room's `__init__.py`; entry points of the group "edgecnn.<room>" add
other people's. Nothing is imported before somebody asks for the object itself.
"""

import importlib
from collections.abc import Iterator
from functools import cache
from typing import Any

from edgecnn.errors import EdgeCNNError, UnknownNameError

KINDS = {"models": "model", "converters": "format", "targets": "target"}
"""Room -> what one of its entries is called."""


def builtin(room: str) -> dict[str, str]:
    """Return name -> "module:object" of a room's own entries ("models", "converters", "targets")."""
    try:
        found: dict[str, str] = importlib.import_module(f"edgecnn.{room}").BUILTIN
    except ModuleNotFoundError as error:
        if error.name != f"edgecnn.{room}":
            raise
        raise EdgeCNNError(
            f"edgecnn.{room} is not there: this checkout was never installed. Run: python -m pip install -e ."
        ) from None
    return found


@cache
def entries(room: str) -> dict[str, str]:
    """Return name -> "module:object" of a room, other people's included; looking those up takes a while."""
    from importlib.metadata import entry_points  # slow to import, and seldom needed

    return {**{point.name: point.value for point in entry_points(group=f"edgecnn.{room}")}, **builtin(room)}


def names(room: str) -> Iterator[str]:
    """Yield the names of a room, its own first: whoever finds what is wanted there never looks up other people's."""
    own = builtin(room)
    yield from own
    yield from (name for name in entries(room) if name not in own)


def load(room: str, name: str) -> Any:
    """Return the object behind a name.

    Raises:
        UnknownNameError: With the nearest name, when there is none.
    """
    known = builtin(room)
    if name not in known:
        known = entries(room)
    if name not in known:
        raise UnknownNameError(unknown(KINDS[room], name, known))
    module, _, attribute = known[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def unknown(kind: str, name: str, known: Any) -> str:
    """Return the message for a name that nothing has, with the nearest one or the whole list."""
    import difflib  # only a wrong name needs it

    near = difflib.get_close_matches(name, list(known), n=1)
    hint = f"Did you mean '{near[0]}'?" if near else f"There are: {', '.join(sorted(known))}."
    return f"No {kind} is named '{name}'. {hint}"
