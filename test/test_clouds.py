# SPDX-License-Identifier: Apache-2.0
"""Depth images to metres, scenes to clouds: each point is where the pinhole model puts its pixel."""

from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

import seqamodal_ros.clouds
from seqamodal_ros.clouds import POINT, MasksWithDepth, depth_metres, pinhole, scene_cloud
from seqamodal_ros.messages import InvalidMessage
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.scene import LayeredScene

WIDTH, HEIGHT = 64, 48


def depth_message(values: np.ndarray, encoding: str, bigendian: bool = False) -> SimpleNamespace:
    data = values.astype(values.dtype.newbyteorder(">" if bigendian else "<")).tobytes()
    return SimpleNamespace(
        width=values.shape[1],
        height=values.shape[0],
        encoding=encoding,
        step=values.strides[0],
        data=data,
        is_bigendian=bigendian,
    )


@pytest.mark.parametrize("bigendian", [False, True])
def test_both_encodings_give_metres_and_nan_where_nothing_was_measured(bigendian):
    millimetres = np.array([[0, 1, 1500], [65535, 20, 0]], np.uint16)
    expected = np.array([[np.nan, 0.001, 1.5], [65.535, 0.02, np.nan]], np.float32)
    np.testing.assert_allclose(depth_metres(depth_message(millimetres, "16UC1", bigendian)), expected)
    metres = np.array([[np.nan, np.inf, 1.5], [-np.inf, 0.0, -2.0]], np.float32)
    expected = np.array([[np.nan, np.nan, 1.5], [np.nan, np.nan, np.nan]], np.float32)
    np.testing.assert_allclose(depth_metres(depth_message(metres, "32FC1", bigendian)), expected)


def test_other_encodings_are_refused():
    with pytest.raises(InvalidMessage, match="32FC1"):
        depth_metres(depth_message(np.zeros((2, 3), np.uint8), "mono8"))


def stamped(seconds: float, size: int = 0) -> SimpleNamespace:
    sec, nanosec = divmod(round(seconds * 1e9), 10**9)
    return SimpleNamespace(header=SimpleNamespace(stamp=SimpleNamespace(sec=sec, nanosec=nanosec)), data=bytes(size))


class TestMasksWithDepth:
    @pytest.fixture(autouse=True)
    def _pairs(self):
        self.told: list[str] = []
        self.pairs = MasksWithDepth(self.told.append)

    def add(self, masks: tuple[float, ...] = (), depths: tuple[float, ...] = (), size: int = 0) -> list[SimpleNamespace]:
        """Stamps of masks and depth images that come; the latter."""
        for seconds in masks:
            self.pairs.add_masks(stamped(seconds))
        images = [stamped(seconds, size) for seconds in depths]
        for each in images:
            self.pairs.add_depth(each)
        return images

    def taken(self) -> tuple[float, float] | None:
        """The stamps of a pair."""
        pair = self.pairs.take()
        return pair and tuple(each.header.stamp.sec + each.header.stamp.nanosec / 1e9 for each in pair)

    def test_the_nearest_of_before_and_after(self):
        self.add(masks=(10, 10.04), depths=(9.97, 10.04))
        assert [self.taken(), self.taken(), self.taken()] == [(10, 9.97), (10.04, 10.04), None]
        assert not self.told and not self.pairs.waiting

    def test_while_a_nearer_one_may_come_there_is_none(self):
        """At 30 Hz the image before is near enough, too, and of another moment."""
        self.add(masks=(10,), depths=(9.93, 9.967))
        assert self.taken() is None and self.pairs.waiting
        self.add(depths=(10,))
        assert self.taken() == (10, 10)

    def test_masks_that_no_depth_fits_are_told_of(self):
        self.add(masks=(10, 11), depths=(9.9, 11))
        assert self.taken() == (11, 11)
        (told,) = self.told
        assert told == "masks of 10.000000000 are left out: of 2 depth images the nearest is 0.1 s away, more than 0.05"

    def test_masks_without_a_stamp_are_of_no_depth_image_s_moment(self):
        """All are as near as each other: what lay there a while ago would be taken for what lies there now."""
        self.add(masks=(10, 0), depths=(9.99, 0, 0))
        assert self.pairs.waiting and self.taken() is None  # what has a stamp is kept
        assert [told.partition(" are left out")[0] for told in self.told] == [
            "masks without a stamp",
            "depth images without a stamp",
        ]
        self.add(depths=(10,))
        assert self.taken() == (10, 10)

    def test_where_stamps_jump_back_all_begins_anew(self):
        self.add(masks=(100, 100.2), depths=(99,))
        self.add(masks=(100.18,))  # a little out of order
        assert not self.told
        self.add(masks=(1,))
        assert self.told == ["masks of 100.000000000 and 2 more are left out: stamps jumped back"]
        self.add(depths=(98.98, 1))
        assert self.pairs.depths == 1 and self.taken() == (1, 1)

    def test_depth_that_comes_a_little_out_of_order_is_kept(self):
        self.add(masks=(1.066,), depths=(1, 1.066, 1.033, 1.1))
        assert self.taken() == (1.066, 1.066) and self.pairs.depths == 4

    @pytest.mark.parametrize("before", [(1,), (1, 1.03), (1, 1.1)])
    def test_where_stamps_come_again_the_newer_depth_counts(self, before):
        """A simulation that is reset to the same time, or paused while things are moved."""
        old = self.add(depths=before)
        (new,) = self.add(depths=(1,), masks=(1,))
        _, depth = self.pairs.take()
        assert depth is new and depth is not old[0]

    def test_masks_do_not_wait_in_any_number(self, monkeypatch):
        monkeypatch.setattr(seqamodal_ros.clouds, "MOST_MASKS", 3)
        self.add(masks=(1, 2, 3, 4))
        assert self.told == ["masks of 1.000000000 are left out: 3 others wait for their depth images"]

    def test_the_oldest_depths_go_once_they_take_too_much_memory(self, monkeypatch):
        monkeypatch.setattr(seqamodal_ros.clouds, "MOST_BYTES", 100)
        self.add(depths=(1, 2, 3, 4, 5), size=40)
        assert self.pairs.depths == 2
        self.add(masks=(1.5,))
        assert self.taken() is None and "of 2 depth images the nearest is 2.5 s away" in self.told[0]
        assert "of earlier ones 0 MB at most are kept: publish smaller" in self.told[0]
        self.add(depths=(9,), size=1000)
        assert self.pairs.depths == 1  # one is kept, however large


def info(width: int = WIDTH, height: int = HEIGHT, fx: float = 50.0) -> SimpleNamespace:
    roi = SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)
    k = [fx, 0, 31.5, 0, 60.0, 23.5, 0, 0, 1]
    return SimpleNamespace(width=width, height=height, k=k, p=[0.0] * 12, binning_x=0, binning_y=0, roi=roi)


def test_the_camera_must_fit_the_image_and_be_calibrated():
    assert pinhole(info(), WIDTH, HEIGHT) == (50.0, 60.0, 31.5, 23.5)
    rectified = info()
    rectified.p = [51.0, 0, 30.0, 0, 0, 52.0, 22.0, 0, 0, 0, 1, 0]
    assert pinhole(rectified, WIDTH, HEIGHT) == (51.0, 52.0, 30.0, 22.0)
    with pytest.raises(InvalidMessage, match="640x480"):
        pinhole(info(640, 480), WIDTH, HEIGHT)
    for fx in (0.0, float("nan")):
        with pytest.raises(InvalidMessage, match="calibrate"):
            pinhole(info(fx=fx), WIDTH, HEIGHT)


def test_of_a_binned_image_or_a_region_the_camera_is_reduced_to_it_as_by_image_geometry():
    binned = info(4 * WIDTH, 2 * HEIGHT)
    binned.binning_x, binned.binning_y = 4, 2
    assert pinhole(binned, WIDTH, HEIGHT) == (12.5, 30.0, 31.5 / 4, 23.5 / 2)
    binned.roi = SimpleNamespace(x_offset=8, y_offset=6, width=2 * WIDTH, height=HEIGHT)
    assert pinhole(binned, WIDTH // 2, HEIGHT // 2) == (12.5, 30.0, 23.5 / 4, 17.5 / 2)
    binned.p = [48.0, 0, 40.0, 0, 0, 52.0, 22.0, 0, 0, 0, 1, 0]
    assert pinhole(binned, WIDTH // 2, HEIGHT // 2) == (12.0, 26.0, 8.0, 8.0)
    reduced_by_the_driver = info()
    reduced_by_the_driver.binning_x = reduced_by_the_driver.binning_y = 2
    assert pinhole(reduced_by_the_driver, WIDTH, HEIGHT) == pinhole(info(), WIDTH, HEIGHT)
    with pytest.raises(InvalidMessage, match=f"camera_info is of {WIDTH // 2}x{HEIGHT // 2}, the image of {WIDTH}x{HEIGHT}"):
        pinhole(binned, WIDTH, HEIGHT)


@pytest.fixture
def scene() -> LayeredScene:
    """Two layers: a square, and behind it another whose left half is hidden."""
    amodal = np.zeros((2, 64, 64), bool)
    amodal[0, 20:40, 10:30] = True
    amodal[1, 20:40, 20:40] = True
    probability = amodal.astype(np.float32)
    return LayeredScene.assemble(amodal, probability, amodal[:, None], Geometry.letterbox(WIDTH, HEIGHT))


@pytest.mark.parametrize(
    "geometry",
    [
        Geometry.letterbox(WIDTH, HEIGHT),
        Geometry.letterbox(48, 64),
        Geometry.letterbox(101, 57),
        Geometry.letterbox(57, 101),
        Geometry.centre_crop(WIDTH, HEIGHT),
        Geometry.centre_crop(57, 101),
        Geometry.region(WIDTH, HEIGHT, 20, 8, 40, 30),
        Geometry.region(101, 57, 33, 5, 21, 51),
    ],
    ids=["landscape", "portrait", "odd", "odd_portrait", "crop", "odd_crop", "region", "odd_region"],
)
def test_each_visible_pixel_with_a_depth_becomes_a_point(scene, geometry):
    """Back through the camera, and from there through the message's affine into the mask that it is of."""
    width, height = geometry.width, geometry.height
    scene = replace(scene, geometry=geometry)
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (height, width, 3), dtype=np.uint8)
    depth = rng.uniform(0.5, 2, (height, width)).astype(np.float32)
    depth[::3] = np.nan
    label = scene.label()
    cloud = scene_cloud(scene, label, image, depth, (50.0, 60.0, 31.5, 23.5), SimpleNamespace(), SimpleNamespace)
    assert (cloud.height, cloud.point_step, cloud.row_step) == (1, 20, 20 * cloud.width)
    assert [(f.name, f.offset, f.datatype, f.count) for f in cloud.fields] == [
        ("x", 0, 7, 1), ("y", 4, 7, 1), ("z", 8, 7, 1), ("rgb", 12, 7, 1), ("object", 16, 4, 1), ("layer", 18, 4, 1),
    ]  # fmt: skip
    points = np.frombuffer(cloud.data, POINT)
    v, u = np.nonzero((label > 0) & np.isfinite(depth))
    assert len(points) == cloud.width == len(v) > 30
    assert {1, 2} == set(points["object"]) and {1, 2} == set(points["layer"])
    np.testing.assert_array_equal(points["object"], label[v, u])
    x, y, z = points["xyz"].T
    columns, rows = x / z * 50.0 + 31.5, y / z * 60.0 + 23.5
    np.testing.assert_allclose(columns, u, atol=1e-3)
    np.testing.assert_allclose(rows, v, atol=1e-3)
    np.testing.assert_array_equal(z, depth[v, u])
    colours = np.stack([points["rgb"] >> 16, points["rgb"] >> 8 & 255, points["rgb"] & 255], 1)
    np.testing.assert_array_equal(colours, image[v, u])
    scale_x, scale_y, offset_x, offset_y = geometry.affine(64)
    of_mask = [((rows + 0.5 - offset_y) / scale_y).astype(int), ((columns + 0.5 - offset_x) / scale_x).astype(int)]
    near = [cv2.dilate(obj.visible.astype(np.uint8), np.ones((3, 3), np.uint8)) for obj in scene.objects]  # half a pixel at rims
    assert all(near[number - 1][row, column] for number, row, column in zip(points["object"], *of_mask, strict=True))


def test_a_scene_without_objects_is_an_empty_cloud(scene):
    empty = np.zeros((0, 64, 64), bool)
    nothing = LayeredScene.assemble(empty, empty.astype(np.float32), empty[:, None], scene.geometry)
    image, depth = np.zeros((HEIGHT, WIDTH, 3), np.uint8), np.ones((HEIGHT, WIDTH), np.float32)
    cloud = scene_cloud(nothing, nothing.label(), image, depth, (50.0, 60.0, 31.5, 23.5), SimpleNamespace(), SimpleNamespace)
    assert (cloud.width, len(cloud.data)) == (0, 0)


def test_sensor_msgs_py_reads_the_cloud(scene):
    point_cloud2 = pytest.importorskip("sensor_msgs_py.point_cloud2", reason="needs sensor_msgs_py, which comes with a ROS")
    from sensor_msgs.msg import PointCloud2, PointField

    image, depth = np.full((HEIGHT, WIDTH, 3), 9, np.uint8), np.ones((HEIGHT, WIDTH), np.float32)
    cloud = scene_cloud(scene, scene.label(), image, depth, (50.0, 60.0, 31.5, 23.5), PointCloud2(), PointField)
    read = point_cloud2.read_points(cloud, field_names=["x", "z", "object"])
    assert len(read) == cloud.width
    assert set(read["object"]) == {1, 2}
