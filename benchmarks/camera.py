# SPDX-License-Identifier: Apache-2.0
"""A camera for `make soak`, a process of its own: the sample frames on `image`, stamped when they are sent, until its end."""

import argparse
import signal
import time

import cv2
import rclpy
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import Image

from benchmarks.frames import frames
from seqamodal_ros.messages import fill_image


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.camera", description=__doc__)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=480)
    parser.add_argument("--rate", type=float, default=0.0, help="frames a second; 0: as fast as the machine sends")
    args = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    rclpy.init(signal_handler_options=SignalHandlerOptions.NO)
    node = rclpy.create_node("camera")
    publisher = node.create_publisher(Image, "image", QoSProfile(depth=1))
    header = Image().header
    header.frame_id = "camera"
    pixels = [cv2.resize(image, (args.width, args.height)) for image in frames()]
    messages = [fill_image(Image(), each, "rgb8", header) for each in pixels]
    sent, began = 0, time.monotonic()
    try:
        while True:
            message = messages[sent % len(messages)]
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)
            sent += 1
            if args.rate:
                time.sleep(max(0.0, began + sent / args.rate - time.monotonic()))
    except KeyboardInterrupt:
        pass
    print(f"{sent} {time.monotonic() - began:.3f}", flush=True)  # frames, seconds
    node.destroy_node()
    rclpy.try_shutdown()


if __name__ == "__main__":
    main()
