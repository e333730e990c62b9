# SPDX-License-Identifier: Apache-2.0
"""Objects of a layer, told apart: what `FastNetwork.to_centres` learns.

Things of one layer touch often, and their union does not say where one ends. Each pixel learns the way to the centre of its
object instead, so that the pixels of one object end up at one place.
"""

import hashlib
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqamodal_ros.diffusion.adapter import normalised, signed
from seqamodal_ros.diffusion.fast import REACH
from training.data.batches import Batch, union

ToCentres = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]  # `FastNetwork.to_centres`

STRAY = 0.15  # share of deeper objects that a layer takes in too, as drawn layers do


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
            # one by one: beside others an image may be rounded differently, and a run that is resumed meets others
            if key not in self._kept:
                self._kept[key] = tuple(each[0].half() for each in encode(normalised(image[None])))
        return tuple(torch.stack(each).float() for each in zip(*(self._kept[key] for key in keys), strict=True))


def centre_loss(to_centres: ToCentres, features: tuple[Tensor, ...], batch: Batch) -> Tensor:
    """Of a layer of each image: the mean over its pixels of the smooth L1 distance to the true way, in `REACH`; scalar.

    A pixel counts by the root of its object's area, inversely: it is small things that are taken for one.
    """
    drawn, chosen = a_layer_of_each(batch)
    layer, cumulative = union(batch.amodal, chosen), union(batch.amodal, drawn)
    said = to_centres(signed(layer), signed(cumulative), features)
    objects = batch.amodal & chosen[..., None, None]
    distance = F.smooth_l1_loss(said / REACH, ways(objects) / REACH, beta=0.1, reduction="none")
    roots = objects.sum(dim=(2, 3)).clamp(min=1).float().rsqrt()
    weight = layer * roots.gather(1, owner(objects).flatten(1)).view_as(layer)
    return (distance.sum(dim=1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1)


def a_layer_of_each(batch: Batch) -> tuple[Tensor, Tensor]:
    """Objects before a layer of each image, drawn uniformly, and those in it, with strays: bool [B, O] each."""
    depth = batch.layers.amax(dim=1)
    number = 1 + (torch.rand_like(depth, dtype=torch.float32) * depth).long()[:, None]
    stray = (batch.layers > number) & (torch.rand_like(number.expand_as(batch.layers), dtype=torch.float32) < STRAY)
    return (batch.layers > 0) & (batch.layers < number), (batch.layers > 0) & (batch.layers == number) | stray


def owner(amodal: Tensor) -> Tensor:
    """Of each pixel, the first of the objects bool [B, O, h, w] that holds it: int64 [B, h, w]; 0 where none does."""
    return amodal.to(torch.uint8).argmax(dim=1)


def ways(amodal: Tensor) -> Tensor:
    """From each pixel to the centroid of the first of the objects bool [B, O, h, w] that holds it: float [B, 2, h, w], x and y.

    Zero where there is none. Objects come nearest first, so where two share a pixel it is the nearer one's.
    """
    with torch.autocast(amodal.device.type, enabled=False):  # bfloat16 would move centroids by a quarter of a pixel
        return _ways(amodal)


def _ways(amodal: Tensor) -> Tensor:
    height, width = amodal.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y]).to(amodal.device, torch.float32)
    mass = amodal.flatten(2).float()
    centroids = (mass @ at.flatten(1).T) / mass.sum(dim=2, keepdim=True).clamp(min=1)
    of_pixel = centroids.gather(1, owner(amodal).flatten(1)[..., None].expand(-1, -1, 2))
    of_pixel = of_pixel.transpose(1, 2).unflatten(2, (height, width))
    return (of_pixel - at) * amodal.any(dim=1, keepdim=True)
