# SPDX-License-Identifier: Apache-2.0
"""Figures of objects, not of layers: COCO's AP of amodal instances, and whether what is said to lie free does."""

import contextlib
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from pycocotools import mask as run_lengths
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from seqamodal_ros.scene.layers import layer_indices
from seqamodal_ros.scene.nearer import free_by_depth
from seqamodal_ros.scene.picking import free_objects
from seqamodal_ros.scene.scene import LayeredScene
from training.data.scene import Scene, metres_of
from training.metrics import average_precision, iou

MATCHED = 0.5  # IOU from which an object counts as found


def coco_ap(predicted: Sequence[LayeredScene], scenes: Sequence[Scene]) -> tuple[float, float]:
    """COCO's AP of amodal masks, over IOU 0.5:0.95 and at 0.5, in [0, 1]; objects of one class, ranked by their score."""
    truth = COCO()
    found = [
        {"image_id": k, "category_id": 1, "segmentation": _encoded(obj.amodal), "score": obj.score}
        for k, scene in enumerate(predicted)
        for obj in scene.objects
    ]
    annotations = [
        {"image_id": k, "category_id": 1, "segmentation": _encoded(mask), "area": int(mask.sum()), "iscrowd": 0}
        for k, scene in enumerate(scenes)
        for mask in scene.amodal
    ]
    if not found or not annotations:
        return 0.0, 0.0
    truth.dataset = {
        "info": {},
        "images": [{"id": k, "height": scene.amodal.shape[1], "width": scene.amodal.shape[2]} for k, scene in enumerate(scenes)],
        "categories": [{"id": 1, "name": "object"}],
        "annotations": [{"id": number, **each} for number, each in enumerate(annotations, start=1)],
    }
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(found), "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def _encoded(mask: np.ndarray) -> dict[str, object]:
    return run_lengths.encode(np.asfortranarray(mask.astype(np.uint8)))


@dataclass(frozen=True)
class Pickable:
    """Of "can be picked now", as `free_objects` says it; NaN where there are none.

    Attributes:
        precision: share of predicted free objects whose true object is unoccluded.
        recall: share of unoccluded objects that a predicted free one is found for.
        first: the precision of the first pick of each image, the surest.
        images: share of images that have one.
    """

    precision: float
    recall: float
    first: float
    images: float


class PickCounts(NamedTuple):
    """What `Pickable` is made of, each int [images]."""

    said: np.ndarray
    right: np.ndarray
    free: np.ndarray
    found: np.ndarray
    first: np.ndarray
    first_right: np.ndarray

    def shares(self) -> Pickable:
        """Of all images."""
        return Pickable(
            _share(self.right, self.said),
            _share(self.found, self.free),
            _share(self.first_right, self.first),
            float(self.first.mean()) if len(self.first) else float("nan"),
        )


def pickable(
    predicted: Sequence[LayeredScene], scenes: Sequence[Scene], min_score: float = 0.0, by_depth: bool = False
) -> PickCounts:
    """Of objects that score `min_score` or more, and, `by_depth` and where there is depth, have nothing nearer at their outline.

    A predicted object's true one has the largest IOU with it, and at least 0.5; two that touch are one, so they fail.
    """
    rows = []
    for scene, true in zip(predicted, scenes, strict=True):
        unoccluded = layer_indices(true.occluded_by) == 1
        if by_depth and true.depth is not None:
            free = free_by_depth(scene, metres_of(true.depth), min_score=min_score)
        else:
            free = free_objects(scene.objects, min_score=min_score)
        matches = [_match(obj.amodal, true.amodal) for obj in free]
        right = [match is not None and bool(unoccluded[match]) for match in matches]
        found = {match for match, each in zip(matches, right, strict=True) if each}
        rows.append((len(right), sum(right), int(unoccluded.sum()), len(found), len(right[:1]), sum(right[:1])))
    return PickCounts(*np.array(rows, int).reshape(-1, 6).T)


@dataclass(frozen=True)
class Apart:
    """How often objects were not told apart; shares of all true objects, NaN where there are none.

    Attributes:
        merged: of whose visible pixels most are seen as those of an object that has most of another one's, too.
        split: of the others, those in whose visible pixels most of each of two objects is seen.
    """

    merged: float
    split: float


class ApartCounts(NamedTuple):
    """What `Apart` is made of, each int [images]."""

    objects: np.ndarray
    merged: np.ndarray
    split: np.ndarray

    def shares(self) -> Apart:
        """Of all images."""
        return Apart(_share(self.merged, self.objects), _share(self.split, self.objects))


def told_apart(predicted: Sequence[Sequence[np.ndarray]], scenes: Sequence[Scene]) -> ApartCounts:
    """Of the visible masks bool [h, w] of each scene's objects, whatever their layer; what was not found at all is neither."""
    rows = []
    for masks, true in zip(predicted, scenes, strict=True):
        pixels = math.prod(true.amodal.shape[1:])
        visible = true.visible.reshape(-1, pixels).astype(int)
        seen = np.array([mask.ravel() for mask in masks], int).reshape(-1, pixels)
        shared = visible @ seen.T
        owned = 2 * shared > visible.sum(axis=1)[:, None]
        together = (owned & (owned.sum(axis=0) > 1)).any(axis=1)
        parts = (2 * shared > seen.sum(axis=1)).sum(axis=1)
        rows.append((len(visible), int(together.sum()), int((~together & (parts > 1)).sum())))
    return ApartCounts(*np.array(rows, int).reshape(-1, 3).T)


def _share(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / whole.sum()) if whole.sum() else float("nan")


def _match(mask: np.ndarray, amodal: np.ndarray) -> int | None:
    """Index of the object bool [N, h, w] that a mask bool [h, w] fits best; None where it fits none."""
    ious = [iou(mask, other) for other in amodal]
    best = int(np.argmax(ious)) if ious else 0
    return best if ious and ious[best] >= MATCHED else None


class PairCounts(NamedTuple):
    """Of pairs of objects of two layers, both found: how many there are, and how many true ones, by what `occluder_shares` says.

    Attributes:
        all, some, none: how many of the hypotheses have the one lie on the other, each int [images].
        all_true, some_true, none_true: in how many of these pairs it does.
    """

    all: np.ndarray
    all_true: np.ndarray
    some: np.ndarray
    some_true: np.ndarray
    none: np.ndarray
    none_true: np.ndarray


def occluding_pairs(predicted: Sequence[LayeredScene], scenes: Sequence[Scene]) -> PairCounts:
    """See `occluder_shares`. An object's true one has the largest IOU with it, and at least 0.5; two of the same are no pair."""
    rows = []
    for scene, true in zip(predicted, scenes, strict=True):
        matches = {obj.id: _match(obj.amodal, true.amodal) for obj in scene.objects}
        counts = np.zeros((3, 2), int)
        for below in scene.objects:
            for front in scene.objects:
                one, other = matches[front.id], matches[below.id]
                if front.layer < below.layer and one is not None and other is not None and one != other:
                    share = scene.occluder_shares[below.id].get(front.id, 0.0)
                    counts[0 if share == 1 else 1 if share else 2] += 1, bool(true.occluded_by[other, one])
        rows.append(counts.ravel())
    return PairCounts(*np.array(rows, int).reshape(-1, 6).T)


def ap_by_object(predicted: Sequence[Sequence[np.ndarray]], scenes: Sequence[Scene]) -> float:
    """Mean over true objects of the pixel AP of the predicted object that fits best, in [0, 1], whatever its layer.

    Args:
        predicted: the amodal masks bool [h, w] of each scene's objects.
        scenes: the truth.
    """
    best = [
        max((average_precision(found, mask) for found in masks), default=float(mask.mean()))
        for masks, true in zip(predicted, scenes, strict=True)
        for mask in true.amodal
    ]
    return float(np.mean(best)) if best else float("nan")
