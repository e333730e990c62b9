# SPDX-License-Identifier: Apache-2.0
"""A network that computes in parts what is too much for the GPU's memory at once."""

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers

Answer = TypeVar("Answer")
# in CUDNN_STATUS_ALLOC_FAILED, CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED and "CUDA error: out of memory"
NO_MEMORY = ("ALLOC_FAILED", "DEVICE_ALLOCATION_FAILED", "out of memory")


class InParts(WithTraitsOf):
    """Wraps a network; see `Network`. Where the memory runs out, the batch is halved, and stays so; noise and masks are the same.

    Where a batch of one is too much, torch.OutOfMemoryError goes on to the caller.
    """

    def __init__(self, network: CentredNetwork):
        self.network = network
        super().__init__(network)
        self._encodes = self._denoises = self._tells = 0  # the largest batch of each that there is memory for; 0 while any was

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        parts, self._encodes = in_parts(lambda part: self.network.encode(image[part]), len(image), self._encodes)
        return tuple(map(_joined, zip(*parts, strict=True)))

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""
        number = numbers(hypothesis, t)
        parts, self._denoises = in_parts(
            lambda part: self.network.denoise(
                x_t[part], t[part], cumulative_mask[part], tuple(f[part] for f in image_features), number[part]
            ),
            len(x_t),
            self._denoises,
        )
        return _joined(parts)

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""
        parts, self._tells = in_parts(
            lambda part: self.network.to_centres(layer[part], cumulative_mask[part], tuple(f[part] for f in image_features)),
            len(layer),
            self._tells,
        )
        return _joined(parts)


def in_parts(call: Callable[[slice], Answer], count: int, most: int) -> tuple[list[Answer], int]:
    """What `call` answers for the parts of a batch of `count`, of at most `most` each, and what `most` has become."""
    done: list[Answer] = []
    start = 0
    while start < count:
        size = min(most or count, count - start)
        try:
            done.append(call(slice(start, start + size)))
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                said = "the GPU has no memory for a batch of one: free some, or use the device cpu"
                raise torch.OutOfMemoryError(f"{said} ({error})") from error
        else:
            start += size
            continue
        most = size // 2  # outside of `except`, whose traceback holds what was computed so far
        torch.cuda.empty_cache()
        logging.getLogger(__name__).warning("out of GPU memory for a batch of %d: continuing with batches of %d", size, most)
    return done, most


def out_of_memory(error: RuntimeError) -> bool:
    """Whether PyTorch says so, or what is below it, in its own words."""
    return isinstance(error, torch.OutOfMemoryError) or any(words in str(error) for words in NO_MEMORY)


def _joined(parts: Sequence[Tensor]) -> Tensor:
    return parts[0] if len(parts) == 1 else torch.cat(tuple(parts))
