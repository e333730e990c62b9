# SPDX-License-Identifier: Apache-2.0
"""How far published probabilities can be believed, and the temperatures that would make them so."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.scene.layers import cumulative_masks
from seqamodal_ros.scene.probability import log_odds
from seqamodal_ros.scene.scene import LayeredScene
from training.metrics import layer_of

BINS = 10
LIKELY = 0.1
TEMPERATURES = np.round(np.geomspace(0.5, 8, 49), 2)
STEP = 0.01


@dataclass(frozen=True)
class Reliability:
    """Of pixels, by the probability that they got.

    Attributes:
        error: expected calibration error, in [0, 1]: the mean distance of probability and frequency (Naeini et al., 2015).
        error_likely: likewise, of pixels whose probability is `LIKELY` or more, as most others are background that anyone would
            tell; None where there are none.
        temperature: one by which to divide the log-odds once more, of `TEMPERATURES` the one of the least cross-entropy.
        pixels: number in each of `BINS` equal bins that is not empty.
        probability: their mean.
        frequency: the share of them that belong to the layer.
    """

    error: float
    error_likely: float | None
    temperature: float
    pixels: list[int]
    probability: list[float]
    frequency: list[float]


def reliability(probability: np.ndarray, true: np.ndarray) -> Reliability | None:
    """Of probabilities float [n] in [0, 1] of pixels that belong to their layer or not, bool [n]; None of no pixels."""
    if not len(true):
        return None
    index = np.minimum((BINS * probability).astype(int), BINS - 1)
    pixels = np.bincount(index, minlength=BINS)
    found = pixels > 0
    pixels = pixels[found]
    means, frequency = (np.bincount(index, values, BINS)[found] / pixels for values in (probability, true))
    distance, likely = np.abs(means - frequency), np.flatnonzero(found) >= BINS * LIKELY
    error = float(np.average(distance, weights=pixels))
    error_likely = float(np.average(distance[likely], weights=pixels[likely])) if likely.any() else None
    temperature = best_temperature(probability, true)
    return Reliability(error, error_likely, temperature, pixels.tolist(), means.tolist(), frequency.tolist())


def best_temperature(probability: np.ndarray, true: np.ndarray) -> float:
    """Of `TEMPERATURES`, from the log-odds in steps of `STEP`: millions of pixels are too many to look at for each."""
    odds = log_odds(probability)
    step = np.round(odds / STEP).astype(int)
    first = step.min()
    wrong, right = (np.bincount(step[of] - first, minlength=np.ptp(step) + 1) for of in (~true, true))
    centres = STEP * (first + np.arange(len(right)))
    cross_entropy = [
        (right * np.logaddexp(0, -centres / each) + wrong * np.logaddexp(0, centres / each)).sum() for each in TEMPERATURES
    ]
    return float(TEMPERATURES[np.argmin(cross_entropy)])


def reliabilities(predicted: Sequence[LayeredScene], truth: Sequence[np.ndarray]) -> dict[str, Reliability | None]:
    """Of all layers that were predicted, free-running, against the true layer of the same number, bool [L, h, w] of each image.

    "seen" are the pixels that no predicted layer lies in front of, "hidden" the others.
    """
    probability, true, hidden = [np.zeros(0)], [np.zeros(0, bool)], [np.zeros(0, bool)]  # where no layer was predicted
    for scene, layers in zip(predicted, truth, strict=True):
        inside = scene.geometry.inside(scene.amodal.shape[1])  # not the padding, of which all is known
        probability.append(scene.probability[:, inside].ravel())
        true += [layer_of(layers, number)[inside] for number in range(1, len(scene.amodal) + 1)]
        hidden.append(cumulative_masks(scene.amodal)[:-1, inside].ravel())
    p, t, h = (np.concatenate(parts) for parts in (probability, true, hidden))
    return {"seen": reliability(p[~h], t[~h]), "hidden": reliability(p[h], t[h])}


def draw(calibration: Mapping[str, Mapping[str, Any] | None], path: Path) -> None:
    """A reliability diagram of what `measure` has found: on the diagonal, probabilities mean what they say.

    The area of a dot is the share of pixels that got its probability.
    """
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7")
    for (name, of), colour in zip(calibration.items(), ("tab:blue", "tab:orange"), strict=True):
        if of is not None:
            axes.plot(of["probability"], of["frequency"], color=colour, label=f"{name}: error {100 * of['error']:.1f} %")
            axes.scatter(of["probability"], of["frequency"], 5 + 300 * np.array(of["pixels"]) / sum(of["pixels"]), color=colour)
    axes.set(xlabel="probability", ylabel="share that belongs to the layer", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=100)
