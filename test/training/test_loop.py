# SPDX-License-Identifier: Apache-2.0
"""The loop: a run that was interrupted ends in the very weights of one that was not."""

import json
import math
import multiprocessing
import os
import pickle
import re
import resource
import signal
import subprocess
import sys
import time
from argparse import Namespace
from dataclasses import asdict, fields, replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import training.begin
import training.data.packed
import training.loop
from seqamodal_ros.diffusion.adapter import normalised
from seqamodal_ros.diffusion.fast import FastNetwork, FastSettings
from seqamodal_ros.diffusion.paper import PaperNetwork, PaperSettings
from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.sequence import SequenceSettings
from seqamodal_ros.diffusion.weights import ModelSettings, load_model
from training.begin import begin
from training.data.batches import Batch, SceneBatches, union
from training.data.compositor import CompositeSettings, Compositor
from training.data.packed import PackedScenes
from training.data.scene import SceneRules
from training.hybrid import HybridSettings
from training.loop import LoopSettings, Run, learning_rate
from training.objective import ObjectiveSettings
from training.pretrained import BackboneSettings
from training.record import Record
from training.settings import TrainSettings
from training.sources import check_reached, composites_reach, packed_scenes, scene_source
from training.train import method_of

from .conftest import splits_of

SMALL = FastSettings(image_size=64, mask_size=16, encoder_channels=(8, 8, 8, 8), denoiser_channels=(8, 8, 8))
COMPOSITES = CompositeSettings(image_size=64, mask_size=16, area_min=2)
RULES = {"image_size": 64, "mask_size": 16, "area_min": 2}  # of a configuration
LOOP = LoopSettings(steps=8, batch_size=2, warmup=3, checkpoint_every=4, workers=0)
METHOD = method_of(TrainSettings(network=SMALL, composites=COMPOSITES, objective=ObjectiveSettings(own_from=4)))


class Batches(SceneBatches):
    """Batches that send this process a signal while one of them is drawn."""

    interrupt_at = -1

    def __getitem__(self, index):
        if index == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().__getitem__(index)


def train(folder: Path, material, interrupt_at: int = -1, settings: LoopSettings = LOOP) -> Run:
    torch.manual_seed(0)
    run = Run(folder, FastNetwork(SMALL), settings)
    batches = Batches(Compositor(material, COMPOSITES), settings.batch_size, settings.steps, settings.seed)
    batches.interrupt_at = interrupt_at
    run.train(batches, Schedule.linear(), METHOD)
    return run


def assert_equal_weights(a: Run, b: Run) -> None:
    for name, value in a.network.state_dict().items():
        assert torch.equal(value, b.network.state_dict()[name]), name
        assert torch.equal(a.ema[name], b.ema[name]), name


def test_an_interrupted_run_ends_in_the_same_weights(tmp_path, material, capsys):
    whole = train(tmp_path / "whole", material)
    assert whole.step == 8
    first = train(tmp_path / "parts", material, interrupt_at=2)
    assert first.step == 3
    assert "interrupted at step 3" in capsys.readouterr().out
    resumed = train(tmp_path / "parts", material, interrupt_at=5)
    assert resumed.step == 6
    last = train(tmp_path / "parts", material)
    assert last.step == 8
    assert_equal_weights(whole, last)
    assert any(not torch.equal(value, first.network.state_dict()[name]) for name, value in last.network.state_dict().items())


def test_without_bfloat16_a_run_goes_on_in_float32_and_says_so(tmp_path, material, monkeypatch, capsys):
    steps = replace(LOOP, steps=2)
    asked = train(tmp_path / "float32", material, settings=replace(steps, bfloat16=False))
    assert "float32" not in capsys.readouterr().out
    monkeypatch.setattr(training.loop, "computes_bfloat16", lambda device: False)
    assert_equal_weights(asked, train(tmp_path / "bfloat16", material, settings=steps))
    assert "in float32: the cpu here does not compute in bfloat16" in capsys.readouterr().out
    monkeypatch.setattr(training.loop, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(training.loop, "slower_in_bfloat16", lambda device: True)
    assert_equal_weights(asked, train(tmp_path / "slower", material, settings=steps))
    assert "or is slower in it" in capsys.readouterr().out


def test_with_bfloat16_a_run_computes_in_it(tmp_path, material, monkeypatch, capsys):
    one = replace(LOOP, steps=1)
    exact = train(tmp_path / "float32", material, settings=replace(one, bfloat16=False))
    monkeypatch.setattr(training.loop, "computes_bfloat16", lambda device: True)
    monkeypatch.setattr(training.loop, "slower_in_bfloat16", lambda device: False)
    rounded = train(tmp_path / "bfloat16", material, settings=one)
    assert "float32" not in capsys.readouterr().out
    assert any(not torch.equal(value, rounded.network.state_dict()[name]) for name, value in exact.network.state_dict().items())


def test_settings_that_changed_hold_from_a_resume_on(tmp_path, material):
    train(tmp_path, material, interrupt_at=2)
    changed = replace(LOOP, weight_decay=0.5, backbone_share=0.9)
    resumed = Run(tmp_path, FastNetwork(SMALL), changed)
    fresh = Run(tmp_path / "fresh", FastNetwork(SMALL), changed)
    for group, asked in zip(resumed.optimiser.param_groups, fresh.optimiser.param_groups, strict=True):
        assert (group["weight_decay"], group["share"]) == (asked["weight_decay"], asked["share"])
    assert [group["share"] for group in resumed.optimiser.param_groups] == [1.0, 0.9]
    assert {group["weight_decay"] for group in fresh.optimiser.param_groups} == {0.5}
    assert resumed.optimiser.state_dict()["state"]  # its means of gradients go on


def test_a_run_of_the_paper_network_resumes_too(tmp_path, material):
    settings = replace(LOOP, steps=4, warmup=0, decay=0.0, clip=math.inf, bfloat16=False)

    def paper(folder: Path, interrupt_at: int = -1) -> Run:
        torch.manual_seed(0)
        run = Run(folder, PaperNetwork(PaperSettings(mask_size=16, channels=32, multipliers=(1,))), settings)
        batches = Batches(Compositor(material, COMPOSITES), settings.batch_size, settings.steps, settings.seed)
        batches.interrupt_at = interrupt_at
        objective = HybridSettings(noise_introduction=0.2)
        run.train(
            batches,
            Schedule.linear(),
            method_of(TrainSettings(network=run.network.settings, composites=COMPOSITES, objective=objective)),
        )
        return run

    whole = paper(tmp_path / "whole")
    assert paper(tmp_path / "parts", interrupt_at=1).step == 2
    assert_equal_weights(whole, paper(tmp_path / "parts"))


def test_parts_of_a_batch_give_the_gradient_of_the_whole(tmp_path, material):
    """The same scenes in one, two and four parts; the loss draws nothing by chance."""

    class Parts(SceneBatches):
        def __getitem__(self, index):
            parts = 4 // self.batch_size
            whole = SceneBatches(self.draw, 4, 1, self.seed)[index // parts]
            first = index % parts * self.batch_size
            return Batch(*(value[first : first + self.batch_size] for value in vars(whole).values()))

    def objective(network, batch, schedule, step):
        features = network.encode(normalised(batch.image))
        target = union(batch.amodal, batch.layers == 1)
        blank = torch.full(target.shape, -1.0)
        t = torch.full((len(target),), schedule.steps - 1)
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            network.logits(torch.zeros_like(blank), t, blank, features), target.float()
        )
        return {"loss": loss}

    runs = []
    for parts in (1, 2, 4):
        torch.manual_seed(0)
        run = Run(tmp_path / str(parts), FastNetwork(SMALL), replace(LOOP, steps=1, batch_size=4, parts=parts, bfloat16=False))
        run.train(
            Parts(Compositor(material, COMPOSITES), 4 // parts, parts, 0),
            Schedule.linear(),
            METHOD._replace(losses=objective),
        )
        runs.append(run)
    whole = [state["exp_avg"] for state in runs[0].optimiser.state.values()]  # a share of the only step's gradient
    for run in runs[1:]:
        for state, gradient in zip(run.optimiser.state.values(), whole, strict=True):
            assert torch.allclose(state["exp_avg"], gradient, rtol=1e-3, atol=1e-7)
    with pytest.raises(ValueError, match="parts must divide batch_size, 4, and 3 does not"):
        replace(LOOP, batch_size=4, parts=3)


def test_a_finished_run_stays_as_it_is(tmp_path, material):
    done = train(tmp_path, material)
    again = train(tmp_path, material)
    assert again.step == 8
    assert_equal_weights(done, again)


def test_workers_draw_the_same_batches(tmp_path, material):
    alone = train(tmp_path / "alone", material)
    assert_equal_weights(alone, train(tmp_path / "workers", material, settings=replace(LOOP, workers=2)))


def turns_of(batch):
    """A batch in all of its ways, as bytes of its images and masks."""
    ways = [batch.turned(turns, mirrored) for turns in range(4) for mirrored in (False, True)]
    return {(way.image.numpy().tobytes(), way.amodal.numpy().tobytes()) for way in ways}


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_come_again_turned(tmp_path, material, monkeypatch, workers):
    """All are new until as many are kept as can be, and every third from then on; likewise after a resume."""
    monkeypatch.setattr(training.loop, "KEPT", 2)
    settings = replace(LOOP, steps=20, batch_size=4, parts=2, again=3, workers=workers)
    batches = SceneBatches(Compositor(material, COMPOSITES), 2, 40, 0)
    turns = [turns_of(batches[index]) for index in range(40)]
    learned = []

    def losses(network, batch, schedule, step):
        learned.append((batch.image.numpy().tobytes(), batch.amodal.numpy().tobytes()))
        return METHOD.losses(network, batch, schedule, step)

    first = Run(tmp_path, FastNetwork(SMALL), settings)
    first.train(batches, Schedule.linear(), METHOD._replace(losses=losses), minutes=0)
    assert first.step == 1
    run = Run(tmp_path, FastNetwork(SMALL), settings)
    run.train(batches, Schedule.linear(), METHOD._replace(losses=losses))
    new = [0, 1, 2, 3, 6, 9, 12, 15, 18]  # step 0 by itself, then two to fill what is kept
    again = set()
    for step, parts in enumerate(zip(learned[::2], learned[1::2], strict=True)):
        if step in new:
            assert parts == tuple(
                (batches[n].image.numpy().tobytes(), batches[n].amodal.numpy().tobytes()) for n in (2 * step, 2 * step + 1)
            )
            continue
        latest = [each for each in new if 0 < each < step][-2:]
        found = [each for each in latest if all(part in turns[2 * each + k] for k, part in enumerate(parts))]
        assert len(found) == 1
        again.add((step, latest.index(found[0])))
    assert {place for _, place in again} == {0, 1}
    assert len(set(learned)) > 2 * len(new)  # some are turned


def test_a_turned_batch_shows_the_same_scenes():
    image = torch.arange(12 * 16 * 16).reshape(1, 12, 16, 16)
    amodal = image[:, :2, ::4, ::4] % 3 == 0
    batch = Batch(image, amodal, torch.eye(2, dtype=torch.bool)[None], torch.ones(1, 2, dtype=torch.int64))
    turned = batch.turned(1, mirrored=True)
    assert turned.image[0, 0, 0, 0] == image[0, 0, 0, 0]  # the corner of the mirror image at the top right comes to the top left
    assert torch.equal(turned.image, image.transpose(-1, -2)) and torch.equal(turned.amodal, amodal.transpose(-1, -2))
    assert turned.layers is batch.layers and turned.occluded_by is batch.occluded_by
    assert torch.equal(turned.turned(1, mirrored=True).image, image)


def test_a_batch_is_drawn_for_one_step_at_least():
    with pytest.raises(ValueError, match="again must be 1 or more"):
        replace(LOOP, again=0)


def test_minutes_are_kept_and_the_run_goes_on_later(tmp_path, material, capsys):
    """Zero minutes end after a step, each with a checkpoint, and the weights are those of one run."""
    whole = train(tmp_path / "whole", material)
    for step in range(1, LOOP.steps + 1):
        torch.manual_seed(0)
        run = Run(tmp_path / "parts", FastNetwork(SMALL), LOOP)
        run.train(SceneBatches(Compositor(material, COMPOSITES), 2, LOOP.steps, 0), Schedule.linear(), METHOD, minutes=0)
        assert run.step == step
    assert "time is up at step 1" in capsys.readouterr().out
    assert_equal_weights(run, whole)


def worse(steps, factor):
    """Losses that are `factor` times as large at these steps."""

    def losses(network, batch, schedule, step):
        found = METHOD.losses(network, batch, schedule, step)
        return {"loss": found["loss"] * (factor if step in steps else 1.0)}

    return METHOD._replace(losses=losses)


FINITE = 1e38  # times a loss, whose gradient is not


@pytest.mark.parametrize(("factor", "at"), [(math.nan, {6}), (math.inf, {7}), (FINITE, {5, 6})])
def test_a_loss_or_gradients_that_are_no_numbers_end_the_run_before_the_weights_take_harm(
    tmp_path, material, monkeypatch, factor, at
):
    monkeypatch.setattr(training.loop, "FEW", 2)
    run = Run(tmp_path, FastNetwork(SMALL), LOOP)
    batches = SceneBatches(Compositor(material, COMPOSITES), 2, LOOP.steps, 0)
    with pytest.raises(
        FloatingPointError, match=f"gradient .* at step {max(at)}: lower the rate; the last good checkpoint is kept"
    ):
        run.train(batches, Schedule.linear(), worse(at, factor))
    kept = torch.load(tmp_path / "checkpoint.pt", weights_only=True)
    assert kept["step"] == 4
    assert all(value.isfinite().all() for value in kept["network"].values())


def test_single_gradients_that_are_no_numbers_are_left_out(tmp_path, material, monkeypatch, capsys):
    monkeypatch.setattr(training.loop, "FEW", 2)
    torch.manual_seed(0)
    run = Run(tmp_path, FastNetwork(SMALL), replace(LOOP, steps=6, checkpoint_every=1))
    before = {}

    def losses(network, batch, schedule, step):
        averages = {f"average {name}": value.clone() for name, value in run.ema.items()}
        before[step] = averages | {name: value.clone() for name, value in network.state_dict().items()}
        return worse({2, 4}, FINITE).losses(network, batch, schedule, step)

    run.train(SceneBatches(Compositor(material, COMPOSITES), 2, 6, 0), Schedule.linear(), METHOD._replace(losses=losses))
    assert run.step == 6
    for step in range(5):
        same = all(torch.equal(value, before[step + 1][name]) for name, value in before[step].items())
        assert same == (step in (2, 4))
    assert all(value.isfinite().all() for value in run.ema.values())
    told = capsys.readouterr().out
    assert "at step 2: it is left out" in told and "at step 4: it is left out" in told


def test_a_second_signal_ends_it_at_once(tmp_path, material, monkeypatch):
    """As a step of a large network on a CPU takes minutes."""
    monkeypatch.setattr("training.loop.PATIENCE", 0.0)

    def losses(network, batch, schedule, step):
        for _ in range(2):
            time.sleep(0.01)
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("it goes on")

    run = Run(tmp_path, FastNetwork(SMALL), LOOP)
    batches = SceneBatches(Compositor(material, COMPOSITES), 2, LOOP.steps, 0)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        run.train(batches, Schedule.linear(), METHOD._replace(losses=losses))
    assert signal.getsignal(signal.SIGINT) is before
    assert not run.checkpoint.exists()


def test_a_process_that_draws_and_is_killed_ends_it_in_a_line(tmp_path, material):
    """As where memory is short."""

    def losses(network, batch, schedule, step):
        for worker in multiprocessing.active_children():
            worker.kill()
        return METHOD.losses(network, batch, schedule, step)

    settings = replace(LOOP, workers=1, steps=100)
    run = Run(tmp_path, FastNetwork(SMALL), settings)
    batches = SceneBatches(Compositor(material, COMPOSITES), 2, settings.steps, 0)
    with pytest.raises(OSError, match="a process that draws scenes ended or was killed .*there is no checkpoint yet"):
        run.train(batches, Schedule.linear(), METHOD._replace(losses=losses))


def test_a_full_disk_keeps_the_last_checkpoint(tmp_path, material):
    """A limit on the size of files stands for the disk: the write fails half-way all the same."""
    run = train(tmp_path, material)
    before = run.checkpoint.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*: make room; the last good checkpoint is kept"):
            run.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert run.checkpoint.read_bytes() == before
    assert not (tmp_path / "checkpoint.part").exists()


def test_what_a_run_writes_to_be_looked_at(tmp_path, material):
    """Losses as lines, curves and events; and a sheet of what it sees, of which there are a dozen scenes in four rows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    settings = replace(LOOP, steps=13, log_every=6, sheet_every=6)
    train(tmp_path, material, settings=settings)
    lines = list(map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()))
    assert [line["step"] for line in lines] == [6, 12]  # one for every six steps
    for line in lines:
        assert line["loss"] == pytest.approx(line["bce"] + line["dice"], rel=0.02)
        assert 0 < line["bce"] < 3
        assert line["images_per_second"] > 0
    assert cv2.imread(str(tmp_path / "seen.png")).shape == (4 * 128, 3 * 384, 3)
    curves = cv2.imread(str(tmp_path / "curves.png"))
    assert curves.shape[1] > 3 * curves.shape[0]  # three curves beside each other
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx([line["loss"] for line in lines])
    assert [event.step for event in events.Images("image, truth, seen")] == [6, 12, 13]


def test_a_line_after_a_resume_is_the_mean_of_the_steps_since(tmp_path, material):
    """Of a loss that is one everywhere."""

    def one(network, batch, schedule, step):
        losses = METHOD.losses(network, batch, schedule, step)
        return {"loss": losses["loss"] / losses["loss"].detach()}

    settings = replace(LOOP, steps=10, batch_size=1, log_every=10)
    for interrupt_at in (4, -1):
        run = Run(tmp_path, FastNetwork(SMALL), settings)
        batches = Batches(Compositor(material, COMPOSITES), 1, 10, 0)
        batches.interrupt_at = interrupt_at
        run.train(batches, Schedule.linear(), METHOD._replace(losses=one))
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert line["loss"] == pytest.approx(1)


def test_lines_of_steps_that_a_kill_took_back_are_dropped(tmp_path):
    lines = "".join(json.dumps({"step": step, "loss": 1.0}) + "\n" for step in (50, 100, 150))
    (tmp_path / "log.jsonl").write_text(lines + '{"step": 200, "lo')
    record = Record(tmp_path, 120, [])
    record.losses(150, 3.0, {"loss": 0.5})
    record.close()
    lines = list(map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines()))
    assert [(line["step"], line["loss"]) for line in lines] == [(50, 1.0), (100, 1.0), (150, 0.5)]


def test_a_damaged_log_is_named(tmp_path):
    (tmp_path / "log.jsonl").write_text('{"step": 50, "lo\n{"step": 100, "loss": 1.0}\n')
    with pytest.raises(ValueError, match="log.jsonl is damaged .*: remove it, and the run goes on"):
        Record(tmp_path, 120, [])


def test_the_moving_average_follows(tmp_path, material):
    run = train(tmp_path, material)
    assert any(not torch.equal(run.ema[name], value) for name, value in run.network.state_dict().items())
    fresh = Run(tmp_path / "fresh", FastNetwork(SMALL), LOOP)
    for name, value in fresh.network.state_dict().items():
        assert torch.equal(fresh.ema[name], value)
        assert fresh.ema[name] is not value


def test_the_average_follows_the_weights_as_the_settings_say(tmp_path, material):
    """In the first step by the decay of a beginning, 1/10, in the second by the one that is set, 0.15."""
    run = Run(tmp_path, FastNetwork(SMALL), replace(LOOP, steps=2, ema=0.15))
    seen = []

    def losses(*given):
        seen.append([{name: value.clone() for name, value in of.items()} for of in (run.network.state_dict(), run.ema)])
        return METHOD.losses(*given)

    run.train(SceneBatches(Compositor(material, COMPOSITES), 2, 2, 0), Schedule.linear(), METHOD._replace(losses=losses))
    (_, first), (once, second), (twice, third) = *seen, (run.network.state_dict(), run.ema)
    moved = 0
    for name, began in first.items():
        torch.testing.assert_close(second[name], torch.lerp(began, once[name], 0.9))
        torch.testing.assert_close(third[name], torch.lerp(second[name], twice[name], 0.85))
        moved += not torch.equal(began, once[name])
    assert moved


def test_a_step_is_clipped_and_slower_in_the_backbone(tmp_path, material):
    run = train(tmp_path, material, settings=replace(LOOP, steps=1, clip=1e-3, backbone_share=0.25))
    norm = torch.stack([value.grad.norm() for value in run.network.parameters() if value.grad is not None]).norm()
    assert norm == pytest.approx(1e-3, rel=1e-2)
    rate = learning_rate(0, run.settings)
    assert [group["lr"] for group in run.optimiser.param_groups] == [rate, pytest.approx(0.25 * rate)]


def test_rows_and_noise_are_of_the_seed(tmp_path, material):
    drawn = []
    losses = METHOD._replace(losses=lambda *given: (drawn.append(torch.initial_seed()), METHOD.losses(*given))[1])
    for seed in (0, 1):
        run = Run(tmp_path / str(seed), FastNetwork(SMALL), replace(LOOP, steps=2, seed=seed))
        run.train(SceneBatches(Compositor(material, COMPOSITES), 2, 2, seed), Schedule.linear(), losses)
    assert len(set(drawn)) == len(drawn) == 4


def test_weights_begin_as_the_seed_and_the_configuration_say(tmp_path, monkeypatch):
    backbone = BackboneSettings(imagenet=False, frozen_stages=0)
    first, same, other = (
        begin(TrainSettings(network=SMALL, composites=COMPOSITES, backbone=backbone, loop=LoopSettings(seed=seed))).state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(value, same[name]) for name, value in first.items())
    assert any(not torch.equal(value, other[name]) for name, value in first.items())
    monkeypatch.setattr(training.begin, "imagenet_file", lambda: None)
    monkeypatch.setattr(training.begin, "load_imagenet", lambda *_: None)
    network = begin(TrainSettings(network=SMALL, composites=COMPOSITES, backbone=BackboneSettings(frozen_stages=2)))
    learns = [any(value.requires_grad for value in stage.parameters()) for stage in network.encoder.backbone.stages]
    assert learns == [False] * 2 + [True] * (len(learns) - 2)


def test_learning_rate():
    settings = LoopSettings(steps=100, learning_rate=1.0, warmup=10, decay=0.2)
    rates = [learning_rate(step, settings) for step in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert rates[9] == rates[50] == rates[80] == 1
    assert rates[90] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.05)
    assert learning_rate(100, settings) == 0


def test_a_constant_learning_rate():
    settings = LoopSettings(steps=100, learning_rate=1.0, warmup=0, decay=0.0)
    assert {learning_rate(step, settings) for step in range(100)} == {1.0}


def test_the_command_is_interrupted_resumes_and_exports(tmp_path, data, monkeypatch, capsys):
    """The real commands, with a real Ctrl-C."""
    config, out = tmp_path / "small.yaml", tmp_path / "run"
    config.write_text(
        yaml.safe_dump(
            {
                "network": {"image_size": 64, "mask_size": 16, "encoder_channels": [8] * 4, "denoiser_channels": [8] * 3},
                "backbone": {"imagenet": False, "frozen_stages": 0},
                "composites": {"image_size": 64, "mask_size": 16, "area_min": 2},
                "loop": {"steps": 100_000, "batch_size": 2, "checkpoint_every": 2, "workers": 1},
            }
        )
    )
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "training.train", config, "--data", data, "--sprites", data / "rendered", "--out", out]
    process = subprocess.Popen(list(map(str, command)), cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        deadline = time.monotonic() + 120
        while not (out / "checkpoint.pt").is_file() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, stderr
    assert "--resume goes on there" in stdout
    step = torch.load(out / "checkpoint.pt", weights_only=True)["step"]
    assert f"interrupted at step {step}\n" in stdout
    assert Run(out, FastNetwork(SMALL), LOOP).step == step

    import training.export

    weights = tmp_path / "small.safetensors"
    monkeypatch.setattr(sys, "argv", ["export", str(out), str(config), "--out", str(weights), "--sampling-steps", "2"])
    training.export.main()
    assert f"step {step}" in capsys.readouterr().out
    part = weights.with_name("part.safetensors")  # of another bias, all else left to the first
    given = ["export", str(out), str(config), "--bias", "0.5", "--rest", str(weights)]
    monkeypatch.setattr(sys, "argv", [*given, "--out", str(part)])
    training.export.main()
    assert list(load_file(part)) == ["denoiser.out.3.bias"]
    other = load_model(str(part)).network.state_dict()["denoiser.out.3.bias"]
    torch.testing.assert_close(
        other, load_model(str(weights)).network.state_dict()["denoiser.out.3.bias"] - 0.5, rtol=0, atol=1e-3
    )
    monkeypatch.setattr(sys, "argv", [*given, "--out", str(out / "part.safetensors")])
    with pytest.raises(SystemExit):
        training.export.main()
    assert "must lie in the folder of" in capsys.readouterr().err
    exported = load_model(str(weights))
    assert exported.settings.network == SMALL
    assert exported.settings.sampling_steps == 2
    assert exported.settings.sequence.area_min == 2
    import training.train

    monkeypatch.setattr(sys, "argv", ["train", *map(str, command[3:-1]), str(tmp_path / "again"), "--init", str(weights)])
    monkeypatch.setattr(Run, "train", lambda run, *_: run.save())
    training.train.main()
    begun = torch.load(tmp_path / "again" / "checkpoint.pt", weights_only=True)
    assert begun["step"] == 0
    for name, value in exported.network.state_dict().items():
        assert torch.equal(begun["network"][name], value), name
    ema = torch.load(out / "checkpoint.pt", weights_only=True)["ema"]
    for name, value in exported.network.state_dict().items():
        assert torch.equal(value, ema[name].half().float()), name


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, ["--sampling-steps", "0"], "sampling_steps must be in 1..1000, not 0"),
        ({}, ["--bias", "nan"], "bias must be finite, not nan"),
        ({}, ["--temperatures", "1", "nan"], "temperatures must be finite and more than 0, not [1.0, nan]"),
        ({}, ["--out", "{folder}/none/a.safetensors"], "there is no folder {folder}/none for --out"),
        (
            {"network": {**asdict(SMALL), "encoder_channels": [8, 8, 8, 16]}},
            [],
            "is of another network than {folder}/config.yaml",
        ),
    ],
)
def test_weights_that_could_not_be_used_are_not_exported(tmp_path, monkeypatch, capsys, changes, words, message):
    import training.export

    Run(tmp_path / "run", FastNetwork(SMALL), LOOP).save()
    config, out = write_config(tmp_path / "config.yaml", **changes), tmp_path / "a.safetensors"
    given = [word.format(folder=tmp_path) for word in words]
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "run"), str(config), "--out", str(out), *given])
    with pytest.raises(SystemExit):
        training.export.main()
    assert message.format(folder=tmp_path) in capsys.readouterr().err
    assert not out.exists()


def test_options_that_do_not_fit_the_configuration_are_told_before_the_run_is_read(tmp_path, monkeypatch, capsys):
    import training.export

    for text, message in (
        ("network: {kind: paper}\nobjective: {kind: paper}\ncomposites: {image_size: 64}", "--bias is of the fast network"),
        ("network: {kind: one_shot}\nobjective: {kind: one_shot}", "is a baseline, which no Perceiver runs"),
    ):
        (tmp_path / "config.yaml").write_text(text)
        words = [tmp_path / "absent", tmp_path / "config.yaml", "--out", tmp_path / "a.safetensors", "--bias", 1]
        monkeypatch.setattr(sys, "argv", ["export", *map(str, words)])
        with pytest.raises(SystemExit):
            training.export.main()
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(("bias", "taken"), [([], 0), (["--bias", "0.25"], 0.25)])
def test_a_run_of_centres_alone_leaves_layers_as_they_were(tmp_path, monkeypatch, capsys, bias, taken):
    """Their bias is in the run's weights already, and they draw as many layers as before."""
    import training.export

    sizes = replace(SMALL, centre_channels=(8, 8, 8))
    network, out = FastNetwork(sizes), tmp_path / "a.safetensors"
    held = ModelSettings(sizes, SequenceSettings(max_layers=2, area_min=5), bias=0.5)
    Run(tmp_path / "run", network, LOOP).save()  # as older ones were
    described = {"network": asdict(sizes), "objective": {"only": "centres"}, "repeated": 5}
    config = write_config(tmp_path / "config.yaml", **described)
    words = ["export", str(tmp_path / "run"), str(config), "--out", str(out), *bias]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit):
        training.export.main()
    assert (
        "does not say what it began with: go on with it by `training.train --resume --init`, a step or more"
        in capsys.readouterr().err
    )
    Run(tmp_path / "run", network, LOOP, held).save()
    Run(tmp_path / "run", network, LOOP).save()  # it goes on, and has not to be told again
    training.export.main()
    exported = load_model(str(out))
    assert exported.settings == replace(held, bias=0.5 + taken)
    before, after = (each.denoiser.out[3].bias.item() for each in (network, exported.network))
    assert before - after == pytest.approx(taken, abs=1e-3)


@pytest.mark.parametrize("content", [None, b"no checkpoint", {"weights": torch.zeros(1)}])
def test_a_run_that_cannot_be_read(tmp_path, monkeypatch, capsys, content):
    import training.export

    (tmp_path / "run").mkdir()
    if isinstance(content, bytes):
        (tmp_path / "run" / "checkpoint.pt").write_bytes(content)
    elif content:
        torch.save(content, tmp_path / "run" / "checkpoint.pt")
    config = write_config(tmp_path / "config.yaml")
    monkeypatch.setattr(sys, "argv", ["export", str(tmp_path / "run"), str(config), "--out", str(tmp_path / "a.safetensors")])
    with pytest.raises(SystemExit):
        training.export.main()
    assert "checkpoint.pt" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"weights": torch.zeros(1)}])
def test_a_run_that_cannot_be_read_does_not_go_on(tmp_path, material, content):
    train(tmp_path / "run", material)
    kept = tmp_path / "run" / "checkpoint.pt"
    kept.write_bytes(content) if isinstance(content, bytes) else torch.save(content, kept)
    with pytest.raises(ValueError, match=r"checkpoint.pt (cannot be read|is no checkpoint)"):
        train(tmp_path / "run", material)


def test_a_run_that_is_over_says_so(tmp_path, material, capsys):
    first = train(tmp_path / "run", material)
    again = train(tmp_path / "run", material)
    assert "all 8 steps are done: nothing is left to train" in capsys.readouterr().out
    assert_equal_weights(first, again)


def test_the_commands_train_and_export_the_paper_network(tmp_path, data, monkeypatch, capsys):
    """What comes out says which network it is and how it is sampled, and the perceiver takes it."""
    import training.export
    import training.train
    from seqamodal_ros import Perceiver

    config, out, weights = tmp_path / "paper.yaml", tmp_path / "run", tmp_path / "paper.safetensors"
    network = {"kind": "paper", "mask_size": 16, "channels": 32, "multipliers": [1]}
    described = {
        "network": network,
        "composites": {"image_size": 64, "mask_size": 16, "area_min": 2, "max_layers": 3},
        "objective": {"kind": "paper", "noise_introduction": 0.1},
        "loop": {"steps": 2, "batch_size": 2, "workers": 0, "bfloat16": False},
    }
    config.write_text(yaml.safe_dump(described))
    where = ["--data", str(data), "--sprites", str(data / "rendered")]
    monkeypatch.setattr(sys, "argv", ["train", str(config), *where, "--out", str(out)])
    training.train.main()
    monkeypatch.setattr(sys, "argv", ["export", str(out), str(config), "--out", str(weights)])
    training.export.main()
    assert "step 2" in capsys.readouterr().out
    exported = load_model(str(weights)).settings
    assert exported.network == PaperSettings(mask_size=16, channels=32, multipliers=(1,))
    assert (exported.sampler, exported.sampling_steps, exported.sequence.max_layers) == ("ancestral", 1000, 3)
    scene = Perceiver.load(str(weights), "cpu", sampling_steps=2)(np.zeros((20, 30, 3), np.uint8))
    assert scene.amodal.shape[1:] == (16, 16)

    config.write_text(
        yaml.safe_dump(
            {**described, "network": {}, "composites": {}, "objective": {}, "backbone": {"imagenet": False, "frozen_stages": 0}}
        )
    )
    monkeypatch.setattr(sys, "argv", ["train", str(config), *where, "--out", str(tmp_path / "other"), "--init", str(weights)])
    with pytest.raises(SystemExit):
        training.train.main()
    assert "--init holds PaperSettings(mask_size=16" in capsys.readouterr().err


@pytest.fixture
def packed(tmp_path, material, monkeypatch):
    """A packed set of six scenes, for training."""
    compositor = Compositor(material, COMPOSITES)
    scenes = [compositor(np.random.default_rng(k), count=1 + k % 3) for k in range(6)]
    monkeypatch.setattr(training.data.packed, "in_parallel", lambda work, count, _: map(work, range(count)))
    about = {"split": "train", "settings": asdict(COMPOSITES)}
    training.data.packed.pack(tmp_path / "packed", about, lambda _: (scenes, range(6), {}), 1)
    return tmp_path / "packed"


def write_config(path: Path, **changes) -> Path:
    settings = {
        "network": vars(SMALL) | {"encoder_channels": [8, 8, 8, 8], "denoiser_channels": [8, 8, 8]},
        "backbone": {"imagenet": False, "frozen_stages": 0},
        "composites": RULES,
        "loop": {"steps": 2, "batch_size": 2, "workers": 0},
    }
    path.write_text(yaml.safe_dump(settings | changes))
    return path


def run_command(monkeypatch, *words) -> None:
    import training.train

    monkeypatch.setattr(sys, "argv", ["train", *map(str, words)])
    training.train.main()


def test_another_seed_is_another_run(tmp_path, packed, monkeypatch, capsys):
    config = write_config(tmp_path / "config.yaml", packed=1.0)
    words = [config, "--packed", packed, "--resume", "--out"]
    runs = {"configured": (), "same": ("--seed", 0), "other": ("--seed", 3)}
    for name, options in runs.items():
        run_command(monkeypatch, *words, tmp_path / name, *options)
    configured, same, other = (torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["network"] for name in runs)
    for name, value in configured.items():
        assert torch.equal(value, same[name]), name
    assert any(not torch.equal(value, other[name]) for name, value in configured.items())
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words, tmp_path / "other")
    assert "was begun with seed 3: give that one, or another --out" in capsys.readouterr().err
    older = torch.load(tmp_path / "other" / "checkpoint.pt", weights_only=True)
    del older["seed"], older["began"]
    torch.save(older, tmp_path / "other" / "checkpoint.pt")
    run_command(monkeypatch, *words, tmp_path / "other")  # whatever it began with is not known
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words, tmp_path / "none", "--seed", -1)
    assert "seed must be 0 or more, not -1" in capsys.readouterr().err


def test_a_run_is_gone_on_with_only_when_asked(tmp_path, packed, monkeypatch, capsys):
    config = write_config(tmp_path / "config.yaml", packed=1.0)
    words = [config, "--packed", packed, "--out", tmp_path / "run"]
    run_command(monkeypatch, *words, "--resume")  # there is none yet
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words)
    assert "holds a run: go on with it by --resume, or give another --out" in capsys.readouterr().err
    run_command(monkeypatch, *words, "--resume")


def test_a_packed_set_alone_is_enough(tmp_path, packed, monkeypatch):
    config = write_config(tmp_path / "config.yaml", packed=1.0)
    run_command(monkeypatch, config, "--packed", packed, "--out", tmp_path / "run")
    assert torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)["step"] == 2


def test_deeper_scenes_are_refused_or_left_out_if_asked_but_where_nothing_is_learnt_of_a_layers_number(packed, capsys):
    whole = PackedScenes(packed)
    made = whole.meta["settings"]
    rules = SceneRules(made["image_size"], made["mask_size"], 1, made["area_min"])
    assert len(packed_scenes([packed], rules, any_depth=True)) == len(whole)
    deeper = [len(scene.layers) for scene in whole if len(scene.layers) > 1]
    told = (
        f"{len(deeper)} of 6 scenes of {packed} have up to {max(deeper)} layers, more than the 1 that the configuration draws: "
    )
    ways_out = f"leave these scenes out by --leave-out-deeper, or set `composites: {{max_layers: {max(deeper)}}}`"
    with pytest.raises(ValueError, match=re.escape(told + ways_out)):
        packed_scenes([packed], rules)
    shallow = packed_scenes([packed], rules, leave_out_deeper=True)
    assert f"{told}left out" in capsys.readouterr().out
    assert [scene.image.tobytes() for scene in map(shallow.__getitem__, range(len(shallow)))] == [
        scene.image.tobytes() for scene in whole if len(scene.layers) <= 1
    ]
    assert 0 < len(shallow) < len(whole)
    with pytest.raises(ValueError, match="every scene of .* has more than 0 layers"):
        packed_scenes([packed], replace(rules, max_layers=0), leave_out_deeper=True)


def test_a_set_that_could_be_deeper_and_is_not_is_taken_as_it_is(packed):
    rules = SceneRules(64, 16, 3, 2)  # of the six scenes, with three objects at most; the set was made with five layers
    assert len(packed_scenes([packed], rules)) == 6


def test_a_run_leaves_deeper_scenes_out_if_asked(tmp_path, packed, monkeypatch, capsys):
    config = write_config(tmp_path / "config.yaml", packed=1.0, composites=RULES | {"max_layers": 1})
    words = [config, "--packed", packed, "--out", tmp_path / "run"]
    with pytest.raises(SystemExit):
        run_command(monkeypatch, *words)
    assert "more than the 1 that the configuration draws: leave these scenes out by --leave-out" in capsys.readouterr().err
    run_command(monkeypatch, *words, "--leave-out-deeper")
    assert "left out" in capsys.readouterr().out
    assert (tmp_path / "run" / "checkpoint.pt").is_file()


def test_as_many_layers_as_a_source_of_scenes_has_must_be_drawn():
    assert composites_reach(CompositeSettings(max_layers=7)) == {"composites": 5}  # of so many objects at most
    assert composites_reach(CompositeSettings(max_layers=7, counts=(0, 0.5, 0.5, 0))) == {"composites": 2}
    assert composites_reach(CompositeSettings(max_layers=3)) == {"composites": 3}
    check_reached(7, {"bins": 7, "composites": 5})
    message = "draws up to 7 layers, scenes of desks, composites have at most 5: set `composites: {max_layers: 5}`"
    with pytest.raises(ValueError, match=re.escape(message)):
        check_reached(7, {"desks": 4, "composites": 5})


def test_a_damaged_set_is_not_trained_on(packed):
    masks = packed / "amodal.npy"
    masks.write_bytes(masks.read_bytes()[:-1] + b"?")
    with pytest.raises(ValueError, match="amodal.npy is not what it was when the set was made"):
        packed_scenes([packed], COMPOSITES)


def test_composites_to_train_on_are_of_the_material_for_training(data):
    args = Namespace(data=data, sprites=data / "rendered", packed=None, leave_out_deeper=False)
    assert splits_of(scene_source(TrainSettings(), args).material) == ({"train"}, {"train"})


def test_several_packed_sets_are_one(packed):
    whole = PackedScenes(packed)
    rules = SceneRules(**{each.name: whole.meta["settings"][each.name] for each in fields(SceneRules)})
    both = pickle.loads(pickle.dumps(packed_scenes([packed, packed], rules)))  # as workers get them
    assert len(both) == 2 * len(whole)
    assert both[1].image.tobytes() == both[len(whole) + 1].image.tobytes() == whole[1].image.tobytes()


@pytest.mark.parametrize(
    ("changes", "words", "message"),
    [
        ({}, [], "the configuration draws composites: give --data and --sprites"),
        ({"packed": 1.0}, [], "takes a share of 1 from a packed set: give --packed SET"),
        ({"packed": 2.0}, ["--packed", "{packed}"], "packed is a share and must be in 0..1, not 2.0"),
        ({"packed": 1.0}, ["--packed", "{absent}"], "no packed set in"),
        (
            {"packed": 1.0, "composites": {"image_size": 64, "mask_size": 16}},
            ["--packed", "{packed}"],
            "was made with area_min 2, the configuration says 10: make them agree",
        ),
        (
            {"packed": 1.0, "composites": RULES | {"max_layers": 7}},
            ["--packed", "{packed}"],
            "the configuration draws up to 7 layers, scenes of {packed} have at most 5: set `composites: {{max_layers: 5}}`",
        ),
    ],
)
def test_mistakes_about_the_scenes_are_told_in_a_line(tmp_path, packed, monkeypatch, capsys, changes, words, message):
    config = write_config(tmp_path / "config.yaml", **changes)
    words = [word.format(packed=packed, absent=tmp_path / "absent") for word in words]
    with pytest.raises(SystemExit):
        run_command(monkeypatch, config, *words, "--out", tmp_path / "run")
    assert message.format(packed=packed) in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_set_for_testing_is_not_trained_on(tmp_path, packed, monkeypatch, capsys):
    meta = packed / "meta.json"
    meta.write_text(json.dumps(json.loads(meta.read_text()) | {"split": "test"}))
    with pytest.raises(SystemExit):
        run_command(
            monkeypatch, write_config(tmp_path / "config.yaml", packed=1.0), "--packed", packed, "--out", tmp_path / "run"
        )
    assert "is a set for test: train on one that was made for training" in capsys.readouterr().err
