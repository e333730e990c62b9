# SPDX-License-Identifier: Apache-2.0
"""Algorithm 2 with scripted proposers: every branch, every stop, the cap."""

import numpy as np
import pytest

from seqamodal_ros.diffusion.sequence import Second, Sequence, SequenceSettings, binarise, run, select, sequence

SIZE = 16


def box(left: int, top: int, right: int, bottom: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


BLANK = box(0, 0, 0, 0)
A, B, C = box(0, 0, 8, 8), box(4, 4, 12, 12), box(8, 8, 16, 16)  # each overlaps the next
FAR, FARTHER = box(12, 0, 16, 4), box(0, 12, 4, 16)  # 16 pixels each, disjoint from A and B


def soft(*masks: np.ndarray, height: float = 1.0) -> np.ndarray:
    """K proposals float32 [K, h, w] at +-height."""
    return np.stack([np.where(mask, height, -height) for mask in masks]).astype(np.float32)


def play(
    script: list[np.ndarray], samples: int | None = None, second: Second | None = None, lead: bool = False, **settings
) -> tuple[Sequence, list[np.ndarray]]:
    """Answers the sequence from the script; returns its result and the cumulative masks it showed."""
    count = samples or (len(script[0]) if script else 1)
    steps = sequence(SequenceSettings(**settings), (SIZE, SIZE), count, second=second, lead=lead)
    shown = [next(steps)]
    for proposals in script:
        try:
            shown.append(steps.send(proposals))
        except StopIteration as finished:
            assert proposals is script[-1], "it stopped before the script's end"
            return finished.value, shown
    raise AssertionError("it asks for more than the script holds")


class TestSecondOpinion:
    def test_it_is_asked_where_all_proposals_are_null_and_the_sequence_goes_on(self):
        asked = []

        def second(number, cumulative):
            asked.append((number, cumulative.copy()))
            return soft(B if number == 2 else BLANK)[0]

        result, shown = play([soft(A, A), soft(BLANK, BLANK), soft(C, BLANK), soft(BLANK, BLANK)], second=second)
        assert np.array_equal(result.amodal, [A, B, C])
        assert np.array_equal(result.hypotheses[1], [B, BLANK])
        assert np.array_equal(result.probability[1], B)
        assert np.array_equal(shown, [BLANK, A, A | B, A | B | C])
        assert [number for number, _ in asked] == [2, 4]
        assert np.array_equal([cumulative for _, cumulative in asked], [A, A | B | C])
        assert not result.truncated

    def test_it_is_not_asked_of_the_first_layer(self):
        result, _ = play([soft(BLANK)], second=lambda number, cumulative: pytest.fail("the image may be blank"))
        assert len(result.amodal) == 0

    def test_nor_where_a_proposal_is_left(self):
        result, _ = play([soft(A, A), soft(B, BLANK)], second=lambda *_: pytest.fail("there is one"), max_layers=2)
        assert np.array_equal(result.amodal, [A, B])

    def test_what_it_says_is_a_layer_of_its_own_wherever_it_lies(self):
        """It makes no objects, and would if it were merged with a layer that does; what comes next is one, too, and no more."""
        said = [soft(FAR)[0], soft(BLANK)[0]]
        script = [soft(A, A), soft(BLANK, BLANK), soft(B, B), soft(FARTHER, FARTHER), soft(BLANK, BLANK)]
        result, _ = play(script, second=lambda *_: said.pop(0))
        assert np.array_equal(result.amodal, [A, FAR, B | FARTHER])
        assert result.hypotheses.any(axis=(2, 3)).sum(axis=1).tolist() == [2, 1, 2]

    def test_of_one_hypothesis_it_is_checked_for_spatial_integrity_as_any_other(self):
        said = [soft(FAR)[0], soft(BLANK)[0]]
        result, _ = play([soft(A), soft(BLANK), soft(BLANK)], second=lambda *_: said.pop(0))
        assert np.array_equal(result.amodal, [A | FAR])


class TestStops:
    def test_all_null_at_once_gives_no_layers(self):
        result, shown = play([soft(BLANK, BLANK)])
        assert result.amodal.shape == (0, SIZE, SIZE)
        assert result.probability.shape == (0, SIZE, SIZE)
        assert result.hypotheses.shape == (0, 2, SIZE, SIZE)
        assert not result.truncated
        assert len(shown) == 1
        assert not shown[0].any()

    def test_all_null_later_ends_the_sequence(self):
        result, shown = play([soft(A), soft(B), soft(BLANK)])
        assert np.array_equal(result.amodal, [A, B])
        assert not result.truncated
        assert np.array_equal(shown, [BLANK, A, A | B])

    def test_fewer_than_area_min_pixels_is_null(self):
        nine, ten = box(0, 0, 3, 3), box(0, 0, 5, 2)
        assert len(play([soft(nine, nine)])[0].amodal) == 0
        result, _ = play([soft(nine, ten), soft(BLANK, BLANK)])
        assert np.array_equal(result.amodal, [ten])
        assert np.array_equal(result.hypotheses, [[BLANK, ten]])
        assert len(play([soft(nine), soft(BLANK)], area_min=9)[0].amodal) == 1

    def test_max_layers_truncates_without_one_more_call(self):
        result, shown = play([soft(A), soft(B)], max_layers=2)
        assert np.array_equal(result.amodal, [A, B])
        assert result.truncated
        assert len(shown) == 2

    def test_a_sequence_of_exactly_max_layers_cannot_know_that_it_is_whole(self):
        assert play([soft(A)], max_layers=1)[0].truncated
        assert not play([soft(A), soft(BLANK)], max_layers=2)[0].truncated


class TestMajorityNull:
    def test_off_one_proposal_beats_two_blanks(self):
        result, _ = play([soft(BLANK, A, BLANK), soft(BLANK, BLANK, BLANK)])
        assert np.array_equal(result.amodal, [A])

    def test_on_two_blanks_of_three_stop(self):
        result, _ = play([soft(BLANK, A, BLANK)], majority_null=True)
        assert len(result.amodal) == 0
        assert not result.truncated

    def test_on_a_first_layer_that_one_of_three_sees_is_left_out_and_not_nothing(self):
        """Where the model is to say so: nobody can tell."""
        seen = soft(A, BLANK, BLANK)
        result, _ = play([seen], majority_null=True, first_sure=0.2)
        assert len(result.amodal) == 0 and result.left_out == pytest.approx(1 / 3)
        assert play([seen], majority_null=True)[0].left_out == 0
        assert play([soft(BLANK, BLANK, BLANK)], majority_null=True, first_sure=0.2)[0].left_out == 0

    def test_on_a_majority_of_blanks_is_a_case_for_the_second_opinion(self):
        """Which stands alone: what one of three saw is no proposal any more."""
        script = [soft(A, A, A), soft(BLANK, C, BLANK), soft(BLANK, BLANK, C)]
        said = [soft(B)[0], soft(BLANK)[0]]
        result, _ = play(script, second=lambda *_: said.pop(0), majority_null=True)
        assert np.array_equal(result.amodal, [A, B])
        assert np.array_equal(result.hypotheses[1], [B, BLANK, BLANK])
        assert not said

    def test_on_half_is_no_majority(self):
        result, _ = play([soft(BLANK, A), soft(BLANK, BLANK)], majority_null=True)
        assert np.array_equal(result.amodal, [A])


class TestWhereTheFirstProposalLeads:
    def test_it_is_the_layer_however_the_others_lie(self):
        result, shown = play([soft(A, C, C), soft(B, BLANK, BLANK), soft(BLANK, BLANK, BLANK)], lead=True)
        assert np.array_equal(result.amodal, [A, B])
        assert np.array_equal(result.hypotheses, [[A, C, C], [B, BLANK, BLANK]])
        assert np.array_equal(shown, [BLANK, A, A | B])
        assert not result.truncated

    def test_a_majority_of_nulls_is_not_asked(self):
        result, _ = play([soft(A, BLANK, BLANK), soft(BLANK, B, B)], lead=True, majority_null=True)
        assert np.array_equal(result.amodal, [A])

    def test_its_being_null_is_a_case_for_the_second_opinion(self):
        said = [soft(B)[0], soft(BLANK)[0]]
        script = [soft(A, A, A), soft(BLANK, C, C), soft(BLANK, C, C)]
        result, _ = play(script, second=lambda *_: said.pop(0), lead=True)
        assert np.array_equal(result.amodal, [A, B])
        assert np.array_equal(result.hypotheses[1], [B, BLANK, BLANK])
        assert not said

    def test_a_first_layer_that_it_does_not_see_and_others_do_is_left_out_and_not_nothing(self):
        result, _ = play([soft(BLANK, A, A)], lead=True, first_sure=0.2)
        assert len(result.amodal) == 0 and result.left_out == pytest.approx(2 / 3)
        assert play([soft(BLANK, BLANK, BLANK)], lead=True, first_sure=0.2)[0].left_out == 0


class TestSelection:
    def test_least_l1_distance_to_the_mean(self):
        small, medium, large = box(0, 0, 4, 4), box(0, 0, 6, 6), box(0, 0, 12, 12)
        for order in ([small, medium, large], [large, medium, small], [medium, large, small]):
            assert np.array_equal(play([soft(*order), soft(BLANK, BLANK, BLANK)])[0].amodal, [medium])

    def test_the_first_wins_a_tie(self):
        left, right = box(0, 0, 4, 4), box(1, 0, 5, 4)
        assert np.array_equal(select(np.stack([left, right])), left)
        assert np.array_equal(select(np.stack([right, left])), right)

    def test_the_first_wins_a_tie_of_three(self):
        """Thirds are not exact in floating point, so the distance must not be computed in them."""
        rng = np.random.default_rng(0)
        ties = 0
        for _ in range(300):
            a = rng.random((16, 16)) < 0.5
            b, c = a.copy(), a.copy()
            flips = rng.permutation(256)[:60]
            b.flat[flips[:30]] ^= True
            c.flat[flips[30:]] ^= True  # b and c are equally far from the mean, a is nearest
            assert np.array_equal(select(np.stack([b, a, c])), a)
            far = np.stack([b, c, a ^ True])
            distances = [sum(int((x ^ y).sum()) for y in far) for x in far]
            if distances[0] == distances[1] <= distances[2]:
                ties += 1
                assert np.array_equal(select(far), b)
        assert ties > 200

    def test_null_votes_are_ignored(self):
        """With the nulls in the mean the smallest candidate would be nearest."""
        small, large = box(0, 0, 4, 4), box(0, 0, 8, 8)
        candidates = [large, small, large, BLANK, BLANK, BLANK, BLANK]
        result, _ = play([soft(*candidates), soft(*[BLANK] * 7)])
        assert np.array_equal(result.amodal, [large])

    def test_distance_is_measured_on_binarised_masks(self):
        """The first is nearest to the mean of the binarised masks, though its soft values are far from the others'."""
        proposals = soft(box(0, 0, 6, 6), box(0, 0, 6, 6), box(0, 0, 8, 8))
        proposals[0] *= 0.01
        result, _ = play([proposals, soft(BLANK, BLANK, BLANK)])
        assert np.array_equal(result.amodal, [box(0, 0, 6, 6)])


def test_binarise_takes_a_half_as_mask():
    candidates, null = binarise(np.zeros((1, 4, 4), np.float32), 16)  # x0 = 0 is a probability of 0.5
    assert candidates.all()
    assert not null.any()
    assert binarise(np.full((1, 4, 4), -1e-6, np.float32), 1)[1].all()


def test_probability_is_the_mean_of_all_soft_masks_nulls_too():
    result, _ = play([np.concatenate([soft(A, height=0.5), soft(BLANK)]), soft(BLANK, BLANK)])
    assert result.probability.dtype == np.float32
    assert np.allclose(result.probability[0], np.where(A, 0.75 / 2, 0.25 / 2))


def test_probability_is_clipped():
    result, _ = play([soft(A, height=3.0), soft(BLANK)])
    assert result.probability.min() == 0
    assert result.probability.max() == 1


class TestSpatialIntegrity:
    def test_a_disjoint_mask_is_merged_into_the_layer_before(self):
        result, shown = play([soft(A), soft(FAR), soft(B), soft(BLANK)])
        assert np.array_equal(result.amodal, [A | FAR, B])
        assert np.array_equal(shown, [BLANK, A, A | FAR, A | FAR | B])

    def test_never_at_the_first_layer(self):
        result, _ = play([soft(FAR), soft(BLANK)])
        assert np.array_equal(result.amodal, [FAR])

    def test_a_shared_pixel_is_enough_to_open_a_layer(self):
        touching = box(7, 7, 12, 12)
        assert (touching & A).sum() == 1
        assert len(play([soft(A), soft(touching), soft(BLANK)])[0].amodal) == 2

    def test_only_the_layer_just_before_counts(self):
        """C is disjoint from A but not from B."""
        assert len(play([soft(A), soft(B), soft(C), soft(BLANK)])[0].amodal) == 3
        again = box(0, 0, 3, 4)  # overlaps A, layer 1, but not C, layer 3
        result, _ = play([soft(A), soft(B), soft(C), soft(again), soft(BLANK)])
        assert np.array_equal(result.amodal, [A, B, C | again])

    def test_two_merges_then_the_disjoint_mask_opens_the_next_layer(self):
        fourth = box(12, 6, 16, 10)
        result, shown = play([soft(A), soft(FAR), soft(FARTHER), soft(fourth), soft(BLANK)])
        assert np.array_equal(result.amodal, [A | FAR | FARTHER, fourth])
        assert np.array_equal(shown[-1], A | FAR | FARTHER | fourth)

    def test_the_cap_counts_anew_for_the_layer_that_follows(self):
        p, q, r, s, t, u = (box(x, y, x + 4, y + 4) for y in (0, 6) for x in (0, 6, 12))
        result, _ = play([soft(p), soft(q), soft(r), soft(s), soft(t), soft(u), soft(BLANK)])
        assert np.array_equal(result.amodal, [p | q | r, s | t | u])

    def test_an_overlapping_mask_resets_the_cap(self):
        p, q, r = box(0, 0, 8, 4), box(0, 6, 4, 10), box(8, 6, 12, 10)
        over = box(0, 2, 8, 6)
        s, t = box(10, 12, 14, 16), box(4, 12, 8, 16)
        result, _ = play([soft(p), soft(q), soft(r), soft(over), soft(s), soft(t), soft(BLANK)])
        assert np.array_equal(result.amodal, [p | q | r, over | s | t])

    def test_merges_take_no_layer_of_max_layers(self):
        result, _ = play([soft(A), soft(FAR), soft(B)], max_layers=2)
        assert np.array_equal(result.amodal, [A | FAR, B])
        assert result.truncated

    def test_once_the_last_layer_is_there_nothing_more_is_asked_for(self):
        result, shown = play([soft(A), soft(B)], max_layers=2)
        assert len(shown) == 2
        assert result.truncated

    def test_hypotheses_are_ored_by_slot_and_probabilities_take_the_maximum(self):
        result, _ = play([soft(A, box(0, 0, 8, 7), height=0.5), soft(FAR, BLANK, height=0.8), soft(BLANK, BLANK)])
        assert np.array_equal(result.hypotheses, [[A | FAR, box(0, 0, 8, 7)]])
        first = (np.where(A, 0.75, 0.25) + np.where(box(0, 0, 8, 7), 0.75, 0.25)) / 2
        second = (np.where(FAR, 0.9, 0.1) + 0.1) / 2
        assert np.allclose(result.probability[0], np.maximum(first, second))

    def test_null_is_tested_first_so_a_blank_is_not_merged(self):
        result, shown = play([soft(A), soft(BLANK)])
        assert np.array_equal(result.amodal, [A])
        assert len(shown) == 2  # a merge would have asked again

    def test_the_majority_is_tested_before_integrity_too(self):
        result, _ = play([soft(A, A, A), soft(FAR, BLANK, BLANK)], majority_null=True)
        assert np.array_equal(result.amodal, [A])


def test_the_cumulative_mask_shown_is_a_copy():
    steps = sequence(SequenceSettings(), (SIZE, SIZE), 1)
    next(steps)[:] = True
    assert np.array_equal(steps.send(soft(A)), A)


class TestRun:
    SCRIPTS = (
        [soft(A), soft(B), soft(C), soft(BLANK)],
        [soft(BLANK)],
        [soft(A), soft(FAR), soft(FARTHER), soft(BLANK)],
        [soft(C), soft(BLANK)],
    )

    def test_side_by_side_equals_one_by_one(self):
        asked: list[list[int]] = []
        turn = dict.fromkeys(range(len(self.SCRIPTS)), 0)
        shown: dict[int, list[np.ndarray]] = {k: [] for k in turn}

        def propose(indices, cumulative_masks):
            asked.append(list(indices))
            answers = []
            for index, mask in zip(indices, cumulative_masks, strict=True):
                shown[index].append(mask)
                answers.append(self.SCRIPTS[index][turn[index]])
                turn[index] += 1
            return answers

        results = run([sequence(SequenceSettings(), (SIZE, SIZE), 1) for _ in self.SCRIPTS], propose)
        assert asked == [[0, 1, 2, 3], [0, 2, 3], [0, 2], [0, 2]]
        for index, script in enumerate(self.SCRIPTS):
            alone, masks = play(script)
            assert np.array_equal(results[index].amodal, alone.amodal)
            assert np.array_equal(results[index].probability, alone.probability)
            assert np.array_equal(results[index].hypotheses, alone.hypotheses)
            assert results[index].truncated == alone.truncated
            assert np.array_equal(shown[index], masks)

    def test_no_sequence(self):
        assert run([], lambda *_: pytest.fail("nothing to ask for")) == []

    def test_an_answer_too_few_is_an_error(self):
        with pytest.raises(ValueError):
            run([sequence(SequenceSettings(), (SIZE, SIZE), 1) for _ in range(2)], lambda *_: [soft(A)])

    def test_what_the_proposer_raises_comes_through(self):
        def cancelled(*_):
            raise InterruptedError("cancelled")

        with pytest.raises(InterruptedError, match="cancelled"):
            run([sequence(SequenceSettings(), (SIZE, SIZE), 1)], cancelled)


class TestHowSureTheFirstLayerMustBe:
    UNSURE = soft(A, A, height=0.5)  # a probability of 0.75
    DIVIDED = soft(A, BLANK, height=0.9)  # of 0.5, the mean of 0.95 and 0.05

    def test_one_without_a_pixel_that_sure_is_left_out_and_its_surest_is_told(self):
        result, _ = play([self.UNSURE], first_sure=0.8)
        assert result.amodal.shape == (0, SIZE, SIZE) and not result.truncated
        assert result.left_out == pytest.approx(0.75)

    def test_it_is_the_mean_of_the_proposals_that_counts(self):
        result, _ = play([self.DIVIDED], first_sure=0.6)
        assert len(result.amodal) == 0 and result.left_out == pytest.approx(0.5)

    def test_one_with_a_pixel_that_sure_stays_whole(self):
        one = self.UNSURE.copy()
        one[:, 3, 3] = 0.7
        result, _ = play([one, soft(BLANK, BLANK)], first_sure=0.8)
        assert np.array_equal(result.amodal, [A]) and result.left_out == 0

    def test_layers_behind_it_may_be_less_sure(self):
        result, _ = play([soft(A, A), soft(B, B, height=0.5), soft(BLANK, BLANK)], first_sure=0.8)
        assert np.array_equal(result.amodal, [A, B])

    def test_where_all_are_null_nothing_was_left_out(self):
        result, _ = play([soft(BLANK, BLANK, height=0.5)], first_sure=0.8)
        assert len(result.amodal) == 0 and result.left_out == 0

    def test_the_paper_has_no_such_test(self):
        result, _ = play([soft(A, A, height=0.01), soft(BLANK, BLANK)])
        assert np.array_equal(result.amodal, [A])

    @pytest.mark.parametrize("wrong", [-0.1, 1.0, float("nan")])
    def test_out_of_range(self, wrong):
        with pytest.raises(ValueError, match=r"first_sure must be in \[0, 1\)"):
            SequenceSettings(first_sure=wrong)


@pytest.mark.parametrize("wrong", [{"max_layers": 0}, {"area_min": 0}, {"max_layers": -3}])
def test_settings_out_of_range(wrong):
    with pytest.raises(ValueError, match="at least 1"):
        SequenceSettings(**wrong)
