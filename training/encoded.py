# SPDX-License-Identifier: Apache-2.0
"""Image features of scenes that come again, where the encoder stays as it is: computed once."""

import hashlib
from collections.abc import Callable

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import normalised


class EncodedOnce:
    """Image features, without gradients; those of images that come again are kept in memory, in float16.

    With the sizes of the shipped weights they are half a megabyte an image.
    """

    def __init__(self) -> None:
        self._kept: dict[bytes, tuple[Tensor, ...]] = {}

    @torch.no_grad()
    def __call__(self, encode: Callable[[Tensor], tuple[Tensor, ...]], images: Tensor) -> tuple[Tensor, ...]:
        """What `encode` makes of images uint8 [B, 3, S, S], float32."""
        keys = [hashlib.sha256(image.numpy(force=True)).digest() for image in images]
        for key, image in zip(keys, images, strict=True):
            # one by one, and with noise of the image's own: beside others it may be rounded differently, and a run that is
            # resumed meets others
            if key not in self._kept:
                with torch.random.fork_rng([images.device] if images.is_cuda else []):
                    torch.manual_seed(int.from_bytes(key[:8], "big"))
                    self._kept[key] = tuple(each[0].half() for each in encode(normalised(image[None])))
        # float32 first: a CPU's autocast cannot stack float16
        return tuple(torch.stack([of.float() for of in each]) for each in zip(*(self._kept[key] for key in keys), strict=True))
