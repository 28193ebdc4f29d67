"""One NumPy kernel per operator, float: what every converter is held against.

A kernel takes the operator and the values of its operands, NHWC, and returns its output, or a tuple of several.
"""

from collections.abc import Callable, Sequence

from edgecnn import ops
from edgecnn.errors import UnsupportedError
from edgecnn.graph import Array
from edgecnn.kernels import detection, elementwise, layers, moving, typed, windows
from edgecnn.kernels.windows import convolve, pad_spatial

__all__ = ["KERNELS", "Kernel", "convolve", "evaluate", "evaluate_all", "pad_spatial"]

Kernel = Callable[..., Array | tuple[Array, ...]]
"""(operator, *values of its operands) -> value of its output, without the fused activation."""

KERNELS: dict[type[ops.Op], Kernel] = {
    **windows.KERNELS,
    **layers.KERNELS,
    **elementwise.KERNELS,
    **moving.KERNELS,
    **typed.KERNELS,
    **detection.KERNELS,
}


def evaluate_all(op: ops.Op, values: Sequence[Array]) -> tuple[Array, ...]:
    """Return all outputs of one operator, its fused activation included.

    Raises:
        UnsupportedError: When there is no kernel for the operator (an Opaque one, say).
    """
    if type(op) not in KERNELS:
        kind = op.attributes().get("kind", type(op).__name__)
        raise UnsupportedError(f"{kind}: this operator cannot be executed. Cut the network before it with --outputs.")
    result = KERNELS[type(op)](op, *values)
    if isinstance(result, tuple):
        return result
    activation = getattr(op, "activation", None)
    return (result,) if activation is None else evaluate_all(activation, (result,))


def evaluate(op: ops.Op, values: Sequence[Array]) -> Array:
    """Return the only (or first) output of one operator; see `evaluate_all`."""
    return evaluate_all(op, values)[0]
