# SPDX-License-Identifier: Apache-2.0
"""Work for all cores, in order and with a progress bar; Ctrl-C ends it at once, as does the end of the main process."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
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
    threading.Thread(target=_end_with_the_main_process, daemon=True).start()
    _work[:] = [work]


def _end_with_the_main_process() -> None:
    """One that is killed tells its workers nothing, and they would wait for work for ever."""
    main = parent_process()
    assert main is not None, "this runs in workers alone"
    main.join()
    os._exit(1)


def _call(index: int) -> Any:
    return _work[0](index)
