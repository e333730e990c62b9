# SPDX-License-Identifier: Apache-2.0
"""Which qualities of service exchange messages with the node's topics, and that the others are told."""

import itertools
import time
from typing import Any

import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from harness import WITHIN, Bench, image_message
from rclpy.qos import QoSDurabilityPolicy, QoSProfile, QoSReliabilityPolicy
from sensor_msgs.msg import Image

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import image_rgb

RELIABLE, BEST_EFFORT = QoSReliabilityPolicy.RELIABLE, QoSReliabilityPolicy.BEST_EFFORT
VOLATILE, LASTING = QoSDurabilityPolicy.VOLATILE, QoSDurabilityPolicy.TRANSIENT_LOCAL
PAIRS = list(itertools.product((RELIABLE, BEST_EFFORT), (VOLATILE, LASTING)))
QUICK = {"num_samples": 1, "max_layers": 1, "sampling_steps": 1}
QUIET = 0.5  # seconds without an answer, of a node that answers others within a tenth of it


def quality(pair: tuple[Any, Any]) -> QoSProfile:
    return QoSProfile(depth=5, reliability=pair[0], durability=pair[1])


def name(pair: Any) -> str | None:
    return "-".join(policy.name.lower() for policy in pair) if isinstance(pair, tuple) else None


def seen(b: Bench, stamp: int) -> bool:
    return any(masks.header.stamp.sec == stamp for masks in list(b.peer.masks))


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_the_image_subscription_takes_what_any_camera_offers(bench, pair):
    b = bench(**QUICK)
    publisher = b.peer.create_publisher(Image, "image", quality(pair))
    assert b.wait(lambda: publisher.get_subscription_count() > 0)
    b.connected()
    publisher.publish(image_message(7))
    assert b.wait(lambda: seen(b, 7))


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_a_reliable_image_subscription_takes_reliable_cameras_alone_and_tells_of_others(bench, pair):
    b = bench(**QUICK, **{"qos_overrides./image.subscription.reliability": "reliable"})
    b.connected()
    publisher = b.peer.create_publisher(Image, "image", quality(pair))
    if pair[0] == RELIABLE:
        assert b.wait(lambda: publisher.get_subscription_count() > 0)
        publisher.publish(image_message(7))
        assert b.wait(lambda: seen(b, 7))
    else:
        assert b.says("[seqamodal]: New publisher discovered", "RELIABILITY")
        publisher.publish(image_message(7))
        b.peer.send(8)
        assert b.wait(lambda: seen(b, 8))
        assert not b.wait(lambda: seen(b, 7), QUIET)
        assert publisher.get_subscription_count() == 0


@pytest.mark.parametrize("pair", PAIRS, ids=name)
def test_the_masks_go_to_volatile_listeners_and_others_are_told(bench, pair):
    b = bench(**QUICK)
    heard: list[LayeredMasks] = []
    b.connected()
    b.peer.create_subscription(LayeredMasks, "seqamodal/layered_masks", heard.append, quality(pair))
    compatible = pair[1] == VOLATILE
    listeners = 2 if compatible else 1  # the peer listens too
    if not compatible:
        assert b.says("[seqamodal]: New subscription discovered", "DURABILITY")
    assert b.wait(lambda: b.camera.outputs._masks.get_subscription_count() == listeners)
    b.peer.send(7)
    assert b.wait(lambda: seen(b, 7))
    assert b.wait(lambda: bool(heard), WITHIN if compatible else QUIET) == compatible


def test_frames_that_come_while_one_is_read_replace_each_other(bench, monkeypatch):
    read = []

    def slow(message: Image) -> np.ndarray:
        read.append(message.header.stamp.sec)
        time.sleep(0.5)
        return image_rgb(message)

    monkeypatch.setattr("seqamodal_ros.ros.camera.image_rgb", slow)
    b = bench(**QUICK)
    b.connected()
    b.peer.send(1)
    assert b.wait(lambda: bool(read))
    for stamp in range(2, 7):
        b.peer.send(stamp)
    assert b.wait(lambda: seen(b, 6))
    assert len(read) <= 3, "old ones were read first"
