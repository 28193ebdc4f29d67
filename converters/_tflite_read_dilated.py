"""Dilated convolutions as converters spell them: SPACE_TO_BATCH_ND, a convolution, BATCH_TO_SPACE_ND.

Every block-th position becomes an image of its own, which a convolution without dilation sees; the results are laid
back between one another. That is the convolution with dilation = block of the padded image: the two operators go, the
convolution gets the dilation and, as explicit padding, what the first padded less what the last cropped. The batch,
which they multiply, may stay open. Source: TensorFlow, python/ops/nn_ops.py, with_space_to_batch.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace
from types import SimpleNamespace

import numpy as np

from edgecnn.shapes import Padding

from ._tflite_read_file import FileRecord, OperatorRecord

FIRST, LAST = "SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND"
CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")
VALID = 1
"""Padding of windows. Source: schema.fbs, Padding."""

ARITHMETIC = ("ADD", "SUB", "MUL")
"""May lie between with one number for each channel: they know no position."""

UNARY = (
    *("RELU", "RELU6", "RELU_N1_TO_1", "LEAKY_RELU", "HARD_SWISH", "LOGISTIC", "TANH", "ELU"),
    *("QUANTIZE", "DEQUANTIZE"),
)
"""May lie between, too."""

LONGEST = 8
"""Operators that may lie between."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Chain:
    """Places of the operators, those in between in order."""

    first: int
    between: tuple[int, ...]
    last: int


def with_dilation(file: FileRecord) -> FileRecord:
    """Return the file with each such group as one dilated convolution; what does not fit exactly stays."""
    if not any(operator.kind == FIRST for operator in file.operators):
        return file
    operators: dict[int, OperatorRecord] = dict(enumerate(file.operators))
    takers: defaultdict[int, list[int]] = defaultdict(list)
    for place, operator in operators.items():
        for number in operator.inputs:
            takers[number].append(place)
    for _, number in file.outputs:
        takers[number].append(-1)
    for place, operator in enumerate(file.operators):
        chain = _chain(file, takers, place) if operator.kind == FIRST else None
        if chain is not None and _fold(file, operators, chain):
            del operators[chain.first], operators[chain.last]
    return replace(file, operators=tuple(operators.values()))


def _chain(file: FileRecord, takers: Mapping[int, Sequence[int]], first: int) -> _Chain | None:
    """Return the operators up to the way back, where each is all that takes the one before."""
    between: list[int] = []
    place = first
    while len(between) <= LONGEST and len(file.operators[place].outputs) == 1:
        found = takers.get(file.operators[place].outputs[0], ())
        if len(found) != 1 or found[0] <= place:
            return None
        place = found[0]
        if file.operators[place].kind == LAST:
            return _Chain(first=first, between=tuple(between), last=place)
        between.append(place)
    return None


def _fold(file: FileRecord, operators: dict[int, OperatorRecord], chain: _Chain) -> bool:
    """Put the dilated convolution in the place of a chain that fits, and tell whether it did."""
    first, last = file.operators[chain.first], file.operators[chain.last]
    block, padding = (_numbers(file, first, position) for position in (1, 2))
    again, crops = (_numbers(file, last, position) for position in (1, 2))
    count = len(block)
    if not (_keeps_scale(file, first) and _keeps_scale(file, last)):
        return False
    if not 1 <= count <= 2 or block != again or len(padding) != 2 * count or len(crops) != 2 * count:
        return False
    rest = [a - b for a, b in zip(padding, crops, strict=True)]
    pairs: Padding = ((0, 0),) * (2 - count) + tuple(zip(rest[::2], rest[1::2], strict=True))
    changed = dict(_changed(file, chain, (1,) * (2 - count) + block, pairs))
    kinds = [operator.kind for operator in changed.values()]
    if min(rest) < 0 or len(changed) != len(chain.between) or sum(kind in CONVOLUTIONS for kind in kinds) != 1:
        return False
    head, tail = chain.between[0], chain.between[-1]
    taken = (first.inputs[0] if number == first.outputs[0] else number for number in changed[head].inputs)
    changed[head] = replace(changed[head], inputs=tuple(taken))
    changed[tail] = replace(changed[tail], outputs=last.outputs)
    operators.update(changed)
    return True


def _changed(
    file: FileRecord, chain: _Chain, block: tuple[int, ...], padding: Padding
) -> Iterator[tuple[int, OperatorRecord]]:
    """Yield (place, operator) of what lies between as it is without the other two; what cannot be is left out."""
    for place in chain.between:
        operator = file.operators[place]
        if operator.kind in CONVOLUTIONS and _is_plain(operator):
            options = copy(operator.options)
            options.dilationHFactor, options.dilationWFactor = block
            yield place, replace(operator, options=options, padding=padding)
        elif operator.kind in UNARY or operator.kind == "EXPAND_DIMS" or _is_by_channel(file, operator):
            yield place, operator
        elif operator.kind in ("RESHAPE", "SQUEEZE") and _loses_height(file, operator):
            options = SimpleNamespace(squeezeDims=np.asarray([1]))
            yield place, replace(operator, kind="SQUEEZE", options=options, inputs=operator.inputs[:1])


def _keeps_scale(file: FileRecord, operator: OperatorRecord) -> bool:
    """Tell whether what goes in and what comes out are the same integers; what is padded stands for 0 then."""
    before, after = (file.tensors[numbers[0]].quantization for numbers in (operator.inputs, operator.outputs))
    return before == after


def _is_plain(operator: OperatorRecord) -> bool:
    options = operator.options
    names = ("strideH", "strideW", "dilationHFactor", "dilationWFactor")
    return getattr(options, "padding", None) == VALID and all(getattr(options, name, None) == 1 for name in names)


def _is_by_channel(file: FileRecord, operator: OperatorRecord) -> bool:
    ranks = sorted(len(file.tensors[number].shape) for number in operator.inputs if number >= 0)
    return operator.kind in ARITHMETIC and len(ranks) == 2 and ranks[0] <= 1


def _loses_height(file: FileRecord, operator: OperatorRecord) -> bool:
    """Tell whether an image of height 1 becomes a row."""
    source, target = (file.tensors[numbers[0]].shape for numbers in (operator.inputs, operator.outputs))
    return len(source) == 4 and source[1] == 1 and target[1:] == source[2:]


def _numbers(file: FileRecord, operator: OperatorRecord, position: int) -> tuple[int, ...]:
    number = operator.inputs[position] if position < len(operator.inputs) else -1
    data = file.tensors[number].data if number >= 0 else None
    return tuple(data.ravel().tolist()) if data is not None and data.dtype == np.int32 and data.size <= 4 else ()
