# SPDX-License-Identifier: Apache-2.0
"""Draws what a bag holds, without ROS: a picture for each image that has layered masks, layers over it and pick order."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from seqamodal_ros.bags.codec import LAYERED_MASKS, Codec
from seqamodal_ros.bags.reading import image_topic, open_bag
from seqamodal_ros.messages import message_to_scene
from seqamodal_ros.scene.pictures import overlay, write_image


def pictures(bag_path: Path, topic: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """The stamp, and uint8 [H, W, 3] RGB, of each image whose masks are in the bag; `topic` where it has images of several."""
    codec = Codec()
    images = {}
    with open_bag(bag_path) as bag:
        topic = image_topic(bag, topic)
        for connection, _, raw in bag.messages():
            if connection.topic == topic:
                header, image = codec.image(raw, connection.msgtype)
                images[header.frame_id, header.stamp.sec, header.stamp.nanosec] = image
            elif connection.msgtype == LAYERED_MASKS:
                masks = codec.store.deserialize_cdr(raw, LAYERED_MASKS)
                stamp = masks.header.stamp
                image = images.pop((masks.header.frame_id, stamp.sec, stamp.nanosec), None)
                if image is not None:
                    yield f"{stamp.sec}.{stamp.nanosec:09d}", overlay(image, message_to_scene(masks))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--image", help="topic of the images, where the bag has several")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for stamp, picture in pictures(args.bag, args.image):
        write_image(args.out / f"{stamp}.png", picture)
        print(args.out / f"{stamp}.png")


if __name__ == "__main__":
    main()
