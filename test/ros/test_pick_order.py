# SPDX-License-Identifier: Apache-2.0
"""The command `pick_order`, and the examples, as processes that hear a message over DDS."""

import copy
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

import rclpy
from builtin_interfaces.msg import Time
from harness import WITHIN, image_message
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import InvalidMessage, MessageTypes, fill_image, image_array, message_to_scene, scene_to_message
from seqamodal_ros.ros.pick_order import main, report

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["-m", "seqamodal_ros.ros.pick_order"]


@pytest.fixture
def masks(make_scene, rectangles) -> LayeredMasks:
    """Objects 1 and 2 in front, 3 under both and 4 under 3, in a 64x48 image."""
    front = rectangles((2, 6, 10, 14)) | rectangles((20, 6, 28, 14))
    amodal = np.concatenate([front, rectangles((8, 10, 22, 20)), rectangles((10, 18, 22, 26))])
    probability = np.where(amodal, 0.7, 0.1).astype(np.float32)
    probability[0, 6:14, 20:28] = 0.95
    scene = make_scene(amodal, 64, 48, probability=probability)
    return scene_to_message(scene, image_message().header, "test", MessageTypes.ros())


@pytest.fixture
def launch() -> Iterator[Callable[..., subprocess.Popen]]:
    """Starts Python on some arguments, in the checkout."""
    started: list[subprocess.Popen] = []

    def run(*arguments: str) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen([sys.executable, *arguments], text=True, env=environment, cwd=ROOT, **pipes))
        return started[-1]

    yield run
    for process in started:
        process.kill()
        process.communicate()


def publish_until(peer: Any, messages: dict[str, Any], done: Callable[[], bool]) -> None:
    """Publish on each topic again and again: a listener that has just been found may miss the first."""
    publishers = {topic: peer.create_publisher(type(message), topic, QoSProfile(depth=5)) for topic, message in messages.items()}
    until = time.monotonic() + 2 * WITHIN
    while not done():
        assert time.monotonic() < until
        for topic, message in messages.items():
            publishers[topic].publish(message)
        time.sleep(0.05)


def heard(peer: Any, process: subprocess.Popen, masks: LayeredMasks, topic: str = "seqamodal/layered_masks") -> tuple[str, str]:
    """What the process says of the message until it ends."""
    publish_until(peer, {topic: masks}, lambda: process.poll() is not None)
    return process.communicate()


def table(lines: list[str]) -> list[int]:
    """The ids at the beginning of a table's lines."""
    return [int(line.split()[0]) for line in lines if line.split()[0].isdigit() and len(line.split()) > 6]


def test_the_next_message_is_printed(launch, peer, masks):
    process = launch(*COMMAND, "--ros-args", "-r", "seqamodal/layered_masks:=cell/masks")
    output, error = heard(peer, process, masks, "cell/masks")
    assert (process.returncode, error) == (0, "")
    assert output == report(masks) + "\n"


def test_a_target_is_reached_from_the_top(launch, peer, masks):
    process = launch(*COMMAND, "--target", "4")
    output, error = heard(peer, process, masks)
    assert (process.returncode, error) == (0, "")
    assert table(output.splitlines()) == [2, 1, 3, 4]
    assert output.count("lies on 3") == 2 and output.count("lies on 4") == 1


def test_a_target_that_is_not_there_is_one_clear_line(launch, peer, masks):
    process = launch(*COMMAND, "--target", "9")
    output, error = heard(peer, process, masks)
    assert (process.returncode, output) == (1, "")
    assert error == "pick_order: there is no object 9; known ids: 1, 2, 3, 4\n"


def test_no_message_is_one_clear_line(launch):
    process = launch(*COMMAND, "--timeout", "0.5", "--ros-args", "-r", "seqamodal/layered_masks:=/nowhere")
    output, error = process.communicate(timeout=60)
    assert (process.returncode, output) == (1, "")
    assert error.startswith("pick_order: no message on /nowhere within 0.5 s: nobody publishes it") and error.count("\n") == 1


def test_a_parameter_is_told_as_it_takes_none(launch):
    process = launch(*COMMAND, "--timeout", "0.1", "--ros-args", "-r", "seqamodal/layered_masks:=/nowhere", "-p", "target:=4")
    _, error = process.communicate(timeout=60)
    assert "[pick_order]: there is no parameter 'target': its value is ignored" in error


def test_following_goes_on_until_it_is_ended(launch, peer, masks):
    process = launch(*COMMAND, "--follow", "--target", "4")
    assert process.stderr.readline() == "pick_order: listening on /seqamodal/layered_masks, Ctrl-C ends\n"
    lines: list[str] = []

    def read() -> None:
        for line in process.stdout:
            lines.append(line)

    reader = threading.Thread(target=read)
    reader.start()
    publish_until(peer, {"seqamodal/layered_masks": masks}, lambda: lines.count(lines[0]) >= 2 if lines else False)
    process.send_signal(signal.SIGINT)
    assert process.wait(WITHIN) == 0
    reader.join()
    assert "".join(lines).startswith(2 * f"{report(masks, 4)}\n\n")
    assert process.stderr.read() == ""


def test_messages_that_are_not_built_are_one_clear_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "seqamodal_msgs.msg", None)
    assert main(["pick_order"]) == 1
    assert "colcon build" in capsys.readouterr().err


@pytest.fixture
def depth(masks) -> Image:
    """Of the masks' moment: something 4 cm higher than all else lies on the left of object 1."""
    metres = np.full((48, 64), 1.0, np.float32)
    metres[:, :4] = 0.96
    return fill_image(Image(), metres, "32FC1", copy.deepcopy(masks.header))


def test_depth_is_asked(launch, peer, masks, depth):
    process = launch(*COMMAND, "--depth", "--ros-args", "-r", "depth:=camera/depth")
    publish_until(peer, {"camera/depth": depth, "seqamodal/layered_masks": masks}, lambda: process.poll() is not None)
    output, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert output == report(masks, depth=depth) + "\n" != report(masks) + "\n"


def test_no_depth_is_told_with_what_to_do(launch, peer, masks):
    process = launch(*COMMAND, "--depth", "--timeout", str(WITHIN))
    output, error = heard(peer, process, masks)
    assert (process.returncode, output) == (1, "")
    *left_out, last = error.splitlines()
    assert last.startswith("pick_order: masks came, but no depth image of their moment on /depth within 20 s: does it come")
    assert all("are left out: 100 others wait for their depth images" in line for line in left_out)  # of so many a second


def test_masks_whose_depth_was_lost_are_told_of(launch, peer, masks, depth):
    """The depth image is of a later moment, as that of the masks' own was lost; those of the next masks come."""
    process = launch(*COMMAND, "--depth", "--timeout", str(2 * WITHIN))
    depth.header.stamp.sec += 1
    lost, found = copy.deepcopy(masks), copy.deepcopy(masks)
    found.header.stamp.sec += 1
    later = {"depth": depth, "seqamodal/layered_masks": lost}
    said: list[str] = []
    reader = threading.Thread(target=lambda: said.append(process.stderr.readline()))
    reader.start()
    publish_until(peer, later, lambda: bool(said))
    (line,) = said
    assert line.startswith("pick_order: masks of 1.999999999 are left out: of ")
    assert line.endswith(" depth images the nearest is 1 s away, more than 0.05\n")
    publish_until(peer, {"depth": depth, "seqamodal/layered_masks": found}, lambda: process.poll() is not None)
    reader.join()
    assert process.returncode == 0 and process.stdout.read() == report(found, depth=depth) + "\n"


class TestReport:
    def test_what_has_something_nearer_at_its_edge_is_not_free(self, masks, depth):
        lines = report(masks, depth=depth).splitlines()
        but, then = lines.index("free by the image, not by depth; look from another view:"), lines.index("then, in this order:")
        assert (table(lines[:but]), table(lines[but:then]), table(lines[then:])) == ([2], [1], [3, 4])
        assert lines[but + 2].endswith("by depth, something is nearer at its edge")
        said = "1 cannot be picked now: by depth, something is nearer at its edge: look from another view"
        assert said in report(masks, target=1, depth=depth)
        (row,) = [line for line in report(masks, target=3, depth=depth).splitlines() if line.split()[0] == "1"]
        assert row.endswith("by depth, something is nearer at its edge, lies on 3")
        below = report(masks, depth=depth, min_score=0.8).splitlines()
        then = below.index("then, in this order:")
        assert table(below[:then]) == [2]
        assert below[then + 2].endswith("below the minimum, by depth, something is nearer at its edge: look from another view")

    def test_objects_that_are_nearer_are_named(self, masks):
        """By depth object 3, of the second layer, is nearer than both of the first, and 4 is, too, than one of them."""
        metres = np.full((48, 64), 1.0, np.float32)
        metres[message_to_scene(masks).label() == 3] = 0.96
        depth = fill_image(Image(), metres, "32FC1", masks.header)
        lines = report(masks, depth=depth).splitlines()
        assert lines[1] == "nothing can be picked now"
        assert [line.split()[0] for line in lines if line.endswith("by depth, object 3 is nearer at its edge")] == ["2", "1"]
        masks.objects[3].visible = masks.objects[2].visible
        assert "by depth, objects 3, 4 are nearer at its edge" in report(masks, depth=depth)

    def test_an_answer_that_failed(self, depth):
        with pytest.raises(InvalidMessage, match="is this the answer to a request that failed"):
            report(LayeredMasks(header=depth.header), depth=depth)

    def test_depth_of_another_camera(self, masks, depth):
        depth.header.frame_id = "elsewhere"
        with pytest.raises(InvalidMessage, match="register depth to the image"):
            report(masks, depth=depth)

    def test_what_is_free_then_the_rest(self, masks):
        lines = report(masks).splitlines()
        assert lines[0] == "camera_optical_frame at 1.999999999: 4 objects in 3 layers"
        then = lines.index("then, in this order:")
        assert lines[1] == "can be picked now:"
        assert table(lines[:then]) == [2, 1]
        assert table(lines[then:]) == [3, 4]
        assert lines[3].split() == ["2", "1", "100", "%", "0.95", "40", "4", "16", "16"]
        assert lines[then + 2].endswith("under objects 1, 2") and "89 %" in lines[then + 2]

    def test_minimums_leave_out(self, masks):
        lines = report(masks, min_score=0.8).splitlines()
        then = lines.index("then, in this order:")
        assert (table(lines[:then]), table(lines[then:])) == ([2], [1, 3, 4])
        assert lines[then + 2].endswith("below the minimum")
        assert "nothing can be picked now" in report(masks, min_score=1.0)

    def test_a_free_target(self, masks):
        assert "1 can be picked now: nothing lies on it" in report(masks, target=1)
        assert "1 cannot be picked now: below the minimum" in report(masks, target=1, min_score=0.8)
        assert "then it is free:" in report(masks, target=4)

    def test_what_was_drawn_under_something_that_is_no_object(self, masks):
        masks.objects[2].occluded_by = []
        for layer in masks.layers:
            layer.hypotheses = []
        lines = report(masks).splitlines()
        then = lines.index("then, in this order:")
        assert (table(lines[:then]), table(lines[then:])) == ([2, 1], [3, 4])
        assert lines[then + 2].endswith("under something that is not listed")
        assert "3 cannot be picked now: under something that is not listed" in report(masks, target=3)
        on_the_way = report(masks, target=4)
        assert "under something that is not listed, lies on 4" in on_the_way
        assert "then no object that is known lies on it:" in on_the_way and "free" not in on_the_way

    def test_what_hypotheses_do_not_agree_on_is_said(self, make_scene, rectangles):
        front = rectangles((2, 6, 10, 14)) | rectangles((20, 6, 28, 14))
        behind, shorter, longer = rectangles((6, 10, 18, 20), (10, 10, 18, 20), (6, 10, 24, 20))
        hypotheses = np.array([[front[0]] * 3, [behind, shorter, longer]])
        scene = make_scene(np.array([front[0], behind]), 64, 48, hypotheses=hypotheses)
        message = scene_to_message(scene, image_message().header, "test", MessageTypes.ros())
        row, note = report(message).splitlines()[-2:]
        assert row.endswith(" under object 1 (67%), perhaps 2 (33%)")
        assert note.startswith("in brackets: of the hypotheses that see the object")
        assert report(message, target=3).splitlines()[-2].endswith(" under object 1 (67%), perhaps 2 (33%)")
        without = scene_to_message(scene, image_message().header, "test", MessageTypes.ros(), hypotheses=False)
        assert report(without).splitlines()[-1].endswith("under object 1")

    def test_a_layer_that_is_none_is_told(self, masks):
        masks.objects[2].layer = 0
        with pytest.raises(ValueError, match="object 3 has the layer 0; layers run from 1"):
            report(masks)

    def test_warnings_come_first(self, masks):
        masks.status, masks.status_message, masks.truncated = LayeredMasks.LOW_CONFIDENCE, "unsure", True
        masks.objects[0].touches_border = True
        masks.objects[0].score = masks.objects[0].visible_ratio = float("nan")
        lines = report(masks).splitlines()
        assert lines[1:3] == ["look before you pick: unsure", "the limit of layers was reached: more objects may lie below"]
        (row,) = [line for line in lines if line.split()[0] == "1"]
        assert row.split()[2:4] == ["-", "-"] and row.endswith("reaches the edge of the view")

    def test_an_empty_scene(self, make_scene):
        scene = make_scene(np.zeros((0, 32, 32)), 64, 48)
        message = scene_to_message(scene, image_message().header, "test", MessageTypes.ros())
        assert report(message).splitlines()[1:] == ["no layer found"]

    def test_a_cycle(self, masks):
        masks.objects[0].occluded_by = [4]
        with pytest.raises(ValueError, match="in a cycle"):
            report(masks)


@pytest.mark.parametrize(
    ("wrong", "words"), [("--timeout=soon", "above 0"), ("--min-score=90", "in [0, 1]"), ("--min-score=much", "in [0, 1]")]
)
def test_a_bad_argument_is_told(wrong, words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["pick_order", wrong])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1


def test_who_follows_waits_without_limit(capsys):
    """A limit would be passed over in silence, the default's value as well."""
    for limit in ("3", "10"):
        with pytest.raises(SystemExit) as ended:
            main(["pick_order", "--follow", "--timeout", limit])
        assert ended.value.code == 2
        assert "argument --timeout: not allowed with argument --follow" in capsys.readouterr().err


def test_the_example_for_moveit_pro(launch, peer, masks):
    heard: list[Image] = []
    peer.create_subscription(Image, "pick_mask", heard.append, 5)
    executor = SingleThreadedExecutor(context=peer.context)
    process = launch("examples/to_moveit_pro.py")

    def answered() -> bool:
        assert process.poll() is None, process.communicate()
        rclpy.spin_once(peer, executor=executor, timeout_sec=0)
        return bool(heard)

    publish_until(peer, {"seqamodal/layered_masks": masks}, answered)
    assert (heard[0].header, heard[0].encoding) == (masks.header, "mono8")
    assert image_array(heard[0]).any()
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=WITHIN)
    assert process.returncode == 0, log
    assert "object 2: " in log and "Traceback" not in log


def test_the_example_for_contact_graspnet(launch, peer, masks, tmp_path):
    out = tmp_path / "pick.npz"
    process = launch("examples/to_contact_graspnet.py", "--out", str(out), "--timeout", "40")
    messages = {
        "camera_info": CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1.0]),
        "depth": fill_image(Image(), np.full((48, 64), 1250, np.uint16), "16UC1", masks.header),
        "seqamodal/layered_masks": masks,
    }
    publish_until(peer, messages, lambda: process.poll() is not None)
    output, error = process.communicate()
    assert (process.returncode, error) == (0, "")
    assert output.startswith(f"{out}: object 2, ")
    data = np.load(out)
    assert (data["depth"] == 1.25).all() and np.unique(data["segmap"]).tolist() == [0, 2] and data["K"][0, 2] == 31.5


def test_without_camera_info_it_says_so_whatever_else_came(launch, peer, masks, tmp_path):
    """The first masks are mostly of an image of before it listened, which no depth image fits."""
    process = launch("examples/to_contact_graspnet.py", "--out", str(tmp_path / "pick.npz"), "--timeout", "6")
    late = Header(frame_id=masks.header.frame_id, stamp=Time(sec=masks.header.stamp.sec + 1))
    messages = {"depth": fill_image(Image(), np.full((48, 64), 1250, np.uint16), "16UC1", late), "seqamodal/layered_masks": masks}
    publish_until(peer, messages, lambda: process.poll() is not None)
    _, error = process.communicate()
    assert process.returncode == 1
    assert error.startswith("nothing written within 6 s: of messages came ") and " of depth, 0 of camera_info" in error


@pytest.mark.parametrize(
    "words,said",
    [
        (["--min-score", "5"], "--min-score must be in [0, 1], not 5"),
        (["--target", "0"], "--target must be the id of an object, 1 or more, not 0"),
        (["--timeout", "nan"], "--timeout must be more than 0 seconds, not nan"),
    ],
)
def test_what_could_never_be_picked_is_refused_at_once(launch, words, said):
    process = launch("examples/to_contact_graspnet.py", *words)
    _, stderr = process.communicate(timeout=WITHIN)
    assert process.returncode == 2
    assert stderr.splitlines()[-1] == f"to_contact_graspnet.py: error: {said}"
