"""Store float32 constants as float16: half the file, the same arithmetic on rounded values.

A constant beyond float16's largest number (65504) stays float32, since it would become infinite.
"""

from dataclasses import replace

import numpy as np

from edgecnn.graph import Graph, Tensor

LARGEST = float(np.finfo(np.float16).max)


def store_float16(graph: Graph) -> Graph:
    """Return the Graph with its float32 constants rounded to float16 storage; `Tensor.value()` widens them again."""
    return replace(graph, tensors={name: _stored(tensor) for name, tensor in graph.tensors.items()})


def _stored(tensor: Tensor) -> Tensor:
    data = tensor.data
    if data is None or data.dtype != np.float32 or not data.size or float(np.abs(data).max()) > LARGEST:
        return tensor
    return replace(tensor, data=data.astype(np.float16))
