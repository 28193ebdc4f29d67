"""Convert: one Graph into artifacts of several formats, each held against the source before it is handed over.

Everything is written into a scratch folder, verified there, and moved into place together; when a check fails nothing
is handed over.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgecnn import registry
from edgecnn.console import show_bytes
from edgecnn.contract import Contract, Recipe
from edgecnn.count import count
from edgecnn.errors import CheckFailedError, InputFileError, UsageError
from edgecnn.feeding import Feeds
from edgecnn.graph import Graph, with_batch
from edgecnn.interfaces import Artifact, Writer
from edgecnn.ops import elements
from edgecnn.outputs import safe_name, staged
from edgecnn.passes.deploy import Deployment, deploy
from edgecnn.passes.store_float16 import store_float16
from edgecnn.shapes import show_shape
from edgecnn.source import format_of, target_for
from edgecnn.verify import MINIMUM_SNR_DB, Parity, reference_outputs, verify

LARGEST_TENSOR_BYTES = 4 << 30
"""Of one tensor, batch 1: what small devices run is far below it."""

Load = Callable[[Graph, Contract | None], Feeds]
"""(source, contract of its input) -> what to feed it."""

RECIPES: dict[str, Callable[[Graph], Graph]] = {"float32": lambda graph: graph, "float16": store_float16}
"""Recipe -> what it does to the deployed Graph's constants."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Conversion:
    """What a conversion made.

    Attributes:
        deployment: Which passes were applied and refused.
        artifacts: One for each format, in the order asked for.
        parity: One for each artifact, or empty where nothing was verified.
    """

    deployment: Deployment
    artifacts: tuple[Artifact, ...]
    parity: tuple[Parity, ...]

    @property
    def passed(self) -> bool:
        """Tell whether every check that ran holds."""
        return all(parity.passed for parity in self.parity)


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


def convert(
    graph: Graph,
    folder: Path,
    plan: Plan,
    *,
    load: Load | None = None,
    advance: Callable[[str], None] = lambda what: None,
) -> Conversion:
    """Write a Graph in several formats and verify each.

    Args:
        graph: The source, training-time nodes included.
        folder: Where the artifacts belong.
        plan: What to convert to.
        load: Gives at least 16 real images for each input; None writes without verifying.
        advance: Called with what was just finished.

    Raises:
        OutputError: When an artifact exists already or the folder cannot be written.
        UnsupportedError: When a format cannot carry the Graph.
        ParityError: When a check fails; nothing is written then.
    """
    writers = [_writer(name) for name in plan.formats]
    stem = safe_name(graph.name) + ("" if plan.recipe == "float32" else f"_{plan.recipe}")
    paths = [folder / f"{stem}{writer.suffix}" for writer in writers]
    names = [file.name for writer, path in zip(writers, paths, strict=True) for file in writer.files(path)]
    refuse_too_large(graph)
    with staged(folder, names, force=plan.force) as scratch:
        deployment = deploy(with_batch(graph, plan.batch))
        shipped = RECIPES[plan.recipe](deployment.graph)
        if shipped.contract is not None:
            cost = count(shipped)
            macs = None if cost.unknown else cost.macs
            shipped = replace(shipped, contract=replace(shipped.contract, recipe=plan.recipe, macs=macs))
        written = []
        for writer, path in zip(writers, paths, strict=True):
            written.append(writer.write(shipped, scratch / path.name))
            advance(f"wrote {path.name}")
        files = [artifact.path for artifact in written]
        try:
            parity = check(graph, shipped, files, load, threads=plan.threads, advance=advance) if load else ()
        except InputFileError as error:
            raise CheckFailedError(
                f"{graph.name}: an artifact that its runtime loads was wanted. Nothing was written. {error}"
            ) from None
        conversion = Conversion(
            deployment=deployment,
            parity=tuple(replace(p, artifact=str(path)) for p, path in zip(parity, paths, strict=False)),
            artifacts=tuple(replace(a, path=path) for a, path in zip(written, paths, strict=True)),
        )
        if not conversion.passed:
            raise ParityError(conversion)
    return conversion


def refuse_too_large(graph: Graph) -> None:
    """Raise UsageError before memory is asked for that no machine of this kind has."""
    for tensor in graph.tensors.values():
        size = 4 * elements(tensor.shape)
        if size > LARGEST_TENSOR_BYTES:
            raise UsageError(
                f"{tensor.name}: a tensor of at most {show_bytes(LARGEST_TENSOR_BYTES)} was wanted; "
                f"{show_shape(tensor.shape)} takes {show_bytes(size)}"
            )


class ParityError(CheckFailedError):
    """An artifact does not compute what its source computes, so that nothing was handed over.

    Attributes:
        conversion: What was found.
    """

    def __init__(self, conversion: Conversion) -> None:
        worst = min((parity for parity in conversion.parity if not parity.passed), key=lambda parity: parity.snr_db)
        super().__init__(
            f"{worst.artifact}: parity was wanted; found an SNR of {worst.snr_db:.1f} dB and a maximum error of "
            f"{worst.max_error:.1e} of the range. {_explained(worst)}Nothing was written; --no-verify writes it all "
            "the same."
        )
        self.conversion = conversion


def _explained(parity: Parity) -> str:
    if parity.resolvable_db >= MINIMUM_SNR_DB:
        return ""
    return (
        "The outputs hardly differ from image to image, as an untrained network's do: float32 itself resolves only "
        f"{parity.resolvable_db:.1f} dB of that, so nothing can be proved. Train the network first. "
    )


def check(
    source: Graph,
    shipped: Graph,
    artifacts: Sequence[Path],
    load: Load,
    *,
    threads: int = 1,
    advance: Callable[[str], None] = lambda what: None,
    target: str | None = None,
) -> tuple[Parity, ...]:
    """Verify artifacts of one source; the reference runs once for each contract that differs.

    Args:
        source: The source Graph, any batch.
        shipped: What was written: the reference for rounded constants.
        artifacts: Files.
        load: Gives real images for a contract.
        threads: For the runtimes.
        advance: Called with what was just finished.
        target: Name of the target, or None for each format's own.
    """
    checked, known = [], {}
    is_rounded = any(tensor.data is not None and tensor.data.dtype == "float16" for tensor in shipped.tensors.values())
    for path in artifacts:
        form = format_of(path)
        stored = form.read_contract(path)
        contract = stored or source.contract
        key = None if contract is None else replace(contract, layout="NHWC")
        if key not in known:
            inputs = load(source, contract).values
            exact = reference_outputs(with_batch(source, None), inputs)
            rounded = reference_outputs(with_batch(shipped, None), inputs) if is_rounded else None
            known[key] = inputs, exact, rounded
        inputs, exact, rounded = known[key]
        parity = verify(
            rounded or exact,
            path,
            target_for(path, target),
            inputs,
            rounding=exact if rounded else None,
            threads=threads,
            layout=stored.layout if stored else form.default_layout,
        )
        checked.append(parity)
        advance(f"verified {path.name}")
    return tuple(checked)


def shipped_graph(source: Graph, recipe: Recipe) -> Graph:
    """Return what a recipe makes of a source: the reference that its artifacts are held against."""
    return RECIPES[recipe](deploy(source).graph)


def _writer(name: str) -> Writer:
    writer = registry.load("converters", name)
    if not isinstance(writer, Writer):
        raise UsageError(f"format '{name}' can be read but not written")
    return writer
