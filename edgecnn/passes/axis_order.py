"""Orders of axes: value = transpose(held, order), axis i of the value being axis order[i] of what is held."""

from typing import TypeVar

Order = tuple[int, ...]
Entry = TypeVar("Entry")


def channels_first(rank: int) -> Order:
    """Return the order that gives channels first from channels last: (0, rank - 1, 1, 2, ...)."""
    return (0, rank - 1, *range(1, rank - 1))


def identity(rank: int) -> Order:
    """Return the order that changes nothing."""
    return tuple(range(rank))


def inverse(order: Order) -> Order:
    """Return the order that undoes another one."""
    return tuple(sorted(range(len(order)), key=order.__getitem__))


def turned(values: tuple[Entry, ...], permutation: Order) -> tuple[Entry, ...]:
    """Return one value per axis, or an order, as a Transpose gives them: entry i is entry permutation[i]."""
    return tuple(values[axis] for axis in permutation)
