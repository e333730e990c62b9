# SPDX-License-Identifier: Apache-2.0
"""A still scene stays still: where an image differs from the one before by no more than noise, its scene is the one before."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seqamodal_ros.scene.scene import LayeredScene

if TYPE_CHECKING:
    from seqamodal_ros.ros.worker import Frame

USUAL = 300  # pixels of a patch of 640x480, which `stillness` is said for


@dataclass(frozen=True, eq=False)
class _Seen:
    how: tuple[object, ...]
    patches: np.ndarray
    scene: LayeredScene


class Stillness:
    """Remembers what each camera saw last, and compares with the image that was really seen, so that slow changes add up."""

    def __init__(self) -> None:
        self._seen: dict[str, _Seen] = {}

    def recall(self, frame: "Frame") -> LayeredScene | None:
        """The scene of the camera's image before, if no patch differs by more than the frame's `stillness`, or, in images and
        regions smaller than 640x480, by as much more as their patches average less noise away."""
        seen = self._seen.get(frame.camera)
        if not frame.stillness or seen is None or seen.how != _how(frame):
            return None
        if np.abs(frame.patches - seen.patches).max() > _allowed(frame):
            return None
        return seen.scene

    def keep(self, frame: "Frame", scene: LayeredScene) -> None:
        """Remember a scene that was inferred for a camera's frame."""
        if frame.stillness:
            again = replace(scene, seconds=0.0)  # no time is spent on it then
            self._seen[frame.camera] = _Seen(_how(frame), frame.patches, again)


def _allowed(frame: "Frame") -> float:
    """Grey levels by which a patch may differ: the mean over fewer pixels has as much more noise as the root of their share."""
    _, _, width, height = frame.looked_at
    patches = len(frame.patches)
    pixels = max(1.0, width / patches) * max(1.0, height / patches)  # of a patch; along a side of fewer nothing is averaged
    return frame.stillness * max(1.0, math.sqrt(USUAL / pixels))


def _how(frame: "Frame") -> tuple[object, ...]:
    return frame.image.shape, frame.num_samples, frame.seed, frame.region
