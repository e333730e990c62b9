# SPDX-License-Identifier: Apache-2.0
"""What `make bench` runs: ways to layers on the same images in one run, how cost grows, training, ROS; tables and a plot."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import MARK, PAGE, plot, text
from benchmarks.timing import accelerator, machine
from seqamodal_ros import Perceiver
from seqamodal_ros.diffusion.weights import shipped
from seqamodal_ros.perceiver import RUNTIMES
from seqamodal_ros.runtimes.exported import threads

OUT = Path("bench_out")
IMAGES = {"cpu": {"fast": 16, "paper": 2}, "cuda": {"fast": 128, "paper": 64}}  # of a step of training


def child(out: Path, module: str, *arguments: str) -> dict[str, Any]:
    """What a module of benchmarks/ measured, in a process of its own; why there is nothing, where it fails."""
    file = out / "part.json"
    file.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", module, *arguments, "--out", str(file)], stderr=subprocess.PIPE, text=True)
    if not file.is_file():
        return {"missing": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return json.loads(file.read_text())


def shell_and_stillness(model: str, device: str) -> dict[str, Any]:
    """What needs ROS; why there is nothing, where there is none."""
    try:
        from benchmarks.shell import shell, stillness
    except ImportError as error:
        return {"missing": f"cannot import {error.name}"}
    found: dict[str, Any] = {}
    for measure in (shell, stillness):
        try:
            found |= measure(model, device)
        except TimeoutError as error:
            found["missing"] = str(error)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--model", default="default")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--repeats", type=int, default=5, help="of each sample frame (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}, its plot and its JSON")
    args = parser.parse_args()
    OUT.mkdir(exist_ok=True)
    perceiver = Perceiver.load(args.model, args.device)
    common = ("--model", args.model, "--device", args.device)
    began = time.monotonic()
    where = f"{machine()}, {threads()} threads{accelerator(args.device)}"
    about = f"{time.strftime('%Y-%m-%d')}; {where}; `{perceiver.model_id[:40]}` on {args.device}"
    found: dict[str, Any] = {"about": about, "methods": {}}

    def tell(where: dict[str, Any], key: str, name: str, result: dict[str, Any]) -> None:
        where[key] = result  # and written, so that it is not lost with what follows
        (OUT / "performance.json").write_text(json.dumps(found, indent=1) + "\n")
        said = result.get("missing") or (f"{result['p50_ms']:,.0f} ms a frame" if "p50_ms" in result else "done")
        print(f"{time.monotonic() - began:5.0f} s  {name}: {said}", flush=True)

    for name, method in {
        "peer: diffusers, 1000 steps": "peer",
        "paper's sampler, ours, 1000 steps": "paper",
        "DDIM, 50 steps, the paper's network": "ddim",
    }.items():
        tell(found["methods"], name, name, child(OUT, "benchmarks.methods", method, *common))
    runtimes = [each for each in RUNTIMES if each != "auto" and (args.device == "cpu" or each.startswith("torch"))]
    for runtime in runtimes:
        for steps in (1, 2, 4):
            name = f"ours, {steps} step{'s' * (steps > 1)}, {runtime}"
            arguments = ("ours", *common, "--runtime", runtime, "--steps", str(steps), "--repeats", str(args.repeats))
            tell(found["methods"], name, name, child(OUT, "benchmarks.methods", *arguments))
    best = perceiver.runtime
    for model, (path, _) in shipped().items():
        if model == "default" or path.stem == perceiver.model_id.partition("@")[0]:
            continue
        for steps in (1, 2, 4):
            name = f"ours, {model}, {steps} step{'s' * (steps > 1)}, {best}"
            arguments = ("ours", "--model", model, "--device", args.device, "--runtime", best, "--steps", str(steps))
            tell(found["methods"], name, name, child(OUT, "benchmarks.methods", *arguments, "--repeats", str(args.repeats)))
    for what in ("growth", "floor"):
        tell(found, what, what, child(OUT, "benchmarks.growth", what, *common, "--runtime", best))
    found["runtime"], found["steps"] = best, perceiver.model.settings.sampling_steps
    found["learning"] = {}
    for network, images in IMAGES[args.device].items():
        arguments = (network, "--device", args.device, "--images", str(images))
        tell(found["learning"], network, f"training of `{network}`", child(OUT, "benchmarks.learning", *arguments))
    tell(found, "ros", "ROS shell and stillness", shell_and_stillness(args.model, args.device))
    print("\n" + text(found))
    written = [OUT / "performance", *([PAGE.with_suffix("")] if args.write else [])]
    for each in written:
        each.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        plot(found, each.with_suffix(".png"))
    if args.write:
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + f"{MARK}\n\n{text(found)}")


if __name__ == "__main__":
    main()
