"""A Graph as a keras.Model, and the weights of that model back in the Graph.

A node "block_3/expand" becomes the layer "block_3.expand", since Keras keeps "/" for itself; what TensorFlow refuses
in names becomes "_". Nodes that share their parameters become one layer that is called several times.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any

import numpy as np

from edgecnn.errors import UnsupportedError, UsageError
from edgecnn.extras import require
from edgecnn.graph import Graph, Node, Port
from edgecnn.ops import Op, Opaque
from edgecnn.shapes import show_shape

from ._keras_groups import lowered
from ._keras_operators import WRITERS
from ._keras_ports import MARK
from ._keras_untied import untied
from ._keras_writers import REMEDY, LayerSpec, NodeView
from ._unique_names import unique

LARGEST_CONSTANT = 1 << 18
"""Numbers in a constant that is no layer's variable; Keras writes each as some 20 characters of JSON."""


def framework(*, purpose: str) -> ModuleType:
    """Return the module keras, on TensorFlow unless the variable KERAS_BACKEND says otherwise.

    Args:
        purpose: What needs it, for the error: "edgecnn train".

    Raises:
        MissingError: When Keras, or TensorFlow under it, is not installed.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings about CPU instructions and absent GPUs
    if os.environ.setdefault("KERAS_BACKEND", "tensorflow") == "tensorflow":
        require("tensorflow", purpose=purpose)
    return require("keras", purpose=purpose)


def layer_name(name: str) -> str:
    """Return the name of a node or port as Keras and TensorFlow take it; several names may become one.

    Source: TensorFlow, python/framework/ops.py, _VALID_SCOPE_NAME_REGEX, which exporting a SavedModel checks.

    >>> layer_name("block_3/expand;block_3/bias:0")
    'block_3.expand_block_3.bias_0'
    """
    plain = re.sub(r"[^A-Za-z0-9_.\\>-]", "_", name.replace("/", "."))
    return plain if re.match(r"[A-Za-z0-9.]", plain) else f".{plain}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """One call of one Keras layer.

    Attributes:
        node: The node that it stands for, wholly or in part.
        layer: Name of the layer; a name that came before is that layer called again.
        spec: What the layer is.
        inputs: What the first layer of a node is called on; empty for one that goes on with the layer before it.
        outputs: Tensors of the Graph that come out; none within a node.
        constants: The layer's variables as constants of the Graph, in Keras' order.
    """

    node: Node
    layer: str
    spec: LayerSpec
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: tuple[str, ...]


def plan(graph: Graph) -> tuple[Step, ...]:
    """Return the layer calls that stand for a Graph, in order.

    Raises:
        UnsupportedError: Naming the node that Keras has no layer for.
    """
    graph, names = lowered(graph), dict[object, str]()
    used = dict.fromkeys(_input_names(graph), 1)
    steps = [step for node in graph.nodes for step in _steps(graph, node, names, used)]
    holders: dict[str, str] = {}
    for step in steps:
        for name in step.constants:
            if holders.setdefault(name, step.layer) != step.layer:
                raise UnsupportedError(
                    f"{step.node.name}: parameters of its own were wanted; '{name}' belongs to '{holders[name]}' too, "
                    "a layer with other arguments"
                )
    return tuple(steps)


def _input_names(graph: Graph) -> tuple[str, ...]:
    """Return the name of each input in Keras."""
    used: dict[str, int] = {}
    return tuple(unique(layer_name(port.name), used) for port in graph.inputs)


def _steps(graph: Graph, node: Node, names: dict[object, str], used: dict[str, int]) -> Iterator[Step]:
    specs = (*_specs(graph, node, node.op), *_fused(graph, node))
    for position, spec in enumerate(specs):
        constants = tuple(_parameter(graph, node, operand) for operand in spec.variables)
        key = (spec.class_name, repr(sorted(spec.config.items())), constants) if constants else (node.name, position)
        if key not in names:
            names[key] = unique(layer_name(f"{node.name}{spec.suffix}"), used)
        yield Step(
            node=node,
            layer=names[key],
            spec=spec,
            constants=constants,
            inputs=_data_inputs(graph, node, specs) if position == 0 else (),
            outputs=node.outputs if position == len(specs) - 1 else (),
        )


def _specs(graph: Graph, node: Node, op: Op) -> tuple[LayerSpec, ...]:
    if type(op) not in WRITERS:
        kind = op.kind if isinstance(op, Opaque) else type(op).__name__
        raise UnsupportedError(f"{node.name}: the Keras writer has no layer for {kind}. {REMEDY}")
    return WRITERS[type(op)](NodeView(graph=graph, node=node), op)


def _fused(graph: Graph, node: Node) -> tuple[LayerSpec, ...]:
    """Return the fused activation as a layer of its own, "y..relu", which the reader fuses again (_keras_folding)."""
    activation = getattr(node.op, "activation", None)
    if activation is None:
        return ()
    suffix = f"//{type(activation).__name__.lower()}"
    return tuple(replace(spec, suffix=suffix) for spec in _specs(graph, node, activation))


def _parameter(graph: Graph, node: Node, operand: str) -> str:
    tensor = graph.constant(node, operand)
    if tensor is None:
        raise UnsupportedError(f"{node.name}: a constant {operand} was wanted; found one that is computed")
    return tensor.name


def _data_inputs(graph: Graph, node: Node, specs: tuple[LayerSpec, ...]) -> tuple[str, ...]:
    parameters = {node.operand(operand) for spec in specs for operand in spec.variables}
    inputs = tuple(name for name in node.inputs if name not in parameters)
    constants = [name for name in inputs if graph.tensors[name].is_constant]
    if constants and (len(constants) == len(inputs) or not specs[0].is_function):
        raise UnsupportedError(f"{node.name}: a computed input was wanted; '{constants[0]}' is a constant")
    large = next((name for name in constants if graph.tensors[name].value().size > LARGEST_CONSTANT), None)
    if large is not None:
        raise UnsupportedError(
            f"{node.name}: a constant of at most {LARGEST_CONSTANT} numbers was wanted, since Keras saves it as text; "
            f"'{large}' is larger"
        )
    return inputs


def to_keras(graph: Graph) -> Any:
    """Return the Graph as a keras.Model with its weights; the batch is symbolic.

    BatchNorm and Dropout stay what they are, so the model can be trained. A fused activation is a layer of its own.

    Raises:
        UnsupportedError: Naming the node that Keras has no layer for.
        MissingError: When Keras is not installed.
    """
    graph = untied(graph)
    steps, whole, graph = plan(graph), graph, lowered(graph)
    _require_float32_inputs(graph)
    keras = framework(purpose="a Keras model")
    values = {
        port.tensor: keras.Input(graph.tensors[port.tensor].shape[1:], name=name)
        for port, name in zip(graph.inputs, _input_names(graph), strict=True)
    }
    inputs = [values[port.tensor] for port in graph.inputs]
    layers: dict[str, Any] = {}
    x: Any = None
    for step in steps:
        taken = [values[name] if name in values else graph.tensors[name].value() for name in step.inputs] or [x]
        if step.spec.is_function:
            x = _called(keras, step, taken)
        else:
            if step.layer not in layers:
                layers[step.layer] = getattr(keras.layers, step.spec.class_name)(name=step.layer, **step.spec.config)
            x = layers[step.layer](taken[0] if len(taken) == 1 else taken)
        values |= zip(step.outputs, x if len(step.outputs) > 1 else [x], strict=False)
    for step in steps:
        if step.constants:
            pairs = zip(step.constants, step.spec.variables, strict=True)
            layers[step.layer].trainable = all(name in whole.tensors for name in step.constants)
            layers[step.layer].set_weights(
                [step.spec.to_keras(each, graph.tensors[name].value()) for name, each in pairs]
            )
    used = dict.fromkeys((*_input_names(graph), *(step.layer for step in steps)), 1)
    outputs = [_named(keras, steps, port, used)(values[port.tensor]) for port in graph.outputs]
    single = len(outputs) == 1
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        outputs[0] if single else outputs,
        name=layer_name(graph.name or "model"),
    )


def _called(keras: ModuleType, step: Step, taken: list[Any]) -> Any:
    """Return the output of a function of keras.ops, its operation named after the step."""
    if step.spec.class_name == "getitem":
        x = taken[0][step.spec.config["key"]]
    else:
        called = keras.ops
        for part in step.spec.class_name.split("."):
            called = getattr(called, part)
        x = called(*taken, **step.spec.config)
    first = x[0] if isinstance(x, list | tuple) else x
    first._keras_history.operation.name = step.layer  # no function of keras.ops takes a name
    return x[0] if isinstance(x, list | tuple) and len(x) == 1 else x


def _require_float32_inputs(graph: Graph) -> None:
    for port in graph.inputs:
        dtype = graph.tensors[port.tensor].dtype
        if dtype != "float32":
            raise UnsupportedError(f"{graph.name}: input '{port.name}': float32 was wanted for Keras; found {dtype}")


def _named(keras: ModuleType, steps: tuple[Step, ...], port: Port, used: dict[str, int]) -> Any:
    """Return what makes an output bear its port's name: nothing, or a layer of that name (see _keras_ports)."""
    name = layer_name(port.name)
    if any(step.outputs == (port.tensor,) and step.layer == name for step in steps):
        return lambda x: x
    return keras.layers.Activation("linear", name=unique(f"{name}{MARK}" if name in used else name, used))


def with_keras_weights(graph: Graph, model: Any) -> Graph:
    """Return the Graph with the weights of a model that `to_keras` made of it, BatchNorm statistics included.

    Raises:
        UsageError: When the model lacks a layer or its weights have other shapes.
    """
    graph = untied(graph)
    layers = {layer.name: layer for layer in model.layers}
    tensors = dict(graph.tensors)
    for step in plan(graph):
        if not step.constants:
            continue
        if step.layer not in layers:
            raise UsageError(
                f"{graph.name}: a model with the layer '{step.layer}' was wanted; it has none of that name"
            )
        values = layers[step.layer].get_weights()
        wanted = list(step.spec.variables.values())
        if [value.shape for value in values] != wanted:
            found = ", ".join(show_shape(value.shape) for value in values)
            raise UsageError(
                f"{step.layer}: weights of {', '.join(map(show_shape, wanted))} were wanted; found {found}"
            )
        for name, operand, value in zip(step.constants, step.spec.variables, values, strict=True):
            old = graph.tensors.get(name)
            if old is not None:  # a constant of the lowering is none of the Graph's
                data = step.spec.from_keras(operand, np.asarray(value, old.dtype), old.value().shape)
                tensors[name] = replace(old, data=np.ascontiguousarray(data))
    return replace(graph, tensors=tensors)
