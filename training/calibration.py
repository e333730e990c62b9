# SPDX-License-Identifier: Apache-2.0
"""How far published probabilities can be believed, and the temperatures that would make them so."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seqamodal_ros.scene.layers import cumulative_masks
from seqamodal_ros.scene.probability import log_odds
from seqamodal_ros.scene.scene import LayeredScene
from training.metrics import layer_of

BINS = 10
TEMPERATURES = np.round(np.geomspace(0.5, 8, 49), 2)


@dataclass(frozen=True)
class Reliability:
    """Of pixels, by the probability that they got, in `BINS` equal bins.

    Attributes:
        pixels: int [BINS].
        probability: float [BINS], their mean; NaN in an empty bin.
        frequency: float [BINS], the share of them that belong to the layer; likewise.
        temperature: one by which to divide the log-odds once more, of `TEMPERATURES` the one of the least cross-entropy.
    """

    pixels: np.ndarray
    probability: np.ndarray
    frequency: np.ndarray
    temperature: float

    @property
    def error(self) -> float:
        """Expected calibration error, in [0, 1]: the mean distance of the two over all pixels (Naeini et al., 2015)."""
        distance = np.abs(self.probability - self.frequency)
        return float(np.nansum(self.pixels * distance) / self.pixels.sum())


def reliability(probability: np.ndarray, true: np.ndarray) -> Reliability | None:
    """Of probabilities float [n] in [0, 1] of pixels that belong to their layer or not, bool [n]; None of no pixels."""
    if not len(true):
        return None
    index = np.minimum((BINS * probability).astype(int), BINS - 1)
    pixels = np.bincount(index, minlength=BINS)
    with np.errstate(invalid="ignore"):
        means, frequency = (np.bincount(index, values, BINS) / pixels for values in (probability, true))
    sign = np.where(true, -1.0, 1.0) * log_odds(probability)
    cross_entropy = [np.logaddexp(0, sign / temperature).mean() for temperature in TEMPERATURES]
    return Reliability(pixels, means, frequency, float(TEMPERATURES[np.argmin(cross_entropy)]))


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


def draw(found: dict[str, Reliability | None], path: Path) -> None:
    """A reliability diagram: on the diagonal, probabilities mean what they say."""
    import matplotlib.figure

    figure = matplotlib.figure.Figure(figsize=(4.4, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], color="0.7")
    for (name, each), colour in zip(found.items(), ("tab:blue", "tab:orange"), strict=True):
        if each is not None:
            axes.plot(each.probability, each.frequency, "o-", color=colour, label=f"{name}: error {100 * each.error:.1f} %")
    axes.set(xlabel="probability", ylabel="share that belongs to the layer", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend(loc="upper left", frameon=False)
    figure.savefig(path, dpi=100)
