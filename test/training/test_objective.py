# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1's rows, the layer that comes next, and losses that fall."""

from dataclasses import replace

import pytest
import torch

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch, SceneBatches
from training.data.compositor import CompositeSettings, Compositor
from training.objective import (
    ObjectiveSettings,
    add_partial,
    algorithm_1_rows,
    balanced_rows,
    imperfect_outline,
    loss,
    next_layer,
)
from training.rows import independent_rows

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 16, 16), denoiser_channels=(8, 16, 16))


def stairs() -> Batch:
    """Two scenes of 8 x 8 pixels: a chain of three objects in a row, each under the one before; and one object alone."""
    amodal = torch.zeros(2, 4, 8, 8, dtype=torch.bool)
    for k in range(3):
        amodal[0, k, :, 2 * k : 2 * k + 4] = True
    amodal[1, 0, 2:6, 2:6] = True
    occluded_by = torch.zeros(2, 4, 4, dtype=torch.bool)
    occluded_by[0, 1, 0] = occluded_by[0, 2, 1] = True
    layers = torch.tensor([[1, 2, 3, 0], [1, 0, 0, 0]])
    return Batch(torch.zeros(2, 3, 16, 16, dtype=torch.uint8), amodal, occluded_by, layers)


class TestNextLayer:
    @pytest.mark.parametrize("before", [0, 1, 2, 3])
    def test_with_the_layers_before_drawn_it_is_the_layer_of_eq_2(self, before):
        batch = stairs()
        found = next_layer(batch.amodal, batch.occluded_by, batch.layers <= before)
        assert found.shape == (2, 1, 8, 8)
        expected = batch.amodal[0, before] if before < 3 else torch.zeros(8, 8, dtype=torch.bool)
        assert torch.equal(found[0, 0], expected)
        assert found[1].any() == (before == 0)

    def test_an_object_whose_occluder_is_not_drawn_waits(self):
        batch = stairs()
        drawn = torch.tensor([[False, True, False, True]] * 2)  # the middle one alone: the last one is free, and the first
        found = next_layer(batch.amodal, batch.occluded_by, drawn)
        assert torch.equal(found[0, 0], batch.amodal[0, 0] | batch.amodal[0, 2])


def test_balanced_rows_draw_rare_layers_as_often_as_common_ones():
    """Of one scene of three layers and two of one: the layers that the first alone has make up for those that all have."""
    deep, flat = stairs().layers
    batch = replace(stairs(), layers=torch.stack([deep, flat, flat]))
    torch.manual_seed(0)
    counts = torch.zeros(3, 5)
    for _ in range(1000):
        for drawn in balanced_rows(batch, 2):
            following = torch.where(drawn & (batch.layers > 0), batch.layers, 0).amax(dim=1)
            counts[torch.arange(3), following] += 1
    shares = counts / 2000
    weights = torch.tensor([1 / 3, 1, 1, 1 / 3])  # layers 1, 2, 3 and blank
    assert torch.allclose(shares[0, :4], weights / weights.sum(), atol=0.03)
    assert torch.allclose(shares[1:, :2], torch.full((2, 2), 0.5), atol=0.04)
    assert not shares[1:, 2:].any()


def test_algorithm_1_rows_are_distinct_layers_drawn_uniformly():
    batch = stairs()
    torch.manual_seed(0)
    counts = torch.zeros(4)
    for _ in range(800):
        rows = algorithm_1_rows(batch, 3)
        assert all(row.shape == (2, 4) for row in rows)
        drawn = [int(row[0, :3].sum()) for row in rows]  # objects before the target, of the chain: 0..3
        assert len(set(drawn)) == 3
        assert all(row[0, 3] for row in rows)  # padding counts as drawn
        for row, number in zip(rows, drawn, strict=True):
            assert torch.equal(row[0, :3], torch.arange(3) < number)
            counts[number] += 1
    assert (counts / counts.sum() - 0.25).abs().max() < 0.03  # layers 1, 2, 3 and the blank one


def test_add_partial_draws_objects_of_the_next_layer_only():
    batch = stairs()
    torch.manual_seed(0)
    before = batch.layers <= 1
    changed = 0
    for _ in range(50):
        after = add_partial(batch, before, 1.0)
        assert (after | before).equal(after)
        assert not after[0, 2]  # its occluder is not drawn
        changed += int(after[0, 1])
    assert 10 < changed < 40
    assert add_partial(batch, before, 0.0).equal(before)


def test_imperfect_outline_moves_the_edge_and_leaves_the_core():
    torch.manual_seed(0)
    mask = torch.zeros(20, 1, 32, 32, dtype=torch.bool)
    mask[:, :, 8:24, 8:24] = True
    moved = imperfect_outline(mask, 1.0)
    assert (moved ^ mask).flatten(1).any(dim=1).all()
    assert moved[:, :, 13:19, 13:19].all()
    assert not moved[:, :, :4].any()
    assert imperfect_outline(mask, 0.0).equal(mask)
    assert not imperfect_outline(torch.zeros_like(mask), 1.0).any()  # a blank mask stays blank


@pytest.fixture
def batch(material) -> Batch:
    settings = CompositeSettings(image_size=64, mask_size=16, area_min=2, counts=(0.1, 0.2, 0.4, 0.3))
    return SceneBatches(Compositor(material, settings), 6, 1, seed=0)[0]


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize("own", [0.0, 1.0])
def test_losses_are_finite_and_reach_every_parameter(batch, own, balanced):
    torch.manual_seed(0)
    network = FastNetwork(SMALL)
    losses = loss(network, batch, Schedule.linear(), ObjectiveSettings(own=own, own_from=0, balanced=balanced), step=1)
    assert set(losses) == {"loss", "bce", "dice"}
    assert all(torch.isfinite(value) for value in losses.values())
    assert losses["loss"].item() == pytest.approx((losses["bce"] + losses["dice"]).item(), rel=1e-5)
    losses["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_loss_of_one_batch_falls(batch):
    torch.manual_seed(0)
    network = FastNetwork(SMALL)
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    settings = ObjectiveSettings(imperfect=0, partial=0, own=0)
    values = []
    for step in range(60):
        torch.manual_seed(step)
        value = loss(network, batch, Schedule.linear(), settings, step)["loss"]
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(value.item())
    assert sum(values[-10:]) < 0.6 * sum(values[:10])


def test_a_model_of_one_layer_sees_as_many_images_with_it_as_without():
    batch = stairs()
    torch.manual_seed(0)
    for layer, having in ((2, 0), (3, 0)):
        rows = torch.stack([independent_rows(batch, layer) for _ in range(20)])
        assert ((rows == having).float().mean() - 0.5).abs() < 1e-6
    both = torch.stack([independent_rows(batch, 1) for _ in range(40)])  # every image has layer 1: all rows are positive
    assert set(both.flatten().tolist()) == {0, 1}
    nowhere = torch.cat([independent_rows(batch, 4) for _ in range(40)])  # none has it: all rows are blank
    assert 0.2 < nowhere.float().mean() < 0.8


class Listening:
    """A network that keeps what it is given, and answers with nothing known."""

    conditions = hypotheses = 1

    def encode(self, image):
        return (torch.arange(len(image)).float().view(-1, 1, 1, 1),)

    def logits(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.x_t, self.cumulative, self.images = x_t, cumulative_mask, image_features[0].flatten().long()
        return torch.zeros_like(x_t, requires_grad=True)


def test_only_layer_draws_it_without_a_cumulative_mask(monkeypatch):
    batch, network = stairs(), Listening()
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.zeros(4, dtype=torch.int64))  # t = 0, so x_t is the target
    monkeypatch.setattr("training.objective.independent_rows", lambda *_: torch.tensor([0, 1]))
    loss(network, batch, Schedule.linear(), ObjectiveSettings(rows=2, only_layer=3, own_from=0, own=1.0, noise_only=0.0), step=5)
    assert (network.cumulative == -1).all()
    assert network.images.tolist() == [0, 1, 0, 1]
    for x_t, image in zip(network.x_t, network.images, strict=True):
        assert torch.equal(x_t[0] > 0, batch.amodal[0, 2] if image == 0 else torch.zeros(8, 8, dtype=torch.bool))


def test_noise_introduction_leaves_out_no_layer_of_which_a_part_is_drawn_already(monkeypatch):
    """In front of layer 2 there is but the first, which stays, whether the object of layer 2 counts as drawn or not."""
    batch, network = stairs(), Listening()
    settings = ObjectiveSettings(rows=1, imperfect=0.0, partial=1.0, own=0.0, noise_only=0.0, noise_introduction=1.0)
    monkeypatch.setattr(torch, "randint", lambda *_, **__: torch.zeros(2, dtype=torch.int64))  # t = 0, so x_t is the target
    monkeypatch.setattr("training.objective.algorithm_1_rows", lambda batch, rows: [batch.layers < 2])
    first, second, third = (batch.amodal[0, k] for k in range(3))
    torch.manual_seed(0)
    targets = set()
    for _ in range(20):
        loss(network, batch, Schedule.linear(), settings, step=0)
        shown, target = network.cumulative[0, 0] > 0, network.x_t[0, 0] > 0
        targets.add("second" if torch.equal(target, second) else "third")
        assert torch.equal(shown, first if torch.equal(target, second) else first | second)
    assert targets == {"second", "third"}


def test_noise_introduction_takes_a_layer_but_the_first_out_of_the_cumulative_mask():
    """Only the rows of layer 3 and of the blank one after it have a layer that can be missing: the second, or the third."""
    batch, network = stairs(), Listening()
    settings = ObjectiveSettings(rows=4, imperfect=0.0, partial=0.0, own=0.0, noise_introduction=1.0)
    torch.manual_seed(0)
    first, second, third = (batch.amodal[0, k] for k in range(3))
    expected = {
        0: [torch.zeros(8, 8, dtype=torch.bool)],
        1: [first],
        2: [first],  # without layer 2
        3: [first | third, first | second],  # without layer 2 or 3
    }
    for _ in range(10):
        loss(network, batch, Schedule.linear(), settings, step=0)
        shown = [mask[0] > 0 for mask, image in zip(network.cumulative, network.images, strict=True) if image == 0]
        for options in expected.values():
            found = [k for k, mask in enumerate(shown) if any(torch.equal(mask, option) for option in options)]
            assert found
            shown.pop(found[0])
        assert not shown
