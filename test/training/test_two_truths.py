# SPDX-License-Identifier: Apache-2.0
"""Images that two scenes agree with: nothing that shows tells them apart, and no mask is near to both."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from training.data.compositor import CompositeSettings, Compositor
from training.metrics import both_found, iou

SETTINGS = CompositeSettings(image_size=128)


@pytest.fixture(scope="module")
def pairs(material):
    compositor = Compositor(material, SETTINGS)
    return [compositor.two_truths(np.random.default_rng([0, k]), family="fruits") for k in range(20)]


def test_both_agree_in_all_that_shows_and_keep_the_rules(pairs):
    for whole, cut in pairs:
        assert (whole.image == cut.image).all()
        assert (whole.visible == cut.visible).all()
        assert (whole.occluded_by == cut.occluded_by).all() and whole.occluded_by[1, 0]
        for scene in (whole, cut):
            assert SETTINGS.check(scene.amodal, scene.occluded_by).tolist() == [1, 2]


def test_no_part_of_a_pixel_of_what_is_cut_off_shows(pairs):
    for whole, cut in pairs:
        well_inside = cv2.erode(whole.amodal[0].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        assert (whole.amodal[1] & ~cut.amodal[1] <= well_inside).all()


def test_no_mask_is_near_to_both(pairs):
    for whole, cut in pairs:
        assert (cut.amodal[1] <= whole.amodal[1]).all()
        assert iou(whole.amodal[1], cut.amodal[1]) < 0.75**2


def test_both_have_to_be_found(pairs):
    whole, cut = (scene.amodal[1] for scene in pairs[0])
    assert both_found(np.stack([whole, whole, cut]), [whole, cut])
    assert not both_found(np.stack([whole, whole, whole]), [whole, cut])
    assert not both_found(np.zeros((0, *whole.shape), bool), [whole, cut])


def test_a_compositor_takes_either_for_the_truth(material):
    compositor = Compositor(material, replace(SETTINGS, two_truths=1.0))
    scenes = [compositor(np.random.default_rng([1, k]), family="fruits") for k in range(20)]
    again = Compositor(material, SETTINGS)
    taken = []
    for k, scene in enumerate(scenes):
        rng = np.random.default_rng([1, k])
        rng.choice(6, p=np.array(SETTINGS.counts) / sum(SETTINGS.counts))
        rng.random()
        whole, cut = again.two_truths(rng, family="fruits")
        taken.append((scene.amodal == whole.amodal).all())
        assert taken[-1] or (scene.amodal == cut.amodal).all()
    assert 3 < sum(taken) < 17
