# SPDX-License-Identifier: Apache-2.0
"""Work in several processes: in order, and over at once when the caller has enough or a worker fails."""

import math
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import pytest

from training.data import workers
from training.data.composites import PER_SHARD
from training.data.sets import composite_set
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


def die(_: int) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_is_told():
    with pytest.raises(OSError, match="set: a process was killed; is there enough memory"):
        list(in_parallel(die, 2, "set"))


def test_a_set_is_the_same_on_any_number_of_workers(tmp_path, material, monkeypatch):
    sums = []
    for count in (1, 3):
        monkeypatch.setattr(workers, "ProcessPoolExecutor", partial(ProcessPoolExecutor, max_workers=count))
        packed = composite_set(tmp_path / str(count), material, "train", PER_SHARD + 3, 0, 64, mixed=True, stratified=False)
        assert len(packed) == PER_SHARD + 3
        sums.append(packed.meta["sha256"])
    assert sums[0] == sums[1]
