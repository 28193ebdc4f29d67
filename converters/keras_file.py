"""Keras files (.keras, .h5): read without Keras, written by Keras as .keras, trained in between.

Reading takes the configuration (JSON) and the variables (HDF5) out of the file; nothing in the file is executed and
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
from edgecnn.errors import GraphError, UnsupportedError
from edgecnn.graph import Graph
from edgecnn.interfaces import Artifact, Listing
from edgecnn.models.pretrained import LayerWeights
from edgecnn.ops import Add, Div, Mul, Sigmoid, Softmax, Sub

from . import _keras_model
from ._keras_archive import CONTRACT, append_contract, read_member
from ._keras_folding import folded
from ._keras_hdf5 import LEGACY, open_file
from ._keras_isolated import first_in_a_child
from ._keras_listing import listing
from ._keras_network import Scope, read_network
from ._keras_ports import without_naming_layers
from ._keras_topology import read_topology
from ._keras_weights import read_weights


class KerasFile:
    """The formats .keras and, for reading, .h5: a Reader, a Writer, and the way to training and back."""

    name = "keras"
    suffix = ".keras"
    aliases: tuple[str, ...] = LEGACY
    default_layout: Layout = "NHWC"

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return the files of an artifact: the archive alone."""
        return (path,)

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract in the member edgecnn.json, or None where there is none (an .h5 file never has one)."""
        text = None if path.suffix.lower() in LEGACY else read_member(path, CONTRACT)
        return None if text is None else parse_contract(text, str(path))

    def listing(self, path: Path) -> Listing:
        """Return what the file's own tables state. See interfaces.Lister."""
        return _listing(path)

    def read(self, path: Path) -> Graph:
        """Read a Functional or Sequential model of Keras 3 (.keras, .h5) or Keras 2 (.h5).

        A layer "block_3.expand" becomes the node "block_3/expand", its variables the constants "block_3/expand/kernel"
        and so on; an activation of its configuration is a node of its own ("conv2d/relu"), its second call another
        ("conv2d/call_2"), and the layers of an inner model stand below its name ("backbone/conv2d").
        An output port is named after the node that gives it; a last Activation("linear") only names it. What the
        writer spelled in several layers becomes one operator again (_keras_groups).
        A file without a contract gets an assumed one where its only input looks like a picture.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it holds a layer that has no row in the layer table, named.
        """
        return _graph(path)

    def read_weights(self, path: Path) -> tuple[LayerWeights, ...]:
        """Read the layers of a weight file (.h5, .weights.h5, .keras), in its order; see models.pretrained."""
        return _weights(path)

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a Graph, trainable or deployed, as a file that keras.models.load_model reads.

        The batch is symbolic, and inputs are channels-last whatever the ports' layouts are.

        Raises:
            UnsupportedError: Naming the node that Keras has no layer for, or when the Graph is quantized.
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
        """Return a float Graph as a keras.Model; see _keras_model.to_keras."""
        if graph.is_quantized:
            raise UnsupportedError(
                f"{graph.name}: a float network was wanted, since Keras' layers keep float32 variables; this one is "
                "quantized. Give --dequantize for the float network that it stands for, or choose --to tflite, onnx or "
                "openvino, which keep its integers."
            )
        return _keras_model.to_keras(graph)

    def layer_name(self, name: str) -> str:
        """Return the name that a node's layer has in Keras; see _keras_model.layer_name."""
        return _keras_model.layer_name(name)

    def with_keras_weights(self, graph: Graph, model: Any) -> Graph:
        """Return the Graph with a trained model's weights; see _keras_model.with_keras_weights."""
        return _keras_model.with_keras_weights(graph, model)


@first_in_a_child
def _graph(path: Path) -> Graph:
    contract = KERAS.read_contract(path)
    file = open_file(path)
    topology, names = without_naming_layers(read_topology(str(path), file.config))
    builder = GraphBuilder(topology.name, initialise=no_values)
    tensors = read_network(Scope(where=str(path), builder=builder, weights=file), topology)
    try:
        ports = {name or tensor: tensor for name, tensor in zip(names, tensors, strict=True)}
        graph = folded(builder.finish(ports))
    except GraphError as error:
        raise GraphError(f"{path}: {error}") from None
    return replace(graph, contract=contract or _assumed(graph))


@first_in_a_child
def _weights(path: Path) -> tuple[LayerWeights, ...]:
    return read_weights(path)


@first_in_a_child
def _listing(path: Path) -> Listing:
    return listing(path)


def _assumed(graph: Graph) -> Contract | None:
    """Return the contract of a model that brings none: where its only input looks like a picture."""
    shape = graph.tensors[graph.inputs[0].tensor].shape
    if len(graph.inputs) != 1 or len(shape) != 4 or shape[3] not in (1, 3):
        return None
    last = next((node for node in graph.nodes if node.output == graph.outputs[0].tensor), None)
    is_probable = last is not None and isinstance(last.op, Sigmoid | Softmax)
    height, width, channels = (size or 0 for size in shape[1:])
    contract = assumed_contract(height, width, channels, output="probabilities" if is_probable else "logits")
    if _scales_its_input(graph):
        contract = replace(contract, mean=(0.0,) * channels, std=(1.0,) * channels)
    return contract


def _scales_its_input(graph: Graph) -> bool:
    """Tell whether a network begins with Rescaling or Normalization, so that it takes raw pixels."""
    takers = [node for node in graph.nodes if graph.inputs[0].tensor in node.inputs]
    return (
        len(takers) == 1
        and isinstance(takers[0].op, Add | Sub | Mul | Div)
        and any(graph.tensors[name].is_constant for name in takers[0].inputs)
    )


KERAS = KerasFile()
