"""Readers of activations: the names in a layer's `activation`, and the layers that are activations themselves.

Source: Keras 3, keras/src/activations; Keras 2, keras/activations.py, whose hard_sigmoid is min(max(0.2 x + 0.5, 0), 1)
where Keras 3's is relu6(x + 3) / 6.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace

from edgecnn import ops

from ._keras_call import LayerCall, LayerConfig, Parameter
from ._keras_json import show

Activation = Callable[[LayerCall, str, str], str]
"""(call, input tensor, name of the node that gives the result) -> output tensor."""

SELU_SCALE, SELU_ALPHA = 1.05070098735548, 1.67326324235437
"""Source: Klambauer et al., arXiv:1706.02515, equation 14."""


def node(op: ops.Op) -> Activation:
    """Return the activation that is one operator."""
    return lambda call, x, name: call.builder.node(name, op, x)


def _constant(call: LayerCall, name: str, value: float) -> str:
    return call.constant(name.removeprefix(call.name).lstrip("/") or "constant", value)


def _with_constant(call: LayerCall, op: ops.Op, x: str, name: str, value: float) -> str:
    return call.builder.node(name, op, x, _constant(call, f"{name}/value", value))


def _softsign(call: LayerCall, x: str, name: str) -> str:
    """X / (1 + |x|)."""
    below = _with_constant(call, ops.Add(), call.builder.node(f"{name}/absolute", ops.Abs(), x), f"{name}/plus_1", 1.0)
    return call.builder.node(name, ops.Div(), x, below)


def _mish(call: LayerCall, x: str, name: str) -> str:
    """X * tanh(softplus(x)). Source: Misra, arXiv:1908.08681."""
    gate = call.builder.node(f"{name}/tanh", ops.Tanh(), call.builder.node(f"{name}/softplus", ops.Softplus(), x))
    return call.builder.node(name, ops.Mul(), x, gate)


def _selu(call: LayerCall, x: str, name: str) -> str:
    x = call.builder.node(f"{name}/elu", ops.ELU(alpha=SELU_ALPHA), x)
    return _with_constant(call, ops.Mul(), x, name, SELU_SCALE)


def _hard_sigmoid(call: LayerCall, x: str, name: str) -> str:
    is_keras_2 = call.weights.version.startswith("2")
    return call.builder.node(name, ops.HardSigmoid(slope=0.2) if is_keras_2 else ops.HardSigmoid(), x)


ACTIVATIONS: Mapping[str, Activation] = {
    "linear": node(ops.Identity()),
    "relu": node(ops.ReLU()),
    "relu6": node(ops.ReLU6()),
    "leaky_relu": node(ops.LeakyReLU(slope=0.2)),
    "elu": node(ops.ELU()),
    "selu": _selu,
    "gelu": node(ops.GELU()),
    "silu": node(ops.Swish()),
    "swish": node(ops.Swish()),
    "hard_silu": node(ops.HardSwish()),
    "hard_swish": node(ops.HardSwish()),
    "hard_sigmoid": _hard_sigmoid,
    "sigmoid": node(ops.Sigmoid()),
    "tanh": node(ops.Tanh()),
    "softmax": node(ops.Softmax()),
    "softplus": node(ops.Softplus()),
    "softsign": _softsign,
    "exponential": node(ops.Exp()),
    "mish": _mish,
}
"""Name in a configuration -> activation."""

NAMES: Mapping[str, str] = {
    "silu": "swish",
    "hard_silu": "hardswish",
    "hard_swish": "hardswish",
    "leaky_relu": "leakyrelu",
    "hard_sigmoid": "hardsigmoid",
    "exponential": "exp",
}
"""Activation -> what its node is called behind a layer, where that is not its own name (as GraphBuilder.activate)."""


def read_activation(call: LayerCall) -> str:
    """Read Activation."""
    return _apply(call, call.config.values.get("activation") or "linear", call.input, call.name)


def activated(call: LayerCall, x: str) -> str:
    """Add the activation of a layer's configuration as a node of its own, named as GraphBuilder.activate does."""
    found = call.config.values.get("activation") or "linear"
    if found == "linear":
        return x
    label = found if isinstance(found, str) else _label(found)
    return _apply(call, found, x, f"{call.name}/{NAMES.get(label, label)}")


def _label(found: object) -> str:
    class_name = found.get("class_name") if isinstance(found, dict) else None
    return class_name.lower() if isinstance(class_name, str) else "activation"


def _apply(call: LayerCall, found: object, x: str, name: str) -> str:
    if isinstance(found, str) and found in ACTIVATIONS:
        return ACTIVATIONS[found](call, x, name)
    if (
        isinstance(found, dict)
        and found.get("class_name") in ACTIVATION_LAYERS
        and isinstance(found.get("config"), dict)
    ):
        config = LayerConfig(where=f"{call.config.where}: activation", values=found["config"])
        inner = replace(call, name=name, config=config, inputs=(x,))
        return ACTIVATION_LAYERS[found["class_name"]](inner)
    raise call.refuse(
        f"one of the activations {', '.join(ACTIVATIONS)}", f"{show(found)}. Put it into a layer that edgecnn reads."
    )


def read_relu(call: LayerCall) -> str:
    """Read ReLU: ReLU6 where max_value is 6, Clip for another one; LeakyReLU and Minimum with a slope."""
    if call.config.number("threshold", 0.0) != 0.0:
        raise call.refuse("threshold=0", show(call.config.values["threshold"]))
    slope = call.config.number("negative_slope", 0.0)
    limit = None if call.config.values.get("max_value") is None else call.config.number("max_value", 6.0)
    if slope and limit is not None:
        x = call.node(ops.LeakyReLU(slope=slope), call.input, suffix="/leakyrelu")
        return call.node(ops.Minimum(), x, call.constant("max_value", limit))
    if slope:
        return call.node(ops.LeakyReLU(slope=slope), call.input)
    if limit is None:
        return call.node(ops.ReLU(), call.input)
    return call.node(ops.ReLU6() if limit == 6.0 else ops.Clip(minimum=0.0, maximum=limit), call.input)


def read_leaky_relu(call: LayerCall) -> str:
    """Read LeakyReLU, whose slope Keras 2 calls alpha."""
    key = "alpha" if "alpha" in call.config.values else "negative_slope"
    return call.node(ops.LeakyReLU(slope=call.config.number(key, 0.3)), call.input)


def read_elu(call: LayerCall) -> str:
    """Read ELU."""
    return call.node(ops.ELU(alpha=call.config.number("alpha", 1.0)), call.input)


def read_prelu(call: LayerCall) -> str:
    """Read PReLU; slopes that are shared over all axes but the last have the shape (C,)."""
    shared = () if call.config.values.get("shared_axes") is None else call.config.integers("shared_axes", minimum=1)
    shape = tuple(1 if axis in shared else size for axis, size in enumerate(call.sizes, start=1))
    ours = shape[-1:] if all(size == 1 for size in shape[:-1]) else shape
    return call.node(ops.PReLU(), call.input, *call.parameters(Parameter(name="slope", file_shape=shape, shape=ours)))


def read_softmax(call: LayerCall) -> str:
    """Read Softmax over the last axis."""
    axis, rank = call.config.values.get("axis", -1), len(call.shape)
    if axis not in (-1, rank - 1):
        raise call.refuse("the last axis", f"axis={show(axis)}")
    return call.node(ops.Softmax(), call.input)


ACTIVATION_LAYERS: Mapping[str, Callable[[LayerCall], str]] = {
    "ReLU": read_relu,
    "LeakyReLU": read_leaky_relu,
    "ELU": read_elu,
    "Softmax": read_softmax,
}
"""Layers without variables that may stand in another layer's `activation`."""


def apply_named(name: str) -> Callable[[LayerCall], str]:
    """Return the reader of an operation of keras.ops that is an activation by that name."""
    return lambda call: ACTIVATIONS[name](call, call.input, call.name)


def apply_operator(op: ops.Op) -> Callable[[LayerCall], str]:
    """Return the reader of an operation of keras.ops that is one operator without parameters."""
    return lambda call: call.node(op, call.input)
