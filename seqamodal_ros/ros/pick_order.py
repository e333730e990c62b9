# SPDX-License-Identifier: Apache-2.0
"""Prints what can be picked now and what comes free after it, or what to remove first to reach an object.

Reads `seqamodal/layered_masks`: ``ros2 run seqamodal_ros pick_order [--target ID] [--follow] [--ros-args -r FROM:=TO]``.
"""

import argparse
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile

from seqamodal_ros.commands.arguments import INTERRUPTED
from seqamodal_ros.messages import MessageTypes, message_to_scene
from seqamodal_ros.ros.command_line import own_arguments
from seqamodal_ros.ros.signals import until_signalled
from seqamodal_ros.scene.captions import counted
from seqamodal_ros.scene.picking import BRACKETS, free_objects, pick_order, to_reach, under
from seqamodal_ros.scene.status import Status

Shares = Mapping[int, Mapping[int, float]]  # see `LayeredScene.occluder_shares`

TOPIC = "seqamodal/layered_masks"
COLUMNS = f"{'id':>5} {'layer':>5} {'visible':>7} {'score':>5}  x y width height"


class Listener(Node):
    """Subscribes `seqamodal/layered_masks`."""

    def __init__(self, layered_masks: Any) -> None:
        super().__init__("pick_order")
        self._received: list[Any] = []
        self._subscription_kept = self.create_subscription(layered_masks, TOPIC, self._received.append, QoSProfile(depth=5))

    def next_message(self, seconds: float, stopped: Callable[[], bool]) -> Any | None:
        """The next message; None where none came in time, or `stopped`."""
        until = time.monotonic() + seconds
        while not self._received and not stopped() and (left := until - time.monotonic()) > 0:
            rclpy.spin_once(self, timeout_sec=min(left, 0.1))
        return self._received.pop(0) if self._received else None

    def silence(self, seconds: float) -> str:
        """One line on why no message came, and what to do."""
        topic = self.resolve_topic_name(TOPIC)
        if self.count_publishers(topic):
            reason = "it has a publisher: does the camera publish, is the node active, or does it take longer (--timeout)?"
        else:
            reason = f"nobody publishes it; start the perception node, or name its topic: --ros-args -r {TOPIC}:=NAME"
        return f"no message on {topic} within {seconds:g} s: {reason}"


def report(masks: Any, target: int | None = None, min_score: float = 0.0) -> str:
    """What to print of a LayeredMasks.

    Args:
        masks: the message.
        target: id of an object to reach; None for the whole pick order.
        min_score: of what "can be picked now", see `free_objects`.

    Raises:
        ValueError: the target is not in the message, or its objects are no order; see `to_reach`.
        InvalidMessage: its masks are not what it says.
    """
    shares, rows = _shares(masks), []
    if target is not None:
        rows = _way_to(masks, shares, target, min_score)
    elif masks.objects:
        rows = _order(masks, shares, min_score)
    note = [BRACKETS] if any("%)" in row for row in rows) else []
    return "\n".join([*_heading(masks), *rows, *note])


def _shares(masks: Any) -> Shares:
    """See `LayeredScene.occluder_shares`; nothing where hypotheses were not sent."""
    sent = any(len(layer.hypotheses) > 1 for layer in masks.layers)
    return message_to_scene(masks).occluder_shares if sent else {}


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


def _order(masks: Any, shares: Shares, min_score: float) -> list[str]:
    by_id = {obj.id: obj for obj in masks.objects}
    order = pick_order(masks.objects)
    now = [obj.id for obj in free_objects(masks.objects, min_score=min_score)]
    lines = ["can be picked now:", COLUMNS, *(_row(by_id[number]) for number in now)] if now else ["nothing can be picked now"]
    later = [by_id[number] for number in order if number not in now]
    if later:
        lines += ["then, in this order:", COLUMNS]
    return lines + [_row(obj, _why_not_now(obj, shares)) for obj in later]


def _way_to(masks: Any, shares: Shares, target: int, min_score: float) -> list[str]:
    by_id = {obj.id: obj for obj in masks.objects}
    steps = to_reach(masks.objects, target)
    if not steps:
        free = free_objects([by_id[target]], min_score=min_score)
        said = "can be picked now: nothing lies on it" if free else f"cannot be picked now: {_why_not_now(by_id[target], shares)}"
        return [f"{target} {said}", COLUMNS, _row(by_id[target])]
    on_the_way = [by_id[step.id] for step in steps]
    rows = [
        _row(obj, *_doubts(obj, shares), f"lies on {_ids(step.lies_on)}") for obj, step in zip(on_the_way, steps, strict=True)
    ]
    end = "then no object that is known lies on it:" if any(map(_under_none, on_the_way)) else "then it is free:"
    return [
        f"to reach {target}, remove in this order:",
        COLUMNS,
        *rows,
        end,
        _row(by_id[target], *_doubts(by_id[target], shares)),
    ]


def _why_not_now(obj: Any, shares: Shares) -> str:
    return "below the minimum" if free_objects([obj]) else under(obj, shares.get(obj.id, {}))


def _doubts(obj: Any, shares: Shares) -> list[str]:
    """What lies on an object, where its hypotheses do not agree on that, or it is none of those that are known."""
    own = shares.get(obj.id, {})
    return [under(obj, own)] if _under_none(obj) or any(share < 1 for share in own.values()) else []


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
    parser = argparse.ArgumentParser(prog="pick_order", description=(__doc__ or "").partition("\n")[0])
    add = parser.add_argument
    add("--target", type=int, metavar="ID", help="what to remove first to reach this object; ids hold for one message")
    either = parser.add_mutually_exclusive_group().add_argument  # who follows waits without limit
    either("--follow", action="store_true", help="print each message until Ctrl-C")
    either("--timeout", type=_seconds, default=10.0, metavar="SECONDS", help="wait so long for a message (default: %(default)g)")
    add("--min-score", type=_share, default=0.0, metavar="SCORE", help="pick now only what scores so much, in [0, 1]")
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
        return _listen(Listener(layered_masks), arguments, lambda: bool(stop))


def _listen(listener: Listener, arguments: argparse.Namespace, stopped: Callable[[], bool]) -> int:
    seconds = math.inf if arguments.follow else arguments.timeout
    if arguments.follow:
        print(f"pick_order: listening on {listener.resolve_topic_name(TOPIC)}, Ctrl-C ends", file=sys.stderr, flush=True)
    while True:
        masks = listener.next_message(seconds, stopped)
        if stopped():
            return 0 if arguments.follow else INTERRUPTED
        if masks is None:
            return _fail(listener.silence(seconds))
        try:
            print(report(masks, arguments.target, arguments.min_score), flush=True)
        except ValueError as error:
            failed = _fail(str(error))
            if not arguments.follow:  # the next message may be right, or hold the target
                return failed
        if not arguments.follow:
            return 0
        print(flush=True)


def _fail(reason: str) -> int:
    print(f"pick_order: {reason}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
