# SPDX-License-Identifier: Apache-2.0
"""What the examples make of a message, without ROS and without the tools that they make it for."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from seqamodal_ros.messages import InvalidMessage, MessageTypes, fill_image, image_array, scene_to_message
from seqamodal_ros.scene.geometry import Geometry

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
HEADER = SimpleNamespace(frame_id="camera", stamp=SimpleNamespace(sec=3, nanosec=5))
TYPES = MessageTypes(*[SimpleNamespace] * 6)
WIDTH, HEIGHT = 128, 96  # masks of 32x32 are letterboxed: 4 source pixels each, 16 above the image


def example(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


to_moveit_pro = example("to_moveit_pro")
to_contact_graspnet = example("to_contact_graspnet")


@pytest.fixture
def scene(make_scene, rectangles):
    """Objects 1 and 2 in front, 3 under both; 2 is the surer one."""
    amodal = np.concatenate([rectangles((2, 6, 10, 14)) | rectangles((20, 6, 28, 14)), rectangles((8, 10, 22, 20))])
    probability = np.where(amodal, 0.7, 0.1).astype(np.float32)
    probability[0, 6:14, 20:28] = 0.95
    return make_scene(amodal, WIDTH, HEIGHT, probability=probability)


@pytest.fixture
def masks(scene):
    return scene_to_message(scene, HEADER, "test", TYPES)


def depth_image(values: np.ndarray, encoding: str = "16UC1") -> SimpleNamespace:
    return fill_image(SimpleNamespace(), values, encoding, HEADER)


def info(width: int = WIDTH, height: int = HEIGHT) -> SimpleNamespace:
    whole = {"binning_x": 0, "binning_y": 0, "roi": SimpleNamespace(x_offset=0, y_offset=0, width=0, height=0)}
    matrices = {"k": [90.0, 0, 63.5, 0, 91.0, 47.5, 0, 0, 1], "p": [0.0] * 12}
    return SimpleNamespace(header=HEADER, width=width, height=height, **matrices, **whole)


class TestToMoveItPro:
    def test_the_surest_free_object_cropped_from_the_source(self, masks, scene):
        pick = to_moveit_pro.first_pick_mask(masks, SimpleNamespace())
        assert pick.id == 2
        assert pick.pixels.encoding == "mono8"
        assert pick.pixels.header is HEADER
        crop = image_array(pick.pixels)
        assert set(np.unique(crop)) <= {0, 255}
        assert crop[0].any() and crop[-1].any() and crop[:, 0].any() and crop[:, -1].any()
        whole = np.zeros((HEIGHT, WIDTH), bool)
        whole[pick.y : pick.y + crop.shape[0], pick.x : pick.x + crop.shape[1]] = crop > 0
        np.testing.assert_array_equal(whole, scene.to_source(scene.objects[1].visible))
        assert (pick.x, pick.y) == (80, 8)  # 20 * 4, 6 * 4 - 16

    def test_messages_of_another_camera(self, masks):
        other = SimpleNamespace(frame_id="elsewhere", stamp=HEADER.stamp)
        depth, camera_info = depth_image(np.ones((HEIGHT, WIDTH), np.uint16)), info()
        camera_info.header = other
        with pytest.raises(InvalidMessage, match="remap camera_info to that of the image's camera"):
            to_contact_graspnet.grasp_input(masks, depth, camera_info)
        depth.header = other
        with pytest.raises(InvalidMessage, match="register depth to the image"):
            to_contact_graspnet.grasp_input(masks, depth, info())

    def test_nothing_to_pick(self, make_scene):
        empty = scene_to_message(make_scene(np.zeros((0, 32, 32))), HEADER, "test", TYPES)
        assert to_moveit_pro.first_pick_mask(empty, SimpleNamespace()) is None

    def test_the_surest_is_picked_and_what_lies_deeper_is_left(self, masks):
        masks.objects[1].score = 0.2
        assert to_moveit_pro.first_pick_mask(masks, SimpleNamespace()).id == 1
        masks.objects[0].layer = 2
        assert to_moveit_pro.first_pick_mask(masks, SimpleNamespace()) is None  # the other one is not sure enough
        masks.objects[1].score = 0.7
        assert to_moveit_pro.first_pick_mask(masks, SimpleNamespace()).id == 2
        assert to_moveit_pro.first_pick_mask(masks, SimpleNamespace(), min_score=0.9) is None

    def test_what_falls_between_source_pixels_is_left(self, make_scene, rectangles):
        amodal = rectangles((0, 0, 2, 6)) | rectangles((8, 8, 24, 24))
        small = make_scene(amodal, geometry=Geometry.letterbox(4, 4), probability=np.where(amodal, 0.9, 0).astype(np.float32))
        assert not small.to_source(small.objects[0].visible).any()
        assert to_moveit_pro.first_pick_mask(scene_to_message(small, HEADER, "test", TYPES), SimpleNamespace()).id == 2


class TestToContactGraspNet:
    def test_depth_in_metres_camera_matrix_and_the_target(self, masks, scene, tmp_path):
        millimetres = np.full((HEIGHT, WIDTH), 1250, np.uint16)
        millimetres[:5] = 0
        found = to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info())
        np.savez(tmp_path / "pick.npz", **found)
        data = np.load(tmp_path / "pick.npz")  # as inference.py does
        assert sorted(data.files) == ["K", "depth", "segmap"]
        depth, matrix, segmap = data["depth"], data["K"], data["segmap"]
        assert (depth.dtype, depth.shape) == (np.float32, (HEIGHT, WIDTH))
        assert not depth[:5].any() and (depth[5:] == 1.25).all()
        assert matrix.dtype == np.float64
        assert matrix.tolist() == [[90, 0, 63.5], [0, 91, 47.5], [0, 0, 1]]
        assert np.unique(segmap).tolist() == [0, 2]
        np.testing.assert_array_equal(segmap == 2, scene.to_source(scene.objects[1].visible))

    def test_a_target_of_ones_own(self, masks, scene):
        metres = depth_image(np.ones((HEIGHT, WIDTH), np.float32), "32FC1")
        found = to_contact_graspnet.grasp_input(masks, metres, info(), target=3)
        np.testing.assert_array_equal(found["segmap"], np.where(scene.label() == 3, 3, 0))
        for nothing in (9, 0, -1):
            with pytest.raises(ValueError, match=f"object {nothing}"):
                to_contact_graspnet.grasp_input(masks, metres, info(), target=nothing)

    def test_a_score_of_ones_own(self, masks):
        depth = depth_image(np.ones((HEIGHT, WIDTH), np.uint16))
        assert to_contact_graspnet.grasp_input(masks, depth, info(), min_score=0.9)["segmap"].max() == 2
        with pytest.raises(ValueError, match="nothing that can be picked now scores"):
            to_contact_graspnet.grasp_input(masks, depth, info(), min_score=0.99)

    def test_what_something_nearer_cuts_off_is_left(self, masks, scene):
        """Object 2 is the surer one, until a wall rises 4 cm over it on its right."""
        millimetres = np.full((HEIGHT, WIDTH), 1000, np.uint16)
        millimetres[:, 4 * 28 :] = 960
        assert to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info())["segmap"].max() == 1
        assert to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info(), target=2)["segmap"].max() == 2
        with pytest.raises(ValueError, match="by depth, something nearer lies at the edge of each object that could be picked"):
            to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info(), min_score=0.9)

    def test_what_no_depth_came_of_is_left(self, masks, scene):
        """Object 2 is the surer one, and of glass, of which a speckle of depth comes."""
        seen = scene.label() == 2
        millimetres = np.where(seen, 0, 1000).astype(np.uint16)
        millimetres[tuple(np.argwhere(seen)[0])] = 1000
        assert to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info())["segmap"].max() == 1
        with pytest.raises(ValueError, match="no object that could be picked has depth in 20% of its visible pixels"):
            to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info(), min_score=0.9)
        with pytest.raises(ValueError, match=r"object 2 has depth in 0.\d% of its visible pixels, less than 20%"):
            to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info(), target=2)
        rows, columns = np.nonzero(seen)
        quarter = slice(None, len(rows) // 4)
        millimetres[rows[quarter], columns[quarter]] = 1000
        assert to_contact_graspnet.grasp_input(masks, depth_image(millimetres), info(), target=2)["segmap"].max() == 2

    def test_messages_that_do_not_fit(self, masks):
        depth = depth_image(np.ones((HEIGHT, WIDTH), np.uint16))
        with pytest.raises(InvalidMessage, match="camera_info"):
            to_contact_graspnet.grasp_input(masks, depth, info(640, 480))
        with pytest.raises(InvalidMessage, match="depth is 10x20"):
            to_contact_graspnet.grasp_input(masks, depth_image(np.ones((20, 10), np.uint16)), info())

    def test_nothing_to_pick(self, make_scene):
        empty = scene_to_message(make_scene(np.zeros((0, 32, 32)), WIDTH, HEIGHT), HEADER, "test", TYPES)
        with pytest.raises(ValueError, match="nothing that can be picked now scores"):
            to_contact_graspnet.grasp_input(empty, depth_image(np.ones((HEIGHT, WIDTH), np.uint16)), info())


def test_a_bag_gives_a_picture_of_each_image_that_has_masks(tmp_path, scene, monkeypatch, capsys):
    """Of three images, two with masks, which come a hundred images later; what is on another topic is left alone."""
    rosbag2 = pytest.importorskip("rosbags.rosbag2", reason="needs rosbags: pip install -r requirements/demo.txt")
    import cv2

    from seqamodal_ros.bags.codec import IMAGE, LAYERED_MASKS, Codec
    from seqamodal_ros.scene.pictures import overlay

    codec, image = Codec(), np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    kinds = codec.store.types
    with rosbag2.Writer(tmp_path / "bag", version=9) as writer:
        topics = [("/a", IMAGE), ("/b", IMAGE), ("/c", IMAGE), ("/masks", LAYERED_MASKS), ("/again", LAYERED_MASKS)]
        headers = {}
        a, b, c, masks, again = (writer.add_connection(*each, typestore=codec.store) for each in topics)
        for second in (1, 2, 3, *range(10, 110)):
            header = kinds["std_msgs/msg/Header"](kinds["builtin_interfaces/msg/Time"](second, 7), "camera")
            data = kinds[IMAGE](header, HEIGHT, WIDTH, "rgb8", 0, 3 * WIDTH, (image + second).reshape(-1))
            for topic in (a, b):
                writer.write(topic, second, codec.store.serialize_cdr(data, IMAGE))
            headers[second] = header
        for second in (1, 3):
            writer.write(masks, 200, codec.masks(scene, headers[second], "model", True))
        writer.write(again, 201, codec.masks(scene, headers[2], "model", True))
        small = kinds[IMAGE](headers[1], 2, 2, "rgb8", 0, 6, np.zeros(12, np.uint8))
        writer.write(c, 1, codec.store.serialize_cdr(small, IMAGE))
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["pictures_of_a_bag", str(tmp_path / "bag"), "--out", str(out)])
    with pytest.raises(SystemExit, match="^--image: .* name one: /a "):
        example("pictures_of_a_bag").main()
    monkeypatch.setattr("sys.argv", ["pictures_of_a_bag", str(tmp_path / "gone"), "--out", str(out)])
    with pytest.raises(SystemExit, match="no such bag: "):
        example("pictures_of_a_bag").main()
    monkeypatch.setattr("sys.argv", ["pictures_of_a_bag", str(tmp_path / "bag"), "--image", "/b", "--out", str(out)])
    with pytest.raises(SystemExit, match="name one of the topics with masks, --masks TOPIC: /again, /masks"):
        example("pictures_of_a_bag").main()
    sys.argv += ["--masks", "/masks"]
    example("pictures_of_a_bag").main()
    files = [out / "0001_1.000000007.png", out / "0002_3.000000007.png"]
    assert sorted(out.iterdir()) == files
    assert capsys.readouterr().out.split() == [str(each) for each in files]
    for second, file in zip((1, 3), files, strict=True):
        np.testing.assert_array_equal(cv2.imread(str(file))[..., ::-1], overlay(image + np.uint8(second), scene))
    monkeypatch.setattr(
        "sys.argv", ["pictures_of_a_bag", str(tmp_path / "bag"), "--image", "/c", "--out", str(out), "--masks", "/masks"]
    )
    with pytest.raises(SystemExit, match="no image of that topic has masks"):
        example("pictures_of_a_bag").main()
    assert "left out, 1.000000007: " in capsys.readouterr().err  # the masks are of an image of another size
    monkeypatch.setattr("sys.argv", ["pictures_of_a_bag", str(tmp_path / "bag"), "--image", "/a", "--out", str(out)])
    nothing = example("pictures_of_a_bag")
    monkeypatch.setattr(nothing, "LAYERED_MASKS", "none")
    with pytest.raises(SystemExit, match="no image of that topic has masks"):
        nothing.main()
