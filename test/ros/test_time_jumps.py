# SPDX-License-Identifier: Apache-2.0
"""Time that jumps back, as where a simulator begins anew or a bag is played in a loop: frames and requests are answered on."""

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from harness import Bench, DepthCamera, image_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, Image

from seqamodal_msgs.srv import SegmentImage
from seqamodal_ros.clouds import POINT
from seqamodal_ros.messages import fill_image


class Bag(DepthCamera):
    """Plays images with their depth images and camera_info to a bench's node, and keeps its clouds."""

    def __init__(self, b: Bench):
        super().__init__(b)
        self.clock = b.peer.create_publisher(Clock, "/clock", 1)

    def turn(self, seconds: int) -> None:
        """Set the node's clock."""
        node = self.bench.node
        assert self.bench.wait(lambda: self.clock.get_subscription_count() > 0)

        def turned() -> bool:
            self.clock.publish(Clock(clock=Time(sec=seconds)))
            return node.get_clock().now().nanoseconds == seconds * 10**9

        assert self.bench.wait(turned)

    def play(self, stamp: int) -> None:
        """What was stamped then, with a depth that tells the stamp; returns once its masks and its cloud are there."""
        b, header = self.bench, image_message(stamp).header
        depth = fill_image(Image(), np.full((48, 64), 1000 + stamp, np.uint16), "16UC1", header)
        answers = len(b.peer.masks) + 1
        points = b.camera.points

        def heard() -> bool:
            if points._info is not None and points._depths and points._depths[-1].header == header:
                return True
            self.infos.publish(CameraInfo(width=64, height=48, k=[50.0, 0, 31.5, 0, 50.0, 23.5, 0, 0, 1.0]))
            self.depths.publish(depth)
            return False

        assert b.wait(heard)
        b.peer.send(stamp)
        assert b.wait(lambda: len(b.peer.masks) == len(self.clouds) == answers), f"no masks, or no cloud, of {stamp}"

    def check(self, *stamps: int) -> None:
        """Whether these have been answered, each with a cloud of its own depth image."""
        assert [masks.header.stamp.sec for masks in self.bench.peer.masks] == list(stamps)
        assert [cloud.header.stamp.sec for cloud in self.clouds] == list(stamps)
        for stamp, cloud in zip(stamps, self.clouds, strict=True):
            distances = np.frombuffer(cloud.data, POINT)["xyz"][:, 2]
            assert len(distances)
            np.testing.assert_allclose(distances, 1 + stamp / 1000, atol=1e-6)


def test_after_a_jump_back_in_time_frames_and_requests_are_answered(bench):
    """Who asked before the jump waits for a time that may not come again: the first image after the jump is the answer."""
    b = bench(use_sim_time=True, max_age=5.0)
    bag = Bag(b)
    client = b.peer.create_client(SegmentImage, "seqamodal/segment")
    assert b.wait(client.service_is_ready)
    bag.turn(100)
    bag.play(100)
    before = client.call_async(SegmentImage.Request())
    assert b.wait(lambda: b.camera.segment._for_camera)
    bag.turn(10)
    bag.play(10)
    assert b.wait(before.done)
    assert before.result().success and before.result().masks.header.stamp.sec == 10
    after = client.call_async(SegmentImage.Request())
    assert b.wait(lambda: b.camera.segment._for_camera)
    bag.turn(11)
    bag.play(11)
    assert b.wait(after.done)
    assert after.result().success and after.result().masks.header.stamp.sec == 11
    bag.check(100, 10, 11)
    assert b.camera.counters.too_old == 0


def test_what_is_left_of_the_time_before_a_jump_back_is_not_too_old(bench):
    b = bench(use_sim_time=True, max_age=5.0)
    bag = Bag(b)
    bag.turn(10)
    bag.play(100)
    bag.turn(100)
    b.peer.send(10)
    assert b.wait(lambda: b.camera.counters.too_old == 1)
    bag.play(100)
    bag.check(100, 100)


def test_a_bag_that_is_played_in_a_loop_is_answered_each_time(bench):
    bag = Bag(bench())
    loop = (1, 2, 3)
    for stamp in loop * 3:
        bag.play(stamp)
    bag.check(*loop * 3)
    assert bag.bench.camera.counters.without_points == 0


def test_where_nobody_publishes_the_clock_that_was_asked_for_diagnostics_warn(bench):
    """Every image would be from the future, and none too old."""
    b = bench(use_sim_time=True, max_age=1.0)
    heard: list[str] = []
    b.peer.create_subscription(
        DiagnosticArray, "/diagnostics", lambda message: heard.extend(each.message for each in message.status), 10
    )
    said = "use_sim_time is set, but /clock tells no time: no age is known, and max_age drops nothing"
    assert b.wait(lambda: any(said in each for each in heard))
    Bag(b).turn(10)
    assert b.wait(lambda: said not in heard[-1])
    assert said not in heard[0]  # before it could have heard of any
