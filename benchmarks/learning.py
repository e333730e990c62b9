# SPDX-License-Identifier: Apache-2.0
"""What a step of training costs, and which share of the machine's own rate of matrix products it reaches; for `make bench`."""

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arguments import add_device, add_out, add_repeats
from benchmarks.growth import matrix_rate
from seqamodal_ros.commands.arguments import Parser, whole_number
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.runtimes.bfloat16 import computes_bfloat16, slower_in_bfloat16
from training.begin import begin
from training.data.batches import Batch, SceneBatches
from training.data.scene import Scene
from training.endings import need_folder, told
from training.loop import Losses, parameter_groups
from training.pretrained import BackboneSettings
from training.settings import TrainSettings, read_settings
from training.train import method_of

CONFIGS = Path(__file__).parents[1] / "training" / "configs"
OBJECTS = 3  # of a scene; each lies on the next, so there are as many layers


def learning(network: str, device: str, images: int, repeats: int) -> dict[str, Any]:
    """Forward, backward and the optimiser's step of a network of `training/configs`, on scenes of boxes.

    In bfloat16 where the hardware computes it and is not slower so. The weights are random ones, which cost as much as others,
    and all of them learn. Rows are those of step 0: the model's own cumulative masks, which later steps may draw, cost more.
    """
    settings = read_settings(CONFIGS / f"{network}.yaml")
    settings = replace(settings, backbone=BackboneSettings(imagenet=False, frozen_stages=0))
    trained = begin(settings).to(device, memory_format=torch.channels_last).train()
    kind = torch.bfloat16 if computes_bfloat16(device) and not slower_in_bfloat16(device) else torch.float32
    losses = Losses(trained, method_of(settings), Schedule.linear(), kind == torch.bfloat16)
    optimiser = torch.optim.AdamW([{"params": group["params"]} for group in parameter_groups(trained, settings.loop)])
    batch = boxes(settings, images).to(torch.device(device))

    def step() -> float:
        began = time.perf_counter()
        optimiser.zero_grad(set_to_none=True)
        losses(batch, 0)["loss"].backward()
        optimiser.step()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    with FlopCounterMode(display=False) as counter:
        losses(batch, 0)
    operations = 3 * counter.get_total_flops()  # backward is twice forward; of grouped convolutions it is counted wrongly
    step()
    seconds = float(np.median([step() for _ in range(repeats)]))
    return {
        "images": images,
        "images_per_second": images / seconds,
        "gflop_image": operations / images / 1e9,
        "kind": str(kind).removeprefix("torch."),
        "share": operations / seconds / matrix_rate(kind, device),
    }


def boxes(settings: TrainSettings, images: int) -> Batch:
    """Scenes of boxes that lie on one another, of the sizes that a configuration trains on."""
    image_size, side = settings.composites.image_size, settings.composites.mask_size
    amodal = np.zeros((OBJECTS, side, side), bool)
    for k, mask in enumerate(amodal):
        at = side // 8 * (1 + k)
        mask[at : at + side // 4, at : at + side // 4] = True

    def draw(rng: np.random.Generator) -> Scene:
        image = rng.integers(0, 256, (image_size, image_size, 3), dtype=np.uint8)
        return Scene(image, amodal, np.eye(OBJECTS, k=-1, dtype=bool))

    return SceneBatches(draw, images, 1, seed=0)[0]


def main() -> None:
    parser = Parser(prog="python -m benchmarks.learning", description=__doc__)
    parser.add_argument("network", choices=["fast", "paper"])
    add_device(parser)
    parser.add_argument("--images", type=whole_number(1, 10**6), required=True, help="of a step")
    add_repeats(parser, 5)
    add_out(parser)
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    with told(parser):
        args.out.write_text(json.dumps(learning(args.network, args.device, args.images, args.repeats)))


if __name__ == "__main__":
    main()
