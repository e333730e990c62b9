# SPDX-License-Identifier: Apache-2.0
"""Objects of a layer, told apart: what `FastNetwork.to_centres` learns.

Things of one layer touch often, and their union does not say where one ends. Each pixel learns the way to the centre of its
object instead, so that the pixels of one object end up at one place.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from seqamodal_ros.diffusion.adapter import signed
from seqamodal_ros.diffusion.fast import REACH
from training.data.batches import Batch, union
from training.own import drawn_objects

ToCentres = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]  # `FastNetwork.to_centres`

STRAY = 0.15  # share of deeper objects that a true layer takes in too, as drawn layers do
OWN = 0.75  # share of rows of layers that the network drew itself, where they are at hand


def centre_loss(to_centres: ToCentres, features: tuple[Tensor, ...], batch: Batch, own: Tensor | None = None) -> Tensor:
    """Of a layer of each image: the mean over its pixels of the smooth L1 distance to the true way, in `REACH`; scalar.

    A pixel counts by the root of its object's area, inversely: it is small things that are taken for one.

    Args:
        to_centres: the network's.
        features: of the images.
        batch: the scenes.
        own: bool [B, N, h, w], the layers as the network draws them itself, of which a share `OWN` of the rows is then: in such
            a layer lie things that belong behind it, and parts of things.
    """
    layer, cumulative, objects = true_rows(batch)
    if own is not None:
        chosen = torch.rand(len(own), 1, 1, 1, device=own.device) < OWN
        rows = zip(own_rows(batch, own), (layer, cumulative, objects), strict=True)
        layer, cumulative, objects = (torch.where(chosen, *both) for both in rows)
    said = to_centres(signed(layer), signed(cumulative), features)
    distance = F.smooth_l1_loss(said / REACH, ways(batch.amodal, objects) / REACH, beta=0.1, reduction="none")
    roots = batch.amodal.sum(dim=(2, 3)).clamp(min=1).float().rsqrt()
    held = layer & objects.any(dim=1, keepdim=True)
    weight = held * roots.gather(1, owner(objects).flatten(1)).view_as(layer)
    return (distance.sum(dim=1, keepdim=True) * weight).sum() / weight.sum().clamp(min=1e-3)  # a pixel is 1 / 64 at least


def true_rows(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """A true layer of each image, with strays, the cumulative mask before it, and whose pixels its are.

    Returns:
        layer, cumulative mask: bool [B, 1, h, w] each.
        objects: bool [B, O, h, w]; a pixel is the first one's that holds it.
    """
    drawn, chosen = a_layer_of_each(batch)
    return union(batch.amodal, chosen), union(batch.amodal, drawn), batch.amodal & chosen[..., None, None]


def own_rows(batch: Batch, own: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Likewise of a layer that the network drew itself, out of those bool [B, N, h, w] before the first blank one.

    A pixel is the nearest object's that is not in the layers before; where there is none, the nearest's: a rest of it.
    """
    depth = own.any(dim=3).any(dim=2).cumprod(dim=1).sum(dim=1)
    number = (torch.rand_like(depth, dtype=torch.float32) * depth).long()[:, None, None, None]
    index = torch.arange(own.shape[1], device=own.device)[None, :, None, None]
    layer, cumulative = ((own & where).any(dim=1, keepdim=True) for where in (index == number, index < number))
    left = batch.amodal & ~drawn_objects(batch, cumulative)[..., None, None]
    return layer, cumulative, torch.where(left.any(dim=1, keepdim=True), left, batch.amodal)


def a_layer_of_each(batch: Batch) -> tuple[Tensor, Tensor]:
    """Objects before a layer of each image, drawn uniformly, and those in it, with strays: bool [B, O] each."""
    depth = batch.layers.amax(dim=1)
    number = 1 + (torch.rand_like(depth, dtype=torch.float32) * depth).long()[:, None]
    stray = (batch.layers > number) & (torch.rand_like(number.expand_as(batch.layers), dtype=torch.float32) < STRAY)
    return (batch.layers > 0) & (batch.layers < number), (batch.layers > 0) & (batch.layers == number) | stray


def owner(objects: Tensor) -> Tensor:
    """Of each pixel, the first of the objects bool [B, O, h, w] that holds it: int64 [B, h, w]; 0 where none does."""
    return objects.to(torch.uint8).argmax(dim=1)


def ways(amodal: Tensor, objects: Tensor) -> Tensor:
    """From each pixel to the centroid of its object, the first of `objects` that holds it: float [B, 2, h, w], x and y.

    Zero where there is none. Objects come nearest first, so where two share a pixel it is the nearer one's.

    Args:
        amodal: bool [B, O, h, w], whole.
        objects: bool [B, O, h, w], those and the pixels of them that are asked of.
    """
    with torch.autocast(amodal.device.type, enabled=False):  # bfloat16 would move centroids by a quarter of a pixel
        return _ways(amodal, objects)


def _ways(amodal: Tensor, objects: Tensor) -> Tensor:
    height, width = amodal.shape[2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    at = torch.stack([x, y]).to(amodal.device, torch.float32)
    mass = amodal.flatten(2).float()
    centroids = (mass @ at.flatten(1).T) / mass.sum(dim=2, keepdim=True).clamp(min=1)
    of_pixel = centroids.gather(1, owner(objects).flatten(1)[..., None].expand(-1, -1, 2))
    of_pixel = of_pixel.transpose(1, 2).unflatten(2, (height, width))
    return (of_pixel - at) * objects.any(dim=1, keepdim=True)
