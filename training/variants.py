# SPDX-License-Identifier: Apache-2.0
"""The models that the tables compare: one configuration, and what is changed in it for each."""

import math
from dataclasses import asdict, dataclass, field, replace

from training.objective import ObjectiveSettings
from training.one_shot import WITHOUT, OneShotObjective, OneShotSettings
from training.settings import TrainSettings

OURS = "ours"
RATIOS = (0.05, 0.1, 0.15, 0.2)  # of noise introduction, as in Table 3
EQUAL = {"equal iterations": False, "equal compute": True}  # of the models of one layer each: whether they share ours' steps


@dataclass(frozen=True)
class TablesSettings:
    """One YAML file for `training.tables`.

    Attributes:
        train: how our model is trained, on a packed set (`packed: 1.0`); what is changed for the others is changed in this.
        samples: K, but for Table 1.
        sampler: "ddim" or "ancestral".
        sampling_steps: network calls a layer.
    """

    train: TrainSettings = field(default_factory=TrainSettings)
    samples: int = 3
    sampler: str = "ddim"
    sampling_steps: int = 2

    def __post_init__(self) -> None:
        if isinstance(self.train.objective, OneShotObjective):
            raise ValueError("ours is a sequential model: set `train: {network: {kind: fast}}`, or paper")
        if self.train.packed != 1:
            packed = "models of the tables are trained on a packed set alone: set `train: {packed: 1.0}`"
            raise ValueError(f"{packed}, not {self.train.packed}")


def noise(ratio: float) -> str:
    """Name of the model that was trained with noise introduction."""
    return f"noise_{round(100 * ratio):02d}"


def independent(equal: str, layer: int) -> str:
    """Name of the model that draws one layer alone."""
    return f"{equal.replace(' ', '_')}_layer_{layer}"


def variants(settings: TablesSettings) -> dict[str, TrainSettings]:
    """Every model by its name. One-shot and regression models are of the `fast` network alone, whose encoder they share."""
    ours, objective, loop = settings.train, settings.train.objective, settings.train.loop
    assert not isinstance(objective, OneShotObjective)
    layers = ours.composites.max_layers
    fewer = replace(loop, steps=math.ceil(loop.steps / layers), warmup=math.ceil(loop.warmup / layers))
    found = {OURS: ours}
    for ratio in RATIOS:
        found[noise(ratio)] = replace(ours, objective=replace(objective, noise_introduction=ratio))
    for equal, shared in EQUAL.items():
        for layer in range(1, layers + 1):
            alone = replace(ours, objective=replace(objective, only_layer=layer))
            found[independent(equal, layer)] = replace(alone, loop=fewer) if shared else alone
    if isinstance(objective, ObjectiveSettings):
        network = OneShotSettings(**asdict(ours.network) | WITHOUT, max_layers=layers)
        rows = OneShotObjective(objective.rows, objective.noise_only, objective.dice)
        found["sequential_regression"] = replace(ours, objective=replace(objective, noise_only=1.0))
        found["one_shot_diffusion"] = replace(ours, network=network, objective=rows)
        found["one_shot_regression"] = replace(ours, network=network, objective=replace(rows, noise_only=1.0))
    return found
