"""What a diagnosis finds, and what it looks at."""

import glob
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import inf, log10
from typing import Literal

from edgecnn.graph import Graph, Node
from edgecnn.passes.editor import GraphEditor
from edgecnn.quantization.predicted_errors import PredictedError
from edgecnn.quantization.predicted_moments import Moments
from edgecnn.quantization.recipe import Spread

Severity = Literal["will fail", "will lose accuracy", "worth knowing"]

FAILS_DB = 10.0
"""Predicted SNR of one layer below which the network's answers are not expected to survive.

MobileNet v1 0.25 with one scale for each kernel: 9.8 dB predicted for its worst layer (11.2 measured), 3 % of answers.
"""

LOSES_DB = 18.0
"""Below which accuracy is expected to suffer.

Measured with layer_errors behind `quantize` (min-max of 24 images): it names 12 of YOLOX-nano's and MobileFaceNet's 353
layers, of which 11 lie below 25 dB (their median is 28) and among which are 4 of the 6 that lie below 18; it names none
in MobileNet v1 0.25, ResNet-8, VWW and DeepLab, whose layers all have more than 26 dB.
"""

MOST_NAMED = 3
"""Layers that a remedy spells out; further ones are listed with the finding."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Victim:
    """One layer that a finding is about.

    Attributes:
        node: Its name.
        figure: What was found there, with its number.
    """

    node: str
    figure: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One cause of trouble in a network.

    Attributes:
        severity: What comes of it in the precision that was asked about.
        cause: A few words.
        what: Why it matters, in one sentence.
        victims: The layers, worst first; none where it is about the whole network.
        remedy: What to do, as options of `edgecnn quantize` where there are any.
    """

    severity: Severity
    cause: str
    what: str
    victims: tuple[Victim, ...] = ()
    remedy: str = ""


def total_db(errors: Iterable[PredictedError]) -> float:
    """Return the SNR in dB that errors leave together, as if each reached the output at the size that it has."""
    noise = sum(10 ** (-error.snr_db / 10) for error in errors)
    return -10 * log10(noise) if noise else inf


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class Examined:
    """A float network as every cause looks at it.

    Attributes:
        read: Before deployment: BatchNorm and the weights as they were trained.
        graph: Deployed; what quantizing starts from.
        prepared: In the operators that integers have.
        editor: Of the deployed Graph; it knows who gives and takes a tensor.
        moments: What is expected of each tensor, as far as it can be told.
        errors: What each layer is expected to lose, by node.
        scales: One for each channel of a kernel, or one for the whole.
        linked: Layer -> the one before it, where factors and shifts of channels can pass between them.
        unfolded: BatchNorm -> why no layer took it over.
        is_assumed: Whether the range of the input is a guess: the one in which the layers are expected to lose least.
        is_zoo: Whether the network is built by name, so that its definition can be changed by options.
    """

    read: Graph
    graph: Graph
    prepared: Graph
    editor: GraphEditor
    moments: Mapping[str, Moments]
    errors: Mapping[str, PredictedError]
    scales: Spread
    linked: Mapping[str, str]
    unfolded: Mapping[str, str]
    is_assumed: bool
    is_zoo: bool

    def width(self, tensor: str) -> float:
        """Return the width of a tensor's expected range, with 0 in it; 0 where it is not known."""
        if tensor not in self.moments:
            return 0.0
        low, high = self.moments[tensor].range
        return high - low

    def severity(self, nodes: Iterable[str]) -> Severity:
        """Return what the predicted errors of some nodes come to."""
        worst = min((self.errors[name].snr_db for name in nodes if name in self.errors), default=LOSES_DB)
        if worst < FAILS_DB:
            return "will fail"
        return "will lose accuracy" if worst < LOSES_DB else "worth knowing"

    def in_float(self, nodes: Iterable[Node | None]) -> str:
        """Return the options that keep some nodes in float."""
        names = list(dict.fromkeys(node.name for node in nodes if node is not None))
        shown = " ".join(f"--layer '{glob.escape(name)}=float32'" for name in names[:MOST_NAMED])
        return shown + (f" and so on for {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else "")
