# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest
import torch

from seqamodal_ros.diffusion.proposals import drawer, proposer
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.shared_start import SharedStart

SHAPE, SAMPLES = (6, 8), 3


class Watched:
    """Answers with the image's number everywhere, and remembers what it was asked."""

    prediction, blank, conditions, hypotheses = "x0", -1.0, 1, 1

    def __init__(self):
        self.asked = []

    def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.asked.append((x_t, cumulative_mask, image_features[0]))
        return image_features[0][:, None, None, None].expand_as(x_t).clone()


def case(calls):
    network, features = Watched(), (torch.tensor([0.1, 0.2, 0.3]), torch.zeros(3))
    draws = [drawer((SAMPLES, 1, *SHAPE), seed) for seed in range(3)]
    propose = proposer(
        network, Schedule.linear(), features, draws, SAMPLES, "ddim", 1, before_call=lambda: calls.append(len(network.asked))
    )
    return network, propose


def test_each_image_that_goes_on_gets_k_proposals_of_its_own_features_mask_and_noise():
    calls = []
    network, propose = case(calls)
    in_front = [np.zeros(SHAPE, bool), np.ones(SHAPE, bool)]
    in_front[0][2] = True
    found = propose([2, 0], in_front)
    assert calls == [0]
    ((x_t, cumulative, features),) = network.asked
    assert features.tolist() == pytest.approx([0.3] * 3 + [0.1] * 3)
    for rows, mask, seed in ((slice(0, 3), in_front[0], 2), (slice(3, 6), in_front[1], 0)):
        expected = torch.from_numpy(np.where(mask, 1.0, -1.0)).float().expand(3, 1, *SHAPE)
        assert torch.equal(cumulative[rows], expected)
        assert torch.equal(x_t[rows], drawer((SAMPLES, 1, *SHAPE), seed)())
    assert [each.shape for each in found] == [(SAMPLES, *SHAPE)] * 2
    assert np.allclose(found[0], 0.3) and np.allclose(found[1], 0.1)


def test_noise_is_new_at_each_call_and_features_follow_the_images_that_are_left():
    network, propose = case([])
    masks = [np.zeros(SHAPE, bool)] * 2
    propose([0, 1], masks)
    propose([0, 1], masks)
    (found,) = propose([1], masks[:1])
    noise = [asked[0] for asked in network.asked]
    assert not torch.equal(noise[0], noise[1])
    assert not torch.equal(noise[1][SAMPLES:], noise[2])
    assert np.allclose(found, 0.2)


class OnGpu(torch.Tensor):
    """A tensor that says so, as do those that are made of it."""

    device = torch.device("cuda")


@pytest.mark.parametrize(("kind", "asked"), [(torch.Tensor, 2), (OnGpu, 4)], ids=["cpu", "gpu"])
def test_where_the_first_step_saw_nothing_that_is_the_answer(kind, asked):
    """Though a second would see something; on a GPU it is asked all the same, as to leave rows out it would be waited for."""

    class Later(Watched):
        def denoise(self, *given):
            return (super().denoise(*given) + len(self.asked) - 1).as_subclass(kind)

    network = Later()
    shared, rows = SharedStart(network, samples=2), torch.zeros(4, 1, *SHAPE)
    features = (torch.tensor([-1.0, -1.0, 0.2, 0.2]),)
    shared.denoise(rows, torch.full((4,), 999), rows, features)
    second = shared.denoise(rows, torch.full((4,), 499), rows, features)
    assert second[:, 0, 0, 0].tolist() == pytest.approx([-1, -1, 1.2, 1.2])
    assert [len(x_t) for x_t, *_ in network.asked] == [2, asked]
