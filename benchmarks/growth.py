# SPDX-License-Identifier: Apache-2.0
"""How cost grows with hypotheses, layers, masks, frames and cameras, and its distance from the machine's own rates."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.arguments import add_device, add_out, add_repeats
from benchmarks.forced import force
from benchmarks.frames import frames
from benchmarks.methods import LAYERS, PASSES, K
from benchmarks.timing import quantiles, seconds
from seqamodal_ros import Perceiver
from seqamodal_ros.commands.arguments import Parser
from seqamodal_ros.diffusion.fast import FastNetwork, has_centres
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import Model, load_model
from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.runtimes.bfloat16 import computes_bfloat16
from seqamodal_ros.runtimes.exported import threads
from training.endings import need_folder, told

SIDES = {"480p": (480, 640), "720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}


def growth(model: str, device: str, runtime: str, repeats: int) -> dict[str, dict[str, float]]:
    """p50 of a frame, milliseconds, of five forced layers, K = 3, 640x480 and one camera where nothing else is said."""
    image = frames()[0]

    def forced(layers: int, perceiver: Perceiver | None = None) -> Perceiver:
        found = perceiver or Perceiver.load(model, device, runtime=runtime, max_layers=layers + 1)
        force(found, layers)
        return found

    def p50(call: Any, repeats: int = repeats) -> float:
        return quantiles(seconds(call, repeats))["p50_ms"]

    def a_frame(perceiver: Perceiver, samples: int = K) -> float:
        return p50(lambda: perceiver(image, samples))

    masks = {}  # first, as exports leave PyTorch one thread
    shipped = load_model(model).settings
    for side in (64, 128, 256):
        image_size = shipped.network.image_size * side // shipped.network.mask_size
        network = FastNetwork(replace(shipped.network, image_size=image_size, mask_size=side)).eval().requires_grad_(False)
        settings = replace(shipped, network=network.settings, sequence=SequenceSettings(PASSES))
        perceiver = Perceiver(Model(network, settings, "random"), device, "letterbox", "torch", lambda: None)
        large = forced(LAYERS, perceiver)
        masks[str(side)] = p50(lambda large=large: large(image, K), -(-repeats // 5))  # as these take seconds
    five = forced(LAYERS)
    sides = {name: np.zeros((*each, 3), np.uint8) for name, each in SIDES.items()}
    return {
        "hypotheses": {str(k): a_frame(five, k) for k in (1, 3, 5, 7, 9)},
        "layers": {str(count): a_frame(forced(count)) for count in (1, 2, 3, 4, 5, 6, 7)},
        "frames, masks to source size": {name: p50(lambda i=i: five(i, K).label()) for name, i in sides.items()},
        "cameras, as a batch": {str(n): p50(lambda n=n: five.batch([image] * n, K)) for n in (1, 2, 4, 8)},
        "masks, random weights in torch": masks,
    }


def floor(model: str, device: str, runtime: str, repeats: int) -> dict[str, Any]:
    """Operations and bytes of a frame of five layers over what the machine does by itself, and the share that is reached."""
    five = Perceiver.load(model, device, runtime=runtime, max_layers=PASSES)
    network, settings = five.model.network, five.model.settings
    forced = force(five, LAYERS)
    shown = frames()[0]
    frame = quantiles(seconds(lambda: five(shown, K), repeats))["p50_ms"]  # first: PyTorch's threads would linger
    side, masks = settings.network.image_size, settings.network.mask_size
    image = torch.zeros(1, 3, side, side, device=device)
    x = torch.zeros(1, 1, masks, masks, device=device)
    layers = x.expand(LAYERS, -1, -1, -1)
    with torch.no_grad():
        features = network.encode(image)
        row = (x, torch.zeros(1, dtype=torch.long, device=device), x, features)
        of_layers = tuple(f.expand(LAYERS, -1, -1, -1) for f in features[network.conditions :])
        encoding = counted(network, lambda: network.encode(image))
        denoising = counted(network, lambda: network.denoise(*row))
        centring = counted(network, lambda: network.to_centres(layers, layers, of_layers)) if has_centres(network) else (0, 0)
    views = 2 if settings.mirror else 1
    calls, rows = forced.denoises // forced.encodes, forced.rows // forced.encodes
    operations, activations = (
        views * (encodes + rows * a_row + centres) for encodes, a_row, centres in zip(encoding, denoising, centring, strict=True)
    )
    counts = {part: sum(p.numel() for p in each.parameters()) for part, each in network.named_children()}
    weights = 4 * sum(count * (calls if part == "denoiser" else 1) for part, count in counts.items())
    torch.set_num_threads(threads())  # a runtime may have taken all but one
    rates = {"float32": matrix_rate(torch.float32, device)}
    if computes_bfloat16(device):
        rates["bfloat16"] = matrix_rate(torch.bfloat16, device)
    if max(rates, key=lambda kind: rates[kind]) == "bfloat16":
        weights, activations = weights / 2, activations / 2
    copy = copy_rate(device)
    best = 1000 * max(operations / max(rates.values()), weights / copy)
    return {
        "gflop_encode": views * encoding[0] / 1e9,
        "gflop_row": views * denoising[0] / 1e9,
        "gflop_centres": views * centring[0] / 1e9,
        "rows": rows,
        "gflop_frame": operations / 1e9,
        "megabytes_weights": weights / 1e6,
        "megabytes_activations": activations / 1e6,
        "gflops": {kind: rate / 1e9 for kind, rate in rates.items()},
        "gigabytes_a_second_copied": copy / 1e9,
        "floor_ms": best,
        "frame_ms": frame,
        "share": best / frame,
    }


def counted(network: nn.Module, call: Callable[[], object]) -> tuple[int, int]:
    """Operations of a call, and the bytes that go into its convolutions and out of them."""
    moved = 0

    def hook(module: nn.Module, given: tuple[torch.Tensor, ...], answer: torch.Tensor) -> None:
        nonlocal moved
        moved += given[0].nbytes + answer.nbytes

    hooks = [each.register_forward_hook(hook) for each in network.modules() if isinstance(each, nn.Conv2d)]
    with FlopCounterMode(display=False) as counter:
        call()
    for each in hooks:
        each.remove()
    return counter.get_total_flops(), moved


def matrix_rate(kind: torch.dtype, device: str) -> float:
    """Operations a second of a square matrix product, large enough to keep the device busy for a while."""
    side = 8192 if device == "cuda" else 2048
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return 2 * side**3 / _best(lambda: a @ b, device)


def copy_rate(device: str) -> float:
    """Bytes a second read and written by a copy."""
    count = 2**28 if device == "cuda" else 2**26
    a, b = (torch.zeros(count, device=device) for _ in range(2))
    return 8 * count / _best(lambda: b.copy_(a), device)


def _best(call: Any, device: str) -> float:
    def timed() -> float:
        began = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    return min(timed() for _ in range(6))


def main() -> None:
    parser = Parser(prog="python -m benchmarks.growth", description=__doc__)
    parser.add_argument("what", choices=["growth", "floor"])
    parser.add_argument("--model", default="default")
    add_device(parser)
    parser.add_argument("--runtime", default="torch", choices=RUNTIMES)
    add_repeats(parser, 20)
    add_out(parser)
    args = parser.parse_args()
    need_folder(parser, args.out, "--out")
    with told(parser):
        call = growth if args.what == "growth" else floor
        args.out.write_text(json.dumps(call(args.model, args.device, args.runtime, args.repeats)))


if __name__ == "__main__":
    main()
