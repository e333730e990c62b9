# SPDX-License-Identifier: Apache-2.0
"""A worker that is busy is told from one that is stuck; the process of the latter ends, and says why."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor

from seqamodal_ros.ros.heartbeat import CALLS, LEAST, LOADING, Heartbeat


class Clock:
    """Time that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def heartbeat(clock) -> Heartbeat:
    return Heartbeat(clock)


def test_a_call_may_take_five_seconds_at_least_as_docs_architecture_says():
    assert LEAST == 5.0


def test_nothing_at_work_is_never_silent(heartbeat, clock):
    heartbeat.beat()
    clock.now += 1000
    assert heartbeat.silence == 0
    with heartbeat.work(1):
        clock.now += 1000
    clock.now += 1000
    assert heartbeat.silence == 0


def test_silence_begins_at_the_last_beat(heartbeat, clock):
    with heartbeat.work(1):
        clock.now += 3
        assert heartbeat.silence == 3
        heartbeat.beat()
        assert heartbeat.silence == 0
        clock.now += 2
        assert heartbeat.silence == 2


def test_short_calls_are_allowed_the_least(heartbeat, clock):
    with heartbeat.work(1):
        for _ in range(5):
            heartbeat.beat()
            clock.now += 0.01
    assert heartbeat.allowed == LEAST


def test_three_times_the_longest_call_is_allowed_and_more_for_more_hypotheses(heartbeat, clock):
    with heartbeat.work(3):
        heartbeat.beat()
        clock.now += 12
        heartbeat.beat()
        clock.now += 6
    assert heartbeat.allowed == pytest.approx(36)
    with heartbeat.work(6):
        assert heartbeat.allowed == pytest.approx(72)
    with heartbeat.work(1):  # what does not grow with them, such as encoding, takes as long
        assert heartbeat.allowed == pytest.approx(36)


def test_what_comes_before_the_first_call_is_none(heartbeat, clock):
    with heartbeat.work(1):
        clock.now += 60  # a model is loaded
        heartbeat.beat()
        clock.now += 0.1
    assert heartbeat.allowed == LEAST


def test_the_last_call_counts_and_work_that_raised_is_over(heartbeat, clock):
    with heartbeat.work(1):
        heartbeat.beat()
        clock.now += 10
    assert heartbeat.allowed == 30
    with pytest.raises(RuntimeError), heartbeat.work(1):
        raise RuntimeError
    clock.now += 1000
    assert heartbeat.silence == 0


def test_what_took_long_once_is_forgotten_in_time(heartbeat, clock):
    """As a call does in which the process was stopped."""
    with heartbeat.work(1):
        heartbeat.beat()
        clock.now += 600
        for _ in range(CALLS + 1):
            heartbeat.beat()
            clock.now += 0.01
    assert heartbeat.allowed == LEAST


def test_some_work_is_allowed_more(heartbeat):
    with heartbeat.work(1, LOADING):
        assert heartbeat.allowed == LOADING
    with heartbeat.work(1):
        assert heartbeat.allowed == LEAST


SCRIPT = """
import time
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros import heartbeat, worker
from seqamodal_ros.ros.perception_node import main

Perceiver.%s = lambda *_, **__: time.sleep(600)
heartbeat.LEAST = 1.0
worker.LOADING = %s
main()
"""
STUCK = {
    "a network call": SCRIPT % ("batch", 60.0),
    "loading the model": SCRIPT % ("warm_up", 5.0),
}


@pytest.mark.parametrize("what", STUCK)
def test_a_stuck_node_says_so_and_ends_with_1(peer, eager_model: Path, what: str):
    heard: list[DiagnosticStatus] = []
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: heard.extend(message.status), 10)
    arguments = ["--ros-args", "-p", f"model:={eager_model}", "-p", "device:=cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK[what], *arguments], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        for _ in range(600):
            peer.send()
            executor.spin_once(timeout_sec=0.1)
            if process.poll() is not None:
                break
        said = process.communicate(timeout=20)[0]
    finally:
        process.kill()
    assert process.returncode == 1, said
    assert f"{what} has not ended for" in said
    assert "Traceback" not in said
    for _ in range(20):
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    errors = [status for status in heard if status.level == DiagnosticStatus.ERROR]
    assert errors
    assert "launch restarts the node" in errors[-1].message
