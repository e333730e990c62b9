# SPDX-License-Identifier: Apache-2.0
"""One file for contact_graspnet: depth, camera matrix, and a segmentation map that holds the object to grasp alone.

    python examples/to_contact_graspnet.py --out pick.npz --ros-args -r depth:=/camera/depth -r camera_info:=/camera/camera_info

Waits for `seqamodal/layered_masks` with the `depth` image of the same moment and `camera_info`, writes the file, ends. Then, in
contact_graspnet: `python contact_graspnet/inference.py --np_path=pick.npz --local_regions --filter_grasps`.
"""

import argparse
import io
import sys
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.clouds import MasksWithDepth, registered
from seqamodal_ros.files import write_whole
from seqamodal_ros.messages import message_to_scene
from seqamodal_ros.scene.nearer import free_by_depth
from seqamodal_ros.scene.picking import LOW_SCORE, free_objects

MEASURED = 0.2  # of an object's visible pixels that must have depth: of glass, say, only speckles do


def grasp_input(
    masks: Any, depth: Any, camera_info: Any, target: int | None = None, min_score: float = LOW_SCORE
) -> dict[str, np.ndarray]:
    """What contact_graspnet's inference loads.

    Args:
        masks: LayeredMasks.
        depth: sensor_msgs/Image, 32FC1 in metres or 16UC1 in millimetres, registered to the rectified image of the masks.
        camera_info: sensor_msgs/CameraInfo of that image.
        target: id of the object to grasp; None for the highest-scoring one that can be picked, has depth and, by it, nothing
            nearer at its outline.
        min_score: what that one must score, in 0..1.

    Returns:
        depth: float32 [H, W], metres, 0 where nothing was measured.
        K: float64 [3, 3], pixels.
        segmap: uint16 [H, W], the target's id where it is visible, else 0.

    Raises:
        ValueError: nothing can be picked, or has depth; no object has the target's id, none of its pixels is visible, or too few
            have depth.
        InvalidMessage: (a ValueError) the messages do not fit one another.
    """
    scene = message_to_scene(masks)
    label = scene.label()
    height, width = masks.source_height, masks.source_width
    metres, (fx, fy, cx, cy) = registered(masks.header, depth, camera_info, width, height)
    if target is None:
        if not free_objects(scene.objects, min_score=min_score):
            raise ValueError(f"nothing that can be picked now scores {min_score:g} ({masks.status_message or 'nothing is free'})")
        free = free_by_depth(scene, metres, min_score=min_score)
        if not free:
            raise ValueError("by depth, something nearer lies at the edge of each object that could be picked")
        target = next((obj.id for obj in free if _measured(label == obj.id, metres) >= MEASURED), 0)
        if not target:
            raise ValueError(f"no object that could be picked has depth in {MEASURED:.0%} of its visible pixels")
    seen = label == target
    if target < 1 or not seen.any():  # ids run from 1, 0 is where no object is
        raise ValueError(f"no pixel of object {target} is visible, or there is no such object")
    if (share := _measured(seen, metres)) < MEASURED:
        raise ValueError(f"object {target} has depth in {share:.1%} of its visible pixels, less than {MEASURED:.0%}")
    return {
        "depth": np.nan_to_num(metres, nan=0.0),
        "K": np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]], np.float64),
        "segmap": np.where(seen, target, 0).astype(np.uint16),
    }


def _measured(seen: np.ndarray, metres: np.ndarray) -> float:
    """Share of an object's visible pixels, bool [H, W], that have depth; 0 where none is visible."""
    return 1 - float(np.isnan(metres[seen]).mean()) if seen.any() else 0.0


def main() -> int:
    """Write one file; 1 with one line where what is needed does not come in time."""
    import rclpy  # here, so that the functions above work, and are tested, without ROS
    from rclpy.qos import qos_profile_sensor_data
    from rclpy.utilities import remove_ros_args
    from sensor_msgs.msg import CameraInfo, Image

    from seqamodal_msgs.msg import LayeredMasks
    from seqamodal_ros.ros.signals import until_signalled

    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("pick.npz"), help="default: %(default)s")
    parser.add_argument("--target", type=int, metavar="ID", help="object to grasp (default: the first that can be picked)")
    parser.add_argument("--min-score", type=float, default=LOW_SCORE, metavar="S", help="of that one (default: %(default)g)")
    parser.add_argument("--timeout", type=float, default=10.0, metavar="SECONDS", help="default: %(default)g")
    arguments = parser.parse_args(remove_ros_args(sys.argv)[1:])
    if not 0 <= arguments.min_score <= 1:
        parser.error(f"--min-score must be in [0, 1], not {arguments.min_score:g}")
    if arguments.target is not None and arguments.target < 1:
        parser.error(f"--target must be the id of an object, 1 or more, not {arguments.target}")
    if not arguments.timeout > 0:
        parser.error(f"--timeout must be more than 0 seconds, not {arguments.timeout:g}")
    out = arguments.out if arguments.out.suffix == ".npz" else Path(f"{arguments.out}.npz")  # contact_graspnet goes by it

    with until_signalled() as stop:
        node = rclpy.create_node("to_contact_graspnet", start_parameter_services=False)
        missing: list[str] = []
        pairs = MasksWithDepth(missing.append)
        infos: deque[CameraInfo] = deque(maxlen=1)
        pair: tuple[LayeredMasks, Image] | None = None

        came: Counter[str] = Counter()

        def listen(kind: Any, topic: str, heard: Callable[[Any], None], qos: Any) -> None:
            def hear(message: Any) -> None:
                came[topic] += 1
                heard(message)

            node.create_subscription(kind, topic, hear, qos)

        listen(Image, "depth", pairs.add_depth, qos_profile_sensor_data)
        listen(CameraInfo, "camera_info", infos.append, qos_profile_sensor_data)
        listen(LayeredMasks, "seqamodal/layered_masks", pairs.add_masks, 5)
        until = time.monotonic() + arguments.timeout
        try:
            while time.monotonic() < until and not stop:
                rclpy.spin_once(node, timeout_sec=0.1)
                pair = pairs.take() or pair  # the latest: camera_info may come long after the first
                if pair is None or not infos:
                    continue
                try:
                    found = grasp_input(*pair, infos[0], arguments.target, arguments.min_score)
                except ValueError as error:  # the next frame may do
                    missing.append(str(error))
                    pair = None
                    continue
                data = io.BytesIO()
                np.savez(data, **found)
                write_whole(out, data.getvalue())
                print(f"{out}: object {found['segmap'].max()}, {np.count_nonzero(found['segmap'])} pixels")
                return 0
            if stop:
                return 130
            counts = ", ".join(f"{came[topic]} of {topic}" for topic in ("seqamodal/layered_masks", "depth", "camera_info"))
            last = f"; {missing[-1]}" if missing else ""
            print(f"nothing written within {arguments.timeout:g} s: of messages came {counts}{last}", file=sys.stderr)
            return 1
        except OSError as error:
            print(error, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
