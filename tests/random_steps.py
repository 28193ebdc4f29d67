"""The steps that a random Graph is built of: each adds one operator, with what it needs, behind a tensor.

A step returns the tensor that it was given where that has no form that the operator takes.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
from hypothesis import strategies as st

from edgecnn import ops
from edgecnn.builder import GraphBuilder, he_normal

Draw = Callable[[st.SearchStrategy[Any]], Any]


class RandomBuilder(GraphBuilder):
    """A builder that names what it adds."""

    def __init__(self, seed: int) -> None:
        super().__init__("random", initialise=he_normal(seed))
        self.rng = np.random.default_rng(seed)
        self.count = 0
        self.made: dict[tuple[int, ...], str] = {}

    def fresh(self) -> str:
        self.count += 1
        return f"n{self.count}"

    def then(self, op: ops.Op, *inputs: str) -> str:
        return self.node(self.fresh(), op, *inputs)

    def const(self, *shape: int | None) -> str:
        """Return a constant; every third time the one that was made last in this shape."""
        sizes = tuple(n or 1 for n in shape)
        if sizes not in self.made or self.rng.random() > 1 / 3:
            self.made[sizes] = self.constant(self.fresh(), self.rng.standard_normal(sizes, dtype=np.float32))
        return self.made[sizes]

    def scalar(self, value: float) -> str:
        return self.constant(self.fresh(), np.asarray(value, np.float32))

    def bounded(self, x: str) -> str:
        return self.then(ops.Tanh(), x)

    def sizes(self, tensor: str) -> list[int]:
        return [size or 1 for size in self.shape(tensor)]

    def inputs(self) -> list[str]:
        return [port.name for port in self._inputs]

    def earlier(self) -> list[str]:
        """Return what was computed in float32 so far, the inputs among it."""
        return [n for n, t in self._tensors.items() if t.data is None and t.dtype == "float32"]

    def positive(self, x: str) -> str:
        return self.then(ops.Add(), self.then(ops.Abs(), x), self.scalar(0.5))


Step = Callable[[RandomBuilder, str, Draw], str]


def _rank(b: RandomBuilder, x: str) -> int:
    return len(b.shape(x))


def _axis(b: RandomBuilder, x: str, draw: Draw, *, lowest: int = 1) -> int:
    return int(draw(st.integers(min(lowest, _rank(b, x) - 1), _rank(b, x) - 1)))


def _is_image(b: RandomBuilder, x: str) -> bool:
    return _rank(b, x) == 4


def _conv(b: RandomBuilder, x: str, draw: Draw) -> str:
    if _rank(b, x) not in (3, 4, 5):
        return x
    rank, channels = _rank(b, x) - 2, b.shape(x)[-1] or 1
    groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
    padding = draw(st.sampled_from(["same", "valid", ((1, 0),) * rank, ((2, 1),) * rank]))
    stride, dilation = draw(st.sampled_from([(1, 1), (2, 1), (1, 2)]))
    return b.conv(
        x,
        b.fresh(),
        groups * draw(st.integers(1, 3)),
        kernel_size=draw(st.integers(1, 3)),
        stride=stride,
        dilation=dilation,
        padding=padding,
        groups=groups,
        use_bias=draw(st.booleans()),
    )


def _conv_transpose(b: RandomBuilder, x: str, draw: Draw) -> str:
    if _rank(b, x) not in (3, 4, 5):
        return x
    rank, channels, stride = _rank(b, x) - 2, b.shape(x)[-1] or 1, draw(st.integers(1, 2))
    groups = draw(st.sampled_from([g for g in (1, 2, channels) if channels % g == 0]))
    op = ops.ConvTranspose(
        stride=(stride,) * rank,
        padding=draw(st.sampled_from([((0, 0),) * rank, ((1, 0), (0, 1), (0, 0))[:rank]])),
        dilation=(draw(st.sampled_from([1, 1, 2])),) * rank,
        output_padding=(draw(st.integers(0, stride - 1)), 0, 0)[:rank],
        groups=groups,
    )
    return b.then(op, x, b.const(*(3, 2, 2)[:rank], channels // groups, 2 * groups), b.const(2 * groups))


def _pool(b: RandomBuilder, x: str, draw: Draw) -> str:
    if _rank(b, x) not in (3, 4, 5):
        return x
    rank = _rank(b, x) - 2
    window: dict[str, Any] = {
        "kernel_size": (draw(st.integers(2, 3)),) * rank,
        "stride": (draw(st.integers(1, 2)),) * rank,
        "padding": (draw(st.sampled_from([(0, 0), (1, 0), (1, 1)])),) * rank,
    }
    if draw(st.booleans()):
        return b.then(ops.MaxPool(**window), x)
    return b.then(ops.AveragePool(**window, count_include_pad=draw(st.booleans())), x)


def _dense(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.dense(x, b.fresh(), draw(st.integers(1, 6)), use_bias=draw(st.booleans()))


def _mat_mul(b: RandomBuilder, x: str, draw: Draw) -> str:
    rank = _rank(b, x)
    if rank < 3:
        return x
    order = (*range(rank - 2), rank - 1, rank - 2)
    return b.then(ops.MatMul(), b.bounded(x), b.then(ops.Transpose(permutation=order), x))


def _reduction(b: RandomBuilder, x: str, draw: Draw) -> str:
    kind = draw(st.sampled_from([ops.Mean, ops.Sum, ops.Max, ops.Min, ops.Prod]))
    axes = tuple(sorted(draw(st.sets(st.integers(1, _rank(b, x) - 1), min_size=1, max_size=2))))
    source = b.bounded(x) if kind is ops.Prod else x
    return b.then(kind(axes=axes, keep_dims=draw(st.booleans())), source)


def _arithmetic(b: RandomBuilder, x: str, draw: Draw) -> str:
    kind = draw(st.sampled_from([ops.Add, ops.Sub, ops.Mul, ops.Maximum, ops.Minimum]))
    shape = [draw(st.sampled_from([1, n or 1])) for n in b.sizes(x)]
    other = draw(st.sampled_from(["constant", "row", "scalar", "itself", "reduced"]))
    if other == "itself":
        return b.then(kind(), x, b.then(ops.Sin(), x))
    if other == "reduced":
        return b.then(kind(), b.then(ops.Mean(axes=(_rank(b, x) - 1,), keep_dims=True), x), x)
    constant = {"constant": shape, "row": shape[-1:], "scalar": []}[other]
    activation = draw(st.sampled_from([None, ops.ReLU(), ops.ReLU6()]))
    return b.then(kind(activation=activation), x, b.const(*constant))


def _folded(b: RandomBuilder, x: str, draw: Draw) -> str:
    """Take part in arithmetic with what follows from constants alone."""
    alone = b.then(draw(st.sampled_from([ops.Tanh(), ops.Sigmoid(), ops.Neg()])), b.const(b.shape(x)[-1]))
    return b.then(draw(st.sampled_from([ops.Add, ops.Mul, ops.Sub]))(), x, alone)


def _gate(b: RandomBuilder, x: str, draw: Draw) -> str:
    """Squeeze and excite."""
    mean = b.then(ops.Mean(axes=tuple(range(1, _rank(b, x) - 1)) or (1,), keep_dims=True), x)
    dense = b.dense(mean, b.fresh(), b.sizes(x)[-1]) if _rank(b, x) > 2 else mean
    return b.then(ops.Mul(), x, b.then(draw(st.sampled_from([ops.Sigmoid(), ops.HardSigmoid()])), dense))


def _second_input(b: RandomBuilder, x: str, draw: Draw) -> str:
    """Meet an input of the same shape, or one that is spread over it."""
    if "second" in b.inputs():
        return x
    batch, *sizes = b.shape(x)
    shape = (batch, *(draw(st.sampled_from([n or 1, n or 1, 1])) for n in sizes))
    second = b.input("second", shape)
    if shape == b.shape(x) and draw(st.booleans()):
        return b.then(ops.Concat(axis=_axis(b, x, draw)), second, x)
    return b.then(draw(st.sampled_from([ops.Add, ops.Mul, ops.Sub, ops.Maximum]))(), second, x)


def _div(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.Div(), x, b.positive(x))


def _pow(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.Pow(), b.positive(b.bounded(x)), b.scalar(draw(st.sampled_from([0.5, 2.0, -1.0, 1.5]))))


ACTIVATIONS = (
    *(ops.ReLU(), ops.ReLU6(), ops.Sigmoid(), ops.Tanh(), ops.Swish(), ops.HardSwish(), ops.HardSigmoid(slope=0.2)),
    *(ops.HardSigmoid(), ops.LeakyReLU(slope=0.1), ops.ELU(), ops.ELU(alpha=0.5), ops.Softplus(), ops.GELU()),
    *(ops.GELU(approximate=True), ops.Clip(minimum=-0.4, maximum=0.7), ops.Abs(), ops.Neg(), ops.Sin(), ops.Cos()),
    *(ops.Identity(), ops.Dropout(rate=0.2), ops.Softmax(), ops.L2Normalize(), ops.L2Normalize(epsilon=1e-3)),
    *(ops.Floor(), ops.Ceil(), ops.Round()),
)


def _of_positive(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(draw(st.sampled_from([ops.Sqrt(), ops.Log(), ops.Rsqrt()])), b.positive(x))


def _erf(b: RandomBuilder, x: str, draw: Draw) -> str:
    """TFLite has no error function, and refuses what stands beside it: it comes rarely."""
    return b.then(ops.Erf() if draw(st.integers(0, 3)) == 3 else ops.GELU(), x)


def _exp(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.Exp(), b.bounded(x))


def _prelu(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.PReLU(), x, b.const(b.shape(x)[-1]))


def _norm(b: RandomBuilder, x: str, draw: Draw) -> str:
    channels = b.shape(x)[-1] or 1
    gamma, beta = b.const(channels), b.const(channels)
    kind = draw(st.sampled_from(["layer", "group", "batch"]))
    if kind == "layer" and channels > 1:
        return b.then(ops.LayerNorm(epsilon=1e-2), x, gamma, beta)
    if kind == "group" and _is_image(b, x) and ops.elements(b.shape(x)[1:3]) > 1:
        groups = draw(st.sampled_from([g for g in range(1, channels + 1) if channels % g == 0]))
        return b.then(ops.GroupNorm(groups=groups, epsilon=1e-2), x, gamma, beta)
    variance = b.constant(b.fresh(), b.rng.uniform(0.5, 2, channels).astype(np.float32))
    return b.then(ops.BatchNorm(), x, gamma, beta, b.const(channels), variance)


def _lrn(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.LRN(size=3, alpha=0.2, beta=0.6, bias=1.5), x) if _is_image(b, x) else x


def _pad(b: RandomBuilder, x: str, draw: Draw) -> str:
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    sizes = b.sizes(x)
    pairs = [(0, 0), *((draw(st.integers(0, min(2, n - 1))), draw(st.integers(0, min(1, n - 1)))) for n in sizes[1:])]
    return b.then(ops.Pad(padding=tuple(pairs), mode=mode, value=0.5 if mode == "constant" else 0.0), x)


def _reshape(b: RandomBuilder, x: str, draw: Draw) -> str:
    batch, sizes = b.shape(x)[0], [n or 1 for n in b.shape(x)[1:]]
    joined = [(*sizes[:i], sizes[i] * sizes[i + 1], *sizes[i + 2 :]) for i in range(len(sizes) - 1)]
    cut = [(*sizes[:i], 2, n // 2, *sizes[i + 1 :]) for i, n in enumerate(sizes) if n % 2 == 0 and len(sizes) < 4]
    return b.then(ops.Reshape(shape=(batch, *draw(st.sampled_from([tuple(sizes), *joined, *cut])))), x)


def _transpose(b: RandomBuilder, x: str, draw: Draw) -> str:
    order = draw(st.permutations(range(1, _rank(b, x))))
    return b.then(ops.Transpose(permutation=(0, *order)), x)


def _concat(b: RandomBuilder, x: str, draw: Draw) -> str:
    more = [b.then(op, x) for op in draw(st.lists(st.sampled_from(ACTIVATIONS[:4]), min_size=1, max_size=6))]
    return b.then(ops.Concat(axis=_axis(b, x, draw)), x, *more)


def _rejoin(b: RandomBuilder, x: str, draw: Draw) -> str:
    """Meet an earlier tensor, its axes turned until it has the same shape."""
    rank, batch, *_ = _rank(b, x), *b.shape(x)
    orders = [(0, *order) for order in permutations(range(1, rank))]
    found = [
        (name, order)
        for name in b.earlier()
        if name != x and len(b.shape(name)) == rank and b.shape(name)[0] == batch
        for order in orders
        if tuple(b.shape(name)[axis] for axis in order) == b.shape(x)
    ]
    if not found:
        return x
    name, order = draw(st.sampled_from(found))
    if order != orders[0]:
        name = b.then(ops.Transpose(permutation=order), name)
    if draw(st.booleans()):
        return b.then(ops.Concat(axis=_axis(b, x, draw)), name, x)
    return b.then(draw(st.sampled_from([ops.Add, ops.Mul, ops.Maximum]))(), x, name)


def _split(b: RandomBuilder, x: str, draw: Draw) -> str:
    axis = _axis(b, x, draw)
    size = b.shape(x)[axis] or 1
    if size < 2:
        return x
    first = draw(st.integers(1, size - 1))
    name = b.fresh()
    left, right = b.nodes(name, ops.Split(axis=axis, sizes=(first, size - first)), (x,), (name, f"{name}_rest"))
    return b.then(ops.Concat(axis=axis), b.then(ops.ReLU(), right), left)


def _slice(b: RandomBuilder, x: str, draw: Draw) -> str:
    boxes: list[tuple[int, int | None, int]] = [(0, None, 1)]
    for size in b.shape(x)[1:]:
        begin = draw(st.integers(0, (size or 1) - 1))
        boxes.append((begin, draw(st.integers(begin + 1, size or 1)), draw(st.integers(1, 2))))
    begin, end, step = zip(*boxes, strict=True)
    return b.then(ops.Slice(begin=begin, end=end, step=step), x)


def _gather(b: RandomBuilder, x: str, draw: Draw) -> str:
    axis = _axis(b, x, draw)
    indices = draw(st.lists(st.integers(0, (b.shape(x)[axis] or 1) - 1), min_size=1, max_size=4))
    index = indices[0] if draw(st.booleans()) and _rank(b, x) > 2 else indices
    return b.then(ops.Gather(axis=axis), x, b.constant(b.fresh(), np.asarray(index, np.int64)))


def _tile(b: RandomBuilder, x: str, draw: Draw) -> str:
    return b.then(ops.Tile(multiples=(1, *(draw(st.integers(1, 2)) for _ in b.shape(x)[1:]))), x)


RESIZES = (
    *(("nearest", "half_pixel"), ("nearest", "asymmetric"), ("bilinear", "half_pixel")),
    *(("bilinear", "asymmetric"), ("bilinear", "align_corners"), ("nearest", "align_corners")),
)


def _resize(b: RandomBuilder, x: str, draw: Draw) -> str:
    if not _is_image(b, x):
        return x
    method, coordinates = draw(st.sampled_from(RESIZES))
    doubled = tuple((n or 1) * 2 for n in b.shape(x)[1:3])
    size = draw(st.sampled_from([doubled, (draw(st.integers(1, 9)), draw(st.integers(1, 9)))]))
    return b.then(ops.Resize(size=size, method=method, coordinates=coordinates), x)


def _blocks(b: RandomBuilder, x: str, draw: Draw) -> str:
    if not _is_image(b, x):
        return x
    _, height, width, channels = (n or 1 for n in b.shape(x))
    if channels % 4 == 0:
        return b.then(ops.DepthToSpace(block=2), x)
    return b.then(ops.SpaceToDepth(block=2), x) if height % 2 == width % 2 == 0 else x


def _arg_max(b: RandomBuilder, x: str, draw: Draw) -> str:
    op = ops.ArgMax(axis=_axis(b, x, draw), keep_dims=draw(st.booleans()) or _rank(b, x) == 2)
    return b.then(ops.Cast(dtype="float32"), b.then(op, x))


def _where(b: RandomBuilder, x: str, draw: Draw) -> str:
    kinds = [ops.Greater, ops.GreaterOrEqual, ops.Less, ops.LessOrEqual]
    first = b.then(draw(st.sampled_from(kinds))(), x, b.scalar(0.123))
    second = b.then(draw(st.sampled_from(kinds))(), x, b.const(b.shape(x)[-1]))
    chosen = {
        "and": lambda: b.then(ops.And(), first, second),
        "or": lambda: b.then(ops.Or(), first, second),
        "not": lambda: b.then(ops.Not(), first),
        "equal": lambda: b.then(ops.Equal(), b.then(ops.Round(), x), b.scalar(1.0)),
    }[draw(st.sampled_from(["and", "or", "not", "equal"]))]()
    return b.then(ops.Where(), chosen, x, draw(st.sampled_from([b.then(ops.Neg(), x), b.scalar(-1.5)])))


STEPS: dict[str, Step] = {
    step.__name__.strip("_"): step
    for step in (
        *(_conv, _conv_transpose, _pool, _dense, _mat_mul, _reduction, _arithmetic, _folded, _gate, _second_input),
        *(_div, _pow, _erf, _of_positive, _exp, _prelu, _norm, _lrn, _pad, _reshape, _transpose, _concat, _rejoin),
        *(_split, _slice, _gather, _tile, _resize, _blocks, _arg_max, _where),
    )
}
