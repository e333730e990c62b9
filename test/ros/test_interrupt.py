# SPDX-License-Identifier: Apache-2.0
"""What comes in the middle of a frame: a signal, which ends the process at once, and other parameters, which are for the next."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Duration
from diagnostic_msgs.msg import DiagnosticArray
from harness import WITHIN
from rcl_interfaces.srv import ListParameters, SetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter

from seqamodal_msgs.srv import SegmentImage
from seqamodal_ros.perceiver import Perceiver

GONE_WITHIN = 2.0  # seconds, of work rather than of time: on a busy machine they pass more slowly
LONG = ("sampling_steps:=1000", "num_samples:=64")  # a frame of a minute, in calls of a fraction of a second


def work(pid: int) -> float:
    """Seconds that a process has worked, all its threads together."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def work_of_ended_children() -> float:
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_in_the_middle_of_a_frame_ends_the_process_cleanly_at_once(start, peer, eager_model: Path, number):
    process = start("perception_node", f"model:={eager_model}", "device:=cpu", *LONG)
    told: dict[str, str] = {}

    def hear(message: DiagnosticArray) -> None:
        told.update({item.key: item.value for status in message.status for item in status.values})

    peer.create_subscription(DiagnosticArray, "/diagnostics", hear, 10)
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    until = time.monotonic() + 3 * WITHIN
    while told.get("received", "0") == "0":
        assert process.poll() is None and time.monotonic() < until
        peer.send()
        executor.spin_once(timeout_sec=0.1)
    executor.shutdown()
    assert told["answered"] == "0", "the frame is not at work any more"
    began, of_frame, of_others = time.monotonic(), work(process.pid), work_of_ended_children()
    process.send_signal(number)
    assert process.wait(WITHIN) == 0
    assert work_of_ended_children() - of_others - of_frame < GONE_WITHIN
    assert time.monotonic() - began < WITHIN / 2
    assert "Traceback" not in process.stdout.read()


def test_who_waits_for_an_answer_is_told_that_the_node_ends(start, peer, eager_model: Path):
    process = start("perception_node", f"model:={eager_model}", "device:=cpu")
    client = peer.create_client(SegmentImage, "seqamodal/segment")
    assert client.wait_for_service(60)
    until = time.monotonic() + WITHIN
    while "active:" not in process.stdout.readline():
        assert process.poll() is None and time.monotonic() < until
    future = client.call_async(SegmentImage.Request(timeout=Duration(sec=600)))  # for the camera's next image; there is none
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    others = peer.create_client(ListParameters, "seqamodal/list_parameters")
    assert others.wait_for_service(WITHIN)
    executor.spin_until_future_complete(future, timeout_sec=1.0)  # for it to get there
    for _ in range(2):  # between two answers of one thread it has read all that had come before the first
        executor.spin_until_future_complete(asked := others.call_async(ListParameters.Request()), timeout_sec=WITHIN)
        assert asked.done()
    process.send_signal(signal.SIGINT)
    executor.spin_until_future_complete(future, timeout_sec=WITHIN)
    executor.shutdown()
    assert future.done() and not future.result().success
    assert future.result().message == "the node ends"
    assert process.wait(WITHIN) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_signal_while_the_model_loads_ends_the_process_cleanly_at_once(start, eager_model: Path, number):
    process = start("perception_node", f"model:={eager_model}", "device:=cpu")
    while "loading the model" not in (line := process.stdout.readline()):
        assert line, "it ended before"
    began = time.monotonic()
    process.send_signal(number)
    assert process.wait(WITHIN) == 0
    assert time.monotonic() - began < WITHIN / 2
    told = process.stdout.read()
    assert "configured" not in told and "Traceback" not in told


def test_a_frame_has_as_many_hypotheses_as_were_set_when_it_came(bench, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    see = Perceiver.batch

    def batch(*arguments, **options):
        begun.set()
        return go_on.wait(WITHIN) and see(*arguments, **options)

    monkeypatch.setattr(Perceiver, "batch", batch)
    b = bench(num_samples=2)
    b.connected()
    b.peer.send(1)
    assert begun.wait(WITHIN)
    assert b.node.set_parameters([Parameter("num_samples", value=5)])[0].successful  # one is at work
    b.peer.send(2)
    assert b.wait(lambda: b.camera.counters.received == 2)
    silent = Parameter("publish_hypotheses", value=False)
    results = b.node.set_parameters([Parameter("num_samples", value=4), silent])  # and one waits
    assert all(result.successful for result in results)
    go_on.set()
    assert b.wait(lambda: len(b.peer.masks) == 2)
    for masks, stamp, samples in zip(b.peer.masks, (1, 2), (2, 5), strict=True):
        assert (masks.header.stamp.sec, masks.num_samples) == (stamp, samples)
        assert {len(layer.hypotheses) for layer in masks.layers} == {samples}


@pytest.mark.parametrize(
    "name,value", [("seed", -1), ("max_layers", 2), ("region", [0, 0, 9]), ("seed", "one"), ("no_such", 1)], ids=str
)
def test_of_parameters_set_together_one_that_is_bad_keeps_all_as_they_were(bench, name, value):
    b = bench(num_samples=2)
    client = b.peer.create_client(SetParametersAtomically, "seqamodal/set_parameters_atomically")
    assert b.wait(client.service_is_ready)
    both = [Parameter("num_samples", value=5), Parameter(name, value=value)]
    future = client.call_async(SetParametersAtomically.Request(parameters=[each.to_parameter_msg() for each in both]))
    assert b.wait(future.done)
    assert not future.result().result.successful
    assert future.result().result.reason
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    assert (b.peer.masks[0].num_samples, b.peer.masks[0].seed) == (2, 0)


@pytest.mark.parametrize("kind,name", [(SetParameters, "set_parameters"), (SetParametersAtomically, "set_parameters_atomically")])
def test_a_parameter_of_a_type_that_does_not_exist_is_refused_and_the_node_lives_on(bench, kind, name):
    b = bench(num_samples=2)
    client = b.peer.create_client(kind, f"seqamodal/{name}")
    assert b.wait(client.service_is_ready)
    request = kind.Request(parameters=[Parameter(each, value=5).to_parameter_msg() for each in ("num_samples", "seed")])
    request.parameters[1].value.type = 42
    future = client.call_async(request)
    assert b.wait(future.done)
    results = future.result().results if kind is SetParameters else [future.result().result]
    assert len(results) == (2 if kind is SetParameters else 1)
    for result in results:
        assert not result.successful and "'seed' has a value of type 42" in result.reason
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    assert b.peer.masks[0].num_samples == 2
