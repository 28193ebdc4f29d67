"""What a format and a target implement: the manual for plug-in authors.

A format lives in the group "edgecnn.converters", a target in "edgecnn.targets". Both are objects without state; a heavy
package is imported inside the method that needs it, through `extras.require`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from edgecnn.contract import Contract, Layout
from edgecnn.graph import Array, Graph
from edgecnn.shapes import Shape


@dataclass(frozen=True, kw_only=True, slots=True)
class Artifact:
    """A file that a writer made.

    Attributes:
        path: Its main file.
        format: Registry name of its format.
        size_bytes: Of all its files together.
        operators: The format's own operator names and how often each occurs.
    """

    path: Path
    format: str
    size_bytes: int
    operators: Mapping[str, int]


@runtime_checkable
class Format(Protocol):
    """What reading and writing share.

    Attributes:
        name: Registry name.
        suffix: Of the main file, with the dot.
        aliases: Further suffixes that files to be read may have.
        default_layout: Of image ports whose layout nobody chose.
    """

    name: str
    suffix: str
    aliases: tuple[str, ...]
    default_layout: Layout

    def files(self, path: Path) -> tuple[Path, ...]:
        """Return every file that an artifact with this main file consists of."""
        ...

    def read_contract(self, path: Path) -> Contract | None:
        """Return the contract stored in a file, or None where it has none.

        Raises:
            InputFileError: When the file is damaged.
        """
        ...


@runtime_checkable
class Reader(Format, Protocol):
    """A format that can be read."""

    def read(self, path: Path) -> Graph:
        """Read a file into a validated Graph (batch symbolic where the file leaves it open), contract included.

        The file is untrusted: nothing in it is executed, and whatever is wrong with it ends in an error.

        Raises:
            InputFileError: When the file is damaged.
            UnsupportedError: When it holds something that we do not read, named.
        """
        ...


@runtime_checkable
class Writer(Format, Protocol):
    """A format that can be written."""

    def write(self, graph: Graph, path: Path) -> Artifact:
        """Write a deployed Graph (see passes.deploy); its ports' layouts decide what callers feed.

        The same Graph gives the same bytes. The caller takes care that the file appears whole or not at all.

        Raises:
            UnsupportedError: Naming the operator and the node that the format cannot carry, and what to do instead.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedPort:
    """An input or output as a file's own tables state it.

    Attributes:
        name: The name that callers use.
        shape: In the file's own order of axes, None for a size that the file leaves open; None where it does not say.
        dtype: NumPy's name of the element type, or the file's own where NumPy has none; empty where it does not say.
        layout: Such as "NCHW", where the file says it; else empty.
        scale: Of a quantized port: a stored number q means scale * (q - zero_point). None for a float one.
        zero_point: See scale.
    """

    name: str
    shape: Shape | None
    dtype: str
    layout: str = ""
    scale: float | None = None
    zero_point: int | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Listing:
    """What a file's own tables state, whether or not we could convert it.

    Attributes:
        facts: What it is -> text: versions, producer, signatures.
        inputs: In the file's order.
        outputs: In the file's order.
        operators: The format's own operator names and how often each occurs.
        tensors: Element type -> how many tensors (constants and, where the file types them, computed values) have it.
        constant_bytes: Element type that constants are stored in -> bytes.
    """

    facts: Mapping[str, str]
    inputs: tuple[ListedPort, ...]
    outputs: tuple[ListedPort, ...]
    operators: Mapping[str, int]
    tensors: Mapping[str, int]
    constant_bytes: Mapping[str, int]


@runtime_checkable
class Lister(Format, Protocol):
    """A format whose files can be listed even where they cannot be read: what `edgecnn inspect` shows of any file."""

    def listing(self, path: Path) -> Listing:
        """Return what a file's own tables state; operators, types and versions that we do not know included.

        Raises:
            InputFileError: When the tables themselves are damaged.
        """
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """Whether a target can be used here.

    Attributes:
        state: "available"; "missing" when something is to be installed; "unusable" when it is there and cannot work.
        detail: Version and device, or the reason.
        remedy: What to do about it; empty when available.
    """

    state: Literal["available", "missing", "unusable"]
    detail: str
    remedy: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class SessionOptions:
    """How a target runs an artifact.

    Attributes:
        threads: Threads of the runtime, exactly.
    """

    threads: int = 1


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    """What the runtime granted, read back from it where it tells.

    Attributes:
        runtime: Name and version.
        threads: Granted threads.
        precision: Type that floating-point arithmetic is done in.
        instruction_set: What the CPU has of what 8-bit kernels choose by; None where the system does not tell.
    """

    runtime: str
    threads: int
    precision: str
    instruction_set: tuple[str, ...] | None = None


class Session(Protocol):
    """An artifact that is loaded and ready; arrays are in its own external layout and types, integers not interpreted.

    Attributes:
        facts: What the runtime granted.
        input_shapes: Name -> shape; a batch of None is symbolic.
        input_dtypes: Name -> NumPy's name of the element type that it takes.
    """

    facts: Facts
    input_shapes: Mapping[str, Shape]
    input_dtypes: Mapping[str, str]

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return output name -> values; the arrays belong to the caller."""
        ...

    def bind(self, inputs: Mapping[str, Array]) -> Callable[[], object]:
        """Bind the inputs and return the bare invocation, which is all that a benchmark times."""
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...


class Target(Protocol):
    """A runtime and its accelerator.

    Attributes:
        name: Registry name, such as "litert_cpu".
        formats: Formats that it opens, by name.
    """

    name: str
    formats: tuple[str, ...]

    def status(self) -> Status:
        """Try the runtime and tell whether it can be used here; never raises."""
        ...

    def open(self, path: Path, options: SessionOptions) -> Session:
        """Load an artifact.

        Raises:
            MissingError: When the runtime is not installed.
            InputFileError: When the runtime refuses the file, with the runtime's own words.
        """
        ...
