# SPDX-License-Identifier: Apache-2.0
"""Work for all cores, in order and with a progress bar; Ctrl-C ends it at once."""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from typing import Any, TypeVar

from tqdm import tqdm

Result = TypeVar("Result")

_work: list[Callable[[int], Any]] = []  # of a worker process, sent to it once


def in_parallel(work: Callable[[int], Result], count: int, what: str) -> Iterator[Result]:
    """``work(0)``, ... ``work(count - 1)``, each in some process; what is not begun is dropped once the caller stops.

    Args:
        work: is sent to every process once, so it must pickle.
        count: how many.
        what: title of the progress bar.

    Raises:
        OSError: one of the processes was killed.
    """
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_start, initargs=(work,)) as pool:
        try:
            yield from tqdm(pool.map(_call, range(count)), total=count, desc=what, disable=None)
        except BrokenProcessPool:
            raise OSError(f"{what}: a process was killed; is there enough memory? The same command goes on there") from None
        finally:
            pool.shutdown(cancel_futures=True)


def _start(work: Callable[[int], Any]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    _work[:] = [work]


def _call(index: int) -> Any:
    return _work[0](index)
