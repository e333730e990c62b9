# SPDX-License-Identifier: Apache-2.0
"""Recorded calls. All but the last two tests need no GPU: elsewhere a recording is the call itself, made again in place."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch

from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.in_parts import InParts
from seqamodal_ros.diffusion.mirrored import Mirrored
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.runtimes import choice, cuda_graphs
from seqamodal_ros.runtimes.bfloat16 import Bfloat16
from seqamodal_ros.runtimes.cuda_graphs import CudaGraphs, Recorded

SMALL = FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16), layers=2, centre_channels=(8, 8, 8), hypotheses=3)


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(3)
    made = FastNetwork(SMALL).eval()
    for weight in made.parameters():  # those that begin at zero, too, must tell
        weight.data += 0.05 * torch.randn_like(weight)
    return made


def inputs(count, seed=0, device="cpu"):
    generator = torch.Generator().manual_seed(100 * seed + count)
    image = torch.rand(count, 3, 64, 64, generator=generator) * 2 - 1
    x_t, mask = (torch.randn(count, 1, 16, 16, generator=generator) for _ in range(2))
    return tuple(each.to(device) for each in (image, x_t, (torch.arange(count) * 100 + 99 + seed) % 1000, mask.sign()))


class Again:
    """Records by remembering the call; counts what it recorded."""

    def __init__(self):
        self.count = 0

    def __call__(self, call, given):
        self.count += 1
        kept = tuple(each.clone() for each in given)
        answers = tuple(each.clone() for each in call(*kept))

        def replay():
            for answer, new in zip(answers, call(*kept), strict=True):
                answer.copy_(new)

        return Recorded(kept, answers, replay)


def of_all_calls(network, count, seed=0, device="cpu"):
    image, x_t, t, mask = inputs(count, seed, device)
    features = network.encode(image)
    number = (torch.arange(count, device=device) + seed) % 3
    prediction = network.denoise(x_t, t, mask, features, number)
    return (
        *features,
        prediction,
        network.denoise(x_t, t, mask, features),
        network.to_centres(-mask, mask, features[network.conditions :]),
    )


@torch.inference_mode()
@pytest.mark.parametrize("wrapped", [lambda network: network, Mirrored], ids=["the image", "and its mirror image"])
def test_recorded_calls_answer_as_the_network(network, wrapped):
    record = Again()
    graphs, plain = CudaGraphs(wrapped(network), record), wrapped(network)
    rows = list(enumerate((1, 3, 1, 3, 2)))
    answers = [of_all_calls(graphs, count, seed) for seed, count in rows]  # all before one is looked at: none may be written over
    for (seed, count), answer in zip(rows, answers, strict=True):
        for ours, theirs in zip(answer, of_all_calls(plain, count, seed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert record.count == 3 * 3  # kinds of calls, batch sizes


def without_graphs(graphs, network):
    """Whether all calls are made, and answered as by the network."""
    for seed in range(2):
        for ours, theirs in zip(of_all_calls(graphs, 2, seed), of_all_calls(network, 2, seed), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


@torch.inference_mode()
@pytest.mark.parametrize("error", [RuntimeError("not permitted when capturing"), RuntimeError()], ids=str)
def test_a_call_that_cannot_be_recorded_is_told_once_and_made_without(network, caplog, error):
    tried = []

    def record(call, given):
        tried.append(len(given[0]))
        if len(tried) == 2:  # one is recorded, and must go, too
            raise error
        return Again()(call, given)

    graphs = CudaGraphs(network, record)
    with caplog.at_level(logging.WARNING):
        without_graphs(graphs, network)
    assert tried == [2, 2] and not graphs._recorded
    assert [each.message for each in caplog.records] == [
        f"cannot capture denoise as a CUDA graph for a batch of 2 ({str(error) or repr(error)}): continuing without CUDA graphs"
    ]


def offset(recorded):
    return recorded._replace(replay=lambda: None, answers=tuple(answer + 1 for answer in recorded.answers))


def deaf(recorded):
    """It answers what it was recorded with, whatever it is given."""
    return recorded._replace(replay=lambda: None)


def somewhat_larger(recorded):
    def replay():
        recorded.replay()
        for answer in recorded.answers:
            answer *= 1.05

    return recorded._replace(replay=replay)


@torch.inference_mode()
@pytest.mark.parametrize("wrong", [offset, deaf, somewhat_larger])
def test_a_graph_that_answers_otherwise_is_not_used(network, caplog, wrong):
    with caplog.at_level(logging.WARNING):
        without_graphs(CudaGraphs(network, lambda call, given: wrong(Again()(call, given))), network)
    (told,) = caplog.records
    assert "it answers otherwise than the network" in told.message


@torch.inference_mode()
def test_a_graph_that_is_deaf_is_found_out_by_blank_inputs_too(network, caplog):
    """As a perceiver that warms up gives them."""
    graphs = CudaGraphs(network, lambda call, given: deaf(Again()(call, given)))
    with caplog.at_level(logging.WARNING):
        graphs.encode(torch.zeros_like(inputs(1)[0]))
    assert "it answers otherwise than the network" in caplog.text


@torch.inference_mode()
def test_a_batch_that_there_is_no_memory_for_is_made_in_parts(network):
    class Narrow(Mirrored):
        def denoise(self, x_t, *given):
            if len(x_t) > 2:
                raise torch.OutOfMemoryError("no more memory")
            return super().denoise(x_t, *given)

    image, x_t, t, mask = inputs(5)
    record = Again()
    parts = InParts(CudaGraphs(Narrow(network), record))
    features = parts.encode(image)
    expected = Mirrored(network).denoise(x_t, t, mask, features)
    torch.testing.assert_close(parts.denoise(x_t, t, mask, features), expected)
    assert {each for _, (each, *_) in parts.network._recorded} >= {x_t[:2].shape, x_t[:1].shape}


@torch.inference_mode()
def test_no_more_graphs_are_kept_than_there_is_reason_to(network, monkeypatch):
    monkeypatch.setattr(cuda_graphs, "MOST", 2)
    record = Again()
    graphs = CudaGraphs(network, record)
    for seed, count in enumerate((1, 2, 3, 1, 2)):
        image = inputs(count, seed)[0]
        torch.testing.assert_close(graphs.encode(image)[0], network.encode(image)[0], rtol=0, atol=0)
    assert record.count == 2


def test_what_is_taken_on_a_gpu(small_model, monkeypatch, caplog):
    """Told so, PyTorch on a CPU stands for one: which wrappers there are, and in which order."""
    monkeypatch.setattr(choice, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(torch.nn.Module, "to", lambda self, *_, **__: self)
    monkeypatch.setattr(choice, "CudaGraphs", lambda network: CudaGraphs(network, Again()))
    model = load_model(str(small_model))
    mirrored = replace(model, settings=replace(model.settings, mirror=True))
    for each, inner in ((model, Bfloat16), (mirrored, Mirrored)):
        network, name, precision = choice.network_on(each, "cuda", "auto")
        assert (name, precision, type(network), type(network.network)) == ("torch-bf16", "bfloat16", InParts, CudaGraphs)
        assert type(network.network.network) is inner
    assert not caplog.records
    for runtime in ("torch", "openvino"):
        network, name, precision = choice.network_on(model, "cuda", runtime)
        assert (name, precision, network.network) == ("torch", "float32", model.network)
    (told,) = caplog.messages
    assert told == "runtime 'openvino' is unavailable (exports run on the CPU, not on cuda): falling back to 'torch'"


@torch.inference_mode()
@pytest.mark.parametrize("kind", ["fast", "paper"])
def test_weights_kept_in_bfloat16_answer_as_those_rounded_in_each_call(network, kind):
    torch.manual_seed(3)
    whole = network if kind == "fast" else PaperNetwork(PaperSettings(16, 32, (1,))).eval()
    image, x_t, t, mask = inputs(2)
    image = image if kind == "fast" else image[..., :16, :16]
    kept = Bfloat16(whole, "cpu")
    features = kept.encode(image)
    with torch.autocast("cpu", torch.bfloat16):
        expected = whole.encode(image)
        prediction = whole.denoise(x_t, t, mask, expected).float()
    for ours, theirs in zip((*features, kept.denoise(x_t, t, mask, features)), (*expected, prediction), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    if kind == "fast":
        others = tuple(each.float() for each in features[whole.conditions :])
        ways = kept.to_centres(-mask, mask, features[whole.conditions :])
        torch.testing.assert_close(ways, whole.to_centres(-mask, mask, others), rtol=0, atol=0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@torch.inference_mode()
def test_on_a_gpu_nothing_is_allocated_anew_and_the_answers_are_the_networks(network, caplog):
    on_gpu = Bfloat16(network.to("cuda"), "cuda")
    with caplog.at_level(logging.WARNING):
        graphs = CudaGraphs(Mirrored(on_gpu))
        for seed, count in enumerate((1, 3, 1, 3)):
            answers = of_all_calls(graphs, count, seed, "cuda")
            held = torch.cuda.memory_reserved()
            for ours, theirs in zip(answers, of_all_calls(Mirrored(on_gpu), count, seed, "cuda"), strict=True):
                torch.testing.assert_close(ours.float(), theirs.float(), rtol=1e-2, atol=1e-2)
        of_all_calls(graphs, 3, 9, "cuda")
        assert torch.cuda.memory_reserved() == held
    assert not caplog.records
    network.to("cpu")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("runtime", ["torch", "torch-bf16"])
def test_on_a_gpu_what_it_sees_is_the_same_after_a_rest(small_model, runtime):
    perceiver = Perceiver.load(str(small_model), "cuda", runtime=runtime)
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    before = perceiver(image)
    assert len(before.amodal)
    for _ in range(2):
        perceiver.rest()
        after = perceiver(image)
        assert np.array_equal(after.amodal, before.amodal)
        np.testing.assert_allclose(after.probability, before.probability, atol=1e-3)
