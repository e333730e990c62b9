# SPDX-License-Identifier: Apache-2.0
"""Batches that are too much for the GPU's memory. There need be no GPU: the network says itself that it has no more memory."""

import logging

import pytest
import torch

from seqamodal_ros.diffusion.in_parts import InParts


class Small:
    """A network with memory for so many at once."""

    prediction, blank, conditions, hypotheses = "x0", -1.0, 1, 4

    def __init__(self, room, error=None):
        self.room, self.encoded, self.denoised, self.centred = room, [], [], []
        self.error = error or torch.OutOfMemoryError("no more memory")

    def _check(self, calls, batch):
        calls.append(len(batch))
        if len(batch) > self.room:
            raise self.error

    def encode(self, image):
        self._check(self.encoded, image)
        return image * 2, image.mean(dim=(1, 2, 3))

    def denoise(self, x_t, t, cumulative_mask, image_features, hypothesis=None):
        self._check(self.denoised, x_t)
        number = 0 if hypothesis is None else hypothesis[:, None, None, None]
        return x_t + t[:, None, None, None] * cumulative_mask + image_features[0] + number

    def to_centres(self, layer, cumulative_mask, image_features):
        self._check(self.centred, layer)
        return torch.cat([layer + cumulative_mask, image_features[0]], dim=1)


def inputs(count):
    x_t, mask, image = (torch.randn(count, 1, 4, 4) for _ in range(3))
    return x_t, torch.arange(count), mask, image


@pytest.mark.parametrize("room", [1, 2, 3, 8])
def test_parts_give_what_the_whole_gives(room, caplog):
    x_t, t, mask, image = inputs(7)
    network, whole = Small(room), Small(99)
    wrapped = InParts(network)
    features = wrapped.encode(image)
    for got, expected in zip(features, whole.encode(image), strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
    with caplog.at_level(logging.WARNING):
        answer = wrapped.denoise(x_t, t, mask, features)
    torch.testing.assert_close(answer, whole.denoise(x_t, t, mask, features), rtol=0, atol=0)
    number = torch.arange(7) % 4
    torch.testing.assert_close(
        wrapped.denoise(x_t, t, mask, features, number), whole.denoise(x_t, t, mask, features, number), rtol=0, atol=0
    )
    ways = wrapped.to_centres(x_t, mask, features)
    torch.testing.assert_close(ways, whole.to_centres(x_t, mask, features), rtol=0, atol=0)
    assert bool(caplog.records) == (room < 7)


def test_what_was_too_much_once_is_not_tried_again(monkeypatch, caplog):
    """Of each kind of call by itself. What PyTorch holds of the memory is let go before a smaller part is tried."""
    emptied = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(len(network.encoded)))
    x_t, t, mask, image = inputs(8)
    network = Small(2)
    wrapped = InParts(network)
    with caplog.at_level(logging.WARNING):
        features = wrapped.encode(image)
    assert emptied == [1, 2]
    said = "out of GPU memory for a batch of {}: continuing with batches of {}"
    assert caplog.messages == [said.format(8, 4), said.format(4, 2)]
    wrapped.encode(image)
    for _ in range(2):
        wrapped.denoise(x_t, t, mask, features)
    for _ in range(2):
        wrapped.to_centres(x_t, mask, features)
    assert network.encoded == network.denoised == network.centred == [8, 4, 2, 2, 2, 2] + [2, 2, 2, 2]


def test_where_one_is_too_much_the_caller_is_told():
    with pytest.raises(torch.OutOfMemoryError):
        InParts(Small(0)).encode(inputs(3)[3])


@pytest.mark.parametrize("room", [0, 2])
@pytest.mark.parametrize(
    "words",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
        "CUDA error: out of memory",
    ],
)
def test_a_library_below_pytorch_may_say_it_in_its_own_words(room, words):
    image = inputs(3)[3]
    wrapped = InParts(Small(room, RuntimeError(words)))
    if room:
        assert torch.equal(wrapped.encode(image)[0], 2 * image)
    else:
        with pytest.raises(torch.OutOfMemoryError, match=f"no memory for a batch of one.*{words}"):
            wrapped.encode(image)


def test_another_error_is_the_callers():
    network = Small(1, RuntimeError("CUDA error: device-side assert triggered"))
    with pytest.raises(RuntimeError, match="device-side assert"):
        InParts(network).encode(inputs(3)[3])
    assert network.encoded == [3]


def test_it_says_what_the_network_says_of_itself():
    network = Small(1)
    network.prediction, network.blank, network.conditions, network.hypotheses = "epsilon", 0.0, 2, 3
    wrapped = InParts(network)
    assert (wrapped.prediction, wrapped.blank, wrapped.conditions, wrapped.hypotheses) == ("epsilon", 0.0, 2, 3)
