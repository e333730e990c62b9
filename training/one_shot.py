# SPDX-License-Identifier: Apache-2.0
"""The baseline that draws all layers at once: the encoder and denoiser of `fast`, a channel a layer, no cumulative mask."""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from seqamodal_ros.diffusion.adapter import normalised, signed
from seqamodal_ros.diffusion.fast import Denoiser, FastNetwork, FastSettings
from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch, all_layers
from training.data.ranges import check_not_negative, check_shares
from training.losses import mask_losses
from training.objective import noisy

WITHOUT = {"layers": 0, "centre_channels": (), "hypotheses": 1}  # of `FastSettings`: parts that this network does not have


@dataclass(frozen=True)
class OneShotSettings(FastSettings):
    """Sizes of the network: those of `fast`, but for the parts that it does not have, and how many layers it draws.

    Attributes:
        max_layers: channels of the masks.
    """

    kind: ClassVar[str] = "one_shot"

    max_layers: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, without in WITHOUT.items():
            if (value := getattr(self, name)) != without:
                raise ValueError(f"{name} must be {without} of a network that draws all layers at once, not {value}")


@dataclass(frozen=True)
class OneShotObjective:
    """How rows are drawn and weighed.

    Attributes:
        rows: noisy copies of each image's layers a step.
        noise_only: share of rows at t = T - 1.
        dice: weight of the Dice loss beside binary cross-entropy.
    """

    kind: ClassVar[str] = "one_shot"

    rows: int = 3
    noise_only: float = 0.85
    dice: float = 1.0

    def __post_init__(self) -> None:
        if self.rows < 1:
            raise ValueError(f"rows must be 1 or more of each image, not {self.rows}")
        check_shares(self, "noise_only")
        check_not_negative(self, "dice")


class OneShotNetwork(FastNetwork):
    """The `fast` network on masks of L channels, one a layer, and a cumulative mask of none.

    Layers that a scene has not got are blank.
    """

    def __init__(self, settings: OneShotSettings):
        super().__init__(settings)
        layers = settings.max_layers
        self.denoiser = Denoiser(settings.encoder_channels, settings.denoiser_channels, masks=layers, drawn=layers)


def one_shot_loss(network: OneShotNetwork, batch: Batch, schedule: Schedule, settings: OneShotObjective) -> dict[str, Tensor]:
    """Losses of one batch, scalars: "loss" (to minimise), "bce" and "dice"."""
    features = network.encode(normalised(batch.image))
    target = all_layers(batch, network.denoiser.drawn).repeat(settings.rows, 1, 1, 1)
    x_t, t = noisy(signed(target), schedule, settings.noise_only)
    repeated = tuple(f.repeat(settings.rows, 1, 1, 1) for f in features[: network.conditions])
    return mask_losses(network.logits(x_t, t, x_t[:, :0], repeated).float(), target.float(), settings.dice)
