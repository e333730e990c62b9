# SPDX-License-Identifier: Apache-2.0
"""Hypotheses that are told apart by number: which one a row teaches, and that they part where an image has two truths."""

from dataclasses import replace

import pytest
import torch

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training import hypotheses
from training.data.batches import Batch
from training.hypotheses import to_teach
from training.losses import dice_losses, mask_losses, row_losses
from training.objective import ObjectiveSettings, loss

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(16, 16, 16), hypotheses=3)


class Columns:
    """Of `hypotheses` numbers, each draws its own columns of 16x16 pixels."""

    conditions = 1

    def __init__(self, count):
        self.hypotheses = count

    def logits(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        column = torch.arange(16).expand(len(x_t), 1, 16, 16)
        return 20.0 * (column // 4 == hypothesis[:, None, None, None]) - 10


def rows(*columns):
    """Rows of `Columns`, whose targets are what those numbers draw."""
    target = (torch.arange(16) // 4 == torch.tensor(columns)[:, None, None, None]).float().expand(-1, 1, 16, 16)
    return (torch.randn(target.shape), torch.full((len(columns),), 999), -torch.ones_like(target), ()), target


def test_the_nearest_is_taught(monkeypatch):
    monkeypatch.setattr(hypotheses, "TO_ANY", 0.0)
    given, target = rows(2, 1, 3, 3, 1)
    assert to_teach(Columns(4), *given, target, 1.0, zero=False).tolist() == [2, 1, 3, 3, 1]
    given, target = rows(0, 0)  # which number 0, the mean, draws best: it takes part in no choice
    assert (to_teach(Columns(4), *given, target, 1.0, zero=False) > 0).all()
    assert to_teach(Columns(1), *given, target, 1.0) is None


def test_some_rows_teach_the_mean_and_some_any():
    given, target = rows(*[2] * 4000)
    count = torch.bincount(to_teach(Columns(4), *given, target, 1.0), minlength=4) / 4000
    assert count[0] == pytest.approx(hypotheses.TO_MEAN, abs=0.04)
    astray = (1 - hypotheses.TO_MEAN) * hypotheses.TO_ANY / 3
    assert count[1] == pytest.approx(astray, abs=0.015) and count[3] == pytest.approx(astray, abs=0.015)


def test_losses_of_rows_are_those_of_their_mean():
    logits, target = torch.randn(5, 1, 8, 8), (torch.rand(5, 1, 8, 8) > 0.5).float()
    assert row_losses(logits, target, 0.7).mean().item() == pytest.approx(mask_losses(logits, target, 0.7)["loss"].item())


def test_dice_loss_at_its_ends():
    target = torch.zeros(1, 1, 8, 8)
    target[..., :4] = 1
    assert dice_losses(target, target).item() == pytest.approx(0)
    assert dice_losses(1 - target, target).item() == pytest.approx(1 - 8 / (64 + 8))
    blank = torch.zeros_like(target)
    assert dice_losses(blank, blank).item() == 0
    assert dice_losses(torch.full_like(blank, 0.5), blank).item() == pytest.approx(1 - 8 / 40)


def one_image_two_truths(truth: int) -> Batch:
    """An image whose one object is its upper half, or its left half."""
    amodal = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    amodal[..., :8, :] = truth == 0
    amodal[..., :, :8] |= torch.tensor(truth == 1)
    image = torch.full((1, 3, 64, 64), 128, dtype=torch.uint8)
    return Batch(image, amodal, torch.zeros(1, 1, 1, dtype=torch.bool), torch.ones(1, 1).long())


def test_two_truths_of_one_image_are_both_learned():
    """By numbers 1 and 2; a network that tells none apart draws neither, but what both share or what lies between."""
    truths = [one_image_two_truths(k).amodal[0] for k in range(2)]
    settings = ObjectiveSettings(rows=1, own=0.0, imperfect=0.0, partial=0.0, noise_only=1.0, first=1.0)
    found = {}
    for count in (1, 3):
        torch.manual_seed(0)
        network = FastNetwork(replace(SMALL, hypotheses=count))
        batches = [one_image_two_truths(k) for k in range(2)]
        both = Batch(*(torch.cat([getattr(b, name) for b in batches]).repeat(4, *[1] * (getattr(batches[0], name).ndim - 1))
                       for name in ("image", "amodal", "occluded_by", "layers")))  # fmt: skip
        features = tuple(f.detach() for f in network.encode(both.image.float() / 127.5 - 1))
        optimiser = torch.optim.Adam(network.denoiser.parameters(), 3e-3)
        for step in range(150):
            optimiser.zero_grad()
            loss(network, both, Schedule.linear(), settings, step, features)["loss"].backward()
            optimiser.step()
        with torch.no_grad():
            x_t, t, blank = torch.randn(count, 1, 16, 16), torch.full((count,), 999), -torch.ones(count, 1, 16, 16)
            drawn = network.logits(x_t, t, blank, tuple(f[:count] for f in features), torch.arange(count)) > 0
        if count > 1:
            numbers = network.denoiser.numbers.weight
            assert not numbers[0].any() and numbers[1:].any(dim=1).all()  # number 0 stays what it would be without
        found[count] = [max(((one & true).sum() / (one | true).sum()).item() for one in drawn) for true in truths]
    assert min(found[3]) > 0.9
    assert min(found[1]) < 0.75
