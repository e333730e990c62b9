# SPDX-License-Identifier: Apache-2.0
"""A still scene stays still: where an image differs from the one before by no more than noise, its scene is the one before."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from seqamodal_ros.scene.scene import LayeredScene

if TYPE_CHECKING:
    from seqamodal_ros.ros.worker import Frame


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
        """The scene of the camera's image before, if no patch of this one differs by more than the frame's `stillness`."""
        seen = self._seen.get(frame.camera)
        if not frame.stillness or seen is None or seen.how != _how(frame):
            return None
        if np.abs(frame.patches - seen.patches).max() > frame.stillness:
            return None
        return seen.scene

    def keep(self, frame: "Frame", scene: LayeredScene) -> None:
        """Remember a scene that was inferred for a camera's frame."""
        if frame.stillness:
            again = replace(scene, seconds=0.0)  # no time is spent on it then
            self._seen[frame.camera] = _Seen(_how(frame), frame.patches, again)


def _how(frame: "Frame") -> tuple[object, ...]:
    return frame.image.shape, frame.num_samples, frame.seed, frame.region
