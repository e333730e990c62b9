# SPDX-License-Identifier: Apache-2.0
"""What the node tells `/diagnostics`, once a second."""

import os
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

LATEST = 200  # answers whose pace is told
RECENT = 10.0  # seconds: where none is younger, there is no rate any more


@dataclass
class Counters:
    """Frames since the node was configured, or `~/reset`; one that was cancelled by a transition is received, and nothing else.

    Attributes:
        received: image messages.
        answered: layered masks published.
        unwanted: frames that came while nobody listened to any of the camera's topics, so they were not looked at.
        superseded: frames that a newer one replaced before they were begun.
        too_old: frames that were older than `max_age` when they came, or when they could have been begun.
        lost: image messages that the middleware says it lost.
        rejected: messages that could not be used; of compressed images, what only decoding tells of those that were begun.
        failed: frames whose inference raised an error, images of callers of `~/segment` among them, which are no image messages.
        without_points: answers that someone wanted a cloud of, and whose depth image or camera_info did not fit.
    """

    received: int = 0
    answered: int = 0
    unwanted: int = 0
    superseded: int = 0
    too_old: int = 0
    lost: int = 0
    rejected: int = 0
    failed: int = 0
    without_points: int = 0


class Pace:
    """How fast answers come: of the latest ones, when each was published, and how long it took from the image's arrival."""

    def __init__(self) -> None:
        self._answers: deque[tuple[float, float, float]] = deque(maxlen=LATEST)

    def answered(self, received: float, inference: float) -> None:
        """An image that came at `received`, seconds of the monotonic clock, is answered now; `inference` took seconds of that."""
        now = time.monotonic()
        self._answers.append((now, now - received, now - received - inference))

    def described(self) -> dict[str, str]:
        """Answers a second of late; p50 and p95 of the latency, and p95 of what of it was not inference but waiting, conversion
        and publishing, ms: those are missing where nothing was answered.
        """
        now = time.monotonic()
        recent = [at for at, _, _ in self._answers if now - at <= RECENT]
        rate = (len(recent) - 1) / (now - recent[0]) if len(recent) > 1 else 0.0
        found = {"rate_hz": f"{rate:.1f}"}
        if self._answers:
            _, latency, beside = 1000 * np.array(self._answers).T
            p50, p95 = np.percentile(latency, [50, 95])
            found |= {"latency_p50_ms": f"{p50:.0f}", "latency_p95_ms": f"{p95:.0f}"}
            found["beside_inference_p95_ms"] = f"{np.percentile(beside, 95):.1f}"
        return found


def memory() -> dict[str, str]:
    """Memory of this process, MB; nothing where the system does not say."""
    statm = Path("/proc/self/statm")
    if not statm.is_file():
        return {}
    return {"memory_mb": f"{int(statm.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f}"}


def status(
    name: str,
    state: str,
    problem: str,
    counters: Counters | None,
    details: Mapping[str, str],
    fatal: bool = False,
    hardware_id: str = "",
) -> DiagnosticStatus:
    """OK; or WARN, `fatal` ERROR, with `problem`, the latest thing that went wrong since the last report.

    Counters and details follow.
    """
    found = DiagnosticStatus(name=name, hardware_id=hardware_id, message=problem or state)
    found.level = DiagnosticStatus.ERROR if fatal else DiagnosticStatus.WARN if problem else DiagnosticStatus.OK
    values = {field.name: str(getattr(counters, field.name)) for field in fields(counters)} if counters else {}
    found.values = [KeyValue(key=key, value=value) for key, value in {"state": state, **values, **details}.items()]
    return found
