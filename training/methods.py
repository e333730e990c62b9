# SPDX-License-Identifier: Apache-2.0
"""How each kind of model gets from images to layers: one after the other, each by a model of its own, or all at once.

For square images of the networks' own size, and networks in memory; the `Perceiver` is for all others.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import normalised
from seqamodal_ros.diffusion.fast import FastNetwork
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.proposals import drawer, numbered, proposer
from seqamodal_ros.diffusion.samplers import generate
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import SequenceSettings, binarise, run, select, sequence
from seqamodal_ros.second_opinion import second_opinions
from training.one_shot import OneShotNetwork

SCHEDULE = Schedule.linear()


class Layers(NamedTuple):
    """What a method sees in an image.

    Attributes:
        amodal: bool [L, h, w], front first.
        hypotheses: bool [L, K, h, w].
    """

    amodal: np.ndarray
    hypotheses: np.ndarray


Choose = Callable[[np.ndarray], np.ndarray]  # candidates bool [n, h, w], none of them null -> the layer's mask bool [h, w]


def mean_mask(candidates: np.ndarray, area_min: int) -> np.ndarray:
    """What Table 2 compares the selected mask with: the mean of the candidates bool [n, h, w], thresholded at 0.5.

    Where they agree on fewer than `area_min` pixels it is the selected one, as a blank mask would be drawn again and again.
    """
    mean = candidates.mean(axis=0) >= 0.5
    return mean if mean.sum() >= area_min else select(candidates)


def encoded(network: FastNetwork | PaperNetwork, images: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    """Features of images uint8 [S, S, 3], see `Network.encode`."""
    device = next(network.parameters()).device
    return network.encode(normalised(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).to(device)))


@torch.inference_mode()
def sequential_layers(
    network: FastNetwork | PaperNetwork,
    images: Sequence[np.ndarray],
    settings: SequenceSettings,
    sampler: str,
    steps: int,
    samples: int,
    seed: int,
    choose: Choose = select,
) -> list[Layers]:
    """Algorithm 2 on images uint8 [S, S, 3] as one batch; the noise of image k is a `Perceiver`'s, of the seed `seed` + k."""
    features = encoded(network, images)
    side = network.settings.mask_size
    draws = [drawer((samples, 1, side, side), seed + k) for k in range(len(images))]
    propose = proposer(network, SCHEDULE, features, draws, samples, sampler, steps)
    inside = [np.ones((side, side), bool)] * len(images)
    opinions = second_opinions(network, features[-1], inside, settings.area_min)
    lead = numbered(network) and choose is select  # another choice is of all hypotheses, numbered or not
    found = run([sequence(settings, (side, side), samples, choose, second, lead) for second in opinions], propose)
    return [Layers(each.amodal, each.hypotheses) for each in found]


@torch.inference_mode()
def independent_layers(
    networks: Iterable[FastNetwork | PaperNetwork],
    images: Sequence[np.ndarray],
    area_min: int,
    sampler: str,
    steps: int,
    samples: int,
    seed: int,
) -> list[Layers]:
    """Layer i by model i, from the image alone, without cumulative learning; a layer that its model does not see is blank."""
    layers = []
    for number, network in enumerate(networks):
        features = tuple(f.repeat_interleave(samples, 0) for f in encoded(network, images)[: network.conditions])
        side = network.settings.mask_size
        blank = torch.full((len(images) * samples, 1, side, side), -1.0, device=features[0].device)
        draw = drawer(blank.shape, seed + (number << 32), blank.device)  # other noise for each layer
        x0 = generate(network, SCHEDULE, blank, features, draw, sampler, steps, samples=samples)
        layers.append(x0.cpu().view(len(images), samples, side, side).numpy())
    return [side_by_side(np.stack(stack), area_min) for stack in zip(*layers, strict=True)]


@torch.inference_mode()
def one_shot_layers(
    network: OneShotNetwork, images: Sequence[np.ndarray], area_min: int, steps: int, samples: int, seed: int
) -> list[Layers]:
    """All layers at once, by DDIM, on images uint8 [S, S, 3]; one that is not seen is blank."""
    features = tuple(f.repeat_interleave(samples, 0) for f in encoded(network, images)[: network.conditions])
    side, layers = network.settings.mask_size, network.denoiser.drawn
    draw = drawer((len(images) * samples, layers, side, side), seed, features[0].device)
    nothing = torch.zeros(len(images) * samples, 0, side, side, device=features[0].device)  # no cumulative mask
    x0 = generate(network, SCHEDULE, nothing, features, draw, "ddim", steps, samples=samples)
    return [
        side_by_side(each, area_min) for each in x0.cpu().view(len(images), samples, layers, side, side).transpose(1, 2).numpy()
    ]


def side_by_side(x0: np.ndarray, area_min: int) -> Layers:
    """Layers that do not depend on one another, of their proposals float [L, K, h, w], each selected as Algorithm 2 does it."""
    drawn = np.stack([chosen(each, area_min, lead=False) for each in x0])
    return Layers(drawn, np.stack([binarise(each, area_min)[0] for each in x0]))


def chosen(x0: np.ndarray, area_min: int, lead: bool) -> np.ndarray:
    """One layer's mask bool [h, w] of its proposals float [K, h, w], as `sequence` selects it; blank where there is none."""
    candidates, null = binarise(x0, area_min)
    return candidates[0] if lead or null.all() else select(candidates[~null])
