# SPDX-License-Identifier: Apache-2.0
"""Within a layer nothing waits for the GPU: no value comes back to the host, and nothing is copied between devices.

There need be no GPU: PyTorch's "meta" device has tensors without values, so what would need one fails, and copies are told.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.samplers import generate
from seqamodal_ros.diffusion.schedule import Schedule

META = torch.device("meta")


class Copies(TorchDispatchMode):
    """Counts what is copied from one device to another."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        answer = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default):
            self.count += answer.device != args[-1].device
        return answer


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
@pytest.mark.parametrize("kind", ["fast", "paper"])
def test_a_layer_waits_for_nothing(kind, sampler, monkeypatch):
    if kind == "fast":
        network = FastNetwork(FastSettings(64, 16, (8, 8, 16, 16), (8, 16, 16)))
    else:
        network = PaperNetwork(PaperSettings(16, 32, (1,)))
    network = network.to(META).eval()
    schedule = Schedule.linear()
    side = 64 if kind == "fast" else 16
    mask = torch.empty(2, 1, 16, 16, device=META)

    @torch.inference_mode()
    def layer() -> torch.Tensor:
        features = network.encode(torch.empty(2, 3, side, side, device=META))[: network.conditions]
        return generate(network, schedule, mask, features, lambda: torch.empty_like(mask), sampler, 3)

    assert layer().shape == mask.shape  # the schedule comes to the device with the first
    with Copies() as copies, monkeypatch.context() as patch:
        patch.setattr(torch, "tensor", None)  # of a number it is a copy, too, but not on this device
        layer()
        assert copies.count == 0
        torch.ones(2).to(META)
        assert copies.count == 1
