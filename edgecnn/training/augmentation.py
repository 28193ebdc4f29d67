"""Augmentation: each training image is seen a little different every time; held-out images are left alone."""

from dataclasses import dataclass
from typing import Any

from edgecnn.errors import UsageError


@dataclass(frozen=True, kw_only=True, slots=True)
class Augmentation:
    """How far an image may be changed at random.

    Attributes:
        shift: Largest move in both directions, as a share of height and width, in [0, 1).
        rotation_degrees: Largest turn to either side, in degrees.
        mirror: Whether half of the images are mirrored left to right.
    """

    shift: float = 0.0
    rotation_degrees: float = 0.0
    mirror: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.shift < 1 or not 0 <= self.rotation_degrees <= 180:
            raise UsageError(
                f"augmentation: shift in [0, 1) and rotation_degrees in [0, 180] were wanted; "
                f"got {self.shift} and {self.rotation_degrees}"
            )

    def layers(self, keras: Any, *, seed: int) -> list[Any]:
        """Return Keras layers that change images while training and pass them by otherwise."""
        turn = self.rotation_degrees / 360
        found = []
        if self.shift:
            found.append(keras.layers.RandomTranslation(self.shift, self.shift, fill_mode="nearest", seed=seed))
        if turn:
            found.append(keras.layers.RandomRotation(turn, fill_mode="nearest", seed=seed + 1))
        if self.mirror:
            found.append(keras.layers.RandomFlip("horizontal", seed=seed + 2))
        return found
