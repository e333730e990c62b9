# SPDX-License-Identifier: Apache-2.0
"""Where the scenes come from that a network is trained on; sets that do not fit its configuration are refused."""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import cast

from torch.utils.data import ConcatDataset, Dataset, Subset

from training.data.batches import Mixture, Scenes
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
from training.data.scene import SceneRules
from training.data.sprites import load_material
from training.settings import TrainSettings, only_part

LEAVE_OUT = "--leave-out-deeper"


def scene_source(settings: TrainSettings, args: argparse.Namespace) -> Compositor | Mixture:
    """Where scenes come from: a compositor, packed sets, or both.

    Args:
        settings: of the training.
        args: of the command line: `data` and `sprites` for composites; `packed`, folders of sets; `leave_out_deeper`.

    Raises:
        OSError: some of the material is missing.
        ValueError: an option that the configuration needs is, or scenes are of other sizes, deeper, or all shallower than it
            says.
    """
    composites, share = settings.composites, settings.packed
    if share < 1 and not (args.data and args.sprites):
        raise ValueError("the configuration draws composites: give --data and --sprites")
    if share > 0 and args.packed is None:
        raise ValueError(f"the configuration takes a share of {share:g} from a packed set: give --packed SET")
    if share == 0 and args.packed:
        raise ValueError("the configuration takes no share from a packed set: leave out --packed, or set `packed: 0.2` in it")
    any_depth = only_part(settings.objective) == "centres"
    if not any_depth:
        reach = composites_reach(composites) if share < 1 else {}
        check_reached(composites.max_layers, reach | packed_reach(args.packed or ()))
    compositor = Compositor(load_material(args.data, args.sprites, "train"), composites) if share < 1 else None
    if compositor is not None and share == 0:
        return compositor
    return Mixture(packed_scenes(args.packed, composites, any_depth, args.leave_out_deeper), share, compositor, composites.worn)


def composites_reach(settings: CompositeSettings) -> dict[str, int]:
    """How many layers composites have at most: a layer takes an object."""
    return {"composites": min(settings.max_layers, max(count for count, share in enumerate(settings.counts) if share > 0))}


def packed_reach(folders: Sequence[Path]) -> dict[str, int]:
    """How many layers the scenes of packed sets have at most, by the rules that they were made by."""
    return {str(folder): PackedScenes(folder).meta["settings"]["max_layers"] for folder in folders}


def check_reached(max_layers: int, reach: Mapping[str, int]) -> None:
    """Raise ValueError where no source of scenes has as many layers as are drawn: the last would be learnt from nothing.

    Args:
        max_layers: that the configuration draws.
        reach: how many layers the scenes of each source have at most, by its name.
    """
    most = max(reach.values())
    if most < max_layers:
        raise ValueError(
            f"the configuration draws up to {max_layers} layers, scenes of {', '.join(reach)} have at most {most}: set "
            f"`composites: {{max_layers: {most}}}`"
        )


def packed_scenes(folders: Sequence[Path], rules: SceneRules, any_depth: bool = False, leave_out_deeper: bool = False) -> Scenes:
    """Packed sets to train on, their files compared with their sha256.

    Args:
        folders: of the sets; one that is given twice counts twice.
        rules: that they must have been made by.
        any_depth: scenes may have more layers than the rules say, as nothing is learnt of a layer's number.
        leave_out_deeper: those that have more are left out, and how many they are is printed.

    Raises:
        OSError: there is none.
        ValueError: one was not made for training, by other rules, has deeper scenes that are not to be left out, or no others.
    """
    read = {folder: _packed(folder, rules, any_depth, leave_out_deeper) for folder in dict.fromkeys(folders)}
    sets = [read[folder] for folder in folders]
    return sets[0] if len(sets) == 1 else cast(Scenes, ConcatDataset(cast(list[Dataset], sets)))


def _packed(folder: Path, rules: SceneRules, any_depth: bool, leave_out_deeper: bool) -> Scenes:
    packed = PackedScenes(folder, check=True)
    if packed.meta["split"] != "train":
        raise ValueError(f"{folder} is a set for {packed.meta['split']}: train on one that was made for training")
    settings = packed.meta["settings"]
    for key in [rule.name for rule in fields(SceneRules) if rule.name != "max_layers"]:
        if settings[key] != getattr(rules, key):
            raise ValueError(
                f"{folder} was made with {key} {settings[key]}, the configuration says {getattr(rules, key)}: make them agree"
            )
    if any_depth or settings["max_layers"] <= rules.max_layers:
        return packed
    return _not_deeper(packed, rules.max_layers, leave_out_deeper)


def _not_deeper(packed: PackedScenes, max_layers: int, leave_out_deeper: bool) -> Scenes:
    """The scenes of so many layers at most; a ValueError where there are others that are not to be left out, or none."""
    depths = packed.depths()
    deeper, deepest = sum(depth > max_layers for depth in depths), max(depths)
    if not deeper:
        return packed
    told = (
        f"{deeper} of {len(packed)} scenes of {packed.folder} have up to {deepest} layers, more than the {max_layers} that the "
        "configuration draws"
    )
    if not leave_out_deeper:
        raise ValueError(f"{told}: leave these scenes out by {LEAVE_OUT}, or set `composites: {{max_layers: {deepest}}}`")
    if deeper == len(packed):
        raise ValueError(
            f"every scene of {packed.folder} has more than {max_layers} layers: set `composites: {{max_layers: {deepest}}}`"
        )
    print(f"{told}: left out")
    return cast(Scenes, Subset(cast(Dataset, packed), packed.not_deeper(max_layers)))
