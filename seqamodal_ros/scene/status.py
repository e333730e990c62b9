# SPDX-License-Identifier: Apache-2.0
"""How far an answer can be trusted, in the words and numbers of LayeredMasks.msg, and why."""

from enum import IntEnum

from seqamodal_ros.scene.captions import CANNOT_TELL
from seqamodal_ros.scene.scene import LayeredScene

LOW_SCORE = 0.6  # of an object of the front layer; below it, look before you pick


class Status(IntEnum):
    """As in LayeredMasks.msg."""

    OK = 0
    EMPTY = 1
    LOW_CONFIDENCE = 2


def status_of(scene: LayeredScene) -> tuple[Status, str]:
    """The status of a scene, and why it is not OK: of EMPTY and LOW_CONFIDENCE in a few words, else empty."""
    if not len(scene.amodal):
        return (Status.LOW_CONFIDENCE, f"{CANNOT_TELL}: {scene.doubt}") if scene.doubt else (Status.EMPTY, "no layer found")
    front = [obj.score for obj in scene.objects if obj.layer == 1]
    if not front:
        return Status.LOW_CONFIDENCE, "specks alone in front"
    if min(front) < LOW_SCORE:
        score = min(round(min(front), 2), LOW_SCORE - 0.01)  # 0.597 is no 0.60 here
        return Status.LOW_CONFIDENCE, f"an object of the front layer scores {score:.2f}, below {LOW_SCORE}"
    return Status.OK, ""
