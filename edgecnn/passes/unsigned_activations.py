"""Spell the same integers with the types that a format multiplies: x86 wants unsigned activations, TFLite signed ones.

    scale * (q - z) = scale * ((q + 128) - (z + 128))

VPDPBUSD multiplies unsigned by signed bytes. ONNX Runtime runs MobileNet v2 in 1.5 ms with uint8 activations and in
2.7 ms with int8 ones; TFLite multiplies int8 by int8 or, in old files, uint8 by uint8.
Ports keep their types: one of another type has a Quantize beside it.
"""

from collections.abc import Container, Mapping
from dataclasses import replace

import numpy as np

from edgecnn import ops
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import WEIGHTED

UNSIGNED = {"int8": "uint8", "int16": "uint16"}
SIGNED = {"uint8": "int8", "uint16": "int16"}
"""Type -> the type that holds the same numbers, shifted by half its range."""


def unsigned_activations(graph: Graph) -> Graph:
    """Return the quantized Graph with unsigned activations and signed kernels."""
    return _with_activations(graph, UNSIGNED)


def signed_activations(graph: Graph) -> Graph:
    """Return the quantized Graph with signed activations and kernels: the inverse of unsigned_activations."""
    return _without_idle_quantize(_with_activations(graph, SIGNED))


def _with_activations(graph: Graph, types: Mapping[str, str]) -> Graph:
    graph = signed_kernels(_with_ports_apart(graph, types))
    kept = _kernels(graph) | {port.tensor for port in (*graph.inputs, *graph.outputs)}
    return _with_shifted(graph, graph.tensors.keys() - kept, types)


def signed_kernels(graph: Graph) -> Graph:
    """Return the quantized Graph with the kernels of old files, which are unsigned, as signed integers."""
    return _with_shifted(graph, _kernels(graph), SIGNED)


def unsigned_kernels(graph: Graph) -> Graph:
    """Return the quantized Graph with unsigned kernels, as old files have them, under unsigned activations."""
    weighted = [node for node in graph.nodes if isinstance(node.op, WEIGHTED)]
    taken = {node.inputs[1] for node in weighted if _has_type(graph.tensors[node.inputs[0]], SIGNED)}
    return _with_shifted(graph, _kernels(graph) & taken, UNSIGNED)


def _with_shifted(graph: Graph, names: Container[str], types: Mapping[str, str]) -> Graph:
    return replace(graph, tensors={n: _shifted(t, types) if n in names else t for n, t in graph.tensors.items()})


def _kernels(graph: Graph) -> set[str]:
    """Return the names of constant kernels."""
    return {
        node.inputs[1]
        for node in graph.nodes
        if isinstance(node.op, WEIGHTED) and graph.tensors[node.inputs[1]].is_constant
    }


def _with_ports_apart(graph: Graph, types: Container[str]) -> Graph:
    """Return the Graph with a Quantize between each port of some types and the tensors that change theirs."""
    editor = GraphEditor(graph)
    for name in dict.fromkeys(port.tensor for port in graph.inputs):
        takers = [node for node in editor.consumers(name) if not isinstance(node.op, ops.Quantize | ops.Dequantize)]
        if _has_type(editor.tensors[name], types) and takers:
            inside = _copy(editor, name)
            for node in takers:
                editor.put(replace(node, inputs=tuple(inside if each == name else each for each in node.inputs)))
            _convert(editor, name, inside)
    for name in dict.fromkeys(port.tensor for port in graph.outputs):
        producer = editor.producer(name)
        is_last = not editor.consumers(name)
        if producer is None or not _has_type(editor.tensors[name], types) or (_rounds(producer) and is_last):
            continue
        inside = _copy(editor, name)
        editor.redirect(name, inside)
        editor.put(replace(producer, outputs=tuple(inside if each == name else each for each in producer.outputs)))
        _convert(editor, inside, name)
    return editor.finish()


def _rounds(node: Node) -> bool:
    return isinstance(node.op, ops.Quantize)


def _has_type(tensor: Tensor, types: Container[str]) -> bool:
    return tensor.quantization is not None and tensor.quantization.dtype in types


def _without_idle_quantize(graph: Graph) -> Graph:
    """Return the Graph without the Quantize nodes, once from type to type, that now change nothing."""
    editor = GraphEditor(graph)
    for name in [node.name for node in graph.nodes if _rounds(node)]:
        node = editor.nodes[name]
        source, target = node.inputs[0], node.output
        known = editor.tensors[source].quantization
        if known is None or known != editor.tensors[target].quantization:
            continue
        giver = editor.producer(source)
        if target not in editor.outputs:
            editor.redirect(target, source)
            editor.prune(node)
        elif giver is not None and source not in editor.outputs:
            editor.remove(node)
            editor.put(replace(giver, outputs=tuple(target if each == source else each for each in giver.outputs)))
            editor.redirect(source, target)
    return editor.finish()


def _copy(editor: GraphEditor, name: str) -> str:
    """Add a tensor like another one, for the inside of the Graph."""
    free = editor.free_name(f"{name}/inside")
    editor.tensors[free] = replace(editor.tensors[name], name=free)
    return free


def _convert(editor: GraphEditor, source: str, target: str) -> None:
    name = editor.free_name(f"{target}/quantize")
    editor.put(Node(name=name, op=ops.Quantize(), inputs=(source,), outputs=(target,)))


def _shifted(tensor: Tensor, types: Mapping[str, str]) -> Tensor:
    """Return a tensor with its integers in the other type, where there is one."""
    found = tensor.quantization
    if found is None or found.dtype not in types:
        return tensor
    dtype = types[found.dtype]
    shift = int(np.iinfo(dtype).min) - int(np.iinfo(found.dtype).min)
    moved = Quantization(
        scale=found.scale, zero_point=tuple(zero + shift for zero in found.zero_point), dtype=dtype, axis=found.axis
    )
    data = None if tensor.data is None else (tensor.data.astype(np.int32) + shift).astype(dtype)
    return replace(tensor, quantization=moved, data=data)
