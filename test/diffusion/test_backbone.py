# SPDX-License-Identifier: Apache-2.0
"""The backbone: sizes and channels of its features."""

import torch

from seqamodal_ros.diffusion.backbone import CHANNELS, Backbone


@torch.no_grad()
def test_features_halve_from_one_to_the_next():
    torch.manual_seed(0)
    features = Backbone()(torch.randn(2, 3, 64, 96))
    assert CHANNELS == (16, 24, 40, 112, 192)
    sizes = [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert [tuple(f.shape) for f in features] == [(2, c, *size) for c, size in zip(CHANNELS, sizes, strict=True)]


def test_the_number_of_parameters():
    """EfficientNet-Lite0 up to its sixth stage: its weights fit no other network."""
    assert sum(parameter.numel() for parameter in Backbone().parameters()) == 2_336_304
