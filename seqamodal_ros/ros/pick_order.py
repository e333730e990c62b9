# SPDX-License-Identifier: Apache-2.0
"""Prints what can be picked now and what comes free after it, or what to remove first to reach an object.

Reads `seqamodal/layered_masks`: ``ros2 run seqamodal_ros pick_order [--target ID] [--follow] [--ros-args -r FROM:=TO]``. With
`--depth` it reads `depth`, too, and asks it whether something nearer lies at the edge of what is free.
"""

import argparse
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image

from seqamodal_ros.clouds import MasksWithDepth, registered_metres
from seqamodal_ros.commands.arguments import INTERRUPTED, Parser, complain, print_nowhere
from seqamodal_ros.messages import MessageTypes, message_to_scene
from seqamodal_ros.ros.command_line import UNUSABLE, WRONG_VALUES, own_arguments, warn_of_unknown_parameters
from seqamodal_ros.ros.signals import until_signalled
from seqamodal_ros.scene.captions import counted
from seqamodal_ros.scene.nearer import nearer_beside
from seqamodal_ros.scene.picking import BRACKETS, free_objects, pick_order, to_reach, under
from seqamodal_ros.scene.status import Status

TOPIC = "seqamodal/layered_masks"
DEPTH = "depth"
PATIENCE = 10.0  # seconds after which who follows is told that depth is missing
COLUMNS = f"{'id':>5} {'layer':>5} {'visible':>7} {'score':>5}  x y width height"


class Evidence(NamedTuple):
    """What is known of objects beside what their message says of each.

    Attributes:
        shares: see `LayeredScene.occluder_shares`; empty where hypotheses were not sent.
        nearer: see `nearer_beside`; empty without depth.
    """

    shares: Mapping[int, Mapping[int, float]]
    nearer: Mapping[int, tuple[int, ...]]


class Listener(Node):
    """Subscribes `seqamodal/layered_masks`, and `depth` where that is wanted."""

    def __init__(self, layered_masks: Any, with_depth: bool) -> None:
        super().__init__("pick_order", start_parameter_services=False)  # it has no parameters
        warn_of_unknown_parameters(self)
        self._received: deque[Any] = deque()  # where depth is not wanted
        self._pairs = MasksWithDepth(_fail) if with_depth else None
        self._came = False  # masks, since the last call of `next_message` began
        self._subscriptions_kept = [self.create_subscription(layered_masks, TOPIC, self._on_masks, QoSProfile(depth=5))]
        if self._pairs is not None:
            depth = self.create_subscription(Image, DEPTH, self._pairs.add_depth, qos_profile_sensor_data)
            self._subscriptions_kept.append(depth)

    def _on_masks(self, masks: Any) -> None:
        self._came = True
        if self._pairs is None:
            self._received.append(masks)
        else:
            self._pairs.add_masks(masks)

    def next_message(self, seconds: float, stopped: Callable[[], bool]) -> tuple[Any, Image | None] | None:
        """The next message, with its depth image where that is wanted; None where none came in time, or `stopped`."""
        self._came = False
        until = time.monotonic() + seconds
        while (found := self._take()) is None and not stopped() and (left := until - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))
        return found

    def _take(self) -> tuple[Any, Image | None] | None:
        if self._pairs is not None:
            return self._pairs.take()
        return (self._received.popleft(), None) if self._received else None

    @property
    def lacks_depth(self) -> bool:
        """Whether masks came since the last call of `next_message` began, or wait, and none with its depth image."""
        return self._pairs is not None and (self._came or self._pairs.waiting)

    def silence(self, seconds: float) -> str:
        """One line on why no message came, and what to do."""
        topic = self.resolve_topic_name(TOPIC)
        if self.lacks_depth:
            depth = self.resolve_topic_name(DEPTH)
            why = f"does it come (--ros-args -r {DEPTH}:=NAME), and are both stamped by one clock?"
            return f"masks came, but no depth image of their moment on {depth} within {seconds:g} s: {why}"
        if self.count_publishers(topic):
            reason = "it has a publisher: does the camera publish, is the node active, or does it take longer (--timeout)?"
        else:
            reason = f"nobody publishes it; start the perception node, or name its topic: --ros-args -r {TOPIC}:=NAME"
        return f"no message on {topic} within {seconds:g} s: {reason}"


def report(masks: Any, target: int | None = None, min_score: float = 0.0, depth: Image | None = None) -> str:
    """What to print of a LayeredMasks.

    Args:
        masks: the message.
        target: id of an object to reach; None for the whole pick order.
        min_score: of what "can be picked now", see `free_objects`.
        depth: image of the same moment; with it, what has something nearer at its edge cannot be picked now.

    Raises:
        ValueError: the target is not in the message, or its objects are no order; see `to_reach`.
        InvalidMessage: its masks are not what it says, or depth is not registered to their image.
    """
    evidence, rows = _evidence(masks, depth), []
    if target is not None:
        rows = _way_to(masks, evidence, target, min_score)
    elif masks.objects:
        rows = _order(masks, evidence, min_score)
    note = [BRACKETS] if any("%)" in row for row in rows) else []
    return "\n".join([*_heading(masks), *rows, *note])


def _evidence(masks: Any, depth: Image | None) -> Evidence:
    if depth is None and not any(len(layer.hypotheses) > 1 for layer in masks.layers):
        return Evidence({}, {})
    scene = message_to_scene(masks)
    if depth is None:
        return Evidence(scene.occluder_shares, {})
    metres = registered_metres(masks.header, depth, masks.source_width, masks.source_height)
    return Evidence(scene.occluder_shares, nearer_beside(scene, metres))


def _heading(masks: Any) -> list[str]:
    stamp = masks.header.stamp
    counts = f"{counted(len(masks.objects), 'object')} in {counted(len(masks.layers), 'layer')}"
    lines = [f"{masks.header.frame_id} at {stamp.sec}.{stamp.nanosec:09d}: {counts}"]
    if masks.status == Status.EMPTY:
        lines.append(masks.status_message or "nothing found")
    if masks.status == Status.LOW_CONFIDENCE:
        lines.append(f"look before you pick: {masks.status_message}")
    if masks.truncated:
        lines.append("the limit of layers was reached: more objects may lie below")
    return lines


def _order(masks: Any, evidence: Evidence, min_score: float) -> list[str]:
    by_id = {obj.id: obj for obj in masks.objects}
    order = pick_order(masks.objects)
    free = [obj.id for obj in free_objects(masks.objects, min_score=min_score)]
    now = [number for number in free if number not in evidence.nearer]
    lines = ["can be picked now:", COLUMNS, *(_row(by_id[number]) for number in now)] if now else ["nothing can be picked now"]
    if len(now) < len(free):
        disputed = [by_id[number] for number in free if number not in now]
        lines += ["free by the image, not by depth; look from another view:", COLUMNS]
        lines += [_row(obj, _nearer(evidence.nearer[obj.id])) for obj in disputed]
    later = [by_id[number] for number in order if number not in free]
    if later:
        lines += ["then, in this order:", COLUMNS]
    return lines + [_row(obj, _why_not_now(obj, evidence, min_score)) for obj in later]


def _way_to(masks: Any, evidence: Evidence, target: int, min_score: float) -> list[str]:
    by_id = {obj.id: obj for obj in masks.objects}
    steps = to_reach(masks.objects, target)
    if not steps:
        free = free_objects([by_id[target]], min_score=min_score) and target not in evidence.nearer
        why = "" if free else _why_not_now(by_id[target], evidence, min_score)
        said = "can be picked now: nothing lies on it" if free else f"cannot be picked now: {why}"
        return [f"{target} {said}", COLUMNS, _row(by_id[target])]
    on_the_way = [by_id[step.id] for step in steps]
    rows = [
        _row(obj, *_doubts(obj, evidence), f"lies on {_ids(step.lies_on)}") for obj, step in zip(on_the_way, steps, strict=True)
    ]
    end = "then no object that is known lies on it:" if any(map(_under_none, on_the_way)) else "then it is free:"
    return [
        f"to reach {target}, remove in this order:",
        COLUMNS,
        *rows,
        end,
        _row(by_id[target], *_doubts(by_id[target], evidence)),
    ]


def _why_not_now(obj: Any, evidence: Evidence, min_score: float) -> str:
    if not free_objects([obj]):
        return under(obj, evidence.shares.get(obj.id, {}))
    below = [] if free_objects([obj], min_score=min_score) else ["below the minimum"]
    disputed = [f"{_nearer(evidence.nearer[obj.id])}: look from another view"] if obj.id in evidence.nearer else []
    return ", ".join(below + disputed)


def _nearer(others: tuple[int, ...]) -> str:
    if len(others) > 1:
        return f"by depth, objects {_ids(others)} are nearer at its edge"
    return f"by depth, {f'object {others[0]}' if others else 'something'} is nearer at its edge"


def _doubts(obj: Any, evidence: Evidence) -> list[str]:
    """What lies on an object, where hypotheses do not agree on that, or it is none that is known; and what is nearer."""
    shares = evidence.shares.get(obj.id, {})
    unsure = _under_none(obj) or any(share < 1 for share in shares.values())
    nearer = [_nearer(evidence.nearer[obj.id])] if obj.id in evidence.nearer else []
    return ([under(obj, shares)] if unsure else []) + nearer


def _under_none(obj: Any) -> bool:
    """Whether an object was drawn as lying under something, and no known one lies on it."""
    return obj.layer > 1 and not obj.occluded_by


def _row(obj: Any, *remarks: str) -> str:
    visible = "-" if math.isnan(obj.visible_ratio) else f"{100 * obj.visible_ratio:.0f} %"
    score = "-" if math.isnan(obj.score) else f"{obj.score:.2f}"
    roi = f"{obj.roi.x_offset} {obj.roi.y_offset} {obj.roi.width} {obj.roi.height}"
    edge = ["reaches the edge of the view"] if obj.touches_border else []
    return f"{obj.id:>5} {obj.layer:>5} {visible:>7} {score:>5}  {roi:<20} {', '.join([*remarks, *edge])}".rstrip()


def _ids(numbers: Any) -> str:
    return ", ".join(map(str, numbers))


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = Parser(prog="pick_order", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--target", type=int, metavar="ID", help="what to remove first to reach this object; ids hold for one message")
    either = parser.add_mutually_exclusive_group().add_argument  # who follows waits without limit
    either("--follow", action="store_true", help="print each message until Ctrl-C")
    either("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="wait so long for a message (default: %(default)g)")
    add("--min-score", type=_share, default=0.0, metavar="SCORE", help="pick now only what scores so much, in [0, 1]")
    add("--depth", action="store_true", help="ask the topic `depth`, too: what has something nearer at its edge is not free")
    return parser.parse_args(own_arguments(parser, argv))


def _seconds(text: str) -> float:
    value = _number(text)
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"must be a number above 0, not {text!r}")
    return value


def _share(text: str) -> float:
    value = _number(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"must be a number in [0, 1], not {text!r}")
    return value


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def main(argv: list[str] | None = None) -> int:
    """Print the next message, or each until interrupted.

    Returns 0; 1 with one line where no message came or it cannot be used; 130 where interrupted while it waited for one.
    """
    argv = sys.argv if argv is None else argv
    arguments = _parse(argv)
    try:
        layered_masks = MessageTypes.ros().layered_masks
    except ImportError as error:
        return _fail(str(error))
    with until_signalled(argv) as stop:
        try:
            return _listen(Listener(layered_masks, arguments.depth), arguments, lambda: bool(stop))
        except WRONG_VALUES as error:  # of ROS's own parameters; it has none
            _fail(str(error))
            return UNUSABLE
        except BrokenPipeError:  # nobody reads any more, as behind `| head`
            print_nowhere(sys.stdout)
            return 0


def _listen(listener: Listener, arguments: argparse.Namespace, stopped: Callable[[], bool]) -> int:
    seconds = PATIENCE if arguments.follow else arguments.timeout
    if arguments.follow:
        complain(f"pick_order: listening on {listener.resolve_topic_name(TOPIC)}, Ctrl-C ends")
    while True:
        found = listener.next_message(seconds, stopped)
        if stopped():
            return 0 if arguments.follow else INTERRUPTED
        if found is None:
            if not arguments.follow:
                return _fail(listener.silence(seconds))
            if listener.lacks_depth:
                _fail(listener.silence(seconds))
            continue
        masks, depth = found
        try:
            print(report(masks, arguments.target, arguments.min_score, depth), flush=True)
        except ValueError as error:
            failed = _fail(str(error))
            if not arguments.follow:  # the next message may be right, or hold the target
                return failed
        if not arguments.follow:
            return 0
        print(flush=True)


def _fail(reason: str) -> int:
    complain(f"pick_order: {reason}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
