# SPDX-License-Identifier: Apache-2.0
"""Objects, occluders, pick order, agreement and labels of a layered scene."""

import numpy as np
import pytest

from seqamodal_ros.scene.geometry import Geometry


def test_a_scene_without_layers(make_scene):
    scene = make_scene(np.zeros((0, 16, 16)), width=40, height=30)
    assert scene.objects == ()
    assert scene.pick_order == ()
    assert scene.visible.shape == (0, 16, 16)
    assert scene.agreement.shape == (0,)
    assert scene.num_samples == 2
    assert scene.label().shape == (30, 40)
    assert not scene.label().any()


class TestObjects:
    def test_components_are_8_connected(self, make_scene):
        mask = np.zeros((1, 16, 16), bool)
        mask[0, :4, :4] = mask[0, 4:8, 4:8] = True  # they touch at a corner
        assert len(make_scene(mask).objects) == 1

    def test_specks_stay_in_the_layer_only(self, make_scene, rectangles):
        mask = rectangles((0, 0, 3, 3)) | rectangles((10, 10, 15, 12))  # 9 and 10 pixels
        scene = make_scene(mask, area_min=10)
        assert [obj.amodal.sum() for obj in scene.objects] == [10]
        assert scene.amodal.sum() == 19
        assert len(make_scene(mask, area_min=9).objects) == 2

    def test_ids_run_front_to_back_and_left_to_right(self, make_scene, rectangles):
        front = rectangles((20, 0, 26, 6)) | rectangles((2, 20, 8, 26))
        back = rectangles((12, 12, 18, 18)) | rectangles((0, 0, 5, 5))
        scene = make_scene(np.concatenate([front, back]))
        assert [obj.id for obj in scene.objects] == [1, 2, 3, 4]
        assert [obj.layer for obj in scene.objects] == [1, 1, 2, 2]
        assert [int(np.nonzero(obj.amodal)[1].min()) for obj in scene.objects] == [2, 20, 0, 12]

    def test_figures_of_an_occluded_object(self, make_scene, rectangles):
        amodal = rectangles((0, 0, 10, 10), (6, 0, 16, 10))
        probability = np.zeros((2, 32, 32), np.float32)
        probability[0][amodal[0]] = 0.8
        probability[1][amodal[1]] = 1.0
        probability[1][amodal[1] & amodal[0]] = 0.75
        first, second = make_scene(amodal, probability=probability).objects
        assert first.visible_ratio == 1
        assert first.uncertainty == 0  # nothing of it is hidden
        assert first.score == pytest.approx(0.8)
        assert second.visible_ratio == pytest.approx(0.6)
        assert second.score == pytest.approx(0.6 * 1.0 + 0.4 * 0.75)
        assert second.uncertainty == pytest.approx(4 * 0.75 * 0.25)
        assert np.array_equal(second.visible, amodal[1] & ~amodal[0])

    def test_occluded_by_takes_earlier_layers_that_share_a_pixel(self, make_scene, rectangles):
        first, second, third = rectangles((0, 0, 10, 10), (8, 0, 20, 10), (0, 8, 12, 20))
        far = rectangles((25, 25, 31, 31))[0]
        scene = make_scene(np.stack([first | far, second, third]))
        assert {obj.id: obj.occluded_by for obj in scene.objects} == {1: (), 2: (), 3: (1,), 4: (1, 3)}

    def test_an_object_wholly_hidden(self, make_scene, rectangles):
        scene = make_scene(rectangles((0, 0, 20, 20), (5, 5, 12, 12)))
        assert scene.objects[1].visible_ratio == 0
        assert not scene.objects[1].visible.any()


class TestPickOrder:
    def test_the_layer_comes_first_then_the_score(self, make_scene, rectangles):
        front = rectangles((0, 0, 8, 8)) | rectangles((20, 0, 28, 8))
        middle = rectangles((4, 4, 12, 12))
        back = rectangles((10, 10, 16, 16)) | rectangles((20, 20, 28, 28))
        amodal = np.concatenate([front, middle, back])
        probability = np.where(amodal, 0.5, 0.0).astype(np.float32)
        probability[0, :8, 20:28] = 0.9  # the right one of the front is surer
        probability[2, 20:28, 20:28] = 0.7  # nothing is seen on it, but it was drawn as lying under something
        scene = make_scene(amodal, probability=probability)
        assert [(obj.id, obj.occluded_by) for obj in scene.objects] == [(1, ()), (2, ()), (3, (1,)), (4, (3,)), (5, ())]
        assert scene.pick_order == (2, 1, 3, 5, 4)

    def test_equal_scores_go_by_id(self, make_scene, rectangles):
        scene = make_scene(rectangles((0, 0, 5, 5)) | rectangles((10, 0, 15, 5)) | rectangles((20, 0, 25, 5)))
        assert scene.pick_order == (1, 2, 3)

    def test_nothing_comes_before_what_lies_on_it(self, make_scene):
        rng = np.random.default_rng(0)
        for _ in range(20):
            stack = rng.random((4, 16, 16)) > 0.6
            scene = make_scene(stack, area_min=1)
            rank = {name: place for place, name in enumerate(scene.pick_order)}
            assert sorted(rank) == [obj.id for obj in scene.objects]
            for obj in scene.objects:
                assert all(rank[occluder] < rank[obj.id] for occluder in obj.occluded_by)


class TestAgreement:
    def test_mean_iou_of_the_others(self, make_scene, rectangles):
        selected, half, blank = rectangles((0, 0, 10, 10), (0, 0, 10, 5), (0, 0, 0, 0))
        scene = make_scene(selected[None], hypotheses=np.stack([half, selected, blank])[None])
        assert scene.agreement[0] == pytest.approx(0.5)

    def test_only_one_copy_of_the_selected_mask_is_left_out(self, make_scene, rectangles):
        selected, half = rectangles((0, 0, 10, 10), (0, 0, 10, 5))
        scene = make_scene(selected[None], hypotheses=np.stack([selected, selected, half])[None])
        assert scene.agreement[0] == pytest.approx(0.75)

    @pytest.mark.parametrize("others", [0, 2])
    def test_nan_where_there_is_no_other(self, make_scene, rectangles, others):
        mask = rectangles((0, 0, 10, 10))
        hypotheses = np.concatenate([mask, np.zeros((others, 32, 32), bool)])[None]
        assert np.isnan(make_scene(mask, hypotheses=hypotheses).agreement[0])

    def test_the_union_of_merged_passes_is_compared_too(self, make_scene, rectangles):
        both = rectangles((0, 0, 10, 10)) | rectangles((20, 20, 30, 30))
        hypotheses = np.concatenate([rectangles((0, 0, 10, 10)), rectangles((20, 20, 30, 30))])[None]
        assert make_scene(both, hypotheses=hypotheses).agreement[0] == pytest.approx(0.5)


def test_label_holds_the_visible_object_and_the_front_one_wins(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 10, 10), (5, 5, 20, 20)), width=64, height=64)
    label = scene.label()
    assert label.dtype == np.uint16
    assert label.shape == (64, 64)
    assert label[8, 8] == 1
    assert label[15, 15] == 1  # both masks cover it
    assert label[30, 30] == 2
    assert label[60, 60] == 0
    for obj in scene.objects:
        assert np.array_equal(label == obj.id, scene.to_source(obj.visible) & ~np.isin(label, range(1, obj.id)))


def test_label_where_two_visible_masks_meet_at_one_half(make_scene, rectangles):
    """At a scale of 1.5 a source pixel lies midway between two mask pixels, so both masks have it."""
    scene = make_scene(rectangles((0, 0, 11, 20), (8, 0, 30, 20)), width=48, height=48)
    front, back = (scene.to_source(obj.visible) for obj in scene.objects)
    assert (front & back).any()
    assert (scene.label()[front] == 1).all()
    assert (scene.label()[back & ~front] == 2).all()


def test_to_source_keeps_bool_bool_and_float_float(make_scene, rectangles):
    scene = make_scene(rectangles((0, 0, 10, 10)), geometry=Geometry.letterbox(50, 40))
    assert scene.to_source(scene.amodal[0]).dtype == bool
    for wrong in (scene.amodal, scene.to_source(scene.amodal[0]), scene.amodal[0][:-1]):
        with pytest.raises(ValueError, match=r"a mask of the scene has 32x32 pixels, as `amodal\[0\]`; this array has \("):
            scene.to_source(wrong)
    soft = scene.to_source(scene.probability[0])
    assert soft.dtype == np.float32
    assert soft.shape == (40, 50)
    assert 0 <= soft.min() <= soft.max() <= 1
