# SPDX-License-Identifier: Apache-2.0
"""Soft masks as probabilities that mean what they say: of the pixels that get 0.8, 8 in 10 should belong to the layer."""

import numpy as np

from seqamodal_ros.scene.layers import cumulative_masks

SUREST = 1e-4  # nearest to 0 and 1 that a probability is taken for: log-odds have no end


def calibrated(probability: np.ndarray, amodal: np.ndarray, temperatures: tuple[float, float]) -> np.ndarray:
    """The log-odds of each pixel, divided by a temperature (Guo et al., 2017); 1 leaves them as they are.

    What lies in front hides what a layer looks like there, so a network is sure of more than it can know.

    Args:
        probability: float32 [L, h, w] in [0, 1], mean of the soft masks of each layer.
        amodal: bool [L, h, w], the layers, front first.
        temperatures: where no layer lies in front, and where one does.

    Returns:
        float32 [L, h, w] in [0, 1].
    """
    seen, hidden = temperatures
    if seen == hidden == 1:
        return probability
    return tempered(probability, np.where(cumulative_masks(amodal)[:-1], hidden, seen))


def tempered(probability: np.ndarray, temperature: np.ndarray | float) -> np.ndarray:
    """Probabilities in [0, 1], float32 of any shape, whose log-odds are divided by a temperature."""
    return (1 / (1 + np.exp(-log_odds(probability) / temperature))).astype(np.float32)


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Of probabilities in [0, 1], float of any shape."""
    sure = probability.clip(SUREST, 1 - SUREST)
    return np.log(sure / (1 - sure))
