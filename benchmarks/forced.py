# SPDX-License-Identifier: Apache-2.0
"""A network that computes all it would, and draws what a script says: timings must not depend on what is seen."""

import torch
from torch import Tensor

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf


class Forced(WithTraitsOf):
    """Wraps a network that predicts x0; see `Network`. Draws so many layers, each over the one before, and then a blank one.

    Attributes:
        encodes, denoises: calls so far.
        rows: of the denoiser, in all calls.
    """

    def __init__(self, network: CentredNetwork, layers: int, steps: int):
        self.network, self.layers, self.steps = network, layers, steps
        super().__init__(network)
        self.encodes = self.denoises = self.rows = 0

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's; a new image begins."""
        self.encodes += 1
        self._calls = 0
        return self.network.encode(image)

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """The network computes; the layer is scripted."""
        answer = self.network.denoise(x_t, t, cumulative_mask, image_features, hypothesis)
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
        return self.network.to_centres(layer, cumulative_mask, image_features)


def force(perceiver: Perceiver, layers: int) -> Forced:
    """Have a perceiver draw so many layers, whatever it sees; returns what counts its calls."""
    forced = Forced(perceiver.network, layers, perceiver.model.settings.sampling_steps)
    perceiver._network = forced
    perceiver._second_opinions = lambda features, inside: [None] * len(inside)  # the script's end is the end
    return forced
