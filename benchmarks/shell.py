# SPDX-License-Identifier: Apache-2.0
"""What the ROS overhead is, and how still the masks of a still scene are: a real node over real DDS; for `make bench`."""

import os
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np
from sensor_msgs.msg import Image

from benchmarks.frames import frames
from benchmarks.soak_node import NodeProcess, Robot, wait
from seqamodal_ros.messages import fill_image, message_to_scene

COUNT, WARM = 200, 5  # frames that are timed, as many as the node tells of, and those before
NOISE, REPEATS = 4.0, 6  # grey levels, and noisy images of each sample frame


def shell(model: str, device: str) -> dict[str, float]:
    """p95 of received to published at 1280x720, without inference, milliseconds; frames are sent one by one.

    Where someone hears the masks alone, and where someone hears the label, too, which is drawn at the image's size.
    """
    image, found = cv2.resize(frames()[0], (1280, 720)), {}
    for name in ("shell", "shell_label"):
        with _Pair(model, device, "num_samples:=1", "stillness:=0.0") as robot:
            if name == "shell_label":
                robot.listen_to_label()
            for _ in range(WARM + COUNT):
                _ask(robot, image)
            if name == "shell_label" and not robot.labels:
                raise TimeoutError("no label came")
            since = time.monotonic()
            if not wait(lambda robot=robot, since=since: robot.told > since):
                raise TimeoutError("the node said nothing on /diagnostics")
            found[f"{name}_p95_ms"] = float(robot.status["beside_inference_p95_ms"])
    return found


def stillness(model: str, device: str) -> dict[str, float]:
    """Mean IOU of the layers of consecutive noisy frames of a still scene; as the node is, and without its `stillness`."""
    noise = np.random.default_rng(0)
    found = {}
    for name, parameters in {"still": (), "seen_anew": ("stillness:=0.0",)}.items():
        ious = []
        with _Pair(model, device, *parameters) as robot:
            for image in frames():
                before = None
                for _ in range(REPEATS):
                    noisy = (image + noise.normal(0, NOISE, image.shape)).round().clip(0, 255).astype(np.uint8)
                    layers = message_to_scene(_ask(robot, noisy)).amodal
                    if before is not None:
                        ious += [_iou(layers, before, k) for k in range(max(len(layers), len(before)))]
                    before = layers
        found[f"{name}_iou"] = float(np.mean(ious))
    return found


class _Pair:
    """A node and a robot, for a while."""

    def __init__(self, model: str, device: str, *parameters: str):
        os.environ["ROS_DOMAIN_ID"] = str(1 + os.getpid() % 100)  # others on this machine are not part of it
        self._log = Path(tempfile.mkdtemp(prefix="bench-")) / "node.log"
        self._node = NodeProcess(self._log, f"model:={model}", f"device:={device}", *parameters)
        self._robot = Robot(keep=True)

    def __enter__(self) -> Robot:
        if not self._robot.ready():
            self.__exit__()
            raise TimeoutError(f"the node does not come up: see {self._log}")
        return self._robot

    def __exit__(self, *_: object) -> None:
        self._robot.close()
        self._node.end()


def _ask(robot: Robot, image: np.ndarray) -> object:
    """The answer to an image."""
    stamp = robot.node.get_clock().now().to_msg()
    header = Image().header
    header.frame_id, header.stamp = "camera", stamp
    came = len(robot.masks)

    def answers() -> list[object]:
        return [masks for masks, _ in robot.masks[came:] if masks.header.stamp == stamp]

    for _ in range(4):  # the node leaves images alone while it has not seen that somebody listens
        robot.images.publish(fill_image(Image(), image, "rgb8", header))
        if wait(lambda: bool(answers()), 5):
            return answers()[0]
    raise TimeoutError("a frame was not answered")


def _iou(some: np.ndarray, others: np.ndarray, layer: int) -> float:
    blank = np.zeros((64, 64), bool)
    a, b = (stack[layer] if layer < len(stack) else blank for stack in (some, others))
    return float((a & b).sum() / (a | b).sum())
