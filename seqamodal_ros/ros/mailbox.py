# SPDX-License-Identifier: Apache-2.0
"""A mailbox of one item a sender, as a robot needs the newest frame and no queue of old ones; and a few requested ones."""

import threading
from collections import deque
from typing import Generic, TypeVar

Item = TypeVar("Item")


MOST_REQUESTED = 8  # of a sender


class Mailbox(Generic[Item]):
    """A slot for each sender between two threads, where putting replaces what nobody took.

    Requested items and what senders leave take turns, and no requested item is lost. The taker can be woken for nothing, too.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._items: dict[str, Item] = {}
        self._requested: deque[tuple[str, Item]] = deque()
        self._requested_last = False
        self._woken = False
        self._closed = False

    def put(self, item: Item, sender: str = "") -> bool:
        """Leave an item; True if it replaced one of the same sender that nobody took."""
        with self._changed:
            replaced = self._items.pop(sender, None) is not None
            self._items[sender] = item
            self._changed.notify()
            return replaced

    def request(self, item: Item, sender: str = "") -> bool:
        """Leave an item that no other replaces; False where `MOST_REQUESTED` of the same sender wait already."""
        with self._changed:
            if sum(its_sender == sender for its_sender, _ in self._requested) >= MOST_REQUESTED:
                return False
            self._requested.append((sender, item))
            self._changed.notify()
            return True

    def take(self) -> list[Item] | None:
        """Wait for something and take it: one requested item, or what all senders left; None once the mailbox is closed.

        Nothing, an empty list, where the taker was woken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._woken or bool(self._items) or bool(self._requested))
            if self._closed:
                return None
            if self._woken:
                self._woken = False
                return []
            self._requested_last = bool(self._requested) and not (self._items and self._requested_last)
            if self._requested_last:
                return [self._requested.popleft()[1]]
            items, self._items = list(self._items.values()), {}
            return items

    def wake(self) -> None:
        """Wake the taker, though there may be nothing to take."""
        with self._changed:
            self._woken = True
            self._changed.notify()

    def clear(self) -> None:
        """Throw away what lies there."""
        with self._changed:
            self._items.clear()
            self._requested.clear()

    def close(self) -> None:
        """Wake the taker for good."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
