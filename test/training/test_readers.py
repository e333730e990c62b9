# SPDX-License-Identifier: Apache-2.0
"""Readers of datasets: every form a mask is written in, every hint of what lies in front, every reason to drop an image."""

import json
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco

import training.prepare
from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.layers import layer_indices
from training.data.packed import PackedScenes
from training.data.readers.annotated import Annotated, occluders
from training.data.readers.coco import PRESETS, KeyMap, read_coco
from training.data.readers.masks import read_mask
from training.data.readers.paper_sets import PAPER_SETS
from training.data.readers.prepared import read_prepared
from training.data.readers.processing import Processing, processed
from training.data.samples import letterboxed
from training.data.scene import Rejected

H, W = 60, 80


def square(top, left, side=20, height=H, width=W) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


FRONT, BACK, DEEP = square(5, 5), square(15, 15), square(25, 25)
AMODAL = np.array([BACK, FRONT, DEEP])  # in no order
VISIBLE = np.array([BACK & ~FRONT, FRONT, DEEP & ~BACK])
IMAGE = np.dstack([np.where(FRONT, 200, 40), np.where(BACK, 200, 40), np.where(DEEP, 200, 40)]).astype(np.uint8)
Z = np.array([[0, 1, 0], [0, 0, 0], [1, 0, 0]], bool)


def rle(mask: np.ndarray, plain: bool = False) -> dict:
    if plain:
        column = np.concatenate([[0], mask.ravel(order="F"), [2]])
        edges = np.flatnonzero(np.diff(column.astype(int)) != 0)
        counts = np.diff(np.concatenate([[0], edges])).tolist()
        return {"size": list(mask.shape), "counts": counts}
    encoded = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": encoded["size"], "counts": encoded["counts"].decode()}


class TestMasks:
    def test_every_way_of_writing_gives_the_same_mask(self, tmp_path):
        cv2.imwrite(str(tmp_path / "mask.png"), FRONT * np.uint8(255))
        polygon = [5, 5, 25, 5, 25, 25, 5, 25]
        for written in (polygon, [polygon], rle(FRONT), rle(FRONT, plain=True), "mask.png"):
            assert (read_mask(written, H, W, tmp_path) == FRONT).all(), written

    def test_polygons_of_one_mask_are_joined(self, tmp_path):
        one, other = [5, 5, 25, 5, 25, 25, 5, 25], [45, 5, 65, 5, 65, 25, 45, 25]
        assert (read_mask([one, other], H, W, tmp_path) == FRONT | square(5, 45)).all()

    @pytest.mark.parametrize(
        ("written", "reason"),
        [
            ([], "empty polygon"),
            ([[1, 2, 3, 4]], "empty polygon"),
            ([100, 100, 120, 100, 120, 120], "mask outside the image"),
            ([5, 5, 25, 5, 25, float("nan")], "mask outside the image"),  # would take all memory
            ([5, 5, 1e9, 5, 25, 25], "mask outside the image"),  # likewise
            ([5, 5, "a", 5, 25, 25], "polygon of something else than numbers"),
            ({"size": [10**9, 10**9], "counts": "0"}, "mask of another size"),
            ({"size": [H, W], "counts": ["a", "b"]}, "run lengths that are no numbers"),
            ({"size": [H, W], "counts": [-5, H * W + 5]}, "run lengths that are no numbers"),
            (rle(np.zeros((H, W), bool)), "empty mask"),
            (rle(np.ones((H, W + 1), bool)), "mask of another size"),
            ("absent.png", "missing mask file"),
            ({"size": [H, W], "counts": [10, 20]}, "run lengths that do not cover the image"),
        ],
    )
    def test_masks_that_cannot_be_used_say_why(self, tmp_path, written, reason):
        with pytest.raises(Rejected, match=reason):
            read_mask(written, H, W, tmp_path)

    @pytest.mark.parametrize("written", [7, {"counts": [1, 2]}, None])
    def test_what_is_no_mask_is_an_error(self, tmp_path, written):
        with pytest.raises(ValueError, match="a mask is a polygon, run lengths or the name of a PNG, not"):
            read_mask(written, H, W, tmp_path)

    def test_alpha_is_no_mask(self, tmp_path):
        cv2.imwrite(str(tmp_path / "mask.png"), np.dstack([FRONT * np.uint8(255)] * 3 + [np.full((H, W), 255, np.uint8)]))
        assert (read_mask("mask.png", H, W, tmp_path) == FRONT).all()


class TestOccluders:
    @pytest.mark.parametrize(
        "hints",
        [{"visible": VISIBLE}, {"order": np.array([5, 1, 9])}, {"layers": np.array([2, 1, 3])}],
        ids=lambda hints: next(iter(hints)),
    )
    def test_every_hint_gives_the_same_occluders(self, hints):
        assert (occluders(Annotated(IMAGE, AMODAL, **hints)) == Z).all()

    def test_layers_that_share_no_pixel_with_the_one_before_get_its_nearest_object(self):
        """Eq. 2 gives the stored layers back."""
        apart = np.array([square(0, 0), square(0, 60), square(30, 5)])
        occluded_by = occluders(Annotated(IMAGE, apart, layers=np.array([1, 1, 2])))
        assert occluded_by.tolist() == [[False] * 3, [False] * 3, [True, False, False]]
        assert layer_indices(occluded_by).tolist() == [1, 1, 2]

    def test_without_a_hint_it_is_refused(self):
        with pytest.raises(ValueError, match="give layers, an order or visible masks"):
            Annotated(IMAGE, AMODAL)

    def test_a_layer_that_is_missing(self):
        with pytest.raises(Rejected, match="a layer is missing"):
            occluders(Annotated(IMAGE, AMODAL, layers=np.array([1, 1, 3])))


class TestProcessing:
    def test_objects_come_nearest_first_and_small(self):
        scene = processed(Annotated(IMAGE, AMODAL, VISIBLE), Processing(image_size=64))
        assert scene.image.shape == (64, 64, 3)
        assert layer_indices(scene.occluded_by).tolist() == [1, 2, 3]
        assert (scene.amodal[0] == letterboxed(FRONT, 64)).all()

    def test_the_square_is_the_one_that_keeps_more_objects(self):
        """Three objects at the left, one that the middle alone would keep."""
        left = np.array([square(0, 0, 8), square(20, 0, 8), square(40, 30, 8)])  # the middle has one of these, the left all
        assert len(processed(Annotated(IMAGE, left, order=np.arange(3)), Processing(crop=True)).amodal) == 3
        middle = np.array([square(0, 61, 8), square(20, 61, 8), square(40, 30, 8)])  # columns 60 to 69 are the middle's alone
        assert len(processed(Annotated(IMAGE, middle, order=np.arange(3)), Processing(crop=True)).amodal) == 3

    @pytest.mark.parametrize("hints", [{"layers": np.array([2, 1, 1, 1])}, {"order": np.array([2, 1, 0, 0])}])
    def test_what_was_cut_away_occludes_nothing(self, hints):
        """Two objects overlap where the picture is cut off: both are in front in what is left."""
        amodal = np.array([square(5, 40, 30), square(10, 62, 15), square(40, 0, 8), square(0, 0, 8)])
        scene = processed(Annotated(IMAGE, amodal, **hints), Processing(crop=True))
        assert not scene.occluded_by.any()

    def test_images_are_fitted_into_the_square_as_the_perceiver_does_it(self):
        scene = processed(Annotated(IMAGE, AMODAL, VISIBLE), Processing(image_size=64))
        assert (scene.image[:8] == 128).all()
        assert not scene.amodal[:, :8].any()
        expected = Geometry.letterbox(W, H).to_model(IMAGE, 64)
        assert (scene.image == expected).all()

    def test_a_crowd_is_dropped(self):
        crowd = np.array([square(0, 0)] * 65)
        with pytest.raises(Rejected, match="more than 64 objects"):
            processed(Annotated(IMAGE, crowd, order=np.arange(65)), Processing())

    @pytest.mark.parametrize(
        ("amodal", "hints", "reason"),
        [
            (np.array([FRONT, square(6, 6, 18)]), {"order": np.array([0, 1])}, "fewer than 10 pixels"),
            (AMODAL, {"layers": np.array([2, 1, 3])}, "more than 2 layers"),
        ],
    )
    def test_images_that_break_a_rule_are_dropped(self, amodal, hints, reason):
        with pytest.raises(Rejected, match=reason):
            processed(Annotated(IMAGE, amodal, **hints), Processing(max_layers=2))

    def test_a_cycle_is_dropped(self):
        """Each of three bars covers the next."""
        one, two, three = (np.zeros((H, W), bool) for _ in range(3))
        one[10:20, 5:45], two[10:50, 35:45], three[10:50, 5:15] = True, True, True
        three[40:50, 5:45] = True
        visible = np.array([one & ~two, two & ~three, three & ~one])
        with pytest.raises(Rejected, match="occlusion cycle"):
            processed(Annotated(IMAGE, np.array([one, two, three]), visible), Processing())


def write_coco(folder, keys: KeyMap, name="a.json", files=("0.png", "1.png"), **changes):
    """A file of two images with the three squares each, under the keys of the map."""
    annotations = []
    for number, _ in enumerate(files):
        regions = []
        for k, (amodal, visible) in enumerate(zip(AMODAL, VISIBLE, strict=True)):
            region = {keys.amodal: rle(amodal)}
            if keys.visible and not (amodal == visible).all():
                region[keys.visible] = rle(visible)
            if keys.layer:
                region[keys.layer] = [1, 0, 2][k] + keys.layer_base
            if keys.order:
                region[keys.order] = [2, 1, 3][k]
            regions.append({**region, **changes})
        if keys.regions:
            annotations.append({"image_id": number, keys.regions: regions})
        else:
            annotations += [{"image_id": number, **region} for region in regions]
    for file in files:
        cv2.imwrite(str(folder / file), IMAGE[..., ::-1])
    images = [{"id": number, "file_name": file} for number, file in enumerate(files)]
    (folder / name).write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder / name


class TestCoco:
    @pytest.mark.parametrize("preset", sorted(PRESETS))
    def test_each_preset_reads_what_is_written_with_its_keys(self, tmp_path, preset):
        loads = read_coco(write_coco(tmp_path, PRESETS[preset]), tmp_path, PRESETS[preset])
        assert list(loads) == ["0.png", "1.png"]
        scene = loads["0.png"]()
        assert (scene.image == IMAGE).all()
        assert (scene.amodal == AMODAL).all()
        assert (occluders(scene) == Z).all()

    def test_a_key_that_is_nowhere_lists_those_that_are(self, tmp_path):
        file = write_coco(tmp_path, PRESETS["kins"])
        with pytest.raises(ValueError, match="no annotation has the key 'segmentation'; they have a_segm, i_segm, image_id"):
            read_coco(file, tmp_path, PRESETS["acom"])

    def test_an_empty_visible_mask_is_no_object_in_front(self, tmp_path):
        file = write_coco(tmp_path, PRESETS["kins"], i_segm=[])
        with pytest.raises(Rejected, match="empty polygon"):
            read_coco(file, tmp_path, PRESETS["kins"])["0.png"]()

    def test_an_image_that_is_listed_twice(self, tmp_path):
        with pytest.raises(ValueError, match="lists file_name 0.png more than once: give each image one entry"):
            read_coco(write_coco(tmp_path, PRESETS["kins"], files=("0.png", "0.png")), tmp_path, PRESETS["kins"])

    def test_two_images_of_one_id(self, tmp_path):
        file = write_coco(tmp_path, PRESETS["kins"])
        content = json.loads(file.read_text())
        content["images"][1]["id"] = 0
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match="lists id 0 more than once: give each image one entry"):
            read_coco(file, tmp_path, PRESETS["kins"])

    def test_an_image_of_another_size_than_is_listed_is_dropped(self, tmp_path):
        """Polygons of it would be drawn in the wrong place."""
        file = write_coco(tmp_path, PRESETS["kins"])
        content = json.loads(file.read_text())
        content["images"][0] |= {"width": W, "height": H}
        content["images"][1] |= {"width": W, "height": 2 * H}
        content["images"].append({"id": 7, "file_name": "x.png", "width": None, "height": H})  # not known, so not compared
        file.write_text(json.dumps(content))
        right, wrong, _ = read_coco(file, tmp_path, PRESETS["kins"]).values()
        assert right().amodal.shape == (3, H, W)
        with pytest.raises(Rejected, match="image of another size than its file of annotations says"):
            wrong()

    def test_annotations_of_an_image_that_is_not_listed(self, tmp_path):
        file = write_coco(tmp_path, PRESETS["kins"])
        content = json.loads(file.read_text())
        file.write_text(json.dumps({**content, "images": content["images"][1:]}))
        with pytest.raises(ValueError, match="annotations of 1 images that it does not list, 0 the first"):
            read_coco(file, tmp_path, PRESETS["kins"])

    @pytest.mark.parametrize("key", ["id", "file_name"])
    def test_an_image_that_is_not_described(self, tmp_path, key):
        file = write_coco(tmp_path, PRESETS["kins"])
        content = json.loads(file.read_text())
        del content["images"][0][key]
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=f"an entry lacks the key '{key}'; it has"):
            read_coco(file, tmp_path, PRESETS["kins"])

    def test_an_image_id_that_is_none(self, tmp_path):
        file = write_coco(tmp_path, PRESETS["kins"])
        content = json.loads(file.read_text())
        content["annotations"][0]["image_id"] = [0]
        file.write_text(json.dumps(content))
        with pytest.raises(ValueError, match=r"image_id must be a number or a name, not \[0\]"):
            read_coco(file, tmp_path, PRESETS["kins"])

    def test_layers_that_are_no_numbers_or_begin_elsewhere(self, tmp_path):
        words = read_coco(write_coco(tmp_path, PRESETS["acom"], layer="two"), tmp_path, PRESETS["acom"])
        with pytest.raises(ValueError, match="annotations of .*0.png: 'layer' must be a whole number, not one of .'two'"):
            words["0.png"]()
        from_one = read_coco(write_coco(tmp_path, replace(PRESETS["acom"], layer_base=1)), tmp_path, PRESETS["acom"])
        with pytest.raises(Rejected, match="no object in layer 0, which is to be the first .--key layer_base."):
            from_one["0.png"]()

    def test_a_file_of_another_kind_is_refused(self, tmp_path):
        (tmp_path / "a.json").write_text("[1, 2]")
        with pytest.raises(ValueError, match='is not COCO-style JSON with "images" and "annotations"'):
            read_coco(tmp_path / "a.json", tmp_path, PRESETS["kins"])

    def test_stuff_and_crowds_are_no_objects(self, tmp_path):
        loads = read_coco(write_coco(tmp_path, PRESETS["cocoa"], isStuff=1), tmp_path, PRESETS["cocoa"])
        with pytest.raises(Rejected, match="no object"):
            loads["0.png"]()


def write_folders(folder, name="7"):
    stack = [FRONT, BACK, DEEP, FRONT & False]
    for layer, mask in enumerate(stack):
        (folder / f"{name}_{layer}").mkdir(parents=True)
        cv2.imwrite(str(folder / f"{name}_{layer}" / "image.png"), IMAGE[..., ::-1])
        cv2.imwrite(str(folder / f"{name}_{layer}" / "mask.png"), mask * np.uint8(255))


class TestPrepared:
    def test_layers_are_read_back_and_the_blank_one_left_out(self, tmp_path):
        write_folders(tmp_path)
        scene = read_prepared(tmp_path)["7"]()
        assert (scene.amodal == [FRONT, BACK, DEEP]).all()
        assert layer_indices(occluders(scene)).tolist() == [1, 2, 3]

    def test_parts_of_a_layer_that_do_not_touch_are_objects_and_specks_are_none(self, tmp_path):
        write_folders(tmp_path)
        layer = np.zeros(FRONT.shape, bool)
        height, width = layer.shape
        left, right = layer.copy(), layer.copy()
        left[: height // 2, : width // 4] = right[: height // 2, -width // 4 :] = True
        right[-1, -1] = True  # lies apart
        cv2.imwrite(str(tmp_path / "7_0" / "mask.png"), (left | right) * np.uint8(255))
        scene = read_prepared(tmp_path)["7"]()
        assert scene.layers.tolist() == [1, 1, 2, 3]
        assert (scene.amodal[:2] == [left, right]).all()

    def test_a_disc_and_the_ring_around_it_are_two(self, tmp_path):
        write_folders(tmp_path)
        layer = np.zeros(FRONT.shape, bool)
        side = min(layer.shape)
        ring, disc = layer.copy(), layer.copy()
        ring[: side - 2, : side - 2] = True
        ring[3 : side - 5, 3 : side - 5] = False
        disc[8 : side - 10, 8 : side - 10] = True
        cv2.imwrite(str(tmp_path / "7_0" / "mask.png"), (ring | disc) * np.uint8(255))
        scene = read_prepared(tmp_path)["7"]()
        assert (scene.amodal[:2] == [ring, disc]).all() and scene.layers.tolist() == [1, 1, 2, 3]

    def test_a_layer_that_is_missing_skips_the_image(self, tmp_path):
        write_folders(tmp_path)
        (tmp_path / "7_1").rename(tmp_path / "elsewhere")
        with pytest.raises(Rejected, match="a layer is missing"):
            read_prepared(tmp_path)["7"]()

    def test_a_folder_without_any(self, tmp_path):
        with pytest.raises(ValueError, match="holds no folder named <image>_<layer>"):
            read_prepared(tmp_path)


class TestCommand:
    def run(self, monkeypatch, *words):
        monkeypatch.setattr(sys, "argv", ["prepare", *map(str, words)])
        training.prepare.main()

    def test_coco_packs_each_split_and_tells_what_became_of_it(self, tmp_path, monkeypatch, capsys):
        train = write_coco(tmp_path, PRESETS["acom"])
        (tmp_path / "1.png").unlink()
        test = write_coco(tmp_path, PRESETS["acom"], "b.json", files=("2.png",))
        words = ("--images", tmp_path, "--split", f"train={train}", "--split", f"test={test}", "--out", tmp_path / "sets")
        self.run(monkeypatch, "coco", "--preset", "acom", *words)
        said = capsys.readouterr().out
        assert "its keys are unpublished" in said
        assert "train: read 2, fit for use 1, kept 1" in said
        assert "dropped 1: missing or damaged image" in said
        assert "images by number of layers: 3: 1" in said
        assert "the paper: 9378 images for training, 2355 for testing" in said
        (scene,) = PackedScenes(tmp_path / "sets" / "train", check=True)
        assert layer_indices(scene.occluded_by).tolist() == [1, 2, 3]
        assert PackedScenes(tmp_path / "sets" / "test").meta["settings"]["max_layers"] == 5

    def test_it_goes_on_with_the_split_that_is_not_there_yet(self, tmp_path, monkeypatch, capsys):
        train = write_coco(tmp_path, PRESETS["acom"])
        test = write_coco(tmp_path, PRESETS["acom"], "b.json", files=("2.png",))
        words = ["coco", "--preset", "acom", "--split", f"train={train}", "--split", f"test={test}", "--out", tmp_path / "sets"]
        (tmp_path / "2.png").rename(tmp_path / "elsewhere.png")
        with pytest.raises(SystemExit):
            self.run(monkeypatch, *words, "--images", tmp_path)
        assert "nothing to put into" in capsys.readouterr().err
        (tmp_path / "elsewhere.png").rename(tmp_path / "2.png")
        self.run(monkeypatch, *words, "--images", tmp_path)
        said = capsys.readouterr().out
        assert "test: read 1, fit for use 1, kept 1" in said
        assert f"{tmp_path / 'sets' / 'train'} was there and is as it was: remove it where images or masks have changed" in said
        assert f"{tmp_path / 'sets' / 'test'} was there" not in said

    def test_files_of_one_name_in_two_folders_are_two_images(self, tmp_path, monkeypatch, capsys):
        """As KITTI numbers those for training and those for testing, each from 0."""
        for split in ("train", "test"):
            (tmp_path / split).mkdir()
            file = write_coco(tmp_path / split, PRESETS["kins"])
            words = ["--images", tmp_path / split, "--split", f"{split}={file}", "--out", tmp_path / "sets"]
            self.run(monkeypatch, "coco", "--preset", "kins", *words)
        assert len(PackedScenes(tmp_path / "sets" / "test")) == 2
        with pytest.raises(SystemExit):
            self.run(monkeypatch, "coco", "--preset", "kins", *words[:2], "--split", f"val={file}", *words[4:])
        assert "scenes that are in both test and val: 2, 0.png the first; split by scene" in capsys.readouterr().err

    def test_another_key_and_a_seeded_subset(self, tmp_path, monkeypatch, capsys):
        files = [f"{k}.png" for k in range(9)]
        keys = KeyMap(amodal="whole", layer="depth", layer_base=1)
        file = write_coco(tmp_path, keys, files=files)
        words = ["--images", tmp_path, "--split", f"test={file}", "--subset", 4]
        for key in ("amodal=whole", "layer=depth", "layer_base=1"):
            words += ["--key", key]
        for out in ("one", "two"):
            self.run(monkeypatch, "coco", "--preset", "acom", *words, "--out", tmp_path / out)
        one, two = (PackedScenes(tmp_path / out / "test") for out in ("one", "two"))
        assert len(one) == 4
        assert one.meta["sha256"] == two.meta["sha256"]
        assert one.source.tolist() != [0, 1, 2, 3]
        assert "read 9, fit for use 9, kept 4" in capsys.readouterr().out
        self.run(monkeypatch, "coco", "--preset", "acom", *words, "--out", tmp_path / "three", "--seed", 1)
        assert PackedScenes(tmp_path / "three" / "test").source.tolist() != one.source.tolist()

    def test_views_of_a_scene_are_one_source_and_in_one_split(self, tmp_path, monkeypatch, capsys):
        views = write_coco(tmp_path, PRESETS["acom"], files=("a_view0.png", "a_view1.png", "b_view0.png"))
        other = write_coco(tmp_path, PRESETS["acom"], "b.json", files=("a_view2.png",))
        words = ["coco", "--preset", "acom", "--images", tmp_path, "--scene", "(.*)_view", "--out", tmp_path / "sets"]
        with pytest.raises(SystemExit):
            self.run(monkeypatch, *words, "--split", f"train={views}", "--split", f"test={other}")
        assert "scenes that are in both train and test: 1, a the first; split by scene" in capsys.readouterr().err
        self.run(monkeypatch, *words, "--split", f"train={views}")
        assert PackedScenes(tmp_path / "sets" / "train").source.tolist() == [0, 0, 1]

    def test_a_scene_of_an_earlier_call_is_in_no_other_split(self, tmp_path, monkeypatch, capsys):
        views = write_coco(tmp_path, PRESETS["acom"], files=("a_view0.png", "b_view0.png"))
        same = write_coco(tmp_path, PRESETS["acom"], "b.json", files=("a_view1.png",))
        other = write_coco(tmp_path, PRESETS["acom"], "c.json", files=("c_view0.png",))
        words = ["coco", "--preset", "acom", "--images", tmp_path, "--out", tmp_path / "sets", "--scene", "(.*)_view"]
        self.run(monkeypatch, *words, "--split", f"train={views}")
        for told in (words, words[:-2]):
            with pytest.raises(SystemExit):
                self.run(monkeypatch, *told, "--split", f"test={same}")
            assert not (tmp_path / "sets" / "test").exists()
        said = capsys.readouterr().err
        assert "scenes that are in both train and test: 1, a the first; split by scene" in said
        assert "train was made with --scene '(.*)_view', so scenes cannot be compared: do likewise, or give another" in said
        self.run(monkeypatch, *words, "--split", f"test={other}", "--split", f"train={views}")
        (tmp_path / "sets" / "train" / "scenes.json").unlink()  # as sets that were made before it was written
        self.run(monkeypatch, *words, "--split", f"val={same}")
        assert "train does not say which scenes are in it" in capsys.readouterr().out

    def test_of_intra_afruit_so_many_test_images_are_drawn_as_in_the_paper_and_all_others_kept(self, tmp_path, monkeypatch):
        assert PAPER_SETS["intra_afruit"].test_subset == 3000
        monkeypatch.setitem(PAPER_SETS, "intra_afruit", replace(PAPER_SETS["intra_afruit"], test_subset=3))
        train = write_coco(tmp_path, PRESETS["intra_afruit"], files=[f"a{k}.png" for k in range(5)])
        test = write_coco(tmp_path, PRESETS["intra_afruit"], "b.json", files=[f"b{k}.png" for k in range(5)])
        words = ["coco", "--preset", "intra_afruit", "--images", tmp_path, "--out", tmp_path / "sets"]
        self.run(monkeypatch, *words, "--split", f"train={train}", "--split", f"test={test}")
        assert [len(PackedScenes(tmp_path / "sets" / split)) for split in ("train", "test")] == [5, 3]

    def test_folders(self, tmp_path, monkeypatch, capsys):
        write_folders(tmp_path / "data")
        self.run(monkeypatch, "folders", "--split", f"train={tmp_path / 'data'}", "--out", tmp_path / "sets", "--image-size", 32)
        assert PackedScenes(tmp_path / "sets" / "train")[0].image.shape == (32, 32, 3)
        assert "kept 1" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (["--split", "test={file}"], "scenes that are in both train and test: 2, 0.png the first; split by scene, or give"),
            (["--split", "train=other.json"], "give each of train, val, test, unseen at most once"),
            (["--split", "training=other.json"], "give each of train, val, test, unseen at most once"),
            (["--split", "test"], "--split takes NAME=VALUE, not 'test'"),
            (["--key", "deep=z"], "the roles are amodal, visible, layer"),
            (["--split", "test=absent.json"], "No such file or directory: 'absent.json'"),
            (["--key", "layer=depth"], "preset acom: {file}: no annotation has the key 'depth'; they have image_id, layer, segm"),
            (["--key", "layer=depth"], "Give the right one by --key layer=KEY"),
            (["--key", "layer_base=a"], "--key layer_base=a: layers count from 0 or from 1"),
            (["--image-size", "0"], "must be a whole number in 16..2048, not '0'"),
            (["--subset", "-2"], "must be a whole number in 1..1000000000, not '-2'"),
            (["--max-layers", "0"], "must be a whole number in 1..100, not '0'"),
            (["--scene", "view"], "--scene view does not fit the name of the image 0.png"),
            (["--scene", "(("], "--scene (( is no regular expression"),
            (["--scene", "(a_)?"], "--scene (a_)? does not fit the name of the image 0.png"),
        ],
    )
    def test_mistakes_are_told_in_a_line_and_leave_no_set(self, tmp_path, monkeypatch, capsys, change, message):
        file = write_coco(tmp_path, PRESETS["acom"])
        words = ["--images", tmp_path, "--split", f"train={file}", "--out", tmp_path / "sets"]
        with pytest.raises(SystemExit):
            self.run(monkeypatch, "coco", "--preset", "acom", *words, *[word.format(file=file) for word in change])
        assert message.format(file=file) in capsys.readouterr().err
        assert not (tmp_path / "sets").exists()
