# SPDX-License-Identifier: Apache-2.0
"""The paper's 1000 steps by us and by the peer, of the same weights and noise; `python -m benchmarks.same_weights --help`."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.arguments import add_device
from seqamodal_ros.commands.arguments import Parser, one_line, whole_number
from seqamodal_ros.diffusion.adapter import conditioned, normalised, signed
from seqamodal_ros.diffusion.paper import PaperNetwork
from seqamodal_ros.diffusion.samplers import ancestral
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import load_model
from seqamodal_ros.runtimes.choice import network_on
from training.data.packed import evenly, to_measure_on
from training.endings import need_folder
from training.metrics import iou

RUNTIMES = ("torch", "torch-bf16")  # those that leave PyTorch, and so the peer, its threads


def compare(model: Path, packed: Path, device: str, images: int, samples: int, runtime: str) -> dict[str, Any]:
    """Seconds of the first layer of each image, K hypotheses as a batch, by both; and how far their masks agree.

    Raises:
        ImportError: there is no diffusers.
        OSError, ValueError: model or set cannot be read, or the model is not of the paper's network with `scaling: ours`, or
            looks at mirror images.
    """
    from benchmarks import peer

    loaded, scenes = load_model(str(model)), to_measure_on(packed)
    if not isinstance(loaded.network, PaperNetwork) or loaded.settings.network.scaling != "ours" or loaded.settings.mirror:
        raise ValueError(f"{model} is not of the paper's network with `scaling: ours` and no mirror images")
    side = loaded.settings.network.mask_size
    if scenes.meta["image_size"] % side:
        raise ValueError(f"images of {packed} are {scenes.meta['image_size']} a side, no multiple of the model's {side}")
    theirs = peer.with_weights_of(loaded.network).to(device)
    ours, taken, _ = network_on(loaded, device, runtime)
    schedule = Schedule.linear()
    seconds: dict[str, list[float]] = {"ours": [], "peer": []}
    overlaps = []
    for number in (chosen := evenly(len(scenes), images)):
        image = torch.from_numpy(np.ascontiguousarray(scenes[number].image.transpose(2, 0, 1)))[None].to(device)
        features = tuple(f.expand(samples, -1, -1, -1) for f in ours.encode(normalised(image)))
        blank = signed(torch.zeros(samples, 1, side, side, dtype=torch.bool, device=device))
        denoise = conditioned(ours, schedule, blank, features)
        condition = torch.cat([features[0].float(), blank], dim=1)

        def by_us(generator: torch.Generator, denoise=denoise, blank=blank) -> Tensor:
            return ancestral(denoise, lambda: torch.randn(blank.shape, device=device, generator=generator), schedule, peer.STEPS)

        def by_the_peer(generator: torch.Generator, condition=condition) -> Tensor:
            return peer.sample(theirs, condition, generator, peer.STEPS)

        if number == chosen[0]:
            denoise(blank, torch.zeros(samples, dtype=torch.long, device=device))  # kernels are chosen, and graphs recorded
            peer.sample(theirs, condition, torch.Generator(device), calls=3).cpu()
        drawn = {}
        for name, call in {"ours": by_us, "peer": by_the_peer}.items():
            drawn[name], spent = _timed(call, torch.Generator(device).manual_seed(number))
            seconds[name].append(spent)
        pairs = zip(drawn["ours"][:, 0] > 0, drawn["peer"][:, 0] > 0, strict=True)
        overlaps += [float(np.nan_to_num(iou(*pair), nan=1.0)) for pair in pairs]  # two blank masks agree
        print(
            f"image {number}: {seconds['ours'][-1]:.2f} s and {seconds['peer'][-1]:.2f} s, IOU {overlaps[-samples:]}", flush=True
        )
    ratio = sum(seconds["peer"]) / sum(seconds["ours"])
    return {"runtime": taken, "seconds": seconds, "ratio": ratio, "iou": overlaps, "mean_iou": float(np.mean(overlaps))}


def _timed(call: Callable[[torch.Generator], Tensor], generator: torch.Generator) -> tuple[np.ndarray, float]:
    began = time.perf_counter()
    answer = call(generator).cpu().numpy()  # which waits for it
    return answer, time.perf_counter() - began


def main() -> None:
    on_gpu = torch.cuda.is_available()
    parser = Parser(prog="python -m benchmarks.same_weights", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="weights of the paper's network, .safetensors")
    parser.add_argument("--set", type=Path, required=True, help="a packed set to take images of, not one for training")
    parser.add_argument("--images", type=whole_number(1, 10**6), default=2, help="default: %(default)s")
    parser.add_argument("--samples", type=whole_number(1, 1000), default=3, help="K (default: %(default)s)")
    add_device(parser)
    parser.add_argument("--runtime", default=RUNTIMES[on_gpu], choices=RUNTIMES, help="of ours (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file for the result, JSON")
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    try:
        result = compare(args.model, args.set, args.device, args.images, args.samples, args.runtime)
    except ImportError as error:
        parser.error(f"{error}: pip install -r requirements/test.txt")
    except (OSError, ValueError) as error:
        parser.error(str(error))
    except torch.OutOfMemoryError as error:
        parser.error(f"out of GPU memory: give fewer --samples, or --device cpu ({one_line(error)})")
    print(f"{result['ratio']:.1f} times as fast by {result['runtime']}, masks agree to an IOU of {result['mean_iou']:.4f}")
    if args.out:
        args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
