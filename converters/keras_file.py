"""Keras files (.keras): read without Keras, written by Keras, trained in between.

Reading takes the configuration (JSON) and the variables (HDF5) out of the archive; nothing in the file is executed and
neither Keras nor TensorFlow is imported. Writing builds a keras.Model, lets Keras save it and appends the contract as
the member edgecnn.json, which Keras passes by. A zoo Graph comes back unchanged: names, operators, constants, contract.
"""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

from edgecnn.builder import GraphBuilder, no_values
from edgecnn.contract import Contract, Layout, assumed_contract, parse_contract
from edgecnn.errors import GraphError, InputFileError, ShapeError, UnsupportedError
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact
from edgecnn.ops import Sigmoid, Softmax

from . import _keras_model
from ._keras_archive import CONTRACT, WeightFile, append_contract, read_config, read_member
from ._keras_call import LayerCall, LayerConfig
from ._keras_layers import READERS
from ._keras_model import node_name
from ._keras_topology import Source, Topology, read_topology

HOLDING_CODE = ("Lambda", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "TFSMLayer")
"""Layers of Keras that carry or call code of their own."""


class KerasFile:
    """The format .keras: a Reader, a Writer, and the way to training and back."""

    name = "keras"
    suffix = ".keras"
    default_layout: Layout = "NHWC"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files of an artifact: the archive alone."""
        return (path,)

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in the member edgecnn.json, or None where there is none."""
        text = read_member(path, CONTRACT)
        return None if text is None else parse_contract(text, str(path))

    def read(self, path: Path) -> Graph:
        """Read a Functional or Sequential model of Keras 3.

        A layer "block_3.expand" becomes the node "block_3/expand", its variables the constants "block_3/expand/kernel"
        and so on; an activation of its configuration is a node of its own ("conv2d/relu"), and its second call another
        ("conv2d/call_2").
        An output port is named after the node that gives it.
        A file without a contract gets an assumed one where its only input looks like a picture.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it holds a layer that has no row in the layer table, named.
        """
        contract = self.read_contract(path)
        topology = read_topology(str(path), read_config(path))
        builder = GraphBuilder(topology.name, initialise=no_values)
        tensors = _read_calls(str(path), topology, builder, WeightFile(path))
        try:
            graph = builder.finish({tensors[source]: tensors[source] for source in topology.outputs})
        except GraphError as error:
            raise GraphError(f"{path}: {error}") from None
        return replace(graph, contract=contract or _assumed(graph))

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a Graph, trainable or deployed, as a file that keras.models.load_model reads.

        The batch is symbolic, and inputs are channels-last whatever the ports' layouts are.

        Raises:
            UnsupportedError: Naming the node that Keras has no layer for.
            MissingError: When Keras is not installed.
        """
        model = self.to_keras(graph)
        model.save(path)
        if graph.contract is not None:
            append_contract(path, replace(graph.contract, layout="NHWC").to_json())
        operators = Counter(type(layer).__name__ for layer in model.layers)
        return Artifact(path=path, format=self.name, size_bytes=path.stat().st_size, operators=operators)

    def framework(self, *, purpose: str) -> ModuleType:
        """Return the module keras; see _keras_model.framework."""
        return _keras_model.framework(purpose=purpose)

    def to_keras(self, graph: Graph) -> Any:
        """Return the Graph as a keras.Model; see _keras_model.to_keras."""
        return _keras_model.to_keras(graph)

    def with_keras_weights(self, graph: Graph, model: Any) -> Graph:
        """Return the Graph with a trained model's weights; see _keras_model.with_keras_weights."""
        return _keras_model.with_keras_weights(graph, model)


def _read_calls(where: str, topology: Topology, builder: GraphBuilder, weights: WeightFile) -> dict[Source, str]:
    """Add every call's nodes; inputs first, in the model's order. Returns call -> output tensor."""
    position = {name: index for index, name in enumerate(topology.inputs)}
    found = {call.layer.name for call in topology.calls if call.layer.class_name == "InputLayer"}
    if found != position.keys():
        raise InputFileError(f"{where}: input_layers {sorted(found)} were wanted; found {sorted(position)}")
    constants: dict[str, tuple[str, ...]] = {}
    tensors: dict[Source, str] = {}
    for call in sorted(topology.calls, key=lambda call: position.get(call.layer.name, len(position))):
        prefix = node_name(call.layer.name)
        layer_where = f"{where}: layer '{call.layer.name}' ({call.layer.class_name})"
        layer_call = LayerCall(
            name=prefix if call.index == 0 else f"{prefix}/call_{call.index + 1}",
            prefix=prefix,
            layer=call.layer,
            config=LayerConfig(where=layer_where, values=call.layer.config),
            builder=builder,
            weights=weights,
            inputs=tuple(tensors[source] for source in call.sources),
            constants=constants,
        )
        tensors[call.layer.name, call.index] = _read_call(layer_call)
    return tensors


def _read_call(call: LayerCall) -> str:
    class_name, where = call.layer.class_name, call.config.where
    if class_name in HOLDING_CODE:
        raise UnsupportedError(
            f"{where}: it holds code, which is never executed. Replace it by the layers that it stands for."
        )
    if class_name not in READERS:
        raise UnsupportedError(f"{where}: this layer class is not read. Replace it, or cut the model before it.")
    call.config.require_float32()
    try:
        return READERS[class_name](call)
    except (ShapeError, GraphError) as error:
        raise InputFileError(f"{where}: {error}") from None


def _assumed(graph: Graph) -> Contract | None:
    """Return the contract of a model that brings none: where its only input looks like a picture."""
    shape = graph.tensors[graph.inputs[0].tensor].shape
    if len(graph.inputs) != 1 or len(shape) != 4 or shape[3] not in (1, 3):
        return None
    last = next((node for node in graph.nodes if node.output == graph.outputs[0].tensor), None)
    is_probable = last is not None and isinstance(last.op, Sigmoid | Softmax)
    height, width, channels = (size or 0 for size in shape[1:])
    return assumed_contract(height, width, channels, output="probabilities" if is_probable else "logits")


KERAS = KerasFile()
