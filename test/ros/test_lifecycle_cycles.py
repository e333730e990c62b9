# SPDX-License-Identifier: Apache-2.0
"""The lifecycle, again and again and at bad moments: nothing piles up, nothing hangs, and the node answers afterwards."""

import gc
import os
import platform
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from harness import WITHIN, Bench
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle.node import LifecycleNodeMixin

from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros.perception_node import PerceptionNode

CYCLES, WARM_UP = 100, 20
ANSWERED_EVERY = 10  # cycles; to find one another takes a peer longer than all the rest
MOST_GROWTH = 40.0  # MB
QUICK = {"num_samples": 1, "max_layers": 1, "sampling_steps": 1}
IDS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}


def changer(b: Bench) -> Callable[[str | int], bool]:
    """Asks for transitions as a lifecycle manager does, by their names or ids; tells whether each was made."""
    client = b.peer.create_client(ChangeState, "seqamodal/change_state")
    assert b.wait(client.service_is_ready)

    def change(transition: str | int) -> bool:
        number = IDS[transition] if isinstance(transition, str) else transition
        future = client.call_async(ChangeState.Request(transition=Transition(id=number)))
        assert b.wait(future.done), f"no answer to {transition}"
        return bool(future.result().success)

    return change


def state(b: Bench) -> str:
    return str(b.node._state_machine.current_state[1])


def workers() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "perceiver"]


def held(b: Bench) -> dict[str, int]:
    """What the node and its process hold."""
    gc.collect()
    kinds = ("subscriptions", "publishers", "services", "timers", "guards", "clients")
    found = {kind: len(list(getattr(b.node, kind))) for kind in kinds}
    return {**found, "threads": len(os.listdir("/proc/self/task")), "files": len(os.listdir("/proc/self/fd"))}


def resident() -> float:
    """MB of memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def answered(b: Bench, stamp: int) -> None:
    b.connected()
    b.peer.send(stamp)
    assert b.wait(lambda: bool(b.peer.masks) and b.peer.masks[-1].header.stamp.sec == stamp)


def test_nothing_piles_up_over_many_cycles(bench):
    b = bench(**QUICK, autostart=False)
    change = changer(b)
    before: dict[str, int] = {}
    memory = 0.0
    for cycle in range(1, CYCLES + 1):
        assert change("configure") and change("activate")
        if cycle % ANSWERED_EVERY == 0:
            answered(b, cycle)
        assert change("deactivate") and change("cleanup")
        if cycle == WARM_UP:
            before, memory = held(b), resident()
    assert held(b) == before
    assert resident() - memory < MOST_GROWTH
    assert not workers()
    assert b.wait(lambda: b.peer.count_subscribers("image") == 0)
    assert len(b.peer.masks) == CYCLES // ANSWERED_EVERY


@pytest.fixture
def long_frames(monkeypatch) -> threading.Event:
    """Makes inference last until it is cancelled, looking between calls as ever; the event is set while one is at work."""
    begun = threading.Event()
    see = Perceiver.batch

    def batch(self: Perceiver, images: Any, *others: Any, **options: Any) -> Any:
        if not images[0].any():  # the blank one of configure
            return see(self, images, *others, **options)
        begun.set()
        for _ in range(int(WITHIN / 0.01)):
            self._before_call()
            time.sleep(0.01)
        raise TimeoutError("nobody cancelled it")

    monkeypatch.setattr(Perceiver, "batch", batch)
    return begun


@pytest.mark.parametrize(
    "transitions,end",
    [
        (["deactivate"], "inactive"),
        (["deactivate", "cleanup"], "unconfigured"),
        ([Transition.TRANSITION_ACTIVE_SHUTDOWN], "finalized"),
    ],
    ids=["deactivate", "cleanup", "shutdown"],
)
def test_a_transition_in_the_middle_of_inference(bench, long_frames, monkeypatch, transitions, end):
    b = bench(**QUICK)
    change = changer(b)
    b.connected()
    b.peer.send(1)
    assert long_frames.wait(WITHIN)
    began = time.monotonic()
    for transition in transitions:
        assert change(transition)
    assert state(b) == end
    assert time.monotonic() - began < WITHIN / 2, "it has waited for the inference"
    assert len(workers()) == (1 if end == "inactive" else 0)
    monkeypatch.undo()
    for transition in {"inactive": ["activate"], "unconfigured": ["configure", "activate"]}.get(end, []):
        assert change(transition)
    if end != "finalized":
        answered(b, 2)
    assert [masks.header.stamp.sec for masks in b.peer.masks] == ([] if end == "finalized" else [2])


@pytest.mark.parametrize(
    "before,shutdown",
    [
        ([], Transition.TRANSITION_UNCONFIGURED_SHUTDOWN),
        (["configure"], Transition.TRANSITION_INACTIVE_SHUTDOWN),
        (["configure", "activate"], Transition.TRANSITION_ACTIVE_SHUTDOWN),
    ],
    ids=["unconfigured", "inactive", "active"],
)
def test_shutdown_from_each_state_is_for_good(bench, before, shutdown):
    b = bench(**QUICK, autostart=False)
    change = changer(b)
    assert all(change(transition) for transition in before)
    assert change(shutdown)
    assert state(b) == "finalized"
    assert not workers()
    assert b.wait(lambda: b.peer.count_subscribers("image") == 0)
    assert not any(change(transition) for transition in IDS)
    assert state(b) == "finalized"


def test_a_destroyed_nodes_name_and_lifecycle_services_leave_the_graph_at_once(peer):
    node = PerceptionNode(context=peer.context)
    assert "seqamodal" in peer.get_node_names()
    node.destroy_node()
    assert "seqamodal" not in peer.get_node_names()
    assert not any(name.endswith("/change_state") for name, _ in peer.get_service_names_and_types())
    node.destroy_node()  # once more changes nothing


def test_a_node_that_is_destroyed_within_a_transition_does_not_crash(peer, monkeypatch):
    node = PerceptionNode(context=peer.context)

    def check() -> None:  # on_configure calls it first
        node.destroy_node()
        raise ValueError("the node is gone")

    monkeypatch.setattr(node.parameters, "check", check)
    with pytest.raises(AttributeError):
        node.trigger_configure()


def test_a_transition_that_does_not_fit_the_state_is_refused_and_changes_nothing(bench):
    b = bench(**QUICK)
    change = changer(b)
    for transition in ("configure", "activate", "cleanup", Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, 255):
        assert not change(transition)
        assert state(b) == "active"
    answered(b, 1)


def test_rclpy_of_jazzy_raises_for_such_a_transition_and_the_node_lives_on(bench, monkeypatch):
    name = "_LifecycleNodeMixin__change_state"
    change_state = getattr(LifecycleNodeMixin, name)

    def raising(self, transition: int):  # Kilted's catches what this raises
        if transition not in {number for number, *_ in self._state_machine.available_transitions}:
            self._state_machine.trigger_transition_by_id(transition, True)
        return change_state(self, transition)

    monkeypatch.setattr(LifecycleNodeMixin, name, raising)
    b = bench(**QUICK)
    change = changer(b)
    for transition in ("configure", "cleanup", Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, 255):
        assert not change(transition)
        assert state(b) == "active"
    assert change("deactivate") and change("activate")
    answered(b, 1)


@pytest.mark.parametrize(
    "transition,broken",
    [
        ("activate", "seqamodal_ros.ros.camera.Camera.activated"),
        ("deactivate", "seqamodal_ros.ros.worker.Worker.rest"),
        ("cleanup", "seqamodal_ros.ros.malloc.give_back"),
    ],
    ids=["activate", "deactivate", "cleanup"],
)
def test_a_transition_that_raises_leads_to_unconfigured_and_on_from_there(bench, monkeypatch, transition, broken):
    b = bench(**QUICK, autostart=False)
    change = changer(b)
    order = ["configure", "activate", "deactivate", "cleanup"]
    assert all(change(earlier) for earlier in order[: order.index(transition)])
    with monkeypatch.context() as patched:
        patched.setattr(broken, failing)
        assert not change(transition)
    assert state(b) == "unconfigured"
    assert b.says(f"a transition failed (on_{transition}: ")
    assert not workers() and not b.node.parameters.locked
    assert b.wait(lambda: b.peer.count_subscribers("image") == 0)
    assert change("configure") and change("activate")
    answered(b, 1)


def test_an_error_that_cannot_be_undone_is_the_end(bench, monkeypatch):
    b = bench(**QUICK)
    change = changer(b)
    with monkeypatch.context() as patched:
        patched.setattr(b.node, "_release", failing)
        assert not change(Transition.TRANSITION_ACTIVE_SHUTDOWN)
    assert state(b) == "finalized"
    assert not any(change(transition) for transition in IDS)


def failing(*_: object) -> None:
    raise RuntimeError("broken")


NODE = """
import sys, time
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros import heartbeat, perception_node

see = Perceiver.batch

def batch(self, images, *others, **options):
    if images[0].any():  # not the blank one of configure
        print("at work", flush=True)
        %s
    return see(self, images, *others, **options)

Perceiver.batch = batch
heartbeat.LEAST = 3.0
perception_node.main()
"""
STUCK = NODE % "time.sleep(600)"
SLOW = (
    NODE
    % """for _ in range(8):
            self._before_call()
            until = time.thread_time() + 0.1  # of work, which stands still while the process does
            while time.thread_time() < until:
                pass
"""
)


@pytest.fixture
def process(peer, eager_model: Path):
    """Starts a node that runs a script, and returns once it is at work on a frame."""
    started: list[subprocess.Popen] = []

    def run(script: str) -> subprocess.Popen:
        arguments = ["--ros-args", "-p", f"model:={eager_model}", "-p", "device:=cpu", "-p", "max_layers:=1"]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        started.append(subprocess.Popen([sys.executable, "-c", script, *arguments], text=True, **pipes))
        said = threading.Event()

        def listen() -> None:
            for line in started[-1].stdout:
                if "at work" in line:
                    said.set()

        threading.Thread(target=listen, daemon=True).start()
        until = time.monotonic() + 3 * WITHIN
        while not said.wait(0.1):
            assert started[-1].poll() is None and time.monotonic() < until
            peer.send(1)
        return started[-1]

    yield run
    for each in started:
        each.kill()
        each.wait()


def test_a_stuck_inference_holds_up_no_end(process):
    node = process(STUCK)
    node.send_signal(signal.SIGINT)
    assert node.wait(WITHIN) == 1


def test_a_stuck_inference_holds_up_no_cleanup(process, peer):
    node = process(STUCK)
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    client = peer.create_client(ChangeState, "seqamodal/change_state")
    assert client.wait_for_service(WITHIN)
    for transition in ("deactivate", "cleanup"):
        client.call_async(ChangeState.Request(transition=Transition(id=IDS[transition])))
    executor.shutdown()
    assert node.wait(WITHIN) == 1


MEMORY = """
import os
import rclpy
from rclpy.parameter import Parameter
from seqamodal_ros.ros.diagnostics import memory
from seqamodal_ros.ros.perception_node import PerceptionNode

rclpy.init()
given = {"model": "default", "device": "cpu", "runtime": "torch"}
node = PerceptionNode(parameter_overrides=[Parameter(name, value=value) for name, value in given.items()])
for _ in range(2):
    node.trigger_configure()
    print(memory()["memory_mb"], flush=True)
    node.trigger_cleanup()
    print(memory()["memory_mb"], flush=True)
os._exit(0)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to give memory back")
def test_cleanup_gives_the_models_memory_back():
    """The shipped weights are 32 MB in float32, and take more while they work."""
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, timeout=100)
    megabytes = [float(line) for line in done.stdout.splitlines()]
    assert len(megabytes) == 4, done.stderr
    assert megabytes[1] < megabytes[0] - 32 and megabytes[3] < megabytes[2] - 32


def test_a_process_that_was_stopped_for_a_while_goes_on(process, peer):
    node = process(SLOW)
    node.send_signal(signal.SIGSTOP)
    time.sleep(5)
    node.send_signal(signal.SIGCONT)
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    until = time.monotonic() + 3 * WITHIN
    while not peer.masks:
        peer.send(1)
        assert node.poll() is None, "it took having been stopped for being stuck"
        assert time.monotonic() < until
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
