# SPDX-License-Identifier: Apache-2.0
"""Rows (Algorithm 1) and losses of the `fast` network; those of the `paper` network are in hybrid.py, rows of both in rows.py."""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from seqamodal_ros.diffusion.adapter import normalised, signed
from seqamodal_ros.diffusion.schedule import Schedule
from training.centres import centre_loss
from training.data.batches import Batch, all_layers, union
from training.data.ranges import check_not_negative, check_shares
from training.edges import occlusion_edges
from training.hypotheses import to_teach
from training.losses import mask_losses
from training.own import TrainableNetwork, drawn_objects, own_layers
from training.rows import check_rows, independent_rows, layer_alone, next_layers, omitted_layers
from training.taught import TaughtNetwork

# what `ObjectiveSettings.only` may name -> the module that it is
PARTS = {"centres": "centres", "denoiser": "denoiser", "numbers": "denoiser.numbers"}


@dataclass(frozen=True)
class ObjectiveSettings:
    """How rows are drawn and weighed.

    Attributes:
        rows: training rows of each image and step, out of its N layers and the blank one N + 1.
        noise_only: share of rows at t = T - 1, where a single sampling step starts.
        imperfect: share of rows whose cumulative mask gets an imperfect outline.
        partial: share of rows where some objects of the target layer are in the cumulative mask already.
        own: share of batches whose cumulative masks are the model's own, free-running, once `own_from` is reached.
        own_from: step from which on the model's own cumulative masks are used.
        dice: weight of the Dice loss beside binary cross-entropy.
        noise_introduction: share of rows of layer 3 and deeper whose cumulative mask lacks a layer (Section 5.4), in 0..1; not of
            rows whose cumulative mask is the model's own.
        balanced: of each image draw rare layers more often, as the inverse of how many images of the batch have them, blank ones
            being one of their own; a row may come twice. Else all layers of an image are as likely.
        only_layer: draw this layer alone, always from a blank cumulative mask (see `independent_rows`); 0 for all layers.
        first: share of rows that start from a blank cumulative mask, whatever was drawn for them: where the model runs
            freely, all layers rest on the first. Not of rows of `only_layer`.
        edges: weight of the loss of `training.edges`; 0 trains without that head.
        all_layers: weight of the loss of all layers as the encoder draws them at once, of networks where it does.
        centres: weight of the loss of the network's ways to centres, see `training.centres`; 0 leaves them as they are.
        only: train this part of a trained network alone, "centres", "denoiser" or "numbers", by its own losses: no other weight
            changes. "numbers" are the denoiser's vectors of the hypotheses that it tells apart: what number 0 draws, which
            has none, stays as it is. "": train all of it.
    """

    kind: ClassVar[str] = "fast"

    rows: int = 3
    noise_only: float = 0.85
    imperfect: float = 0.5
    partial: float = 0.2
    own: float = 0.5
    own_from: int = 2000
    dice: float = 1.0
    noise_introduction: float = 0.0
    balanced: bool = False
    only_layer: int = 0
    first: float = 0.0
    edges: float = 0.0
    all_layers: float = 0.0
    centres: float = 0.0
    only: str = ""

    def __post_init__(self) -> None:
        check_rows(self.noise_introduction, self.only_layer)
        if self.rows < 1:
            raise ValueError(f"rows must be 1 or more of each image, not {self.rows}")
        check_shares(self, "noise_only", "imperfect", "partial", "own", "first")
        check_not_negative(self, "own_from", "dice", "edges", "all_layers", "centres")
        if self.only and self.only not in PARTS:
            raise ValueError(f'only is "centres", "denoiser", "numbers" or "", not {self.only!r}')
        if self.only and max(self.edges, self.all_layers, self.centres):
            raise ValueError(f"`only` trains the {self.only} alone: leave out edges, all_layers and centres")


def next_layer(amodal: Tensor, occluded_by: Tensor, drawn: Tensor) -> Tensor:
    """The layer that comes next once some objects are drawn: all others whose occluders are all drawn.

    With the objects of layers 1..i - 1 drawn this is layer i (Eq. 2); with all drawn it is blank (layer N + 1). It is
    defined for any other set too, so a row can start from the model's own, imperfect cumulative mask.

    Args:
        amodal: bool [B, O, h, w].
        occluded_by: bool [B, O, O], Z of Eq. 1.
        drawn: bool [B, O].

    Returns:
        bool [B, 1, h, w].
    """
    blocked = (occluded_by & ~drawn[:, None, :]).any(dim=2)
    return union(amodal, ~drawn & ~blocked)


def algorithm_1_rows(batch: Batch, rows: int) -> list[Tensor]:
    """For each row, the objects drawn before it: bool [B, O].

    The rows of an image are distinct layers out of 1..N + 1, drawn uniformly, as long as it has that many.
    """
    layers_and_blank = batch.layers.amax(dim=1) + 1
    first = (torch.rand_like(layers_and_blank, dtype=torch.float32) * layers_and_blank).long()
    return [batch.layers < 1 + ((first + row) % layers_and_blank)[:, None] for row in range(rows)]


def balanced_rows(batch: Batch, rows: int) -> list[Tensor]:
    """Likewise, but rare layers come as often as others, as far as each image has them; rows of an image may be the same."""
    there, layer = next_layers(batch)
    count = torch.bincount(layer[there], minlength=there.shape[1] + 1)
    weight = torch.where(there, 1 / count.clamp(min=1)[layer], 0.0)
    chosen = torch.multinomial(weight, rows, replacement=True)
    return [batch.layers < 1 + chosen[:, row : row + 1] for row in range(rows)]


def add_partial(batch: Batch, drawn: Tensor, share: float) -> Tensor:
    """In a `share` of rows, count some objects of the layer that comes next as drawn too: bool [B, O]."""
    blocked = (batch.occluded_by & ~drawn[:, None, :]).any(dim=2)
    chosen = torch.rand(len(drawn), 1, device=drawn.device) < share
    return drawn | (~blocked & chosen & (torch.rand(drawn.shape, device=drawn.device) < 0.5))


def imperfect_outline(mask: Tensor, share: float) -> Tensor:
    """In a `share` of masks bool [B, 1, h, w], shift the outline by smooth noise of about two pixels."""
    b, _, h, w = mask.shape
    blurred = F.avg_pool2d(mask.float(), 5, stride=1, padding=2)
    noise = F.interpolate(torch.randn(b, 1, h // 8, w // 8, device=mask.device), size=(h, w), mode="bilinear")
    noisy = blurred + 0.35 * noise * (blurred * (1 - blurred) * 4).sqrt() > 0.5
    return torch.where(torch.rand(b, 1, 1, 1, device=mask.device) < share, noisy, mask)


def loss(
    network: TrainableNetwork,
    batch: Batch,
    schedule: Schedule,
    settings: ObjectiveSettings,
    step: int,
    features: tuple[Tensor, ...] | None = None,
) -> dict[str, Tensor]:
    """Losses of one batch, scalars: "loss" (to minimise), "bce" and "dice"; and those of the heads that a network has.

    `features` are what `network.encode` makes of the images, where that is known.
    """
    if features is None:
        features = network.encode(normalised(batch.image))
    image = torch.arange(len(batch.image), device=batch.image.device).repeat(settings.rows)
    if settings.only_layer:
        image = torch.cat([independent_rows(batch, settings.only_layer) for _ in range(settings.rows)])
        cumulative, target = layer_alone(batch, settings.only_layer, image)
    else:
        drawn, cumulative = _drawn(network, features, batch, schedule, settings, step)
        first = torch.rand(len(drawn), 1, device=drawn.device) < settings.first
        drawn, cumulative = drawn & ~first, cumulative & ~first[..., None, None]
        target = next_layer(batch.amodal[image], batch.occluded_by[image], drawn)
    x0 = signed(target)
    x_t, t = noisy(x0, schedule, settings.noise_only)
    given = x_t, t, signed(cumulative), tuple(f[image] for f in features[: network.conditions])
    hypothesis = to_teach(network, *given, target.float(), settings.dice, zero=settings.only != "numbers")
    losses = mask_losses(network.logits(*given, hypothesis).float(), target.float(), settings.dice)
    tasks = {}  # beside the rows: loss and weight
    if settings.centres:
        tasks["centres"] = centre_loss(network.to_centres, features[network.conditions :], batch), settings.centres
    if settings.all_layers:
        truth = all_layers(batch, features[-1].shape[1]).float()
        tasks["all_layers"] = mask_losses(features[-1].float(), truth, settings.dice)["loss"], settings.all_layers
    if isinstance(network, TaughtNetwork):
        truth = occlusion_edges(batch.amodal, batch.occluded_by).float()
        tasks["edges"] = (
            mask_losses(network.edges(features[network.conditions]).float(), truth, settings.dice)["loss"],
            settings.edges,
        )
    for name, (value, weight) in tasks.items():
        losses[name] = value
        losses["loss"] = losses["loss"] + weight * value
    return losses


def _drawn(
    network: TrainableNetwork,
    features: tuple[Tensor, ...],
    batch: Batch,
    schedule: Schedule,
    settings: ObjectiveSettings,
    step: int,
) -> tuple[Tensor, Tensor]:
    """For all rows, the objects drawn before bool [rows * B, O], and the cumulative masks bool [rows * B, 1, h, w]."""
    if step >= settings.own_from and torch.rand(()) < settings.own:
        detached = tuple(f.detach() for f in features)
        layers = own_layers(network, detached, schedule, batch.amodal.shape[-1], settings.rows)
        own = [layers[:, :number].any(dim=1, keepdim=True) for number in range(1, settings.rows + 1)]
        return torch.cat([drawn_objects(batch, mask) for mask in own]), torch.cat(own)
    rows = (balanced_rows if settings.balanced else algorithm_1_rows)(batch, settings.rows)
    drawn = [add_partial(batch, row, settings.partial) for row in rows]
    omitted = [_omitted(batch, row, settings.noise_introduction) for row in rows]
    shown = [each & ~without for each, without in zip(drawn, omitted, strict=True)]
    masks = [imperfect_outline(union(batch.amodal, row), settings.imperfect) for row in shown]
    return torch.cat(drawn), torch.cat(masks)


def _omitted(batch: Batch, whole: Tensor, share: float) -> Tensor:
    """Eq. 12: in a `share` of the rows, the objects of a random layer out of the whole ones that are drawn, but not of the first.

    Args:
        batch: the scenes.
        whole: bool [B, O], the objects of all layers in front of the target.
        share: of the rows.

    Returns:
        bool [B, O], what the cumulative mask then lacks.
    """
    layer = 1 + torch.where(whole, batch.layers, 0).amax(dim=1)  # of the target
    return batch.layers == omitted_layers(layer, share)[:, None]


def noisy(x0: Tensor, schedule: Schedule, noise_only: float) -> tuple[Tensor, Tensor]:
    """x_t of masks float [R, C, h, w], and t int64 [R]: uniform, but T - 1 in a share `noise_only` of the rows."""
    t = torch.randint(schedule.steps, (len(x0),), device=x0.device)
    t = torch.where(torch.rand(len(x0), device=x0.device) < noise_only, schedule.steps - 1, t)
    return schedule.add_noise(x0, torch.randn_like(x0), t), t
