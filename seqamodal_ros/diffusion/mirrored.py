# SPDX-License-Identifier: Apache-2.0
"""A network that looks at each image and at its mirror image, and says the mean of both."""

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers


class Mirrored(WithTraitsOf):
    """Wraps a network; see `Network`. Where it is not sure, the two views err in different places; it costs twice the time."""

    def __init__(self, network: CentredNetwork):
        self.network = network
        super().__init__(network)

    def encode(self, image: Tensor) -> ImageFeatures:
        """Features of images float [B, 3, S, S]; each tensor is [B, 2, ...], of the image and of its mirror image."""
        return tuple(f.unflatten(0, (-1, 2)) for f in self.network.encode(_both(image)))

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """The mean of the predictions of both, of the shape that the network gives."""
        features = tuple(f.flatten(0, 1) for f in image_features)
        number = numbers(hypothesis, t).repeat_interleave(2)
        answer = self.network.denoise(_both(x_t), t.repeat_interleave(2), _both(cumulative_mask), features, number)
        return mean_of_views(answer.unflatten(0, (-1, 2)))

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """The mean of those that the network says of both, of the shape that it gives."""
        features = tuple(f.flatten(0, 1) for f in image_features)
        x, y = self.network.to_centres(_both(layer), _both(cumulative_mask), features).unflatten(0, (-1, 2)).unbind(dim=2)
        right = torch.stack([x[:, 0], -x[:, 1]], dim=1)  # to the left, in the mirror image
        return torch.stack([mean_of_views(right), mean_of_views(y)], dim=1)


def mean_of_views(views: Tensor) -> Tensor:
    """[B, 2, ...], of the image and of its mirror image -> their mean [B, ...], as the image lies."""
    return (views[:, 0] + views[:, 1].flip(-1)) / 2


def _both(x: Tensor) -> Tensor:
    """[B, ...] -> [2B, ...]: each followed by its mirror image."""
    return torch.stack([x, x.flip(-1)], dim=1).flatten(0, 1)
