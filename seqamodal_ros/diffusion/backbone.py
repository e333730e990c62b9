# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0's convolutions (Tan and Le, 2019, without squeeze-and-excitation), as ImageNet weights exist for them.

Batch normalisation is folded into the convolutions, so a bias is all that is left of it.
"""

import torch.nn.functional as F
from torch import Tensor, nn

# channels_in, channels, kernel, stride, blocks, of each stage; the expansion is 6, 1 in the first
STAGES = (
    (32, 16, 3, 1, 1),
    (16, 24, 3, 2, 2),
    (24, 40, 5, 2, 2),
    (40, 80, 3, 2, 3),
    (80, 112, 5, 1, 3),
    (112, 192, 5, 2, 4),
)
OUTPUTS = (0, 1, 2, 4, 5)  # stages whose result is a feature map, at 1/2, 1/4, 1/8, 1/16 and 1/32 of the image
CHANNELS = tuple(STAGES[stage][1] for stage in OUTPUTS)


class InvertedResidual(nn.Module):
    """Expand, filter each channel on its own, project; with a skip where the shape stays (Sandler et al., 2018)."""

    def __init__(self, channels_in: int, channels: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = channels_in * expansion
        self.expand = nn.Conv2d(channels_in, hidden, 1) if expansion > 1 else None
        self.filter = nn.Conv2d(hidden, hidden, kernel, stride, padding=kernel // 2, groups=hidden)
        self.project = nn.Conv2d(hidden, channels, 1)
        self.skip = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        h = x if self.expand is None else F.relu6(self.expand(x))
        h = self.project(F.relu6(self.filter(h)))
        return x + h if self.skip else h


class Backbone(nn.Module):
    """Image -> features at 1/2, 1/4, 1/8, 1/16 and 1/32 of its size, of `CHANNELS` channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, STAGES[0][0], 3, stride=2, padding=1)
        self.stages = nn.ModuleList(
            nn.Sequential(
                InvertedResidual(channels_in, channels, kernel, stride, expansion=6 if k else 1),
                *(InvertedResidual(channels, channels, kernel, 1, expansion=6) for _ in range(blocks - 1)),
            )
            for k, (channels_in, channels, kernel, stride, blocks) in enumerate(STAGES)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        h = F.relu6(self.stem(image))
        features = []
        for k, stage in enumerate(self.stages):
            h = stage(h)
            if k in OUTPUTS:
                features.append(h)
        return features
