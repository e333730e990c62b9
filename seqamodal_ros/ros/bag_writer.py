# SPDX-License-Identifier: Apache-2.0
"""An MCAP bag of messages, our own definitions included, readable with and without ROS."""

from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message
from rosbags.interfaces import Connection
from rosbags.rosbag2 import StoragePlugin, Writer

from seqamodal_ros.bags.codec import Codec


class BagWriter:
    """Writes a rosbag2 folder whose file is MCAP; close it, or it cannot be read."""

    def __init__(self, folder: Path):
        self._typestore = Codec().store
        self._writer = Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP)
        self._writer.open()
        self._connections: dict[str, Connection] = {}

    def write(self, topic: str, message: Any, nanoseconds: int) -> None:
        """Append a ROS message; `nanoseconds` is when it was received."""
        if topic not in self._connections:
            package = type(message).__module__.partition(".")[0]
            name = f"{package}/msg/{type(message).__name__}"
            self._connections[topic] = self._writer.add_connection(topic, name, typestore=self._typestore)
        self._writer.write(self._connections[topic], nanoseconds, serialize_message(message))

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()
