"""Rows of Resize and of Upsample, its older form.

ONNX names coordinates and rounding in a dozen combinations; what counts is which positions of the input they read. Both
sides are computed: the Graph's Resize is taken where it reads the same positions, any other nearest one is a Gather.
Source: onnx/onnx, docs/Operators.md (Resize) and onnx/reference/ops/op_resize.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, floor, isclose, isfinite

import numpy as np

from edgecnn import ops
from edgecnn.errors import InputFileError
from edgecnn.graph import Array
from edgecnn.ops import known
from edgecnn.shapes import Shape

from ._onnx_read_call import Call, Row, require
from ._onnx_read_sizes import as_shape, check_size
from ._onnx_read_state import Value
from ._resize_positions import OWN_LINEAR, OWN_NEAREST, ROUNDING, Coordinates

CROP = "tf_crop_and_resize"
POSITIONS: dict[str, Callable[[Array, "Along"], Array]] = {
    "asymmetric": lambda i, a: i / a.scale,
    "half_pixel": lambda i, a: (i + 0.5) / a.scale - 0.5,
    "pytorch_half_pixel": lambda i, a: (i + 0.5) / a.scale - 0.5 if a.new > 1 else i * 0,
    "align_corners": lambda i, a: i * (a.old - 1) / (a.new - 1) if a.new > 1 else i * 0,
    "half_pixel_symmetric": lambda i, a: a.old / 2 * (1 - a.new / (a.scale * a.old)) + (i + 0.5) / a.scale - 0.5,
    CROP: lambda i, a: (
        (a.old - 1) * (a.start + i * (a.end - a.start) / (a.new - 1) if a.new > 1 else i * 0 + (a.start + a.end) / 2)
    ),
}
"""Coordinate transformation -> (output positions, axis) -> input positions."""
LARGEST_SIDE = 1 << 16
FARTHEST = 1 << 40
"""Positions beyond this are outside of every picture, as far as a file may place them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Along:
    """Resizing along one axis: sizes before and after, what places the positions, and the part that CROP reads."""

    old: int
    new: int
    scale: float
    start: float = 0.0
    end: float = 1.0

    @property
    def is_whole(self) -> bool:
        """Tell whether the scale gives the new size without a part of a position left over, but for rounding."""
        return isclose(self.old * self.scale, self.new, rel_tol=1e-12)


def _resize(call: Call) -> Value:
    shape, mode = call.shape(), call.text("mode", "nearest")
    require(mode in ("nearest", "linear", "cubic", "bilinear"), "mode nearest, linear or cubic", f"mode={mode}")
    changed = {axis: each for axis, each in enumerate(_along(call)) if each is not None}
    for each in changed.values():
        require(max(each.old, each.new) <= LARGEST_SIDE, f"sizes of at most {LARGEST_SIDE}", (each.old, each.new))
    if not changed:
        return call.value(0)
    rows = _nearest_positions if mode == "nearest" else _exact
    places = {axis: rows(call, each) for axis, each in changed.items()}
    is_wide = bool(call.integer("antialias", 0)) and any(each.scale < 1 for each in changed.values())
    is_cropped = _coordinates(call) == CROP
    coordinates = None if mode == "cubic" or is_wide or is_cropped else _matching(changed, places, mode)
    is_last = max(changed) < len(shape) - 1
    is_possible = 0 not in changed and (1 not in changed or is_last)
    if coordinates is None or not is_possible:
        require(mode != "nearest" or not is_cropped, "mode linear or cubic of a part", mode)
        if mode == "nearest":
            return _gathered(call, places)
        return _mixed(call, changed, places, mode)
    sizes = tuple(known(size) for size in _sizes(call, changed))
    spatial = sizes[1:-1] if 1 in changed else sizes[2:]
    op = ops.Resize(size=spatial, method="nearest" if mode == "nearest" else "bilinear", coordinates=coordinates)
    return call.emit(op, call.tensor(0)) if 1 in changed else call.layer(op, call.image())


COORDINATES = ("coordinate_transformation_mode", "half_pixel")


def _sizes(call: Call, changed: dict[int, Along]) -> list[int | None]:
    return [changed[axis].new if axis in changed else size or 1 for axis, size in enumerate(call.shape())]


def _gathered(call: Call, places: dict[int, Array]) -> str:
    """Take positions along each axis, one Gather after the other."""
    x = call.tensor(0)
    for count, (axis, found) in enumerate(places.items(), start=1):
        indices = call.made("positions", found, "int64")
        x = call.emit(ops.Gather(axis=axis), x, indices, suffix="" if count == len(places) else "resized")
    return x


def _mixed(call: Call, changed: dict[int, Along], places: dict[int, Array], mode: str) -> str:
    """Mix neighbours along each axis; a part that reaches beyond the picture reads a fixed value there."""
    matrices = {axis: shares(call, each, places[axis], mode) for axis, each in changed.items()}
    value, rank = call.number("extrapolation_value", 0.0), len(call.shape())
    if _coordinates(call) != CROP:
        return _weighted(call, matrices)
    inside = np.ones((1,) * rank)
    for axis, each in changed.items():
        is_inside = (places[axis] >= 0) & (places[axis] <= each.old - 1)
        matrices[axis] = matrices[axis] * is_inside
        inside = inside * is_inside.reshape([-1 if other == axis else 1 for other in range(rank)])
    if value == 0 or inside.all():
        return _weighted(call, matrices)
    outside = call.made("outside", np.where(inside, 0, value))
    return call.emit(ops.Add(), _weighted(call, matrices, suffix="inside"), outside)


def _weighted(call: Call, matrices: dict[int, Array], *, suffix: str = "") -> str:
    """Interpolate along each axis by a dense layer over it, whose constant kernel holds the shares of the positions."""
    x = call.tensor(0)
    for count, (axis, matrix) in enumerate(matrices.items(), start=1):
        rank, step = len(call.shape()), suffix if count == len(matrices) else "resized"
        order = (*(each for each in range(rank) if each != axis), axis)
        kernel = call.made("shares", matrix)
        if axis == rank - 1:
            x = call.emit(ops.Dense(), x, kernel, suffix=step)
            continue
        last = call.emit(ops.Transpose(permutation=order), x, suffix="turned")
        last = call.emit(ops.Dense(), last, kernel, suffix="mixed")
        back = tuple(order.index(each) for each in range(rank))
        x = call.emit(ops.Transpose(permutation=back), last, suffix=step)
    return x


def shares(call: Call, along: Along, places: Array, mode: str) -> Array:
    """Return the share (old, new) of each input position in each output position.

    A position reads its neighbours by their distance; those outside are the edge, or left out where the file asks for
    that. With antialias a smaller picture reads wider.
    Source: Keys, Cubic convolution interpolation for digital image processing, 1981; onnx/reference/ops/op_resize.py.
    """
    check_size([along.old, along.new])
    is_wide = bool(call.integer("antialias", 0)) and along.scale < 1
    stretch = 1 / along.scale if is_wide else 1.0
    reach = ceil((2 if mode == "cubic" else 1) * stretch)
    found = np.zeros((along.old, along.new))
    position = np.floor(places).astype(int) + np.arange(-reach, reach + 1)[:, None]
    t = np.abs(places - position) / stretch
    share = _cubic(t, call.number("cubic_coeff_a", -0.75)) if mode == "cubic" else np.clip(1 - t, 0, 1)
    if call.integer("exclude_outside", 0):
        share = np.where((position < 0) | (position >= along.old), 0, share)
    np.add.at(found, (position.clip(0, along.old - 1), np.arange(along.new)), share)
    total = found.sum(axis=0)
    return np.asarray(found / np.where(total == 0, 1, total))


def _cubic(t: Array, a: float) -> Array:
    near, far = ((a + 2) * t - (a + 3)) * t * t + 1, a * (((t - 5) * t + 8) * t - 4)
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


def _matching(changed: dict[int, Along], places: dict[int, Array], mode: str) -> Coordinates | None:
    """Return the Graph's coordinates that read the same positions along every axis, or None."""
    for name, own in (OWN_NEAREST if mode == "nearest" else OWN_LINEAR).items():
        wanted = [(own(each.old, each.new), places[axis].clip(0, each.old - 1)) for axis, each in changed.items()]
        if all(np.allclose(ours, theirs, rtol=0, atol=1e-5) for ours, theirs in wanted):
            return name
    return None


def _nearest_positions(call: Call, along: Along) -> Array:
    exact = _exact(call, along)
    default = "round_prefer_floor" if call.opset >= 11 else "floor"
    name = call.text("nearest_mode", default)
    require(name in ROUNDING, "a known nearest_mode", name)
    # A hair off a half or a whole would fall to the wrong side: positions are multiples of 1 / (2 new).
    exact = np.round(exact * 2 * along.new) / (2 * along.new) if along.is_whole else exact
    return ROUNDING[name](exact).clip(0, along.old - 1).astype(np.int64)


def _coordinates(call: Call) -> str:
    return call.text(*COORDINATES) if call.opset >= 11 and call.node.op_type == "Resize" else "asymmetric"


def _exact(call: Call, along: Along) -> Array:
    name = _coordinates(call)
    require(name in POSITIONS, f"one of {', '.join(POSITIONS)}", name)
    # With align_corners and part of a position left over, ONNX's reference and ONNX Runtime give different numbers.
    require(along.is_whole or name != "align_corners", "align_corners with whole sizes", f"a scale of {along.scale}")
    places = np.arange(along.new, dtype=np.float64)
    return np.asarray(POSITIONS[name](places, along), np.float64).clip(-FARTHEST, FARTHEST)


def _along(call: Call) -> list[Along | None]:
    """Return how each axis is resized; None for those that stay."""
    shape = call.shape()
    axes = call.several("axes", ()) or tuple(range(len(shape)))
    axes = tuple(call.axis(axis, len(shape)) for axis in axes)
    scales, sizes = _asked(call)
    given = scales if scales is not None else sizes
    if given is None or len(given) != len(axes):
        raise InputFileError(f"a scale or size for each of {len(axes)} axes was wanted; found {given}")
    found: list[Along | None] = [None] * len(shape)
    if sizes is not None:
        sizes = _kept_aspect(call, [shape[axis] for axis in axes], sizes)
    region = _region(call, len(axes))
    for place, axis in enumerate(axes):
        start, end = region[place], region[len(axes) + place]
        is_whole = (start, end) == (0, 1)
        if scales is not None and (scales[place] != 1 or not is_whole):
            old, scale = known(shape[axis]), scales[place]
            if not 0 < scale <= LARGEST_SIDE:
                raise InputFileError(f"positive scales were wanted; found {scales}")
            new = floor(np.float32(old) * np.float32(scale))  # as ONNX Runtime does
            scale = new / old if abs(new - scale * old) < 1e-6 * new else scale
            found[axis] = Along(old=old, new=new, scale=scale, start=start, end=end)
        elif sizes is not None and (sizes[place] != shape[axis] or not is_whole):
            old, new = known(shape[axis]), known(sizes[place])
            found[axis] = Along(old=old, new=new, scale=new / old, start=start, end=end)
    if any(each is not None and each.new < 1 for each in found):
        raise InputFileError(f"sizes of at least 1 were wanted; found scales {scales}, sizes {sizes}")
    return found


def _region(call: Call, count: int) -> tuple[float, ...]:
    """Return the start of each axis and then its end, in parts of the picture: 0 and 1 but for CROP."""
    if _coordinates(call) != CROP:
        return (0.0,) * count + (1.0,) * count
    region = call.constant(1, "a region").ravel().tolist()
    if len(region) != 2 * count or not all(map(isfinite, region)):
        raise InputFileError(f"a start and an end for each of {count} axes were wanted; found {region}")
    return tuple(region)


def _kept_aspect(call: Call, before: list[int | None], sizes: Shape) -> Shape:
    policy = call.text("keep_aspect_ratio_policy", "stretch")
    if policy == "stretch":
        return sizes
    choose = {"not_larger": min, "not_smaller": max}.get(policy)
    if choose is None:
        raise InputFileError(f"a known keep_aspect_ratio_policy was wanted; found {policy}")
    scale = choose(known(size) / known(old) for size, old in zip(sizes, before, strict=True))
    return tuple(floor(scale * known(old) + 0.5) for old in before)


def _asked(call: Call) -> tuple[tuple[float, ...] | None, Shape | None]:
    """Return (scales, None) or (None, sizes); Resize takes them behind a region from opset 11 on."""
    if call.node.op_type == "Upsample" or call.opset < 11:
        return tuple(float(each) for each in call.constant(1, "scales").ravel().tolist()), None
    if call.has(3):
        return None, as_shape(call.sizes(3, "sizes"))
    return tuple(float(each) for each in call.constant(2, "scales").ravel().tolist()), None


ROWS: dict[str, Row] = {"Resize": _resize, "Upsample": _resize}
