# SPDX-License-Identifier: Apache-2.0
"""The mailbox keeps the newest alone; the worker answers, cancels between network calls, and outlives errors."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from weakref import ref

import numpy as np
import pytest

from seqamodal_ros.ros.heartbeat import Heartbeat
from seqamodal_ros.ros.mailbox import MOST_REQUESTED, Mailbox
from seqamodal_ros.ros.worker import MOST_ROWS, Frame, Region, TooLate, Worker

IMAGE = np.zeros((4, 4, 3), np.uint8)
WITHIN = 10.0


def frame(seed: int) -> Frame:
    return Frame(None, IMAGE, 1, seed)


class OnCpu:
    """What a perceiver on a CPU says of where it is."""

    device, gpu_memory = "cpu", None


class Scripted(OnCpu):
    """A perceiver of two network calls a frame; the test holds it between them. Seed 13 fails."""

    def __init__(self, before_call: Callable[[], None]):
        self.before_call = before_call
        self.begun, self.go_on = threading.Semaphore(0), threading.Semaphore(0)

    def batch(self, images: list[np.ndarray], num_samples: int, seed: int, regions: list[Region]) -> list[str]:
        self.before_call()
        self.begun.release()
        assert self.go_on.acquire(timeout=WITHIN)
        self.before_call()
        if seed == 13:
            raise RuntimeError("out of memory")
        return [f"scene {seed}" for _ in images]


class Held:
    """A worker with a scripted perceiver, and a way to wait for its answers."""

    def __init__(self) -> None:
        self.notified = threading.Semaphore(0)
        self.worker = Worker(Scripted, self.notified.release, samples=1, heartbeat=Heartbeat())
        self.perceiver = self.worker.perceiver

    def answers(self) -> list:
        assert self.notified.acquire(timeout=WITHIN)
        return [(answer.frame.seed, answer.scene, str(answer.error or "")) for answer in self.worker.answers()]


def test_the_mailbox_keeps_the_newest():
    box: Mailbox[int] = Mailbox()
    assert [box.put(1), box.put(2), box.put(3)] == [False, True, True]
    assert box.take() == [3]
    box.put(4)
    box.clear()
    assert box.put(5) is False
    box.close()
    assert box.take() is None


def test_requested_items_take_turns_with_others_and_none_is_replaced():
    box: Mailbox[int] = Mailbox()
    box.put(1)
    assert all(box.request(item) for item in range(10, 10 + MOST_REQUESTED))
    assert box.request(99) is False
    assert box.request(98, "another")
    assert box.put(2) is True
    assert [box.take() for _ in range(3)] == [[10], [2], [11]]
    assert [box.take() for _ in range(MOST_REQUESTED - 1)] == [[item] for item in (*range(12, 10 + MOST_REQUESTED), 98)]
    assert box.request(3)
    box.clear()
    assert box.put(4) is False
    assert box.take() == [4]


def test_closing_wakes_whoever_waits():
    box: Mailbox[int] = Mailbox()
    taken: list[int | None] = []
    thread = threading.Thread(target=lambda: taken.append(box.take()))
    thread.start()
    box.close()
    thread.join(WITHIN)
    assert taken == [None]


def test_frames_are_answered_and_superseded():
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.begun.acquire(timeout=WITHIN)
    assert held.worker.submit(frame(2)) is False
    assert held.worker.submit(frame(3)) is True
    held.perceiver.go_on.release(2)
    answers = held.answers()
    answers += held.answers() if len(answers) < 2 else []
    assert answers == [(1, "scene 1", ""), (3, "scene 3", "")]
    held.worker.stop()


def test_cancel_ends_the_frame_at_work_and_drops_the_one_that_waits():
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.begun.acquire(timeout=WITHIN)
    held.worker.submit(frame(2))
    held.worker.cancel()
    held.perceiver.go_on.release(2)
    held.worker.submit(frame(3))
    assert held.answers() == [(3, "scene 3", "")]
    held.worker.stop()


def test_an_answer_of_before_a_cancel_is_not_handed_out():
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.go_on.release()
    assert held.notified.acquire(timeout=WITHIN)
    held.worker.cancel()
    assert not [*held.worker.answers()]
    held.worker.stop()


def test_an_error_is_an_answer_and_the_next_frame_is_seen():
    held = Held()
    held.perceiver.go_on.release(2)
    held.worker.submit(frame(13))
    assert held.answers() == [(13, None, "out of memory")]
    held.worker.submit(frame(14))
    assert held.answers() == [(14, "scene 14", "")]
    held.worker.stop()


def test_a_frame_that_waited_too_long_is_not_begun():
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.begun.acquire(timeout=WITHIN)
    held.worker.submit(replace(frame(2), late=lambda: 0.5))
    held.perceiver.go_on.release()
    assert held.answers() == [(1, "scene 1", "")]
    assert held.notified.acquire(timeout=WITHIN)
    (late,) = held.worker.answers()
    assert isinstance(late.error, TooLate) and late.frame.seed == 2
    assert not held.perceiver.begun.acquire(blocking=False)
    held.worker.stop()


def test_whether_it_is_alive():
    held = Held()
    assert held.worker.alive
    held.worker.stop()
    assert not held.worker.alive


def test_the_next_frame_is_begun_once_the_answer_was_dealt_with(monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.worker.HAND_OVER", 10 * WITHIN)
    held = Held()
    held.worker.submit(frame(1))
    assert held.perceiver.begun.acquire(timeout=WITHIN)
    held.worker.submit(frame(2))
    held.perceiver.go_on.release()
    assert held.notified.acquire(timeout=WITHIN)
    for answer in held.worker.answers():
        assert answer.scene == "scene 1"
        assert not held.perceiver.begun.acquire(timeout=0.2), "it went on while the answer was sent"
    assert held.perceiver.begun.acquire(timeout=WITHIN)
    held.perceiver.go_on.release()
    held.worker.stop()


def test_the_worker_goes_on_where_nobody_collects_its_answers():
    held = Held()
    for seed in (1, 2):
        held.worker.submit(frame(seed))
        held.perceiver.go_on.release()
        assert held.notified.acquire(timeout=WITHIN)
    assert [answer.frame.seed for answer in held.worker.answers()] == [1, 2]
    held.worker.stop()


def test_stop_ends_the_hand_over(monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.worker.HAND_OVER", 10 * WITHIN)
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.go_on.release()
    assert held.notified.acquire(timeout=WITHIN)
    stopping = threading.Thread(target=held.worker.stop)
    stopping.start()
    stopping.join(WITHIN)
    assert not stopping.is_alive()


def test_on_a_gpu_the_next_frame_is_begun_at_once(monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.worker.HAND_OVER", 10 * WITHIN)
    held = Held()
    held.perceiver.device = "cuda"
    held.worker.submit(frame(1))
    assert held.perceiver.begun.acquire(timeout=WITHIN)
    held.worker.submit(frame(2))
    held.perceiver.go_on.release()
    assert held.perceiver.begun.acquire(timeout=WITHIN)
    held.perceiver.go_on.release()
    held.worker.stop()


def test_giving_way_ends_with_the_next_answer(monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.worker.GIVE_WAY", WITHIN)
    held = Held()
    held.worker.submit(frame(1))
    assert held.perceiver.begun.acquire(timeout=WITHIN)
    began = time.monotonic()
    held.worker.give_way("left")
    held.worker.give_way("right")  # once a round of the cameras
    assert time.monotonic() - began < WITHIN / 2
    threading.Timer(0.2, held.perceiver.go_on.release).start()
    held.worker.give_way("left")
    assert 0.2 <= time.monotonic() - began < WITHIN / 2
    assert [answer.frame.seed for answer in held.worker.answers()] == [1]
    held.worker.stop()


def test_giving_way_does_not_last_without_an_answer():
    held = Held()
    began = time.monotonic()
    for _ in range(3):
        held.worker.give_way("")
    assert time.monotonic() - began < WITHIN / 2
    held.worker.stop()


def test_stop_ends_a_frame_at_work():
    held = Held()
    held.worker.submit(frame(1))
    held.perceiver.begun.acquire(timeout=WITHIN)
    held.perceiver.go_on.release()
    held.worker.stop()
    assert not held.worker._thread.is_alive()
    assert not [*held.worker.answers()]


def test_each_sender_has_a_slot_and_all_are_taken_at_once():
    box: Mailbox[int] = Mailbox()
    assert [box.put(1, "left"), box.put(2, "right"), box.put(3, "left")] == [False, False, True]
    assert box.take() == [2, 3]
    assert box.put(4, "left") is False


class Resting(Scripted):
    """Tells when it was let rest."""

    def __init__(self, before_call: Callable[[], None]):
        super().__init__(before_call)
        self.rested = threading.Semaphore(0)

    def rest(self) -> None:
        self.rested.release()


def test_it_rests_between_two_frames_and_goes_on(monkeypatch):
    given_back = threading.Semaphore(0)
    monkeypatch.setattr("seqamodal_ros.ros.malloc.give_back", given_back.release)
    notified = threading.Semaphore(0)
    worker = Worker(Resting, notified.release, samples=1, heartbeat=Heartbeat())
    worker.rest()
    assert worker.perceiver.rested.acquire(timeout=WITHIN)
    assert given_back.acquire(timeout=WITHIN)
    worker.submit(frame(1))
    assert worker.perceiver.begun.acquire(timeout=WITHIN)
    worker.rest()
    assert not worker.perceiver.rested.acquire(timeout=0.2), "it let the perceiver rest in the middle of a frame"
    worker.perceiver.go_on.release()
    assert worker.perceiver.rested.acquire(timeout=WITHIN)
    worker.submit(frame(2))
    worker.perceiver.go_on.release()
    assert notified.acquire(timeout=WITHIN)
    assert [answer.scene for answer in worker.answers()] == ["scene 2"]
    worker.stop()


def test_what_fails_while_it_rests_does_not_end_the_thread(caplog):
    class Failing(Scripted):
        def rest(self) -> None:
            raise RuntimeError("device-side assert")

    notified = threading.Semaphore(0)
    worker = Worker(Failing, notified.release, samples=1, heartbeat=Heartbeat())
    worker.rest()
    worker.submit(frame(1))
    worker.perceiver.go_on.release()
    assert notified.acquire(timeout=WITHIN)
    assert [answer.scene for answer in worker.answers()] == ["scene 1"]
    assert "device-side assert" in caplog.text
    worker.stop()


class Counting(OnCpu):
    """A perceiver that remembers its batches; the test holds it in the first."""

    def __init__(self, before_call: Callable[[], None]):
        self.batches: list[tuple[int, int, int]] = []
        self.go_on = threading.Semaphore(0)

    def batch(self, images: list[np.ndarray], num_samples: int, seed: int, regions: list[Region]) -> list[str]:
        self.batches.append((len(images), num_samples, seed))
        assert self.go_on.acquire(timeout=WITHIN)
        return [f"scene of {image[0, 0, 0]}" for image in images]


def test_frames_of_several_cameras_are_one_batch_where_they_are_alike():
    notified = threading.Semaphore(0)
    worker = Worker(Counting, notified.release, samples=1, heartbeat=Heartbeat())
    images = {name: np.full((4, 4, 3), number, np.uint8) for number, name in enumerate("abc")}
    worker.submit(Frame(None, images["a"], 1, 0, camera="a"))
    until = time.monotonic() + WITHIN
    while not worker.perceiver.batches:  # the first is at work alone
        assert time.monotonic() < until
        time.sleep(0.01)
    for name in "abc":
        assert worker.submit(Frame(None, images[name], 3 if name == "c" else 2, 0, camera=name)) is False
    assert worker.submit(Frame(None, images["b"], 2, 0, camera="b")) is True
    for _ in range(3):
        worker.perceiver.go_on.release()
        assert notified.acquire(timeout=WITHIN)
    answers = [(answer.frame.camera, answer.scene) for answer in worker.answers()]
    assert sorted(answers[1:]) == [("a", "scene of 0"), ("b", "scene of 1"), ("c", "scene of 2")]
    assert sorted(worker.perceiver.batches[1:]) == [(1, 3, 0), (2, 2, 0)]
    worker.stop()


@pytest.mark.parametrize(("device", "batches"), [("cpu", [2, 1]), ("cuda", [3])])
def test_on_a_cpu_no_batch_is_larger_than_ends_soon_after_sigint(device, batches):
    notified = threading.Semaphore(0)
    worker = Worker(Counting, notified.release, samples=1, heartbeat=Heartbeat())
    worker.perceiver.device = device
    worker.submit(Frame(None, IMAGE, 1, 0, camera="a"))
    until = time.monotonic() + WITHIN
    while not worker.perceiver.batches:  # the first is at work alone
        assert time.monotonic() < until
        time.sleep(0.01)
    for name in "abc":
        worker.submit(Frame(None, IMAGE, MOST_ROWS // 2, 0, camera=name))
    for _ in range(1 + len(batches)):
        worker.perceiver.go_on.release()
        assert notified.acquire(timeout=WITHIN)
    assert [answer.frame.camera for answer in worker.answers()] == ["a", "a", "b", "c"]
    assert worker.perceiver.batches[1:] == [(images, MOST_ROWS // 2, 0) for images in batches]
    worker.stop()


def test_an_image_is_made_once_and_only_if_it_is_taken():
    """Decoded, say: most of a fast camera's are superseded. What goes wrong there is the frame's own answer."""
    notified = threading.Semaphore(0)
    worker = Worker(Counting, notified.release, samples=1, heartbeat=Heartbeat())
    made: list[int] = []

    def source(number: int) -> Callable[[], np.ndarray]:
        return lambda: made.append(number) or np.full((4, 4, 3), number, np.uint8)

    def broken() -> np.ndarray:
        raise ValueError("no image")

    worker.submit(Frame(None, source(0), 1, 0))
    until = time.monotonic() + WITHIN
    while not worker.perceiver.batches:
        assert time.monotonic() < until
        time.sleep(0.01)
    for number in range(1, 5):
        worker.submit(Frame(None, source(number), 1, 0, camera="a"))
    worker.submit(Frame(None, broken, 1, 0, camera="b"))
    for _ in range(2):
        worker.perceiver.go_on.release()
    for _ in range(3):
        assert notified.acquire(timeout=WITHIN)
    answers = {answer.frame.camera: (answer.scene, str(answer.error)) for answer in worker.answers()}
    assert answers == {"": ("scene of 0", "None"), "a": ("scene of 4", "None"), "b": (None, "no image")}
    assert made == [0, 4]
    worker.stop()


class Narrow(OnCpu):
    """A perceiver whose memory holds one image."""

    def __init__(self, before_call: Callable[[], None]):
        self.go_on = threading.Semaphore(0)

    def batch(self, images: list[np.ndarray], num_samples: int, seed: int, regions: list[Region]) -> list[str]:
        assert self.go_on.acquire(timeout=WITHIN)
        if len(images) > 1:
            raise RuntimeError("out of memory")
        return [f"scene of {image[0, 0, 0]}" for image in images]


def test_what_a_batch_took_is_let_go_before_its_frames_are_seen_one_by_one():
    """On a GPU there may be room for one alone, once the others' tensors are gone."""
    lost: list[ref] = []
    still_there: list[bool] = []

    class Taking(Narrow):
        def batch(self, images: list[np.ndarray], num_samples: int, seed: int, regions: list[Region]) -> list[str]:
            tensors = np.zeros(9)
            still_there.extend(each() is not None for each in lost)
            lost.append(ref(tensors))
            return super().batch(images, num_samples, seed, regions)

    notified = threading.Semaphore(0)
    worker = Worker(Taking, notified.release, samples=1, heartbeat=Heartbeat())
    worker.submit(Frame(None, IMAGE, 1, 0, camera="first"))
    time.sleep(0.1)  # it is at work, the others wait together
    for name in "ab":
        worker.submit(Frame(None, IMAGE, 1, 0, camera=name))
    for _ in range(4):
        worker.perceiver.go_on.release()
    for _ in range(3):
        assert notified.acquire(timeout=WITHIN)
    assert len(lost) == 4 and still_there == [False] * 6
    worker.stop()


def test_no_image_is_held_once_it_was_answered():
    """One of 4K takes 25 MB, and none may come for hours."""
    held = Held()
    for seed in (1, 13):  # seen, and failed
        image = np.zeros((4, 4, 3), np.uint8)
        of_it = ref(image)
        held.worker.submit(Frame(None, image, 1, seed))
        del image
        held.perceiver.go_on.release()
        assert len(held.answers()) == 1
        until = time.monotonic() + WITHIN
        while of_it() is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert of_it() is None
    held.worker.stop()


def test_a_gpu_that_does_not_tell_its_memory_any_more_does_not_end_the_thread():
    class Lost(Counting):
        told = True

        @property
        def gpu_memory(self) -> int:
            if self.told:
                return 7
            raise RuntimeError("CUDA error: unspecified launch failure")

    notified = threading.Semaphore(0)
    worker = Worker(Lost, notified.release, samples=1, heartbeat=Heartbeat())
    worker.perceiver.told = False
    for _ in range(2):
        worker.submit(frame(1))
        worker.perceiver.go_on.release()
        assert notified.acquire(timeout=WITHIN)
    assert len([*worker.answers()]) == 2 and worker.gpu_memory == 7
    worker.stop()


def test_frames_that_are_too_much_together_are_seen_one_by_one():
    notified = threading.Semaphore(0)
    worker = Worker(Narrow, notified.release, samples=1, heartbeat=Heartbeat())
    worker.submit(Frame(None, IMAGE, 1, 0, camera="first"))
    time.sleep(0.1)  # it is at work, the others wait together
    for number, name in enumerate("ab"):
        worker.submit(Frame(None, np.full((4, 4, 3), number, np.uint8), 1, 0, camera=name))
    for _ in range(4):
        worker.perceiver.go_on.release()
    for _ in range(3):
        assert notified.acquire(timeout=WITHIN)
    answers = {answer.frame.camera: answer.scene for answer in worker.answers()}
    assert answers == {"first": "scene of 0", "a": "scene of 0", "b": "scene of 1"}
    worker.stop()
