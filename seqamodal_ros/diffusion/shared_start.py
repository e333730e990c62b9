# SPDX-License-Identifier: Apache-2.0
"""The first sampling step, shared by the hypotheses of a layer; and no further one where it saw none."""

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, Network

FAINT = 0.05  # probability below which no pixel is worth another look


class SharedStart:
    """Wraps a network that predicts x0, for the sampling steps of one layer; see `Network`.

    At t = T - 1 x_t is noise and next to nothing else, so what the network says comes from the image and the cumulative mask: it
    is asked once for all hypotheses of an image, which go on from there with noise of their own. Where it sees nothing in an
    image then, as behind the last layer, that is its answer, and on a CPU it is not asked again.

    Args:
        network: which.
        samples: K, the hypotheses of each image, one after the other in the batch.
    """

    def __init__(self, network: Network, samples: int):
        self.network, self.samples = network, samples
        self.prediction, self.blank, self.conditions = network.prediction, network.blank, network.conditions
        self._first: Tensor | None = None
        self._seen = torch.empty(0, dtype=torch.bool)  # of each row, whether the first step saw something

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return self.network.encode(image)

    def denoise(self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """The network's prediction; that of the first call, from then on, for images where it saw nothing."""
        if self._first is None:
            one = slice(None, None, self.samples)
            answer = self.network.denoise(x_t[one], t[one], cumulative_mask[one], tuple(f[one] for f in image_features))
            self._first = answer.repeat_interleave(self.samples, dim=0)
            masks = self._first[:, : x_t.shape[1]]  # a learned variance is none
            self._seen = (masks > self.blank + FAINT * (1 - self.blank)).flatten(1).any(dim=1)
            return self._first
        seen = self._seen
        if seen.device.type != "cpu":  # to leave rows out, the GPU would have to be waited for
            again = self.network.denoise(x_t, t, cumulative_mask, image_features)
            return torch.where(seen[:, None, None, None], again, self._first)
        if seen.all():
            return self.network.denoise(x_t, t, cumulative_mask, image_features)
        answer = self._first.clone()
        if seen.any():
            rows = (x_t[seen], t[seen], cumulative_mask[seen])
            answer[seen] = self.network.denoise(*rows, tuple(f[seen] for f in image_features))
        return answer
