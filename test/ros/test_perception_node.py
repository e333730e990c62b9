# SPDX-License-Identifier: Apache-2.0
"""The node answers good frames, drops bad ones and lives on, refuses bad configurations, and obeys its lifecycle."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from harness import WITHIN, image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import ReliabilityPolicy
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.diffusion.weights import load_model, save_model
from seqamodal_ros.messages import message_to_scene
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros import camera, heartbeat, perception_node, points
from seqamodal_ros.ros.fastdds import profile_variable
from seqamodal_ros.ros.worker import Frame, Worker


def test_a_frame_is_answered_with_its_own_header(bench, eager_model):
    b = bench(num_samples=2, seed=7)
    b.connected()
    sent = b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    masks = b.peer.masks[0]
    assert masks.header == sent.header
    assert masks.status in (LayeredMasks.OK, LayeredMasks.LOW_CONFIDENCE)
    assert (masks.source_width, masks.source_height, masks.mask_width, masks.mask_height) == (64, 48, 64, 64)
    assert (masks.num_samples, masks.seed) == (2, 7)
    assert masks.model_id.startswith("eager@sha256:")
    assert masks.inference_time.sec + masks.inference_time.nanosec > 0
    image = np.frombuffer(sent.data, np.uint8).reshape(48, 64, 3)
    expected = Perceiver.load(str(eager_model), "cpu")(image, num_samples=2, seed=7)
    received = message_to_scene(masks)
    np.testing.assert_array_equal(received.amodal, expected.amodal)
    np.testing.assert_array_equal(received.hypotheses, expected.hypotheses)
    assert received.pick_order == expected.pick_order == tuple(masks.pick_order)
    assert len(masks.layers) == len(expected.amodal) > 0


def test_mirror_images_are_left_out_on_request(bench, eager_model, tmp_path):
    model, path = load_model(str(eager_model)), tmp_path / "mirrored.safetensors"
    save_model(path, model.network.state_dict(), replace(model.settings, mirror=True))
    b = bench(model=str(path), mirror=False)
    b.connected()
    image = np.frombuffer(b.peer.send().data, np.uint8).reshape(48, 64, 3)
    assert b.wait(lambda: b.peer.masks)
    received = message_to_scene(b.peer.masks[0])
    with_mirror, without = (Perceiver.load(str(path), "cpu", mirror=mirror)(image) for mirror in (None, False))
    np.testing.assert_array_equal(received.hypotheses, without.hypotheses)
    assert not np.array_equal(with_mirror.probability, without.probability)


@pytest.mark.parametrize(
    "changes",
    [
        {"encoding": "nonsense"},
        {"encoding": "32FC1"},
        {"data": b"\0" * 10},
        {"width": 0},
        {"height": 0},
        {"width": 2**31},
        {"height": 4_000_000_000, "width": 1, "step": 3},
        {"step": 1},
        {"header": Header()},
    ],
    ids=lambda changes: ",".join(f"{k}" for k in changes),
)
def test_a_bad_message_is_counted_and_the_node_lives_on(bench, changes):
    b = bench()
    b.connected()
    b.peer.send(stamp=1, **changes)
    assert b.wait(lambda: b.camera.counters.rejected == 1)
    good = b.peer.send(stamp=2)
    assert b.wait(lambda: b.peer.masks)
    assert [m.header for m in b.peer.masks] == [good.header]


def test_bad_messages_are_told_to_diagnostics(bench):
    b = bench()
    heard: list[DiagnosticStatus] = []
    b.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: heard.extend(message.status), 10)
    b.connected()
    b.peer.send(encoding="nonsense")
    assert b.wait(lambda: any("nonsense" in status.message for status in heard))
    warning = next(status for status in heard if "nonsense" in status.message)
    assert warning.level == DiagnosticStatus.WARN
    values = {item.key: item.value for item in warning.values}
    assert values["rejected"] == "1"
    assert values["state"] == "active"


def listen_to_diagnostics(b) -> list[DiagnosticStatus]:
    heard: list[DiagnosticStatus] = []
    b.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: heard.extend(message.status), 10)
    return heard


def test_a_node_that_could_not_be_configured_is_an_error_until_it_is(bench, eager_model):
    b = bench(model="no-such-model")
    heard = listen_to_diagnostics(b)
    assert b.wait(lambda: len(heard) > 1)
    for status in heard:
        assert status.level == DiagnosticStatus.ERROR and "cannot configure: unknown model" in status.message
    b.node.set_parameters([Parameter("model", value=str(eager_model))])
    assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    heard.clear()
    assert b.wait(lambda: heard)
    assert heard[-1].level == DiagnosticStatus.OK and heard[-1].message == "inactive"
    assert b.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    b.node.set_parameters([Parameter("model", value="no-such-model")])
    assert b.node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert b.wait(lambda: heard[-1].level == DiagnosticStatus.ERROR)
    assert b.node.trigger_shutdown() == TransitionCallbackReturn.SUCCESS
    assert b.wait(lambda: heard[-1].message == "finalized" and heard[-1].level == DiagnosticStatus.OK)


def test_an_image_topic_that_nobody_publishes_is_told(bench):
    b = bench(cameras=["nowhere"])
    heard = listen_to_diagnostics(b)
    assert b.wait(lambda: heard)
    assert heard[-1].level == DiagnosticStatus.WARN and "nobody publishes /nowhere/image" in heard[-1].message
    publisher = b.peer.create_publisher(Image, "nowhere/image", 1)
    assert b.wait(lambda: heard[-1].level == DiagnosticStatus.OK)
    assert "since_image_s" not in {item.key for item in heard[-1].values}
    assert b.wait(lambda: publisher.get_subscription_count())
    publisher.publish(image_message())
    assert b.wait(lambda: "since_image_s" in {item.key for item in heard[-1].values})


def test_a_camera_that_falls_silent_is_told_but_not_one_that_is_slow(bench, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.camera.QUIET", 0.5)
    b = bench()
    heard = listen_to_diagnostics(b)
    b.connected()
    assert b.wait(lambda: heard and "no image on /image" in heard[-1].message)  # none has come yet
    assert heard[-1].level == DiagnosticStatus.WARN
    b.camera.activated()
    for stamp in range(1, 4):  # one in two seconds is as it may be
        until = time.monotonic() + 2
        b.wait(lambda until=until: time.monotonic() > until)
        b.peer.send(stamp)
        assert b.wait(lambda stamp=stamp: b.camera.counters.received == stamp)
    heard.clear()
    assert b.wait(lambda: len(heard) > 1)
    assert all(status.level == DiagnosticStatus.OK for status in heard)
    assert b.wait(lambda: "no image on /image for" in heard[-1].message)
    assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert b.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    assert b.camera.unfed() == ""  # it waits anew
    assert b.said().count("no image on /image for") == 3  # once for each time: at first, before the slow ones, after them


def test_a_node_that_nobody_configures_says_so(bench):
    b = bench(autostart=False)
    heard = listen_to_diagnostics(b)
    assert b.wait(lambda: heard)
    assert heard[-1].level == DiagnosticStatus.WARN and "configure and activate it" in heard[-1].message
    assert b.says("unconfigured: configure and activate it, or start it with autostart set to true")


def test_diagnostics_come_while_simulated_time_stands(bench):
    b = bench(use_sim_time=True)
    heard = listen_to_diagnostics(b)
    assert b.wait(lambda: len(heard) > 1)


def test_diagnostics_tell_how_fast_and_how_old_and_how_large(bench, monkeypatch):
    b = bench()
    heard: list[DiagnosticStatus] = []
    b.peer.create_subscription(DiagnosticArray, "/diagnostics", lambda message: heard.extend(message.status), 10)
    b.connected()
    b.peer.send(stamp=b.node.get_clock().now().to_msg().sec - 100)

    def told() -> dict[str, str]:
        return {item.key: item.value for item in heard[-1].values} if heard else {}

    assert b.wait(lambda: told().get("answered") == "1")
    values = told()
    assert 0 < float(values["latency_p50_ms"]) <= float(values["latency_p95_ms"]) < 1000 * WITHIN
    assert 0 < float(values["beside_inference_p95_ms"]) < float(values["latency_p95_ms"]) + 1
    assert 98 < float(values["age_s"]) < 100 + WITHIN
    assert 20 < float(values["memory_mb"]) < 100_000
    assert values["model"].startswith("eager@sha256:")
    assert values["device"] == "cpu" and "gpu_memory_mb" not in values
    assert heard[-1].hardware_id == "camera_optical_frame"
    monkeypatch.setattr(b.node._worker.perceiver, "_device", "cuda")
    b.peer.send(stamp=b.node.get_clock().now().to_msg().sec)  # the same image: there is no CUDA to see another one with
    assert b.wait(lambda: float(told().get("gpu_memory_mb", -1)) >= 0)


def test_an_image_older_than_max_age_is_counted_and_dropped(bench):
    b = bench(max_age=5.0)
    b.connected()
    now = b.node.get_clock().now().to_msg().sec
    b.peer.send(stamp=now - 60)
    assert b.wait(lambda: b.camera.counters.too_old == 1)
    assert b.says("dropped an image older than max_age: it came", "use_sim_time")
    b.peer.send(stamp=now + 3600)  # the clock was set back since: not old
    assert b.wait(lambda: b.peer.masks)
    assert b.peer.masks[0].header.stamp.sec == now + 3600
    assert b.node.set_parameters([Parameter("max_age", value=0.0)])[0].successful
    b.peer.send(stamp=now - 60)
    assert b.wait(lambda: len(b.peer.masks) == 2)
    assert b.camera.counters.too_old == 1


def test_a_frame_goes_with_the_parameters_of_its_moment_and_grows_old_by_the_clock(bench, monkeypatch):
    b = bench(max_age=5.0)
    b.connected()
    frames: list[Frame] = []
    monkeypatch.setattr(b.node._worker, "submit", lambda frame: frames.append(frame))
    monkeypatch.setattr(b.camera, "age", lambda stamp: 1.0)
    names = ("num_samples", "seed", "max_depth_skew", "stillness")
    for values in ((3, 0, 0.05, 2.0), (2, 7, 0.2, 0.0)):
        parameters = [Parameter(name, value=value) for name, value in zip(names, values, strict=True)]
        assert b.node.set_parameters_atomically(parameters).successful
        count = len(frames)
        b.peer.send()
        assert b.wait(lambda count=count: len(frames) > count)
        assert tuple(getattr(frames[-1], name) for name in names) == values
    assert frames[0].late() == -4.0
    monkeypatch.setattr(b.camera, "age", lambda stamp: 7.0)
    assert frames[0].late() == 2.0


def test_pauses_that_tests_shorten_are_as_long_as_the_documentation_says():
    assert (camera.WARN_EVERY, camera.QUIET, points.DEPTH_WITHIN) == (5, 5, 0.5)
    assert (heartbeat.LOADING, perception_node.DOUBLE_AFTER) == (300, 25)
    assert perception_node.TOLD_WITHIN <= 1  # of the two seconds within which SIGINT ends the node


def test_what_it_will_see_is_warmed_up_for(bench, monkeypatch):
    """Two cameras' images, seen together, with K = 3: what the network would else allocate in the first frame."""
    warmed: list[tuple[int, int]] = []
    monkeypatch.setattr(Perceiver, "warm_up", lambda _, samples, images: warmed.append((samples, images)))
    bench(cameras=["left", "right"], num_samples=3)
    assert warmed == [(3, 2)]


def test_an_image_that_waited_beyond_max_age_is_counted_and_dropped(bench):
    b = bench()
    b.connected()
    image = np.zeros((48, 64, 3), np.uint8)
    b.node._worker.submit(Frame(image_message().header, image, 1, 0, late=lambda: 0.5))
    assert b.wait(lambda: b.camera.counters.too_old == 1)
    assert b.says("dropped an image older than max_age: it waited")
    assert not b.peer.masks and b.camera.counters.failed == 0


def test_a_worker_that_ended_ends_the_process(bench, monkeypatch):
    b = bench()
    said: list[str] = []
    monkeypatch.setattr(b.node, "_give_up", said.append)
    monkeypatch.setattr(Worker, "alive", property(lambda worker: False))
    assert b.wait(lambda: bool(said))
    assert "the worker thread has ended" in said[0]


FLOOD = """
import rclpy
from sensor_msgs.msg import Image
rclpy.init()
node = rclpy.create_node("flood")
publisher = node.create_publisher(Image, "image", 1)
image = Image(width=1920, height=1080, encoding="rgb8", step=5760, data=bytes(1920 * 1080 * 3))
image.header.frame_id = "camera"
while True:
    publisher.publish(image)
    rclpy.spin_once(node, timeout_sec=0.01)
"""


def test_images_that_the_middleware_loses_are_counted_and_told(bench, monkeypatch):
    """Those of six megabytes from another process, where neither has the Fast DDS profile."""
    if "fastrtps" not in get_rmw_implementation_identifier():
        pytest.skip("only Fast DDS is known to lose them")
    monkeypatch.delenv(profile_variable(), raising=False)
    b = bench(num_samples=1, max_layers=1)
    camera = subprocess.Popen([sys.executable, "-c", FLOOD])
    try:
        assert b.wait(lambda: b.camera.counters.lost > 0)
        assert b.says("images lost", "Fast DDS profile")
    finally:
        camera.kill()
        camera.wait()


def test_the_reliability_of_an_image_topic_is_a_parameter_and_no_other_ones(bench):
    """On topics that no node of another test has: those of a killed process are announced for a while."""
    override = {"qos_overrides./of_qos_left/image.subscription.reliability": "reliable"}
    b = bench(cameras=["of_qos_left", "of_qos_right"], **override)
    found = {}
    for side in ("left", "right"):
        assert b.wait(lambda side=side: b.node.count_subscribers(f"/of_qos_{side}/image") == 1)
        (info,) = b.node.get_subscriptions_info_by_topic(f"/of_qos_{side}/image")
        found[side] = info.qos_profile.reliability
    assert found == {"left": ReliabilityPolicy.RELIABLE, "right": ReliabilityPolicy.BEST_EFFORT}


def test_only_the_newest_of_a_burst_is_answered(bench):
    b = bench()
    b.connected()
    for stamp in range(1, 41):
        b.peer.send(stamp)
        time.sleep(0.002)
    assert b.wait(lambda: b.peer.masks and b.peer.masks[-1].header.stamp.sec == 40)
    counters = b.camera.counters
    assert counters.superseded > 0
    assert counters.answered + counters.superseded == counters.received
    stamps = [masks.header.stamp.sec for masks in b.peer.masks]
    assert stamps == sorted(set(stamps))


def test_images_that_nobody_wants_masks_of_are_left_until_somebody_listens(bench):
    b = bench()
    b.connected()
    b.peer.destroy_subscription(b.peer.masks_subscription)
    assert b.wait(lambda: not b.camera.outputs.wanted)
    b.peer.send(1)
    assert b.wait(lambda: b.camera.counters.unwanted == 1)
    assert b.camera.counters.answered == 0
    b.peer.create_subscription(Image, "seqamodal/label", lambda _: None, 1)
    assert b.wait(lambda: b.camera.outputs.wanted)
    b.peer.send(2)
    assert b.wait(lambda: b.camera.counters.answered == 1)
    assert (b.camera.counters.received, b.camera.counters.unwanted) == (2, 1)


def test_deactivate_stops_answers_and_activate_brings_them_back(bench):
    b = bench()
    b.connected()
    assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    b.peer.send(1)
    assert not b.wait(lambda: b.peer.masks, seconds=1)
    assert b.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    b.peer.send(2)
    assert b.wait(lambda: b.peer.masks)
    assert b.peer.masks[0].header.stamp.sec == 2


def test_cleanup_lets_the_model_change(bench, capfd):
    b = bench()
    assert not b.node.set_parameters([Parameter("max_layers", value=1)])[0].successful
    assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    assert b.node.trigger_cleanup() == TransitionCallbackReturn.SUCCESS
    said = capfd.readouterr().err
    assert "deactivated: images are ignored" in said and "cleaned up: " in said
    assert b.node.set_parameters([Parameter("max_layers", value=1)])[0].successful
    assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert b.node.trigger_activate() == TransitionCallbackReturn.SUCCESS
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    assert len(b.peer.masks[0].layers) == 1


def test_parameters_that_may_change_take_effect_with_the_next_frame(bench):
    b = bench()
    b.connected()
    b.node.set_parameters([Parameter("num_samples", value=5), Parameter("publish_hypotheses", value=False)])
    b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    assert b.peer.masks[0].num_samples == 5
    assert all(not layer.hypotheses for layer in b.peer.masks[0].layers)


@pytest.mark.parametrize(
    "name,value",
    [
        ("num_samples", 0),
        ("num_samples", 1000),
        ("device", "tpu"),
        ("autostart", False),
        ("region", [0, 0, 9]),
        ("region", [0, 0, 9, 0]),
        ("region", [-1, 0, 9, 9]),
        ("region", [2**62, 0, 9, 9]),
        ("region", [0, 0, 9, 9, 0, 0, 9, 9]),
        ("region", []),
    ],
)
def test_a_bad_or_fixed_parameter_is_refused_while_running(bench, name, value):
    b = bench()
    result = b.node.set_parameters([Parameter(name, value=value)])[0]
    assert not result.successful
    assert result.reason


def test_a_region_is_looked_at_from_the_next_frame_on(bench, eager_model):
    b = bench()
    b.connected()
    assert b.node.set_parameters([Parameter("region", value=[8, 4, 40, 30])])[0].successful
    message = b.peer.send(1)
    assert b.wait(lambda: b.peer.masks)
    pixels = np.frombuffer(message.data, np.uint8).reshape(48, 64, 3)
    expected = Perceiver.load(str(eager_model), "cpu")(pixels, region=(8, 4, 40, 30))
    received = message_to_scene(b.peer.masks[0])
    np.testing.assert_array_equal(received.amodal, expected.amodal)
    assert received.geometry == expected.geometry
    assert (b.peer.masks[0].source_width, b.peer.masks[0].source_height) == (64, 48)


def test_a_region_that_leaves_the_image_is_told_and_the_node_lives_on(bench):
    b = bench(region=[0, 0, 640, 480])
    b.connected()
    b.peer.send(1)
    assert b.says("640x480", "64x48", "parameter 'region'")
    assert b.camera.counters.rejected == 1
    assert b.node.set_parameters([Parameter("region", value=[0, 0, 0, 0])])[0].successful
    b.peer.send(2)
    assert b.wait(lambda: b.peer.masks)


def test_a_region_outside_of_the_image_that_came_last_is_refused(bench):
    b = bench()
    b.connected()
    b.peer.send(1)
    assert b.wait(lambda: b.peer.masks)
    result = b.node.set_parameters([Parameter("region", value=[8, 4, 64, 30])])[0]
    assert not result.successful
    assert "parameter 'region'" in result.reason and "64x48" in result.reason
    assert b.node.get_parameter("region").value == [0, 0, 0, 0]
    assert b.node.set_parameters([Parameter("region", value=[8, 4, 56, 44])])[0].successful


@pytest.mark.parametrize("max_age", [0.0, 5.0])
def test_images_without_a_stamp_are_answered_and_told(bench, max_age):
    b = bench(max_age=max_age)
    b.connected()
    message = image_message()
    message.header.stamp = Time()
    b.peer.images.publish(message)
    assert b.wait(lambda: b.peer.masks)
    assert b.says("an image without a stamp", "let the driver set header.stamp")


def test_parameters_are_described(bench):
    b = bench()
    descriptors = {d.name: d for d in b.node.describe_parameters(["autostart", "num_samples", "device"])}
    assert descriptors["autostart"].read_only
    assert descriptors["num_samples"].integer_range[0].to_value == 64
    assert "cuda" in descriptors["device"].additional_constraints
    assert all(d.description for d in descriptors.values())


@pytest.mark.parametrize(
    "parameters,words",
    [
        ({"num_samples": 0}, ["num_samples", "1..64", "0"]),
        ({"sampling_steps": 1001}, ["sampling_steps", "0..1000", "1001"]),
        ({"stillness": 0}, ["stillness", "float", "write 0.0"]),
        ({"num_samples": "three"}, ["num_samples", "three"]),
        ({"device": "tpu"}, ["device", "tpu", "cuda"]),
        ({"fit": "squeeze"}, ["fit", "letterbox"]),
        ({"region": [1, 2, 3]}, ["region", "x, y, width and height", "[1, 2, 3]"]),
        ({"region": [0, 0, 9, 9] * 2}, ["region", "four numbers for each camera (1)"]),
        ({"model": "no-such-model"}, ["no-such-model", "default"]),
        ({"model": "missing.safetensors"}, ["missing.safetensors", "missing"]),
    ],
    ids=["range", "steps", "whole", "type", "device", "fit", "region", "regions", "model", "weights"],
)
def test_a_bad_configuration_is_refused_and_can_be_mended(bench, eager_model, capfd, parameters, words):
    b = bench(**parameters)
    line = next(line for line in capfd.readouterr().err.splitlines() if "cannot configure" in line)
    assert all(word in line for word in words), line
    assert b.node._state_machine.current_state[1] == "unconfigured"
    good = {"num_samples": 3, "sampling_steps": 0, "device": "cpu", "fit": "letterbox", "region": [0] * 4, "stillness": 0.0}
    good["model"] = str(eager_model)
    results = b.node.set_parameters([Parameter(name, value=good[name]) for name in parameters])
    assert all(result.successful for result in results)
    assert b.node.trigger_configure() == TransitionCallbackReturn.SUCCESS


def test_cuda_without_a_device_is_refused(bench, capfd):
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    b = bench(device="cuda")
    assert "use 'cpu' or 'auto'" in capfd.readouterr().err
    assert b.node._state_machine.current_state[1] == "unconfigured"


def test_what_the_library_warns_of_is_in_the_nodes_log(bench, eager_model, capfd, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bench(model=str(eager_model), runtime="onnxruntime")
    said = next(line for line in capfd.readouterr().err.splitlines() if "runtime 'onnxruntime' is unavailable" in line)
    assert said.startswith("[WARN]") and "[seqamodal]" in said


def test_truncated_weights_are_refused(bench, eager_model, capfd, tmp_path):
    data = eager_model.read_bytes()
    (tmp_path / "broken.safetensors").write_bytes(data[: len(data) // 2])
    bench(model=str(tmp_path / "broken.safetensors"))
    assert "not a complete safetensors file" in capfd.readouterr().err


def test_the_process_answers_and_ends_cleanly_on_interrupt(start, eager_model: Path):
    process = start("perception_node", f"model:={eager_model}", "device:=cpu")
    read_until(process, "active:")
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0
    assert "Traceback" not in process.stdout.read()


@pytest.mark.parametrize("pause", [0.0, 0.003, 0.03])
def test_a_second_interrupt_is_the_first_again(start, eager_model: Path, pause: float):
    """As a launch sends it, beside the terminal's own."""
    process = start("perception_node", f"model:={eager_model}", "device:=cpu")
    read_until(process, "active:")
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        time.sleep(pause)
    assert process.wait(WITHIN) == 0
    assert process.stdout.read() == ""


def test_an_interrupt_while_the_model_loads_ends_the_process_cleanly(start, eager_model: Path):
    process = start("perception_node", f"model:={eager_model}", "device:=cpu")
    while "libtorch" not in Path(f"/proc/{process.pid}/maps").read_text():  # torch is imported as the model is loaded
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0
    assert "Traceback" not in process.stdout.read()


def test_a_frame_that_fails_is_counted_and_the_node_lives_on(bench, monkeypatch):
    b = bench()
    b.connected()
    perceiver = b.node._worker.perceiver
    see = type(perceiver).batch
    monkeypatch.setattr(type(perceiver), "batch", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("out of memory")))
    b.peer.send(1)
    assert b.wait(lambda: b.camera.counters.failed == 1)
    monkeypatch.setattr(type(perceiver), "batch", see)
    b.peer.send(2)
    assert b.wait(lambda: b.peer.masks)
    assert b.peer.masks[0].header.stamp.sec == 2


def test_frames_that_fail_again_and_again_end_a_process_that_has_a_gpu(bench, monkeypatch):
    """A GPU that was lost stays so for this process; on the CPU the node lives on."""
    b = bench(stillness=0.0)
    b.connected()
    said: list[str] = []
    monkeypatch.setattr(b.node, "_give_up", said.append)
    monkeypatch.setattr("seqamodal_ros.ros.perception_node.FAILURES", 3)
    perceiver = b.node._worker.perceiver

    class OutOfMemoryError(RuntimeError):
        """Named as torch's."""

    see = type(perceiver).batch
    scene = see(perceiver, [np.zeros((48, 64, 3), np.uint8)])
    counters = b.camera.counters

    def frame(error: type[Exception] | None, times: int = 1) -> None:
        def answer(*_: object, **__: object) -> list:
            if error is None:
                return scene
            raise error("CUDA error")

        monkeypatch.setattr(type(perceiver), "batch", answer)
        for _ in range(times):
            count = counters.failed + counters.answered
            b.peer.send(count + 1)
            assert b.wait(lambda count=count: counters.failed + counters.answered == count + 1)

    frame(RuntimeError, 4)
    monkeypatch.setattr(perceiver, "_device", "cuda")
    frame(OutOfMemoryError, 4)
    frame(RuntimeError, 2)
    frame(None)
    frame(RuntimeError, 2)
    assert said == []
    frame(RuntimeError)
    assert b.wait(lambda: said)
    assert "3 frames in a row failed on the GPU" in said[0]


def test_without_our_messages_the_node_says_how_to_build_them(start, eager_model: Path, tmp_path: Path):
    hidden = tmp_path / "seqamodal_msgs"
    hidden.mkdir()
    (hidden / "__init__.py").write_text("raise ImportError('not built')\n")
    path = f"{tmp_path}:{os.environ.get('PYTHONPATH', '')}"
    process = start("perception_node", f"model:={eager_model}", PYTHONPATH=path)
    assert "colcon build" in read_until(process, "cannot configure")
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0


def read_until(process: subprocess.Popen, words: str) -> str:
    """The first line of the process that holds `words`."""
    assert process.stdout is not None
    while words not in (line := process.stdout.readline()):
        assert line, f"the process ended without saying {words!r}"
    return line
