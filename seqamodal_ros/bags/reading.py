# SPDX-License-Identifier: Apache-2.0
"""Opens recorded bags and finds the topic with images; nothing of a bag is ever written to."""

import os
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import yaml

from seqamodal_ros.bags.codec import COMPRESSED, IMAGE

STORAGES = {".mcap": "mcap", ".db3": "sqlite3"}
MCAP_MAGIC = b"\x89MCAP0\r\n"  # at both ends of a file


class BagError(ValueError):
    """A bag that cannot be read, or is of no use here; the text says why."""


class TopicError(ValueError):
    """A topic that has to be named, or named otherwise; by which option is known to whoever asks, and said by him."""


@dataclass(frozen=True)
class Bag:
    """A bag that is open for reading.

    Attributes:
        path: of its folder or its single file.
        storage: "mcap" or "sqlite3".
        version: of its metadata.yaml; 0 for a single file.
        sizes: bytes of each file that holds messages, by name.
        custom: what its recorder was told to note in metadata.yaml.
        reader: of rosbags.
    """

    path: Path
    storage: str
    version: int
    sizes: dict[str, int]
    custom: dict[str, str]
    reader: Any

    @property
    def connections(self) -> list[Any]:
        """rosbags' Connection of each topic."""
        return self.reader.connections

    def messages(self) -> Iterator[tuple[Any, int, bytes]]:
        """Connection, log time in nanoseconds and bytes of every message, by time, equal times as they were written.

        Raises:
            BagError: the bag is damaged, or holds fewer messages than it says.
        """
        count = 0
        try:
            for message in self.reader.messages():
                count += 1
                yield message
        except Exception as error:  # rosbags lets through those of struct, zstd, lz4 and SQLite
            raise BagError(f"{self.path} cannot be read beyond message {count}: {error}") from error
        if count != self.reader.message_count:  # where metadata.yaml and the files disagree, rosbags leaves topics out
            raise BagError(
                f"{self.path} says that it holds {self.reader.message_count} messages, but {count} can be read: "
                "`ros2 bag reindex` mends metadata.yaml"
            )


def check_for_sqlite(path: Path) -> None:
    """Raise BagError where rosbags would have SQLite read or write a file of another name, as it takes paths for URIs."""
    if marks := sorted(set("#?%") & set(str(path))):
        what = "rename the folder, or the file and what metadata.yaml calls it"
        raise BagError(f"{path}: SQLite takes {' and '.join(marks)} in a path for something else: {what}")


def check_for_journal(path: Path) -> None:
    """Raise BagError where a part of an SQLite file still lies in a file beside it, as rosbags passes over that in silence.

    It opens files as immutable, for which SQLite looks at no journal.
    """
    for file in (path, path.resolve()):  # SQLite puts a journal beside the file itself, a copy of links beside the link
        for journal in (Path(f"{file}-wal"), Path(f"{file}-journal")):
            if journal.is_file() and _in_use(journal):
                raise BagError(
                    f"{path} is not whole, a part of it lies in {journal}: let its recorder end where it is still at work; "
                    "where it was killed, copy the bag with both files, and put them together in the copy: "
                    f"`sqlite3 COPY/{file.name} 'PRAGMA wal_checkpoint(TRUNCATE)'`"
                )


def _in_use(journal: Path) -> bool:
    """Whether SQLite needs a journal: one that it is done with is empty or begins with a zero."""
    with journal.open("rb") as stream:
        return stream.read(1) not in (b"", b"\0")


@contextmanager
def open_bag(path: Path) -> Iterator[Bag]:
    """Open a bag: a folder with metadata.yaml, or a single .mcap or .db3 file. Nothing of it is ever written to.

    Raises:
        ImportError: rosbags is not installed.
        FileNotFoundError: there is no such file or folder.
        BagError: it is no bag, or a damaged one, one in a folder whose name SQLite cannot take, or one that lies partly in a
            journal of SQLite.
    """
    from rosbags.rosbag2 import Reader

    if not path.exists():
        raise FileNotFoundError(f"no such bag: {path}")
    if path.is_dir() and not (path / "metadata.yaml").is_file():
        raise BagError(f"{path} is no bag: it holds no metadata.yaml (`ros2 bag reindex` writes one where a recorder was killed)")
    if path.is_file() and path.suffix == ".bag":
        raise BagError(f"{path} is a bag of ROS 1: make one of ROS 2 by rosbags-convert, which comes with rosbags")
    if path.is_file() and path.suffix not in STORAGES:
        raise BagError(f"{path} is no bag: give the folder with metadata.yaml, or a .mcap or .db3 file")
    for each in [path] if path.is_file() else path.iterdir():
        if each.suffix == ".db3":
            check_for_sqlite(each)
            check_for_journal(each)
    try:
        reader = Reader(path)
        reader.open()
    except KeyError as error:
        what = "the encoding of a type's definition, or a part of a quality of service"
        raise BagError(f"{path} cannot be read as a bag: rosbags does not know {error}, {what}") from error
    except Exception as error:  # ReaderError, and those of YAML, struct and SQLite
        reason = error if str(error) else type(error).__name__
        raise BagError(f"{path} cannot be read as a bag: {_cut_off(path) or reason}") from error
    try:
        yield _described(path, reader)
    finally:
        reader.close()


def _cut_off(path: Path) -> str:
    """What to do where a recorder was killed before it had written the end of a file; "" where none was."""
    if path.is_dir() and not (path / "metadata.yaml").stat().st_size:
        return "its metadata.yaml is empty: remove it, and `ros2 bag reindex` writes it anew"
    for each in [path] if path.is_file() else sorted(path.glob("*.mcap")):
        with suppress(OSError), each.open("rb") as file:  # what cannot be read has another reason
            if file.read(len(MCAP_MAGIC)) == MCAP_MAGIC:
                file.seek(-len(MCAP_MAGIC), os.SEEK_END)
                if file.read() != MCAP_MAGIC:
                    return f"{each.name} has no end, as where its recorder was killed: `mcap recover {each.name} -o NEW` helps"
    return ""


def _described(path: Path, reader: Any) -> Bag:
    if path.is_file():
        return Bag(path, STORAGES[path.suffix], 0, {path.name: path.stat().st_size}, {}, reader)
    text = (path / "metadata.yaml").read_text()
    metadata = yaml.safe_load(text)["rosbag2_bagfile_information"]  # rosbags has checked it
    noted = yaml.load(text, Loader=yaml.BaseLoader)["rosbag2_bagfile_information"].get("custom_data")  # as text: 007 is no 7
    names = [PurePath(name).name for name in metadata["relative_file_paths"]]
    sizes = {name: (path / name).stat().st_size for name in names}
    return Bag(path, metadata["storage_identifier"], metadata["version"], sizes, noted if isinstance(noted, dict) else {}, reader)


def image_topic(bag: Bag, asked: str | None) -> str:
    """The topic with images that is asked for, or the only one.

    Raises:
        BagError: there is none.
        TopicError: it is not that one, or there are several and none is asked for; the message lists them.
    """
    counts: Counter[str] = Counter()
    for connection in bag.connections:
        if connection.msgtype in (IMAGE, COMPRESSED) and connection.msgcount:
            counts[connection.topic] += connection.msgcount
    listed = ", ".join(f"{topic} ({count} images)" for topic, count in sorted(counts.items()))
    if not counts:
        raise BagError(f"{bag.path} holds no images: no topic of sensor_msgs/Image or CompressedImage with messages")
    if asked is not None:
        if asked not in counts:
            raise TopicError(f"{bag.path} holds no images of the topic {asked}: use one of {listed}")
        return asked
    if len(counts) > 1:
        raise TopicError(f"{bag.path} holds several topics with images, name one: {listed}")
    return next(iter(counts))
