# SPDX-License-Identifier: Apache-2.0
"""Files that are whole or not there."""

import contextlib
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file beside the one of before, if any, then put it in its place.

    Raises:
        OSError: it cannot be written, and the message says where and why; what was there before is left as it was.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_bytes(data)
        part.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise OSError(f"cannot write {path}: {error.strerror}; check that the folder exists and has room") from error
