# SPDX-License-Identifier: Apache-2.0
"""The paper's objective: Algorithm 1's rows, noise introduction (Eq. 12), and the hybrid loss (Eq. 10 and the bound)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import Network, normalised, signed
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch, union
from training.rows import check_rows, independent_rows, layer_alone, next_layers, omitted_layers
from training.variational import variational_term

VARIATIONAL_WEIGHT = 1e-3  # lambda of Nichol and Dhariwal (2021), Eq. 16


@dataclass(frozen=True)
class HybridSettings:
    """How rows are drawn.

    Attributes:
        noise_introduction: share of rows of layer 3 and deeper whose cumulative mask lacks a layer (Section 5.4), in 0..1.
        balanced: draw each layer as often as any other; else deep layers are as rare as they are in the data.
        only_layer: draw this layer alone, always from a blank cumulative mask (see `independent_rows`); 0 for all layers.
    """

    kind: ClassVar[str] = "paper"

    noise_introduction: float = 0.0
    balanced: bool = False
    only_layer: int = 0

    def __post_init__(self) -> None:
        check_rows(self.noise_introduction, self.only_layer)


def draw_rows(batch: Batch, balanced: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of Algorithm 1: as many as there are images, drawn from all pairs of an image and one of its layers.

    An image of N layers has N + 1 pairs, the last of them with a blank target. All pairs are equally likely, as where they are
    files of one folder, so images with many layers have more rows than others, and deep layers are rare. Where they are
    `balanced`, each layer that the batch has is as likely, blank targets being one of their own, and a pair may come twice.

    Returns:
        image: int64 [B], which image of the batch.
        layer: int64 [B], the target layer i, from 1.
    """
    there, layer = next_layers(batch)
    image, before = there.nonzero(as_tuple=True)
    if balanced:
        kind = layer[there]
        chosen = torch.multinomial(1 / torch.bincount(kind)[kind], len(there), replacement=True)
    else:
        chosen = torch.randperm(len(image), device=image.device)[: len(there)]
    return image[chosen], before[chosen] + 1


def cumulative_and_target(batch: Batch, image: Tensor, layer: Tensor, omitted: Tensor) -> tuple[Tensor, Tensor]:
    """CM of Eq. 3, or P of Eq. 12, and the amodal mask of the target layer: bool [B, 1, h, w] each.

    P is the union of the layers that are left: subtracting the omitted one would also take pixels that it shares with others.

    Args:
        image, layer: see `draw_rows`.
        omitted: see `omitted_layers`.
    """
    amodal, layers = batch.amodal[image], batch.layers[image]
    in_front = (layers > 0) & (layers < layer[:, None]) & (layers != omitted[:, None])
    return union(amodal, in_front), union(amodal, layers == layer[:, None])


def hybrid_loss(network: Network, batch: Batch, schedule: Schedule, settings: HybridSettings) -> dict[str, Tensor]:
    """L_simple + lambda L_vlb (Nichol and Dhariwal, 2021, Eq. 16), scalars.

    L_simple is Eq. 10, the mean over pixels. L_vlb is the sum of T terms, estimated as T times the one of the drawn t; its mean
    is detached, so it trains the variance alone.

    Returns:
        "loss" (to minimise), "mse" (L_simple), "variational" (L_vlb, bits per pixel).
    """
    if settings.only_layer:
        image = independent_rows(batch, settings.only_layer)
        cumulative, target = layer_alone(batch, settings.only_layer, image)
    else:
        image, layer = draw_rows(batch, settings.balanced)
        cumulative, target = cumulative_and_target(batch, image, layer, omitted_layers(layer, settings.noise_introduction))
    features = network.encode(normalised(batch.image[image]))
    x0 = torch.where(target, 1.0, network.blank)
    noise = torch.randn_like(x0)
    t = torch.randint(schedule.steps, (len(x0),), device=x0.device)
    x_t = schedule.add_noise(x0, noise, t)
    epsilon, variance = network.denoise(x_t, t, signed(cumulative), features).chunk(2, dim=1)
    mse = ((noise - epsilon) ** 2).mean()
    variational = schedule.steps * variational_term(schedule, x0, x_t, t, epsilon.detach(), variance).mean()
    return {"loss": mse + VARIATIONAL_WEIGHT * variational, "mse": mse, "variational": variational}
