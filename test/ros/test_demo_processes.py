# SPDX-License-Identifier: Apache-2.0
"""Player, node and recorder as real processes: frames in, pictures, layers.json, a page and a bag out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

pytest.importorskip("rclpy", reason="needs ROS 2: `make test` installs its wheels, or source your ROS")
pytest.importorskip("seqamodal_msgs", reason="needs seqamodal_msgs: `make build`, or `colcon build` and source it")

from builtin_interfaces.msg import Time
from harness import image_message
from rclpy.executors import SingleThreadedExecutor
from sensor_msgs.msg import Image

from seqamodal_msgs.msg import LayeredMasks
from seqamodal_ros.messages import MessageTypes, image_array, scene_to_message, stamp_of
from seqamodal_ros.ros import player, signals
from seqamodal_ros.ros.player import FIND_WITHIN, PlayError, read_camera_info
from seqamodal_ros.ros.recorder import KEPT_IMAGES, Recorder, bag_opener
from seqamodal_ros.share import share_folder

NOTHING = "recorder: no frame was recorded: is the perception node active, and does a camera send to it?\n"


def write_images(folder: Path, count: int) -> None:
    folder.mkdir()
    for index in range(count):
        pixels = np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / f"{index}.png"), pixels)


def test_the_demo_records_every_frame(tmp_path: Path, eager_model: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    mcap_reader = pytest.importorskip("mcap.reader", reason="reads the bag back: `pip install -r requirements/demo.txt`")
    write_images(tmp_path / "in", 3)
    out = tmp_path / "out \N{PEAR} \N{LATIN SMALL LETTER U WITH DIAERESIS}"  # a pear takes two units of UTF-16
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "in"), "--out", str(out)]
    done = subprocess.run([*command, "--model", str(eager_model)], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sum(line.startswith("frame_") for line in done.stdout.splitlines()) == 3
    frames = json.loads((out / "layers.json").read_text())
    assert [frame["frame"] for frame in frames] == ["frame_001", "frame_002", "frame_003"]
    assert all(frame["layers"] and frame["model_id"].startswith("eager@sha256:") for frame in frames)
    for frame in frames:
        sheet = cv2.imread(str(out / f"{frame['frame']}.png"))
        assert sheet is not None and sheet.std() > 0
    page = (out / "index.html").read_text(encoding="utf-8")
    assert all(f'-name">{frame["frame"]}</h2>' in page for frame in frames)
    (bag,) = (out / "bag").glob("*.mcap")
    with bag.open("rb") as stream:
        topics = [channel.topic for _, channel, _ in mcap_reader.make_reader(stream).iter_messages()]
    assert topics.count("/image") == topics.count("/seqamodal/layered_masks") == 3


def test_a_video_is_played_to_its_end(tmp_path: Path, eager_model: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    video, out = tmp_path / "three.avi", tmp_path / "out"
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*"MJPG"), 2, (64, 48))
    for index in range(3):
        writer.write(np.random.default_rng(index).integers(0, 255, (48, 64, 3), dtype=np.uint8))
    writer.release()
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(video), "--out", str(out)]
    done = subprocess.run([*command, "--model", str(eager_model)], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(json.loads((out / "layers.json").read_text())) == 3


@pytest.fixture
def handlers_kept():
    """As `until_signalled` leaves signals ignored, which is for the end of a process."""
    kept = {number: signal.getsignal(number) for number in signals.SIGNALS}
    yield
    for number, handler in kept.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers_kept")
@pytest.mark.parametrize("endless,code", [(True, 0), (False, 130)], ids=["camera", "folder"])
def test_an_interrupted_player_of_a_camera_has_done_what_it_should(monkeypatch, endless: bool, code: int):
    class Interrupted:
        def __init__(self):
            self.endless = endless

        def play(self):
            raise player.Signalled

    monkeypatch.setattr(sys, "argv", ["player"])
    monkeypatch.setattr(player, "Player", Interrupted)
    assert player.main() == code


def test_an_image_whose_stamp_comes_again_waits_as_long_as_others_do():
    """As of a bag that begins anew."""
    fake = SimpleNamespace(_images=OrderedDict(), _write=lambda *_: None)
    for stamp in (*range(KEPT_IMAGES), 0, KEPT_IMAGES):
        Recorder._on_image(fake, image_message(stamp))
    assert {sec for sec, _ in fake._images} == {0, *range(2, KEPT_IMAGES + 1)}


def test_what_cannot_be_written_at_the_end_is_told_and_the_rest_is_there(tmp_path: Path, eager_model: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    mcap_reader = pytest.importorskip("mcap.reader", reason="reads the bag back: `pip install -r requirements/demo.txt`")
    write_images(tmp_path / "in", 1)
    out = tmp_path / "out"
    (out / "layers.json").mkdir(parents=True)
    (out / ".recording").touch()
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "in"), "--out", str(out)]
    done = subprocess.run([*command, "--model", str(eager_model)], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 1
    assert re.search(r"recorder: cannot write .*layers\.json: Is a directory", done.stderr) and "Traceback" not in done.stderr
    assert (out / "index.html").is_file() and (out / "frame_001.png").is_file()
    (bag,) = (out / "bag").glob("*.mcap")
    with bag.open("rb") as stream:
        assert len(list(mcap_reader.make_reader(stream).iter_messages())) >= 2


def test_the_bag_holds_our_messages_whole(tmp_path: Path):
    pytest.importorskip("rosbags", reason="needs rosbags: `pip install -r requirements/demo.txt`")
    from harness import image_message
    from rosbags.highlevel import AnyReader

    from seqamodal_msgs.msg import AmodalObject, LayeredMasks
    from seqamodal_ros.ros.bag_writer import BagWriter

    bag = BagWriter(tmp_path / "bag")
    masks = LayeredMasks(objects=[AmodalObject(id=3, amodal=image_message(5))], pick_order=[3], seed=2**63)
    bag.write("/masks", masks, 12)
    bag.close()
    with AnyReader([tmp_path / "bag"]) as reader:
        ((connection, stamp, data),) = reader.messages()
        read = reader.deserialize(data, connection.msgtype)
    assert (stamp, read.seed, list(read.pick_order)) == (12, 2**63, [3])
    np.testing.assert_array_equal(image_array(read.objects[0].amodal), image_array(image_message(5)))


@pytest.mark.parametrize("case,words", [("none", "no such file or folder"), ("empty", "no images in the folder")])
def test_a_folder_without_images_is_one_clear_line(start, tmp_path: Path, case: str, words: str):
    folder = tmp_path / "in"
    if case == "empty":
        folder.mkdir()
    process = start("player", f"source:={folder}")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert words in output and "Traceback" not in output


def test_a_demo_of_nothing_is_one_line_and_leaves_the_last_one(tmp_path: Path):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".recording").touch()
    (out / "frame_001.png").write_bytes(b"a sheet")
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "missing"), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and "no such file or folder" in done.stderr
    assert (out / "frame_001.png").read_bytes() == b"a sheet"


@pytest.mark.parametrize("source", ["out", "out/frame_001.png"])
def test_a_demo_of_what_it_would_replace_is_one_line_and_leaves_it(tmp_path: Path, source: str):
    out = tmp_path / "out"
    out.mkdir()
    (out / ".recording").touch()
    (out / "frame_001.png").write_bytes(b"a sheet")
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / source), "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=os.environ)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"demo: the recording in {out} would replace {tmp_path / source}: name another folder as `out`\n"
    assert (out / "frame_001.png").read_bytes() == b"a sheet"


def test_a_demo_of_a_model_that_cannot_load_ends_with_what_the_node_says(tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    write_images(tmp_path / "in", 1)
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    began = time.monotonic()
    done = subprocess.run([*command, "--model", "nowhere.safetensors"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert re.search("player: the perception node says: cannot configure: .*nowhere.safetensors is missing", done.stderr)
    assert time.monotonic() - began < FIND_WITHIN, "it waited for a node that says that it will not come"


def _spin_until_it_ends(peer, process: subprocess.Popen) -> None:
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    until = time.monotonic() + 60
    while process.poll() is None:
        assert time.monotonic() < until
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()


def _until_it_listens(peer) -> None:
    until = time.monotonic() + 60
    while peer.images.get_subscription_count() == 0:
        assert time.monotonic() < until
        time.sleep(0.05)


def test_a_recorder_that_heard_nothing_leaves_the_last_recording(start, peer, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    (tmp_path / ".recording").touch()
    (tmp_path / "frame_001.png").write_bytes(b"a sheet")
    process = start("recorder", f"out:={tmp_path}")
    _until_it_listens(peer)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, NOTHING)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".recording", "frame_001.png"]


def test_images_without_masks_leave_the_last_recording_too(start, peer, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    (tmp_path / ".recording").touch()
    (tmp_path / "frame_001.png").write_bytes(b"a sheet")
    process = start("recorder", f"out:={tmp_path}")
    _until_it_listens(peer)
    for _ in range(5):
        peer.send()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert (process.returncode, output.splitlines()[-1]) == (1, NOTHING.strip())
    assert sorted(path.name for path in tmp_path.iterdir()) == [".recording", "frame_001.png"]


def test_masks_without_a_stamp_are_drawn_over_no_image(start, peer, make_scene, rectangles, tmp_path: Path):
    """The image that came last is another one as often as not."""
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    masks = peer.create_publisher(LayeredMasks, "seqamodal/layered_masks", 10)
    process = start("recorder", f"out:={tmp_path}")
    _until_it_listens(peer)
    until = time.monotonic() + 30
    while not masks.get_subscription_count():
        assert time.monotonic() < until
        time.sleep(0.05)
    time.sleep(0.5)  # until the recorder, too, knows of both
    message = image_message()
    message.header.stamp = Time()
    scene = make_scene(rectangles((4, 4, 20, 20)), 64, 48)
    for _ in range(10):  # on a slow machine the recorder hears the last ones alone
        peer.images.publish(message)
        time.sleep(0.2)
        masks.publish(scene_to_message(scene, message.header, "test", MessageTypes.ros()))
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "masks came without a stamp" in output
    assert not list(tmp_path.glob("frame_*.png"))


def test_a_place_that_cannot_be_written_is_told_at_the_start(start, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    (tmp_path / "out").write_bytes(b"a file")
    process = start("recorder", f"out:={tmp_path / 'out'}")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert output == f"recorder: {tmp_path / 'out'} is no folder: set the parameter 'out' to a new or empty one\n"


def test_a_truncated_image_is_skipped_and_told(tmp_path: Path, eager_model: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    write_images(tmp_path / "in", 2)
    broken = tmp_path / "in" / "0.png"
    broken.write_bytes(broken.read_bytes()[:60])
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    done = subprocess.run([*command, "--model", str(eager_model)], capture_output=True, text=True, timeout=120, env=os.environ)
    assert done.returncode == 1
    assert "0.png" in done.stderr and "not all of the source could be read; errors above: 1" in done.stderr
    assert sum(line.startswith("frame_") for line in done.stdout.splitlines()) == 1


def test_the_recorder_deletes_nothing_of_others(start, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    (tmp_path / "frame_1.png").write_bytes(b"mine")
    (tmp_path / "bag").mkdir()
    process = start("recorder", f"out:={tmp_path}")
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert "no recording" in output and "Traceback" not in output
    assert (tmp_path / "frame_1.png").read_bytes() == b"mine" and (tmp_path / "bag").is_dir()


@pytest.mark.parametrize("stranger", ["another camera", "another node"])
def test_a_player_that_is_not_alone_says_so(start, peer, make_scene, rectangles, tmp_path: Path, stranger: str):
    write_images(tmp_path / "in", 2)
    masks = peer.create_publisher(LayeredMasks, "seqamodal/layered_masks", 10)
    scene = make_scene(rectangles((4, 4, 20, 20)), 64, 48)

    def answer(image: Image) -> None:
        old = image_message(stamp=1).header  # an answer that was on its way before this player began is no stranger's
        masks.publish(scene_to_message(scene, old, "test", MessageTypes.ros()))
        if stranger == "another camera":
            image.header.stamp.sec += 1
        for _ in range(2):
            masks.publish(scene_to_message(scene, image.header, "test", MessageTypes.ros()))

    peer.create_subscription(Image, "image", answer, 10)
    process = start("player", f"source:={tmp_path / 'in'}")
    _spin_until_it_ends(peer, process)
    output, _ = process.communicate(timeout=30)
    told = {
        "another camera": "masks come of images that this player did not send",
        "another node": "one image was answered twice",
    }
    expected = f"player: {told[stranger]}: end the other camera or perception node, or set another ROS_DOMAIN_ID"
    assert (process.returncode, output.splitlines()[-1]) == (1, expected)


def test_a_player_goes_on_where_a_simulation_s_clock_stands_still(start, peer, make_scene, rectangles, tmp_path: Path):
    """Images are told apart by their stamps, so each has its own."""
    write_images(tmp_path / "in", 3)
    masks = peer.create_publisher(LayeredMasks, "seqamodal/layered_masks", 10)
    scene, stamps = make_scene(rectangles((4, 4, 20, 20)), 64, 48), []

    def answer(image: Image) -> None:
        stamps.append(image.header.stamp.nanosec)
        masks.publish(scene_to_message(scene, image.header, "test", MessageTypes.ros()))

    peer.create_subscription(Image, "image", answer, 10)
    process = start("player", f"source:={tmp_path / 'in'}", "use_sim_time:=true")
    _spin_until_it_ends(peer, process)
    assert process.returncode == 0, process.communicate()
    assert stamps == [1, 2, 3]


def test_a_folder_s_depth_images_are_played_beside_its_images(start, peer, make_scene, rectangles, tmp_path: Path):
    """Image 0 has one, 1 one that is none, 2 one of another size, 3 none; then all comes again, until interrupted."""
    write_images(tmp_path / "in", 4)
    depths = tmp_path / "in" / "depth"
    depths.mkdir()
    millimetres = np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)
    cv2.imwrite(str(depths / "0.png"), millimetres)
    cv2.imwrite(str(depths / "1.png"), (millimetres // 256).astype(np.uint8))
    cv2.imwrite(str(depths / "2.png"), millimetres[:, :32])
    masks = peer.create_publisher(LayeredMasks, "seqamodal/layered_masks", 10)
    scene, stamps, heard = make_scene(rectangles((4, 4, 20, 20)), 64, 48), [], []

    def answer(image: Image) -> None:
        stamps.append(stamp_of(image.header))
        masks.publish(scene_to_message(scene, image.header, "test", MessageTypes.ros()))

    peer.create_subscription(Image, "image", answer, 10)
    peer.create_subscription(Image, "depth", heard.append, 10)
    process = start("player", f"source:={tmp_path / 'in'}", "rate:=50.0", "loop:=true")
    executor = SingleThreadedExecutor(context=peer.context)
    executor.add_node(peer)
    until = time.monotonic() + 60
    while not (len(heard) >= 3 and stamp_of(heard[2].header) in stamps) and time.monotonic() < until:
        executor.spin_once(timeout_sec=0.1)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=30)
    executor.shutdown()
    assert process.returncode == 0, output
    assert f"{depths / '1.png'} is no depth image: give a grey PNG of 16 bits, millimetres; 1.png is sent without depth" in output
    assert f"{depths / '2.png'} has 32x48 pixels, its image 64x48: give depth that is registered to the image; 2.png" in output
    assert len(heard) >= 3 and {stamp_of(each.header) for each in heard[:3]} <= set(stamps[::4])
    assert heard[0].encoding == "16UC1" and heard[0].header.frame_id == "camera_optical_frame"
    np.testing.assert_array_equal(image_array(heard[0]), millimetres)


def test_a_folder_of_depth_images_of_other_names_is_told_at_once(start, tmp_path: Path):
    write_images(tmp_path / "in", 2)
    (tmp_path / "in" / "depth").mkdir()
    cv2.imwrite(str(tmp_path / "in" / "depth" / "depth_0.png"), np.ones((48, 64), np.uint16))
    process = start("player", f"source:={tmp_path / 'in'}")
    told = f"no image of {tmp_path / 'in'} has depth in {tmp_path / 'in' / 'depth'}: of NAME.jpg it is NAME.png"
    assert any(told in line for line in iter(process.stdout.readline, ""))


def test_two_recorders_in_one_folder_are_refused_the_second_time(start, peer, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    first = start("recorder", f"out:={tmp_path / 'out'}")
    _until_it_listens(peer)
    second = start("recorder", f"out:={tmp_path / 'out'}")
    output, _ = second.communicate(timeout=30)
    told = f"another recording is written to {tmp_path / 'out'}: set the parameter 'out' to another folder"
    assert (second.returncode, output) == (1, f"recorder: {told}\n")
    first.send_signal(signal.SIGINT)
    assert first.communicate(timeout=30)[0] == NOTHING


def test_a_new_recording_takes_the_place_of_the_last_one_alone(tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    (tmp_path / ".recording").touch()
    for name in ("frame_001.png", "frame_1000.png", "frame_mine.png", "frame_1_mine.png"):
        (tmp_path / name).write_bytes(b"a sheet")
    bag_opener(tmp_path)().close()
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["frame_1_mine.png", "frame_mine.png"]


def test_the_recorder_stops_though_the_camera_does_not(start, peer, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    process = start("recorder", f"out:={tmp_path / 'out'}")
    _until_it_listens(peer)
    process.send_signal(signal.SIGINT)
    until = time.monotonic() + 30
    while process.poll() is None:
        assert time.monotonic() < until, "it goes on recording"
        peer.send()
        time.sleep(0.05)
    assert process.returncode == 1  # nobody answered


SLOW_TO_DRAW = """
import time
from seqamodal_ros.ros import recorder

draw = recorder.contact_sheet
recorder.contact_sheet = lambda *about: time.sleep(2 * recorder.QUIET) or draw(*about)
raise SystemExit(recorder.main())
"""


def test_pictures_that_take_long_to_draw_are_no_silence(peer, make_scene, rectangles, tmp_path: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    command = [sys.executable, "-c", SLOW_TO_DRAW, "--ros-args", "-p", f"out:={tmp_path / 'out'}"]
    masks = peer.create_publisher(LayeredMasks, "seqamodal/layered_masks", 10)
    scene = make_scene(rectangles((4, 4, 20, 20)), 64, 48)
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        until = time.monotonic() + 60
        while not (peer.images.get_subscription_count() and masks.get_subscription_count()):
            assert time.monotonic() < until
            time.sleep(0.05)
        time.sleep(0.5)  # until the recorder, too, knows of both
        for stamp in (1, 2, 3):
            header = peer.send(stamp).header
            time.sleep(0.3)  # as the node, masks come after their image
            masks.publish(scene_to_message(scene, header, "test", MessageTypes.ros()))
        process.send_signal(signal.SIGINT)  # at the first picture
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert sum(line.startswith("frame_") for line in output.splitlines()) == 3, output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_player_that_is_interrupted_says_nothing_and_ends_with_130(start, peer, number):
    process = start("player")
    until = time.monotonic() + 30
    while peer.count_publishers("camera_info") == 0:
        assert process.poll() is None and time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in output


@pytest.mark.usefixtures("handlers_kept")
def test_a_signal_in_the_midst_of_rclpy_s_work_is_heard_after_it():
    """Raised there, it was taken for a message that cannot be converted, in one of a few interrupts of a fast player."""
    done = []
    with signals.until_signalled([]), pytest.raises(signals.Signalled), signals.ending_at_once():
        with signals.undisturbed():
            signal.raise_signal(signal.SIGINT)
            done.append("work")
        done.append("more")
    assert done == ["work"]


def test_after_an_error_in_undisturbed_work_signals_are_heard_again():
    with signals.ending_at_once():
        with pytest.raises(ValueError), signals.undisturbed():
            raise ValueError
        assert signals._raising


@pytest.mark.parametrize("parameter", ["rate:=0.0", "loop:=2", "rate:=fast", "source:=7"])
def test_a_bad_player_parameter_is_one_clear_line(start, parameter):
    process = start("player", parameter)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 1
    assert parameter.partition(":")[0] in output and "Traceback" not in output


def test_ending_the_demo_ends_its_processes(tmp_path: Path, eager_model: Path):
    pytest.importorskip("rosbags", reason="the recorder needs rosbags: `pip install -r requirements/demo.txt`")
    write_images(tmp_path / "in", 200)
    command = [sys.executable, "-m", "seqamodal_ros.ros.demo", "--source", str(tmp_path / "in"), "--out", str(tmp_path / "out")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    demo = subprocess.Popen([*command, "--model", str(eager_model)], text=True, env=os.environ, **pipes)
    try:
        assert demo.stdout is not None
        while not (line := demo.stdout.readline()).startswith("frame_001"):
            assert line, "the demo ended before its first frame"
        children = [int(pid) for pid in Path(f"/proc/{demo.pid}/task/{demo.pid}/children").read_text().split()]
        assert len(children) == 3
        demo.send_signal(signal.SIGTERM)
        assert demo.wait(60) == 1  # not every frame was answered
        assert not any(Path(f"/proc/{pid}").exists() for pid in children)
        assert json.loads((tmp_path / "out" / "layers.json").read_text())
        told = demo.stderr.read()
        assert "interrupted" in told and "exit code" not in told
    finally:
        demo.kill()


def test_camera_info_of_the_samples():
    info = read_camera_info(share_folder("samples") / "camera_info.yaml")
    assert info is not None
    assert (info.width, info.height) == (640, 480)
    assert info.k[0] > 0 and info.k[8] == 1


@pytest.mark.parametrize(
    "was,becomes,words",
    [
        ("image_width: 640", "image_width: 640.0", "image_width and image_height must be whole numbers"),
        ("image_height: 480", "image_height: 0", "image_width and image_height must be whole numbers"),
        ("[1, 0, 0, 0, 1, 0, 0, 0, 1]", "[1, 0, 0, 0, 1, 0, 0, 1]", "must hold 9 numbers, not 8"),
    ],
)
def test_a_camera_info_of_another_shape_is_no_camera_info(tmp_path: Path, was: str, becomes: str, words: str):
    given = (share_folder("samples") / "camera_info.yaml").read_text()
    assert was in given
    (tmp_path / "camera_info.yaml").write_text(given.replace(was, becomes, 1))
    with pytest.raises(PlayError, match=words):
        read_camera_info(tmp_path / "camera_info.yaml")
