# SPDX-License-Identifier: Apache-2.0
"""What `make soak` lets pass, and what not."""

import math

import numpy as np
import pytest

from benchmarks.soak_checks import EXCUSED, FAIL, PASS, SLOWER, few, first_and_last_third, memory_slope, no_slower, verdict


def test_a_row_passes_where_all_holds():
    assert verdict(True, True) == PASS
    assert verdict(True, False) == FAIL


@pytest.mark.parametrize(("lost", "good"), [(0, True), (10, True), (11, False), (1000, False), (-1, False)])
def test_one_frame_in_a_hundred_may_be_lost(lost, good):
    assert few(lost, 1000) is good


def test_memory_that_grows_after_it_has_warmed_up_is_a_slope_in_mb_an_hour():
    seconds = np.arange(0.0, 1800.0)
    warming = np.where(seconds < 150, 300 + seconds, 450)
    assert memory_slope(list(zip(seconds, warming, strict=True))) == pytest.approx(0, abs=1e-6)
    assert memory_slope(list(zip(seconds, warming + seconds * 30 / 3600, strict=True))) == pytest.approx(30)
    assert memory_slope([(1.0, 300.0)]) == 0


def test_thirds_are_told_by_their_medians():
    values = np.array([1.0, 1, 9, 5, 5, 5, 2, 2, 90])
    assert first_and_last_third(values) == (1, 2)
    assert all(math.isnan(each) for each in first_and_last_third(np.array([])))


@pytest.mark.parametrize(
    ("last", "fixed", "good"),
    [
        (SLOWER, 1.0, True),
        (SLOWER + 0.01, 1.0, False),
        (SLOWER + 0.01, 0.5, False),  # a machine that became quicker asks no more, and no less
        (SLOWER * 1.2, 1.2, True),  # the machine itself slowed down
        (SLOWER * 1.2 + 0.01, 1.2, False),
        (SLOWER * EXCUSED + 0.01, 3.0, False),  # but not all is excused by that
        (math.nan, 1.0, False),
    ],
)
def test_latency_may_grow_by_a_tenth_or_with_the_machine(last, fixed, good):
    assert no_slower((0.3, 0.3 * last), (2.5e-3, 2.5e-3 * fixed)) is good
