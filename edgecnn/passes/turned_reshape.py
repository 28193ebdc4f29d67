"""What a Reshape becomes when its input is held in another order of axes.

A Reshape joins runs of neighbouring axes and cuts the runs apart again. Where every run lies together in the held order
too, the held tensor can be reshaped instead, and the same runs are turned afterwards:

    reshape(transpose(h, p), target)  =  transpose(reshape(h, held_target), q)

Axes of size 1 may lie anywhere.
"""

from collections.abc import Sequence

from edgecnn.passes.axis_order import Order, inverse
from edgecnn.shapes import Shape


def turned_reshape(shape: Shape, target: Shape, order: Order) -> tuple[Shape, Order] | None:
    """Return what the held tensor is reshaped to, and the order that gives the target from it; None where none does.

    Args:
        shape: Of the value.
        target: Of the reshaped value, sizes known but for the batch.
        order: value = transpose(held, order).

    >>> turned_reshape((1, 8, 5, 5), (1, 8, 25), (0, 3, 1, 2))
    ((1, 25, 8), (0, 2, 1))
    >>> turned_reshape((1, 8, 5, 5), (1, 200), (0, 3, 1, 2)) is None
    True
    """
    runs = common_runs(shape, target)
    if runs is None:
        return None
    held = sorted((axis for axis, size in enumerate(shape) if size != 1), key=lambda axis: order[axis])
    places = []
    for source, _ in runs:
        place = held.index(source[0])
        if held[place : place + len(source)] != list(source):
            return None
        places.append(place)
    in_held_order = [runs[i][1] for i in sorted(range(len(runs)), key=places.__getitem__)]
    axes = _with_ones([axis for run in in_held_order for axis in run], target)
    if None in target and axes[0] != target.index(None):
        return None
    return tuple(target[axis] for axis in axes), tuple(axes.index(axis) for axis in range(len(target)))


def with_runs_together(shape: Shape, target: Shape, order: Order) -> Order | None:
    """Return the order nearest to a held one in which each run of axes lies together; None where there are no runs.

    >>> with_runs_together((1, 3, 2, 8, 6), (1, 6, 8, 6), (0, 4, 3, 1, 2))
    (0, 3, 4, 1, 2)
    """
    runs = common_runs(shape, target)
    if runs is None:
        return None
    place = {axis: min(order[each] for each in source) for source, _ in runs for axis in source}
    axes = sorted(range(len(shape)), key=lambda axis: (place.get(axis, order[axis]), axis))
    return inverse(tuple(axes))


def common_runs(shape: Shape, target: Shape) -> list[tuple[tuple[int, ...], tuple[int, ...]]] | None:
    """Return the shortest runs of axes (of the shape, of the target) that hold the same elements, ones left out.

    >>> common_runs((1, 6, 4, 4), (2, 3, 16))
    [((1,), (0, 1)), ((2, 3), (2,))]
    """
    left, right = ([axis for axis, size in enumerate(sizes) if size != 1] for sizes in (shape, target))
    runs = []
    while left and right:
        source, found, many, few = [left.pop(0)], [right.pop(0)], shape, target
        a, b = many[source[0]], few[found[0]]
        while a != b:
            if a is None or b is None or not (left if a < b else right):
                return None
            if a < b:
                source.append(left.pop(0))
                a *= many[source[-1]] or 0
            else:
                found.append(right.pop(0))
                b *= few[found[-1]] or 0
        runs.append((tuple(source), tuple(found)))
    return None if left or right else runs


def _with_ones(axes: Sequence[int], target: Shape) -> list[int]:
    """Return the target's axes in the held order, those of size 1 behind the axis that they follow in the target."""
    placed, found = list(axes), []
    leading = [axis for axis, size in enumerate(target) if size == 1 and not set(range(axis)) & set(axes)]
    for axis in placed:
        found.append(axis)
        following = axis + 1
        while following < len(target) and target[following] == 1:
            found.append(following)
            following += 1
    return leading + found
