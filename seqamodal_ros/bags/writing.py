# SPDX-License-Identifier: Apache-2.0
"""Writes a copy of a bag with our messages in it, and gives it its name once it is whole."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seqamodal_ros.bags.codec import LAYERED_MASKS, Codec
from seqamodal_ros.bags.reading import STORAGES, Bag, BagError, TopicError

OUT_TOPIC = "/seqamodal/layered_masks"


def part_of(out: Path) -> Path:
    """The folder of what is not finished of a new bag."""
    return out.parent / f"{out.name}.part"


def refuse_out(bag: Path, out: Path) -> None:
    """Raise ValueError or FileExistsError where writing `out` would touch the bag, or what is there already."""
    target, source = out.resolve(), bag.resolve()
    if out.suffix in STORAGES:
        raise ValueError(f"OUT will be a folder, as rosbag2 writes bags: name it without {out.suffix}")
    if target == source or source in target.parents:
        raise ValueError(f"OUT must not be IN nor lie in it: {out}")
    if part_of(out).resolve() in (source, *source.parents):
        raise ValueError(f"what is not finished of OUT would lie in {part_of(out)}, where IN is: name another OUT")
    if os.path.lexists(out):
        rest = f" (if this command wrote it, it is whole, and {part_of(out)} can go)" if part_of(out).is_dir() else ""
        raise FileExistsError(f"{out} exists: remove it, or name another OUT{rest}")


def check_out_topic(bag: Bag, topic: str, codec: Codec) -> None:
    """Raise TopicError where a copy of the bag cannot have our messages on that topic, BagError where on none."""
    if not re.fullmatch(r"(/[A-Za-z_]\w*)+", topic, re.ASCII):
        raise TopicError(f"must be a topic with its whole name, such as {OUT_TOPIC}, not {topic!r}")
    for connection in bag.connections:
        if connection.topic == topic:
            raise TopicError(f"{bag.path} has a topic {topic} already: name another one")
        if connection.msgtype == LAYERED_MASKS and connection.digest not in ("", codec.digest):  # a bag keeps one of each name
            raise BagError(f"{bag.path} holds LayeredMasks of another version on {connection.topic}: they do not go together")


def write_bag(
    bag: Bag, folder: Path, storage: str, topic: str, codec: Codec, out_topic: str, answer: Callable[..., bytes | None]
) -> None:
    """Write a new bag: every message of `bag` as it is, and right after each image of `topic` its answer, if there is one.

    Args:
        bag: what is copied.
        folder: of the new bag; must not exist.
        storage: "mcap" or "sqlite3".
        topic: of the images.
        codec: knows the definition of our message.
        out_topic: of the answers, which get their image's log time.
        answer: gives the serialized answer to an image's bytes, message type and log time, or None.

    Raises:
        BagError: see `Bag.messages`.
        OSError, sqlite3.Error: the new bag cannot be written.
        Exception: whatever `answer` raises.
    """
    from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

    # What is older than version 9 was recorded by a ROS that may not read version 9.
    writer = Writer(folder, version=9 if bag.version >= 9 else 8, storage_plugin=StoragePlugin[storage.upper()])
    mode = (bag.reader.compression_mode or "").upper()
    if mode in ("FILE", "MESSAGE"):
        writer.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    for key, value in bag.custom.items():
        writer.set_custom_data(key, value)
    with writer:
        copies = _copy_connections(bag, writer, codec.store)
        masks = writer.add_connection(out_topic, LAYERED_MASKS, typestore=codec.store)
        for connection, nanoseconds, raw in bag.messages():
            writer.write(copies[connection.id], nanoseconds, raw)
            if connection.topic == topic:
                answered = answer(raw, connection.msgtype, nanoseconds)
                if answered is not None:
                    writer.write(masks, nanoseconds, answered)


class _NoHash(str):
    """The type hash that a bag does not know: empty, as rosbag2 writes it, but true, as rosbags' writer wants it."""

    def __bool__(self) -> bool:
        return True


def _copy_connections(bag: Bag, writer: Any, ours: Any) -> dict[int, Any]:
    """The new bag's connection for each id of the old one's; two of one topic, type and quality of service become one.

    `ours` is a typestore that knows our messages.
    """
    from rosbags.interfaces import MessageDefinitionFormat
    from rosbags.typesys import Stores, get_typestore

    # Bags without definitions are of Humble or before: what they mean by a type of ROS's own is what it was then.
    humble = get_typestore(Stores.ROS2_HUMBLE)
    copies: dict[int, Any] = {}
    for old in bag.connections:
        same = [copy for copy in writer.connections if (copy.topic, copy.msgtype, copy.ext) == (old.topic, old.msgtype, old.ext)]
        if same:
            copies[old.id] = same[0]
            continue
        kept = {
            "serialization_format": old.ext.serialization_format,
            "offered_qos_profiles": old.ext.offered_qos_profiles,
        }
        known = [store for store in (humble, ours) if old.msgtype in store.types]
        if old.msgdef.format == MessageDefinitionFormat.NONE and known:
            copies[old.id] = writer.add_connection(old.topic, old.msgtype, typestore=known[0], **kept)
            continue
        text, header = old.msgdef.data, f"{'=' * 80}\nIDL: "
        if old.msgdef.format == MessageDefinitionFormat.IDL and not text.startswith(header):
            text = f"{header}{old.msgtype}\n{text}"  # the one sign by which rosbags' writer tells IDL
        copy = writer.add_connection(old.topic, old.msgtype, msgdef=text, rihs01=old.digest or _NoHash(), **kept)
        copies[old.id] = writer.connections[-1] = copy._replace(digest=old.digest)
    return copies


def move_into_place(new: Path, out: Path) -> None:
    """Give a finished bag its name; it is on the disk before it has it.

    Raises:
        OSError: the files cannot be flushed or moved.
    """
    for path in [*new.iterdir(), new]:
        _flush(path)
    new.rename(out)
    _flush(out.parent)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
