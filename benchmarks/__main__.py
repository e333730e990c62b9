# SPDX-License-Identifier: Apache-2.0
"""What `make bench` runs: ways to layers on the same images in one run, how cost grows, training, ROS; tables and a plot."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch

from benchmarks.arguments import add_device
from benchmarks.page import MARK, PAGE, not_run, plot, text
from benchmarks.timing import accelerator, machine
from seqamodal_ros import Perceiver
from seqamodal_ros.commands.arguments import Parser, one_line, whole_number
from seqamodal_ros.diffusion.weights import Model, load_model, shipped
from seqamodal_ros.runtimes.bfloat16 import computes_bfloat16
from seqamodal_ros.runtimes.choice import BFLOAT16, OF_EXPORTS
from seqamodal_ros.runtimes.exported import export_folder, read_card, threads

OUT = Path("bench_out")
IMAGES = {"cpu": {"fast": 16, "paper": 2}, "cuda": {"fast": 128, "paper": 64}}  # of a step of training


def child(out: Path, module: str, *arguments: str) -> dict[str, Any]:
    """What a module of benchmarks/ measured, in a process of its own; why there is nothing, where it fails."""
    file = out / "part.json"
    file.unlink(missing_ok=True)
    done = subprocess.run([sys.executable, "-m", module, *arguments, "--out", str(file)], stderr=subprocess.PIPE, text=True)
    if not file.is_file():
        return {"missing": _last_line(done)}
    return json.loads(file.read_text())


def export_missing(models: Iterable[str], cache: Path) -> dict[str, str]:
    """Export the models that have none in `cache`, the benchmark's own; of those that cannot be exported, why.

    From here on it is the cache of this process and of those that it starts: a user's node keeps the runtime that it has.
    """
    os.environ["XDG_CACHE_HOME"] = str(cache.absolute())
    failed = {}
    for model in models:
        loaded = load_model(model)
        try:
            read_card(export_folder(loaded.model_id), loaded, model)
        except (OSError, ValueError):  # there is none, or it is of before
            print(f"exporting {model}", flush=True)
            command = [sys.executable, "-m", "seqamodal_ros", "export", "--model", model]
            done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if done.returncode:
                failed[model] = _last_line(done)
    return failed


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    """What a process that failed said last."""
    return (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]


def others_to(model: Model) -> list[str]:
    """Names of shipped models, one of each shape, as those of one shape take the same time; a given model's own is left out."""
    named = {name: load_model(name) for name in shipped() if name != "default"}
    first: dict[str, str] = {_shape(model): ""}
    for name, each in named.items():
        first.setdefault(_shape(each), name)
    return list(filter(None, first.values()))


def _shape(model: Model) -> str:
    """What the time of a frame depends on."""
    s = model.settings
    return repr((s.network, s.mirror))


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


def main(argv: list[str] | None = None) -> int:
    """Run all; returns 0, 1 where the page was to be written and parts of it were not run, 2 where nothing can be measured."""
    parser = Parser(prog="make bench", description=__doc__)
    parser.add_argument("--model", default="default", help="a name in models/manifest.yaml, or a .safetensors file")
    add_device(parser)
    parser.add_argument("--repeats", type=whole_number(1, 1000), default=5, help="of each sample frame (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help=f"write {PAGE.parent.name}/{PAGE.name}, its plot and its JSON")
    args = parser.parse_args(argv)
    try:
        others = others_to(Perceiver.load(args.model, args.device, runtime="torch").model)
        OUT.mkdir(exist_ok=True)
    except (OSError, ValueError, torch.OutOfMemoryError) as error:
        parser.error(one_line(error))
    unexported = export_missing([args.model, *others], OUT / "cache") if args.device == "cpu" else {}
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

    def of_steps(named: str, model: str, runtime: str) -> None:
        """`ours` in one, two and four sampling steps."""
        why = unexported.get(model) if runtime in OF_EXPORTS else None
        for steps in (1, 2, 4):
            name = f"{named}, {steps} step{'s' * (steps > 1)}, {runtime}"
            settings = ("--model", model, "--runtime", runtime, "--steps", str(steps), "--repeats", str(args.repeats))
            arguments = ("ours", "--device", args.device, *settings)
            tell(found["methods"], name, name, {"missing": why} if why else child(OUT, "benchmarks.methods", *arguments))

    for name, method in {
        "peer: diffusers, 1000 steps": "peer",
        "paper's sampler, ours, 1000 steps": "paper",
        "DDIM, 50 steps, the paper's network": "ddim",
    }.items():
        tell(found["methods"], name, name, child(OUT, "benchmarks.methods", method, *common))
    runtimes = ["torch", *([BFLOAT16] if computes_bfloat16(args.device) else []), *(OF_EXPORTS if args.device == "cpu" else [])]
    for runtime in runtimes:
        of_steps("ours", args.model, runtime)
    best = perceiver.runtime
    for model in others:
        of_steps(f"ours, {model}", model, best)
    for what in ("growth", "floor"):
        tell(found, what, what, child(OUT, "benchmarks.growth", what, *common, "--runtime", best))
    found["runtime"], found["steps"] = best, perceiver.model.settings.sampling_steps
    found["learning"] = {}
    for network, images in IMAGES[args.device].items():
        arguments = (network, "--device", args.device, "--images", str(images))
        tell(found["learning"], network, f"training of `{network}`", child(OUT, "benchmarks.learning", *arguments))
    tell(found, "ros", "ROS overhead and stillness", shell_and_stillness(args.model, args.device))
    print("\n" + text(found))
    lacking = not_run(found)
    write = args.write and not lacking
    written = [OUT / "performance", *([PAGE.with_suffix("")] if write else [])]
    for each in written:
        each.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
        plot(found, each.with_suffix(".png"))
    if write:
        PAGE.write_text(PAGE.read_text().partition(MARK)[0] + f"{MARK}\n\n{text(found)}")
    elif args.write:
        reasons = "; ".join(f"{name} ({why})" for name, why in lacking.items())
        print(
            f"{PAGE.parent.name}/{PAGE.name} is left as it was, as this was not run: {reasons}. What was is in {OUT}/",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
