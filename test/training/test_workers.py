# SPDX-License-Identifier: Apache-2.0
"""Work in several processes: in order, and over at once when the caller has enough or a worker fails."""

import math
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_main_process(number):
    code = "import time; from training.data.workers import in_parallel; list(in_parallel(time.sleep, 1000, 'naps'))"
    with subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2], stderr=subprocess.DEVNULL) as process:
        until = time.monotonic() + 60
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while len(workers_of := [child for child in children.read_text().split() if _is_worker(child)]) < 1:
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(2)  # until it has begun
        process.send_signal(number)
    while any(map(_is_worker, workers_of)):
        assert time.monotonic() < until
        time.sleep(0.1)


def _is_worker(process: str) -> bool:
    try:
        return "spawn_main" in Path(f"/proc/{process}/cmdline").read_text()
    except OSError:  # it has ended
        return False


def test_a_set_is_the_same_on_any_number_of_workers(tmp_path, material, monkeypatch):
    sums = []
    for count in (1, 3):
        monkeypatch.setattr(workers, "ProcessPoolExecutor", partial(ProcessPoolExecutor, max_workers=count))
        packed = composite_set(tmp_path / str(count), material, "train", PER_SHARD + 3, 0, 64, mixed=True, stratified=False)
        assert len(packed) == PER_SHARD + 3
        sums.append(packed.meta["sha256"])
    assert sums[0] == sums[1]
