# SPDX-License-Identifier: Apache-2.0
"""The training loop: steps, learning rate, moving average, checkpoints; on one process or several; resumes where it stopped."""

import contextlib
import math
import os
import pickle
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader
from tqdm import tqdm

from seqamodal_ros.diffusion.schedule import Schedule
from seqamodal_ros.diffusion.weights import ModelSettings, described
from seqamodal_ros.runtimes.bfloat16 import computes_bfloat16, slower_in_bfloat16
from training.data.batches import Batch, SceneBatches
from training.data.ranges import check_not_negative, check_shares
from training.record import Record


class Method(NamedTuple):
    """What is trained for.

    Attributes:
        losses: (network, batch, schedule, step) -> scalars; the one named "loss" is minimised.
        see: (network, images uint8 [S, S, 3]) -> the layers that it sees in each, bool [L, h, w].
    """

    losses: Callable[[nn.Module, Batch, Schedule, int], dict[str, torch.Tensor]]
    see: Callable[[nn.Module, Sequence[np.ndarray]], list[np.ndarray]]


STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
FEW = 5  # steps on end whose gradient is no number end a run; single ones are met on GPUs, in bfloat16
KEPT = 40  # batches that come again
PATIENCE = 2.0  # seconds; a launcher sends one Ctrl-C twice


@dataclass(frozen=True)
class LoopSettings:
    """How long and how fast.

    Attributes:
        steps: number of optimiser steps in all.
        batch_size: images a step.
        parts: equal parts that a batch is drawn and computed in, one after the other; the step is that of their mean gradient.
            Several processes share them, so the number of processes must divide it.
        learning_rate: the highest, reached after `warmup` steps.
        warmup: steps of linear rise.
        decay: share of the steps, at the end, over which the rate falls linearly to zero.
        weight_decay: AdamW's.
        ema: the moving average's decay, min(ema, (1 + n) / (10 + n)) at step n.
        clip: largest norm of the gradient; .inf leaves it as it is.
        bfloat16: compute in bfloat16 where torch's autocast and the hardware do; the weights are float32 all the same.
        compile: let torch.compile turn the network into faster code, which takes a while at the start.
        backbone_share: the backbone's learning rate, as a share of the others'.
        log_every: steps whose mean is a line of the log.
        checkpoint_every: steps between checkpoints.
        sheet_every: steps between sheets of what the network sees.
        workers: processes that draw batches.
        again: steps that a batch is drawn for on the average, where learning is faster than drawing: the other steps take one of
            the last `KEPT` batches, turned by right angles or mirrored (one in eight is as it was). Those lie in the device's
            memory, 0.22 MB an image of 256x256. A run that goes on begins with as many new ones, so it then ends as well, but not
            in the weights, of one that was not interrupted. 1: each is new.
        seed: of weights, rows, noise and scenes.
    """

    steps: int = 8000
    batch_size: int = 20
    parts: int = 1
    learning_rate: float = 2e-3
    warmup: int = 200
    decay: float = 0.4
    weight_decay: float = 0.01
    ema: float = 0.999
    clip: float = 1.0
    bfloat16: bool = True
    compile: bool = False
    backbone_share: float = 0.3
    log_every: int = 50
    checkpoint_every: int = 250
    sheet_every: int = 1000
    workers: int = 1
    again: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "log_every", "checkpoint_every", "sheet_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or more, not {getattr(self, name)}")
        for name in ("learning_rate", "clip"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be more than 0, not {getattr(self, name)}")
        check_shares(self, "decay", "ema")
        check_not_negative(self, "warmup", "weight_decay", "backbone_share", "workers", "seed")
        if self.again < 1:
            raise ValueError(f"again must be 1 or more steps a batch, not {self.again}")
        if self.parts < 1 or self.batch_size % self.parts:
            raise ValueError(f"parts must divide batch_size, {self.batch_size}, and {self.parts} does not")


def read_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """What `Run.save` wrote.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or something else.
    """
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except torch.OutOfMemoryError:  # a RuntimeError, too
        raise
    except (EOFError, RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} cannot be read ({' '.join(str(error).split())[:80]}): it is damaged") from None
    if not isinstance(state, dict) or not {"ema", "step", "seconds"} <= state.keys():
        raise ValueError(f"{path} is no checkpoint of a run of training.train")
    return state


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


class Losses(nn.Module):
    """The losses of a network as the forward pass of a module, which is where DistributedDataParallel looks for gradients."""

    def __init__(self, network: nn.Module, method: Method, schedule: Schedule, bfloat16: bool):
        super().__init__()
        self.network, self.method, self.schedule, self.bfloat16 = network, method, schedule, bfloat16

    def forward(self, batch: Batch, step: int) -> dict[str, torch.Tensor]:
        with torch.autocast(batch.image.device.type, torch.bfloat16, enabled=self.bfloat16):
            return self.method.losses(self.network, batch, self.schedule, step)


class Run:
    """One training run, in a folder: ``checkpoint.pt`` (everything needed to resume) and what `Record` writes.

    Where `accelerate launch` or `torchrun` started several processes, each has a `Run`, and they make one together.

    Args:
        folder: of the run.
        network: as training begins with it.
        settings: how long and how fast.
        began: settings of the weights file that `network` is of, which an export takes over; a run that goes on keeps its own.

    Raises:
        ValueError: the processes cannot share the parts of a batch evenly, or the checkpoint is of another network, or of other
            parts of it.
    """

    def __init__(self, folder: Path, network: nn.Module, settings: LoopSettings, began: ModelSettings | None = None):
        # precision and parts are this loop's own; without `cpu`, processes on CPUs would know nothing of each other
        self.accelerator = Accelerator(mixed_precision="no", cpu=not torch.cuda.is_available())
        if self.accelerator.gradient_accumulation_steps != 1:
            raise ValueError("accelerate is set to accumulate gradients: leave that out, and set `loop: {parts: ...}` instead")
        if settings.parts % self.accelerator.num_processes:
            raise ValueError(
                f"{self.accelerator.num_processes} processes cannot share {settings.parts} parts of a batch evenly: "
                f"set `loop: {{parts: {self.accelerator.num_processes}}}`, or a multiple of it"
            )
        self.folder, self.settings = folder, settings
        self.device = self.accelerator.device
        self.network = network.to(self.device, memory_format=torch.channels_last)
        self.optimiser = torch.optim.AdamW(parameter_groups(network, settings), weight_decay=settings.weight_decay)
        self.ema = {name: value.detach().clone() for name, value in network.state_dict().items()}
        self.step = 0
        self.seconds = 0.0
        self.began = None if began is None else described(began)
        self.left_out_on_end = 0
        folder.mkdir(parents=True, exist_ok=True)
        if self.checkpoint.is_file():
            self._resume()
        if self._any(self.step != int(self.accelerator.reduce(torch.tensor(float(self.step), device=self.device), "mean"))):
            raise ValueError(f"the processes do not find the same checkpoint in {folder}: it must be a folder that they share")

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint.pt"

    def _resume(self) -> None:
        # where several processes share a CPU it is called "cpu:0", which torch.load does not know
        device = self.device if self.device.type == "cuda" else "cpu"
        state = read_checkpoint(self.checkpoint, device)
        try:
            self.network.load_state_dict(state["network"])
            groups = [{k: v for k, v in each.items() if k != "params"} for each in self.optimiser.param_groups]
            self.optimiser.load_state_dict(state["optimiser"])
            for group, asked in zip(self.optimiser.param_groups, groups, strict=True):
                group.update(asked)  # the settings of now, not those of the checkpoint
        except (KeyError, RuntimeError, ValueError):
            raise ValueError(
                f"{self.checkpoint} is of another network, or of a run that trains other parts of it: give its configuration, "
                "or another --out"
            ) from None
        seed = state.get("seed", self.settings.seed)  # older checkpoints hold none
        if seed != self.settings.seed:
            raise ValueError(f"{self.checkpoint} was begun with seed {seed}: give that one, or another --out")
        self.ema, self.step, self.seconds = state["ema"], state["step"], state["seconds"]
        self.began = state.get("began") or self.began

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
            "seed": self.settings.seed,
            "began": self.began,
        }
        part = self.folder / "checkpoint.part"
        try:
            torch.save(state, part)
        except (OSError, RuntimeError) as error:  # torch's writer raises RuntimeError where the disk is full
            if _of_a_worker(error):  # its signal comes at any moment
                raise
            part.unlink(missing_ok=True)
            raise OSError(f"cannot write {part} ({error}): make room; {self._last_good()}") from error
        part.replace(self.checkpoint)

    def _last_good(self) -> str:
        return "the last good checkpoint is kept" if self.checkpoint.is_file() else "there is no checkpoint yet"

    def train(self, batches: SceneBatches, schedule: Schedule, method: Method, minutes: float | None = None) -> None:
        """Train until the last step, Ctrl-C (or SIGTERM), or so many minutes; each of them leaves a checkpoint.

        A signal takes effect after the step that is at work; a second one, `PATIENCE` seconds later, at once, with no checkpoint.

        Args:
            batches: item n is part n of all the parts of all batches, in order.
            schedule: of the noise.
            method: see `Method`.
            minutes: None for as long as it takes.

        Raises:
            FloatingPointError: the loss is not a number any more, or the gradients of `FEW` steps on end are not; the last good
                checkpoint is kept.
            OSError: a checkpoint cannot be written, or a process that draws batches was killed; the one before is kept.
            KeyboardInterrupt: a second signal.
        """
        if self.step >= self.settings.steps:
            self.accelerator.print(f"all {self.settings.steps} steps are done: nothing is left to train")
            return
        stop: list[float] = []

        def on_signal(_number: int, _frame: Any) -> None:
            now = time.monotonic()
            if stop and now - stop[0] > PATIENCE:
                raise KeyboardInterrupt
            if not stop and self.accelerator.is_main_process:  # print may be what was interrupted
                os.write(2, b"\nends after this step; Ctrl-C again ends at once, with the checkpoint of before\n")
            stop.append(now)

        before = {number: signal.signal(number, on_signal) for number in STOP_SIGNALS}
        try:
            with contextlib.closing(self._steps(batches)) as steps:  # ends its workers, which would wait for ever
                record = Record(self.folder, self.step, batches.others()) if self.accelerator.is_main_process else None
                self._train(steps, record, schedule, method, stop, math.inf if minutes is None else 60 * minutes)
        except RuntimeError as error:
            if not _of_a_worker(error):
                raise
            raise OSError(
                f"a process that draws scenes ended or was killed ({error}): is there memory for it? Fewer `workers` or scenes "
                f"that are `repeated` need less; {self._last_good()}"
            ) from error
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _train(
        self,
        steps: Iterator[list[Batch]],
        record: Record | None,
        schedule: Schedule,
        method: Method,
        stop: list[float],
        limit: float,
    ) -> None:
        s = self.settings
        if s.compile:
            for part in self.network.children():
                part.compile()  # calls of it; what a denoiser takes of an image, a few small convolutions, stays as it is
        bfloat16 = s.bfloat16 and computes_bfloat16(self.device.type) and not slower_in_bfloat16(self.device.type)
        if bfloat16 != s.bfloat16:
            self.accelerator.print(f"in float32: the {self.device.type} here does not compute in bfloat16, or is slower in it")
        losses_of = self.accelerator.prepare(Losses(self.network, method, schedule, bfloat16))
        bar = tqdm(steps, initial=self.step, total=s.steps, desc="steps", smoothing=0.02, mininterval=2, disable=record is None)
        sums: dict[str, float] = {}
        summed = 0
        began = since = time.monotonic()
        end = began + limit
        for parts in bar:
            for name, value in self._step(parts, losses_of).items():
                sums[name] = sums.get(name, 0.0) + value
            summed += 1
            self.step += 1
            last = self.step == s.steps
            over = self._any(bool(stop) or time.monotonic() > end) and not last
            now = time.monotonic()
            if self.step % s.log_every == 0:
                rate = summed * s.batch_size / (now - since)
                means = {name: value / summed for name, value in sums.items()}
                if record:
                    bar.set_postfix({**{name: f"{value:.3f}" for name, value in means.items()}, "images/s": f"{rate:.1f}"})
                    record.losses(self.step, self.seconds + now - began, {**means, "images_per_second": rate})
                sums, summed, since = {}, 0, now
            if record and (over or last or self.step % s.checkpoint_every == 0):
                self.seconds, began = self.seconds + now - began, now
                self.save()
            if record and (last or self.step % s.sheet_every == 0):
                record.sheet(self.step, partial(self._seen, method))
            if over:
                self.accelerator.print(f"{'interrupted' if stop else 'time is up'} at step {self.step}")
                break
        if record:
            record.close()

    def _seen(self, method: Method, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """What the moving average sees; the weights are as they were afterwards."""
        current = {name: value.clone() for name, value in self.network.state_dict().items()}
        self.network.load_state_dict(self.ema)
        self.network.eval()
        with torch.compiler.set_stance("force_eager"):  # for a look, compiling for other shapes would not pay
            layers = method.see(self.network, images)
        self.network.train()
        self.network.load_state_dict(current)
        return layers

    def _steps(self, batches: SceneBatches) -> Generator[list[Batch], None, None]:
        """This process's parts of each batch that is left, on the device."""
        s, processes = self.settings, self.accelerator.num_processes
        own = s.parts // processes
        first = self.accelerator.process_index * own
        left = range(self.step, s.steps)
        new = [step for step in left if step % s.again == 0 or step - self.step < KEPT]
        order = [step * s.parts + first + part for step in new for part in range(own)]
        threads = cv2.getNumThreads()
        if s.workers:
            cv2.setNumThreads(1)  # here: a worker that inherits OpenCV's threads waits for ever for what a fork does not copy
        loader = iter(
            DataLoader(
                batches,
                batch_size=None,
                sampler=order,
                num_workers=s.workers,
                prefetch_factor=8 if s.workers else None,
                worker_init_fn=_ignore_stop,
            )
        )
        cv2.setNumThreads(threads)
        kept = deque[list[Batch]](maxlen=KEPT)
        fresh = set(new)
        for step in left:
            if step in fresh:
                # a copy on a CPU, too: what workers give lies in shared memory, of which there is little
                parts = [part.to(self.device, copy=s.again > 1) for part in islice(loader, own)]
                if s.again > 1:
                    kept.append(parts)
            else:
                rng = np.random.default_rng([s.seed, step])
                chosen = kept[rng.integers(len(kept))]
                parts = [part.turned(int(rng.integers(4)), rng.random() < 0.5) for part in chosen]
            yield parts

    def _any(self, here: bool) -> bool:
        """Whether it is so in any process, as all have to stop at the same step."""
        if self.accelerator.num_processes == 1:
            return here
        return bool(self.accelerator.reduce(torch.tensor(float(here), device=self.device)) > 0)

    def _step(self, parts: list[Batch], losses_of: nn.Module) -> dict[str, float]:
        for group in self.optimiser.param_groups:
            group["lr"] = group["share"] * learning_rate(self.step, self.settings)
        self.optimiser.zero_grad(set_to_none=True)
        first = self.step * self.settings.parts + self.accelerator.process_index * len(parts)
        sums: dict[str, torch.Tensor] = {}
        for number, part in enumerate(parts, start=1):
            torch.manual_seed(self.settings.seed * 1_000_003 + first + number - 1)
            wait = number < len(parts)  # processes exchange gradients once a step
            with self.accelerator.no_sync(losses_of) if wait else contextlib.nullcontext():
                losses = losses_of(part, self.step)
                self.accelerator.backward(losses["loss"] / len(parts))
            for name, value in losses.items():
                sums[name] = sums.get(name, 0) + value.detach() / len(parts)
        means = {name: float(self.accelerator.reduce(value, "mean")) for name, value in sums.items()}
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        if not math.isfinite(norm):  # the weights must not take harm
            message = f"the loss is {means['loss']} and its gradient {float(norm)} at step {self.step}"
            self.left_out_on_end += 1
            if self.left_out_on_end >= FEW or not math.isfinite(means["loss"]):
                raise FloatingPointError(f"{message}: lower the rate; {self._last_good()}")
            self.accelerator.print(f"\n{message}: it is left out")
            return means
        self.left_out_on_end = 0
        self.optimiser.step()
        decay = min(self.settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            current = self.network.state_dict()
            torch._foreach_lerp_(list(self.ema.values()), list(current.values()), 1 - decay)
        return means


def _of_a_worker(error: Exception) -> bool:
    """Whether a process that draws batches is gone; what one raises itself begins with other words."""
    return isinstance(error, RuntimeError) and str(error).startswith("DataLoader worker (pid")


def _ignore_stop(_: int) -> None:
    """Ctrl-C, and SIGTERM to all processes of the run, are the loop's to handle, not the workers'."""
    for each in STOP_SIGNALS:
        signal.signal(each, signal.SIG_IGN)
