# SPDX-License-Identifier: Apache-2.0
"""How far an answer can be trusted, in the words and numbers of LayeredMasks.msg, and why."""

import math
from enum import IntEnum

import numpy as np

from seqamodal_ros.scene.captions import CANNOT_TELL
from seqamodal_ros.scene.components import components
from seqamodal_ros.scene.picking import LOW_SCORE
from seqamodal_ros.scene.scene import LayeredScene

SPECK = 10  # mask pixels; what is smaller is no fragment


class Status(IntEnum):
    """As in LayeredMasks.msg."""

    OK = 0
    EMPTY = 1
    LOW_CONFIDENCE = 2


def status_of(scene: LayeredScene) -> tuple[Status, str]:
    """The status of a scene, and why it is not OK: of EMPTY and LOW_CONFIDENCE in a few words, else empty."""
    if not len(scene.amodal):
        return (Status.LOW_CONFIDENCE, f"{CANNOT_TELL}: {scene.doubt}") if scene.doubt else (Status.EMPTY, "no layer found")
    front = [obj for obj in scene.objects if obj.layer == 1]
    if not front:
        return Status.LOW_CONFIDENCE, "the front layer holds specks or fragments only, no object"
    rest = scene.amodal[0] & ~np.logical_or.reduce([obj.amodal for obj in front])
    scores = [(float(scene.probability[0][fragment].mean()), "a fragment") for fragment in components(rest, SPECK)]
    scores += [(obj.score, "an object") for obj in front if not math.isnan(obj.score)]  # another node may not compute it
    score, what = min(scores, default=(1.0, ""))
    if score < LOW_SCORE:
        shown = min(round(score, 2), LOW_SCORE - 0.01)  # 0.597 is no 0.60 here
        return Status.LOW_CONFIDENCE, f"{what} of the front layer scores {shown:.2f}, below {LOW_SCORE}"
    return Status.OK, ""
