# SPDX-License-Identifier: Apache-2.0
"""What a depth image says against objects that are free by the colour image: something nearer at their outline.

Where depth falls by a step on the way from an object to what is beside it, the outline is that of the nearer thing, and the
object may go on behind it. Where it rises, the outline is the object's own. So what stands close beside something higher counts
as cut off, too. What that gives, and what it costs: docs/picking.md.
"""

import math

import cv2
import numpy as np

from seqamodal_ros.scene.picking import free_objects
from seqamodal_ros.scene.scene import LayeredScene, SceneObject

STEP = 0.01  # metres; depth cameras err by a few millimetres
LEAST = STEP - 1e-4  # of depth in millimetres that became float32: a step of ten is none of 0.01 to the last bit
LENGTH = 1.0  # mask pixels of outline, in one piece, from which it counts: less may be noise
REACH = 1.0  # mask pixels from the outline inwards and outwards, as masks are not truer than that
FINE = 8  # points a mask pixel at which depth is looked up, whatever the size of the image
SAMPLES = 16  # on the way from inside to outside
ABRUPT = 3  # of them, within which depth falls by the whole step: on a slope it falls by less


def free_by_depth(scene: LayeredScene, metres: np.ndarray, *, min_score: float = 0.0) -> list[SceneObject]:
    """The `free_objects` that have nothing nearer at their outline, the surest first; see `nearer_beside`.

    Raises:
        ValueError: see `free_objects` and `nearer_beside`.
    """
    nearer = nearer_beside(scene, metres)
    return [obj for obj in free_objects(scene.objects, min_score=min_score) if obj.id not in nearer]


def nearer_beside(scene: LayeredScene, metres: np.ndarray) -> dict[int, tuple[int, ...]]:
    """What lies at the outline of free objects and is nearer to the camera, by `STEP` or more.

    Args:
        scene: of one image.
        metres: float [H, W], depth along the optical axis, registered to that image; NaN (REP 118) or not above 0 where unknown.
            What is unknown says nothing: an object without depth stays free.

    Returns:
        Of each free object with something nearer along `LENGTH` of its outline or more, by its id, the ids of the objects that
        show there, ascending; none where it is no object, such as the wall of a bin.

    Raises:
        ValueError: the depth image is not of the image's size, or holds whole numbers, which are not metres.
    """
    geometry = scene.geometry
    if metres.shape != (geometry.height, geometry.width):
        raise ValueError(f"depth is an array of {metres.shape}, the image of {(geometry.height, geometry.width)}")
    if not np.issubdtype(metres.dtype, np.floating):
        raise ValueError(f"depth is of {metres.dtype}: give metres as floating point numbers, NaN or 0 where unknown")
    free = free_objects(scene.objects)
    side = FINE * scene.amodal.shape[2]
    depth = geometry.nearest(metres, side)
    depth[unmeasured(depth)] = np.nan
    shown = {obj.id: _enlarged(obj.visible, side) for obj in scene.objects} if free else {}
    found = {}
    for obj in free:
        nearer = _nearer(shown[obj.id], depth)
        if _longest(nearer) >= LENGTH * FINE:
            found[obj.id] = tuple(sorted(number for number, mask in shown.items() if (mask & nearer).any()))
    return found


def unmeasured(metres: np.ndarray) -> np.ndarray:
    """bool [H, W]: where depth, float [H, W], is none: NaN or infinite (REP 118), or not above 0, as cameras say it."""
    return ~(np.isfinite(metres) & (metres > 0))


def _enlarged(mask: np.ndarray, side: int) -> np.ndarray:
    """bool [side, side] of a mask bool [h, w], as `Geometry.to_source` interpolates."""
    return cv2.resize(255 * mask.astype(np.uint8), (side, side), interpolation=cv2.INTER_LINEAR) >= 128


def _nearer(shown: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """Of the line that runs `REACH` outside of an object, what is nearer than the object `REACH` inside: bool [side, side].

    Args:
        shown: bool [side, side], the object.
        depth: float32 [side, side], metres, NaN where unknown.
    """
    nearer = np.zeros(shown.shape, bool)
    reach = REACH * FINE
    x, y, width, height = cv2.boundingRect(shown.astype(np.uint8))
    margin = math.ceil(reach) + 1
    around = slice(max(0, y - margin), y + height + margin), slice(max(0, x - margin), x + width + margin)
    shown = shown[around]
    to_outline, to_object = (cv2.distanceTransform(each.astype(np.uint8), cv2.DIST_L2, 5) for each in (shown, ~shown))
    inner = to_outline > min(reach, to_outline.max() / 2)  # of a thin object its middle
    _, label = cv2.distanceTransformWithLabels((~inner).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    inner_point = np.zeros((label.max() + 1, 2), int)
    inner_point[label[inner]] = np.argwhere(inner)
    ends = np.argwhere((to_object >= reach) & (to_object < reach + 1))
    starts = inner_point[label[tuple(ends.T)]]
    points = np.rint(starts + np.linspace(0, 1, SAMPLES)[:, None, None] * (ends - starts)).astype(int)
    fallen = ends[_falls(depth[around][tuple(np.moveaxis(points, 2, 0))])]
    nearer[around][tuple(fallen.T)] = True
    return nearer


def _falls(along: np.ndarray) -> np.ndarray:
    """bool [P]: on which ways depth, float32 [SAMPLES, P], falls by a step; on none that has no depth in the object."""
    of_object = ~np.isnan(along[: SAMPLES // 2]).all(axis=0)
    along = _interpolated(along)
    abrupt = (along[:-ABRUPT] - along[ABRUPT:]).max(axis=0) >= LEAST
    return of_object & abrupt & (along[0] - along[-1] >= LEAST)


def _interpolated(along: np.ndarray) -> np.ndarray:
    """Ways [S, P], linear where depth is unknown between two that are known, and beyond these as they are; zero if none is."""
    sample = np.arange(len(along))[:, None]
    known = ~np.isnan(along)
    before = np.maximum.accumulate(np.where(known, sample, -1), axis=0)
    after = np.minimum.accumulate(np.where(known, sample, len(along))[::-1], axis=0)[::-1]
    first, last = np.where(before < 0, after, before), np.where(after == len(along), before, after)
    share = (sample - first) / np.maximum(last - first, 1)
    values = np.nan_to_num(along)
    low, high = (np.take_along_axis(values, end.clip(0, len(along) - 1), axis=0) for end in (first, last))
    return low + share * (high - low)


def _longest(line: np.ndarray) -> int:
    """Pixels of the largest connected part of a mask."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(line.astype(np.uint8), connectivity=8)
    return int(stats[1:, cv2.CC_STAT_AREA].max(initial=0))
