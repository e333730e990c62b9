# SPDX-License-Identifier: Apache-2.0
"""What is free, in what order objects come free, and what to remove first to reach one."""

import array
import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from seqamodal_ros.scene.picking import Step, free_objects, pick_order, to_reach, under


def obj(number: int, *occluded_by: int, score: float = 0.9, layer: int = 1) -> SimpleNamespace:
    return SimpleNamespace(id=number, occluded_by=occluded_by, score=score, layer=layer)


def ids(objects) -> list[int]:
    return [each.id for each in objects]


CHAIN = [obj(1), obj(2, 1), obj(3, 2)]
DIAMOND = [obj(1), obj(2, 1, score=0.5), obj(3, 1, score=0.8), obj(4, 2, 3), obj(5)]
CYCLE = [obj(1), obj(2, 4), obj(3, 2), obj(4, 3), obj(5, 1)]


@pytest.mark.parametrize(
    ("occluded_by", "shares", "said"),
    [
        ((), {}, "under something that is not listed"),
        ((1,), {}, "under object 1"),
        ((1, 2), {1: 1.0, 2: 1.0}, "under objects 1, 2"),
        ((1, 2), {1: 1.0, 2: 2 / 3, 4: 1 / 3, 3: 0.5}, "under objects 1, 2 (67%), perhaps 3 (50%), 4 (33%)"),
        ((1,), {1: 0.0}, "under object 1 (0%)"),
        ((), {4: 1 / 3}, "under something that is not listed or perhaps 4 (33%)"),
    ],
)
def test_what_lies_on_an_object_in_words(occluded_by, shares, said):
    assert under(obj(5, *occluded_by, layer=2), shares) == said


class TestFreeObjects:
    def test_nothing_lies_on_them_and_the_surest_comes_first(self):
        scene = [obj(1, score=0.5), obj(2, score=0.8), obj(3, 1), obj(4, score=0.8), obj(5, score=math.nan)]
        assert ids(free_objects(scene)) == [2, 4, 1, 5]

    def test_a_minimum_leaves_out_what_is_less_or_not_computed(self):
        scene = [obj(1, score=0.5), obj(2, score=0.4), obj(3, score=math.nan)]
        assert ids(free_objects(scene, min_score=0.5)) == [1]
        assert ids(free_objects(scene)) == [1, 2, 3]

    @pytest.mark.parametrize("minimum", [90, -0.1, math.nan])
    def test_a_minimum_is_a_share(self, minimum):
        with pytest.raises(ValueError, match="min_score"):
            free_objects([], min_score=minimum)

    def test_what_was_drawn_under_something_is_not_free_nor_what_lies_under_something(self):
        assert ids(free_objects([obj(1), obj(2, 1, layer=1), obj(3, layer=2, score=0.95)])) == [1]

    def test_a_layer_that_nobody_has_filled_is_told(self):
        for function in (free_objects, pick_order):
            with pytest.raises(ValueError, match="object 2 has the layer 0; layers run from 1"):
                function([obj(1), obj(2, layer=0)])

    def test_no_object(self):
        assert free_objects([]) == []


class TestPickOrder:
    def test_the_layer_comes_first_then_the_score_then_the_id(self):
        assert pick_order(DIAMOND) == (1, 5, 3, 2, 4)
        assert pick_order(reversed(DIAMOND)) == (1, 5, 3, 2, 4)
        assert pick_order([]) == ()

    def test_what_was_drawn_under_something_comes_with_its_layer(self):
        scene = [obj(1, score=0.5), obj(2, 1, layer=2, score=0.6), obj(3, layer=2, score=0.7), obj(4, layer=3, score=0.9)]
        assert pick_order(scene) == (1, 3, 2, 4)

    def test_an_occluder_comes_first_whatever_its_layer_is(self):
        assert pick_order([obj(1, 2, layer=1), obj(2, 3, layer=1), obj(3, layer=2)]) == (3, 2, 1)

    def test_a_cycle_is_named(self):
        with pytest.raises(ValueError, match="cycle: (2 on 3 on 4 on 2|3 on 4 on 2 on 3|4 on 2 on 3 on 4)"):
            pick_order(CYCLE)
        with pytest.raises(ValueError, match="cycle: 7 on 7"):
            pick_order([obj(7, 7)])

    def test_a_wrong_message_is_told(self):
        with pytest.raises(ValueError, match="two objects have the id 1"):
            pick_order([obj(1), obj(1)])
        with pytest.raises(ValueError, match="object 2 lies under 9, which is none of the objects"):
            pick_order([obj(1), obj(2, 9)])

    def test_it_is_the_scenes_own(self, make_scene, rectangles):
        front = rectangles((0, 0, 8, 8)) | rectangles((20, 0, 28, 8))
        amodal = np.concatenate([front, rectangles((4, 4, 12, 12)), rectangles((10, 10, 16, 16)) | rectangles((20, 20, 28, 28))])
        probability = np.where(amodal, 0.5, 0.0).astype(np.float32)
        probability[0, :8, 20:28] = 0.9
        probability[2, 20:28, 20:28] = 0.7
        scene = make_scene(amodal, probability=probability)
        assert pick_order(scene.objects) == scene.pick_order == (2, 1, 3, 5, 4)
        assert ids(free_objects(scene.objects)) == [2, 1]
        assert to_reach(scene.objects, 4) == [Step(1, (3,)), Step(3, (4,))]


class TestToReach:
    def test_a_free_object_needs_nothing(self):
        assert to_reach(CHAIN, 1) == []

    def test_a_chain_from_the_top(self):
        assert to_reach(CHAIN, 3) == [Step(1, (2,)), Step(2, (3,))]

    def test_a_diamond_each_once_and_why(self):
        assert to_reach(DIAMOND, 4) == [Step(1, (3, 2)), Step(3, (4,)), Step(2, (4,))]

    def test_what_lies_on_others_alone_stays(self):
        assert to_reach([*CHAIN, obj(4), obj(5, 3, 4)], 3) == to_reach(CHAIN, 3)

    def test_an_unknown_target_names_the_known(self):
        with pytest.raises(ValueError, match="no object 9; known ids: 1, 2, 3$"):
            to_reach(CHAIN, 9)
        with pytest.raises(ValueError, match="known ids: none"):
            to_reach([], 1)

    def test_a_cycle_above_the_target_is_named_and_another_is_no_hindrance(self):
        with pytest.raises(ValueError, match="in a cycle: [234] on [234] on [234] on [234]$"):
            to_reach(CYCLE, 3)
        assert to_reach(CYCLE, 5) == [Step(1, (5,))]

    def test_an_occluder_that_is_not_there(self):
        scene = [obj(1, 8), obj(2, 1), obj(3)]
        with pytest.raises(ValueError, match="object 1 lies under 8"):
            to_reach(scene, 2)
        assert to_reach(scene, 3) == []

    def test_occluders_as_messages_hold_them(self):
        scene = [SimpleNamespace(**{**vars(each), "occluded_by": array.array("H", each.occluded_by)}) for each in DIAMOND]
        assert to_reach(scene, 4) == to_reach(DIAMOND, 4)
        assert ids(free_objects(scene)) == [1, 5]


@st.composite
def scenes(draw) -> list[SimpleNamespace]:
    """Up to twelve objects, each under some of those before it, in any order and with ids that say nothing."""
    numbers = draw(st.lists(st.integers(1, 65535), min_size=1, max_size=12, unique=True))
    found = []
    for place, number in enumerate(numbers):
        above = [before for before in numbers[:place] if draw(st.booleans())]
        found.append(obj(number, *above, score=draw(st.sampled_from([0.3, 0.6, 0.9])), layer=draw(st.integers(1, 2))))
    return draw(st.permutations(found))


@given(scenes(), st.data())
def test_each_step_is_free_once_those_before_are_gone(scene, data):
    occluders = {each.id: set(each.occluded_by) for each in scene}
    target = data.draw(st.sampled_from(sorted(occluders)))
    steps = to_reach(scene, target)
    gone: set[int] = set()
    for step in steps:
        assert occluders[step.id] <= gone
        gone.add(step.id)
    assert occluders[target] <= gone
    after = [[*(later.id for later in steps[place + 1 :]), target] for place in range(len(steps))]
    for step, later in zip(steps, after, strict=True):  # none is moved without need, and all reasons are named
        assert step.lies_on and set(step.lies_on) == {each for each in later if step.id in occluders[each]}
    assert [number for number in pick_order(scene) if number in gone] == [step.id for step in steps]


@given(scenes())
def test_what_is_free_comes_first_in_the_pick_order(scene):
    free = free_objects(scene)
    assert pick_order(scene)[: len(free)] == tuple(ids(free))
    assert sorted(pick_order(scene)) == sorted(ids(scene))
