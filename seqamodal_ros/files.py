# SPDX-License-Identifier: Apache-2.0
"""Files that are written whole or not at all, where a disk is full or the process is killed."""

import uuid
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside the one of before, if any, then put it in its place; where that is a link, in the place it leads to.

    Raises:
        OSError: it cannot be written, and the message says where and why; what was there before is left as it was.
    """
    target = path.resolve()
    part = target.with_name(f".{uuid.uuid4().hex}.part")  # no process id: containers that share a folder have equal ones
    try:
        try:
            part.write_bytes(data)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(f"cannot write {path}: {error.strerror}; check that the folder exists and has room") from error
