# SPDX-License-Identifier: Apache-2.0
"""Depth image -> metres, and a scene with depth -> PointCloud2. No rclpy; messages are used by their fields alone."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from seqamodal_ros.messages import InvalidMessage, byte_array, image_array
from seqamodal_ros.scene.scene import LayeredScene

Pinhole = tuple[float, float, float, float]  # fx, fy, cx, cy, pixels
# sensor_msgs/PointField: FLOAT32 is 7, UINT16 is 4. `rgb` holds 0x00RRGGBB in a float's bits, as PCL and RViz read it.
FIELDS = (("x", 0, 7), ("y", 4, 7), ("z", 8, 7), ("rgb", 12, 7), ("object", 16, 4), ("layer", 18, 4))
POINT = np.dtype([("xyz", "<f4", 3), ("rgb", "<u4"), ("object", "<u2"), ("layer", "<u2")])


def depth_metres(message: Any) -> np.ndarray:
    """float32 [H, W] of a depth image (REP 118), in metres along the optical axis; NaN where there is no measurement.

    Raises:
        InvalidMessage: neither 32FC1 (metres) nor 16UC1 (millimetres), or not a whole image.
    """
    if message.encoding not in ("32FC1", "16UC1"):
        raise InvalidMessage(f"a depth image must be 32FC1 (metres) or 16UC1 (millimetres), not {message.encoding!r}")
    values = image_array(message)
    metres = values / np.float32(1000) if message.encoding == "16UC1" else values
    metres[~(np.isfinite(metres) & (metres > 0))] = np.nan
    return metres


def registered(header: Any, depth: Any, info: Any, width: int, height: int) -> tuple[np.ndarray, Pinhole]:
    """A depth image that is registered to an image, in metres, and that image's camera.

    Args:
        header: of the image.
        depth: sensor_msgs/Image, as `depth_metres` takes it.
        info: sensor_msgs/CameraInfo of the image.
        width, height: of the image, pixels.

    Returns:
        float32 [H, W] metres, NaN where there is no measurement; and (fx, fy, cx, cy) in pixels.

    Raises:
        InvalidMessage: they are of another camera, of another size, or not what they should be.
    """
    _check_same_camera(header, depth, info)
    camera, metres = pinhole(info, width, height), depth_metres(depth)
    if metres.shape != (height, width):
        raise InvalidMessage(
            f"depth is {metres.shape[1]}x{metres.shape[0]}, the image {width}x{height} pixels: register depth to the image"
        )
    return metres, camera


def seconds_apart(stamp: Any, other: Any) -> float:
    """How much later a builtin_interfaces/Time is than another one, seconds."""
    return float(stamp.sec - other.sec + (stamp.nanosec - other.nanosec) / 1e9)


def _check_same_camera(header: Any, depth: Any, info: Any) -> None:
    """Raise InvalidMessage unless depth and camera_info are of the header's frame; a driver may leave camera_info's empty."""
    frame = header.frame_id
    if depth.header.frame_id != frame:
        raise InvalidMessage(f"depth is in frame '{depth.header.frame_id}', the image in '{frame}': register depth to the image")
    if info.header.frame_id not in ("", frame):
        raise InvalidMessage(
            f"camera_info is of frame '{info.header.frame_id}', the image of '{frame}': "
            "remap camera_info to that of the image's camera"
        )


def pinhole(info: Any, width: int, height: int) -> Pinhole:
    """(fx, fy, cx, cy) in pixels, of a sensor_msgs/CameraInfo for rectified images of this size.

    They come from P, as in depth_image_proc; from K where the driver leaves P empty. Lens distortion is not undone.

    Raises:
        InvalidMessage: it is of another size, or not calibrated.
    """
    if (info.width, info.height) != (width, height):
        raise InvalidMessage(f"camera_info is of {info.width}x{info.height}, the image of {width}x{height} pixels")
    matrix, columns = (info.p, 4) if info.p[0] > 0 else (info.k, 3)
    fx, cx, fy, cy = (float(matrix[index]) for index in (0, 2, columns + 1, columns + 2))
    if not all(map(math.isfinite, (fx, fy, cx, cy))) or fx <= 0 or fy <= 0:
        raise InvalidMessage("camera_info has no focal length: calibrate the camera")
    return fx, fy, cx, cy


def scene_cloud(
    scene: LayeredScene,
    label: np.ndarray,
    image: np.ndarray,
    depth: np.ndarray,
    camera: Pinhole,
    cloud: Any,
    field: Callable[..., Any],
) -> Any:
    """Fill a sensor_msgs/PointCloud2 with the visible pixels of all objects that have a depth, all finite; returns it.

    Args:
        scene: seen in `image`.
        label: uint16 [H, W], `LayeredScene.label` of it; making it is most of the work, and others need it too.
        image: uint8 [H, W, 3] RGB.
        depth: float32 [H, W] metres, NaN where unknown.
        camera: (fx, fy, cx, cy) in pixels.
        cloud: the message to fill; its header is the caller's.
        field: makes a sensor_msgs/PointField.
    """
    fx, fy, cx, cy = camera
    v, u = np.nonzero((label > 0) & ~np.isnan(depth))
    z = depth[v, u]
    with np.errstate(over="ignore", invalid="ignore"):  # a senseless depth or focal length may be finite all the same
        xyz = np.stack([(u - cx) / fx * z, (v - cy) / fy * z, z], axis=1).astype(np.float32)
    finite = np.isfinite(xyz).all(axis=1)
    u, v, xyz = u[finite], v[finite], xyz[finite]
    points = np.zeros(len(xyz), POINT)
    points["xyz"] = xyz
    red, green, blue = image[v, u].astype(np.uint32).T
    points["rgb"] = red << 16 | green << 8 | blue
    points["object"] = label[v, u]
    layers = np.array([0, *(obj.layer for obj in scene.objects)], np.uint16)  # ids run from 1
    points["layer"] = layers[points["object"]]
    cloud.height, cloud.width = 1, len(points)
    cloud.fields = [field(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in FIELDS]
    cloud.is_bigendian = False
    cloud.point_step, cloud.row_step = POINT.itemsize, points.nbytes
    cloud.is_dense = True
    cloud.data = byte_array(points)
    return cloud
