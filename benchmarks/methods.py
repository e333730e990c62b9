# SPDX-License-Identifier: Apache-2.0
"""One method of `make bench`, in a process of its own, so that neither memory nor threads are another's."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks.arguments import add_device, add_out, add_repeats
from benchmarks.forced import PARTS, force
from benchmarks.frames import frames
from benchmarks.timing import peak_memory, quantiles, seconds
from seqamodal_ros import Perceiver
from seqamodal_ros.commands.arguments import Parser, whole_number
from seqamodal_ros.diffusion.adapter import conditioned, normalised, signed
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.samplers import SAMPLERS
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import Model, ModelSettings
from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.runtimes import choice
from seqamodal_ros.share import share_folder
from training.endings import need_folder, told

LAYERS, PASSES, K = 5, 6, 3  # the blank sixth is drawn, too
SLICE = 3  # network calls of the large networks that are timed on a CPU; the rest is extrapolated
Result = dict[str, Any]


def ours(model: str, device: str, runtime: str, steps: int, repeats: int) -> Result:
    """The `fast` network: frames of five forced layers, image in to scene out; and what it sees where nothing is forced."""
    images = frames()
    logging.getLogger(choice.__name__).addHandler(told := Told())
    perceiver = Perceiver.load(model, device, runtime=runtime, sampling_steps=steps, max_layers=PASSES)
    if perceiver.runtime != runtime:
        return {"missing": told.why}
    perceiver.warm_up(K)  # as the node does while it configures
    forced = force(perceiver, LAYERS)
    began = time.perf_counter()
    perceiver(images[0], K)
    first = time.perf_counter() - began
    calls: Result = {"encodes": forced.encodes, "denoises": forced.denoises, "centrings": forced.centrings}
    forced.spent.clear()
    taken = [each for image in images for each in seconds(lambda image=image: perceiver(image, K), repeats)]
    if device == "cpu":
        frames_seen = len(images) * (repeats + 1)  # `seconds` leaves out one of each image
        parts = {part: 1000 * forced.spent[part] / frames_seen for part in PARTS}
        calls["parts_ms"] = parts | {"all else": 1000 * float(np.mean(taken)) - sum(parts.values())}
    memory = peak_memory(device)
    seen = Perceiver.load(model, device, runtime=runtime, sampling_steps=steps)
    figures = iou_of_layers([seen(image, K, index).amodal for index, image in enumerate(images)])
    return {**calls, **quantiles(taken), "first_ms": 1000 * first, **memory, **figures}


class Told(logging.Handler):
    """Keeps why a runtime is unavailable, which is the first that is said of the choice of one."""

    why = ""

    def emit(self, record: logging.LogRecord) -> None:
        """A warning; without what is taken instead, as here nothing is."""
        self.why = self.why or " ".join(record.getMessage().partition(": falling back")[0].split())


def iou_of_layers(predicted: list[np.ndarray]) -> Result:
    """Conditional IOU of the sample frames' layers, percent."""
    from training.data.samples import read_samples
    from training.evaluate import sample_scene
    from training.metrics import layer_figures

    truth = [sample_scene(sample, 64).layers for sample in read_samples(share_folder("samples"))]
    deepest = max(map(len, truth))
    return {"iou": [100 * layer_figures(predicted, truth, layer).iou for layer in range(1, deepest + 1)]}


def paper(sampler: str, steps: int, device: str) -> Result:
    """The paper's network, ours, with a sampler of ours; random weights, as none are trained. On a GPU as `auto` has it."""
    model = Model(PaperNetwork(PaperSettings()).eval(), ModelSettings(PaperSettings()), "random")
    network, runtime, _ = choice.network_on(model, device, "auto" if device == "cuda" else "torch")
    schedule = Schedule.linear()
    features = network.encode(normalised(torch.from_numpy(frames()[0][:256, :256]).permute(2, 0, 1)[None].to(device)))
    features = tuple(f.expand(K, -1, -1, -1) for f in features)
    blank = signed(torch.zeros(K, 1, 64, 64, dtype=torch.bool, device=device))

    def draw() -> torch.Tensor:
        return torch.randn(K, 1, 64, 64, device=device)

    def calls(stop: int) -> None:
        left = stop

        def before_call() -> None:
            nonlocal left
            if left == 0:
                raise StopIteration
            left -= 1

        try:
            SAMPLERS[sampler](conditioned(network, schedule, blank, features), draw, schedule, steps, before_call)
        except StopIteration:
            pass

    return {"runtime": runtime, **sliced(calls, steps, device)}


def of_the_peer(device: str) -> Result:
    """diffusers: the paper's U-Net and its sampling in 1000 steps, float32, eager, K as a batch."""
    from benchmarks import peer

    network = peer.unet().to(device).eval()
    condition, generator = torch.randn(K, 4, 64, 64, device=device), torch.Generator(device)
    return sliced(lambda count: peer.sample(network, condition, generator, count), peer.STEPS, device)


def sliced(calls: Callable[[int], object], steps: int, device: str) -> Result:
    """Time of a frame of `PASSES` layers of `steps` calls each: whole on a GPU, extrapolated from a slice on a CPU."""
    passes = [SLICE] if device == "cpu" else [steps] * PASSES
    calls(1)
    began = time.perf_counter()
    for count in passes:
        calls(count)
    if device == "cuda":
        torch.cuda.synchronize()
    a_call = (time.perf_counter() - began) / sum(passes)
    frame = 1000 * a_call * PASSES * steps
    return {
        "encodes": 0, "denoises": PASSES * steps, "centrings": 0, "p50_ms": frame, "p95_ms": None, "call_ms": 1000 * a_call,
        "extrapolated": device == "cpu", **peak_memory(device),
    }  # fmt: skip


def main() -> None:
    parser = Parser(prog="python -m benchmarks.methods", description=__doc__)
    parser.add_argument("method", choices=["peer", "paper", "ddim", "ours"])
    parser.add_argument("--model", default="default")
    add_device(parser)
    parser.add_argument("--runtime", default="torch", choices=RUNTIMES)
    parser.add_argument("--steps", type=whole_number(1, 1000), default=2)
    add_repeats(parser, 3)
    add_out(parser)
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    with told(parser):
        if args.method == "peer":
            result = of_the_peer(args.device)
        elif args.method == "ours":
            result = ours(args.model, args.device, args.runtime, args.steps, args.repeats)
        else:
            sampler, steps = ("ancestral", 1000) if args.method == "paper" else ("ddim", 50)
            result = paper(sampler, steps, args.device)
        args.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
