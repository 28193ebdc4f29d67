"""Integers in an OpenVINO model: constants that Convert, Subtract and Multiply turn into numbers, FakeQuantize, ports.

FakeQuantize gives numbers, not integers: ends that lie (levels - 1) steps apart and hold zero are read as a Quantize
and a Dequantize. Source: OpenVINO documentation, FakeQuantize-1.
"""

from collections.abc import Callable
from math import isclose

import numpy as np

from edgecnn import ops
from edgecnn.graph import Array
from edgecnn.quantization.parameters import ACTIVATIONS, Quantization, per_tensor

from ._openvino_read_call import Call, Known, Reading, Row
from ._openvino_read_xml import IrLayer

STORED = ("int8", "uint8", "int16", "int32", "int64")
"""Types of constants that stand for other numbers."""

LEVELS = {256: "int8", 65536: "int16"}
"""Number of steps -> the type that is read; where the steps begin does not say which of two types a file meant."""

MOST_LEVELS = 1 << 24
"""float32 counts no further."""

SMALLEST, LARGEST = 1e-30, 1e30
"""Of scales: float32 holds their products."""

OFF_GRID = 1e-2
"""Part of a step by which the ends of a range, stated in float32, may miss the grid through zero."""


def subtracted(call: Call, known: Known) -> Known | None:
    """Return a constant whose zero point is known now, or None where the numbers are none."""
    other = call.known(1)
    if not _is_open(known) or known.zero_point is not None or other is None or not _broadcasts(other.shape, known):
        return None
    whole = np.rint(other)
    info = np.iinfo(known.data.dtype)
    if np.any(whole != other) or np.any(whole < info.min) or np.any(whole > info.max):
        return None
    return known._replace(zero_point=np.broadcast_to(whole.astype(np.int64), known.data.shape))


def multiplied(call: Call, known: Known) -> Known | None:
    """Return a constant whose scale is known now; its numbers where some are no scales, or None."""
    other = call.known(1)
    if not _is_open(known) or other is None or other.dtype != np.float32 or not _broadcasts(other.shape, known):
        return None
    if np.all((other > SMALLEST) & (other < LARGEST)):
        return known._replace(scale=np.broadcast_to(other, known.data.shape))
    with np.errstate(all="ignore"):  # of a file's own numbers
        return Known(known.name, known.value() * other, known.dtype)


def _is_open(known: Known) -> bool:
    """Tell whether a constant is integers that were converted, of a scale that is still to come."""
    return known.dtype == "float32" and str(known.data.dtype) in STORED and known.scale is None


def _broadcasts(shape: tuple[int, ...], known: Known) -> bool:
    pairs = zip(reversed(shape), reversed(known.data.shape), strict=False)
    return len(shape) <= known.data.ndim and all(size in (1, whole) for size, whole in pairs)


def _fake_quantize(call: Call) -> str | None:
    limits = [each for each in (call.known(position) for position in range(1, 5)) if each is not None]
    if call.reading.dtype(call.value(0)) != "float32":
        return None
    numbers = [float(each.reshape(())) for each in limits if each.size == 1]
    levels = call.integer("levels", 0)
    found = _on_grid(numbers[0], numbers[1], LEVELS[levels]) if len(numbers) == 4 and levels in LEVELS else None
    if found is None:
        return _spelled_out(call, limits, levels) if len(limits) == 4 and 2 <= levels <= MOST_LEVELS else None
    low, high, *given = numbers
    if isclose(given[0], low, rel_tol=1e-6, abs_tol=1e-12) and isclose(given[1], high, rel_tol=1e-6, abs_tol=1e-12):
        name = call.reading.free(f"{call.name}/integers")
        stored = call.reading.builder.node(name, ops.Quantize(), call.tensor(0))
        call.reading.quantizations[stored] = found
        return call.node(ops.Dequantize(), stored)
    return _integers(call, low, high, given) or _spelled_out(call, limits, levels)


def _spelled_out(call: Call, limits: list[Array], levels: int) -> str | None:
    """Read one with a range for each channel, or without zero, by its definition, in float."""
    low, high, given_low, given_high = ends = [each.astype(np.float64) for each in limits]
    steps = levels - 1
    if not all(np.all(np.abs(each) < LARGEST) for each in ends) or not np.all(high - low > SMALLEST):
        return None

    def step(label: str, op: ops.Op, x: str, by: Array) -> str:
        return call.step(label, op, x, call.constant(f"by_{label}", by.astype(np.float32)))

    x = step("part", ops.Mul(), step("above", ops.Sub(), call.tensor(0), low), steps / (high - low))
    x = call.step("clip", ops.Clip(minimum=0.0, maximum=float(steps)), call.step("round", ops.Round(), x))
    x = step("stretched", ops.Mul(), x, (given_high - given_low) / steps)
    return call.node(ops.Add(), x, call.constant("by_add", given_low.astype(np.float32)))


def _integers(call: Call, low: float, high: float, given: list[float]) -> str | None:
    """Read one that gives the integers of a type that has all of them; a Convert behind it changes nothing."""
    for dtype in ACTIVATIONS:
        info = np.iinfo(dtype)
        found = _on_grid(low, high, dtype)
        if found is not None and given == [info.min, info.max]:
            stored = call.node(ops.Quantize(), call.tensor(0))
            call.reading.quantizations[stored] = found
            return stored
    return None


def _on_grid(low: float, high: float, dtype: str) -> Quantization | None:
    """Return what the integers of a type stand for that lie evenly from low to high, or None where zero is none."""
    info = np.iinfo(dtype)
    scale = (high - low) / (int(info.max) - int(info.min))
    if not SMALLEST < scale < LARGEST:
        return None
    zero = int(info.min) - low / scale
    nearest = round(zero)
    if abs(zero - nearest) > OFF_GRID or not info.min <= nearest <= info.max:
        return None
    return per_tensor(scale, nearest, dtype)


def converted(call: Call) -> str | None:
    """Return the source of a Convert to the type in which a quantized tensor is stored anyway, or None."""
    source = call.value(0)
    found = call.reading.quantizations.get(source) if isinstance(source, str) else None
    wanted = {"i8": "int8", "u8": "uint8", "i16": "int16"}.get(call.text("destination_type", ""))
    return source if isinstance(source, str) and found is not None and found.dtype == wanted else None


def integer_input(call: Call, name: str, output: int, dtype: str) -> str | None:
    """Add an input whose integers stand for numbers, and the Dequantize that its layers are; None where they are not.

    Everything that reads it is one chain of Convert, Subtract (which may be missing) and Multiply, by one number each.

    Args:
        call: The Parameter.
        name: Of the input.
        output: The Parameter's output port.
        dtype: Type that is fed.
    """
    reading = call.reading
    chain = _chain(reading, call.layer.number, output)
    found = _meaning([Call(reading, each, each.name) for each in chain], dtype) if dtype in ACTIVATIONS else None
    if found is None:
        return None
    tensor = reading.builder.input(name, call.output_shape())
    reading.quantizations[tensor] = found
    given = reading.builder.node(reading.free(chain[-1].name or "dequantize"), ops.Dequantize(), tensor)
    reading.values[chain[-1].number, next(iter(chain[-1].outputs))] = given
    return tensor


def _meaning(calls: list[Call], dtype: str) -> Quantization | None:
    """Return what a chain of layers says that integers stand for."""
    kinds = [each.layer.kind for each in calls]
    if kinds not in (["Convert", "Subtract", "Multiply"], ["Convert", "Multiply"]):
        return None
    numbers = [
        float(each.reshape(())) for each in (c.known(1) for c in calls[1:]) if each is not None and each.size == 1
    ]
    if calls[0].text("destination_type", "") != "f32" or len(numbers) < len(calls) - 1:
        return None
    *zeros, scale = numbers
    zero, info = (zeros or [0.0])[0], np.iinfo(dtype)
    is_sound = zero.is_integer() and info.min <= zero <= info.max and SMALLEST < scale < LARGEST
    return per_tensor(scale, int(zero), dtype) if is_sound else None


def _chain(reading: Reading, number: int, output: int) -> list[IrLayer]:
    """Return up to three layers of one output each, each the only reader of the one before."""
    found: list[IrLayer] = []
    place = (number, output)
    while len(found) < 3:
        users = reading.users.get(place, [])
        if len(users) != 1 or reading.sources[users[0]][:1] != [place] or len(reading.layers[users[0]].outputs) != 1:
            break
        found.append(reading.layers[users[0]])
        place = (users[0], next(iter(found[-1].outputs)))
        if found[-1].kind == "Multiply":
            break
    return found


FOLDED: dict[str, Callable[[Call, Known], Known | None]] = {"Subtract": subtracted, "Multiply": multiplied}
"""Layer type -> what it makes of a constant of integers."""

ROWS: dict[str, Row] = {"FakeQuantize": _fake_quantize}
"""Layer type -> how it is read."""
