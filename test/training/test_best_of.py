# SPDX-License-Identifier: Apache-2.0
"""Rows that choose their noise: where an image leaves two truths, hypotheses find both."""

from dataclasses import replace

import pytest
import torch

from seqamodal_ros.diffusion.adapter import signed
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training.objective import ObjectiveSettings, best_noise, dice_losses, mask_losses
from training.one_shot import OneShotSettings
from training.train import TrainSettings, may_begin

SMALL = FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16), coarse_noise=True)
SCHEDULE = Schedule.linear()


def halves() -> torch.Tensor:
    """Two truths of one image, float [2, 1, 16, 16]: a thing that goes on to the right, and one that ends in the middle."""
    truths = torch.zeros(2, 1, 16, 16)
    truths[0, :, 4:12, 2:14] = 1
    truths[1, :, 4:12, 2:7] = 1
    return truths


def trained(best_of: int, steps: int) -> FastNetwork:
    """A small network, after some steps on one image whose truth is one or the other, four rows each."""
    torch.manual_seed(1)
    network, settings = FastNetwork(SMALL), ObjectiveSettings(best_of=best_of)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3)
    features = tuple(f.repeat(8, 1, 1, 1).detach() for f in network.encode(torch.zeros(1, 3, 64, 64)))
    truth = halves().repeat_interleave(4, dim=0)
    t, in_front = torch.full((8,), SCHEDULE.steps - 1), signed(torch.zeros(8, 1, 16, 16, dtype=torch.bool))
    for _ in range(steps):
        x_t = best_noise(network, torch.randn(8, 1, 16, 16), t, in_front, features, truth, SCHEDULE, settings)
        optimiser.zero_grad()
        mask_losses(network.logits(x_t, t, in_front, features), truth, settings.dice)["loss"].backward()
        optimiser.step()
    return network


@torch.no_grad()
def found(network: FastNetwork) -> list[float]:
    """The best IOU of 16 hypotheses with each of the two truths."""
    torch.manual_seed(2)
    features = tuple(f.repeat(16, 1, 1, 1) for f in network.encode(torch.zeros(1, 3, 64, 64)))
    t, in_front = torch.full((16,), SCHEDULE.steps - 1), signed(torch.zeros(16, 1, 16, 16, dtype=torch.bool))
    drawn = network.logits(torch.randn(16, 1, 16, 16), t, in_front, features) > 0
    return [max(((one & truth).sum() / (one | truth).sum()).item() for one in drawn) for truth in halves() > 0]


def test_two_truths_are_found_where_rows_choose_their_noise_and_one_at_most_where_they_do_not():
    assert min(found(trained(best_of=4, steps=500))) > 0.75
    assert min(found(trained(best_of=1, steps=500))) < 0.5  # it has settled for one of them


def test_the_chosen_noise_is_the_nearest_and_rows_with_less_noise_keep_theirs():
    torch.manual_seed(0)
    network = FastNetwork(SMALL)
    torch.nn.init.normal_(network.denoiser.out[3].weight)  # so that noises tell in a network that was not trained
    features = tuple(f.repeat(6, 1, 1, 1).detach() for f in network.encode(torch.zeros(1, 3, 64, 64)))
    t, in_front = torch.tensor([999, 999, 999, 500, 999, 0]), torch.full((6, 1, 16, 16), -1.0)
    truth, x_t = halves().repeat(3, 1, 1, 1), torch.randn(6, 1, 16, 16)

    def losses(noise: torch.Tensor) -> torch.Tensor:
        logits = network.logits(noise, t, in_front, features)
        bce = torch.nn.functional.binary_cross_entropy_with_logits(logits, truth, reduction="none").mean(dim=(1, 2, 3))
        return bce + dice_losses(logits.sigmoid(), truth)

    chosen = best_noise(network, x_t, t, in_front, features, truth, SCHEDULE, ObjectiveSettings(best_of=8))
    pure = t == 999
    assert torch.equal(chosen[~pure], x_t[~pure])
    assert (losses(chosen) <= losses(x_t) + 1e-6)[pure].all() and (losses(chosen) < losses(x_t))[pure].any()


def test_rows_without_pure_noise_are_left_alone():
    network, x_t, t = FastNetwork(SMALL), torch.randn(2, 1, 16, 16), torch.tensor([500, 0])
    features = network.encode(torch.zeros(2, 3, 64, 64))
    assert best_noise(network, x_t, t, x_t, features, halves(), SCHEDULE, ObjectiveSettings(best_of=2)) is x_t


def test_all_layers_at_once_see_no_coarse_noise():
    with pytest.raises(ValueError, match="coarse_noise is of the network that draws one layer at a time"):
        OneShotSettings(coarse_noise=True)


def test_weights_without_coarse_noise_can_go_on_with_it_and_not_the_other_way_round():
    without = replace(SMALL, coarse_noise=False)
    assert may_begin(without, SMALL) and not may_begin(SMALL, without)


@pytest.mark.parametrize("coarse_noise,best_of", [(True, 1), (False, 3)])
def test_one_without_the_other_says_so(coarse_noise, best_of):
    with pytest.raises(ValueError, match="give both"):
        TrainSettings(FastSettings(coarse_noise=coarse_noise), objective=ObjectiveSettings(best_of=best_of))
    with pytest.raises(ValueError, match="best_of"):
        ObjectiveSettings(best_of=0)
