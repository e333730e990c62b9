# SPDX-License-Identifier: Apache-2.0
"""Says how far the images of a bag are."""

import sys
import time
from collections import Counter
from datetime import timedelta

from seqamodal_ros.commands.arguments import complain, say

SKIPS_SHOWN = 20  # lines about single images; a wrong topic must not fill the screen
QUIET = 10.0  # seconds between two lines of progress where stderr is no terminal


class Progress:
    """Counts the images, and shows on stderr how far they are: a line that changes in a terminal, else one now and then."""

    def __init__(self, total: int):
        self.total = total
        self.answered = 0
        self.skipped: Counter[str] = Counter()
        self._fresh, self._seconds = 0, 0.0
        self._began, self._shown = time.monotonic(), -QUIET
        self._terminal = sys.stderr.isatty()

    def kept(self) -> None:
        """An image was answered by an earlier run."""
        self.answered += 1

    def fresh(self, seconds: float) -> None:
        """An image was answered, which took so long."""
        self.answered += 1
        self._fresh += 1
        self._seconds += seconds
        now = time.monotonic()
        if self._terminal or now - self._shown >= QUIET:
            self._shown = now
            self._show()

    def skip(self, which: str, reason: str) -> None:
        """An image cannot be used."""
        self.skipped[reason] += 1
        count = self.skipped.total()
        if count <= SKIPS_SHOWN:
            clear = "\r\033[K" if self._terminal else ""
            more = " (further ones are only counted)" if count == SKIPS_SHOWN else ""
            complain(f"{clear}process_bag: skipped {which}: {reason}{more}")

    def _show(self) -> None:
        done = self.answered + self.skipped.total()
        each = self._seconds / self._fresh
        left = timedelta(seconds=round(each * max(0, self.total - done)))
        line = f"process_bag: {done} of {self.total} images, {each:.2f} s an image, {left} left"
        text, end = (f"\r{line}\033[K", "") if self._terminal else (line, "\n")
        say(text, sys.stderr, end)

    def end(self) -> None:
        """Leave the line that changes."""
        if self._terminal and self._fresh:
            complain("")

    def summary(self, images: int) -> str:
        """One line: images, how many were answered and skipped, why, and the seconds of this run."""
        seconds = time.monotonic() - self._began
        reasons = "; ".join(f"{count} x {reason}" for reason, count in self.skipped.most_common(3))
        more = "; ..." if len(self.skipped) > 3 else ""
        skipped = f"{self.skipped.total()} skipped" + (f" ({reasons}{more})" if reasons else "")
        looked = "" if self.total == images else f", {self.total} looked at"
        return f"{images} images{looked}: {self.answered} answered, {skipped}, {seconds:.1f} s"
