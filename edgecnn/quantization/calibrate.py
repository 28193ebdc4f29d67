"""Calibrate: which values every tensor of a float network takes on real inputs, and the range to quantize it to.

One pass over the images, in constant memory: the runtime gives all tensors of one image, each is added to its running
statistics, and the next image follows.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from edgecnn.errors import UnknownNameError, UsageError
from edgecnn.graph import Array, Graph
from edgecnn.ports import nearest
from edgecnn.quantization.calibration import Calibration
from edgecnn.quantization.inner_values import Tracer, float_tensors, in_runs, open_tracer
from edgecnn.quantization.moments import Moments
from edgecnn.quantization.observers import OBSERVERS, Settings
from edgecnn.registry import unknown

CHECKPOINTS = 32
"""At most so many points of the convergence curve are kept."""


def calibrate(
    graph: Graph,
    batches: Iterable[Mapping[str, Array]],
    *,
    observer: str = "min_max",
    percentile: float = 99.99,
    momentum: float = 0.9,
    bits: int = 8,
    tensors: Iterable[str] | None = None,
    threads: int = 1,
    advance: Callable[[], None] = lambda: None,
    origin: str,
    is_random: bool = False,
) -> Calibration:
    """Run a float Graph on real inputs and return what its tensors hold.

    Args:
        graph: Deployed float Graph.
        batches: Port name -> (n, ...) values in the Graph's order (pictures NHWC), preprocessed; any n, each seen once.
        observer: A name of OBSERVERS.
        percentile: See observers.Settings.
        momentum: See observers.Settings.
        bits: See observers.Settings.
        tensors: Names of those that are wanted; None takes the inputs and all that is computed. Integer ones are left
            out.
        threads: For the runtime.
        advance: Called after each image.
        origin: Where the inputs come from, for people.
        is_random: Whether they are random numbers.

    Raises:
        UsageError: When the Graph is quantized already, a value does not fit its input, or there is none.
        UnknownNameError: When no observer or tensor has a name.
        CheckFailedError: When a tensor holds what is no finite number.

    >>> from edgecnn.builder import GraphBuilder, he_normal
    >>> from edgecnn.ops import ReLU
    >>> b = GraphBuilder("tiny", initialise=he_normal(0))
    >>> graph = b.finish({"y": b.node("relu", ReLU(), b.input("x", (1, 2)))})
    >>> found = calibrate(graph, [{"x": np.float32([[-3, 4], [1, 2]])}], origin="two rows")
    >>> found.statistics["relu"].low, found.statistics["relu"].high, found.images
    (0.0, 4.0, 2)
    """
    if observer not in OBSERVERS:
        raise UnknownNameError(unknown("observer", observer, OBSERVERS))
    names = _observed(graph, tensors)
    row, settings = OBSERVERS[observer], Settings(percentile=percentile, momentum=momentum, bits=bits)
    moments = {name: Moments(name, row, settings) for name in names}
    settling = Settling()
    with open_tracer(graph, names, threads=threads) as tracer:
        images = _seen(tracer, batches, moments, settling, advance)
    if not images:
        raise UsageError(f"{graph.name}: inputs to calibrate on were wanted; got none")
    return Calibration(
        statistics={name: each.statistics() for name, each in moments.items()},
        images=images,
        origin=origin,
        is_random=is_random,
        backend=tracer.backend,
        observer=_described(observer, settings),
        convergence=settling.curve(),
    )


def _observed(graph: Graph, tensors: Iterable[str] | None) -> list[str]:
    """Return the tensors to observe, each once."""
    if graph.is_quantized:
        raise UsageError(f"{graph.name}: a float network was wanted to calibrate; this one is quantized already")
    known = float_tensors(graph)
    names = list(dict.fromkeys(known if tensors is None else tensors))
    for name in names:
        if name not in graph.tensors or graph.tensors[name].is_constant:
            computed = [each for each, tensor in graph.tensors.items() if not tensor.is_constant]
            raise UnknownNameError(f"{graph.name}: {nearest('computed tensor', name, computed)}")
    return [name for name in names if name in set(known)]


def _described(observer: str, settings: Settings) -> str:
    """Return an observer with the settings that it reads."""
    read = ", ".join(f"{name}={getattr(settings, name):g}" for name in OBSERVERS[observer].reads)
    return f"{observer}({read})" if read else observer


def _seen(
    tracer: Tracer,
    batches: Iterable[Mapping[str, Array]],
    moments: Mapping[str, Moments],
    settling: "Settling",
    advance: Callable[[], None],
) -> int:
    """Add all images to the statistics and return how many there were."""
    images = 0
    for values, size in in_runs(batches, tracer.batch):
        for name, array, channel_axis in tracer.run(values):
            shown = array[:size] if array.shape[:1] == (tracer.batch,) else array
            moments[name].add(shown, channel_axis)
        images += size
        settling.add(images, [each.high - each.low for each in moments.values()])
        for _ in range(size):
            advance()
    return images


class Settling:
    """How the ranges of all tensors grow: their widths after some numbers of images, thinned out as images pass."""

    def __init__(self) -> None:
        self._every = 1
        self._widths: dict[int, Array] = {}
        self._last: tuple[int, Array] = (0, np.zeros(0))

    def add(self, images: int, widths: Sequence[float]) -> None:
        """Take the width of each tensor's range after so many images."""
        self._last = (images, np.asarray(widths))
        if images // self._every > max(self._widths, default=0) // self._every:
            self._widths[images] = self._last[1]
        if len(self._widths) > CHECKPOINTS:
            self._every *= 2
            self._widths = dict(list(self._widths.items())[1::2])

    def curve(self) -> dict[int, float]:
        """Return images -> largest share of any tensor's final range that the images behind them still brought."""
        images, final = self._last
        widths = {**self._widths, images: final}
        safe = np.where(final > 0, final, 1)
        return {count: float(((final - each) / safe).max(initial=0)) for count, each in widths.items()}
