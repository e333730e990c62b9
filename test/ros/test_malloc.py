# SPDX-License-Identifier: Apache-2.0
"""What glibc is told, in a process of its own, as it is told for good."""

import os
import platform
import subprocess
import sys

import pytest

SCRIPT = """
import ctypes
from seqamodal_ros.ros import malloc

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo2.restype = Info
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def has_pages_of_its_own(megabytes):
    before = libc.mallinfo2().hblks
    block = libc.malloc(megabytes << 20)
    own = libc.mallinfo2().hblks - before
    libc.free(block)
    return own

print(has_pages_of_its_own(24), has_pages_of_its_own(4))  # glibc raises its threshold to what was freed
malloc.give_back()  # else there is room in the heap
try:
    with malloc.loading():
        print(has_pages_of_its_own(4))
        raise KeyError
except KeyError:
    print(has_pages_of_its_own(4), has_pages_of_its_own(40))
"""


def answers(**environment: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, env={**os.environ, **environment}
    )
    assert not done.stderr
    return done.stdout.split()


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_large_blocks_have_pages_of_their_own_while_a_model_loads():
    assert answers() == ["1", "0", "1", "0", "1"]


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that is told")
def test_what_the_environment_says_holds():
    assert answers(MALLOC_MMAP_THRESHOLD_=str(8 << 20)) == ["1", "0", "0", "0", "1"]
    assert answers(GLIBC_TUNABLES=f"glibc.malloc.mmap_threshold={8 << 20}") == ["1", "0", "0", "0", "1"]
