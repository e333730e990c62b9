# SPDX-License-Identifier: Apache-2.0
"""Within a layer nothing waits for the GPU: no value comes back to the host, and what is sent to it is not waited for.

There need be no GPU: PyTorch's "meta" device has tensors without values, so what would need one fails, and copies are told.
"""

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.proposals import drawer, proposer
from seqamodal_ros.diffusion.schedule import Schedule

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts what is copied from one device to another, and of it what is waited for."""

    count = waited_for = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        given = dict(zip((each.name for each in func._schema.arguments), args, strict=False)) | (kwargs or {})
        devices = {each.device for each in [answer, *given.values()] if isinstance(each, torch.Tensor)}
        if len(devices) > 1 and ("copy" in func.name() or func.name().startswith("aten::to")):
            self.count += 1
            self.waited_for += not given.get("non_blocking")
        return answer


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
@pytest.mark.parametrize("kind", ["fast", "paper"])
def test_a_layer_waits_for_nothing(kind, sampler, monkeypatch):
    if kind == "fast":
        network = FastNetwork(FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16)))
    else:
        network = PaperNetwork(PaperSettings(16, 32, (1,)))
    network = network.to(META).eval()
    schedule, side = Schedule.linear(), 64 if kind == "fast" else 16
    with torch.inference_mode():
        features = network.encode(torch.empty(2, 3, side, side, device=META))
    draws = [drawer((3, 1, 16, 16), seed) for seed in (0, 1)]
    propose = proposer(network, schedule, features, draws, 3, sampler, 4)
    masks = [np.zeros((16, 16), bool)] * 2
    monkeypatch.setattr(torch.Tensor, "cpu", lambda self: torch.zeros(self.shape))  # the layer, once it is drawn
    propose([0, 1], masks)  # the schedule and the images' numbers come to the device with the first
    with Copies() as copies, monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", None)  # of a number it is a copy, too, but not on this device
        assert len(propose([0, 1], masks)) == 2
    # the cumulative masks, x_T, and z of each further step of the ancestral sampler
    assert (copies.count, copies.waited_for) == (2 if sampler == "ddim" else 5, 0)


def test_copies_are_seen():
    """Or the test above would see nothing: PyTorch calls the same copy by other names in inference mode."""
    for mode in (torch.inference_mode(), torch.no_grad(), torch.enable_grad()):
        with mode, Copies() as copies:
            torch.ones(2).to(META)
            torch.empty(2, device=META).copy_(torch.ones(2))
            torch.ones(2).to(META, non_blocking=True)
        assert (copies.count, copies.waited_for) == (3, 2)
