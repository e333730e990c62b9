# SPDX-License-Identifier: Apache-2.0
"""Training in real processes: two that make one run, and one that is killed while it writes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from seqamodal_ros.diffusion.fast import FastNetwork
from seqamodal_ros.diffusion.weights import ModelSettings, load_model, save_model
from training.data.sets import composite_set
from training.settings import read_settings

ROOT = Path(__file__).parents[2]


def config(path: Path, channels: int, mask_size: int = 16, **loop) -> Path:
    sizes = {"image_size": 4 * mask_size, "mask_size": mask_size}
    settings = {
        "network": {**sizes, "encoder_channels": [channels] * 4, "denoiser_channels": [channels] * 3},
        "backbone": {"imagenet": False, "frozen_stages": 0},
        "composites": {**sizes, "area_min": 2},
        "objective": {"own_from": 10},
        "loop": {"workers": 0, "bfloat16": False, **loop},
    }
    path.write_text(yaml.safe_dump(settings))
    return path


def command(launcher: list[str], described: Path, data: Path, out: Path) -> list[str]:
    words = [*launcher, "-m", "training.train", described, "--data", data, "--sprites", data / "rendered", "--out", out]
    return [str(word) for word in (*words, "--resume")]


def train(launcher: list[str], described: Path, data: Path, out: Path) -> subprocess.CompletedProcess:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_CACHE_DIR": f"{out}_compiled"}
    words = command(launcher, described, data, out)
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


TWO = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def test_two_processes_make_the_run_of_one(tmp_path, data):
    """The same losses and the same weights, but for the order of sums; the model's own cumulative masks among them."""
    described = config(tmp_path / "two.yaml", 8, steps=20, batch_size=4, parts=2, warmup=5, log_every=20)
    for name, launcher in (("one", [sys.executable]), ("two", TWO)):
        done = train(launcher, described, data, tmp_path / name)
        assert done.returncode == 0, done.stderr
    one, two = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("one", "two"))
    (first,), (second,) = (
        [json.loads(line) for line in (tmp_path / name / "log.jsonl").read_text().splitlines()] for name in ("one", "two")
    )
    assert second["loss"] == pytest.approx(first["loss"], rel=1e-5)
    assert one["step"] == two["step"] == 20
    for name, value in one["network"].items():
        assert torch.allclose(value, two["network"][name], atol=5e-3), name
    config(described, 8, steps=21, batch_size=4, parts=2, warmup=5)
    again = train(TWO, described, data, tmp_path / "two")  # goes on
    assert again.returncode == 0, again.stderr
    assert torch.load(tmp_path / "two" / "checkpoint.pt", weights_only=True)["step"] == 21


def test_processes_that_cannot_share_a_batch_say_so(tmp_path, data):
    described = config(tmp_path / "three.yaml", 8, steps=2, batch_size=3, parts=3)
    done = train(TWO, described, data, tmp_path / "run")
    assert done.returncode != 0
    assert "2 processes cannot share 3 parts of a batch evenly: set `loop: {parts: 2}`, or a multiple of it" in done.stderr


def test_a_kill_in_the_middle_of_writing_leaves_the_last_checkpoint(tmp_path, data):
    """The network is large enough for the write to take a while; the kill comes when the file beside the checkpoint appears."""
    out = tmp_path / "run"
    described = config(tmp_path / "kill.yaml", 160, steps=1000, batch_size=1, checkpoint_every=1)
    process = subprocess.Popen(command([sys.executable], described, data, out), cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 200
        while not (out / "checkpoint.pt").is_file() and time.monotonic() < deadline:
            time.sleep(0.01)
        while not (out / "checkpoint.part").is_file() and time.monotonic() < deadline:
            pass  # the file is there for a tenth of a second
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    finally:
        process.kill()
    assert process.returncode == -signal.SIGKILL
    assert (out / "checkpoint.part").is_file()  # half-written
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert step >= 1
    config(described, 160, steps=step + 1, batch_size=1, checkpoint_every=1)
    done = train([sys.executable], described, data, out)
    assert done.returncode == 0, done.stderr
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] == step + 1
    assert not (out / "checkpoint.part").exists()


def test_compiled_code_makes_the_same_run(tmp_path, data):
    """Of the smallest network there is, as compiling takes its time."""
    for name, compiled in (("eager", False), ("compiled", True)):
        path = config(tmp_path / f"{name}.yaml", 8, steps=2, batch_size=2, compile=compiled)
        settings = yaml.safe_load(path.read_text())
        paper = {"kind": "paper", "mask_size": 16, "channels": 32, "multipliers": [1]}
        path.write_text(yaml.safe_dump({**settings, "network": paper, "objective": {"kind": "paper"}}))
        done = train([sys.executable], path, data, tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "compiled_compiled").rglob("*.cpp"))
    assert not list(tmp_path.glob("eager_compiled/**/*.cpp"))
    first, second = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True) for name in ("eager", "compiled"))
    assert first["network"].keys() == second["network"].keys()
    for name, value in first["network"].items():
        assert torch.allclose(value, second["network"][name], atol=1e-4), name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_all_processes_of_a_run_leaves_a_checkpoint(tmp_path, data, number):
    """As systemd and Slurm send it, and Ctrl-C in a terminal: to those that draw batches, too."""
    out = tmp_path / "run"
    described = config(tmp_path / "long.yaml", 8, steps=100000, batch_size=1, workers=1, log_every=2)
    words = command([sys.executable], described, data, out)
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        deadline = time.monotonic() + 200
        while not (out / "log.jsonl").is_file() or not (out / "log.jsonl").stat().st_size:  # two steps are done
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)
        os.killpg(process.pid, number)
        stdout, stderr = process.communicate(timeout=100)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    assert "--resume goes on there" in stdout
    assert torch.load(out / "checkpoint.pt", weights_only=True)["step"] >= 2


@pytest.mark.parametrize("begun", [False, True])
def test_one_call_trains_exports_and_measures(tmp_path, data, material, begun):
    """And what it exports is sampled as the weights that it began with, if any."""
    composite_set(tmp_path / "test", material, "test", 2, 0, 256, mixed=True, stratified=False)
    described = config(tmp_path / "trip.yaml", 8, mask_size=64, steps=2, batch_size=1)
    words = ["sh", "training/trip.sh", described, "10", tmp_path / "test", tmp_path / "out", "--data", data]
    words += ["--sprites", data / "rendered"]
    if begun:
        network = FastNetwork(read_settings(described).network)
        weights = tmp_path / "begun.safetensors"
        save_model(weights, network.state_dict(), ModelSettings(network.settings, mirror=True, bias=0.5))
        words += ["--init", weights]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    done = subprocess.run([*map(str, words)], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out.run" / "checkpoint.pt").is_file()
    brought = {file.name: file.stat().st_size for file in (tmp_path / "out").iterdir()}
    assert brought.keys() >= {"weights.safetensors", "figures.json", "figures.md", "log.jsonl", "seen.png"}
    assert max(brought.values()) <= 16e6
    assert json.loads((tmp_path / "out" / "figures.json").read_text())["figures"][0]["images"] == 2
    settings = load_model(str(tmp_path / "out" / "weights.safetensors")).settings
    assert (settings.mirror, settings.bias) == ((True, 0.5) if begun else (False, 0.0))
