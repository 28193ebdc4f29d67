"""Custom operators of .tflite files: SSD's decoding, and everything that only has a name.

Custom options are a FlexBuffer: a map of scalars here, read with every offset checked.
Source: FlatBuffers, include/flatbuffers/flexbuffers.h.
"""

import struct

from edgecnn import ops
from edgecnn.errors import InputFileError

from ._tflite_read_call import Call, Row
from ._tflite_read_network import Value

MAP = 9
INTEGER, UNSIGNED, FLOAT, BOOL = 1, 2, 3, 26
FORMATS = {
    INTEGER: {1: "<b", 2: "<h", 4: "<i", 8: "<q"},
    UNSIGNED: {1: "<B", 2: "<H", 4: "<I", 8: "<Q"},
    FLOAT: {2: "<e", 4: "<f", 8: "<d"},
    BOOL: {1: "<?", 2: "<H", 4: "<I", 8: "<Q"},
}
"""Type -> bytes -> how a scalar lies there."""

INDIRECT = {6: INTEGER, 7: UNSIGNED, 8: FLOAT}
"""Type of a scalar that lies elsewhere -> its own."""

MOST_KEYS = 256


def flexbuffer_map(content: bytes) -> dict[str, float]:
    """Return the scalars of a FlexBuffer whose root is a map; values of other types are left out.

    Raises:
        InputFileError: When it is none, or an offset leads out of it.
    """
    try:
        return _FlexMap(content).scalars()
    except (struct.error, IndexError, KeyError, ValueError) as error:
        raise InputFileError(f"a FlexBuffer map was wanted; its offsets cannot be followed: {error}") from None


class _FlexMap:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def scalars(self) -> dict[str, float]:
        """Follow the root (last byte its size, the one before its type) to the map."""
        size, packed = self._content[-1], self._content[-2]
        if packed >> 2 != MAP:
            raise KeyError(f"type {packed >> 2}")
        place, width = self._indirect(len(self._content) - 2 - size, size), 1 << (packed & 3)
        count = int(self._scalar(UNSIGNED, place - width, width))
        if count > MOST_KEYS:
            raise IndexError(f"{count} keys")
        key_width = int(self._scalar(UNSIGNED, place - 2 * width, width))
        keys = self._indirect(place - 3 * width, width)
        found = {}
        for number in range(count):
            packed = self._content[place + count * width + number]
            value = self._value(packed, place + number * width, width)
            if value is not None:
                found[self._text(self._indirect(keys + number * key_width, key_width))] = value
        return found

    def _value(self, packed: int, place: int, width: int) -> float | None:
        kind = packed >> 2
        if kind in INDIRECT:
            return self._scalar(INDIRECT[kind], self._indirect(place, width), 1 << (packed & 3))
        return self._scalar(kind, place, width) if kind in FORMATS else None

    def _scalar(self, kind: int, place: int, width: int) -> float:
        if place < 0:
            raise IndexError(f"offset {place}")
        value: float = struct.unpack_from(FORMATS[kind][width], self._content, place)[0]
        return value

    def _indirect(self, place: int, width: int) -> int:
        return place - int(self._scalar(UNSIGNED, place, width))

    def _text(self, place: int) -> str:
        if place < 0:
            raise IndexError(f"offset {place}")
        return self._content[place : self._content.index(b"\0", place)].decode()


def _detection(call: Call) -> tuple[Value, ...]:
    """TFLite_Detection_PostProcess. Source: LiteRT, tflite/kernels/detection_postprocess.cc, Init."""
    try:
        options = flexbuffer_map(call.operator.custom)
        op = ops.DetectionPostProcess(
            max_detections=int(options["max_detections"]),
            max_classes=int(options["max_classes_per_detection"]),
            detections_per_class=int(options.get("detections_per_class", 100)),
            is_per_class=bool(options.get("use_regular_nms", False)),
            score_threshold=float(options["nms_score_threshold"]),
            iou_threshold=float(options["nms_iou_threshold"]),
            classes=int(options["num_classes"]),
            scales=tuple(float(options[f"{axis}_scale"]) for axis in "yxhw"),  # type: ignore[arg-type]
        )
    except (KeyError, OverflowError, ValueError) as error:
        raise InputFileError(f"{call.where}: the options of the operator were wanted; it lacks {error}") from None
    given = [call.network.name(number) for number in call.operator.outputs]
    names = [*given, *(call.network.inner_name(f"{call.name}/output_{place}") for place in range(len(given), 4))]
    inputs = [call.value(position) for position in range(3)]
    return call.network.nodes(call.name, op, inputs, names)[: len(given)]


def opaque(call: Call) -> tuple[Value, ...]:
    """Return the outputs of an operator that is only listed, with the shapes that the file states."""
    inputs = [call.value(position) for position in range(len(call)) if call.has(position)]
    if not inputs:
        raise call.unsupported("an operator without inputs is not read")
    tensors = [call.network.file.tensors[number] for number in call.operator.outputs]
    shapes = tuple(
        (call.network.batch, *tensor.shape[1:]) if tensor.signature[:1] == (-1,) else tensor.shape for tensor in tensors
    )
    names = [call.network.name(number) for number in call.operator.outputs]
    return call.network.nodes(call.name, ops.Opaque(kind=call.operator.kind, shapes=shapes), inputs, names)


CUSTOM: dict[str, Row] = {"TFLite_Detection_PostProcess": _detection}
