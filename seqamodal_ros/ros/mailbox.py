# SPDX-License-Identifier: Apache-2.0
"""A mailbox that holds one item: a robot needs the newest frame, not a queue of old ones."""

import threading
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mailbox(Generic[Item]):
    """One slot between two threads; putting replaces what nobody took."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: Item | None = None
        self._closed = False

    def put(self, item: Item) -> bool:
        """Leave an item; True if it replaced one that nobody took."""
        with self._changed:
            replaced = self._item is not None
            self._item = item
            self._changed.notify()
            return replaced

    def take(self) -> Item | None:
        """Wait for an item and take it; None once the mailbox is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._item is not None)
            item, self._item = self._item, None
            return None if self._closed else item

    def clear(self) -> None:
        """Throw away what lies there."""
        with self._changed:
            self._item = None

    def close(self) -> None:
        """Wake the taker for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
