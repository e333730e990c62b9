# SPDX-License-Identifier: Apache-2.0
"""Adds layered masks to a recorded bag: `process_bag IN OUT`. No ROS; bags are read and written by the library rosbags."""

import argparse
import hashlib
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2

import seqamodal_ros
from seqamodal_ros.bags.answers import Answers, open_answers
from seqamodal_ros.bags.codec import Codec
from seqamodal_ros.bags.reading import STORAGES, Bag, BagError, TopicError, check_for_sqlite, image_topic, open_bag
from seqamodal_ros.bags.writing import OUT_TOPIC, check_out_topic, move_into_place, part_of, refuse_out, write_bag
from seqamodal_ros.commands.arguments import Parser, add_model, add_region, complain, interruptible, one_line, say, whole_number
from seqamodal_ros.commands.progress import Progress
from seqamodal_ros.messages import InvalidMessage, check_region
from seqamodal_ros.perceiver import RUNTIMES, Perceiver
from seqamodal_ros.scene.geometry import FITS
from seqamodal_ros.scene.image_files import OPENCV_LOG

NEW = "new"  # in OUT.part: the bag that is being written


@interruptible("\nprocess_bag: interrupted; the same command goes on from here")
def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Returns 0; 1 where the work fails on the way or no image can be answered; 2 where arguments, bag or model are wrong, or
    the device has no room for the model; 130 where it was interrupted.
    """
    arguments = _parse(argv)
    OPENCV_LOG.setLogLevel(0)  # our line says what is wrong with an image; OpenCV's would be a second
    with ExitStack() as stack:
        try:
            work = _prepared(arguments, stack)
        except (ImportError, OSError, RuntimeError, ValueError) as error:  # PyTorch's lack of memory is a RuntimeError
            return _failed(error, 2)
        return _process(work, arguments)


@dataclass(frozen=True)
class _Work:
    """What was found in order before the first image is looked at.

    Attributes:
        codec: images out of the bag, and masks into the new one.
        bag: IN, open.
        topic: of its images.
        storage: of OUT.
        perceiver: the loaded model.
        answers: what an interrupted run has done.
        out: folder of the new bag.
        part: folder of the unfinished work, beside it.
    """

    codec: Codec
    bag: Bag
    topic: str
    storage: str
    perceiver: Perceiver
    answers: Answers
    out: Path
    part: Path

    @property
    def images(self) -> int:
        """How many images the topic has."""
        return sum(connection.msgcount for connection in self.bag.connections if connection.topic == self.topic)


def _prepared(arguments: argparse.Namespace, stack: ExitStack) -> _Work:
    """Check the bag and the arguments, then load the model and open the answers; `stack` closes what was opened."""
    codec, out = Codec(), arguments.out.absolute()
    refuse_out(arguments.bag, out)
    part = part_of(out)
    bag = stack.enter_context(open_bag(arguments.bag))
    with _topic_of("--image"):
        topic = image_topic(bag, arguments.image)
    storage = arguments.storage or bag.storage
    if storage == "sqlite3":
        check_for_sqlite(out)
    with _topic_of("--out-topic"):
        check_out_topic(bag, arguments.out_topic, codec)
    perceiver = Perceiver.load(arguments.model, arguments.device, fit=arguments.fit, runtime=arguments.runtime)
    job = _job(arguments, bag, topic, storage, perceiver)
    answers = stack.enter_context(open_answers(part, job))
    return _Work(codec, bag, topic, storage, perceiver, answers, out, part)


@contextmanager
def _topic_of(option: str) -> Iterator[None]:
    """Names the option that a wrong topic came from, or should be named with."""
    try:
        yield
    except TopicError as error:
        raise ValueError(f"argument {option}: {error}") from error


def _job(arguments: argparse.Namespace, bag: Bag, topic: str, storage: str, perceiver: Perceiver) -> dict[str, Any]:
    """What the new bag depends on, by the option that sets it: only a run with all the same goes on with an interrupted one."""
    return {
        "bag": str(bag.path.resolve()),
        "files": bag.sizes,
        "image": topic,
        "out-topic": arguments.out_topic,
        "storage": storage,
        "every": arguments.every,
        "model": perceiver.model_id,
        "device": perceiver.device,
        "runtime": perceiver.runtime,
        "precision": perceiver.precision,
        "num-samples": arguments.num_samples,
        "seed": arguments.seed,
        "fit": arguments.fit,
        **({"region": list(arguments.region)} if arguments.region else {}),
        "hypotheses": arguments.hypotheses,
        "version": seqamodal_ros.__version__,
    }


def _process(work: _Work, arguments: argparse.Namespace) -> int:
    """Answer the images, write the new bag and say what became of it; returns the exit code."""
    say(f"{work.perceiver.computed_by}: {work.images} images of {work.topic}, {len(work.answers)} answers kept")
    progress = Progress(-(-work.images // arguments.every))
    try:
        _write(work, arguments, progress)
    except (MemoryError, OSError, RuntimeError, sqlite3.Error, cv2.error, BagError) as error:
        progress.end()
        return _failed(error, 1)
    progress.end()
    say(progress.summary(work.images))
    if not progress.answered:
        return _failed(ValueError(f"no image could be answered, so {work.out} was not written"), 1)
    say(f"all messages of {work.bag.path} and the masks on {arguments.out_topic} are in {arguments.out}")
    return 0


def _write(work: _Work, arguments: argparse.Namespace, progress: Progress) -> None:
    """Write the new bag in OUT.part, and make it OUT where an image was answered; then OUT.part is removed."""
    answerer = Answerer(_seer(work, arguments), work.answers, progress, arguments.every)
    new = work.part / NEW / work.out.name
    shutil.rmtree(new.parent, ignore_errors=True)  # what an interrupted run had written of it
    write_bag(work.bag, new, work.storage, work.topic, work.codec, arguments.out_topic, answerer)
    if progress.answered:
        move_into_place(new, work.out)
    work.answers.close()
    shutil.rmtree(work.part, ignore_errors=True)  # what stays of it does no harm


def _seer(work: _Work, arguments: argparse.Namespace) -> Callable[[bytes, str], bytes]:
    """What makes a serialized answer of a serialized image and its message type."""

    def see(raw: bytes, kind: str) -> bytes:
        header, image = work.codec.image(raw, kind)
        check_region(arguments.region, image.shape[1], image.shape[0])
        scene = work.perceiver(image, arguments.num_samples, arguments.seed, region=arguments.region)
        return work.codec.masks(scene, header, work.perceiver.model_id, arguments.hypotheses)

    return see


def _failed(error: Exception, code: int) -> int:
    complain(f"process_bag: error: {one_line(error) or 'not enough memory'}")
    return code


@dataclass
class Answerer:
    """Answers images one by one: with what was kept, or anew, which is then kept."""

    see: Callable[[bytes, str], bytes]
    answers: Answers
    progress: Progress
    every: int
    number: int = field(default=0, init=False)  # of the image, from 1

    def __call__(self, raw: bytes, kind: str, nanoseconds: int) -> bytes | None:
        """The serialized answer to a serialized image; None where it is not its turn, or it cannot be used."""
        self.number += 1
        if (self.number - 1) % self.every:
            return None
        # By its content, not its place: an answer can never end up with another image.
        digest = hashlib.sha256(raw).digest()
        answer = self.answers.get(digest)
        if answer is not None:
            self.progress.kept()
            return answer
        began = time.monotonic()
        try:
            answer = self.see(raw, kind)
        except InvalidMessage as error:
            self.progress.skip(f"image {self.number} at {nanoseconds / 1e9:.3f} s", one_line(error))
            return None
        self.answers.keep(digest, answer)
        self.progress.fresh(time.monotonic() - began)
        return answer


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="process_bag", description=__doc__)
    add, number = parser.add_argument, whole_number
    add("bag", type=Path, metavar="IN", help="a rosbag2 folder with metadata.yaml, or a single .mcap or .db3 file; never changed")
    add("out", type=Path, metavar="OUT", help="folder of the new bag; OUT.part holds what an interrupted run has done")
    add("--image", metavar="TOPIC", help="of the images, raw or compressed (default: the only one)")
    add("--out-topic", default=OUT_TOPIC, metavar="TOPIC", help="of the masks (default: %(default)s)")
    add("--storage", choices=sorted(STORAGES.values()), help="of the new bag (default: as IN)")
    add("--every", type=number(1, 1_000_000), default=1, metavar="N", help="see each N-th image alone (default: %(default)s)")
    add_model(parser)
    add("--runtime", default="torch", choices=RUNTIMES[1:], help="what computes the network (default: %(default)s)")
    add_region(parser)
    add("--fit", default="letterbox", choices=FITS, help="of the image into the network's square (default: %(default)s)")
    add("--no-hypotheses", dest="hypotheses", action="store_false", help="leave the K hypotheses out of the messages")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
