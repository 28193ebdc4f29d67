"""Write docs/operators.md: what each format writes for each operator, and which of its operators are read.

Nothing here is stated twice: every Graph of tests/graphs.py is written, and what its file holds is the table's source.
"""

import importlib
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from edgecnn.converters._keras_groups import EXPANSIONS  # noqa: E402
from edgecnn.converters._keras_operators import WRITERS  # noqa: E402

from edgecnn import ops, registry  # noqa: E402 - the line above finds tests.graphs
from edgecnn.errors import UnsupportedError  # noqa: E402
from edgecnn.interfaces import Writer  # noqa: E402
from tests.graphs import GRAPHS  # noqa: E402

FORMATS = ("tflite", "onnx", "openvino")

READERS = {"tflite": "_tflite_read", "onnx": "_onnx_read_graph", "openvino": "_openvino_reader"}
"""Format -> module of its table of rows; Keras' layers are in keras.md."""

TRIED = "y"
"""Name of the node that a Graph of tests/graphs.py is about."""

Kind = type[ops.Op]

TEXT = """# Operators and formats

Made by `python docs/make_operators.py`: each Graph of tests/graphs.py is written, and its file's operators are listed.

## Written

What an operator of the vocabulary becomes, all its forms and fused activations together: an average pooling needs PAD
and MUL only where its padding is neither SAME nor VALID, say. Where a channels-first format has to turn a tensor, a
Transpose comes on top. BatchNorm, Dropout and Identity are folded or removed before.

{written}

Refused, with the node's name before it; keras: see [keras.md](keras.md):

{refused}

A form of an operator that a format has no means for (TFLite resizes no volumes, say) is refused the same way.

## Read

{read}

Keras' layers and operations are in [keras.md](keras.md).
"""


def written_by(writer: Writer) -> tuple[dict[Kind, set[str]], dict[Kind, str]]:
    """Return operator -> what the format's files hold for it, and operator -> why it is refused.

    What the Graph's other nodes account for is left out; a Graph waits until that is known, the smallest come first.
    """
    found: dict[Kind, set[str]] = {}
    waiting, refused = files_of(writer)
    waiting.sort(key=lambda each: (len(each[1]), each[0] is not ops.Transpose))
    while ready := [each for each in waiting if each[1] <= found.keys()]:
        kind, others, operators = ready[0]
        waiting.remove(ready[0])
        known = {name for other in {*others, ops.Transpose} - {kind} for name in found.get(other, ())}
        found.setdefault(kind, set()).update(operators - known)
    return found, {kind: why for kind, why in refused.items() if kind not in found}


def files_of(writer: Writer) -> tuple[list[tuple[Kind, set[Kind], set[str]]], dict[Kind, str]]:
    """Write every Graph: return (operator tried, the other ones, the file's operators), and what was refused."""
    files, refused = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for graph in GRAPHS.values():
            kinds = {node.name: type(node.op) for node in graph.nodes}
            if TRIED not in kinds:
                continue
            try:
                operators = writer.write(graph, Path(folder) / f"tried{writer.suffix}").operators
            except UnsupportedError as error:
                name, _, why = str(error).partition(": ")
                refused[kinds[name]] = why
                continue
            files.append((kinds[TRIED], {*kinds.values()} - {kinds[TRIED]}, {*operators}))
    return files, refused


def listed(names: Iterable[str]) -> str:
    """Return names as code, in order."""
    return ", ".join(f"`{name}`" for name in sorted(names))


def cell(found: Mapping[Kind, set[str]], kind: Kind) -> str:
    """Return what a format writes for an operator."""
    return listed(found[kind]) if kind in found else "refused"


def page() -> str:
    """Return the page."""
    table = {form: written_by(registry.load("converters", form)) for form in FORMATS}
    vocabulary = {type(node.op) for graph in GRAPHS.values() for node in graph.nodes}
    rows = [f"| operator | {' | '.join(FORMATS)} | keras |", "|---" * (len(FORMATS) + 2) + "|"]
    refused = []
    for kind in sorted(vocabulary, key=lambda kind: kind.__name__):
        cells = [cell(found, kind) for found, _ in table.values()]
        is_layer = kind in WRITERS or kind in EXPANSIONS
        rows.append(f"| {kind.__name__} | {' | '.join(cells)} | {'yes' if is_layer else 'refused'} |")
        refused += [f"- {kind.__name__}: {why[kind]}" for _, why in table.values() if kind in why]
    read = [f"{form}: {listed(rows_of(module))}." for form, module in READERS.items()]
    return TEXT.format(written="\n".join(rows), refused="\n".join(refused), read="\n\n".join(read))


def rows_of(module: str) -> Iterable[str]:
    """Return the names in a reader's table."""
    rows: Mapping[str, object] = importlib.import_module(f"edgecnn.converters.{module}").ROWS
    return rows


if __name__ == "__main__":
    (ROOT / "docs" / "operators.md").write_text(page(), encoding="utf-8")
