# SPDX-License-Identifier: Apache-2.0
"""`process_bag`: real bags in, the same bags with masks out; interrupted, killed and resumed; one line for what is wrong."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml

from seqamodal_ros.__main__ import main as package_main
from seqamodal_ros.bags.answers import Answers, open_answers
from seqamodal_ros.bags.codec import COMPRESSED, IMAGE, LAYERED_MASKS, Codec
from seqamodal_ros.bags.reading import open_bag
from seqamodal_ros.bags.writing import OUT_TOPIC
from seqamodal_ros.commands import process_bag
from seqamodal_ros.commands.arguments import INTERRUPTED
from seqamodal_ros.commands.process_bag import main
from seqamodal_ros.messages import InvalidMessage, message_to_scene
from seqamodal_ros.perceiver import Perceiver

rosbag2 = pytest.importorskip("rosbags.rosbag2")
from rosbags.interfaces import (  # noqa: E402
    MessageDefinitionFormat,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.typesys import Stores, get_typestore  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
STORAGES = {"mcap": rosbag2.StoragePlugin.MCAP, "sqlite3": rosbag2.StoragePlugin.SQLITE3}
STORE = get_typestore(Stores.LATEST)
NO_TIME = QosTime(0, 0)
LATCHED = Qos(
    QosHistory.KEEP_LAST, 1, QosReliability.RELIABLE, QosDurability.TRANSIENT_LOCAL, NO_TIME, NO_TIME, QosLiveliness.AUTOMATIC,
    NO_TIME, False,
)  # fmt: skip
FOREIGN = "gripper_msgs/msg/Grip"  # of a package that nobody here has
BEGAN = 1_700_000_000_000_000_000  # nanoseconds


def types(name: str) -> type:
    return STORE.types[name]


def header(number: int):
    stamp = types("builtin_interfaces/msg/Time")(sec=-5 + number, nanosec=999_999_999 - number)
    return types("std_msgs/msg/Header")(stamp=stamp, frame_id=f"kamera_ü_{number}")


def pixels(number: int) -> np.ndarray:
    """uint8 [48, 64, 3] of random blocks."""
    blocks = np.random.default_rng(number).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return blocks.repeat(16, 0).repeat(16, 1)


def image(number: int, **changes) -> bytes:
    """A serialized sensor_msgs/Image; `changes` of its fields."""
    shown = pixels(number)
    fields = {"height": 48, "width": 64, "encoding": "rgb8", "is_bigendian": 0, "step": 192, "data": shown.reshape(-1)}
    return bytes(STORE.serialize_cdr(types(IMAGE)(header=header(number), **{**fields, **changes}), IMAGE))


def compressed(number: int, **changes) -> bytes:
    data = cv2.imencode(".png", pixels(number)[..., ::-1])[1].reshape(-1)
    return bytes(
        STORE.serialize_cdr(types(COMPRESSED)(header=header(number), **{"format": "png", "data": data, **changes}), COMPRESSED)
    )


def text(words: str) -> bytes:
    return bytes(STORE.serialize_cdr(types("std_msgs/msg/String")(data=words), "std_msgs/msg/String"))


def write_bag(folder: Path, storage: str, images: dict[str, list[bytes]], kinds: dict[str, str] | None = None, **changes) -> Path:
    """A bag of image topics, of a latched topic of strings and of one whose type only the bag itself defines."""
    writer = rosbag2.Writer(folder, version=changes.get("version", 9), storage_plugin=STORAGES[storage])
    if mode := changes.get("compression"):
        writer.set_compression(mode, rosbag2.CompressionFormat.ZSTD)
    writer.set_custom_data("operator", "night shift")
    writer.set_custom_data("run", "007")
    with writer:
        cameras = {
            topic: writer.add_connection(topic, (kinds or {}).get(topic, IMAGE), typestore=STORE, offered_qos_profiles=[LATCHED])
            for topic in images
        }
        words = writer.add_connection("/words", "std_msgs/msg/String", typestore=STORE, offered_qos_profiles=[LATCHED])
        grips = writer.add_connection("/grips", FOREIGN, msgdef="uint8 force\nfloat64[2] where\n", rihs01="RIHS01_" + "0" * 64)
        for number in range(max([len(messages) for messages in images.values()], default=0)):
            at = BEGAN + number * 33_000_000
            writer.write(words, at - 7, text(f"before {number}"))
            for topic, messages in images.items():
                if number < len(messages):
                    writer.write(cameras[topic], at, messages[number])
            writer.write(grips, at, bytes([0, 1, 0, 0, number, *range(23)]))  # at the image's own time
            writer.write(words, at + 9, text(f"after {number}" * number))
    return folder


def messages(path: Path) -> list[tuple[str, str, int, bytes]]:
    with rosbag2.Reader(path) as reader:
        return [(connection.topic, connection.msgtype, at, bytes(raw)) for connection, at, raw in reader.messages()]


def digests(path: Path) -> dict[str, tuple[str, int]]:
    files = [path] if path.is_file() else sorted(path.iterdir())
    return {file.name: (hashlib.sha256(file.read_bytes()).hexdigest(), file.stat().st_mtime_ns) for file in files}


def without_times(path: Path) -> list[tuple[str, str, int, bytes]]:
    """The messages of a bag, with the seconds that masks took set to nothing."""
    store = Codec().store
    found = []
    for topic, kind, at, raw in messages(path):
        if kind == LAYERED_MASKS:
            masks = store.deserialize_cdr(raw, LAYERED_MASKS)
            masks.inference_time.sec = masks.inference_time.nanosec = 0
            raw = bytes(store.serialize_cdr(masks, LAYERED_MASKS))
        found.append((topic, kind, at, raw))
    return found


def killed(bag: Path, mode: str, folder: Path) -> Path:
    """A copy of a sqlite3 bag's only file, as a recorder leaves it that is killed after it wrote twenty more images.

    In the mode WAL each of them was committed, in others none, though some are in the file.
    """
    folder.mkdir()
    (file,) = bag.glob("*.db3")
    database = sqlite3.connect(file, isolation_level=None)
    database.execute(f"PRAGMA journal_mode = {mode}")
    database.execute("PRAGMA cache_size = 1")  # page: what goes beyond it is written
    if mode != "WAL":
        database.execute("BEGIN")
    topic = database.execute("SELECT id FROM topics WHERE name = '/image'").fetchone()[0]
    more = [(topic, BEGAN * 2, image(9))] * 20
    database.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", more)
    for each in bag.glob(f"{file.name}*"):
        shutil.copy(each, folder)
    database.close()
    return folder / file.name


@pytest.fixture
def process(run_command):
    """Runs the command with the small model; gives exit code, stdout and stderr."""
    return partial(run_command, main)


@pytest.fixture
def no_model(monkeypatch):
    """Fails the test where the model is loaded before what is wrong is said."""
    monkeypatch.setattr(Perceiver, "load", lambda *_, **__: pytest.fail("the model was loaded"))


def error(err: str) -> str:
    """The only line of stderr, without its beginning."""
    (line,) = err.splitlines()
    assert line.startswith("process_bag: error: ")
    return line.removeprefix("process_bag: error: ")


@pytest.mark.parametrize("storage", STORAGES)
def test_the_copy_holds_the_bag_and_the_masks(process, small_model, tmp_path, storage):
    bag = write_bag(tmp_path / "in", storage, {"/camera/image": [image(k) for k in range(3)]})
    before = digests(bag)
    code, out, _ = process(bag, tmp_path / "deep" / "out", "--num-samples", 2, "--seed", 7)
    assert code == 0
    assert digests(bag) == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "in"]
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["out"]
    assert re.search(r"^3 images: 3 answered, 0 skipped, [\d.]+ s$", out, re.MULTILINE)

    written = messages(tmp_path / "deep" / "out")
    assert [message for message in written if message[0] != OUT_TOPIC] == messages(bag)
    store, perceiver = Codec().store, Perceiver.load(str(small_model), "cpu")
    for number in range(3):
        (at,) = [place for place, message in enumerate(written) if message[3] == image(number)]
        topic, kind, nanoseconds, raw = written[at + 1]  # right after its image, before all else of that time
        assert (topic, kind, nanoseconds) == (OUT_TOPIC, LAYERED_MASKS, BEGAN + number * 33_000_000)
        masks = store.deserialize_cdr(raw, LAYERED_MASKS)
        assert masks.header == header(number)
        assert masks.layers[0].amodal.header == header(number)
        assert masks.model_id == perceiver.model_id
        read, seen = message_to_scene(masks), perceiver(pixels(number), 2, 7)
        for name in ("amodal", "visible", "probability", "hypotheses"):
            np.testing.assert_array_equal(getattr(read, name), getattr(seen, name))
        assert [vars(obj).keys() for obj in read.objects] == [vars(obj).keys() for obj in seen.objects]
        assert [obj.occluded_by for obj in read.objects] == [obj.occluded_by for obj in seen.objects]
        assert masks.pick_order.tolist() == list(seen.pick_order)
        assert (masks.source_width, masks.source_height, masks.num_samples, masks.seed) == (64, 48, 2, 7)
    assert len(written) == 3 * 5


@pytest.mark.parametrize("storage", STORAGES)
def test_topics_keep_type_definition_hash_and_quality_of_service(process, tmp_path, storage):
    bag = write_bag(tmp_path / "in", storage, {"/image": [image(0)]})
    assert process(bag, tmp_path / "out")[0] == 0

    def described(path: Path) -> dict[str, tuple]:
        with rosbag2.Reader(path) as reader:
            return {c.topic: (c.msgtype, c.msgdef, c.digest, c.ext, c.msgcount) for c in reader.connections}

    was, now = described(bag), described(tmp_path / "out")
    assert LATCHED in was["/words"][3].offered_qos_profiles
    ours = now.pop(OUT_TOPIC)
    assert now == was
    assert (ours[0], ours[2], ours[4]) == (LAYERED_MASKS, Codec().digest, 1)
    assert "MSG: seqamodal_msgs/AmodalLayer" in ours[1].data
    metadata = yaml.safe_load((tmp_path / "out" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]
    assert metadata["storage_identifier"] == storage
    assert metadata["custom_data"] == {"operator": "night shift", "run": "007"}


@pytest.mark.parametrize("storage", STORAGES)
def test_a_bag_that_defines_no_types(process, tmp_path, storage):
    """Humble's sqlite3 bags; an unknown type is carried along as it is."""
    bag = write_bag(tmp_path / "in", "sqlite3", {"/image": [image(0)]}, version=8)
    database = sqlite3.connect(bag / "in.db3")
    database.executescript(
        "DROP TABLE message_definitions; UPDATE schema SET schema_version = 3;"
        "ALTER TABLE topics DROP COLUMN type_description_hash"
    )
    database.close()
    metadata = yaml.safe_load((bag / "metadata.yaml").read_text())
    metadata["rosbag2_bagfile_information"]["version"] = 5
    for topic in metadata["rosbag2_bagfile_information"]["topics_with_message_count"]:
        del topic["topic_metadata"]["type_description_hash"]
    (bag / "metadata.yaml").write_text(yaml.safe_dump(metadata))

    code, _, err = process(bag, tmp_path / "out", "--storage", storage)
    assert code == 0, err
    assert [message for message in messages(tmp_path / "out") if message[0] != OUT_TOPIC] == messages(bag)
    with rosbag2.Reader(tmp_path / "out") as reader:
        definitions = {connection.topic: (connection.msgdef, connection.digest) for connection in reader.connections}
    assert definitions["/grips"][0].data == definitions["/grips"][1] == ""
    assert definitions["/image"][0].format == MessageDefinitionFormat.MSG
    assert definitions["/image"][1] == STORE.hash_rihs01(IMAGE)
    assert yaml.safe_load((tmp_path / "out" / "metadata.yaml").read_text())["rosbag2_bagfile_information"]["version"] == 8


@pytest.mark.parametrize("storage", STORAGES)
def test_a_single_file(process, tmp_path, storage):
    bag = write_bag(tmp_path / "in", storage, {"/image": [image(0), image(1)]})
    (file,) = bag.glob("in.*")
    code, _, err = process(file, tmp_path / "out")
    assert code == 0, err
    assert [message for message in messages(tmp_path / "out") if message[0] != OUT_TOPIC] == messages(bag)


@pytest.mark.parametrize("mode", [rosbag2.CompressionMode.MESSAGE, rosbag2.CompressionMode.FILE])
def test_compression_stays(process, tmp_path, mode):
    bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]}, compression=mode)
    before = digests(bag)
    assert process(bag, tmp_path / "out")[0] == 0
    assert digests(bag) == before
    assert [message for message in messages(tmp_path / "out") if message[0] != OUT_TOPIC] == messages(bag)
    with rosbag2.Reader(tmp_path / "out") as reader:
        assert reader.compression_mode == mode.name.lower()


def test_compressed_images(process, tmp_path, small_model):
    bag = write_bag(tmp_path / "in", "mcap", {"/image/compressed": [compressed(4)]}, {"/image/compressed": COMPRESSED})
    assert process(bag, tmp_path / "out")[0] == 0
    (raw,) = [raw for topic, _, _, raw in messages(tmp_path / "out") if topic == OUT_TOPIC]
    masks = Codec().store.deserialize_cdr(raw, LAYERED_MASKS)
    assert masks.header == header(4)
    np.testing.assert_array_equal(message_to_scene(masks).amodal, Perceiver.load(str(small_model), "cpu")(pixels(4)).amodal)


def test_options(process, tmp_path):
    bag = write_bag(tmp_path / "in", "sqlite3", {"/a": [image(k) for k in range(5)], "/b": [image(9)]})
    options = ("--image", "/a", "--every", 2, "--no-hypotheses", "--out-topic", "/m", "--fit", "centre_crop", "--storage", "mcap")
    code, out, _ = process(bag, tmp_path / "out", *options)
    assert code == 0
    assert "5 images, 3 looked at: 3 answered" in out
    written = messages(tmp_path / "out")
    ours = [Codec().store.deserialize_cdr(raw, kind) for topic, kind, _, raw in written if topic == "/m"]
    assert [masks.header.frame_id for masks in ours] == [header(k).frame_id for k in (0, 2, 4)]
    assert [len(layer.hypotheses) for masks in ours for layer in masks.layers] == [0] * sum(len(m.layers) for m in ours)
    assert ours[0].offset_x == 8  # of the centre crop
    assert (tmp_path / "out" / "out.mcap").is_file()
    assert [message for message in written if message[0] != "/m"] == messages(bag)


def test_a_region_alone_is_looked_at(process, tmp_path):
    bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
    assert process(bag, tmp_path / "out", "--region", 10, 8, 32, 32)[0] == 0
    (masks,) = [
        Codec().store.deserialize_cdr(raw, kind) for topic, kind, _, raw in messages(tmp_path / "out") if topic == OUT_TOPIC
    ]
    assert (masks.offset_x, masks.offset_y, masks.scale_x * masks.mask_width) == (10, 8, 32)


@pytest.mark.parametrize("command", ["process_bag", "predict"])
def test_a_region_without_pixels_is_refused_at_once(command, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "seqamodal_ros", command, "in", "--out", "out", "--region", "5", "5", "0", "9"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 2
    assert "argument --region: width and height must be 1 or more, not 0 and 9" in done.stderr


def test_images_that_a_region_leaves_are_skipped(process, tmp_path):
    bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
    code, _, err = process(bag, tmp_path / "out", "--region", 40, 8, 32, 32)
    assert code == 1
    assert "skipped image 1" in err
    assert "the region x=40 y=8 32x32 must be non-empty and lie in the 64x48 image" in err


class TestBadImages:
    BAD = {
        "encoding 'jubjub' is not supported": {"encoding": "jubjub"},
        "bytes of data, but 64x48 rgb8 takes": {"data": np.zeros(10, np.uint8)},
        "an image of 0x48 pixels": {"width": 0},
        "step is 3 bytes": {"step": 3},
        "encoding '32FC1' is not supported": {"encoding": "32FC1"},
    }

    def test_they_are_skipped_and_counted(self, process, tmp_path):
        sent = [image(0), *[image(1, **changes) for changes in self.BAD.values()], image(2)[:40], b"", image(3)]
        bag = write_bag(tmp_path / "in", "mcap", {"/image": sent})
        code, out, err = process(bag, tmp_path / "out")
        assert code == 0
        lines = [line for line in err.splitlines() if "skipped" in line]
        assert len(lines) == 7
        for number, (line, reason) in enumerate(
            zip(lines, [*self.BAD, "bytes that are no ", "bytes that are no "], strict=True), 2
        ):
            assert line.startswith(f"process_bag: skipped image {number} at 1700000000.")
            assert reason in line
        assert re.search(
            r"^9 images: 2 answered, 7 skipped \(2 x bytes that are no sensor_msgs/msg/Image; 1 x .*\.\.\.\), ", out, re.M
        )
        written = messages(tmp_path / "out")
        assert [message for message in written if message[0] != OUT_TOPIC] == messages(bag)
        assert [message[2] for message in written if message[0] == OUT_TOPIC] == [BEGAN, BEGAN + 8 * 33_000_000]

    def test_where_all_are_there_is_no_new_bag(self, process, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/depth": [image(k, encoding="16UC1") for k in range(25)]})
        code, out, err = process(bag, tmp_path / "out")
        assert code == 1
        assert err.splitlines()[-1] == f"process_bag: error: no image could be answered, so {tmp_path / 'out'} was not written"
        assert len(err.splitlines()) == 21
        assert "(further ones are only counted)" in err.splitlines()[-2]
        assert "25 images: 0 answered, 25 skipped (25 x encoding '16UC1' is not supported" in out
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    @pytest.mark.parametrize(("kind", "whole", "before_data"), [(IMAGE, image(1), 64), (COMPRESSED, compressed(1), 40)],
                             ids=["raw", "compressed"])  # fmt: skip
    def test_whatever_the_bytes_are_it_is_one_error(self, kind, whole, before_data):
        """Each length, and bytes changed in what comes before the data."""
        codec = Codec()
        random = np.random.default_rng(0)
        damaged = [whole[:length] for length in range(before_data + 20)]
        for _ in range(300):
            copy = bytearray(whole)
            for place in random.integers(0, before_data, random.integers(1, 4)):
                copy[place] = random.integers(0, 256)
            damaged.append(bytes(copy))
        for raw in damaged:
            try:
                _, found = codec.image(raw, kind)
            except InvalidMessage:
                continue
            assert found.dtype == np.uint8
            assert found.ndim == 3


class TestInterruption:
    IMAGES = 40

    def start(self, *arguments) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", "seqamodal_ros", "process_bag", *map(str, arguments)]
        kept = signal.signal(signal.SIGINT, signal.default_int_handler)  # a child must not inherit that it is ignored
        try:
            return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        finally:
            signal.signal(signal.SIGINT, kept)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=["SIGINT", "SIGKILL"])
    def test_it_goes_on_where_it_stopped(self, process, small_model, tmp_path, monkeypatch, number):
        storage = "mcap" if number == signal.SIGINT else "sqlite3"
        bag = write_bag(tmp_path / "in", storage, {"/image": [image(k) for k in range(self.IMAGES)]})
        before = digests(bag)
        running = self.start(bag, tmp_path / "out", "--model", small_model, "--device", "cpu")
        assert re.match(f"process_bag: 1 of {self.IMAGES} images", running.stderr.readline())
        time.sleep(0.05)
        running.send_signal(number)
        _, err = running.communicate(timeout=60)
        assert running.returncode == (INTERRUPTED if number == signal.SIGINT else -signal.SIGKILL)
        assert "Traceback" not in err
        if number == signal.SIGINT:
            assert err.splitlines()[-1] == "process_bag: interrupted; the same command goes on from here"
        assert not (tmp_path / "out").exists()

        code, _, err = process(bag, tmp_path / "out", "--seed", 1)
        assert code == 2
        assert "out.part was begun with seed 0, this is 1: give the command that began it" in error(err)
        code, _, err = process(bag, tmp_path / "out", "--region", 1, 2, 30, 40)
        assert code == 2
        assert "out.part was begun with region None, this is [1, 2, 30, 40]:" in error(err)

        looked = []
        see = Codec.image
        monkeypatch.setattr(Codec, "image", lambda self, raw, kind: looked.append(raw) or see(self, raw, kind))
        code, out, _ = process(bag, tmp_path / "out")
        assert code == 0
        kept = int(re.search(r"(\d+) answers kept", out)[1])
        assert 1 <= kept < self.IMAGES
        assert len(looked) == self.IMAGES - kept
        assert f"{self.IMAGES} images: {self.IMAGES} answered, 0 skipped" in out
        assert not (tmp_path / "out.part").exists()
        assert digests(bag) == before

        assert process(bag, tmp_path / "unbroken")[0] == 0
        assert without_times(tmp_path / "out") == without_times(tmp_path / "unbroken")

    def test_another_command_does_not_go_on_with_what_one_began(self, process, tmp_path, monkeypatch, centred_model):
        """Each of its options changes the answers, or the bag."""
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)], "/other": [image(1)]})
        command = [bag, tmp_path / "out", "--image", "/image"]

        def full(*arguments):
            write(*arguments)
            raise OSError(28, "No space left on device")

        write = process_bag.write_bag
        with monkeypatch.context() as patched:
            patched.setattr(process_bag, "write_bag", full)
            assert process(*command)[0] == 1
        changes = {
            "image": ["--image", "/other"],
            "out-topic": ["--out-topic", "/masks"],
            "storage": ["--storage", "sqlite3"],
            "every": ["--every", 2],
            "num-samples": ["--num-samples", 2],
            "fit": ["--fit", "centre_crop"],
            "hypotheses": ["--no-hypotheses"],
        }
        for name, options in changes.items():
            code, _, err = process(*command, *options)
            assert (code, f"out.part was begun with {name} " in error(err)) == (2, True), err
        code, _, err = process(*command, model=centred_model)
        assert (code, "out.part was begun with model small@" in error(err)) == (2, True), err
        code, out, _ = process(*command)
        assert (code, "1 answers kept" in out) == (0, True)

    @pytest.mark.parametrize("moment", ["write_bag", "move_into_place"])
    def test_a_failure_at_the_end_loses_no_answer(self, process, tmp_path, monkeypatch, moment):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(k) for k in range(3)]})

        def full(*arguments):
            if moment == "write_bag":
                real(*arguments)
            raise OSError(28, "No space left on device")

        real = getattr(process_bag, moment)
        with monkeypatch.context() as patched:
            patched.setattr(process_bag, moment, full)
            code, _, err = process(bag, tmp_path / "out")
        assert code == 1
        assert "No space left on device" in err.splitlines()[-1]
        assert not (tmp_path / "out").exists()
        code, out, _ = process(bag, tmp_path / "out")
        assert code == 0
        assert "3 answers kept" in out

    def test_want_of_memory_on_the_way_loses_no_answer(self, process, tmp_path, monkeypatch):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(k) for k in range(3)]})
        see, seen = Perceiver.__call__, []

        def full(*arguments, **options):
            if len(seen) == 2:
                raise RuntimeError("CUDA out of memory.\nTried to allocate 2 GiB")
            seen.append(arguments)
            return see(*arguments, **options)

        with monkeypatch.context() as patched:
            patched.setattr(Perceiver, "__call__", full)
            code, _, err = process(bag, tmp_path / "out")
        assert code == 1
        assert err.splitlines()[-1].startswith("process_bag: error: CUDA out of memory.")
        assert not (tmp_path / "out").exists()
        code, out, _ = process(bag, tmp_path / "out")
        assert code == 0
        assert "2 answers kept" in out

    def test_an_image_that_changed_meanwhile_is_seen_anew(self, process, tmp_path, monkeypatch):
        """Answers belong to an image's bytes, wherever it stands."""
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0), image(1)]})
        with monkeypatch.context() as patched:
            patched.setattr(process_bag, "move_into_place", lambda *_: (_ for _ in ()).throw(OSError("full")))
            assert process(bag, tmp_path / "out")[0] == 1
        shutil.rmtree(bag)
        write_bag(bag, "mcap", {"/image": [image(2), image(0)]})
        code, out, _ = process(bag, tmp_path / "out")
        assert code == 0
        assert "2 answers kept" in out
        assert process(bag, tmp_path / "fresh")[0] == 0
        assert without_times(tmp_path / "out") == without_times(tmp_path / "fresh")

    def test_two_at_once(self, process, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
        with open_answers(tmp_path / "out.part", {}):
            code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err) == f"another process is at work on {tmp_path / 'out.part'}"

    def test_a_folder_of_somebody_else(self, process, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
        (tmp_path / "out.part").mkdir()
        (tmp_path / "out.part" / "thesis.tex").write_text("mine")
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert "out.part exists and is no unfinished bag of this command" in error(err)
        (tmp_path / "out.part" / "answers.sqlite3").write_text("no database, though it is called so " * 50)
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert "answers.sqlite3 is damaged" in error(err)
        assert (tmp_path / "out.part" / "thesis.tex").read_text() == "mine"

    def test_a_file_that_cannot_be_opened(self, tmp_path):
        free = os.dup(0)
        os.close(free)
        limits = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
        try:
            with (
                pytest.raises(OSError, match="cannot write .*answers.sqlite3: unable to open"),
                open_answers(tmp_path / "part", {}),
            ):
                pass
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, limits)

    def test_an_answer_is_on_the_disk_once_it_is_kept(self, tmp_path):
        with open_answers(tmp_path / "part", {"seed": 1}) as answers:
            answers.keep(b"image", b"answer")
            shutil.copytree(tmp_path / "part", tmp_path / "copy")  # what a kill would leave
        with open_answers(tmp_path / "copy", {"seed": 1}) as answers:
            assert isinstance(answers, Answers)
            assert (len(answers), answers.get(b"image"), answers.get(b"other")) == (1, b"answer", None)


@pytest.mark.usefixtures("no_model")
class TestWhatIsWrong:
    @pytest.fixture
    def bag(self, tmp_path) -> Path:
        return write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})

    def test_no_bag(self, process, tmp_path):
        code, _, err = process(tmp_path / "gone", tmp_path / "out")
        assert code == 2
        assert error(err) == f"no such bag: {tmp_path / 'gone'}"
        (tmp_path / "folder").mkdir()
        code, _, err = process(tmp_path / "folder", tmp_path / "out")
        assert code == 2
        assert "folder is no bag: it holds no metadata.yaml" in error(err)
        (tmp_path / "notes.txt").write_text("no bag")
        code, _, err = process(tmp_path / "notes.txt", tmp_path / "out")
        assert code == 2
        assert "notes.txt is no bag: give the folder with metadata.yaml, or a .mcap or .db3 file" in error(err)
        (tmp_path / "old.bag").write_bytes(b"#ROSBAG V2.0\n")
        code, _, err = process(tmp_path / "old.bag", tmp_path / "out")
        assert code == 2
        assert "old.bag is a bag of ROS 1: make one of ROS 2 by rosbags-convert" in error(err)
        assert not (tmp_path / "out.part").exists()

    @pytest.mark.parametrize("name", ["a.mcap", "a.db3", "empty.mcap", "empty.db3", "folder/metadata.yaml"])
    def test_files_that_are_called_as_bags_are(self, process, tmp_path, name):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("" if "empty" in name else "rosbag2: [1, 2")
        code, _, err = process(path if path.suffix != ".yaml" else path.parent, tmp_path / "out")
        assert code == 2
        assert "cannot be read as a bag: " in error(err) and "recover" not in error(err)

    @pytest.mark.parametrize("storage", STORAGES)
    def test_a_recording_that_was_cut_off(self, process, tmp_path, storage):
        bag = write_bag(tmp_path / "in", storage, {"/image": [image(k) for k in range(9)]})
        (file,) = bag.glob("in.*")
        file.write_bytes(file.read_bytes()[:5000])
        remedy = "in.mcap has no end, as where its recorder was killed: `mcap recover in.mcap" if storage == "mcap" else ""
        for given in (bag, file):
            code, _, err = process(given, tmp_path / "out")
            assert code == 2
            assert f"cannot be read as a bag: {remedy}" in error(err)

    def test_an_empty_description(self, process, tmp_path, bag):
        (bag / "metadata.yaml").write_text("")
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert "its metadata.yaml is empty: remove it, and `ros2 bag reindex` writes it anew" in error(err)

    def test_a_definition_in_an_encoding_that_nobody_knows(self, process, tmp_path):
        """As rosbag2 writes it of a type that has no file."""
        bag = write_bag(tmp_path / "in", "sqlite3", {"/image": [image(0)]})
        database = sqlite3.connect(bag / "in.db3")
        with database:
            database.execute("UPDATE message_definitions SET encoding = 'unknown'")
        database.close()
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert "cannot be read as a bag: rosbags does not know 'unknown', the encoding of a type's definition" in error(err)

    @pytest.mark.parametrize("name", ["bin#3", "what?", "run%20a"])
    def test_folders_that_sqlite_takes_for_others(self, process, tmp_path, bag, name):
        """It would write beside OUT, and the masks would be lost."""
        (tmp_path / name).mkdir()
        code, _, err = process(bag, tmp_path / name / "out", "--storage", "sqlite3")
        assert code == 2
        assert "SQLite takes " in error(err) and "in a path for something else: rename the folder" in error(err)
        written = write_bag(tmp_path / "db", "sqlite3", {"/image": [image(0)]}).rename(tmp_path / name / "db")
        code, _, err = process(written, tmp_path / "out")
        assert code == 2
        assert "SQLite takes " in error(err)
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["in", name])  # nothing was written beside

    @pytest.mark.parametrize(("mode", "beside", "images"), [("WAL", "wal", 21), ("DELETE", "journal", 1)])
    @pytest.mark.parametrize("place", ["file", "folder", "link"])
    def test_a_recording_whose_end_is_in_a_journal(self, process, tmp_path, mode, beside, images, place):
        """rosbags passes over what lies there, without a word."""
        bag = write_bag(tmp_path / "in", "sqlite3", {"/image": [image(0)]})
        file = killed(bag, mode, tmp_path / "killed")
        given = {"file": file, "folder": file.parent, "link": tmp_path / "link.db3"}[place]
        if place == "folder":
            shutil.copy(bag / "metadata.yaml", given)
        if place == "link":
            given.symlink_to(file)
        before = digests(file.parent)
        code, out, err = process(given, tmp_path / "out")
        assert (code, out) == (2, "")
        assert f"is not whole, a part of it lies in {file}-{beside}" in error(err)
        assert digests(file.parent) == before
        assert not (tmp_path / "out.part").exists()

        copy = shutil.copytree(file.parent, tmp_path / "copy") / file.name
        database = sqlite3.connect(copy)
        database.execute(re.search(r"`sqlite3 COPY/\S+ '(.*)'`", err)[1]).fetchall()  # the way out that is told
        database.close()
        with open_bag(copy) as mended:
            assert sum(connection.topic == "/image" for connection, _, _ in mended.messages()) == images

    def test_no_images(self, process, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": []})
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err).endswith("in holds no images: no topic of sensor_msgs/Image or CompressedImage with messages")

    def test_several_topics_with_images(self, process, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/b/image": [image(0)], "/a/image": [image(1), image(2)], "/c": []})
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err).endswith("in holds several topics with images, name one: /a/image (2 images), /b/image (1 images)")
        assert error(err).startswith("argument --image: ")
        code, _, err = process(bag, tmp_path / "out", "--image", "/words")
        assert code == 2
        assert error(err).startswith("argument --image: ")
        assert "holds no images of the topic /words: use one of /a/image (2 images), /b/image (1 images)" in error(err)

    @pytest.mark.parametrize("out", ["in", "in/out", "in/a/../out", "link/out"])
    def test_out_in_the_bag(self, process, tmp_path, bag, out):
        (tmp_path / "link").symlink_to(bag)
        before = digests(bag)
        code, _, err = process(bag, tmp_path / out)
        assert code == 2
        assert error(err).startswith("OUT must not be IN nor lie in it")
        assert digests(bag) == before

    def test_the_bag_where_unfinished_work_would_lie(self, process, tmp_path, bag):
        bag.rename(tmp_path / "run.part")
        before = digests(tmp_path / "run.part")
        code, _, err = process(tmp_path / "run.part", tmp_path / "run")
        assert code == 2
        assert error(err).endswith("where IN is: name another OUT")
        code, _, err = process(
            next(path for path in (tmp_path / "run.part").iterdir() if path.suffix != ".yaml"), tmp_path / "run"
        )
        assert code == 2
        assert error(err).endswith("where IN is: name another OUT")
        assert digests(tmp_path / "run.part") == before

    def test_out_exists(self, process, tmp_path, bag):
        (tmp_path / "out").mkdir()
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err) == f"{tmp_path / 'out'} exists: remove it, or name another OUT"
        (tmp_path / "out.part").mkdir()
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err).endswith(f"it is whole, and {tmp_path / 'out.part'} can go)")
        code, _, err = process(bag, tmp_path / "out.mcap")
        assert code == 2
        assert error(err) == "OUT will be a folder, as rosbag2 writes bags: name it without .mcap"
        code, _, err = process(bag, "/")
        assert code == 2
        assert error(err) == "/ exists: remove it, or name another OUT"

    @pytest.mark.parametrize("topic", ["masks", "/masks/", "/1st", "/a b", ""])
    def test_out_topics_that_are_none(self, process, tmp_path, bag, topic):
        code, _, err = process(bag, tmp_path / "out", "--out-topic", topic)
        assert code == 2
        assert error(err).startswith("argument --out-topic: must be a topic with its whole name")

    def test_a_topic_that_is_there_already(self, process, tmp_path, bag):
        code, _, err = process(bag, tmp_path / "out", "--out-topic", "/words")
        assert code == 2
        assert error(err) == f"argument --out-topic: {bag} has a topic /words already: name another one"

    def test_without_rosbags(self, process, tmp_path, bag, monkeypatch):
        monkeypatch.setitem(sys.modules, "rosbags.typesys", None)
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert "`pip install rosbags==" in error(err)
        pinned = (ROOT / "requirements" / "demo.txt").read_text()
        assert re.search(r"`pip install (.*?)`", err)[1] in pinned.splitlines()

    def test_without_the_messages(self, process, tmp_path, bag, monkeypatch):
        monkeypatch.setattr("seqamodal_ros.share.__file__", str(tmp_path / "lib" / "seqamodal_ros" / "share.py"))
        code, _, err = process(bag, tmp_path / "out")
        assert code == 2
        assert error(err).startswith("no 'seqamodal_msgs' folder beside the package")

    @pytest.mark.parametrize("option", [["--every", "0"], ["--num-samples", "65"], ["--fit", "stretch"], ["--storage", "bag"]])
    def test_options_out_of_range(self, process, tmp_path, bag, option):
        code, _, err = process(bag, tmp_path / "out", *option)
        assert code == 2
        assert option[0] in error(err)


def test_an_mcap_may_lie_in_any_folder(process, tmp_path):
    bag = write_bag(tmp_path / "bin#3?", "mcap", {"/image": [image(0)]})
    (tmp_path / "50%").mkdir()
    code, _, err = process(bag, tmp_path / "50%" / "out")
    assert code == 0, err
    assert len(messages(tmp_path / "50%" / "out")) == len(messages(bag)) + 1


def test_a_journal_that_sqlite_is_done_with(process, tmp_path):
    """Where SQLite is told to keep its journal, one without content lies beside a whole file."""
    bag = write_bag(tmp_path / "in", "sqlite3", {"/image": [image(0)]})
    database = sqlite3.connect(bag / "in.db3")
    database.execute("PRAGMA journal_mode = PERSIST")
    with database:
        database.execute("UPDATE messages SET timestamp = timestamp + 1")
    database.close()
    assert (bag / "in.db3-journal").stat().st_size
    code, _, err = process(bag, tmp_path / "out")
    assert code == 0, err
    assert len(messages(tmp_path / "out")) == len(messages(bag)) + 1


def test_unknown_models(process, tmp_path):
    bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
    for model, says in (("enormous", "unknown model 'enormous'"), (tmp_path / "no.safetensors", "no.safetensors is missing")):
        code, _, err = process(bag, tmp_path / "out", model=model)
        assert code == 2
        assert says in error(err)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_a_bag_that_holds_less_than_it_says(process, tmp_path):
    """rosbags leaves a topic out where metadata.yaml and the file tell it apart."""
    bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
    described = (bag / "metadata.yaml").read_text()
    (bag / "metadata.yaml").write_text(described.replace("name: /words", "name: /swords"))
    code, _, err = process(bag, tmp_path / "out")
    assert code == 1
    assert "says that it holds 4 messages, but 2 can be read: `ros2 bag reindex` mends metadata.yaml" in err.splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_what_reads_and_writes_bags_knows_no_option():
    """Others use it, too, such as examples/pictures_of_a_bag.py: the command adds where a topic is named."""
    for path in (ROOT / "seqamodal_ros" / "bags").glob("*.py"):
        assert not re.search(r"process_bag|--[a-z]", path.read_text()), path


def test_our_messages_are_those_of_ros(small_model):
    """What rosbags wrote, rclpy reads to the same fields."""
    message_types = pytest.importorskip("seqamodal_msgs.msg")
    serialization = pytest.importorskip("rclpy.serialization")
    codec, number = Codec(), 3
    given, shown = codec.image(image(number), IMAGE)
    raw = codec.masks(Perceiver.load(str(small_model), "cpu")(shown, 2), given, "a@b", True)
    masks = serialization.deserialize_message(raw, message_types.LayeredMasks)
    assert (masks.header.stamp.sec, masks.header.frame_id, masks.model_id) == (-2, "kamera_ü_3", "a@b")
    back = serialization.serialize_message(masks)  # equal but for what is between the fields, which nobody sets
    assert bytes(codec.store.serialize_cdr(codec.store.deserialize_cdr(back, LAYERED_MASKS), LAYERED_MASKS)) == raw


class TestWithoutRos:
    def test_it_asks_for_none(self, small_model, tmp_path):
        bag = write_bag(tmp_path / "in", "mcap", {"/image": [image(0)]})
        program = (
            "import sys\n"
            "for name in ('rclpy', 'ament_index_python', 'sensor_msgs', 'seqamodal_msgs', 'std_msgs'): sys.modules[name] = None\n"
            "from seqamodal_ros.__main__ import main\n"
            "sys.exit(main(sys.argv[1:]))\n"
        )
        environment = {name: value for name, value in os.environ.items() if name != "AMENT_PREFIX_PATH"}
        command = [sys.executable, "-c", program, "process_bag", bag, "out", "--model", small_model, "--device", "cpu"]
        environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
        done = subprocess.run(list(map(str, command)), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        assert "all messages of" in done.stdout
        assert len(messages(tmp_path / "out")) == 5

    def test_the_package_lists_it(self, capsys):
        assert package_main(["--help"]) == 0
        assert "process_bag:" in capsys.readouterr().out
        with pytest.raises(SystemExit) as stopped:
            package_main(["process_bag", "--help"])
        assert stopped.value.code == 0
        assert "--no-hypotheses" in capsys.readouterr().out

    def test_it_is_an_executable(self):
        assert '"process_bag = {NAME}.commands.process_bag:main"' in (ROOT / "setup.py").read_text()


def test_the_job_is_json(tmp_path):
    """An option that changes what is written is part of it."""
    with open_answers(tmp_path / "part", {"seed": 2**64 - 1, "files": {"a": 1}}):
        pass
    database = sqlite3.connect(tmp_path / "part" / "answers.sqlite3")
    assert json.loads(database.execute("SELECT json FROM job").fetchone()[0]) == {"seed": 2**64 - 1, "files": {"a": 1}}
    database.close()
    with (
        pytest.raises(ValueError, match="was begun with seed 18446744073709551615, this is 3"),
        open_answers(tmp_path / "part", {"seed": 3, "files": {"a": 1}}),
    ):
        pass
