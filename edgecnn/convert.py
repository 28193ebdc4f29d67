"""Convert: one Graph into artifacts of several formats, each held against the source before it is handed over.

Everything is written into a scratch folder, verified there, and moved into place together; when a check fails nothing
is handed over.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn import registry
from edgecnn.assume import assume_contract, first_guess
from edgecnn.bisect import Suspect, bisect
from edgecnn.console import show_bytes
from edgecnn.contract import Contract
from edgecnn.conversion import Conversion, ParityError
from edgecnn.count import count
from edgecnn.errors import CheckFailedError, EdgeCNNError, InputFileError, ShapeError, UnsupportedError, UsageError
from edgecnn.graph import Array, Graph, with_batch
from edgecnn.interfaces import Writer
from edgecnn.ops import Opaque, elements
from edgecnn.outputs import safe_name, staged
from edgecnn.passes.deploy import Deployment, deploy
from edgecnn.probe import probe
from edgecnn.proof import Load, References, SourceProof, check, check_source, feeding
from edgecnn.quantization.quantize import Quantized, Samples, quantize
from edgecnn.quantization.recipe import Recipe
from edgecnn.shapes import show_shape
from edgecnn.source import Source, target_for

LARGEST_TENSOR_BYTES = 4 << 30
"""Of one tensor, batch 1: what small devices run is far below it."""

LISTED = 5
"""How many unknown operators an error names."""

FLOAT32 = Recipe(precision="float32")
"""Nothing is rounded; integers of a quantized source are kept as they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to convert to.

    Attributes:
        formats: Names of formats.
        recipe: What is quantized, and how.
        batch: A number, or None for a symbolic batch.
        force: Whether existing files may be replaced.
        threads: For the runtimes that verify.
    """

    formats: tuple[str, ...]
    recipe: Recipe = FLOAT32
    batch: int | None = 1
    force: bool = False
    threads: int = 1

    def __post_init__(self) -> None:
        if not self.formats or len(set(self.formats)) < len(self.formats):
            raise UsageError(f"--to: at least one format was wanted, each once; got {','.join(self.formats) or 'none'}")
        if self.recipe.name != "float32" and "keras" in self.formats:
            raise UsageError(
                f"--recipe {self.recipe.name}: Keras' layers keep float32 variables. Choose --to tflite, onnx or "
                "openvino."
            )


def convert(
    source: Source | Graph,
    folder: Path,
    plan: Plan,
    *,
    load: Load | None = None,
    samples: Samples | None = None,
    advance: Callable[[str], None] = lambda what: None,
) -> Conversion:
    """Write a Graph in several formats and verify each.

    Args:
        source: A Graph, training-time nodes included, or one with the file that it was read from.
        folder: Where the artifacts belong.
        plan: What to convert to.
        load: Gives at least 16 real images for each input; None writes without verifying.
        samples: What a static recipe calibrates on.
        advance: Called with what was just finished.

    Raises:
        OutputError: When an artifact exists already or the folder cannot be written.
        UnsupportedError: When a format cannot carry the Graph.
        ParityError: When a check fails; nothing but the smallest model that shows it is written then.
    """
    source = Source(graph=source, read=source) if isinstance(source, Graph) else source
    graph = source.graph
    writers = [_writer(name) for name in plan.formats]
    stem = safe_name(graph.name) + ("" if plan.recipe.name == "float32" else f"_{plan.recipe.name}")
    paths = [folder / f"{stem}{writer.suffix}" for writer in writers]
    names = [file.name for writer, path in zip(writers, paths, strict=True) for file in writer.files(path)]
    if source.path is not None and source.path.resolve() in [path.resolve() for path in paths]:
        raise UsageError(f"{source.path}: this is the source itself, which is never replaced. Choose another -o.")
    refuse_unknown(graph)
    refuse_too_large(graph)
    references = None if load is None else References(load)
    with staged(folder, names, force=plan.force) as scratch:
        proof = None if references is None else _proved(source, references, plan)
        fed = feeding(graph, proof) if proof is not None else _assumed(source, plan, samples)
        deployment, quantized = _shipped(graph, plan, fed, samples, advance)
        shipped, written = quantized.graph, []
        for writer, path in zip(writers, paths, strict=True):
            written.append(writer.write(shipped, scratch / path.name))
            advance(f"wrote {path.name}")
        conversion = Conversion(
            deployment=deployment, quantized=quantized, artifacts=tuple(written), parity=(), source_proof=proof
        )
        if references is not None:
            conversion = _checked(conversion, source, references, plan, folder=folder, advance=advance)
        conversion = _moved(conversion, paths)
        if not conversion.passed:
            raise ParityError(conversion)
    return conversion


def _proved(source: Source, references: References, plan: Plan) -> SourceProof | None:
    """Return what the source file's own runtime says to our reading of it."""
    # Before all else: a picture that cannot be read is no fault of the artifacts.
    references.inputs(source.graph, source.graph.contract or first_guess(source.graph))
    return check_source(source, references, threads=plan.threads)


def _assumed(source: Source, plan: Plan, samples: Samples | None) -> Contract | None:
    """Return how pixels become the input where nothing is verified: ranges are taken from images all the same."""
    graph = source.graph
    if graph.contract is not None or samples is None or source.path is None or first_guess(source.read) is None:
        return graph.contract
    probe([source.path])

    def inputs(contract: Contract) -> Mapping[str, Array]:
        return next(iter(samples.batches(replace(source.read, contract=contract))))

    return assume_contract(source, inputs, threads=plan.threads)


def _shipped(
    graph: Graph, plan: Plan, fed: Contract | None, samples: Samples | None, advance: Callable[[str], None]
) -> tuple[Deployment, Quantized]:
    """Return the deployment, and what every format is written from.

    Args:
        graph: The source.
        plan: What to convert to.
        fed: How pixels become the input, as the file says or as was assumed.
        samples: What a static recipe calibrates on.
        advance: Called with what was just finished.
    """
    try:
        batched = with_batch(graph, plan.batch)
    except ShapeError as error:
        wanted = "dynamic" if plan.batch is None else plan.batch
        raise UsageError(
            f"{graph.name}: --batch {wanted}: the network is tied to the batch that it has: {error}. Leave it out."
        ) from None
    deployment = deploy(batched)
    deployed = deployment.graph
    if plan.recipe.is_static:  # ranges hold only for what pixels become: the artifact has to say it, guessed or not
        deployed = replace(deployed, contract=deployed.contract or fed or first_guess(deployed))
    quantized = quantize(deployed, plan.recipe, samples, advance=lambda: advance("calibrated"))
    return deployment, replace(quantized, graph=_stamped(quantized, plan))


def _stamped(quantized: Quantized, plan: Plan) -> Graph:
    """Return the Graph whose contract says how it was made."""
    graph, calibration = quantized.graph, quantized.calibration
    if graph.contract is None:
        return graph
    cost = count(graph)
    stamp = "" if calibration is None else f"{calibration.images} images of {calibration.origin}"
    if calibration is not None and calibration.is_random:
        stamp = f"{calibration.images} random inputs: not fit for use"
    recipe = graph.contract.recipe if plan.recipe == FLOAT32 and graph.is_quantized else plan.recipe.name
    contract = replace(graph.contract, recipe=recipe, macs=None if cost.unknown else cost.macs, calibration=stamp)
    return replace(graph, contract=contract)


def _checked(
    conversion: Conversion,
    source: Source,
    references: References,
    plan: Plan,
    *,
    folder: Path,
    advance: Callable[[str], None],
) -> Conversion:
    """Return the conversion with everything that was measured, and with reasons where it failed."""
    proof, shipped = conversion.source_proof, conversion.quantized.graph
    files = [artifact.path for artifact in conversion.artifacts]
    try:
        parity = check(source.graph, shipped, files, references, proof=proof, threads=plan.threads, advance=advance)
    except InputFileError as error:
        raise CheckFailedError(
            f"{source.graph.name}: an artifact that its runtime loads was wanted. Nothing was written. {error}"
        ) from None
    conversion = replace(conversion, parity=parity)
    failed = [each for each, result in zip(conversion.artifacts, parity, strict=True) if not result.passed]
    for artifact in failed:
        suspect = Suspect(
            graph=shipped,
            writer=_writer(artifact.format),
            target=target_for(artifact.path, None),
            inputs=references.inputs(shipped, feeding(shipped, proof)),
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


def _writer(name: str) -> Writer:
    writer = registry.load("converters", name)
    if not isinstance(writer, Writer):
        raise UsageError(f"format '{name}' can be read but not written")
    return writer
