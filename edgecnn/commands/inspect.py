"""`edgecnn inspect`: what a model file holds, and how two models differ."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import click
from rich.console import Console

from edgecnn.commands.choices import part_options
from edgecnn.commands.model_options import json_option
from edgecnn.console import emit, message, show_bytes, show_count, table
from edgecnn.contract import Contract
from edgecnn.difference import Change, Difference, difference
from edgecnn.errors import CheckFailedError, UsageError
from edgecnn.graph import Graph, with_batch
from edgecnn.inspection import Inspection
from edgecnn.inspection import inspect as inspect_model
from edgecnn.interfaces import ListedPort
from edgecnn.ops import Opaque
from edgecnn.passes.deploy import deploy
from edgecnn.quantization.recognize import Storage
from edgecnn.shapes import show_shape
from edgecnn.source import Choices, is_zoo_name, load_source

LONGEST_NAME = 64
"""Characters of a node's name in a table; --json has the whole."""

STORED_AS = ", stored as"
"""What the change of a constant's type is called in a Difference."""


@click.command()
@click.argument("model")
@click.argument("other", required=False)
@click.option("--diff", is_flag=True, help="Show how OTHER differs from MODEL: structure, attributes, weights.")
@click.option("--exit-code", is_flag=True, help="With --diff: exit with 1 where they differ, as git diff does.")
@click.option("--nodes", is_flag=True, help="Add every node of the network as it was read.")
@part_options
@json_option
def inspect(
    *, model: str, other: str | None, diff: bool, exit_code: bool, nodes: bool, choices: Choices, as_json: bool
) -> None:
    """Show what MODEL holds: ports, operators, MACs, parameters, contract; or, with --diff, how OTHER differs.

    Any .tflite, .onnx, .xml, .keras or .h5 file is listed from its own tables, also one that cannot be converted
    (custom operators), with the reason. --diff compares two models of any formats as they are deployed, and
    exits with 0 whatever it finds, unless --exit-code is given.
    """
    if diff != (other is not None) or (exit_code and not diff):
        raise UsageError("inspect takes one MODEL, or --diff with two; --exit-code belongs to --diff")
    if other is not None:
        _differ(model, other, choices, exit_code=exit_code, as_json=as_json)
        return
    found = inspect_model(model, choices)
    emit(_as_data(found, with_nodes=nodes), lambda console: _show(console, found, with_nodes=nodes), as_json=as_json)


def _as_data(found: Inspection, *, with_nodes: bool) -> dict[str, Any]:
    graph, cost = found.graph, found.cost
    data: dict[str, Any] = {
        "model": found.model,
        "format": found.format,
        "files": dict(found.files),
        "size_bytes": found.size_bytes,
        **asdict(found.listing),
        "graph": None,
        "refusal": found.refusal,
        "contract": asdict(found.contract) if found.contract else None,
    }
    if graph is not None and cost is not None:
        data["graph"] = {
            "operators": dict(graph.kinds().most_common()),
            "unknown": found.unknown,
            "transposes": found.transposes,
            "macs": cost.macs,
            "trainable": cost.trainable,
            "total": cost.total,
            "deployed": cost.deployed,
            "storage": asdict(found.storage) if found.storage else None,
        }
        if with_nodes:
            data["nodes"] = [
                {**asdict(layer), "inputs": list(node.inputs), "outputs": list(node.outputs)}
                for layer, node in zip(cost.layers, graph.nodes, strict=True)
            ]
    return data


def _show(console: Console, found: Inspection, *, with_nodes: bool) -> None:
    listing = found.listing
    files = ", ".join(f"{name} {show_bytes(size)}" for name, size in found.files.items())
    rows = [("format", found.format), ("on disk", files or "nothing: built from its definition")]
    rows += [(what, text) for what, text in listing.facts.items() if text]
    rows += [("operators in the file", _counts(listing.operators))] if listing.operators else []
    rows += [
        *_network_rows(found),
        ("tensors", _counts(listing.tensors) or "not typed in the file"),
        ("constants stored as", _sizes(listing.constant_bytes) or "none"),
        ("contract", _contract(found.contract)),
    ]
    console.print(table(found.model, ("<", "<"), rows))
    console.print()
    ports = [
        (side, port.name, _shape(port), port.dtype or "?", port.layout or "-", _quantization(port))
        for side, ports in (("input", listing.inputs), ("output", listing.outputs))
        for port in ports
    ]
    console.print(table("", ("<port", "<name", "<shape", "<type", "<layout", "<quantization"), ports))
    if with_nodes:
        _show_nodes(console, found)
    if found.refusal:
        console.print()
        console.print(f"cannot be converted: {found.refusal}")


def _network_rows(found: Inspection) -> list[tuple[str, str]]:
    graph, cost = found.graph, found.cost
    if graph is None or cost is None:
        return [("MACs, parameters", "not counted: the network cannot be read")]
    macs = show_count(cost.macs)
    return [
        ("operators in the Graph", _counts(graph.kinds())),
        ("unknown operators", _counts(found.unknown) or "none"),
        ("Transposes left", str(found.transposes)),
        ("MACs for one image", f"{macs}, without the unknown operators" if found.unknown else macs),
        ("parameters", f"{show_count(cost.total)} (trainable {show_count(cost.trainable)})"),
        ("parameters, deployed", show_count(cost.deployed)),
        *_storage_rows(found.storage),
    ]


def _storage_rows(storage: Storage | None) -> list[tuple[str, str]]:
    """Return the rows of a network that is not all float32."""
    if storage is None or not {*storage.layers, *storage.activations} - {"float32"}:
        return []
    return [
        ("precision of layers", _counts(storage.layers) or "no layer has a kernel"),
        ("kernels, biases", f"{_counts(storage.kernels) or 'none'}; {_counts(storage.biases) or 'none'}"),
        ("activations", _counts(storage.activations)),
    ]


def _show_nodes(console: Console, found: Inspection) -> None:
    if found.graph is None or found.cost is None:
        return
    rows = [
        (
            _short(layer.name),
            node.op.kind + " (unknown)" if isinstance(node.op, Opaque) else layer.kind,
            ", ".join(show_shape(shape) for shape in found.graph.shapes(node.outputs)),
            "" if layer.macs == 0 else show_count(layer.macs),
            show_count(layer.trainable + layer.statistics) if layer.trainable else "",
            ", ".join(map(_short, node.inputs)),
        )
        for layer, node in zip(found.cost.layers, found.graph.nodes, strict=True)
    ]
    console.print()
    console.print(table("", ("<node", "<operator", "<output", "MACs", "parameters", "<inputs"), rows))


def _short(name: str) -> str:
    """Return a name that fits a table: converters join the names of all layers that they fused."""
    return name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME // 2]}...{name[-LONGEST_NAME // 2 + 3 :]}"


def _counts(counted: Mapping[str, int]) -> str:
    ordered = sorted(counted.items(), key=lambda item: -item[1])
    return ", ".join(f"{count} {kind}" for kind, count in ordered)


def _sizes(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} {show_bytes(size)}" for kind, size in sizes.items())


def _shape(port: ListedPort) -> str:
    return "?" if port.shape is None else show_shape(port.shape)


def _quantization(port: ListedPort) -> str:
    return "" if port.scale is None else f"{port.scale:.6g} * (q - {port.zero_point})"


def _contract(contract: Contract | None) -> str:
    if contract is None:
        return "none"
    low, high = (bound + 0.0 for bound in contract.input_range)
    labels = f", {len(contract.labels)} labels" if contract.labels else ""
    guess = "none in the file; assumed: " if contract.is_assumed else ""
    size = f"{contract.height}x{contract.width} {contract.colour_order} in {low:g}..{high:g}"
    return f"{guess}{size}, {contract.resize}, {contract.output}{labels}"


def _differ(a: str, b: str, choices: Choices, *, exit_code: bool, as_json: bool) -> None:
    found = difference(_deployed(a, choices), _deployed(b, choices))
    data = {"a": a, "b": b, "identical": found.is_identical, **asdict(found)}
    emit(data, lambda console: _show_difference(console, a, b, found), as_json=as_json)
    if exit_code and not found.is_identical:
        raise CheckFailedError(f"{a} and {b} differ.")


def _deployed(model: str, choices: Choices) -> Graph:
    """Return a model as it would ship, batch 1 where it leaves the batch open; zoo options belong to zoo names only."""
    if not is_zoo_name(model):
        choices = replace(choices, zoo=None)
    graph = load_source(model, choices, report=message).graph
    is_open = any(graph.tensors[port.tensor].shape[:1] == (None,) for port in graph.inputs)
    if is_open and not any(isinstance(node.op, Opaque) for node in graph.nodes):
        graph = with_batch(graph, 1)
    return replace(deploy(graph).graph, contract=None)


def _change_rows(changes: Sequence[Change]) -> Iterator[tuple[str, str, str, str]]:
    """Yield the changes as rows; what is stored in another type for many nodes, as in a quantized twin, is one row."""
    stored = Counter((each.what, each.a, each.b) for each in changes if each.what.endswith(STORED_AS))
    for each in changes:
        if stored[each.what, each.a, each.b] < 2:
            yield each.where, each.what, each.a, each.b
    for (what, a, b), times in stored.items():
        if times > 1:
            yield f"{times} nodes", what, a, b


def _show_difference(console: Console, a: str, b: str, found: Difference) -> None:
    if found.is_identical:
        console.print(f"identical: {found.nodes} nodes, {found.constants} constants")
        return
    console.print(f"A = {a}\nB = {b}\n{found.nodes} nodes and {found.constants} constants are in both")
    console.print()
    gone = [("only in A", _short(name), kind) for name, kind in found.removed]
    come = [("only in B", _short(name), kind) for name, kind in found.added]
    if gone or come:
        console.print(table("nodes", ("<where", "<node", "<operator"), [*gone, *come]))
        console.print()
    if found.changes:
        rows = [tuple(map(_short, row)) for row in _change_rows(found.changes)]
        console.print(table("changes", ("<node", "<what", "<A", "<B"), rows))
        console.print()
    if found.values:
        columns = ("<node", "<constant", "elements", "that differ", "largest difference", "SNR (dB)")
        values = [
            (
                _short(v.node),
                v.operand,
                show_count(v.elements),
                show_count(v.differing),
                f"{v.max_abs_difference:.3g}",
                f"{v.snr_db:.1f}",
            )
            for v in found.values
        ]
        console.print(table("values", columns, values))
