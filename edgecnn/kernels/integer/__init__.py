"""Integer kernels, one per operator with an integer form: (operator, its scales, *stored operands) -> stored output."""

from edgecnn import ops
from edgecnn.kernels.integer import elementwise, layers, lookups, moving, reductions, resampling
from edgecnn.kernels.integer.scales import IntegerKernel

KERNELS: dict[type[ops.Op], IntegerKernel] = {
    **layers.KERNELS,
    **elementwise.KERNELS,
    **lookups.KERNELS,
    **moving.KERNELS,
    **reductions.KERNELS,
    **resampling.KERNELS,
}
