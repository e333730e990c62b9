# SPDX-License-Identifier: Apache-2.0
"""The `paper` network: the U-Net of the paper, which predicts the noise and its variance from image, cumulative and noisy mask.

Written from the description of the architecture: Ho et al. (2020), Nichol and Dhariwal (2021), Dhariwal and Nichol (2021), at
the authors' settings.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqamodal_ros.diffusion.blocks import Attention, timestep_embedding

GROUPS = 32
BLOCKS = 2  # residual blocks of each level on the way down; one more on the way up
ATTENTION_SIDE = 16  # pixels
SCALINGS = ("ours", "authors")


@dataclass(frozen=True)
class PaperSettings:
    """Sizes of the `paper` network; the defaults are the paper's.

    Attributes:
        mask_size: side of the masks and of the image, pixels.
        channels: of the first level.
        multipliers: channels of each level, in multiples of `channels`; from one level to the next the side halves.
        scaling: "ours": RGB in [-1, 1], masks at +-1; "authors": RGB in 0..255 and masks at 0 and 1, as their code feeds them.
    """

    # what files call this network, and how it is sampled unless they say otherwise
    kind: ClassVar[str] = "paper"
    sampler: ClassVar[str] = "ancestral"
    sampling_steps: ClassVar[int] = 1000

    mask_size: int = 64
    channels: int = 128
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    scaling: str = "ours"

    def __post_init__(self) -> None:
        if self.channels < GROUPS or self.channels % GROUPS:
            raise ValueError(f"channels must be a multiple of {GROUPS}, not {self.channels}")
        if not self.multipliers or min(self.multipliers) < 1:
            raise ValueError(f"multipliers must be one positive number for each level, not {list(self.multipliers)}")
        halvings = 2 ** (len(self.multipliers) - 1)
        if self.mask_size % halvings or ATTENTION_SIDE not in self.sides:
            raise ValueError(
                f"mask_size must be a multiple of {halvings} that halves to {ATTENTION_SIDE}, where attention is, within "
                f"{len(self.multipliers)} levels, not {self.mask_size}"
            )
        if self.scaling not in SCALINGS:
            raise ValueError(f"scaling must be one of {', '.join(SCALINGS)}, not {self.scaling!r}")

    @property
    def image_size(self) -> int:
        """Side of the square RGB image it reads, pixels: the mask's."""
        return self.mask_size

    @property
    def sides(self) -> list[int]:
        """Side of each level, pixels."""
        return [self.mask_size >> level for level in range(len(self.multipliers))]


def _zeroed(convolution: nn.Conv2d) -> nn.Conv2d:
    """A convolution that begins as zero, so that its block begins as the identity."""
    nn.init.zeros_(convolution.weight)
    nn.init.zeros_(convolution.bias)
    return convolution


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip; the timestep is added between them."""

    def __init__(self, channels_in: int, channels: int, embedding: int):
        super().__init__()
        self.norm_1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.time = nn.Linear(embedding, channels)
        self.norm_2 = nn.GroupNorm(GROUPS, channels)
        self.conv_2 = _zeroed(nn.Conv2d(channels, channels, 3, padding=1))
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(F.silu(self.norm_1(x))) + self.time(embedding)[:, :, None, None]
        return self.skip(x) + self.conv_2(F.silu(self.norm_2(h)))


class Block(nn.Module):
    """A residual block, and attention behind it where the level has it."""

    def __init__(self, channels_in: int, channels: int, embedding: int, attention: bool):
        super().__init__()
        self.residual = ResidualBlock(channels_in, channels, embedding)
        self.attention = Attention(channels, GROUPS, heads=1) if attention else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        return self.attention(self.residual(x, embedding))


class Down(nn.Module):
    """A level on the way down: its blocks, then, but for the deepest level, half the side."""

    def __init__(self, channels_in: int, channels: int, embedding: int, attention: bool, last: bool):
        super().__init__()
        widths = [channels_in] + [channels] * (BLOCKS - 1)
        self.blocks = nn.ModuleList(Block(width, channels, embedding, attention) for width in widths)
        self.shrink = None if last else nn.Conv2d(channels, channels, 3, stride=2, padding=1)

    def forward(self, h: Tensor, embedding: Tensor) -> list[Tensor]:
        """What each of its parts gives, for the way up; the last of them goes on down."""
        kept = []
        for block in self.blocks:
            h = block(h, embedding)
            kept.append(h)
        return kept if self.shrink is None else [*kept, self.shrink(h)]


class Up(nn.Module):
    """A level on the way up: its blocks, each with what the way down kept, then, but for the first level, twice the side."""

    def __init__(self, channels_in: int, kept: list[int], channels: int, embedding: int, attention: bool, last: bool):
        super().__init__()
        widths = [channels_in] + [channels] * BLOCKS
        self.blocks = nn.ModuleList(
            Block(width + skip, channels, embedding, attention) for width, skip in zip(widths, kept, strict=True)
        )
        self.enlarge = None if last else nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, h: Tensor, kept: list[Tensor], embedding: Tensor) -> Tensor:
        """Takes what it needs from the end of `kept`."""
        for block in self.blocks:
            h = block(torch.cat([h, kept.pop()], dim=1), embedding)
        return h if self.enlarge is None else self.enlarge(F.interpolate(h, scale_factor=2))


class UNet(nn.Module):
    """float [B, 5, h, w] and timesteps int64 [B] -> float [B, 2, h, w]: epsilon, and where its variance lies."""

    def __init__(self, settings: PaperSettings):
        super().__init__()
        self.channels = settings.channels
        embedding = 4 * settings.channels
        widths = [settings.channels * multiplier for multiplier in settings.multipliers]
        attention = [side == ATTENTION_SIDE for side in settings.sides]
        deepest = len(widths) - 1
        self.time = nn.Sequential(nn.Linear(settings.channels, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.inlet = nn.Conv2d(5, settings.channels, 3, padding=1)
        self.down, kept, width = nn.ModuleList(), [settings.channels], settings.channels
        for level, channels in enumerate(widths):
            self.down.append(Down(width, channels, embedding, attention[level], last=level == deepest))
            kept += [channels] * (BLOCKS + (level < deepest))
            width = channels
        self.middle = nn.ModuleList([Block(width, width, embedding, True), Block(width, width, embedding, False)])
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            skips = [kept.pop() for _ in range(BLOCKS + 1)]
            self.up.append(Up(width, skips, widths[level], embedding, attention[level], last=level == 0))
            width = widths[level]
        self.out = nn.Sequential(nn.GroupNorm(GROUPS, width), nn.SiLU(), _zeroed(nn.Conv2d(width, 2, 3, padding=1)))

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        embedding = self.time(timestep_embedding(t, self.channels))
        kept = [self.inlet(x)]
        for down in self.down:
            kept += down(kept[-1], embedding)
        h = kept[-1]
        for block in self.middle:
            h = block(h, embedding)
        for up in self.up:
            h = up(h, kept, embedding)
        return self.out(h)


class PaperNetwork(nn.Module):
    """The U-Net behind the interface of the networks; predicts epsilon and its variance.

    Image, cumulative and noisy mask go through the whole network together (Eq. 7), so there is nothing to encode once a frame.
    """

    prediction = "epsilon"
    conditions = 1
    hypotheses = 1

    def __init__(self, settings: PaperSettings):
        super().__init__()
        self.settings = settings
        self.blank = -1.0 if settings.scaling == "ours" else 0.0
        self.unet = UNet(settings)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """The image at the masks' size, scaled as the settings say: a tuple of one float [B, 3, h, w].

        Args:
            image: float [B, 3, S, S] in [-1, 1], S a multiple of the masks' size; area-averaged where it is larger.
        """
        small = F.adaptive_avg_pool2d(image, self.settings.mask_size)
        return (small if self.settings.scaling == "ours" else (small + 1) * 127.5,)

    def denoise(
        self,
        x_t: Tensor,
        t: Tensor,
        cumulative_mask: Tensor,
        image_features: tuple[Tensor, ...],
        hypothesis: Tensor | None = None,
    ) -> Tensor:
        """epsilon and the variance's channel (see `Posterior.log_variance`), float [B, 2, h, w].

        Args:
            x_t: float [B, 1, h, w], the noisy mask; its clean pixels are 1 and `blank`.
            t: int64 [B], timesteps in 0..T-1.
            cumulative_mask: float [B, 1, h, w] at +-1.
            image_features: what `encode` returned, of batch B.
            hypothesis: of no meaning, see `Network`.
        """
        (image,) = image_features
        cumulative = torch.where(cumulative_mask > 0, 1.0, self.blank)
        return self.unet(torch.cat([image, cumulative, x_t], dim=1), t).float()
