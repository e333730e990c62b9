# SPDX-License-Identifier: Apache-2.0
"""Tells a worker that is busy from one that is stuck: a thread stuck in a driver cannot be ended, only its process can."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LEAST = 5.0  # seconds: a machine that is busy with other things may keep a call of milliseconds waiting for seconds
TIMES = 3.0  # the longest call so far


class Heartbeat:
    """Listens to the beats of work; written by the worker's thread, read by the executor's.

    A call takes longer the more hypotheses are drawn at once, so the longest one allows more to work on more of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._last: float | None = None  # None: nothing is at work
        self._samples = 1
        self._calling = False
        self._longest, self._longest_samples = 0.0, 1  # seconds, and on how many hypotheses

    @contextmanager
    def work(self, samples: int) -> Iterator[None]:
        """What happens within is work, on so many hypotheses at once."""
        self._samples, self._calling = samples, False
        self._last = self._clock()
        try:
            yield
            self.beat()
        finally:
            self._last = None

    def beat(self) -> None:
        """A call is about to begin, and the one before has ended; outside of `work` this counts for nothing."""
        if self._last is not None:
            now = self._clock()
            if self._calling:  # what comes before the first call is none
                if now - self._last > self._longest:
                    self._longest, self._longest_samples = now - self._last, self._samples
            self._last, self._calling = now, True

    @property
    def allowed(self) -> float:
        """Seconds that the call at work may take."""
        return max(LEAST, TIMES * self._longest * max(1.0, self._samples / self._longest_samples))

    @property
    def silence(self) -> float:
        """Seconds since the last beat of the work that goes on; 0 where none does."""
        last = self._last
        return 0.0 if last is None else self._clock() - last
