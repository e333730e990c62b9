# SPDX-License-Identifier: Apache-2.0
"""The network as a run begins with it: built at random, on ImageNet's backbone, or from weights that were trained."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.networks import NetworkSettings, build_network
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.weights import Model
from training.bias import without_bias
from training.objective import PARTS, ObjectiveSettings
from training.one_shot import OneShotNetwork, OneShotSettings
from training.pretrained import filters_in_float32, freeze, imagenet_file, load_imagenet
from training.settings import TrainSettings, only_part
from training.taught import TaughtNetwork

SIZES = {"denoiser": "denoiser_channels", "centres": "centre_channels"}  # of parts that may begin anew


def may_begin(held: NetworkSettings | OneShotSettings, wanted: NetworkSettings | OneShotSettings) -> bool:
    """Whether a network can begin as another one, that may lack parts of it, read images of another size, draw another number of
    layers, tell no hypotheses apart, and have a denoiser and ways to centres of other sizes, which then begin anew."""
    if not isinstance(held, FastSettings) or not isinstance(wanted, FastSettings):
        return held == wanted
    lost = held.layers and not wanted.layers or held.centre_channels and not wanted.centre_channels
    lost = lost or held.hypotheses not in (1, wanted.hypotheses)
    sizes = {name: getattr(held, name) for name in ("image_size", "layers", "hypotheses", *SIZES.values())}
    return not lost and held == replace(wanted, **sizes)


def build(settings: NetworkSettings | OneShotSettings) -> FastNetwork | PaperNetwork:
    """The network of these settings, with random weights; of `build_network`, and those that are of training alone."""
    return OneShotNetwork(settings) if isinstance(settings, OneShotSettings) else build_network(settings)


def _begun_anew(held: NetworkSettings, settings: TrainSettings) -> tuple[str, ...]:
    """What the names of those weights begin with that a file of another size, or without them, cannot give.

    Raises:
        ValueError: they would not be trained.
    """
    wanted, objective = settings.network, settings.objective
    if not isinstance(held, FastSettings) or not isinstance(wanted, FastSettings) or not isinstance(objective, ObjectiveSettings):
        return ()
    if objective.only and held.layers != wanted.layers:
        raise ValueError(
            f"only the {objective.only} would change, but --init draws {held.layers} layers, the configuration {wanted.layers}: "
            "make them agree"
        )
    if held.hypotheses != wanted.hypotheses and objective.only == "centres":
        raise ValueError(
            f"--init tells {held.hypotheses} hypotheses apart, the configuration {wanted.hypotheses}, and does not train them: "
            "make them agree"
        )
    other = [part for part, sizes in SIZES.items() if getattr(held, sizes) != getattr(wanted, sizes)]
    trained = [objective.only] if objective.only else ["denoiser", *["centres"] * (objective.centres > 0)]
    for part in other:
        if part not in trained:
            sizes = SIZES[part]
            raise ValueError(
                f"--init has `{sizes}: {list(getattr(held, sizes))}`, the configuration {list(getattr(wanted, sizes))}, and does "
                "not train them: make them agree"
            )
    return tuple(f"{part}." for part in other)


def _lacking(state: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Modules whose weights are not given: "denoiser" where none of it is, "denoiser.numbers" where these are not."""
    begun = {name.split(".")[0] for name in given}
    lacking = (name for name in state if name not in given)
    return sorted({name.rpartition(".")[0] if name.split(".")[0] in begun else name.split(".")[0] for name in lacking})


def begin(settings: TrainSettings, initial: Model | None = None) -> nn.Module:
    """The network as training begins with it: with trained weights, with the backbone's ImageNet weights, or at random.

    Prints which parts `initial` has no weights for.

    Raises:
        OSError: the package of the ImageNet weights is missing.
        ValueError: `initial` is another network.
    """
    torch.manual_seed(settings.loop.seed)
    network, objective = build(settings.network), settings.objective
    if isinstance(objective, ObjectiveSettings) and isinstance(settings.network, FastSettings) and objective.edges:
        network = TaughtNetwork(settings.network)
    if initial:
        if not may_begin(initial.settings.network, settings.network):
            raise ValueError(f"--init holds {initial.settings.network}, the configuration names {settings.network}")
        state = network.state_dict()
        # export takes a bias off anew, but of a run of centres alone, which leaves the layers as they are
        held = initial.network.state_dict() if only_part(objective) == "centres" else without_bias(initial)
        anew = _begun_anew(initial.settings.network, settings)
        # but for the number of layers
        same = {name: value for name, value in held.items() if not name.startswith(anew) and value.shape == state[name].shape}
        network.load_state_dict({**state, **same})
        if lacking := _lacking(state, same):
            print(f"--init has no weights of these, or of other sizes; a new run begins them anew: {', '.join(lacking)}")
    if isinstance(network, FastNetwork):
        backbone = network.encoder.backbone
        if settings.backbone.imagenet and not initial:
            load_imagenet(backbone, imagenet_file())
        freeze(backbone, settings.backbone.frozen_stages)
        if part := only_part(objective):
            network.requires_grad_(False)
            network.get_submodule(PARTS[part]).requires_grad_(True)
        elif isinstance(objective, ObjectiveSettings) and network.centres is not None:
            network.centres.requires_grad_(objective.centres > 0)
        if not torch.cuda.is_available():
            filters_in_float32(backbone)
    return network
