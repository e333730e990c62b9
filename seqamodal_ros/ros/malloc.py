# SPDX-License-Identifier: Apache-2.0
"""The process's word to glibc, so that a model that is loaded anew takes no more memory each time; other C libraries get none.

Where the environment says something else (`MALLOC_ARENA_MAX` and its kind, or `GLIBC_TUNABLES`), that holds.
"""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8  # of malloc.h
VARIABLES = {
    M_TRIM_THRESHOLD: "MALLOC_TRIM_THRESHOLD_",
    M_MMAP_THRESHOLD: "MALLOC_MMAP_THRESHOLD_",
    M_ARENA_MAX: "MALLOC_ARENA_MAX",
}
ARENAS = 2
MEGABYTE = 1 << 20


def share_arenas() -> None:
    """Have all threads share two arenas: else each takes another, up to eight a core, that keeps what was freed in it."""
    _tell(M_ARENA_MAX, ARENAS)


@contextmanager
def loading() -> Iterator[None]:
    """A model loads within: blocks from a megabyte on get pages of their own, which leave no holes in the heap once freed.

    Afterwards, and for good, that begins at 32 MB, the most to which glibc raises it by itself, and twice as much may be free at
    the heap's end: with pages of its own for each result, PyTorch computes a third longer.
    """
    _tell(M_MMAP_THRESHOLD, MEGABYTE)
    try:
        yield
    finally:
        _tell(M_MMAP_THRESHOLD, 32 * MEGABYTE)
        _tell(M_TRIM_THRESHOLD, 64 * MEGABYTE)


def give_back() -> None:
    """Return what was freed to the system; glibc keeps it, and keeps more of it for each new thread that worked."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)


def _tell(option: int, value: int) -> None:
    if VARIABLES[option] in os.environ or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    if mallopt := getattr(ctypes.CDLL(None), "mallopt", None):
        mallopt(option, value)
