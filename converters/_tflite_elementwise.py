"""Rows of TFLite's elementwise operators and Softmax; what it has no operator for is spelled out."""

from collections.abc import Callable
from typing import Any

from edgecnn import ops
from edgecnn.graph import Node

from ._tflite_elements import Elements, exactly, times
from ._tflite_emitter import Spec, TfliteEmitter

Row = Callable[[TfliteEmitter, Node], None]

ADD, MUL = Spec(kind="ADD", options="Add"), Spec(kind="MUL", options="Mul")
MAXIMUM = Spec(kind="MAXIMUM", options="MaximumMinimum")
MINIMUM = Spec(kind="MINIMUM", options="MaximumMinimum")

BROADCAST_BEYOND_FOUR = {"SUB": 3, "DIV": 2, "MAXIMUM": 3, "MINIMUM": 3}
"""Operator -> the version that broadcasts over more than four axes. Source: LiteRT, op_version.cc."""


def _version(e: TfliteEmitter, node: Node, kind: str) -> int:
    first, second = (e.shape(name) for name in node.inputs)
    is_wide = first != second and max(len(first), len(second)) > 4
    return BROADCAST_BEYOND_FOUR.get(kind, 1) if is_wide else 1


def _arithmetic(kind: str) -> Row:
    """Return the row of an operator that carries an activation inside."""

    def emit(e: TfliteEmitter, node: Node) -> None:
        fields: dict[str, object] = {"fusedActivationFunction": e.fused(node)}
        if kind in ("ADD", "SUB") and e.dtype(e.value(node.output)) == "int16":
            fields["potScaleInt16"] = False
        spec = Spec(kind=kind, options=kind.title(), fields=fields, version=_version(e, node, kind))
        e.operator(spec, [e.value(name) for name in node.inputs], [e.value(node.output)])

    return emit


def _binary(kind: str, options: str) -> Row:
    """Return the row of an operator of two inputs that carries none."""

    def emit(e: TfliteEmitter, node: Node) -> None:
        spec = Spec(kind=kind, options=options, version=_version(e, node, kind))
        e.layer(node, spec, [e.value(name) for name in node.inputs])

    return emit


def _plain(kind: str, options: str = "", attributes: Callable[[Any], dict[str, object]] = lambda op: {}) -> Row:
    """Return the row of an operator that takes its inputs as they are."""
    return lambda e, node: e.operator(
        Spec(kind=kind, options=options, fields=attributes(node.op)),
        [e.value(name) for name in node.inputs],
        [e.value(node.output)],
    )


class _Steps:
    """Spells a node of one input out, inner tensor by inner tensor, each of the output's shape."""

    def __init__(self, e: TfliteEmitter, node: Node) -> None:
        self.e, self.node = e, node
        self.x = e.value(node.inputs[0])

        self.taken, self.given = e.elements(self.x), e.elements(e.value(node.output))

    def step(self, label: str, spec: Spec, *inputs: int, elements: Elements | None = None) -> int:
        """Add an inner tensor; it holds what the output holds, or `elements`."""
        shape = self.e.shape(self.node.output)
        return self.e.step(f"{self.node.name}/{label}", shape, spec, inputs, elements or self.given)

    def scalar(self, label: str, value: float, elements: Elements | None = None) -> int:
        """Add a number, exact unless `elements` hold it."""
        return self.e.scalar(f"{self.node.name}/{label}", value, elements or exactly(value, self.taken))

    def last(self, spec: Spec, *inputs: int) -> None:
        self.e.operator(spec, inputs, [self.e.value(self.node.output)])


def _clip(e: TfliteEmitter, node: Node) -> None:
    op: Any = node.op
    s = _Steps(e, node)
    x = s.x if s.taken == s.given else s.step("requantized", Spec(kind="QUANTIZE", options="Quantize"), s.x)
    raised = s.step("raised", MAXIMUM, x, s.scalar("minimum", op.minimum, s.given))
    s.last(MINIMUM, raised, s.scalar("maximum", op.maximum, s.given))


def _swish(e: TfliteEmitter, node: Node) -> None:
    s = _Steps(e, node)
    s.last(MUL, s.x, s.step("gate", Spec(kind="LOGISTIC"), s.x))


def _hard_sigmoid(e: TfliteEmitter, node: Node) -> None:
    """clip(a x + b, 0, 1) = relu6(6 a x + 6 b) / 6, which the additions of every runtime carry inside.

    Integers stay as they are when both products are taken: only what they stand for changes.
    """
    op: Any = node.op
    s, slope = _Steps(e, node), 6 * op.slope
    wide = times(slope, s.taken)
    scaled = s.x if slope == 1 else s.step("scaled", MUL, s.x, s.scalar("slope", slope), elements=wide)
    spec = Spec(kind="ADD", options="Add", fields={"fusedActivationFunction": e.s.ActivationFunctionType.RELU6})
    offset = s.scalar("offset", 6 * op.offset)
    shifted = s.step("shifted", spec, scaled, offset, elements=times(6, s.given))
    s.last(MUL, shifted, s.scalar("sixth", 1 / 6))


def _elu(e: TfliteEmitter, node: Node) -> None:
    """TFLite's alpha is 1; for another, elu(x) = relu(x) + alpha elu_1(min(x, 0))."""
    op: Any = node.op
    s = _Steps(e, node)
    if op.alpha == 1:
        s.last(Spec(kind="ELU"), s.x)
        return
    below = s.step("below", Spec(kind="ELU"), s.step("negative", MINIMUM, s.x, s.scalar("zero", 0.0)))
    scaled = s.step("scaled", MUL, below, s.scalar("alpha", op.alpha))
    s.last(ADD, s.step("positive", Spec(kind="RELU"), s.x), scaled)


def _softplus(e: TfliteEmitter, node: Node) -> None:
    """log(1 + exp(x)) = relu(x) + log(1 + exp(-|x|)), which never overflows."""
    s = _Steps(e, node)
    size = s.step("size", Spec(kind="ABS", options="Abs"), s.x)
    decay = s.step("decay", Spec(kind="EXP", options="Exp"), s.step("negated", Spec(kind="NEG", options="Neg"), size))
    rest = s.step("rest", Spec(kind="LOG"), s.step("raised", ADD, decay, s.scalar("one", 1.0)))
    s.last(ADD, s.step("positive", Spec(kind="RELU"), s.x), rest)


ROWS: dict[type[ops.Op], Row] = {
    ops.Add: _arithmetic("ADD"),
    ops.Sub: _arithmetic("SUB"),
    ops.Mul: _arithmetic("MUL"),
    ops.Div: _arithmetic("DIV"),
    ops.Maximum: _binary("MAXIMUM", "MaximumMinimum"),
    ops.Minimum: _binary("MINIMUM", "MaximumMinimum"),
    ops.Pow: _binary("POW", "Pow"),
    ops.ReLU: _plain("RELU"),
    ops.ReLU6: _plain("RELU6"),
    ops.LeakyReLU: _plain("LEAKY_RELU", "LeakyRelu", lambda op: {"alpha": op.slope}),
    ops.PReLU: _plain("PRELU"),
    ops.ELU: _elu,
    ops.Sigmoid: _plain("LOGISTIC"),
    ops.HardSigmoid: _hard_sigmoid,
    ops.HardSwish: _plain("HARD_SWISH", "HardSwish"),
    ops.Swish: _swish,
    ops.GELU: _plain("GELU", "Gelu", lambda op: {"approximate": op.approximate}),
    ops.Softplus: _softplus,
    ops.Tanh: _plain("TANH"),
    ops.Clip: _clip,
    ops.Softmax: _plain("SOFTMAX", "Softmax", lambda op: {"beta": 1.0}),
    ops.Sqrt: _plain("SQRT"),
    ops.Exp: _plain("EXP", "Exp"),
    ops.Log: _plain("LOG"),
    ops.Rsqrt: _plain("RSQRT"),
    ops.Abs: _plain("ABS", "Abs"),
    ops.Neg: _plain("NEG", "Neg"),
    ops.Floor: _plain("FLOOR"),
    ops.Ceil: _plain("CEIL"),
    ops.Round: _plain("ROUND"),
    ops.Sin: _plain("SIN"),
    ops.Cos: _plain("COS", "Cos"),
}
