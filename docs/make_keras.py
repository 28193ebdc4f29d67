"""Write docs/keras.md: what is read of Keras models and what is written, from the tables that do it."""

from collections.abc import Iterable
from pathlib import Path

from edgecnn.converters._keras_groups import EXPANSIONS
from edgecnn.converters._keras_layers import FUNCTIONS, OPERATIONS, READERS
from edgecnn.converters._keras_operators import WRITERS
from edgecnn.converters._keras_read_activations import ACTIVATIONS

TEXT = """# Keras models

Made from the tables by `python docs/make_keras.py`.

Files that are read: `.keras` (Keras 3), `.h5` of whole models (Keras 2 and 3), functional and sequential, with models
in models, shared layers, several inputs and outputs. Neither Keras nor TensorFlow is imported, and nothing in a file is
executed: Lambda, custom and unknown layers are refused by name. Sizes must be known but for the batch, channels last,
variables float32.

## Layers

{layers}

A layer's `activation` may be one of the names below, or a ReLU, LeakyReLU, ELU or Softmax layer. Limits: softmax and
normalisation over the last axis, ReLU with threshold 0, Resizing without antialiasing and aspect ratio. Keras 2's
`hard_sigmoid` (0.2 x + 0.5) and Keras 3's (x / 6 + 0.5) are told apart by the version in the file.

## Activations

{activations}

## Operations of keras.ops

{operations}

One operand of an arithmetic operation may be a constant; axes and slices lie behind the batch. Of Keras 2's TFOpLambda:
{functions}.

## Written

Every operator of the vocabulary becomes a layer, a function of keras.ops, or a group of them that is read as one again:
{written}.

As groups, in part or always: {groups}.

A Graph comes back with its names, operators and constants. Four things differ: the batch is symbolic; a constant that
is no layer's variable is named after its node; every end of a slice is a number; padding that a transposed convolution
cuts behind and adds behind cancels out. Refused, with the reason: operators over the batch, Opaque, constants of more
than 262144 numbers outside layers.
"""


def listed(names: Iterable[str]) -> str:
    """Return names as a list in code."""
    return ", ".join(f"`{name}`" for name in sorted(names))


def page() -> str:
    """Return the page."""
    return TEXT.format(
        layers=listed(READERS),
        activations=listed(ACTIVATIONS),
        operations=listed(OPERATIONS),
        functions=listed(FUNCTIONS),
        written=listed(op.__name__ for op in {*WRITERS, *EXPANSIONS}),
        groups=listed(op.__name__ for op in EXPANSIONS),
    )


if __name__ == "__main__":
    (Path(__file__).parent / "keras.md").write_text(page())
