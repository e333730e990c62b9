# SPDX-License-Identifier: Apache-2.0
"""The mask of the first pick, as consumers like MoveIt Pro's Mask2D take it: top-left x and y, and a cropped mono8 image.

    python examples/to_moveit_pro.py --ros-args -r pick_mask:=/my/mask

Subscribes `seqamodal/layered_masks`, publishes the cropped image on `pick_mask` and logs where it lies. Where MoveIt Pro is
installed, publish a moveit_studio_vision_msgs/Mask2D with these x, y and pixels instead.
"""

import argparse
import sys
from typing import Any, NamedTuple

import numpy as np

from seqamodal_ros.messages import fill_image, message_to_scene
from seqamodal_ros.scene.picking import LOW_SCORE, free_objects


class PickMask(NamedTuple):
    """Where an object is seen: `pixels` is a mono8 image, 0 or 255, whose first pixel is (x, y) of the source image."""

    id: int
    x: int
    y: int
    pixels: Any


def first_pick_mask(masks: Any, image: Any, min_score: float = LOW_SCORE) -> PickMask | None:
    """The visible mask of the highest-scoring free object, at source size and cropped; None where nothing scores enough.

    Args:
        masks: LayeredMasks.
        image: an empty sensor_msgs/Image, which becomes `pixels`; its header is that of the segmented image.
        min_score: what the object must score, in 0..1.

    Raises:
        ValueError: the masks are not what the message says, or an object is in no layer.
    """
    scene = message_to_scene(masks)
    for obj in free_objects(scene.objects, min_score=min_score):
        seen = scene.to_source(obj.visible)
        if seen.any():  # a sliver of a mask may fall between the pixels of a small source image
            y, x = np.argwhere(seen).min(axis=0)
            bottom, right = np.argwhere(seen).max(axis=0) + 1
            crop = seen[y:bottom, x:right].astype(np.uint8) * 255
            return PickMask(obj.id, int(x), int(y), fill_image(image, crop, "mono8", masks.header))
    return None


def main() -> int:
    """Publish a mask for each message until interrupted."""
    import rclpy  # here, so that the function above works, and is tested, without ROS
    from rclpy.utilities import remove_ros_args
    from sensor_msgs.msg import Image

    from seqamodal_msgs.msg import LayeredMasks
    from seqamodal_ros.ros.signals import until_signalled

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--min-score", type=float, default=LOW_SCORE, metavar="S", help="of the pick (default: %(default)g)")
    min_score = parser.parse_args(remove_ros_args(sys.argv)[1:]).min_score
    if not 0 <= min_score <= 1:
        parser.error(f"--min-score must be in [0, 1], not {min_score:g}")
    with until_signalled() as stop:
        node = rclpy.create_node("to_moveit_pro", start_parameter_services=False)
        publisher = node.create_publisher(Image, "pick_mask", 5)

        def on_masks(masks: LayeredMasks) -> None:
            try:
                pick = first_pick_mask(masks, Image(), min_score)
            except ValueError as error:  # another node may say what it likes
                node.get_logger().error(f"masks that cannot be used: {error}")
                return
            if pick is None:
                why = masks.status_message or "nothing is free"
                node.get_logger().warning(f"nothing that can be picked now scores {min_score:g} ({why})")
                return
            node.get_logger().info(f"object {pick.id}: {pick.pixels.width}x{pick.pixels.height} pixels at x={pick.x}, y={pick.y}")
            publisher.publish(pick.pixels)

        masks = node.create_subscription(LayeredMasks, "seqamodal/layered_masks", on_masks, 5)
        node.get_logger().info(f"{masks.topic_name} -> {publisher.topic_name}, Ctrl-C ends")
        while not stop:
            rclpy.spin_once(node, timeout_sec=0.1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
