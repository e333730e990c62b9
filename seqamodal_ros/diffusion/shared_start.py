# SPDX-License-Identifier: Apache-2.0
"""The first sampling step, shared by hypotheses of a layer; and no further one where it saw none."""

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import ImageFeatures, Network, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers

FAINT = 0.05  # probability below which no pixel is worth another look


def shares_start(network: Network, steps: int) -> bool:
    """Whether hypotheses share the first of so many sampling steps: where it says x0, and is not the last."""
    return network.prediction == "x0" and steps > 1


class SharedStart(WithTraitsOf):
    """Wraps a network that predicts x0, for the sampling steps of one layer; see `Network`.

    At t = T - 1 x_t is noise and next to nothing else, so what the network says comes from the image, the cumulative mask and the
    hypothesis' number: it is asked once for all hypotheses of an image that have the same, which go on from there with noise of
    their own. Where it sees nothing then, as behind the last layer, that is its answer, and on a CPU it is not asked again.

    Args:
        network: which.
        samples: K, the hypotheses of each image, one after the other in the batch.
    """

    def __init__(self, network: Network, samples: int):
        self.network, self.samples = network, samples
        super().__init__(network)
        self._first: Tensor | None = None
        self._seen = torch.empty(0, dtype=torch.bool)  # of each row, whether the first step saw something

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return self.network.encode(image)

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """The network's prediction; that of the first call, from then on, for rows where it saw nothing."""
        number = numbers(hypothesis, t)
        if self._first is None:
            distinct = min(self.samples, self.hypotheses)  # the first of an image's rows, each of a number of its own

            def of_distinct(rows: Tensor) -> Tensor:
                return rows.unflatten(0, (-1, self.samples))[:, :distinct].flatten(0, 1)

            answer = self.network.denoise(
                of_distinct(x_t),
                of_distinct(t),
                of_distinct(cumulative_mask),
                tuple(map(of_distinct, image_features)),
                of_distinct(number),
            )
            self._first = answer.unflatten(0, (-1, distinct))[:, number[: self.samples]].flatten(0, 1)
            masks = self._first[:, : x_t.shape[1]]  # a learned variance is none
            self._seen = (masks > self.blank + FAINT * (1 - self.blank)).flatten(1).any(dim=1)
            return self._first
        seen = self._seen
        if seen.device.type != "cpu":  # to leave rows out, the GPU would have to be waited for
            second = self.network.denoise(x_t, t, cumulative_mask, image_features, number)
            return torch.where(seen[:, None, None, None], second, self._first)
        if seen.all():
            return self.network.denoise(x_t, t, cumulative_mask, image_features, number)
        answer = self._first.clone()
        if seen.any():
            rows = (x_t[seen], t[seen], cumulative_mask[seen])
            answer[seen] = self.network.denoise(*rows, tuple(f[seen] for f in image_features), number[seen])
        return answer
