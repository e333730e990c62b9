# SPDX-License-Identifier: Apache-2.0
"""The `fast` network: the image is encoded once a frame, a light denoiser predicts x0 for each layer from the encoding."""

from dataclasses import dataclass
from typing import ClassVar, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seqamodal_ros.diffusion.backbone import CHANNELS, Backbone
from seqamodal_ros.diffusion.blocks import Attention, numbers, timestep_embedding
from seqamodal_ros.diffusion.schedule import Schedule

GROUPS = 8
HEADS = 4  # of attention
HEAD_WIDTH = 32  # channels of the part that draws all layers
REACH = 16.0  # mask pixels, the unit of the way to an object's centre


@dataclass(frozen=True)
class FastSettings:
    """Sizes of the `fast` network.

    Attributes:
        image_size: side of the square RGB image it reads, pixels, a multiple of 32; four to eight times the masks', as edges tell
            who lies on top.
        mask_size: side of the masks, pixels, a multiple of 16.
        encoder_channels: channels of the encoder's pyramid at 1/4, 1/8, 1/16 and 1/32 of the image's size.
        denoiser_channels: channels of the denoiser at 1/2, 1/4 and 1/8 of the mask's size.
        layers: layers that the encoder draws at once, for the denoiser to see; 0 where it draws none.
        centre_channels: likewise of the part that tells objects of a layer apart, see `FastNetwork.to_centres`; () without it.
        hypotheses: how many hypotheses of a layer the denoiser tells apart by their number; 1: they differ by their noise alone.
    """

    # what files call this network, and how it is sampled unless they say otherwise
    kind: ClassVar[str] = "fast"
    sampler: ClassVar[str] = "ddim"
    sampling_steps: ClassVar[int] = 2

    image_size: int = 256
    mask_size: int = 64
    encoder_channels: tuple[int, int, int, int] = (32, 64, 128, 160)
    denoiser_channels: tuple[int, int, int] = (32, 96, 160)
    layers: int = 0
    centre_channels: tuple[int, ...] = ()
    hypotheses: int = 1

    def __post_init__(self) -> None:
        if self.mask_size < 16 or self.mask_size % 16:
            raise ValueError(f"mask_size must be a multiple of 16, not {self.mask_size}")
        smallest, largest = 4 * self.mask_size, 8 * self.mask_size
        if self.image_size % 32 or not smallest <= self.image_size <= largest:
            raise ValueError(
                f"image_size must be a multiple of 32 from {smallest} to {largest}, "
                f"which is four to eight times mask_size, not {self.image_size}"
            )
        if self.layers < 0:
            raise ValueError(f"layers must be 0 or more, not {self.layers}")
        if self.hypotheses < 1:
            raise ValueError(f"hypotheses must be 1 or more, not {self.hypotheses}")
        if len(self.centre_channels) not in (0, 3):
            raise ValueError(f"centre_channels must be three numbers, or none, not {self.centre_channels}")
        every = (*self.encoder_channels, *self.denoiser_channels, *self.centre_channels)
        if any(channels < GROUPS or channels % GROUPS for channels in every):
            raise ValueError(f"channels must be multiples of {GROUPS}")


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with a skip; an embedding, where given, scales and shifts between them."""

    def __init__(self, channels_in: int, channels: int, embedding: int = 0):
        super().__init__()
        self.norm_1 = nn.GroupNorm(GROUPS, channels_in)
        self.conv_1 = nn.Conv2d(channels_in, channels, 3, padding=1)
        self.norm_2 = nn.GroupNorm(GROUPS, channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.skip = nn.Identity() if channels_in == channels else nn.Conv2d(channels_in, channels, 1)
        self.modulation = nn.Linear(embedding, 2 * channels) if embedding else None
        nn.init.zeros_(self.conv_2.weight)
        nn.init.zeros_(self.conv_2.bias)

    def forward(self, x: Tensor, embedding: Tensor | None = None) -> Tensor:
        h = self.norm_2(self.conv_1(F.silu(self.norm_1(x))))
        if self.modulation is not None:
            scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, dim=1)
            h = h * (1 + scale) + shift
        return self.skip(x) + self.conv_2(F.silu(h))


def on_masks(features: tuple[Tensor, ...], mask_size: int) -> tuple[Tensor, ...]:
    """The encoder's features, brought to 1, 1/2, 1/4 and 1/8 of the masks' size: an image of more pixels costs the encoder alone.

    Args:
        features: float [B, c, s, s], [B, c, s/2, s/2] and so on, c for each its own, s a fourth of the image's side. Between one
            and two times the masks' side, so that bilinear weights take each of their pixels in.
        mask_size: side of the masks, m.

    Returns:
        float [B, c, m, m], [B, c, m/2, m/2] and so on; the very tensors where s is m.
    """
    sizes = ((mask_size >> k, mask_size >> k) for k in range(len(features)))
    return tuple(
        each if each.shape[-2:] == size else F.interpolate(each, size=size, mode="bilinear")
        for each, size in zip(features, sizes, strict=True)
    )


def _lateral(channels_in: int, channels: int) -> nn.Module:
    """From the backbone into the pyramid; the norm evens out the scale of the backbone's features, about ten."""
    return nn.Sequential(nn.Conv2d(channels_in, channels, 1), nn.GroupNorm(GROUPS, channels))


class Encoder(nn.Module):
    """Image -> features at 1/4, 1/8, 1/16 and 1/32 of its size.

    A backbone; a feature pyramid on it, which brings down to each pixel what things are; and a path up again, which brings what
    the pixels tell of who lies on top to things as a whole (Liu et al., 2018: path aggregation).
    """

    def __init__(self, channels: tuple[int, int, int, int]):
        super().__init__()
        c1, c2, c4, c8 = channels
        self.backbone = Backbone()
        half, b1, b2, b4, b8 = CHANNELS
        self.lateral_8 = _lateral(b8, c8)
        self.blocks_8 = nn.Sequential(
            ResidualBlock(c8, c8), Attention(c8, GROUPS, HEADS), ResidualBlock(c8, c8), Attention(c8, GROUPS, HEADS)
        )
        self.up_4, self.lateral_4 = nn.Conv2d(c8, c4, 1), _lateral(b4, c4)
        self.merge_4 = ResidualBlock(c4, c4)
        self.up_2, self.lateral_2 = nn.Conv2d(c4, c2, 1), _lateral(b2, c2)
        self.merge_2 = ResidualBlock(c2, c2)
        self.up_1, self.lateral_1 = nn.Conv2d(c2, c1, 1), _lateral(b1 + 4 * half, c1)
        self.merge_1 = ResidualBlock(c1, c1)
        self.down_2, self.again_2 = nn.Conv2d(c1, c2, 3, stride=2, padding=1), ResidualBlock(c2, c2)
        self.down_4 = nn.Conv2d(c2, c4, 3, stride=2, padding=1)
        self.again_4 = nn.Sequential(ResidualBlock(c4, c4), Attention(c4, GROUPS, HEADS))
        self.down_8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.again_8 = nn.Sequential(
            ResidualBlock(c8, c8), Attention(c8, GROUPS, HEADS), ResidualBlock(c8, c8), Attention(c8, GROUPS, HEADS)
        )

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        half, b1, b2, b4, b8 = self.backbone(image)
        f8 = self.blocks_8(self.lateral_8(b8))
        f4 = self.merge_4(self.lateral_4(b4) + F.interpolate(self.up_4(f8), scale_factor=2))
        f2 = self.merge_2(self.lateral_2(b2) + F.interpolate(self.up_2(f4), scale_factor=2))
        fine = torch.cat([b1, F.pixel_unshuffle(half, 2)], dim=1)
        f1 = self.merge_1(self.lateral_1(fine) + F.interpolate(self.up_1(f2), scale_factor=2))
        f2 = self.again_2(f2 + self.down_2(f1))
        f4 = self.again_4(f4 + self.down_4(f2))
        f8 = self.again_8(f8 + self.down_8(f4))
        return f1, f2, f4, f8


class LayersHead(nn.Module):
    """All the encoder's features, summed from coarse to fine -> log-odds of each layer, float [B, layers, h, w].

    A row of Algorithm 1 tells of one layer of an image; this tells of all of them, in each step of training. Its masks are
    rougher than the denoiser's, but it knows better which things lie deep.
    """

    def __init__(self, channels: tuple[int, int, int, int], layers: int):
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(each, HEAD_WIDTH, 1) for each in channels)
        self.out = nn.Sequential(
            nn.SiLU(), nn.Conv2d(HEAD_WIDTH, HEAD_WIDTH, 3, padding=1), nn.SiLU(), nn.Conv2d(HEAD_WIDTH, layers, 3, padding=1)
        )

    def forward(self, features: tuple[Tensor, ...]) -> Tensor:
        *finer, h = (lateral(each) for lateral, each in zip(self.lateral, features, strict=True))
        for each in reversed(finer):
            h = each + F.interpolate(h, scale_factor=2)
        return self.out(h)


class Denoiser(nn.Module):
    """Noisy mask, cumulative mask and what it takes of the image, see `of_image` -> logits of the layer's mask.

    Args:
        encoder: channels of the image features.
        channels: of its own at 1/2, 1/4 and 1/8 of the masks' size.
        masks: masks that it reads, the noisy and the cumulative one.
        drawn: masks that it draws.
        layers: of the encoder's own drawing, which is one more feature; 0 where there is none.
        hypotheses: how many it tells apart; where more than 1, each number but 0 adds a learned vector to the timestep's.
    """

    def __init__(
        self,
        encoder: tuple[int, int, int, int],
        channels: tuple[int, int, int],
        masks: int = 2,
        drawn: int = 1,
        layers: int = 0,
        hypotheses: int = 1,
    ):
        super().__init__()
        e1, e2, e4, e8 = encoder
        c2, c4, c8 = channels
        embedding = 2 * c4
        self.drawn = drawn
        self.schedule = Schedule.linear()
        self.time_channels = c4
        self.time = nn.Sequential(nn.Linear(c4, embedding), nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())
        self.numbers: nn.Embedding | None = None
        if hypotheses > 1:
            self.numbers = nn.Embedding.from_pretrained(torch.zeros(hypotheses, embedding), freeze=False, padding_idx=0)
            # apart from the start, and all near what the network draws; normal ones, drawn on "meta", bring in PyTorch's compiler
            nn.init.uniform_(self.numbers.weight[1:], -0.5, 0.5)
        self.masks_in = nn.Conv2d(4 * masks, c2, 3, padding=1)  # the masks, their 2x2 pixels as channels
        self.image_2, self.image_4, self.image_8 = nn.Conv2d(e2, c2, 1), nn.Conv2d(e4, c4, 1), nn.Conv2d(e8, c8, 1)
        self.block_2 = ResidualBlock(c2, c2, embedding)
        self.down_4 = nn.Conv2d(c2, c4, 3, stride=2, padding=1)
        self.block_4 = ResidualBlock(c4, c4, embedding)
        self.down_8 = nn.Conv2d(c4, c8, 3, stride=2, padding=1)
        self.block_8a, self.attention_8 = ResidualBlock(c8, c8, embedding), Attention(c8, GROUPS, HEADS)
        self.block_8b = ResidualBlock(c8, c8, embedding)
        self.up_4 = nn.Conv2d(c8, c4, 1)
        self.merge_4 = ResidualBlock(c4, c4, embedding)
        self.up_2 = nn.Conv2d(c4, c2, 1)
        self.merge_2 = ResidualBlock(c2, c2, embedding)
        self.up_1 = nn.Conv2d(c2, 4 * 16, 1)
        self.image_1 = nn.Conv2d(e1, 16, 1)
        self.masks_1 = nn.Conv2d(masks, 16, 3, padding=1)
        self.out = nn.Sequential(nn.SiLU(), nn.Conv2d(16, 16, 3, padding=1), nn.SiLU(), nn.Conv2d(16, drawn, 3, padding=1))
        self.layers_2 = self.layers_1 = None
        if layers:
            self.layers_2, self.layers_1 = nn.Conv2d(4 * layers, c2, 3, padding=1), nn.Conv2d(layers, 16, 3, padding=1)
            for convolution in (self.layers_2, self.layers_1):  # a network that did without them begins as it was
                nn.init.zeros_(convolution.weight)
                nn.init.zeros_(convolution.bias)

    def posterior_mean(self, x_t: Tensor, t: Tensor) -> Tensor:
        """What a noisy pixel alone says of x0: E[x0 | x_t] = tanh(signal x_t / sigma^2), as x0 is -1 or 1.

        Near t = T - 1 a pixel is nothing but noise, and this is near zero; fed as it is, the noise would drown the image.
        """
        signal, sigma = self.schedule.coefficients(t)
        return torch.tanh(signal / sigma**2 * x_t)

    def of_image(self, features: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """What it takes of an image: the same for all layers, steps and hypotheses, so it is computed once a frame.

        Args:
            features: the encoder's four, and all layers as it draws them where `layers` is not 0.

        Returns:
            float [B, 16, h, w], and with its own channels [B, c2, h/2, w/2], [B, c4, h/4, w/4] and [B, c8, h/8, w/8].
        """
        f1, f2, f4, f8 = features[:4]
        c1, c2 = self.image_1(f1), self.image_2(f2)
        if self.layers_2 is not None and self.layers_1 is not None:
            drawn = torch.tanh(features[4] / 2)
            c1, c2 = c1 + self.layers_1(drawn), c2 + self.layers_2(F.pixel_unshuffle(drawn, 2))
        return c1, c2, self.image_4(f4), self.image_8(f8)

    def forward(
        self,
        x_t: Tensor,
        t: Tensor,
        cumulative_mask: Tensor,
        of_image: tuple[Tensor, ...],
        hypothesis: Tensor | None = None,
    ) -> Tensor:
        c1, c2, c4, c8 = of_image
        x_t = self.posterior_mean(x_t, t)
        embedding = self.time(timestep_embedding(t, self.time_channels))
        if self.numbers is not None:
            embedding = embedding + self.numbers(numbers(hypothesis, t))
        masks = torch.cat([x_t, cumulative_mask], dim=1)
        h2 = self.block_2(self.masks_in(F.pixel_unshuffle(masks, 2)) + c2, embedding)
        h4 = self.block_4(self.down_4(h2) + c4, embedding)
        h8 = self.block_8a(self.down_8(h4) + c8, embedding)
        h8 = self.block_8b(self.attention_8(h8), embedding)
        h4 = self.merge_4(h4 + F.interpolate(self.up_4(h8), scale_factor=2), embedding)
        h2 = self.merge_2(h2 + F.interpolate(self.up_2(h4), scale_factor=2), embedding)
        return self.out(F.pixel_shuffle(self.up_1(h2), 2) + self.masks_1(masks) + c1)


class FastNetwork(nn.Module):
    """Encoder and denoiser; predicts x0.

    `encode` runs once a frame; `denoise` once a layer and sampling step, on its hypotheses as a batch; `to_centres`, if there
    is one, once a frame, on its layers as a batch.
    """

    prediction = "x0"
    blank = -1.0
    conditions = 4  # what `Denoiser.of_image` returns

    def __init__(self, settings: FastSettings):
        super().__init__()
        self.settings = settings
        self.hypotheses = settings.hypotheses
        self.encoder = Encoder(settings.encoder_channels)
        self.all_layers = LayersHead(settings.encoder_channels, settings.layers) if settings.layers else None
        self.denoiser = Denoiser(
            settings.encoder_channels, settings.denoiser_channels, layers=settings.layers, hypotheses=settings.hypotheses
        )
        self.centres: Denoiser | None = None
        if settings.centre_channels:
            half, quarter, eighth = settings.centre_channels
            self.centres = Denoiser(settings.encoder_channels, (half, quarter, eighth), drawn=2, layers=settings.layers)

    def encode(self, image: Tensor) -> tuple[Tensor, ...]:
        """Features of images float [B, 3, S, S] in [-1, 1]; a tuple of tensors whose first axis is B.

        Four are what the denoiser takes of the image. Then come the encoder's, on the masks' grid, see `on_masks`, and where it
        draws all layers their log-odds [B, layers, h, w]: `to_centres` takes those.

        Raises:
            ValueError: the images are not S = `settings.image_size` pixels a side.
        """
        side = self.settings.image_size
        if image.shape[-2:] != (side, side):
            raise ValueError(f"the network reads images of {side}x{side} pixels, not {image.shape[-1]}x{image.shape[-2]}")
        features = on_masks(self.encoder(image), self.settings.mask_size)
        if self.all_layers is not None:
            features = (*features, self.all_layers(features))
        return *self.denoiser.of_image(features), *features

    def logits(
        self,
        x_t: Tensor,
        t: Tensor,
        cumulative_mask: Tensor,
        image_features: tuple[Tensor, ...],
        hypothesis: Tensor | None = None,
    ) -> Tensor:
        """float [B, 1, h, w]: log-odds that a pixel belongs to the layer; training's losses take these. See `denoise`."""
        return self.denoiser(x_t, t, cumulative_mask, image_features[: self.conditions], hypothesis)

    def denoise(
        self,
        x_t: Tensor,
        t: Tensor,
        cumulative_mask: Tensor,
        image_features: tuple[Tensor, ...],
        hypothesis: Tensor | None = None,
    ) -> Tensor:
        """x0, float [B, 1, h, w] in [-1, 1].

        Args:
            x_t: float [B, 1, h, w], the noisy mask.
            t: int64 [B], timesteps in 0..T-1.
            cumulative_mask: float [B, 1, h, w] at +-1.
            image_features: what `encode` returned, of batch B; all but the first four may be left out.
            hypothesis: int64 [B], each row's number in 0..hypotheses-1; None is 0 for all.
        """
        return torch.tanh(self.logits(x_t, t, cumulative_mask, image_features, hypothesis).float() / 2)

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: tuple[Tensor, ...]) -> Tensor:
        """From each pixel of a layer, the way to the centre of the object that it belongs to there.

        It has the shape of a denoiser whose mask is free of noise already.

        Args:
            layer: float [B, 1, h, w] at +-1, its amodal mask.
            cumulative_mask: float [B, 1, h, w] at +-1, of the layers in front.
            image_features: what `encode` returned, of batch B, without the first four.

        Returns:
            float [B, 2, h, w], x and y in mask pixels; of no meaning outside of the layer.
        """
        assert self.centres is not None, "settings.centre_channels says whether there are centres"
        noise_free = torch.zeros(layer.shape[0], dtype=torch.int64, device=layer.device)
        return REACH * self.centres(layer, noise_free, cumulative_mask, self.centres.of_image(image_features)).float()


def has_centres(network: object) -> TypeGuard[FastNetwork]:
    """Whether a network tells objects of a layer apart."""
    return isinstance(network, FastNetwork) and network.centres is not None


def draws_layers(network: object) -> TypeGuard[FastNetwork]:
    """Whether a network's encoder draws all layers, which are the last of its features then."""
    return isinstance(network, FastNetwork) and network.all_layers is not None
