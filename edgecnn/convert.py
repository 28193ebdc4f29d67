"""Convert: one Graph into artifacts of several formats, each held against the source before it is handed over.

Everything is written into a scratch folder, verified there, and moved into place together; when a check fails nothing
is handed over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn import registry
from edgecnn.assume import first_guess
from edgecnn.bisect import Suspect, bisect
from edgecnn.console import show_bytes
from edgecnn.contract import Recipe
from edgecnn.conversion import Conversion, ParityError
from edgecnn.count import count
from edgecnn.errors import CheckFailedError, EdgeCNNError, InputFileError, ShapeError, UnsupportedError, UsageError
from edgecnn.graph import Graph, with_batch
from edgecnn.interfaces import Writer
from edgecnn.ops import Opaque, elements
from edgecnn.outputs import safe_name, staged
from edgecnn.passes.deploy import Deployment, deploy
from edgecnn.passes.store_float16 import store_float16
from edgecnn.proof import Load, References, check, check_source, feeding
from edgecnn.shapes import show_shape
from edgecnn.source import Source, target_for

LARGEST_TENSOR_BYTES = 4 << 30
"""Of one tensor, batch 1: what small devices run is far below it."""

LISTED = 5
"""How many unknown operators an error names."""

RECIPES: dict[str, Callable[[Graph], Graph]] = {"float32": lambda graph: graph, "float16": store_float16}
"""Recipe -> what it does to the deployed Graph's constants."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to convert to.

    Attributes:
        formats: Names of formats.
        recipe: How constants are stored.
        batch: A number, or None for a symbolic batch.
        force: Whether existing files may be replaced.
        threads: For the runtimes that verify.
    """

    formats: tuple[str, ...]
    recipe: Recipe = "float32"
    batch: int | None = 1
    force: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if self.recipe not in RECIPES:
            raise UsageError(f"recipe must be one of {', '.join(RECIPES)}; got {self.recipe!r}")
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise UsageError(f"--to: at least one format was wanted, each once; got {','.join(self.formats) or 'none'}")
        if self.recipe == "float16" and "keras" in self.formats:
            raise UsageError(
                "--recipe float16: Keras' layers keep float32 variables. Choose --to tflite, onnx or openvino."
            )


def convert(
    source: Source | Graph,
    folder: Path,
    plan: Plan,
    *,
    load: Load | None = None,
    advance: Callable[[str], None] = lambda what: None,
) -> Conversion:
    """Write a Graph in several formats and verify each.

    Args:
        source: A Graph, training-time nodes included, or one with the file that it was read from.
        folder: Where the artifacts belong.
        plan: What to convert to.
        load: Gives at least 16 real images for each input; None writes without verifying.
        advance: Called with what was just finished.

    Raises:
        OutputError: When an artifact exists already or the folder cannot be written.
        UnsupportedError: When a format cannot carry the Graph.
        ParityError: When a check fails; nothing but the smallest model that shows it is written then.
    """
    source = Source(graph=source, read=source) if isinstance(source, Graph) else source
    graph = source.graph
    writers = [_writer(name) for name in plan.formats]
    stem = safe_name(graph.name) + ("" if plan.recipe == "float32" else f"_{plan.recipe}")
    paths = [folder / f"{stem}{writer.suffix}" for writer in writers]
    names = [file.name for writer, path in zip(writers, paths, strict=True) for file in writer.files(path)]
    if source.path is not None and source.path.resolve() in [path.resolve() for path in paths]:
        raise UsageError(f"{source.path}: this is the source itself, which is never replaced. Choose another -o.")
    refuse_unknown(graph)
    refuse_too_large(graph)
    with staged(folder, names, force=plan.force) as scratch:
        deployment, shipped = _shipped(graph, plan)
        written = []
        for writer, path in zip(writers, paths, strict=True):
            written.append(writer.write(shipped, scratch / path.name))
            advance(f"wrote {path.name}")
        conversion = Conversion(deployment=deployment, artifacts=tuple(written), parity=())
        if load is not None:
            conversion = _checked(conversion, source, shipped, References(load), plan, folder=folder, advance=advance)
        conversion = _moved(conversion, paths)
        if not conversion.passed:
            raise ParityError(conversion)
    return conversion


def _shipped(graph: Graph, plan: Plan) -> tuple[Deployment, Graph]:
    """Return the deployment, and the Graph that every format is written from."""
    try:
        batched = with_batch(graph, plan.batch)
    except ShapeError as error:
        wanted = "dynamic" if plan.batch is None else plan.batch
        raise UsageError(
            f"{graph.name}: --batch {wanted}: the network is tied to the batch that it has: {error}. Leave it out."
        ) from None
    deployment = deploy(batched)
    shipped = RECIPES[plan.recipe](deployment.graph)
    if shipped.contract is not None:
        cost = count(shipped)
        macs = None if cost.unknown else cost.macs
        shipped = replace(shipped, contract=replace(shipped.contract, recipe=plan.recipe, macs=macs))
    return deployment, shipped


def _checked(
    conversion: Conversion,
    source: Source,
    shipped: Graph,
    references: References,
    plan: Plan,
    *,
    folder: Path,
    advance: Callable[[str], None],
) -> Conversion:
    """Return the conversion with everything that was measured, and with reasons where it failed."""
    # Before all else: a picture that cannot be read is no fault of the artifacts.
    references.inputs(source.graph, source.graph.contract or first_guess(source.graph))
    proof = check_source(source, references, threads=plan.threads)
    files = [artifact.path for artifact in conversion.artifacts]
    try:
        parity = check(source.graph, shipped, files, references, proof=proof, threads=plan.threads, advance=advance)
    except InputFileError as error:
        raise CheckFailedError(
            f"{source.graph.name}: an artifact that its runtime loads was wanted. Nothing was written. {error}"
        ) from None
    conversion = replace(conversion, parity=parity, source_proof=proof)
    failed = [each for each, result in zip(conversion.artifacts, parity, strict=True) if not result.passed]
    for artifact in failed:
        suspect = Suspect(
            graph=shipped,
            writer=_writer(artifact.format),
            target=target_for(artifact.path, None),
            inputs=references.inputs(source.graph, feeding(source.graph, proof)),
            threads=plan.threads,
        )
        conversion = _bisected(conversion, suspect, folder, artifact.path.stem)
    return conversion


def _bisected(conversion: Conversion, suspect: Suspect, folder: Path, stem: str) -> Conversion:
    """Return the conversion with the first node that diverges; what keeps us from finding it hides no failure."""
    try:
        found = bisect(suspect, folder, stem)
    except EdgeCNNError as error:
        return replace(conversion, notes=(*conversion.notes, f"{suspect.writer.name} could not be bisected: {error}"))
    if found is None:
        note = (
            f"{suspect.writer.name}: no operator is wrong alone; float32's rounding adds up along the network. If the "
            "range of its input was only assumed, give --contract."
        )
        return replace(conversion, notes=(*conversion.notes, note))
    return replace(conversion, divergences=(*conversion.divergences, found))


def _moved(conversion: Conversion, paths: list[Path]) -> Conversion:
    """Return the conversion with the paths that its files will have."""
    return replace(
        conversion,
        parity=tuple(replace(p, artifact=str(path)) for p, path in zip(conversion.parity, paths, strict=False)),
        artifacts=tuple(replace(a, path=path) for a, path in zip(conversion.artifacts, paths, strict=True)),
    )


def refuse_unknown(graph: Graph) -> None:
    """Raise UnsupportedError naming the operators that a reader did not know."""
    unknown = [f"'{node.name}' ({node.op.kind})" for node in graph.nodes if isinstance(node.op, Opaque)]
    if unknown:
        more = f" and {len(unknown) - LISTED} more" if len(unknown) > LISTED else ""
        raise UnsupportedError(
            f"{graph.name}: operators that edgecnn knows were wanted; it does not know "
            f"{', '.join(unknown[:LISTED])}{more}. Cut the network before them with --outputs."
        )


def refuse_too_large(graph: Graph) -> None:
    """Raise UsageError before memory is asked for that no machine of this kind has."""
    for tensor in graph.tensors.values():
        size = 4 * elements(tensor.shape)
        if size > LARGEST_TENSOR_BYTES:
            raise UsageError(
                f"{tensor.name}: a tensor of at most {show_bytes(LARGEST_TENSOR_BYTES)} was wanted; "
                f"{show_shape(tensor.shape)} takes {show_bytes(size)}"
            )


def shipped_graph(source: Graph, recipe: Recipe) -> Graph:
    """Return what a recipe makes of a source: the reference that its artifacts are held against."""
    return RECIPES[recipe](deploy(source).graph)


def _writer(name: str) -> Writer:
    writer = registry.load("converters", name)
    if not isinstance(writer, Writer):
        raise UsageError(f"format '{name}' can be read but not written")
    return writer
