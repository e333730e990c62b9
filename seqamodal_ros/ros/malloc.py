# SPDX-License-Identifier: Apache-2.0
"""The node's word to glibc, so that a model that is loaded again and again takes no more memory; other C libraries get none."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
ARENAS = 2
LARGE = 1 << 20  # bytes of a block that gets pages of its own while a model loads
LARGEST = 32 << 20  # likewise otherwise, and twice as much may be free at the heap's end: where glibc itself ends up in time


def share_arenas() -> None:
    """Have all threads share two arenas: else each takes another, up to eight a core, that keeps what was freed in it."""
    _tell((M_ARENA_MAX, ARENAS))


@contextmanager
def loading() -> Iterator[None]:
    """A model loads within: its large blocks get pages of their own, which leave no holes in the heap once they are freed.

    Not otherwise, as it would take PyTorch a third longer to compute.
    """
    _tell((M_MMAP_THRESHOLD, LARGE))
    try:
        yield
    finally:
        _tell((M_MMAP_THRESHOLD, LARGEST), (M_TRIM_THRESHOLD, 2 * LARGEST))


def give_back() -> None:
    """Return what was freed to the system; glibc keeps it, and keeps more of it for each new thread that worked."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _tell(*options: tuple[int, int]) -> None:
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        for option, value in options:
            mallopt(option, value)
