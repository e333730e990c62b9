# SPDX-License-Identifier: Apache-2.0
"""Files are written whole or not at all."""

import resource
from pathlib import Path

import pytest

from seqamodal_ros.files import write_whole


def test_a_file_takes_the_place_of_another_and_nothing_else_is_left(tmp_path):
    path = tmp_path / ("n" * 250)  # as long as names may be, nearly
    for data in (b"one", b"another"):
        write_whole(path, data)
        assert path.read_bytes() == data
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_one(tmp_path):
    target, link = tmp_path / "target", tmp_path / "link"
    link.symlink_to(target)
    write_whole(link, b"data")
    assert link.is_symlink() and target.read_bytes() == b"data"


def test_no_two_parts_have_one_name(tmp_path, monkeypatch):
    """As containers that share a folder may have processes of one id."""
    parts = []
    replace = Path.replace
    monkeypatch.setattr(Path, "replace", lambda part, target: parts.append(part) or replace(part, target))
    for name in ("one", "another"):
        write_whole(tmp_path / name, b"data")
    assert len(set(parts)) == 2 and {part.parent for part in parts} == {tmp_path}


def test_a_full_disk_leaves_what_was_there(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"before")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="cannot write .*file: File too large; check that the folder exists and has room"):
            write_whole(path, bytes(8192))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("name", "why"), [("none/file", "No such file or directory"), ("", "Is a directory")])
def test_a_place_where_no_file_can_be(tmp_path, name, why):
    (tmp_path / "within").mkdir()
    with pytest.raises(OSError, match=f"cannot write .*: {why}"):
        write_whole(tmp_path / "within" / name, b"data")
    assert [path.name for path in tmp_path.iterdir()] == ["within"]
