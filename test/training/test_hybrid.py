# SPDX-License-Identifier: Apache-2.0
"""Algorithm 1's rows, the noise introduction of Eq. 12, and a hybrid loss that falls."""

import pytest
import torch

from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch
from training.hybrid import HybridSettings, cumulative_and_target, draw_rows, hybrid_loss
from training.rows import omitted_layers
from training.variational import variational_term

TINY = PaperSettings(mask_size=16, channels=32, multipliers=(1,))


def stairs() -> Batch:
    """Two scenes of 16 x 16 pixels: a chain of four objects, each under the one before; and one object alone."""
    amodal = torch.zeros(2, 4, 16, 16, dtype=torch.bool)
    for k in range(4):
        amodal[0, k, :, 3 * k : 3 * k + 5] = True
    amodal[1, 0, 4:12, 4:12] = True
    occluded_by = torch.zeros(2, 4, 4, dtype=torch.bool)
    for k in range(3):
        occluded_by[0, k + 1, k] = True
    layers = torch.tensor([[1, 2, 3, 4], [1, 0, 0, 0]])
    image = torch.randint(0, 256, (2, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Batch(image, amodal, occluded_by, layers)


def test_rows_are_drawn_evenly_from_all_layers_and_the_blank_one():
    batch = stairs()
    torch.manual_seed(0)
    counts: dict[tuple[int, int], int] = {}
    for _ in range(1400):
        image, layer = draw_rows(batch)
        rows = list(zip(image.tolist(), layer.tolist(), strict=True))
        assert len(set(rows)) == 2
        for row in rows:
            counts[row] = counts.get(row, 0) + 1
    assert set(counts) == {(0, 1), (0, 2), (0, 3), (0, 4), (0, 5), (1, 1), (1, 2)}
    assert all(abs(count - 400) < 70 for count in counts.values())


def test_balanced_rows_have_each_layer_as_often():
    """Layer 1 and the blank one have two pairs each here, layers 2, 3 and 4 one: each is a fifth of all rows."""
    batch = stairs()
    torch.manual_seed(0)
    counts = dict.fromkeys(["blank", 1, 2, 3, 4], 0)
    for _ in range(1500):
        image, layer = draw_rows(batch, balanced=True)
        for i, k in zip(image.tolist(), layer.tolist(), strict=True):
            counts["blank" if k == [5, 2][i] else k] += 1
    assert all(abs(count - 600) < 90 for count in counts.values())


def test_images_without_objects_have_a_blank_row():
    batch = stairs()
    image, layer = draw_rows(Batch(batch.image, batch.amodal & False, batch.occluded_by & False, batch.layers * 0))
    assert sorted(image.tolist()) == [0, 1]
    assert layer.tolist() == [1, 1]


def test_the_loop_of_algorithm_1():
    """CM grows by the true layer, and the last target is blank."""
    batch = stairs()
    cumulative = torch.zeros(16, 16, dtype=torch.bool)
    for i in range(1, 6):
        row = torch.tensor([0]), torch.tensor([i])
        given, target = cumulative_and_target(batch, *row, omitted=torch.tensor([0]))
        assert torch.equal(given[0, 0], cumulative)
        assert torch.equal(target[0, 0], batch.amodal[0, i - 1] if i < 5 else torch.zeros(16, 16, dtype=torch.bool))
        cumulative = cumulative | target[0, 0]


class TestNoiseIntroduction:
    def test_the_omitted_layer_is_neither_the_first_nor_the_target(self):
        torch.manual_seed(0)
        layer = torch.arange(1, 6).repeat(2000)
        omitted = omitted_layers(layer, 1.0)
        assert set(omitted[layer < 3].tolist()) == {0}
        assert set(omitted[layer == 3].tolist()) == {2}
        for i in (4, 5):
            drawn = omitted[layer == i]
            assert set(drawn.tolist()) == set(range(2, i))
            for each in range(2, i):
                assert (drawn == each).float().mean().item() == pytest.approx(1 / (i - 2), abs=0.05)

    @pytest.mark.parametrize("share", [0.0, 0.2])
    def test_it_happens_at_the_given_ratio(self, share):
        torch.manual_seed(0)
        omitted = omitted_layers(torch.full((5000,), 4), share)
        assert (omitted > 0).float().mean().item() == pytest.approx(share, abs=0.02)

    def test_p_is_the_union_of_the_layers_that_are_left(self):
        """Pixels that the omitted layer shares with others stay, as they are theirs too; the target stays."""
        batch = stairs()
        row = torch.tensor([0]), torch.tensor([4])
        whole, target = cumulative_and_target(batch, *row, omitted=torch.tensor([0]))
        perturbed, same = cumulative_and_target(batch, *row, omitted=torch.tensor([2]))
        assert torch.equal(perturbed[0, 0], batch.amodal[0, 0] | batch.amodal[0, 2])
        assert torch.equal(target, same)
        assert (perturbed & batch.amodal[0, 1]).any()
        assert (whole & ~perturbed).any()

    @pytest.mark.parametrize("share", [-0.1, 1.1, 10.0])
    def test_a_ratio_out_of_range(self, share):
        with pytest.raises(ValueError, match=r"noise_introduction is a share and must be in 0..1"):
            HybridSettings(noise_introduction=share)


class Listening(PaperNetwork):
    """A network that keeps what it is given and what it answers."""

    def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.x_t, self.shown = x_t, cumulative_mask
        self.answer = super().denoise(x_t, t, cumulative_mask, image_features)
        return self.answer


@pytest.mark.parametrize("scaling,blank", [("ours", -1.0), ("authors", 0.0)])
@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_network_is_given_a_row_of_algorithm_1_and_its_answer_weighed_as_the_hybrid_loss_says(
    monkeypatch, scaling, blank, share
):
    """Rows of layers 2 and 3 of the chain: noise introduction leaves the first one's mask as it is, and takes layer 2 out of
    the second one's."""
    torch.manual_seed(0)
    batch, schedule, t, noise = stairs(), Schedule.linear(), torch.tensor([0, 700]), torch.randn(2, 1, 16, 16)
    network = Listening(PaperSettings(mask_size=16, channels=32, multipliers=(1,), scaling=scaling))
    torch.nn.init.normal_(network.unet.out[-1].weight, std=0.1)  # else it answers with zeros
    monkeypatch.setattr("training.hybrid.draw_rows", lambda *_: (torch.tensor([0, 0]), torch.tensor([2, 3])))
    monkeypatch.setattr(torch, "randint", lambda *_, **__: t)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    found = hybrid_loss(network, batch, schedule, HybridSettings(share))

    first, second, third = batch.amodal[0, :3]
    x0 = torch.where(torch.stack([second, third])[:, None], 1.0, blank)
    assert torch.equal(network.x_t, schedule.add_noise(x0, noise, t))
    assert torch.equal(network.shown[:, 0] > 0, torch.stack([first, first if share else first | second]))
    epsilon, variance = network.answer.detach().chunk(2, dim=1)
    bound = 1000 * variational_term(schedule, x0, network.x_t, t, epsilon, variance).mean()
    assert found["mse"].item() == pytest.approx(((noise - epsilon) ** 2).mean().item())
    assert found["variational"].item() == pytest.approx(bound.item())
    assert found["loss"].item() == pytest.approx((found["mse"] + 0.001 * bound).item())


def losses(network: PaperNetwork, seed: int = 0, share: float = 0.0) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return hybrid_loss(network, stairs(), Schedule.linear(), HybridSettings(share))


@pytest.mark.parametrize("scaling", ["ours", "authors"])
def test_losses_are_finite_and_reach_every_parameter(scaling):
    torch.manual_seed(0)
    network = PaperNetwork(PaperSettings(mask_size=16, channels=32, multipliers=(1,), scaling=scaling))
    found = losses(network, share=0.5)
    assert set(found) == {"loss", "mse", "variational"}
    assert all(torch.isfinite(value) for value in found.values())
    assert found["loss"].item() == pytest.approx((found["mse"] + 0.001 * found["variational"]).item())
    assert found["mse"].item() == pytest.approx(1, abs=0.2)  # it predicts no noise yet
    found["loss"].backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_the_bound_trains_the_variance_alone():
    """Its mean is detached: no gradient of it comes to the channel of epsilon."""
    torch.manual_seed(0)
    network = PaperNetwork(TINY)
    losses(network)["variational"].backward()
    epsilon, variance = network.unet.out[-1].weight.grad
    assert not epsilon.any()
    assert variance.any()


def test_a_step_lowers_the_loss_and_more_steps_overfit():
    torch.manual_seed(0)
    network = PaperNetwork(TINY)
    optimiser = torch.optim.AdamW(network.parameters(), lr=3e-3, weight_decay=0)
    values = []
    for _ in range(8):  # the same rows, timesteps and noise each time
        found = losses(network)
        values.append(found["loss"].item())
        optimiser.zero_grad()
        found["loss"].backward()
        optimiser.step()
    assert values[1] < values[0]
    assert values[-1] < 0.2 * values[0]


def test_only_layer_never_shows_a_cumulative_mask():
    torch.manual_seed(0)
    network = Listening(TINY)
    losses = hybrid_loss(network, stairs(), Schedule.linear(), HybridSettings(only_layer=3))
    assert (network.shown == -1).all()
    assert losses["loss"].isfinite()
