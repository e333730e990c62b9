# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, learning rate, moving average, checkpoints, progress; resumes where it stopped."""

import json
import math
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from seqamodal_ros.diffusion.schedule import Schedule
from training.data.batches import Batch, SceneBatches

# (network, batch, schedule, step) -> losses, scalars; the one named "loss" is minimised
Objective = Callable[[nn.Module, Batch, Schedule, int], dict[str, torch.Tensor]]

LOG_EVERY = 50  # steps
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast.

    Attributes:
        steps: number of optimiser steps in all.
        batch_size: images a step.
        learning_rate: the highest, reached after `warmup` steps.
        warmup: steps of linear rise.
        decay: share of the steps, at the end, over which the rate falls linearly to zero.
        weight_decay: AdamW's.
        ema: the moving average's decay, min(ema, (1 + n) / (10 + n)) at step n.
        clip: largest norm of the gradient; .inf leaves it as it is.
        bfloat16: compute in bfloat16 where torch's autocast does; the weights are float32 all the same.
        backbone_share: the backbone's learning rate, as a share of the others'.
        checkpoint_every: steps between checkpoints.
        workers: processes that draw batches.
        seed: of weights, rows, noise and scenes.
    """

    steps: int = 8000
    batch_size: int = 20
    learning_rate: float = 2e-3
    warmup: int = 200
    decay: float = 0.4
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    bfloat16: bool = True
    backbone_share: float = 0.3
    checkpoint_every: int = 250
    workers: int = 1
    seed: int = 0


def learning_rate(step: int, s: LoopSettings) -> float:
    """Linear warm-up, a plateau, and a linear fall to zero at the last step."""
    rise = min(1.0, (step + 1) / max(1, s.warmup))
    fall = min(1.0, (s.steps - step) / max(1.0, s.decay * s.steps))
    return s.learning_rate * rise * fall


def parameter_groups(network: nn.Module, s: LoopSettings) -> list[dict[str, Any]]:
    """Trainable parameters with their share of the learning rate: the backbone, trained before, learns slower."""
    backbone: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (backbone if ".backbone." in name else others).append(parameter)
    return [{"params": others, "share": 1.0}, {"params": backbone, "share": s.backbone_share}]


class Run:
    """One training run, in a folder: ``checkpoint.pt`` (everything needed to resume) and ``log.jsonl``."""

    def __init__(self, folder: Path, network: nn.Module, settings: LoopSettings):
        self.folder, self.network, self.settings = folder, network, settings
        self.device = next(network.parameters()).device
        self.optimiser = torch.optim.AdamW(parameter_groups(network, settings), weight_decay=settings.weight_decay)
        self.ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.is_file():
            self._resume()

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _resume(self) -> None:
        state = torch.load(self.checkpoint, map_location=self.device, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.ema, self.step, self.seconds = state["ema"], state["step"], state["seconds"]

    def save(self) -> None:
        """Write the checkpoint beside the old one, then put it in its place.

        Raises:
            OSError: it cannot be written; the old one is still there.
        """
        state = {
            "network": self.network.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "ema": self.ema,
            "step": self.step,
            "seconds": self.seconds,
        }
        part = self.folder / "checkpoint.part"
        try:
            torch.save(state, part)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
            part.unlink(missing_ok=True)
            raise OSError(f"cannot write {part} ({error}): make room; {self._last_good()}") from error
        part.replace(self.checkpoint)

    def _last_good(self) -> str:
        return "the last good checkpoint is kept" if self.checkpoint.is_file() else "there is no checkpoint yet"

    def train(self, batches: SceneBatches, schedule: Schedule, objective: Objective, minutes: float | None = None) -> None:
        """Train until the last step, Ctrl-C (or SIGTERM), or so many minutes; each of them leaves a checkpoint.

        Raises:
            FloatingPointError: the loss is not a number any more; the last good checkpoint is kept.
            OSError: a checkpoint cannot be written; the one before is kept.
        """
        stop: list[int] = []
        before = {number: signal.signal(number, lambda received, _: stop.append(received)) for number in STOP_SIGNALS}
        try:
            self._train(batches, schedule, objective, stop, math.inf if minutes is None else 60 * minutes)
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train(self, batches: SceneBatches, schedule: Schedule, objective: Objective, stop: list[int], limit: float) -> None:
        loader = DataLoader(
            batches,
            batch_size=None,
            sampler=range(self.step, self.settings.steps),
            num_workers=self.settings.workers,
            prefetch_factor=8 if self.settings.workers else None,
            worker_init_fn=_ignore_interrupt,
        )
        bar = tqdm(loader, initial=self.step, total=self.settings.steps, desc="steps", smoothing=0.02, mininterval=2)
        sums: dict[str, float] = {}
        summed = 0
        began = time.monotonic()
        end = began + limit
        for batch in bar:
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            losses = self._step(batch, schedule, objective)
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + float(value)
            summed += 1
            self.step += 1
            if self.step % LOG_EVERY == 0:
                means = {name: total / summed for name, total in sums.items()}
                sums, summed = {}, 0
                bar.set_postfix({name: f"{value:.3f}" for name, value in means.items()})
                spent = self.seconds + time.monotonic() - began
                with (self.folder / "log.jsonl").open("a") as log:
                    log.write(json.dumps({"step": self.step, "seconds": round(spent, 1), **means}) + "\n")
            over = (bool(stop) or time.monotonic() > end) and self.step < self.settings.steps
            if over or self.step % self.settings.checkpoint_every == 0 or self.step == self.settings.steps:
                now = time.monotonic()
                self.seconds, began = self.seconds + now - began, now
                self.save()
            if over:
                print(f"{'interrupted' if stop else 'time is up'} at step {self.step}; the same command resumes there")
                return

    def _step(self, batch: Batch, schedule: Schedule, objective: Objective) -> dict[str, torch.Tensor]:
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * learning_rate(self.step, self.settings)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.bfloat16):
            losses = objective(self.network, batch.to(self.device), schedule, self.step)
        self.optimiser.zero_grad(set_to_none=True)
        losses["loss"].backward()
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if not math.isfinite(norm):  # of a loss that is no number, too; before the weights take harm
            message = f"the loss is {losses['loss'].item()} and its gradient {float(norm)} at step {self.step}: lower the rate"
            raise FloatingPointError(f"{message}; {self._last_good()}")
        self.optimiser.step()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.network.state_dict()
            torch._foreach_lerp_(list(self.ema.values()), list(current.values()), 1 - decay)
        return {name: value.detach() for name, value in losses.items()}


def _ignore_interrupt(_: int) -> None:
    """Ctrl-C is the loop's to handle, not the workers'."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
