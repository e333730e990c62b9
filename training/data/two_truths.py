# SPDX-License-Identifier: Apache-2.0
"""Images that two scenes agree with in every visible pixel: hypotheses of one that knows both would find both.

Something lies in front of one end of another thing. Either that goes on behind it, or it ends there, cut off by a straight line:
what is cut off lies behind the front object as a whole, so nothing that shows tells the two apart.
"""

import cv2
import numpy as np

from training.data.painting import camera, lay, warp
from training.data.scene import Rejected, Scene, SceneRules

CUT = (0.46, 0.6)  # share of the thing that is cut off: the truths' IOU is less than 0.75 squared, so no mask has 0.75 with both
SHOWS = 0.15  # least share of the whole thing that shows


def two_truths(
    rng: np.random.Generator, canvas: np.ndarray, front: np.ndarray, behind: np.ndarray, rules: SceneRules
) -> tuple[Scene, Scene]:
    """The scene in which the thing behind is whole, and the one in which it is cut off, of the same image.

    Args:
        rng: draws places, sizes, and the line.
        canvas: float32 [S, S, 3] in [0, 1], the background; it is painted on.
        front, behind: sprites, uint8 [h, w, 4] RGBA, premultiplied.
        rules: of scenes.

    Raises:
        Rejected: what is cut off would show, or too little of the thing behind does.
    """
    side, mask_size = rules.image_size, rules.mask_size
    size = rng.uniform(0.35, 0.6)
    behind_layer, behind_region = warp(rng, behind, rng.uniform(0.4, 0.6, 2), size, side)
    whole = lay(canvas, behind_layer, behind_region, mask_size, None)  # its shadow would tell where it ends
    cut_off = _end(rng, whole)
    if not cut_off.any():
        raise Rejected("nothing to cut off")
    middle = (np.argwhere(cut_off).mean(axis=0)[::-1] + 0.5) / mask_size
    front_layer, front_region = warp(rng, front, middle, size * rng.uniform(0.8, 1.3), side)
    shadow = (rng.normal(size=2) * 0.02, rng.uniform(0.2, 0.6))
    on_top = lay(canvas, front_layer, front_region, mask_size, shadow)
    if (cut_off & ~(cv2.erode(on_top.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)).any():  # nor a part of a pixel
        raise Rejected("what is cut off shows")
    if (whole & ~on_top).sum() < max(rules.area_min, SHOWS * whole.sum()):
        raise Rejected("too little shows")
    image = camera(rng, canvas)
    occluded_by = np.array([[False, False], [True, False]])
    first, second = (np.stack([on_top, mask]) for mask in (whole, whole & ~cut_off))
    if not (second[0] & second[1]).any():
        raise Rejected("they are side by side")  # cut off where the front object begins
    return Scene(image, first, occluded_by), Scene(image, second, occluded_by)


def _end(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """What lies beyond a line through a mask bool [h, w], a share `CUT` of it: bool [h, w]."""
    angle = rng.uniform(0, 2 * np.pi)
    rows, columns = np.nonzero(mask)
    along = columns * np.cos(angle) + rows * np.sin(angle)
    beyond = along > np.quantile(along, 1 - rng.uniform(*CUT)) if len(along) else along > 0
    end = np.zeros_like(mask)
    end[rows[beyond], columns[beyond]] = True
    return end
