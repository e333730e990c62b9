# SPDX-License-Identifier: Apache-2.0
"""Draws what a bag holds, without ROS: a picture for each image that has layered masks, layers over it and pick order."""

import argparse
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.bags.codec import IMAGE, LAYERED_MASKS, Codec
from seqamodal_ros.bags.reading import Bag, TopicError, image_topic, open_bag
from seqamodal_ros.messages import compressed_rgb, image_rgb, message_to_scene, stamp_of, unstamped
from seqamodal_ros.scene.pictures import overlay, write_image

WAITING = 60  # images whose masks are to come: as many as a node has at work and in its queue, and more


def pictures(bag_path: Path, topic: str | None = None, masks_topic: str | None = None) -> Iterator[tuple[str, np.ndarray]]:
    """The stamp, and uint8 [H, W, 3] RGB, of each image whose masks are in the bag.

    `topic` where it has images of several, `masks_topic` likewise of masks.
    """
    store = Codec().store
    waiting: deque[Any] = deque(maxlen=WAITING)
    with open_bag(bag_path) as bag:
        topic = image_topic(bag, topic)
        masks_topic = _of_masks(bag, masks_topic)
        of_masks = (raw for connection, _, raw in bag.messages() if connection.topic == masks_topic)
        answered = {stamp_of(store.deserialize_cdr(raw, LAYERED_MASKS).header) for raw in of_masks}
        for connection, _, raw in bag.messages():
            if connection.topic == topic:
                image = store.deserialize_cdr(raw, connection.msgtype)
                if unstamped(image.header):
                    waiting.clear()  # nothing but their place tells whose masks are whose: `process_bag` writes them right behind
                if stamp_of(image.header) in answered:  # most of a fast camera's are not
                    waiting.append(image)
            elif connection.topic == masks_topic:
                masks = store.deserialize_cdr(raw, LAYERED_MASKS)
                image = next((each for each in reversed(waiting) if each.header == masks.header), None)
                if image is not None:
                    stamp, convert = masks.header.stamp, image_rgb if image.__msgtype__ == IMAGE else compressed_rgb
                    try:
                        yield f"{stamp.sec}.{stamp.nanosec:09d}", overlay(convert(image), message_to_scene(masks))
                    except ValueError as error:  # masks of another topic's image with the same header, say
                        print(f"left out, {stamp.sec}.{stamp.nanosec:09d}: {error}", file=sys.stderr)


def _of_masks(bag: Bag, asked: str | None) -> str | None:
    """The topic with layered masks that is asked for, or the only one; None where there is none."""
    topics = sorted({each.topic for each in bag.connections if each.msgtype == LAYERED_MASKS and each.msgcount})
    if asked not in topics if asked else len(topics) > 1:
        sys.exit(f"name one of the topics with masks, --masks TOPIC: {', '.join(topics) or 'there is none'}")
    return asked or next(iter(topics), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bag", type=Path)
    parser.add_argument("--image", help="topic of the images, where the bag has several")
    parser.add_argument("--masks", help="topic of the layered masks, likewise")
    parser.add_argument("--out", type=Path, default=Path("pictures"))
    args = parser.parse_args()
    number = 0
    try:
        for number, (stamp, picture) in enumerate(pictures(args.bag, args.image, args.masks), 1):
            path = args.out / f"{number:04d}_{stamp}.png"  # numbered, as stamps come again where a bag was recorded in a loop
            args.out.mkdir(parents=True, exist_ok=True)
            write_image(path, picture)
            print(path)
    except TopicError as error:
        sys.exit(f"--image: {error}")
    except (ImportError, OSError, ValueError) as error:
        sys.exit(str(error))
    if not number:
        sys.exit("no image of that topic has masks in the bag")


if __name__ == "__main__":
    main()
