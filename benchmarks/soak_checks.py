# SPDX-License-Identifier: Apache-2.0
"""The checks of `make soak`: each starts what it needs, loads or breaks it, and returns a row of the table."""

import json
import signal
import time
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import bad_messages as bad
from benchmarks.soak_node import OUTCOMES, NodeProcess, Robot, end, spawn, wait

LATE = 0.1  # seconds that a frame may be older than its inference took
CYCLE_GROWTH = 40.0  # MB
FLOOD_GROWTH = 50.0  # MB, after the first quarter: frames of 6 MB come and go
SLOPE = 20.0  # MB an hour
LOST = 0.01  # share of the frames
SLOWER = 1.1  # p50 latency of the last third to that of the first, where the machine itself did not slow down
EXCUSED = 1.25  # at most, by the machine
FIXED_WORK = 200_000  # additions, of a few milliseconds
JUDGED_CYCLES = 100  # from which on: the medians of the first after twenty and of the last twenty differ by what was lost
JUDGED_FRAMES = 5  # whose inference time is asked before the flood is measured
JUDGED_FROM = 5.0  # minutes of streaming: slopes of less are those of chance
STOPPED = 8.0  # seconds, more than the watchdog allows
QUEUE = 200  # fuzzed images that may be under way
PASS, FAIL, SHORT = "pass", "**FAIL**", "too short to judge"


@dataclass(frozen=True)
class Row:
    """What a check found: load held, faults survived, bad inputs tried, what was lost; and whether that is good."""

    check: str
    load: str
    faults: str
    bad: str
    lost: str
    verdict: str

    def markdown(self) -> str:
        """A line of the table."""
        return f"| {self.check} | {self.load} | {self.faults} | {self.bad} | {self.lost} | {self.verdict} |"


def verdict(*good: bool) -> str:
    """Of a row whose conditions must all hold."""
    return PASS if all(good) else FAIL


class Bench:
    """What the checks share: options, a folder for logs, and a node and robot for each."""

    def __init__(self, options: Namespace, folder: Path):
        self.options, self.folder = options, folder

    @contextmanager
    def pair(self, *parameters: str, queue: int = 1, **options: Any) -> Iterator[tuple[NodeProcess, Robot]]:
        """A node, ready and seen to answer, and a robot with a `queue` of images; both are ended afterwards."""
        given = (f"model:={self.options.model}", f"device:={self.options.device}", *parameters)
        node, robot = NodeProcess(self.folder / "node.log", *given, **options), Robot(queue=queue)
        try:
            if not robot.ready():
                raise TimeoutError(f"the node does not come up: see {self.folder / 'node.log'}")
            yield node, robot
        finally:
            robot.close()
            node.end()

    @contextmanager
    def camera(self, *arguments: str) -> Iterator[Callable[[], tuple[int, float]]]:
        """A camera that streams meanwhile; what is yielded ends it, and returns frames sent and seconds."""
        process = spawn("benchmarks.camera", *arguments, stdout=-1, text=True)

        def finish() -> tuple[int, float]:
            frames, seconds = end(process).split() or (0, 1)  # nothing where it had to be killed
            return int(frames), float(seconds)

        try:
            yield finish
        finally:
            if process.poll() is None:
                end(process)


def progress(text: str) -> None:
    """Tell where a check stands, over the line before."""
    print(f"\r\033[K  {text}", end="", flush=True)


def fuzz(bench: Bench) -> Row:
    """Bad messages of all four kinds; after each hundred a good frame."""
    # Queues are long, so that no image is overwritten in them and each is counted. Of depth and camera_info the latest are looked
    # at, when a good frame's cloud is made.
    messages, random = bench.options.messages, np.random.default_rng(bench.options.seed)
    share = messages // 4
    tried = answered = good_frames = images = repeated = 0
    states: list[dict[str, str]] = []
    alive = True
    for transport in ("raw", "compressed"):
        count = share if transport == "compressed" else messages - share
        topic = "/image" if transport == "raw" else "/image/compressed"
        every = (f"qos_overrides.{topic}.subscription.{policy}" for policy in ("reliability:=reliable", f"depth:={QUEUE}"))
        with bench.pair("num_samples:=1", f"image_transport:={transport}", *every, queue=QUEUE) as (node, robot):
            if transport == "raw":
                robot.listen_to_points()
            good = _sender(robot, transport)
            for number in range(1, count + 1):
                images += _send_bad(robot, transport, number, random)
                time.sleep(0.002)
                if number % 100 == 0 or number == count:
                    answered += robot.answer(good)
                    good_frames += 1
                    progress(f"{tried + number} of {messages} bad messages")
            states.append(robot.settled())
            repeated += robot.repeated
            alive = alive and node.alive
            tried += count
    unexplained = sum(int(s["received"]) - sum(int(s[part]) for part in OUTCOMES) for s in states)
    rejected, clouds = (sum(int(s[name]) for s in states) for name in ("rejected", "without_points"))
    return Row(
        "fuzzed messages",
        f"{answered} good frames answered among them",
        "no exit" if alive else "the node exited",
        f"{tried}: {images} images, {rejected} rejected; {clouds} answers without a cloud",
        f"{good_frames - answered} good frames, {repeated} sent twice, {unexplained} messages without an outcome",
        verdict(alive, answered == good_frames, unexplained == 0, rejected == images, all(s["failed"] == "0" for s in states)),
    )


def _sender(robot: Robot, transport: str) -> Callable[[Any], None]:
    if transport == "raw":
        return lambda stamp: robot.images.publish(bad.good_image(stamp))
    return lambda stamp: robot.compressed.publish(bad.good_compressed(stamp))


def _send_bad(robot: Robot, transport: str, number: int, random: np.random.Generator) -> bool:
    """Send one; whether it is an image."""
    stamp = robot.node.get_clock().now().to_msg()
    if transport == "compressed":
        robot.compressed.publish(bad.bad_compressed(stamp, random))
        return True
    if number % 3 == 2:
        robot.images.publish(bad.bad_image(stamp, random))
        return True
    if number % 3 == 0:
        robot.depths.publish(bad.bad_depth(stamp, random))
    else:
        robot.infos.publish(bad.odd_camera_info(random))
    return False


def flood(bench: Bench) -> Row:
    """Full HD as fast as the machine sends, while inference takes about a second."""
    seconds = bench.options.flood
    with (
        bench.pair("num_samples:=1", "stillness:=0.0") as (node, robot),
        bench.camera("--width", "1920", "--height", "1080") as finish,
    ):
        samples, taken = _about_a_second(robot)
        first, memory, received, began = len(robot.masks), [], robot.number("received"), time.monotonic()
        while time.monotonic() - began < seconds and node.alive:
            time.sleep(0.5)
            memory.append(node.memory)
            progress(f"flood: {len(robot.masks) - first} answers, {memory[-1]:.0f} MB")
        hertz = (robot.number("received") - received) / max(1.0, robot.told - began)
        sent, sent_seconds = finish()
        found = robot.masks[first:]
        alive = node.alive
    late = [_age(masks, came) - _seconds(masks.inference_time) for masks, came in found]
    growth = memory[-1] - memory[len(memory) // 4]
    worst, half = (max(late), float(np.median(late))) if late else (float("nan"),) * 2
    return Row(
        "flood of 1920x1080 rgb8",
        f"sent {sent / sent_seconds:.0f} Hz, received {hertz:.1f} Hz; {len(found)} answers, one in {taken:.2f} s, K = {samples}",
        "no exit" if alive else "the node exited",
        "-",
        f"age at the answer: inference + {1000 * half:.0f} ms p50, + {1000 * worst:.0f} ms at most; memory {growth:+.0f} MB",
        verdict(alive, bool(late) and worst <= LATE, growth <= FLOOD_GROWTH),
    )


def _about_a_second(robot: Robot) -> tuple[int, float]:
    """Have the node draw so many hypotheses that a frame takes about a second; returns K and the median seconds of a frame."""
    samples, taken = 1, _frame_seconds(robot)
    for _ in range(6):  # more hypotheses take less than as many times longer
        wanted = int(np.clip(round(samples / taken), 1, 64))
        if 0.8 < taken < 1.3 or wanted == samples:
            break
        samples = wanted
        robot.set(num_samples=samples)
        taken = _frame_seconds(robot)
    return samples, taken


def _frame_seconds(robot: Robot) -> float:
    """Median inference time of the next frames, but for the one that may have been begun before."""
    came = len(robot.masks)
    if not wait(lambda: len(robot.masks) > came + JUDGED_FRAMES):
        raise TimeoutError("the flood is not answered")
    return float(np.median([_seconds(masks.inference_time) for masks, _ in robot.masks[came + 1 :]]))


def _seconds(stamp: Any) -> float:
    return float(stamp.sec + stamp.nanosec / 1e9)


def _age(masks: Any, came: float) -> float:
    return came - _seconds(masks.header.stamp)


def cycles(bench: Bench) -> Row:
    """Deactivate, clean up, configure, activate, by the lifecycle services, while a camera streams."""
    count = bench.options.cycles
    warm = min(20, count // 2)
    refused = lost = answers = 0
    threads, memory = 0, []
    with bench.pair("num_samples:=1") as (node, robot), bench.camera("--rate", "10"):
        for number in range(1, count + 1):
            refused += sum(not robot.change(each) for each in ("deactivate", "cleanup", "configure", "activate"))
            if number % 10 == 0 or number == count:
                came = len(robot.masks)
                answers += 1
                lost += not wait(lambda came=came: len(robot.masks) > came)
            memory.append(node.memory)
            if number == warm:
                threads = node.threads
            progress(f"{number} of {count} lifecycle cycles, {memory[-1]:.0f} MB")
        threads, alive = node.threads - threads, node.alive
    growth = float(np.median(memory[-warm:]) - np.median(memory[warm : 2 * warm]))  # a single look may be at a frame's work
    good = (alive, refused == 0, lost == 0, growth <= CYCLE_GROWTH, threads <= 0)
    return Row(
        "lifecycle cycles under load",
        f"{count} cycles at 640x480, 10 Hz; answers looked for after {answers} of them",
        "no exit" if alive else "the node exited",
        "-",
        f"{refused} transitions refused, {lost} answers; memory {growth:+.0f} MB, threads {threads:+d} since cycle {warm}",
        FAIL if not all(good) else PASS if count >= JUDGED_CYCLES else SHORT,
    )


def stopped(bench: Bench) -> Row:
    """SIGSTOP under load: the silence shows on /diagnostics, and the node goes on by itself."""
    with bench.pair("num_samples:=1") as (node, robot), bench.camera("--rate", "5"):
        good = wait(lambda: robot.masks)
        progress(f"stopped for {STOPPED:.0f} s")
        node.process.send_signal(signal.SIGSTOP)
        time.sleep(STOPPED)
        silent = time.monotonic() - robot.told
        came, began = len(robot.masks), time.monotonic()
        node.process.send_signal(signal.SIGCONT)
        back = wait(lambda: len(robot.masks) > came + 1)
        seconds, alive = time.monotonic() - began, node.alive
    return Row(
        "stopped (SIGSTOP) and continued",
        "640x480, 5 Hz",
        f"stopped for {STOPPED:.0f} s, /diagnostics silent for {silent:.1f} s; " + ("no exit" if alive else "the node exited"),
        "-",
        f"answers again after {seconds:.1f} s" if back else "no answer since",
        verdict(good, back, alive, silent > STOPPED / 2),
    )


def stuck(bench: Bench) -> Row:
    """An inference that never ends: the watchdog ends the process with 1, and it is started again."""
    with bench.pair("num_samples:=1", module="benchmarks.stuck_node") as (node, robot):
        good = robot.answer(_sender(robot, "raw"))
        image = bad.good_image(robot.node.get_clock().now().to_msg())
        image.data[:3] = type(image.data)("B", [255, 255, 255])
        robot.images.publish(image)
        progress("a stuck inference, until the watchdog ends the process")
        return _again("inference that never ends", node, robot, 1, good)


def killed(bench: Bench) -> Row:
    """SIGKILL, as when memory runs out: it is started again."""
    with bench.pair("num_samples:=1") as (node, robot):
        good = robot.answer(_sender(robot, "raw"))
        progress("killed")
        node.process.kill()
        return _again("killed (SIGKILL)", node, robot, -signal.SIGKILL, good)


def _again(check: str, node: NodeProcess, robot: Robot, expected: int, good: bool) -> Row:
    began = time.monotonic()
    died = node.start_again()
    ended, restarted = time.monotonic() - began, time.monotonic()
    back = robot.answer(_sender(robot, "raw"))
    return Row(
        check,
        "-",
        f"ended with {died} after {ended:.1f} s, started again",
        "-",
        f"answers again {time.monotonic() - restarted:.1f} s after its start" if back else "no answer since",
        verdict(good, back, died == expected),
    )


def stream(bench: Bench) -> Row:
    """The rate that the machine keeps, for long: neither memory nor latency grows."""
    minutes = bench.options.minutes
    with bench.pair("num_samples:=3", "stillness:=0.0") as (node, robot):
        rate = _kept_rate(bench, robot)
        first, began, memory, own = robot.now(), time.monotonic(), [], []
        with bench.camera("--rate", f"{rate:.3f}") as finish:
            while (passed := time.monotonic() - began) < 60 * minutes and node.alive:
                time.sleep(1.0)
                memory.append((passed, node.memory))
                own.append(_fixed_work())
                progress(f"{passed / 60:.1f} of {minutes:g} minutes at {rate:.1f} Hz, {memory[-1][1]:.0f} MB")
            sent, _ = finish()
        alive = node.alive
        time.sleep(2)  # for the answers under way
        found = [each for each in robot.masks if _seconds(each[0].header.stamp) >= first]  # not those of the camera before
    slope = memory_slope(memory)
    latencies = np.array([_age(*each) for each in found])
    p50, fixed = first_and_last_third(latencies), first_and_last_third(np.array(own))
    lost = sent - len(found)
    within = slope <= SLOPE and no_slower(p50, fixed) and few(lost, sent)
    (bench.folder / "stream.json").write_text(json.dumps({"memory": memory, "latency": latencies.tolist(), "fixed_work": own}))
    return Row(
        f"streaming for {minutes:g} minutes",
        f"640x480 at {rate:.1f} Hz, K = 3; p50 latency {1000 * p50[0]:.0f} ms in the first third, then {1000 * p50[1]:.0f} ms; "
        f"CPU time of a fixed calculation {1000 * fixed[0]:.1f} ms, then {1000 * fixed[1]:.1f} ms",
        "no exit" if alive else "the node exited",
        "-",
        f"{lost} of {sent} frames superseded or lost; memory {slope:+.1f} MB/h",
        FAIL if not (alive and found and lost >= 0) else verdict(within) if minutes >= JUDGED_FROM else SHORT,
    )


def few(lost: int, sent: int) -> bool:
    """Whether no more frames were lost than a hiccup of the machine explains; below 0 where the camera died untold."""
    return 0 <= lost <= LOST * sent


def memory_slope(memory: list[tuple[float, float]]) -> float:
    """MB an hour, of seconds and MB; the first tenth is left out, as it warms up."""
    settled = np.array(memory[len(memory) // 10 :])
    return float(np.polyfit(settled[:, 0] / 3600, settled[:, 1], 1)[0]) if len(settled) > 1 else 0.0


def first_and_last_third(values: np.ndarray) -> tuple[float, float]:
    """Their medians; NaN where there are no values."""
    third = max(1, len(values) // 3)
    first, last = (float(np.median(part)) if len(part) else float("nan") for part in (values[:third], values[-third:]))
    return first, last


def no_slower(p50: tuple[float, float], fixed: tuple[float, float]) -> bool:
    """Whether the last latency is at most `SLOWER` times the first, or more by as much as a fixed calculation took longer."""
    return p50[1] <= SLOWER * p50[0] * float(np.clip(fixed[1] / fixed[0], 1.0, EXCUSED))


def _fixed_work() -> float:
    """CPU seconds of a calculation that is always the same: more of them where others slow the machine itself down."""
    began = time.thread_time()
    sum(range(FIXED_WORK))
    return time.thread_time() - began


def _kept_rate(bench: Bench, robot: Robot) -> float:
    """Frames a second that are answered one by one, less a fifth."""
    with bench.camera("--rate", "30"):
        if not wait(lambda: len(robot.masks) >= 2):
            raise TimeoutError("the camera is not answered")
        first, began = len(robot.masks), time.monotonic()
        wait(lambda: len(robot.masks) >= first + 20, 20)
        return 0.8 * max(1, len(robot.masks) - first) / (time.monotonic() - began)


CHECKS = {each.__name__: each for each in (fuzz, flood, cycles, stopped, stuck, killed, stream)}
