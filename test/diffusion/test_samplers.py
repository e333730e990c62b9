# SPDX-License-Identifier: Apache-2.0
"""Both samplers: an oracle's x0 comes out, the steps are those of the papers, a raise ends them. diffusers: test_parity.py."""

import pytest
import torch

from seqamodal_ros.diffusion.adapter import Denoised, conditioned
from seqamodal_ros.diffusion.posterior import posterior
from seqamodal_ros.diffusion.samplers import SAMPLERS, ancestral, ddim, generate
from seqamodal_ros.diffusion.schedule import Schedule

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
SCHEDULE = Schedule.linear()
both = pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)


def oracle(x0, variance=None):
    """A denoiser that knows x0, and records the timesteps and the x_t it was given."""
    seen = []

    def denoise(x_t, t):
        seen.append((t.clone(), x_t.clone()))
        signal, sigma = SCHEDULE.coefficients(t)
        return Denoised(x0, (x_t - signal * x0) / sigma, variance)

    return denoise, seen


class Draw:
    """Noise from a seed, counted."""

    def __init__(self, *shape, seed=1):
        self.shape, self.generator, self.drawn = shape, torch.Generator().manual_seed(seed), []

    def __call__(self):
        self.drawn.append(torch.randn(self.shape, generator=self.generator))
        return self.drawn[-1]


@pytest.fixture
def x0():
    return torch.where(torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)) > 0.5, 1.0, -1.0)


@pytest.fixture
def draw():
    return Draw(2, 1, 8, 8)


@both
@pytest.mark.parametrize("steps", [1, 2, 4, 50])
def test_an_oracles_x0_comes_out_exactly(sampler, x0, draw, steps):
    denoise, seen = oracle(x0)
    assert torch.equal(sampler(denoise, draw, SCHEDULE, steps), x0)
    assert [int(t[0]) for t, _ in seen] == SCHEDULE.trailing(steps)
    assert all(t.shape == (2,) for t, _ in seen)
    assert torch.equal(seen[0][1], draw.drawn[0])


def test_ddim_keeps_the_direction_of_epsilon(x0, draw):
    """With x0 known, eta = 0 keeps epsilon: each x_t is the forward process of x0 with the first epsilon."""
    denoise, seen = oracle(x0)
    ddim(denoise, draw, SCHEDULE, 4)
    (noise,) = draw.drawn  # DDIM draws nothing but x_T
    signal, sigma = SCHEDULE.coefficients(torch.tensor([999, 999]))
    epsilon = (noise - signal * x0) / sigma
    for t, x_t in seen[1:]:
        assert torch.allclose(x_t, SCHEDULE.add_noise(x0, epsilon, t), atol=1e-4)


def test_an_intermediate_step_of_ddim_against_the_formula(draw):
    """Two steps with a denoiser that says x0 = x_t / 4, worked out by hand."""

    def denoise(x_t, t):
        signal, sigma = SCHEDULE.coefficients(t)
        x0 = x_t / 4
        return Denoised(x0, (x_t - signal * x0) / sigma)

    found = ddim(denoise, draw, SCHEDULE, 2)
    (noise,) = draw.drawn
    a_999, a_499 = SCHEDULE.alpha_bar[999].item(), SCHEDULE.alpha_bar[499].item()
    epsilon = (noise - a_999**0.5 * noise / 4) / (1 - a_999) ** 0.5
    x_499 = a_499**0.5 * noise / 4 + (1 - a_499) ** 0.5 * epsilon
    assert torch.allclose(found, x_499 / 4, atol=1e-5)


@pytest.mark.parametrize("steps", [10, 200])
def test_ancestral_sampling_keeps_to_the_forward_process(steps):
    """With x0 known and the posterior's own variance, each x_t is distributed as the forward process has it (Eq. 8)."""
    x0 = torch.ones(1, 1, 64, 64)
    denoise, seen = oracle(x0)
    draw = Draw(1, 1, 64, 64)
    ancestral(denoise, draw, SCHEDULE, steps)
    assert len(draw.drawn) == steps  # x_T, and z of each step but the last
    for index in range(steps // 10, steps, steps // 10):
        t, x_t = seen[index]
        signal, sigma = SCHEDULE.coefficients(t)
        assert x_t.mean().item() == pytest.approx(signal.item(), abs=0.06)
        assert x_t.std().item() == pytest.approx(sigma.item(), abs=0.04)


@pytest.mark.parametrize(("channel", "exponent"), [(None, 0.0), (-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_ancestral_sampling_takes_the_learned_variance(x0, draw, channel, exponent):
    """The first step of 1000; the variance is beta_tilde at -1, beta at 1, their geometric mean between."""
    denoise, seen = oracle(x0, None if channel is None else torch.full_like(x0, channel))

    def stop():
        if len(seen) == 2:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ancestral(denoise, draw, SCHEDULE, 1000, stop)
    beta = 0.02
    tilde = beta * (1 - SCHEDULE.alpha_bar[998]) / (1 - SCHEDULE.alpha_bar[999])
    mean = posterior(SCHEDULE, torch.tensor([999]), torch.tensor([998])).mean(x0, draw.drawn[0])
    expected = mean + (tilde ** (1 - exponent) * beta**exponent).sqrt() * draw.drawn[1]
    assert torch.allclose(seen[1][1], expected, atol=1e-6)


@both
def test_before_call_runs_before_each_network_call(sampler, x0, draw):
    denoise, seen = oracle(x0)
    calls = []
    sampler(denoise, draw, SCHEDULE, 5, lambda: calls.append(len(seen)))
    assert calls == [0, 1, 2, 3, 4]


@both
def test_what_before_call_raises_ends_the_sampling(sampler, x0, draw):
    denoise, seen = oracle(x0)

    def stop():
        if len(seen) == 2:
            raise InterruptedError("enough")

    with pytest.raises(InterruptedError, match="enough"):
        sampler(denoise, draw, SCHEDULE, 5, stop)
    assert len(seen) == 2


@both
def test_no_step_is_an_error(sampler, x0, draw):
    with pytest.raises(ValueError, match="sampling steps"):
        sampler(oracle(x0)[0], draw, SCHEDULE, 0)


@both
def test_the_noise_alone_decides(sampler, x0):
    class Echo:
        prediction, blank = "epsilon", -1.0

        def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
            return torch.cat([torch.sin(x_t), torch.cos(x_t)], dim=1)

    denoise = conditioned(Echo(), SCHEDULE, x0, ())
    first, second, other = (sampler(denoise, Draw(2, 1, 8, 8, seed=seed), SCHEDULE, 5) for seed in (3, 3, 4))
    assert torch.equal(first, second)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("blank", [-1.0, 0.0])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_proposals_are_in_one_scale_whatever_the_networks(sampler, blank, x0, draw):
    """Eq. 11 with a network that knows the answer, in its own scale."""

    class Knowing:
        prediction, conditions, hypotheses = "x0", 1, 1

        def __init__(self):
            self.blank, self.asked = blank, []

        def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
            self.asked.append((cumulative_mask, image_features))
            return torch.where(x0 > 0, 1.0, blank)

    network, features = Knowing(), (torch.zeros(2, 3),)
    assert torch.equal(generate(network, SCHEDULE, -x0, features, draw, sampler, 3), x0)
    assert len(network.asked) == 3
    assert all(mask.equal(-x0) and len(given) == 1 and given[0].equal(features[0]) for mask, given in network.asked)


class Watched:
    """Predicts a mask of its own for each cumulative mask, and remembers what it was asked."""

    prediction, blank, conditions, hypotheses = "x0", -1.0, 1, 1

    def __init__(self):
        self.asked = []
        self.numbers = []

    def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self.asked.append((x_t, t, cumulative_mask, image_features))
        self.numbers.append(hypothesis.tolist())
        return torch.tanh(cumulative_mask + (image_features[0] + hypothesis)[:, None, None, None] + x_t)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_hypotheses_of_an_image_share_the_first_of_several_steps(sampler):
    """Two images, three hypotheses each: the first call is of two rows, and each goes its own way from the second on."""
    network, draw = Watched(), Draw(6, 1, 8, 8)
    cumulative, features = torch.zeros(6, 1, 8, 8), (torch.tensor([0.0, 0, 0, 1, 1, 1]),)
    cumulative[3:] = 0.5
    x0 = generate(network, SCHEDULE, cumulative, features, draw, sampler, 3, samples=3)
    assert [len(each[0]) for each in network.asked] == [2, 6, 6]
    first = network.asked[0]
    assert first[1].tolist() == [SCHEDULE.steps - 1] * 2
    assert torch.equal(first[2], cumulative[[0, 3]]) and torch.equal(first[3][0], features[0][[0, 3]])
    second = network.asked[1][0]
    for one, other in ((0, 1), (1, 2), (3, 4), (4, 5)):
        assert not torch.equal(second[one], second[other])
        assert not torch.equal(x0[one], x0[other])


@pytest.mark.parametrize(
    ("told_apart", "first", "numbers"), [(2, [0, 1, 0, 1], [0, 1, 0, 0, 1, 0]), (5, [0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2])]
)
def test_each_hypothesis_that_is_told_apart_has_a_first_step(told_apart, first, numbers):
    """Two images, three hypotheses each."""
    network = Watched()
    network.hypotheses = told_apart
    draw, cumulative = Draw(6, 1, 8, 8), torch.zeros(6, 1, 8, 8)
    x_t = Draw(6, 1, 8, 8)()
    generate(network, SCHEDULE, cumulative, (torch.tensor([0.0, 0, 0, 1, 1, 1]),), draw, "ddim", 2, samples=3)
    assert network.numbers == [first, numbers]
    (signal, sigma), (signal_s, sigma_s) = (SCHEDULE.coefficients(torch.tensor([t])) for t in SCHEDULE.trailing(2))
    own = [0, 1, 0, 3, 4, 3] if told_apart == 2 else [*range(6)]  # whose first answer each goes on from
    bias = torch.tensor([0.0, 0, 0, 1, 1, 1]) + torch.tensor(numbers)
    x0 = torch.tanh(bias[:, None, None, None] + x_t[own])
    torch.testing.assert_close(network.asked[1][0], signal_s * x0 + sigma_s * (x_t - signal * x0) / sigma)


def test_the_second_step_of_ddim_is_of_the_shared_mask_and_the_hypothesis_own_noise():
    """Eq. 12 of DDIM (eta = 0), by hand: x_s = signal_s x0 + sigma_s (x_T - signal_T x0) / sigma_T."""
    network, draw = Watched(), Draw(3, 1, 8, 8)
    x_t = Draw(3, 1, 8, 8)()
    generate(network, SCHEDULE, torch.zeros(3, 1, 8, 8), (torch.zeros(3),), draw, "ddim", 2, samples=3)
    last, following = SCHEDULE.trailing(2)
    (signal, sigma), (signal_s, sigma_s) = (SCHEDULE.coefficients(torch.tensor([t])) for t in (last, following))
    x0 = torch.tanh(x_t[:1])
    torch.testing.assert_close(network.asked[1][0], signal_s * x0 + sigma_s * (x_t - signal * x0) / sigma)


@pytest.mark.parametrize(("steps", "samples"), [(1, 3), (3, 1)])
def test_a_single_step_or_hypothesis_shares_nothing(steps, samples):
    network = Watched()
    generate(network, SCHEDULE, torch.zeros(3, 1, 8, 8), (torch.zeros(3),), Draw(3, 1, 8, 8), "ddim", steps, samples=samples)
    assert [len(each[0]) for each in network.asked] == [3] * steps


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_networks_that_predict_noise_keep_every_step_of_every_hypothesis(sampler):
    """The paper's: there the first step is what the noise is."""
    network = Watched()
    network.prediction = "epsilon"
    generate(network, SCHEDULE, torch.zeros(3, 1, 8, 8), (torch.zeros(3),), Draw(3, 1, 8, 8), sampler, 3, samples=3)
    assert [len(each[0]) for each in network.asked] == [3, 3, 3]


@pytest.mark.parametrize(("device", "again"), [("cpu", 6), pytest.param("cuda", 9, marks=NEEDS_CUDA)])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_where_the_first_step_sees_nothing_in_an_image_that_is_its_answer(sampler, device, again):
    """Of three images the second is blank; the others are drawn as they are without it."""

    def drawn(images):
        network, noise = Watched(), Draw(9, 1, 8, 8)
        rows = torch.cat([torch.arange(3 * image, 3 * image + 3) for image in images])
        biases = torch.tensor([0.0, 0, 0, -9, -9, -9, 1, 1, 1])[rows].to(device)
        masks = torch.zeros(len(rows), 1, 8, 8, device=device)
        x0 = generate(network, SCHEDULE, masks, (biases,), lambda: noise()[rows].to(device), sampler, 3, samples=3)
        return x0, [len(each[0]) for each in network.asked]

    every, asked = drawn([0, 1, 2])
    assert asked == [3, again, again]
    assert torch.equal(every[[0, 1, 2, 6, 7, 8]], drawn([0, 2])[0])
    assert (every[3:6] < -0.9).all()
    blank, asked = drawn([1])
    assert asked == ([1] if device == "cpu" else [1, 3, 3])
    assert torch.equal(blank, every[3:6])


@pytest.mark.parametrize(("device", "again"), [("cpu", [1, 2, 1]), pytest.param("cuda", [0, 1, 2, 0, 1], marks=NEEDS_CUDA)])
def test_of_numbers_of_which_the_first_step_sees_nothing_it_is_the_answer(device, again):
    """Five hypotheses, of three numbers; number 0 is blank."""

    class FirstBlank(Watched):
        def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
            answer = super().denoise(x_t, t, cumulative_mask, image_features, hypothesis)
            return torch.where(hypothesis[:, None, None, None] == 0, -1.0, answer)

    network, noise = FirstBlank(), Draw(5, 1, 8, 8)
    network.hypotheses = 3
    masks, bias = torch.zeros(5, 1, 8, 8, device=device), torch.zeros(5, device=device)
    x0 = generate(network, SCHEDULE, masks, (bias,), lambda: noise().to(device), "ddim", 2, samples=5)
    assert network.numbers == [[0, 1, 2], again]
    assert (x0[[0, 3]] == -1).all()
    assert all((x0[row] > -1).any() for row in (1, 2, 4))


@pytest.mark.parametrize("blank", [-1.0, 0.0])
def test_one_pixel_of_some_probability_is_enough_to_look_again(blank):
    class Faint(Watched):
        def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
            answer = torch.full_like(super().denoise(x_t, t, cumulative_mask, image_features, hypothesis), self.blank)
            answer[..., 0, 0] += self.probability * (1 - self.blank)
            return answer

    network = Faint()
    network.blank = blank
    for network.probability, calls in ((0.04, 1), (0.06, 2)):
        network.asked.clear()
        generate(network, SCHEDULE, torch.zeros(2, 1, 8, 8), (torch.zeros(2),), Draw(2, 1, 8, 8), "ddim", 2, samples=2)
        assert len(network.asked) == calls
