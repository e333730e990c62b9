# SPDX-License-Identifier: Apache-2.0
"""Watches a heartbeat from a thread of its own: what the executor's thread waits for, a model or a join, cannot hold it up."""

import threading
import time
from collections.abc import Callable

from seqamodal_ros.ros.heartbeat import Heartbeat

WATCH_EVERY = 0.5  # seconds between looks
STOOD_STILL = 2.0  # seconds between two looks: the process itself was stopped meanwhile, and the work with it


class Watchdog:
    """Calls `stuck`, on its own thread, with what is wrong where a call of its heartbeat's work does not end."""

    def __init__(self, stuck: Callable[[str], None]):
        self.heartbeat = Heartbeat()
        self._stuck = stuck
        self._ended = threading.Event()
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()

    def end(self) -> None:
        """Watch no more."""
        self._ended.set()

    def _watch(self) -> None:
        looked = resumed = time.monotonic()
        while not self._ended.wait(WATCH_EVERY):
            now = time.monotonic()
            if now - looked > STOOD_STILL:
                resumed = now
            looked = now
            allowed = self.heartbeat.allowed  # first: should other work begin meanwhile, its silence is short
            silence = min(self.heartbeat.silence, now - resumed)
            if silence > allowed:
                self._stuck(
                    f"{self.heartbeat.what} has not ended for {silence:.1f} s, {allowed:.1f} s are allowed: "
                    "exiting with code 1, so that launch restarts the node"
                )
