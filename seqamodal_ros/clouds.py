# SPDX-License-Identifier: Apache-2.0
"""Depth image -> metres, and a scene with depth -> PointCloud2. No rclpy; messages are used by their fields alone."""

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from seqamodal_ros.messages import InvalidMessage, byte_array, image_array, unstamped
from seqamodal_ros.scene.nearer import unmeasured
from seqamodal_ros.scene.scene import LayeredScene

MAX_SKEW = 0.05  # seconds between the stamps of an image and its depth image, for consumers of masks
MOST_BYTES = 256 * 2**20  # of depth images that are kept for masks to come: 14 s of 640x480 16UC1 at 30 Hz
MOST_MASKS = 100  # messages that wait for the depth image of their moment
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
    metres[unmeasured(metres)] = np.nan
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
    if info.header.frame_id not in ("", header.frame_id):  # a driver may leave it empty
        raise InvalidMessage(
            f"camera_info is of frame '{info.header.frame_id}', the image of '{header.frame_id}': "
            "remap camera_info to that of the image's camera"
        )
    return registered_metres(header, depth, width, height), pinhole(info, width, height)


def registered_metres(header: Any, depth: Any, width: int, height: int) -> np.ndarray:
    """float32 [H, W] of a depth image that is registered to an image, in metres, NaN where there is no measurement.

    Args:
        header: of the image.
        depth: sensor_msgs/Image, as `depth_metres` takes it.
        width, height: of the image, pixels.

    Raises:
        InvalidMessage: it is of another frame, of another size, or not what it should be.
    """
    if depth.header.frame_id != header.frame_id:
        raise InvalidMessage(
            f"depth is in frame '{depth.header.frame_id}', the image in '{header.frame_id}': register depth to the image"
        )
    metres = depth_metres(depth)
    if metres.shape != (height, width):
        raise InvalidMessage(
            f"depth is {metres.shape[1]}x{metres.shape[0]}, the image {width}x{height} pixels: register depth to the image"
        )
    return metres


def keep_latest(depths: deque[Any], depth: Any) -> None:
    """Add a depth image that has come, and drop others: one of the same stamp, which is older; all of them where stamps jumped
    back; the oldest ones until those that are kept have `MOST_BYTES` at most.
    """
    if not unstamped(depth.header) and _jumped_back(depths, depth):
        depths.clear()
    others = [each for each in depths if seconds_apart(each.header.stamp, depth.header.stamp)]
    if len(others) < len(depths):
        depths.clear()
        depths.extend(others)
    depths.append(depth)
    while len(depths) > 1 and sum(len(each.data) for each in depths) > MOST_BYTES:
        depths.popleft()


class MasksWithDepth:
    """LayeredMasks messages, each with the depth image (sensor_msgs/Image) of its moment once both have come.

    Masks are later than the depth of their moment by an inference, so depth images are kept, the latest `MOST_BYTES`. The nearest
    counts, within `MAX_SKEW`; it is known once one of the masks' own stamp or of a later one is there. Where stamps jump back, as
    when a bag begins anew, what is of before is forgotten.

    Args:
        left_out: hears in a line of masks that no depth image fits.
    """

    def __init__(self, left_out: Callable[[str], object]):
        self._left_out = left_out
        self._masks: deque[Any] = deque()
        self._depths: deque[Any] = deque()
        self._unstamped = False  # whether a depth image was

    @property
    def waiting(self) -> bool:
        """Whether masks wait for their depth image."""
        return bool(self._masks)

    @property
    def depths(self) -> int:
        """How many depth images are kept."""
        return len(self._depths)

    def add_masks(self, masks: Any) -> None:
        """A message that has come; one without a stamp is left out."""
        if unstamped(masks.header):
            self._left_out("masks without a stamp are left out: nothing tells of which moment they are. Let the driver set it")
            return
        if _jumped_back(self._masks, masks):
            self._leave_out(len(self._masks), "stamps jumped back")
        self._masks.append(masks)
        if len(self._masks) > MOST_MASKS:
            self._leave_out(1, f"{MOST_MASKS} others wait for their depth images")

    def add_depth(self, depth: Any) -> None:
        """An image that has come; one without a stamp is left out, which is told the first time."""
        if unstamped(depth.header):
            if not self._unstamped:
                self._left_out("depth images without a stamp are left out: nothing tells of which moment. Let the driver set it")
            self._unstamped = True
            return
        keep_latest(self._depths, depth)

    def take(self) -> tuple[Any, Any] | None:
        """The oldest masks, and their depth image; None where there are none, or it may come yet."""
        while self._masks:
            stamp = self._masks[0].header.stamp
            apart = [seconds_apart(depth.header.stamp, stamp) for depth in self._depths]
            if not any(later >= 0 for later in apart):
                return None
            nearest = min(range(len(apart)), key=lambda k: abs(apart[k]))
            if abs(apart[nearest]) <= MAX_SKEW:
                return self._masks.popleft(), self._depths[nearest]
            why = f"of {len(apart)} depth images the nearest is {abs(apart[nearest]):.3g} s away, more than {MAX_SKEW:g}"
            if min(apart) > 0 and sum(len(depth.data) for depth in self._depths) > MOST_BYTES / 2:
                why += f"; of earlier ones {MOST_BYTES // 2**20} MB at most are kept: publish smaller ones, or fewer a second"
            self._leave_out(1, why)
        return None

    def _leave_out(self, count: int, why: str) -> None:
        """The oldest so many masks."""
        stamp = self._masks[0].header.stamp
        more = f" and {count - 1} more" if count > 1 else ""
        for _ in range(count):
            self._masks.popleft()
        self._left_out(f"masks of {stamp.sec}.{stamp.nanosec:09d}{more} are left out: {why}")


def _jumped_back(kept: Sequence[Any], message: Any) -> bool:
    """Whether a message is of before the last of those that are kept, by more than `MAX_SKEW`."""
    return bool(kept) and seconds_apart(message.header.stamp, kept[-1].header.stamp) < -MAX_SKEW


def seconds_apart(stamp: Any, other: Any) -> float:
    """How much later a builtin_interfaces/Time is than another one, seconds."""
    return float(stamp.sec - other.sec + (stamp.nanosec - other.nanosec) / 1e9)


def pinhole(info: Any, width: int, height: int) -> Pinhole:
    """(fx, fy, cx, cy) in pixels, of a sensor_msgs/CameraInfo for rectified images of this size.

    They come from P, as in depth_image_proc; from K where the driver leaves P empty. Lens distortion is not undone. Where the
    image is a binned one, or a region of the camera's, they are reduced to it as by image_geometry, unless the driver did so.

    Raises:
        InvalidMessage: it is of another size, or not calibrated.
    """
    left, top, by_x, by_y = 0, 0, 1, 1
    size = info.width, info.height
    if size != (width, height):  # the message's size and matrices are then those of the whole sensor
        left, top, by_x, by_y = info.roi.x_offset, info.roi.y_offset, max(info.binning_x, 1), max(info.binning_y, 1)
        size = (info.roi.width or info.width) // by_x, (info.roi.height or info.height) // by_y
    if size != (width, height):
        raise InvalidMessage(f"camera_info is of {size[0]}x{size[1]}, the image of {width}x{height} pixels")
    matrix, columns = (info.p, 4) if info.p[0] > 0 else (info.k, 3)
    fx, cx, fy, cy = (float(matrix[index]) for index in (0, 2, columns + 1, columns + 2))
    camera = fx / by_x, fy / by_y, (cx - left) / by_x, (cy - top) / by_y
    if not all(map(math.isfinite, camera)) or camera[0] <= 0 or camera[1] <= 0:
        raise InvalidMessage("camera_info has no focal length: calibrate the camera")
    return camera


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
    height, width = label.shape
    at = np.flatnonzero((label > 0) & ~np.isnan(depth))  # one flat index is faster than two, and than three channels at once
    v, u = np.divmod(at.astype(np.int32), np.int32(width))
    z = depth.ravel()[at]
    with np.errstate(over="ignore", invalid="ignore"):  # a senseless depth or focal length may be finite all the same
        x = (((np.arange(width) - cx) / fx)[u] * z).astype(np.float32)
        y = (((np.arange(height) - cy) / fy)[v] * z).astype(np.float32)
    finite = np.isfinite(x) & np.isfinite(y) & np.isfinite(z)
    at, x, y, z = at[finite], x[finite], y[finite], z[finite]
    points = np.zeros(len(at), POINT)
    points["xyz"][:, 0], points["xyz"][:, 1], points["xyz"][:, 2] = x, y, z
    red, green, blue = (image[..., channel].ravel()[at].astype(np.uint32) for channel in range(3))
    points["rgb"] = red << 16 | green << 8 | blue
    points["object"] = label.ravel()[at]
    layers = np.array([0, *(obj.layer for obj in scene.objects)], np.uint16)  # ids run from 1
    points["layer"] = layers[points["object"]]
    cloud.height, cloud.width = 1, len(points)
    cloud.fields = [field(name=name, offset=offset, datatype=kind, count=1) for name, offset, kind in FIELDS]
    cloud.is_bigendian = False
    cloud.point_step, cloud.row_step = POINT.itemsize, points.nbytes
    cloud.is_dense = True
    cloud.data = byte_array(points)
    return cloud
