"""Let operators between Dequantize and Quantize nodes compute in integers: the inverse of explicit_quantization.

    y = Quantize(op(Dequantize(x), Dequantize(w), Dequantize(b)))    becomes    y = op(x, w, b)

with every integer and every scale as it is. What only moves numbers, or limits them, trades places with a Quantize or
Dequantize beside it first, since rounding is monotone and works on each element alone:

    Quantize(move(x)) = move(Quantize(x)),    Quantize(clip(x)) = clip(Quantize(x))    (the same scale on both sides).

A Quantize of what a Dequantize gives is one Quantize from integers to integers, or nothing where both mean the same.
A float bias is rounded to int32 at the scale of the products, as runtimes do when they load such a file: half of such a
step is far below what the output can show. What does not fit stays between its Quantize and Dequantize nodes.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from edgecnn import ops
from edgecnn.graph import Graph, Node, Tensor
from edgecnn.passes.editor import GraphEditor, PassResult, WholePass
from edgecnn.passes.fuse_activation import FUSABLE
from edgecnn.passes.moving_numbers import LIMITING, TURNING, only_moves
from edgecnn.quantization.parameters import Quantization
from edgecnn.quantization.rules import WEIGHTED

Make = Callable[[str], str]
"""(name that the tensor of integers should have) -> the name that it has."""

DEEPEST = 32
"""Operators that only move numbers, one after the other: a longer chain stays explicit."""

SAME_SCALES = 1e-5
"""Relative difference of a bias' scale from input * kernel that counts as none: a product rounded once more."""

KERNELS, BIASES = ("int8", "uint8"), ("int32", "int64")

NEVER = (ops.Opaque, ops.Quantize, ops.Dequantize, ops.Cast, ops.DetectionPostProcess)
"""Operators that do not become operators over integers."""


class _Absorber:
    """Rewrites a Graph Quantize by Quantize, in topological order."""

    def __init__(self, graph: Graph) -> None:
        self.editor = GraphEditor(graph)
        self.applied: list[str] = []
        self.refused: list[tuple[str, str]] = []
        self._known: dict[str, Quantization] = {}  # float tensor -> the quantization of the integers that give it
        self._depth: dict[str, int] = {}
        self._stored: dict[str, str] = {}  # float tensor -> those integers, where they are made
        self._joined: dict[str, str] = {}  # tensor of integers -> the one that stands for it now
        self._join_twins()
        for node in self.editor.nodes.values():
            self._note(node)

    def run(self) -> PassResult:
        """Rewrite, and remove what nothing needs any more."""
        for node in list(self.editor.nodes.values()):
            if isinstance(node.op, ops.Quantize):
                self._absorb(node)
        for node in list(self.editor.nodes.values()):
            if isinstance(node.op, ops.ArgMax) and node.inputs[0] in self._known:
                self.editor.put(replace(node, inputs=(self._integers(node.inputs[0]),)))
                self.applied.append(node.name)
        graph = self.editor.graph
        if self.applied:
            for node in list(self.editor.nodes.values()):
                self.editor.prune(node)
            graph = self.editor.finish()
        return PassResult(graph=graph, applied=tuple(self.applied), refused=tuple(self.refused))

    def _join_twins(self) -> None:
        """Let one Quantize do where several round the same tensor to the same integers."""
        first: dict[tuple[str, Quantization | None], str] = {}
        for node in list(self.editor.nodes.values()):
            if isinstance(node.op, ops.Quantize):
                one = first.setdefault((node.inputs[0], self.editor.tensors[node.output].quantization), node.output)
                if one != node.output:
                    self.editor.remove(node)
                    self._give(node.output, one)
                    self.applied.append(node.name)

    def _note(self, node: Node) -> None:
        """Remember where a node gives what integers stand for."""
        if isinstance(node.op, ops.Dequantize):
            found = self.editor.tensors[node.inputs[0]].quantization
            if found is not None:
                self._known[node.output], self._stored[node.output] = found, node.inputs[0]
            return
        numbers = self._numbers(node)
        common = {self._known.get(name) for name in numbers}
        depth = 1 + max((self._depth.get(name, 0) for name in numbers), default=0)
        (found,) = common if len(common) == 1 else (None,)
        if found is not None and found.axis is None and depth < DEEPEST and only_moves(node.op, found):
            for name in node.outputs:
                self._known[name], self._depth[name] = found, depth

    def _numbers(self, node: Node) -> tuple[str, ...]:
        """Return the operands that are numbers, not positions."""
        return tuple(name for name in node.inputs if self.editor.tensors[name].dtype == "float32")

    def _absorb(self, quantize: Node) -> None:
        source, target = quantize.inputs[0], quantize.output
        given = self.editor.tensors[target].quantization
        if given is None or given.axis is not None or self.editor.tensors[source].quantization is not None:
            return
        make = self._plan(source, given, 0)
        if make is None:
            if self.editor.producer(source) is not None:
                reason = f"{source} is needed in float, or what it is computed from is not all integers"
                self.refused.append((quantize.name, reason))
            return
        if source in self._known and self._known[source] != given:
            self.editor.put(replace(quantize, inputs=(self._integers(source),)))
        else:
            found = make(target)
            self.editor.remove(quantize)
            if found != target:
                self._give(target, found)
        self.applied.append(quantize.name)

    def _give(self, old: str, new: str) -> None:
        """Let takers and output ports of a tensor of integers have another one."""
        self.editor.redirect(old, new)
        ports = self.editor.output_ports
        self.editor.output_ports = [replace(port, tensor=new) if port.tensor == old else port for port in ports]
        self._joined[old] = new

    def _plan(self, tensor: str, given: Quantization, depth: int) -> Make | None:
        """Return what makes the integers of a float tensor, or None where it has to be computed in float."""
        if tensor in self._known:
            return self._requantized(tensor, given)
        node = self._giver(tensor, depth)
        if node is None:
            return None
        return self._computed(node, given) or self._fused(node, given, depth) or self._moved(node, given, depth)

    def _giver(self, tensor: str, depth: int) -> Node | None:
        """Return the node that gives a tensor and nothing else, where nothing else takes it."""
        node = self.editor.producer(tensor)
        is_free = depth < DEEPEST and self.editor.only_consumer(tensor) is not None
        return node if node is not None and is_free and len(node.outputs) == 1 else None

    def _requantized(self, tensor: str, given: Quantization) -> Make | None:
        """Plan to take integers that there are, through a Quantize where they mean something else."""
        known = self._known[tensor]
        if known == given:
            return lambda name: self._integers(tensor)
        if known.axis is not None:
            return None

        def make(name: str) -> str:
            node = self.editor.free_name(f"{name}/quantize")
            return self._put(name, given, ops.Quantize(), (self._integers(tensor),), node)

        return make

    def _computed(self, node: Node, given: Quantization) -> Make | None:
        """Plan an operator over integers."""
        if isinstance(node.op, NEVER) or only_moves(node.op, given):
            return None
        operands = self._weighted(node) if isinstance(node.op, WEIGHTED) else self._plain(node)
        if operands is None:
            return None
        return lambda name: self._put(name, given, node.op, operands(), node.name)

    def _plain(self, node: Node) -> Callable[[], tuple[str, ...]] | None:
        """Plan the operands of an operator that takes any integers with one scale each."""
        known = [self._known.get(name) for name in self._numbers(node)]
        if not known or any(each is None or each.axis is not None for each in known):
            return None
        return lambda: tuple(self._integers(name) if name in self._known else name for name in node.inputs)

    def _fused(self, node: Node, given: Quantization, depth: int) -> Make | None:
        """Plan an operator over integers that applies the ReLU behind it, or behind a change of its order of axes."""
        return self._with(node.op, node.inputs[0], given, depth + 1) if isinstance(node.op, FUSABLE) else None

    def _with(self, activation: ops.Op, tensor: str, given: Quantization, depth: int) -> Make | None:
        node = self._giver(tensor, depth)
        if node is None:
            return None
        op: Any = node.op
        if isinstance(op, TURNING):
            plan = self._with(activation, node.inputs[0], given, depth + 1)
            return plan and self._behind({node.inputs[0]: plan}, node, given)
        if getattr(op, "activation", op) is not None:
            return None
        return self._computed(replace(node, op=replace(op, activation=activation)), given)

    def _moved(self, node: Node, given: Quantization, depth: int) -> Make | None:
        """Plan a move behind the Quantize of what it moves."""
        if given.axis is not None or not (isinstance(node.op, LIMITING) or only_moves(node.op, given, is_rounded=True)):
            return None
        plans: dict[str, Make] = {}
        for name in self._numbers(node):
            plan = self._plan(name, given, depth + 1)
            if plan is None:
                return None
            plans[name] = plan
        return self._behind(plans, node, given)

    def _behind(self, plans: Mapping[str, Make], node: Node, given: Quantization) -> Make:
        """Plan a node over the integers of what it took in float."""

        def make(name: str) -> str:
            made = {each: plan(self.editor.free_name(f"{each}/stored")) for each, plan in plans.items()}
            return self._put(name, given, node.op, tuple(made.get(each, each) for each in node.inputs), node.name)

        return make

    def _weighted(self, node: Node) -> Callable[[], tuple[str, ...]] | None:
        """Plan the operands of a layer: integers, a constant kernel, and a bias of the products' scale."""
        source, kernel, *bias = node.inputs
        of_input, of_kernel = self._known.get(source), self._known.get(kernel)
        if of_input is None or of_kernel is None or of_input.axis is not None or of_kernel.dtype not in KERNELS:
            return None
        tensors = self.editor.tensors
        channels = len(tensors[kernel].shape) - 1
        if not tensors[self._stored.get(kernel, kernel)].is_constant or of_kernel.axis not in (None, channels):
            return None
        products = np.float32(of_input.scale[0]) * np.asarray(of_kernel.scale, np.float32)
        if not bias:
            return lambda: (self._integers(source), self._integers(kernel))
        make = self._bias(bias[0], products, "int64" if of_input.dtype == "int16" else "int32")
        return make and (lambda: (self._integers(source), self._integers(kernel), make()))

    def _bias(self, name: str, scales: Any, dtype: str) -> Callable[[], str] | None:
        """Plan a bias: its integers where their scale is that of the products, or its numbers rounded to them."""
        known, tensor = self._known.get(name), self.editor.tensors[name]
        if known is not None:
            is_constant = self.editor.tensors[self._stored.get(name, name)].is_constant
            is_centred = known.dtype in BIASES and not any(known.zero_point)
            fits = is_constant and is_centred and np.allclose(known.scale, scales, rtol=SAME_SCALES, atol=0)
            return (lambda: self._integers(name)) if fits else None
        if not tensor.is_constant or not np.all(scales > 0):
            return None
        count, axis = len(scales), 0 if len(scales) > 1 else None
        found = Quantization(scale=tuple(scales.tolist()), zero_point=(0,) * count, dtype=dtype, axis=axis)
        values = tensor.value().astype(np.float64) / scales
        if not np.all(np.abs(values) < np.iinfo(dtype).max):
            return None
        data = np.rint(values).astype(dtype)

        def make() -> str:
            free = self.editor.free_name(f"{name}/stored")
            self.editor.tensors[free] = Tensor(name=free, shape=data.shape, data=data, quantization=found)
            return free

        return make

    def _integers(self, tensor: str) -> str:
        """Return the integers of a float tensor that a Dequantize gives, or moves behind one."""
        node = self.editor.producer(tensor)
        if tensor not in self._stored and node is not None:
            names = tuple(self._name_for(each) for each in node.outputs)
            inputs = tuple(self._integers(each) if each in self._known else each for each in node.inputs)
            name = self.editor.free_name(f"{node.name}/stored") if self._is_needed(node) else node.name
            self.editor.put(Node(name=name, op=node.op, inputs=inputs, outputs=names))
            for each, stored in zip(node.outputs, names, strict=True):
                self._stored[each] = stored
                self.editor.tensors[stored] = replace(self.editor.tensors[stored], quantization=self._known[each])
        found = self._stored[tensor]
        while found in self._joined:
            found = self._joined[found]
        return found

    def _name_for(self, tensor: str) -> str:
        """Return the name of a float tensor's integers: that of the Quantize that gives them, where there is one."""
        same = (node for node in self.editor.consumers(tensor) if self._gives_back(node, tensor))
        return next((node.output for node in same), None) or self.editor.free_name(f"{tensor}/stored")

    def _is_needed(self, node: Node) -> bool:
        """Tell whether something takes what a node gives in float."""
        editor = self.editor
        takers = [(taker, name) for name in node.outputs for taker in editor.consumers(name)]
        is_port = not editor.outputs.isdisjoint(node.outputs)
        return is_port or not all(self._gives_back(taker, name) for taker, name in takers)

    def _gives_back(self, node: Node, tensor: str) -> bool:
        """Tell whether a Quantize gives the integers that a float tensor stands for already."""
        return (
            isinstance(node.op, ops.Quantize) and self.editor.tensors[node.output].quantization == self._known[tensor]
        )

    def _put(self, tensor: str, given: Quantization, op: ops.Op, inputs: tuple[str, ...], node: str) -> str:
        """Put the node that gives a tensor of integers."""
        self.editor.put(Node(name=node, op=op, inputs=inputs, outputs=(tensor,)))
        self.editor.tensors[tensor] = replace(self.editor.tensors[tensor], quantization=given)
        return tensor


def implicit_quantization(graph: Graph) -> PassResult:
    """Return the Graph with its operators over integers, where their operands and results are."""
    return _Absorber(graph).run()


PASS = WholePass(name="implicit_quantization", apply=implicit_quantization)
