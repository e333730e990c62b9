# SPDX-License-Identifier: Apache-2.0
"""Tells a worker that is busy from one that is stuck: a thread stuck in a driver cannot be ended, only its process can."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LEAST = 5.0  # seconds: a machine that is busy with other things may keep a call of milliseconds waiting for seconds
LOADING = 300.0  # seconds for a model from a slow disk, and for what compiles before and in its first calls
TIMES = 3.0  # the longest of the last calls
CALL = "a network call"
CALLS = 64  # that are remembered; one in which the process itself was stopped must not count for ever


class Heartbeat:
    """Listens to the beats of work; written by the thread that does it, read by the one that watches.

    A call takes longer the more hypotheses are drawn at once, so the longest one allows more to work on more of them.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._last: float | None = None  # None: nothing is at work
        self._samples, self._least = 1, LEAST
        self._calling = False
        self.what = CALL  # is at work, or was
        self._calls: deque[tuple[float, int]] = deque(maxlen=CALLS)  # seconds, and on how many hypotheses

    @contextmanager
    def work(self, samples: int, least: float | None = None, what: str = CALL) -> Iterator[None]:
        """What happens within is work, on so many hypotheses at once; calls of it may take `least` seconds, or else `LEAST`.

        `what` is the work's name, for whoever tells that it does not end.
        """
        self.what = what
        self._samples, self._least, self._calling = samples, LEAST if least is None else least, False
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
                self._calls.append((now - self._last, self._samples))
            self._last, self._calling = now, True

    @property
    def allowed(self) -> float:
        """Seconds that the call at work may take."""
        calls = self._calls.copy()  # the other thread may add one
        longest = max((seconds * max(1.0, self._samples / samples) for seconds, samples in calls), default=0.0)
        return max(self._least, TIMES * longest)

    @property
    def silence(self) -> float:
        """Seconds since the last beat of the work that goes on; 0 where none does."""
        last = self._last
        return 0.0 if last is None else self._clock() - last
