# SPDX-License-Identifier: Apache-2.0
"""Work in several processes: in order, and over at once when the caller has enough or a worker fails."""

import math
import time

import pytest

from training.data.workers import in_parallel


def test_results_come_in_order():
    assert list(in_parallel(math.sqrt, 5, "roots")) == [math.sqrt(k) for k in range(5)]


def test_what_was_not_begun_is_dropped():
    """Forty naps of 0, 1, 2, ... seconds: after the first there is no waiting for more than those that were begun."""
    began = time.monotonic()
    naps = in_parallel(time.sleep, 40, "naps")
    next(naps)
    naps.close()
    assert time.monotonic() - began < 100


def test_a_failure_is_the_callers():
    with pytest.raises(ValueError, match="domain"):
        list(in_parallel(math.log, 3, "logarithms"))
