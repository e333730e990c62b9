# SPDX-License-Identifier: Apache-2.0
"""IOU and pixel AP per layer, in two readings, how well the sequence stops, and intervals. numpy alone."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

FEW = 5  # scenes
BOTH = 0.75  # least IOU of what is found, where two scenes are true
SEED, DRAWS = 0, 1000  # of the bootstrap


def iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """Intersection over union of two masks bool [h, w]; NaN where both are blank."""
    union = (predicted | true).sum()
    return float((predicted & true).sum() / union) if union else float("nan")


def average_precision(predicted: np.ndarray, true: np.ndarray) -> float:
    """Pixel-wise binary AP of a thresholded mask: P R + (1 - R) pi, pi the share of foreground pixels.

    A blank mask scores pi, so print pi beside it. NaN where the truth is blank.
    """
    pi = float(true.mean())
    if pi == 0:
        return float("nan")
    hit = float((predicted & true).sum())
    precision = hit / predicted.sum() if predicted.any() else 0.0
    recall = hit / true.sum()
    return float(precision * recall + (1 - recall) * pi)


def layer_of(stack: np.ndarray, layer: int) -> np.ndarray:
    """Layer `layer` (from 1) of bool [L, h, w]; blank where it is not there."""
    return stack[layer - 1] if layer <= len(stack) else np.zeros(stack.shape[1:], bool)


@dataclass(frozen=True)
class LayerFigures:
    """Figures of one layer, in [0, 1].

    Attributes:
        images: whose truth has that layer.
        iou, ap, pi: mean over those images; a missing prediction counts as blank (conditional).
        pooled_iou: intersections over unions, summed over all images, false layers counted.
        pooled_ap, pooled_pi: of all images' pixels taken together.
    """

    images: int
    iou: float
    ap: float
    pi: float
    pooled_iou: float
    pooled_ap: float
    pooled_pi: float


def layer_figures(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray], layer: int) -> LayerFigures:
    """Figures of `layer` (from 1) over images; each of `predicted` and `true` is bool [L, h, w], L may differ.

    Raises:
        ValueError: no image's truth has that layer.
    """
    pairs = [(layer_of(p, layer), layer_of(t, layer)) for p, t in zip(predicted, true, strict=True)]
    having = [(p, t) for p, t in pairs if t.any()]
    if not having:
        raise ValueError(f"no image's truth has a layer {layer}")
    all_predicted, all_true = (np.stack(masks) for masks in zip(*pairs, strict=True))
    return LayerFigures(
        images=len(having),
        iou=float(np.mean([iou(p, t) for p, t in having])),
        ap=float(np.mean([average_precision(p, t) for p, t in having])),
        pi=float(np.mean([t.mean() for _, t in having])),
        pooled_iou=iou(all_predicted, all_true),
        pooled_ap=average_precision(all_predicted, all_true),
        pooled_pi=float(all_true.mean()),
    )


def hidden_iou(predicted: np.ndarray, amodal: np.ndarray, visible: np.ndarray) -> float:
    """IOU outside the visible region (mIoU-inv of papers/003): masks bool [h, w]; NaN where nothing is hidden.

    Args:
        predicted: a predicted amodal mask.
        amodal, visible: the true ones.
    """
    return iou(predicted & ~visible, amodal & ~visible) if (amodal & ~visible).any() else float("nan")


def best_iou(predicted: np.ndarray, true: np.ndarray) -> float:
    """IOU of a mask bool [h, w] with whichever of the layers bool [L, h, w] fits it best: the order does not count."""
    return max((iou(layer, true) for layer in predicted), default=0.0)


def both_found(hypotheses: np.ndarray, truths: Sequence[np.ndarray]) -> bool:
    """Whether each of the truths bool [h, w] has a hypothesis of bool [K, h, w] whose IOU with it is `BOTH` or more."""
    return all(best_iou(hypotheses, true) >= BOTH for true in truths)


def ap_with_layer(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float | None:
    """Mean AP of all layers of all images, each bool [L, h, w], against the predicted layer of the same number (Table 5)."""
    return mean_of(
        [average_precision(layer_of(p, k), mask) for p, t in zip(predicted, true, strict=True) for k, mask in enumerate(t, 1)]
    )


def ap_without_layer(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float | None:
    """The same, against the predicted layer that fits best; where none is predicted, against a blank one."""
    pairs = [(p if len(p) else [np.zeros_like(mask)], mask) for p, t in zip(predicted, true, strict=True) for mask in t]
    return mean_of([max(average_precision(layer, mask) for layer in layers) for layers, mask in pairs])


def right_depths(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> list[bool]:
    """Of each image whether its predicted number of layers is the true one."""
    return [len(p) == len(t) for p, t in zip(predicted, true, strict=True)]


def stop_accuracy(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    """Share of images whose predicted number of layers is the true one."""
    return float(np.mean(right_depths(predicted, true)))


def false_layers(predicted: Sequence[np.ndarray], true: Sequence[np.ndarray]) -> float:
    """Mean of max(0, predicted - true) layers."""
    return float(np.mean([max(0, len(p) - len(t)) for p, t in zip(predicted, true, strict=True)]))


def iou_by_image(predicted: Sequence[np.ndarray], truth: Sequence[np.ndarray]) -> list[list[float]]:
    """IOU of each of an image's true layers, for each image; a layer that was not drawn is blank."""
    return [
        [iou(layer_of(stack, layer), true) for layer, true in enumerate(layers, 1)]
        for stack, layers in zip(predicted, truth, strict=True)
    ]


def bootstrap_interval(values: Sequence[float], groups: Sequence[int] | None = None) -> tuple[float, float]:
    """95 % interval of the mean, by bootstrap over scenes; NaN where `FEW` scenes are not reached, or all values are equal.

    Of so few the interval would be too narrow, and of equal ones of no width at all: surest where least is known.

    Args:
        values: one an image.
        groups: which scene each is a view of; None where each image is a scene of its own.
    """
    scene = np.arange(len(values)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    sums, counts = np.bincount(scene, np.asarray(values, float)), np.bincount(scene)
    if len(sums) < FEW or np.ptp(values) == 0:
        return float("nan"), float("nan")
    drawn = np.random.default_rng(SEED).integers(len(sums), size=(DRAWS, len(sums)))
    means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def share_interval(part: ArrayLike, whole: ArrayLike, groups: ArrayLike) -> tuple[float, float]:
    """95 % interval of a share, sum(part) / sum(whole); NaN where it is of nothing.

    Wilson's (1927), of as many independent ones as vary as much as the scenes do; and of no more than there are scenes, where
    fewer than `FEW` of them hold a miss, or a hit: how much they vary cannot be told of so few, and a bootstrap would be surest
    there.

    Args:
        part, whole: counts of each image, part <= whole.
        groups: which scene each image is a view of.
    """
    scene = np.unique(np.asarray(groups), return_inverse=True)[1]
    parts, wholes = (np.bincount(scene, np.asarray(each, float)) for each in (part, whole))
    parts, wholes = parts[wholes > 0], wholes[wholes > 0]
    if not len(wholes):
        return float("nan"), float("nan")
    share, scenes = parts.sum() / wholes.sum(), len(wholes)
    count = float(scenes)
    if min((parts > 0).sum(), (parts < wholes).sum()) >= FEW:
        variance = scenes / (scenes - 1) * ((parts - share * wholes) ** 2).sum() / wholes.sum() ** 2
        count = min(share * (1 - share) / variance, wholes.sum()) if variance else float(scenes)
    z = 1.96
    centre = (share + z**2 / (2 * count)) / (1 + z**2 / count)
    half = z * np.sqrt(share * (1 - share) / count + z**2 / (4 * count**2)) / (1 + z**2 / count)
    return float(max(0.0, min(share, centre - half))), float(min(1.0, max(share, centre + half)))


def mean_of(values: Sequence[float]) -> float | None:
    """Mean of those that are a number; None where none is, as in layer 1, of which nothing is hidden."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else None
