# SPDX-License-Identifier: Apache-2.0
"""All figures of one set: worked out, written as Markdown, and set beside those of another model."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from seqamodal_ros.scene.picking import LOW_SCORE
from seqamodal_ros.scene.scene import LayeredScene
from training.baselines import connected, hull_layers, predicted_hull_layers, visible_layers
from training.calibration import LIKELY, reliabilities
from training.data.packed import fingerprint
from training.data.scene import Scene
from training.instances import PairCounts, PickCounts, ap_by_object, coco_ap, occluding_pairs, pickable, told_apart
from training.metrics import (
    ap_with_layer,
    ap_without_layer,
    best_iou,
    bootstrap_interval,
    false_layers,
    hidden_iou,
    iou,
    iou_by_image,
    layer_figures,
    layer_of,
    mean_of,
    right_depths,
    share_interval,
    stop_accuracy,
)

Figures = dict[str, Any]
LEAST_SCORES = (0.0, LOW_SCORE, 0.8, 0.9, 0.95)  # least scores of "can be picked now"


def measure(
    name: str,
    scenes: Sequence[Scene],
    predicted: Sequence[LayeredScene],
    forced: Sequence[np.ndarray],
    objects: Sequence[Sequence[np.ndarray]],
    groups: Sequence[int] | None = None,
    max_layers: int | None = None,
    seconds: float | None = None,
) -> Figures:
    """Figures of one set, in [0, 1] but for counts; None where there is nothing to measure.

    Args:
        name: of the set.
        scenes: with their truth.
        predicted: free-running.
        forced: bool [L, h, w] each, from the true cumulative masks.
        objects: of each scene the visible masks bool [h, w] of what is told apart in the true layers.
        groups: which scene each image is a view of; None where each is a scene of its own.
        max_layers: that the model draws at most; None where that is not known.
        seconds: that the free-running pass took; None where it was not timed.
    """
    truth, stacks = [scene.layers for scene in scenes], [scene.amodal for scene in predicted]
    told = [(visible_layers(scene), hull_layers(scene)) for scene in scenes]
    hulls = [predicted_hull_layers(scene) for scene in predicted]
    with_depth = all(scene.depth is not None for scene in scenes)
    by_image = iou_by_image(stacks, truth)
    groups = list(range(len(scenes))) if groups is None else list(groups)
    ap, ap_50 = coco_ap(predicted, scenes)
    apart = told_apart([[obj.visible for obj in scene.objects] for scene in predicted], scenes)
    of_truth = {"true": told_apart(objects, scenes), "connected": told_apart([connected(scene) for scene in scenes], scenes)}
    return {
        "set": name,
        "images": len(scenes),
        "max_layers": max_layers,
        "seconds": seconds,
        "truth": fingerprint(truth),
        "stop_accuracy": stop_accuracy(stacks, truth),
        "stop_accuracy_interval": bounds(right_depths(stacks, truth), np.ones(len(stacks)), groups),
        "false_layers": false_layers(stacks, truth),
        "ap_with_layer": ap_with_layer(stacks, truth),
        "ap_without_layer": ap_without_layer(stacks, truth),
        "ap_by_object": mean_of([ap_by_object([[obj.amodal for obj in scene.objects] for scene in predicted], scenes)]),
        "coco_ap": ap,
        "coco_ap_50": ap_50,
        "pickable": [_picked(pickable(predicted, scenes, least), least, groups) for least in LEAST_SCORES],
        "pickable_by_depth": [
            _picked(pickable(predicted, scenes, least, by_depth=True), least, groups) for least in LEAST_SCORES if with_depth
        ],
        **_numbers(**vars(apart.shares())),
        "merged_interval": bounds(apart.merged, apart.objects, groups),
        "split_interval": bounds(apart.split, apart.objects, groups),
        **{f"{key}_{of}": value for of, each in of_truth.items() for key, value in _numbers(**vars(each.shares())).items()},
        "occluding_pairs": _pairs(occluding_pairs(predicted, scenes), groups),
        "calibration": {name: None if each is None else asdict(each) for name, each in reliabilities(predicted, truth).items()},
        "agreement": mean_of([float(value) for scene in predicted for value in scene.agreement]),
        "layers": [
            {**_layer(truth, told, stacks, hulls, forced, layer), **_interval(by_image, groups, layer)}
            for layer in range(1, max(map(len, truth), default=0) + 1)
        ],
        "iou_by_image": by_image,
        "groups": groups,
    }


def _picked(counts: PickCounts, min_score: float, groups: Sequence[int]) -> dict[str, Any]:
    return {
        **_numbers(min_score=min_score, **vars(counts.shares())),
        "precision_interval": bounds(counts.right, counts.said, groups),
        "first_interval": bounds(counts.first_right, counts.first, groups),
    }


def _pairs(counts: PairCounts, groups: Sequence[int]) -> dict[str, dict[str, Any]]:
    by_share = {
        "all": (counts.all, counts.all_true),
        "some": (counts.some, counts.some_true),
        "none": (counts.none, counts.none_true),
    }
    return {
        name: {
            "pairs": int(said.sum()),
            "true": mean_of([true.sum() / said.sum()] if said.any() else []),
            "true_interval": bounds(true, said, groups),
        }
        for name, (said, true) in by_share.items()
    }


def bounds(part: ArrayLike, whole: ArrayLike, groups: Sequence[int]) -> list[float | None]:
    """As `share_interval`; None for what is NaN."""
    return [mean_of([bound]) for bound in share_interval(part, whole, groups)]


def _numbers(**values: float) -> dict[str, float | None]:
    """None for what is NaN, which JSON does not know."""
    return {name: mean_of([value]) for name, value in values.items()}


def _layer(
    truth: Sequence[np.ndarray],
    told: Sequence[tuple[np.ndarray, np.ndarray]],
    predicted: Sequence[np.ndarray],
    hulls: Sequence[np.ndarray],
    forced: Sequence[np.ndarray],
    layer: int,
) -> dict[str, Any]:
    """Figures of one layer, and of baselines: "hidden_predicted_hull" of the hulls of what the model took for visible; the
    others are told the true layers and visible masks.

    "hidden_...": IOU outside the visible region, where something is hidden. "best_layer": the predicted layer that fits best,
    whatever its number. "visible_iou", "hull_iou": of the visible masks alone, and of their convex hulls.
    """
    having = [k for k, stack in enumerate(truth) if len(stack) >= layer]
    each: dict[str, list[float]] = {}
    for k in having:
        true, visible, hull = (layers[layer - 1] for layers in (truth[k], *told[k]))
        free, given = layer_of(predicted[k], layer), forced[k][layer - 1]
        figures = {
            "hidden_free": hidden_iou(free, true, visible),
            "hidden_forced": hidden_iou(given, true, visible),
            "hidden_predicted_hull": hidden_iou(layer_of(hulls[k], layer), true, visible),
            "hidden_hull": hidden_iou(hull, true, visible),
            "best_layer": best_iou(predicted[k], true),
            "visible_iou": iou(visible, true),
            "hull_iou": iou(hull, true),
        }
        for key, value in figures.items():
            each.setdefault(key, []).append(value)
    given_figures = layer_figures(forced, truth, layer)
    return {
        "layer": layer,
        **vars(layer_figures(predicted, truth, layer)),
        "forced_iou": given_figures.iou,
        "forced_ap": given_figures.ap,
        **{key: mean_of(values) for key, values in each.items()},
    }


def _interval(by_image: Sequence[Sequence[float]], groups: Sequence[int], layer: int) -> dict[str, float | None]:
    ious, scenes = zip(
        *((ious[layer - 1], group) for ious, group in zip(by_image, groups, strict=True) if len(ious) >= layer), strict=True
    )
    low, high = bootstrap_interval(ious, scenes)
    return _numbers(iou_low=low, iou_high=high)


def markdown(figures: Figures) -> str:
    """The figures as three Markdown tables under a line of those that belong to no layer; shares are in percent."""
    f = {key: percent(value) for key, value in figures.items() if isinstance(value, float) or value is None}
    f |= {key: f"{f[key]}{bracketed(figures[f'{key}_interval'])}" for key in ("stop_accuracy", "merged", "split")}
    lines = [
        f"**{figures['set']}**, {figures['images']} images: number of layers right in {f['stop_accuracy']} %, "
        f"{figures['false_layers']:.2f} false layers an image; AP with layer {f['ap_with_layer']}, against the best layer "
        f"{f['ap_without_layer']}, matched by object {f['ap_by_object']}; COCO AP of objects {f['coco_ap']}, "
        f"at 0.5 {f['coco_ap_50']}; "
        f"of the objects merged with another {f['merged']}, split {f['split']} (in the true layers {f['merged_true']}, "
        f"{f['split_true']}; their connected parts {f['merged_connected']}, {f['split_connected']}); "
        f"agreement of the hypotheses {f['agreement']}{_pace(figures)}.",
        "",
        *_beyond(figures),
        "| can be picked now, of a score of | precision [95 %] | recall | first pick of an image [95 %] | images with one |",
        "| --- | --- | --- | --- | --- |",
        *(_picks(row) for row in figures["pickable"]),
        *(_picks(row, ", nothing nearer at its edge") for row in figures["pickable_by_depth"]),
        "",
        *occlusions(figures["occluding_pairs"]),
        *calibration(figures["calibration"]),
        "",
        "| layer | images | conditional IOU [95 %] | AP | pi | pooled IOU | AP | pi | teacher-forced IOU | AP |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in figures["layers"]:
        p = {key: percent(value) for key, value in row.items() if key not in ("layer", "images")}
        interval = bracketed((row["iou_low"], row["iou_high"]))
        lines.append(
            f"| {row['layer']} | {row['images']} | {p['iou']}{interval} | {p['ap']} | {p['pi']} | "
            f"{p['pooled_iou']} | {p['pooled_ap']} | {p['pooled_pi']} | {p['forced_iou']} | {p['forced_ap']} |"
        )
    hidden = ("hidden_free", "hidden_predicted_hull", "hidden_forced", "hidden_hull")
    whole = ("best_layer", "visible_iou", "hull_iou")
    lines += [
        "",
        "| layer | hidden part, IOU: free-running | hull of its visible parts | teacher-forced | true hull "
        "| whole, IOU: best layer | visible alone | hull |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *(f"| {row['layer']} | " + " | ".join(percent(row[key]) for key in hidden + whole) + " |" for row in figures["layers"]),
    ]
    return "\n".join(lines)


def _picks(row: Mapping[str, Any], remark: str = "") -> str:
    p = {key: percent(row[key]) for key in ("precision", "recall", "first", "images")}
    p |= {key: f"{p[key]}{bracketed(row[f'{key}_interval'])}" for key in ("precision", "first")}
    return f"| {row['min_score']:g} or more{remark} | {p['precision']} | {p['recall']} | {p['first']} | {p['images']} |"


def _pace(figures: Mapping[str, Any]) -> str:
    """How long the free-running pass took; "" where it was not timed."""
    seconds = figures["seconds"]
    return "" if seconds is None else f"; free-running in {seconds:.1f} s, {seconds / figures['images']:.3f} s an image"


def _beyond(figures: Mapping[str, Any]) -> list[str]:
    """A line on the layers that the model cannot draw, and a blank one; none where there are none."""
    drawn, deepest = figures["max_layers"], len(figures["layers"])
    if drawn is None or deepest <= drawn:
        return []
    images = figures["layers"][drawn]["images"]
    return [f"{images} of these images have up to {deepest} layers, more than the {drawn} that the model draws.", ""]


def bracketed(bounds: Sequence[float | None], sign: str = "") -> str:
    """[low, high], in percent; "" where there is no interval: a bound is None or NaN. `sign` "+" writes one before each."""
    if any(bound is None or np.isnan(bound) for bound in bounds):
        return ""
    return f" [{', '.join(format(100 * bound, f'{sign}.1f') for bound in bounds if bound is not None)}]"


def occlusions(pairs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line on how far to believe what lies on what, and a blank one; none where there are no pairs."""
    said = [
        f"{name} {'does' if name == 'none' else 'do'} in "
        f"{percent(each['true'])}{bracketed(each['true_interval'])} % of {each['pairs']}"
        for name, each in pairs.items()
        if each["pairs"]
    ]
    line = f"Of pairs of objects of two layers the one lies on the other, where of the hypotheses {', '.join(said)}."
    return [line, ""] if said else []


def calibration(of: Mapping[str, Mapping[str, Any] | None]) -> list[str]:
    """Lines on how far the probabilities can be believed; none where no layer was predicted."""
    where = {"seen": "where nothing lies in front", "hidden": "where something does"}
    said = [
        f"{percent(each['error'])} % {where[name]}, {percent(each['error_likely'])} % of what gets {LIKELY:g} or more there "
        f"(a temperature of {each['temperature']:g} would fit best)"
        for name, each in of.items()
        if each is not None
    ]
    return [f"Expected calibration error of the probabilities: {', '.join(said)}."] if said else []


def difference(figures: Figures, other: Figures) -> str:
    """A Markdown table: conditional IOU of each layer, minus that of another model on the same images, paired by scene.

    Raises:
        ValueError: the other figures are of other images.
    """
    check_same_images(figures["set"], figures["truth"], other)
    lines = ["| layer | images | difference of the IOU [95 %] |", "| --- | --- | --- |"]
    rows = list(zip(figures["iou_by_image"], other["iou_by_image"], figures["groups"], strict=True))
    for row in figures["layers"]:
        having = [
            (ours[row["layer"] - 1] - theirs[row["layer"] - 1], group)
            for ours, theirs, group in rows
            if len(ours) >= row["layer"]
        ]
        values, groups = zip(*having, strict=True)
        interval = bracketed(bootstrap_interval(values, groups), "+")
        lines.append(f"| {row['layer']} | {len(values)} | {100 * np.mean(values):+.1f}{interval} |")
    return "\n".join(lines)


def check_same_images(name: str, truth: str, other: Mapping[str, Any]) -> None:
    """Raise ValueError where other figures of a set are of other images than those of this `fingerprint` of their layers."""
    if truth != other["truth"]:
        raise ValueError(f"the other figures of {name!r} are of other images: measure both models on the same")


def percent(value: float | None) -> str:
    """One decimal; a dash where there is nothing to measure."""
    return "-" if value is None else f"{100 * value:.1f}"


def worst_first(figures: Mapping[str, Any]) -> list[int]:
    """Images by the mean of their layers' IOU, the lowest first; those of no layer are left out."""
    means = {k: float(np.mean(ious)) for k, ious in enumerate(figures["iou_by_image"]) if ious}
    return sorted(means, key=lambda k: means[k])
