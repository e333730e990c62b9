# SPDX-License-Identifier: Apache-2.0
"""A network that computes all it would, and draws what a script says: timings must not depend on what is seen."""

import time
from collections import Counter
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf

Answer = TypeVar("Answer")
PARTS = ("encoder", "denoiser", "ways to centres")


class Forced(WithTraitsOf):
    """Wraps a network that predicts x0; see `Network`. Draws so many layers, each over the one before, and then a blank one.

    Attributes:
        encodes, denoises, centrings: calls so far.
        rows: of the denoiser, in all calls.
        spent: seconds in calls so far, by `PARTS`; on a GPU no more than their start takes.
    """

    def __init__(self, network: CentredNetwork, layers: int, steps: int):
        self.network, self.layers, self.steps = network, layers, steps
        super().__init__(network)
        self.encodes = self.denoises = self.centrings = self.rows = 0
        self.spent: Counter[str] = Counter()

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's; a new image begins."""
        self.encodes += 1
        self._calls = 0
        return self._timed("encoder", lambda: self.network.encode(image))

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """The network computes; the layer is scripted."""
        answer = self._timed("denoiser", lambda: self.network.denoise(x_t, t, cumulative_mask, image_features, hypothesis))
        layer = self._calls // self.steps
        self._calls += 1
        self.denoises += 1
        self.rows += len(x_t)
        mask = torch.full_like(answer[:, :1], self.blank)
        if layer < self.layers:
            side = mask.shape[-1]
            step = side // (self.layers + 3)
            mask[..., side // 4 : 3 * side // 4, layer * step : (layer + 3) * step] = 1
        return mask

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""
        self.centrings += 1
        return self._timed("ways to centres", lambda: self.network.to_centres(layer, cumulative_mask, image_features))

    def _timed(self, part: str, call: Callable[[], Answer]) -> Answer:
        began = time.perf_counter()
        answer = call()
        self.spent[part] += time.perf_counter() - began
        return answer


def force(perceiver: Perceiver, layers: int) -> Forced:
    """Have a perceiver draw so many layers, whatever it sees; returns what counts its calls."""
    forced = Forced(perceiver.network, layers, perceiver.model.settings.sampling_steps)
    perceiver._network = forced
    perceiver._second_opinions = lambda features, inside: [None] * len(inside)  # the script's end is the end
    return forced
