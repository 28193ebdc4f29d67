"""One row per operator: what it becomes in TFLite."""

from collections.abc import Callable, Mapping

from edgecnn import ops
from edgecnn.graph import Node

from . import _tflite_elementwise as elementwise
from . import _tflite_layers as layers
from . import _tflite_moving as moving
from . import _tflite_norms as norms
from . import _tflite_typed as typed
from ._tflite_emitter import TfliteEmitter
from ._tflite_transposed import conv_transpose
from ._tflite_windows import average_pool, conv, max_pool

ROWS: Mapping[type[ops.Op], Callable[[TfliteEmitter, Node], None]] = {
    ops.Conv: conv,
    ops.ConvTranspose: conv_transpose,
    ops.MaxPool: max_pool,
    ops.AveragePool: average_pool,
    **layers.ROWS,
    **elementwise.ROWS,
    **moving.ROWS,
    **norms.ROWS,
    **typed.ROWS,
}
"""Operator -> how it is written."""

REFUSED: Mapping[type[ops.Op], str] = {ops.Erf: "Let GELU hold it, which tflite has, or choose --to onnx or openvino."}
"""Operator that TFLite has no means for -> what to do instead."""
