# SPDX-License-Identifier: Apache-2.0
"""Ways to centres: their truth, their loss, and that they are learned."""

from dataclasses import replace

import pytest
import torch

from seqamodal_ros.diffusion.fast import REACH, FastNetwork, FastSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from training.begin import begin
from training.centres import a_layer_of_each, centre_loss, own_rows, owner, ways
from training.data.batches import Batch
from training.objective import ObjectiveSettings
from training.settings import TrainSettings

from .conftest import SMALL, pair


def test_each_pixel_points_to_the_centre_of_the_nearest_object_that_holds_it():
    found = ways(pair().amodal, pair().amodal)
    assert found[0, :, 3, 1].tolist() == [1.5, 1.5]
    assert found[0, :, 7, 4].tolist() == [-1.5, -2.5]  # of the first box, not of the one below
    assert found[0, :, 7, 5].tolist() == [2.5, -2.5]
    assert found[0, :, 13, 3].tolist() == [2.5, -3.5]
    assert not found[0, :, 15, 15].any()


def test_layers_are_drawn_evenly_and_strays_come_from_behind():
    torch.manual_seed(0)
    batch = pair()
    many = Batch(*(value.expand(2000, *value.shape[1:]) for value in vars(batch).values()))
    drawn, chosen = a_layer_of_each(many)
    second = drawn[:, 0]
    assert 0.45 < second.float().mean() < 0.55 and (drawn[:, 1] == second).all() and not drawn[:, 2:].any()
    assert (chosen[:, :2] == ~second[:, None]).all() and chosen[second][:, 2].all() and not chosen[:, 3].any()
    assert 0.1 < chosen[~second][:, 2].float().mean() < 0.2


def test_a_pixel_of_a_layer_that_the_network_drew_is_of_an_object_that_it_has_not_drawn_before():
    batch = pair()
    own = torch.zeros(1, 3, 16, 16, dtype=torch.bool)
    own[0, 0, 2:8, 1:9] = True  # the first box, and most of what is seen of the second
    own[0, 1, 5:14, 3:11] = True  # the one below, and the rest of the second; the third is blank
    seen = {}
    for _ in range(40):
        layer, cumulative, objects = own_rows(batch, own)
        number = 1 if cumulative.any() else 0
        seen[number] = owner(objects)[0], objects.any(dim=1)[0]
        assert torch.equal(layer[0, 0], own[0, number]) and torch.equal(cumulative[0, 0], own[0, :number].any(dim=0))
    owners, held = seen[0]
    assert owners[3, 1] == 0 and owners[3, 8] == 1 and owners[13, 3] == 2 and not held[15, 15]
    owners, held = seen[1]
    assert owners[7, 4] == owners[6, 6] == 2  # of what lies below, where it is hidden
    assert owners[5, 10] == 1 and held[5, 10] and set(seen) == {0, 1}


def test_what_the_network_draws_is_learned_from_too():
    batch, own = pair(), torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    own[0, 0, 0, 0] = own[0, 0, 13, 3] = True  # of no object, and of the one below
    true = ways(batch.amodal, batch.amodal)
    torch.manual_seed(0)
    losses = set()
    for _ in range(30):
        off = centre_loss(lambda layer, cumulative, features: true + REACH * ((layer > 0).sum() == 2), (), batch, own)
        losses.add(round(off.item(), 4))
    assert max(losses) == pytest.approx(2 * (1 - 0.05))  # of the row that is drawn, the pixel that an object holds alone
    assert len(losses) > 1


def test_small_things_count_by_the_root_of_their_area():
    """Else by their area, and what small ones learn is lost among large ones."""
    amodal = torch.zeros(1, 2, 16, 16, dtype=torch.bool)
    amodal[0, 0, :1, :1] = amodal[0, 1, :4, 4:8] = True  # of areas 1 and 16
    batch = Batch(
        torch.zeros(1, 3, 64, 64, dtype=torch.uint8), amodal, torch.zeros(1, 2, 2, dtype=torch.bool), torch.ones(1, 2).long()
    )
    true = ways(amodal, amodal)
    loss = [
        centre_loss(lambda layer, cumulative, features, off=off: true + REACH * off, (), batch).item()
        for off in (amodal[:, :1], amodal[:, 1:])
    ]
    assert loss[1] / loss[0] == pytest.approx(4)


def test_the_loss_is_zero_for_the_truth_and_counts_pixels_of_the_layer_alone():
    batch = pair()
    batch = replace(batch, amodal=batch.amodal[:, :2], occluded_by=batch.occluded_by[:, :2, :2], layers=batch.layers[:, :2])
    true = ways(batch.amodal, batch.amodal)
    outside = ~batch.amodal.any(dim=1, keepdim=True)
    assert centre_loss(lambda layer, cumulative, features: true + 100 * outside, (), batch) == 0
    off = centre_loss(lambda layer, cumulative, features: true + REACH, (), batch)
    assert off.item() == pytest.approx(2 * (1 - 0.05))  # smooth L1, beta 0.1, of a whole REACH in x and in y
    blank = Batch(batch.image, batch.amodal[:, :0], batch.occluded_by[:, :0, :0], torch.zeros(1, 1, dtype=torch.int64))
    blank = replace(blank, amodal=torch.zeros(1, 1, 16, 16, dtype=torch.bool))
    assert centre_loss(lambda layer, cumulative, features: torch.ones(1, 2, 16, 16), (), blank) == 0


def test_a_network_without_centres_cannot_learn_them():
    with pytest.raises(ValueError, match="no part that learns centres"):
        TrainSettings(objective=ObjectiveSettings(centres=1.0))
    with pytest.raises(ValueError, match="three numbers"):
        FastSettings(centre_channels=(8, 8))


def test_centres_that_no_loss_reaches_stay_as_they_are():
    settings = TrainSettings(network=replace(FastSettings(), centre_channels=(8, 8, 16)), objective=ObjectiveSettings())
    settings = replace(settings, backbone=replace(settings.backbone, imagenet=False, frozen_stages=0))
    assert not any(parameter.requires_grad for parameter in begin(settings).centres.parameters())


def test_another_number_of_layers_is_begun_with_all_else(tmp_path):
    path, three = tmp_path / "weights.safetensors", replace(SMALL, layers=3)
    save_model(path, FastNetwork(three).state_dict(), ModelSettings(three))
    composites = replace(TrainSettings().composites, image_size=64, mask_size=16)

    def begun(layers: int) -> FastNetwork:
        objective = ObjectiveSettings(all_layers=1.0 if layers else 0.0, centres=1.0)
        sizes, deepest = replace(SMALL, layers=layers), replace(composites, max_layers=layers or 5)
        return begin(TrainSettings(network=sizes, composites=deepest, objective=objective), load_model(str(path)))

    held, four = load_model(str(path)).network.state_dict(), begun(4).state_dict()
    other = {name for name, value in held.items() if not torch.equal(four[name], value)}
    assert other == {"all_layers.out.3.weight", "all_layers.out.3.bias"} | {
        f"{part}.layers_{scale}.weight" for part in ("denoiser", "centres") for scale in (1, 2)
    }
    with pytest.raises(ValueError, match="--init holds"):
        begun(0)  # the file's would be lost


def test_it_learns_two_boxes():
    torch.manual_seed(0)
    network, batch = FastNetwork(SMALL), pair()
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    first = None
    for _ in range(60):
        value = centre_loss(network.to_centres, network.encode(batch.image.float() / 127.5 - 1)[network.conditions :], batch)
        first = value.item() if first is None else first
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
    assert value.item() < 0.4 * first
