# SPDX-License-Identifier: Apache-2.0
"""What a YAML file of `training/configs` says, checked on the way in."""

from dataclasses import dataclass, field
from pathlib import Path

import yaml

from seqamodal_ros.diffusion.fast import FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings
from seqamodal_ros.settings import Settings, from_mapping
from training.data.compositor import CompositeSettings
from training.data.ranges import check_shares
from training.hybrid import HybridSettings
from training.loop import LoopSettings
from training.objective import ObjectiveSettings
from training.one_shot import OneShotObjective, OneShotSettings
from training.pretrained import BackboneSettings


@dataclass(frozen=True)
class TrainSettings:
    """One YAML file of `training/configs`.

    Attributes:
        network: which network is trained, and its sizes.
        backbone: of the `fast` network, and of the one that draws all layers at once; the `paper` network has none.
        composites: the scenes.
        packed: share of the scenes that come from the sets that are given with --packed, in 0..1; the rest are composites.
        repeated: how many scenes are drawn, to come again and again; 0: each is new. For an objective of `only` one part of the
            network, whose image features are then computed once; about 0.75 MB of memory each, 0.86 where images are of 320x320,
            with one worker.
        objective: rows and losses, of the same `kind` as the network.
        loop: how long and how fast.
    """

    network: NetworkSettings | OneShotSettings = field(default_factory=FastSettings)
    backbone: BackboneSettings = field(default_factory=BackboneSettings)
    composites: CompositeSettings = field(default_factory=CompositeSettings)
    objective: ObjectiveSettings | HybridSettings | OneShotObjective = field(default_factory=ObjectiveSettings)
    loop: LoopSettings = field(default_factory=LoopSettings)
    packed: float = 0.0
    repeated: int = 0

    def __post_init__(self) -> None:
        check_shares(self, "packed")
        if self.repeated < 0:
            raise ValueError(f"repeated is a number of scenes, or 0, not {self.repeated}")
        if (self.repeated > 0) != bool(only_part(self.objective)):
            raise ValueError(
                "give both `repeated: 3000` and `objective: {only: centres}` (or denoiser, or numbers), or none: "
                "features are kept of so many"
            )
        if self.repeated and self.loop.again > 1:
            raise ValueError("leave out `loop: {again: ...}` where scenes are `repeated`: they come again already")
        network, objective = self.network.kind, self.objective.kind
        if network != objective:
            raise ValueError(
                f"the objective of kind {objective!r} does not train the network of kind {network!r}: write `kind: {network}` "
                "under `objective` too"
            )
        image, masks = self.composites.image_size, self.composites.mask_size
        fits = image % self.network.image_size == 0 if network == "paper" else image == self.network.image_size
        if isinstance(self.objective, ObjectiveSettings) and isinstance(self.network, FastSettings):
            self._check_parts(self.network, self.objective)
        if masks != self.network.mask_size or not fits:
            raise ValueError(
                f"the network takes images of {self.network.image_size} and masks of {self.network.mask_size}, "
                f"the composites have {image} and {masks}: make them agree"
            )
        if isinstance(self.network, OneShotSettings) and self.network.max_layers != self.composites.max_layers:
            deepest = self.composites.max_layers
            raise ValueError(
                f"the network draws {self.network.max_layers} layers, the scenes have up to {deepest}: make them agree"
            )

    def _check_parts(self, network: FastSettings, objective: ObjectiveSettings) -> None:
        deepest = self.composites.max_layers
        if (network.layers > 0) != (objective.all_layers > 0) and not objective.only:
            raise ValueError(
                "give both `network: {layers: 5}` and `objective: {all_layers: 1.0}`, or none: one learns by the other"
            )
        if network.layers not in (0, deepest):
            raise ValueError(f"the encoder draws {network.layers} layers, the scenes have up to {deepest}: make them agree")
        if (objective.centres > 0 or objective.only == "centres") and not network.centre_channels:
            raise ValueError("the network has no part that learns centres: give it `network: {centre_channels: [48, 32, 32]}`")
        if objective.only == "numbers" and network.hypotheses == 1:
            raise ValueError("the network tells no hypotheses apart by number: give it `network: {hypotheses: 5}`")


def only_part(objective: object) -> str:
    """The part of the `fast` network that an objective trains alone, or ""."""
    return objective.only if isinstance(objective, ObjectiveSettings) else ""


def read_settings(path: Path) -> TrainSettings:
    """Read a configuration; an unknown key or a wrong type is a ValueError that names it."""
    return from_yaml(TrainSettings, path)


def from_yaml(cls: type[Settings], path: Path) -> Settings:
    """Settings out of a YAML file; a ValueError names what is wrong in it."""
    try:
        return from_mapping(cls, yaml.safe_load(path.read_text()) or {}, path.name)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from None
