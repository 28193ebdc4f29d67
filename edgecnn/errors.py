"""Every error that edgecnn raises on purpose.

    EdgeCNNError                     exit code
    ├── UsageError (ValueError)          2      what was asked contradicts itself or cannot be done
    │   ├── UnknownNameError (LookupError)      no model, format or target of that name
    │   ├── ShapeError                          an operator's inputs or attributes do not fit together
    │   └── OutputError (OSError)               an output exists already or cannot be written
    ├── InputFileError (ValueError)      3      a file from outside is damaged or not what it claims to be
    │   ├── GraphError                          a Graph breaks its own rules
    │   └── UnsupportedError (NotImplementedError)  something no door, writer or pass of ours can carry
    ├── MissingError (ImportError)       4      a package that an extra brings is not installed
    ├── NotThereError (FileNotFoundError) 4     a file, folder or device is not there
    └── CheckFailedError                 1      the job ran and failed its own check

Each text says **where: what was wanted, what was found. What to do.**
"""

from typing import ClassVar


class EdgeCNNError(Exception):
    """The root: catch this to catch everything that edgecnn raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(EdgeCNNError, ValueError):
    """What was asked contradicts itself or cannot be done."""

    exit_code = 2


class UnknownNameError(UsageError, LookupError):
    """No model, format, target or pass has that name."""


class ShapeError(UsageError):
    """An operator's inputs or attributes do not fit together."""


class OutputError(UsageError, OSError):
    """An output exists already, or its folder cannot be written."""


class InputFileError(EdgeCNNError, ValueError):
    """A file from outside is damaged or not what it claims to be."""

    exit_code = 3


class GraphError(InputFileError):
    """A Graph breaks its own rules: an unknown tensor, a cycle, a shape that does not follow."""


class UnsupportedError(InputFileError, NotImplementedError):
    """Something that no reader, writer or pass of ours can carry."""


class MissingError(EdgeCNNError, ImportError):
    """A package that an extra brings is not installed."""

    exit_code = 4


class NotThereError(EdgeCNNError, FileNotFoundError):
    """A file, folder or device is not there."""

    exit_code = 4


class CheckFailedError(EdgeCNNError):
    """The job ran and failed its own check: parity, accuracy budget, placement, comparison."""
