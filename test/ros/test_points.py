# SPDX-License-Identifier: Apache-2.0
"""`~/points` over DDS: a cloud where depth and camera_info fit the image, a counted warning where they do not."""

import gc
import time

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Time
from harness import WITHIN, DepthCamera, image_message
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_srvs.srv import Trigger

from seqamodal_ros.clouds import POINT
from seqamodal_ros.messages import fill_image, message_to_scene
from seqamodal_ros.ros.camera import REPEAT_EVERY, WARN_EVERY
from seqamodal_ros.ros.points import DepthMatch


class Camera(DepthCamera):
    """One whose depth and camera_info may be wrong."""

    def send(
        self,
        depth_size: tuple[int, int] = (64, 48),
        info_size: tuple[int, int] = (64, 48),
        encoding: str = "16UC1",
        frame: str = "camera_optical_frame",
        info_frame: str = "",
        late: int = 0,
    ) -> None:
        """Depth of 1.2 m, camera_info, and once the node has both, the image; by default all three fit."""
        values = np.full(depth_size[::-1], 1200, np.uint16) if encoding == "16UC1" else np.zeros(depth_size[::-1], np.uint8)
        depth = fill_image(Image(), values, encoding, image_message().header)
        depth.header.frame_id = frame
        depth.header.stamp.nanosec -= late
        info = CameraInfo(width=info_size[0], height=info_size[1], k=[50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1.0])
        info.header.frame_id = info_frame
        self.infos.publish(info)
        self.depths.publish(depth)
        points = self.bench.camera.points
        assert self.bench.wait(lambda: points._info == info and bool(points._depths) and points._depths[-1] == depth)
        self.bench.peer.send()


def depth_image(stamp: int, milliseconds: int, millimetres: int) -> Image:
    """Of one distance all over, 64x48, stamped so much after the image of this stamp."""
    depth = fill_image(Image(), np.full((48, 64), millimetres, np.uint16), "16UC1", image_message(stamp).header)
    nanoseconds = depth.header.stamp.sec * 10**9 + depth.header.stamp.nanosec + milliseconds * 10**6
    depth.header.stamp.sec, depth.header.stamp.nanosec = divmod(nanoseconds, 10**9)
    return depth


def test_a_cloud_of_the_visible_pixels(bench):
    b = bench()
    camera = Camera(b)
    camera.send(late=40_000_000)  # of the 50 ms that are allowed
    assert b.wait(lambda: camera.clouds and b.peer.masks)
    (cloud,) = camera.clouds
    assert cloud.header == b.peer.masks[0].header
    points = np.frombuffer(cloud.data, POINT)
    assert len(points) == (message_to_scene(b.peer.masks[0]).label() > 0).sum() > 0
    np.testing.assert_allclose(points["xyz"][:, 2], 1.2, atol=1e-6)
    assert b.camera.counters.without_points == 0


@pytest.mark.parametrize(
    "fault,words",
    [
        ({"late": 60_000_000}, "max_depth_skew"),
        ({"frame": "elsewhere"}, "elsewhere"),
        ({"depth_size": (32, 48)}, "register depth"),
        ({"encoding": "mono8"}, "mono8"),
        ({"info_size": (640, 480)}, "640x480"),
        ({"info_frame": "depth_optical_frame"}, "remap camera_info"),
    ],
    ids=["late", "frame", "size", "encoding", "camera_info", "other_camera"],
)
def test_what_does_not_fit_gives_no_cloud_and_is_counted(bench, fault, words):
    b = bench()
    camera = Camera(b)
    camera.send(**fault)
    assert b.wait(lambda: b.camera.counters.without_points == 1)
    assert b.wait(lambda: b.peer.masks), "the masks come all the same"
    assert camera.clouds == []
    assert b.says(words)


def test_an_image_without_a_stamp_gets_no_cloud(bench):
    """Depth that has no stamp either may be of any time."""
    b = bench()
    camera = Camera(b)
    camera.send()
    assert b.wait(lambda: len(b.peer.masks) == 1)
    for message, publisher in ((depth_image(1, 0, 1200), camera.depths), (image_message(), b.peer.images)):
        message.header.stamp = Time()
        publisher.publish(message)
        time.sleep(0.1)
    assert b.wait(lambda: b.camera.counters.without_points == 1 and len(b.peer.masks) == 2)
    assert b.says("no cloud: the image has no stamp")


def test_many_misfits_are_all_counted_and_told_in_one_line_until_a_while_has_passed(bench, capfd):
    b = bench()
    camera = Camera(b)
    began = time.monotonic()
    for count in range(1, 11):
        camera.send(info_size=(640, 480))
        assert b.wait(lambda count=count: b.camera.counters.without_points == count)
    camera.send()
    assert b.wait(lambda: bool(camera.clouds))  # and so the last misfit has been told, too
    told = capfd.readouterr().err.count("no cloud: ")
    assert 1 <= told <= 1 + (time.monotonic() - began) // WARN_EVERY
    assert b.camera.counters.without_points == 10 and len(camera.clouds) == 1
    since, before = b.camera._logged["no cloud"]
    assert before.startswith("camera_info is of 640x480")
    b.camera._logged["no cloud"] = since - REPEAT_EVERY, before
    camera.send(info_size=(640, 480))
    assert b.says("no cloud: camera_info is of 640x480")
    b.camera._logged["no cloud"] = since - REPEAT_EVERY, "another"  # which is no reason to wait so long
    camera.send(info_size=(640, 480))
    assert b.wait(lambda: b.said().count("no cloud: camera_info is of 640x480") == 2)


def test_a_camera_info_that_was_sent_once_for_all_before_is_told(bench):
    b = bench()
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    b.peer.create_publisher(CameraInfo, "camera_info", latched)
    b.peer.create_subscription(PointCloud2, "seqamodal/points", lambda _: None, 5)
    assert b.wait(lambda: b.camera.points.wanted)
    b.connected()
    b.peer.send()
    assert b.says(
        "no cloud: no camera_info has come; peer may have sent it before this node listened: "
        "set qos_overrides./camera_info.subscription.durability to transient_local, and its .reliability to reliable"
    )


def test_the_depth_image_of_the_same_stamp_is_found_after_many_others_and_after_its_colour_image(bench, monkeypatch):
    """As where inference takes longer than depth images are kept."""
    b = bench()
    camera = Camera(b)
    points, header = b.camera.points, image_message().header
    waiting = points.match(header)
    for milliseconds in (-33, 0, *range(33, 33 * 30, 33)):
        depth = depth_image(1, milliseconds, 1200 + milliseconds)
        camera.depths.publish(depth)
        assert b.wait(lambda depth=depth: points._depths and points._depths[-1].header.stamp == depth.header.stamp)
    assert waiting.depth.header.stamp == header.stamp
    assert points.match(header).depth.header.stamp != header.stamp  # it is not kept for those who did not wait
    del waiting
    gc.collect()
    points.match(header)
    assert len(points._matches) == 1


@pytest.fixture
def listening(bench):
    """A camera whose clouds are heard, and whose camera_info has come; its depth topic is remapped, as every real one is."""
    camera = Camera(bench(cli_args=["--ros-args", "-r", "depth:=/camera/aligned_depth"]), "/camera/aligned_depth")
    points = camera.bench.camera.points
    camera.infos.publish(CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1.0]))
    assert camera.bench.wait(lambda: points._info is not None and points.wanted)
    return camera


def heard_depth(camera: Camera, depth: Image) -> None:
    camera.depths.publish(depth)
    points = camera.bench.camera.points
    assert camera.bench.wait(lambda: points._depths and points._depths[-1].header.stamp == depth.header.stamp)


def test_a_cloud_waits_for_the_depth_image_of_its_stamp(listening, monkeypatch):
    """As of a still scene, whose answer is there sooner than depth that has to be registered."""
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", WITHIN)
    b = listening.bench
    heard_depth(listening, depth_image(3, -33, 900))  # of the frame before, within max_depth_skew
    b.peer.send(3)
    assert b.wait(lambda: b.peer.masks)
    assert not listening.clouds and b.camera.counters.without_points == 0
    heard_depth(listening, depth_image(3, 0, 1200))
    assert b.wait(lambda: listening.clouds)
    np.testing.assert_allclose(np.frombuffer(listening.clouds[0].data, POINT)["xyz"][:, 2], 1.2, atol=1e-6)
    assert b.wait(b.camera.points._timer.is_canceled)


def distance(cloud: PointCloud2) -> float:
    """Of all its points, metres."""
    (metres,) = set(np.frombuffer(cloud.data, POINT)["xyz"][:, 2].tolist())
    return round(metres, 6)


@pytest.mark.parametrize("how", ["reset", "jump"])
def test_depth_of_before_a_reset_or_a_jump_in_time_counts_no_more(listening, how, monkeypatch):
    """As where a simulation begins anew: images of the same stamps come again, this time before their depth images."""
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", WITHIN)
    b = listening.bench
    for stamp in (3, 4):
        heard_depth(listening, depth_image(stamp, 0, 1000))
    if how == "reset":
        assert b.node._on_reset(Trigger.Request(), Trigger.Response()).success
    else:
        b.peer.send(4)
        assert b.wait(lambda: listening.clouds)
    answered, clouds = len(b.peer.masks), len(listening.clouds)
    b.peer.send(3)
    assert b.wait(lambda: len(b.peer.masks) == answered + 1)
    assert len(listening.clouds) == clouds
    heard_depth(listening, depth_image(3, 0, 2000))
    assert b.wait(lambda: len(listening.clouds) == clouds + 1)
    assert distance(listening.clouds[-1]) == 2.0 and b.camera.counters.without_points == 0


def test_a_colour_image_a_little_out_of_order_finds_its_depth(listening):
    points = listening.bench.camera.points
    depths = [depth_image(1, milliseconds, 1000) for milliseconds in (0, 33, 66)]
    for depth in depths:
        heard_depth(listening, depth)
    for depth in (depths[2], depths[1]):
        assert points.match(depth.header).depth.header.stamp == depth.header.stamp


def test_where_depth_is_the_first_to_begin_anew_it_counts(listening, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", WITHIN)
    b = listening.bench
    for stamp, millimetres in ((3, 1000), (4, 1000), (3, 2000)):
        heard_depth(listening, depth_image(stamp, 0, millimetres))
        if stamp == 4:
            b.peer.send(4)
            assert b.wait(lambda: listening.clouds)
    b.peer.send(3)
    assert b.wait(lambda: len(listening.clouds) == 2)
    assert distance(listening.clouds[-1]) == 2.0


def test_where_none_of_its_stamp_comes_the_nearest_does(listening):
    b = listening.bench
    heard_depth(listening, depth_image(3, -33, 900))
    b.peer.send(3)
    assert b.wait(lambda: listening.clouds)
    np.testing.assert_allclose(np.frombuffer(listening.clouds[0].data, POINT)["xyz"][:, 2], 0.9, atol=1e-6)
    b.peer.send(4)
    assert b.wait(lambda: b.camera.counters.without_points == 1)
    assert len(listening.clouds) == 1


def test_depth_of_before_a_jump_in_time_is_not_taken_for_later(listening, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", WITHIN)
    b = listening.bench
    heard_depth(listening, depth_image(60, 0, 900))  # as of a bag that begins again
    b.peer.send(3)
    assert b.wait(lambda: b.peer.masks)
    assert b.camera.counters.without_points == 0
    heard_depth(listening, depth_image(3, 0, 1200))
    assert b.wait(lambda: listening.clouds)


def test_a_camera_info_that_was_published_once_is_heard_after_each_configure(bench):
    of_info = "qos_overrides./camera_info.subscription."
    b = bench(**{f"{of_info}durability": "transient_local", f"{of_info}reliability": "reliable"})
    latched = QoSProfile(depth=1, durability=QoSDurabilityPolicy.TRANSIENT_LOCAL)
    b.peer.create_publisher(CameraInfo, "camera_info", latched).publish(CameraInfo(width=64, height=48))
    assert b.wait(lambda: b.camera.points._info is not None)
    for transition in (b.node.trigger_deactivate, b.node.trigger_cleanup, b.node.trigger_configure):
        assert transition() == TransitionCallbackReturn.SUCCESS
    assert b.wait(lambda: b.camera.points._info is not None)


def test_where_nobody_publishes_depth_nothing_waits(listening, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", 3 * WITHIN)
    b = listening.bench
    b.peer.destroy_publisher(listening.depths)
    assert b.wait(lambda: not b.node.count_publishers("/camera/aligned_depth"))
    b.peer.send(3)
    assert b.wait(lambda: b.camera.counters.without_points == 1)
    assert b.says("no depth image has come")


def test_what_waits_for_depth_is_forgotten_with_the_rest(listening, monkeypatch):
    monkeypatch.setattr("seqamodal_ros.ros.points.DEPTH_WITHIN", WITHIN)
    b = listening.bench
    b.peer.send(3)
    assert b.wait(lambda: b.peer.masks)
    assert b.wait(lambda: len(b.camera.points._waiting) == 1)
    b.camera.cancel("the node was reset")
    assert not b.camera.points._waiting
    heard_depth(listening, depth_image(3, 0, 1200))
    assert not b.wait(lambda: bool(listening.clouds), 0.5) and b.camera.counters.without_points == 0


def test_an_inactive_node_keeps_no_depth_images(listening):
    b, points = listening.bench, listening.bench.camera.points
    heard_depth(listening, depth_image(3, 0, 1200))
    assert b.node.trigger_deactivate() == TransitionCallbackReturn.SUCCESS
    came: list[Image] = []
    b.peer.create_subscription(Image, "/camera/aligned_depth", came.append, 5)
    assert b.wait(lambda: listening.depths.get_subscription_count() == 2)
    listening.depths.publish(depth_image(4, 0, 1200))
    assert b.wait(lambda: bool(came))
    assert b.wait(lambda: not points._depths)


@pytest.mark.parametrize("topic", ["camera_info", "depth"])
def test_whom_it_cannot_hear_is_told(bench, topic):
    b = bench(**{f"qos_overrides./{topic}.subscription.reliability": "reliable"})
    sensor = QoSProfile(depth=5, reliability=QoSReliabilityPolicy.BEST_EFFORT)
    b.peer.create_publisher(CameraInfo, "camera_info", sensor)
    if topic == "depth":
        b.peer.create_publisher(Image, "depth", sensor)
        b.camera.points._info = CameraInfo()
    b.peer.create_subscription(PointCloud2, "seqamodal/points", lambda _: None, 5)
    assert b.wait(lambda: b.camera.points.wanted)
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.camera.counters.without_points == 1)
    what = topic if topic == "camera_info" else "depth image"
    assert b.says(f"no cloud: no {what} has come; the QoS of peer on /{topic} is incompatible with this node's")


def test_without_depth_or_listener_nothing_is_said(bench):
    b = bench()
    b.connected()
    b.peer.send()
    assert b.wait(lambda: b.peer.masks)
    assert b.camera.counters.without_points == 0


def test_of_depth_images_of_one_stamp_the_newer_counts():
    """As where a simulation begins anew."""
    header = image_message(3).header
    old, new, other = (Image(header=image_message(stamp).header) for stamp in (3, 3, 9))
    match = DepthMatch(header)
    for depth in (old, new, other):
        match.offer(depth)
    assert match.depth is new
