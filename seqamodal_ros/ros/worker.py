# SPDX-License-Identifier: Apache-2.0
"""The worker thread: takes each camera's newest frame, lets the perceiver see them, hands scenes to the executor's thread."""

import logging
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import cv2
import numpy as np

from seqamodal_ros.perceiver import LARGEST_NUM_SAMPLES, Perceiver
from seqamodal_ros.ros import malloc
from seqamodal_ros.ros.heartbeat import LOADING, Heartbeat
from seqamodal_ros.ros.mailbox import Mailbox
from seqamodal_ros.ros.stillness import Stillness
from seqamodal_ros.scene.geometry import resized
from seqamodal_ros.scene.pictures import overlay
from seqamodal_ros.scene.scene import LayeredScene

LOGGER = logging.getLogger(__name__)
HAND_OVER = 0.1  # seconds at most that the next frame waits until an answer was sent: the executor's thread may be busy
DECODING = 60.0  # seconds that an image may take to be made: one of 64 megapixels, on a slow and busy machine
MOST_ROWS = LARGEST_NUM_SAMPLES  # of a batch on a CPU, where more take no less time each, and a call must end soon after SIGINT
GIVE_WAY = 0.01  # seconds that the executor's thread waits after an image that came in vain
PATCHES = 32  # a side, into which an image is averaged: a sensor's noise averages out in them, a thing that moves does not

Source = np.ndarray | Callable[[], np.ndarray]  # an image uint8 [H, W, 3], or what makes it
Region = tuple[int, int, int, int] | None  # x, y, width, height in source pixels; None for the whole image


@dataclass(frozen=True, eq=False)
class Frame:
    """One image to see.

    Attributes:
        header: of the image, passed on as it is.
        source: the image, RGB; the worker has it made, as most of a fast camera's images are superseded.
        num_samples: K.
        seed: of the noise.
        label, overlay: whether someone wants these pictures of it; at source size they cost more than a glance.
        hypotheses: whether the K hypotheses go into its message.
        depth: `DepthMatch` of a camera's frame, for the executor's thread: the depth image that fits best.
        max_depth_skew: seconds by which the stamp of that image may differ from the image's.
        camera: whose it is.
        region: the part of the image that is looked at.
        stillness: grey levels by which patches of it may differ from the camera's image before, to have the same scene, where it
            is 640x480 or larger; more where it is smaller, see `Stillness.recall`. 0: none.
        reply: who asked for this very frame; called with the answer, on the executor's thread. None for a camera's frame.
        wanted: whether someone still waits for it; asked before it is begun, and before each network call.
        received: when its image came, seconds of the monotonic clock.
        late: how many seconds older it is by now than it may be to be begun, on the node's clock, which may run otherwise; asked
            on the worker's thread.
    """

    header: Any
    source: Source
    num_samples: int
    seed: int
    label: bool = False
    overlay: bool = False
    hypotheses: bool = True
    depth: Any = None
    max_depth_skew: float = 0.0
    camera: str = ""
    region: Region = None
    stillness: float = 0.0
    reply: "Callable[[Answer], None] | None" = None
    wanted: Callable[[], bool] = lambda: True
    received: float = field(default_factory=time.monotonic)
    late: Callable[[], float] = lambda: -math.inf

    @cached_property
    def image(self) -> np.ndarray:
        """uint8 [H, W, 3] RGB; raises what `source` raises."""
        return self.source() if callable(self.source) else self.source

    @property
    def looked_at(self) -> tuple[int, int, int, int]:
        """x, y, width, height of the part of the image that is looked at, pixels."""
        return self.region or (0, 0, self.image.shape[1], self.image.shape[0])

    @cached_property
    def patches(self) -> np.ndarray:
        """float32 [PATCHES, PATCHES, 3]: mean grey levels of what is looked at."""
        x, y, width, height = self.looked_at
        seen = self.image[y : y + height, x : x + width]
        # first across, which mostly divides without a rest: both at once take three times as long then
        across = resized(seen, (PATCHES, height), cv2.INTER_AREA)
        return cv2.resize(across, (PATCHES, PATCHES), interpolation=cv2.INTER_AREA).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Answer:
    """What became of a frame: its scene, or the error that was raised; the overlay, if wanted, comes later, alone.

    Attributes:
        frame: the one that was submitted.
        scene: None where there is an error, or the overlay.
        label: uint16 [H, W], `LayeredScene.label`, if wanted.
        overlay: uint8 [H, W, 3], `pictures.overlay`.
        error: what inference raised, or making the image or the overlay, if it did.
    """

    frame: Frame
    scene: LayeredScene | None = None
    label: np.ndarray | None = None
    overlay: np.ndarray | None = None
    error: Exception | None = None


def together(device: str, images: int, samples: int) -> int:
    """Of so many images, with K = `samples`, how many are seen as one batch."""
    return min(images, MOST_ROWS // samples) if device == "cpu" else images


class TooLate(Exception):
    """A frame that waited until it was too old to be begun."""


class NotDrawn(Exception):
    """Why there is no overlay of a frame, whose masks are sent all the same."""


class Cancelled(Exception):
    """Raised between two network calls of a frame that is no longer wanted."""


class Worker:
    """Runs a perceiver on a thread of its own; ROS is called from the executor's thread alone, but for the clock (`Frame.late`).

    `notify` is called on the worker's thread when an answer is there (a guard condition's trigger); the executor's
    thread then collects it with `answers`. The two threads make room for each other: on a CPU, whose cores inference takes, no
    other frame is begun until the answer was dealt with, or for `HAND_OVER`; and `give_way` is for images that come faster than
    they are seen.
    """

    def __init__(
        self,
        load: Callable[[Callable[[], None]], Perceiver],
        notify: Callable[[], None],
        samples: int,
        heartbeat: Heartbeat,
    ):
        """`load` makes the perceiver, given what to run before each network call; its errors are the caller's.

        It may let it see an image, with so many `samples`: the heartbeat learns from that how long a call takes.
        """
        self._heartbeat = heartbeat
        self._mailbox: Mailbox[tuple[int, Frame]] = Mailbox()
        self._answers: deque[tuple[int, Answer]] = deque()
        self._changed = threading.Condition()  # of the answers, or the round
        self._in_vain: set[str] = set()  # cameras whose images superseded others since the executor's thread gave way
        self._notify = notify
        self._round = 0  # what was submitted in an earlier round is cancelled
        self._round_at_work = 0
        self._stillness = Stillness()
        self._wanted: Callable[[], bool] = lambda: True  # of the frames at work
        with heartbeat.work(samples, LOADING, "loading the model"):
            self.perceiver = load(self._before_call)
        # as of the last answer: whoever reports must not ask CUDA, which may be stuck
        self.gpu_memory = self.perceiver.gpu_memory
        self._thread = threading.Thread(target=self._work, name="perceiver", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether its thread runs; nothing but `stop` should end it."""
        return self._thread.is_alive()

    def submit(self, frame: Frame) -> bool:
        """Leave a frame; True if it took the place of one of the same camera that was not begun."""
        return self._mailbox.put((self._round, frame), frame.camera)

    def request(self, frame: Frame) -> bool:
        """Leave a frame that no newer one replaces, ahead of the camera's; False where too many of that camera wait."""
        return self._mailbox.request((self._round, frame), frame.camera)

    def answers(self) -> Iterator[Answer]:
        """The answers since the last call, oldest first, without those that were cancelled; at their end the worker goes on."""
        while self._answers:
            its_round, answer = self._answers[0]
            try:
                if its_round == self._round:
                    yield answer
            finally:
                with self._changed:
                    self._answers.popleft()
                    self._changed.notify_all()

    def give_way(self, camera: str) -> None:
        """Wait for an answer, but `GIVE_WAY` at most: what takes in images holds the interpreter, and inference stands still.

        For the executor's thread, where an image of this camera superseded one that was not begun; the middleware keeps the
        newest meanwhile. Of several cameras it waits once a round.
        """
        if camera in self._in_vain:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._answers), GIVE_WAY)
            self._in_vain.clear()
        self._in_vain.add(camera)

    def cancel(self) -> None:
        """Drop every frame submitted so far; the one at work ends before its next network call."""
        with self._changed:
            self._round += 1
            self._changed.notify_all()
        self._mailbox.clear()

    def rest(self) -> None:
        """Drop every frame, and let go of what memory they took, the GPU's too, until the next one comes."""
        self.cancel()
        self._mailbox.wake()

    def stop(self) -> None:
        """End the thread; returns once the network call at work has ended."""
        self.cancel()
        self._mailbox.close()
        self._thread.join()
        del self.perceiver  # it holds this worker, and the model's memory should not wait for the garbage collector

    def _before_call(self) -> None:
        self._heartbeat.beat()
        if self._round_at_work != self._round or not self._wanted():
            raise Cancelled

    def _see(self, frames: list[Frame]) -> list[Answer]:
        """Frames of the same K and seed, as one batch; without overlays."""
        first = frames[0]
        scenes = {frame: scene for frame in frames if (scene := self._stillness.recall(frame)) is not None}
        if new := [frame for frame in frames if frame not in scenes]:
            images, regions = [frame.image for frame in new], [frame.region for frame in new]
            with self._heartbeat.work(len(new) * first.num_samples):  # labels and overlays, slow for large images, are no calls
                found = self.perceiver.batch(images, first.num_samples, first.seed, regions=regions)
            for frame, scene in zip(new, found, strict=True):
                scenes[frame] = scene
                self._stillness.keep(frame, scene)
        return [Answer(frame, scenes[frame], scenes[frame].label() if frame.label else None) for frame in frames]

    def _draw(self, frame: Frame, scene: LayeredScene) -> Answer:
        try:
            return Answer(frame, overlay=overlay(frame.image, scene))
        except Exception as error:  # out of memory for a huge image, say
            return Answer(frame, error=NotDrawn(str(_let_go(error))))

    def _work(self) -> None:
        while self._take_up(self._mailbox.take()):  # which holds nothing of a frame while it waits for the next
            pass

    def _take_up(self, taken: list[tuple[int, Frame]] | None) -> bool:
        """See and answer what was taken out of the mailbox, or rest where that is nothing; False of None, at its end."""
        if taken is None:
            return False
        if not taken:
            self._let_rest()
            return True
        its_round = max(its_round for its_round, _ in taken)
        if its_round != self._round_at_work:
            self._stillness = Stillness()  # what was cancelled, or reset, begins anew
        self._round_at_work = its_round
        frames = [frame for its_round, frame in taken if its_round == self._round_at_work and frame.wanted()]
        frames = [frame for frame in frames if self._in_time(frame) and self._readable(frame)]  # the former again below
        alike: dict[tuple[int, int], list[Frame]] = {}
        for frame in frames:  # both may have been changed between two of them
            alike.setdefault((frame.num_samples, frame.seed), []).append(frame)
        for (samples, _), some in alike.items():
            most = together(self.perceiver.device, len(some), samples)
            for first in range(0, len(some), most):
                if part := [frame for frame in some[first : first + most] if self._in_time(frame)]:
                    self._answer(part)
        return True

    def _in_time(self, frame: Frame) -> bool:
        """Whether it can be begun yet; where it cannot, that is the frame's answer."""
        late = frame.late()
        if late > 0:
            self._tell([Answer(frame, error=TooLate(f"it waited for others to be answered, {late:.2f} s too long"))])
        return late <= 0

    def _readable(self, frame: Frame) -> bool:
        """Whether there is an image; where there is none, that is the frame's answer, and no other camera's."""
        try:
            with self._heartbeat.work(1, DECODING, "decoding an image"):
                frame.image  # noqa: B018  it is made here, and kept
            return True
        except Exception as error:
            self._tell([Answer(frame, error=error)])
            return False

    def _tell(self, answers: list[Answer]) -> None:
        with suppress(RuntimeError):  # of a GPU that was lost: its frames fail, and that is told; this thread must live on
            self.gpu_memory = self.perceiver.gpu_memory
        with self._changed:
            self._answers.extend((self._round_at_work, answer) for answer in answers)
            self._changed.notify_all()
            self._notify()
            if self.perceiver.device == "cpu":
                self._changed.wait_for(lambda: not self._answers or self._round_at_work != self._round, HAND_OVER)

    def _let_rest(self) -> None:
        try:
            with self._heartbeat.work(1, what="giving back the GPU's memory"):
                self.perceiver.rest()
                self.gpu_memory = self.perceiver.gpu_memory
                malloc.give_back()  # what the frame took that was at work
        except Exception:  # of CUDA, say: the thread must live on, and the next frame tells of it
            LOGGER.exception("the GPU's memory was not released")

    def _answer(self, frames: list[Frame]) -> None:
        self._wanted = lambda: any(frame.wanted() for frame in frames)
        try:
            answers = self._see(frames)
        except Cancelled:
            return
        except Exception as error:  # out of GPU memory, say: one frame is lost, the node lives on and says so
            failure = _let_go(error)
        else:
            self._tell(answers)
            for answer in answers:  # drawn once all masks are sent: of a large image that takes longer than inference
                if answer.frame.overlay and answer.scene is not None and self._round_at_work == self._round:
                    self._tell([self._draw(answer.frame, answer.scene)])
            return
        finally:
            self._wanted = lambda: True
        if len(frames) == 1:
            self._tell([Answer(frames[0], error=failure)])
        else:  # what is too much together may do one by one
            for frame in frames:
                self._answer([frame])


def _let_go(error: Exception) -> Exception:
    """The error without its tracebacks, which hold the tensors of the call that failed: on a GPU the next one needs the room."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__context__
    return error
