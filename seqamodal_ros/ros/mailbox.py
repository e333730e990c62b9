# SPDX-License-Identifier: Apache-2.0
"""A mailbox that holds one item, as a robot needs the newest frame and no queue of old ones; and a few requested ones."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


MOST_REQUESTED = 8


class Mailbox(Generic[Item]):
    """One slot between two threads, where putting replaces what nobody took; requested items come first, and none is lost."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._requested: deque[Item] = deque()
        self._closed = False

    def put(self, item: Item) -> bool:
        """Leave an item; True if it replaced one that nobody took."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def request(self, item: Item) -> bool:
        """Leave an item that no other replaces; False where `MOST_REQUESTED` of them wait already."""
        with self._changed:
            if len(self._requested) >= MOST_REQUESTED:
                return False
            self._requested.append(item)
            self._changed.notify()
            return True

    def take(self) -> Item | None:
        """Wait for an item and take it, requested ones first; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._item is not None or bool(self._requested))
            if self._closed:
                return None
            if self._requested:
                return self._requested.popleft()
            item, self._item = self._item, None
            return item

    def clear(self) -> None:
        """Throw away what lies there."""
        with self._changed:
            self._item = None
            self._requested.clear()

    def close(self) -> None:
        """Wake the taker for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
