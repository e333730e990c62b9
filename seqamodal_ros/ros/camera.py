# SPDX-License-Identifier: Apache-2.0
"""One camera of the node: its topics in and out, its service, its counters. All but `late` runs on the executor's thread."""

import math
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from rclpy.lifecycle import LifecycleNode
from rclpy.qos import QoSProfile, QoSReliabilityPolicy
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.time import Time
from rclpy.utilities import get_rmw_implementation_identifier
from sensor_msgs.msg import CompressedImage, Image

from seqamodal_ros.messages import InvalidMessage, MessageTypes, check_header, check_region, unstamped
from seqamodal_ros.ros.diagnostics import Counters, Pace
from seqamodal_ros.ros.images import Size, compressed_image, raw_image
from seqamodal_ros.ros.outputs import Outputs
from seqamodal_ros.ros.parameters import Parameters
from seqamodal_ros.ros.points import Points
from seqamodal_ros.ros.quality import publishers_of, subscribe_counting_lost
from seqamodal_ros.ros.segment import SegmentService
from seqamodal_ros.ros.worker import Answer, Frame, NotDrawn, Region, Source, TooLate, Worker
from seqamodal_ros.scene.scene import LayeredScene

WARN_EVERY = 5.0  # seconds between log lines of one kind; every bad message is counted all the same
REPEAT_EVERY = 60.0  # seconds between log lines that say the same
QUIET = 5.0  # seconds without an image that are told, where images have not been slower
LATEST_PAUSES = 5
FASTDDS_REMEDY = ": start the camera's driver with the Fast DDS profile, too (docs/node.md)"


class Camera:
    """`image` -> `~/layered_masks` and the like; with a name, `name/image` -> `~/name/layered_masks`.

    Args:
        node: that it belongs to.
        name: of the camera; empty where there is one.
        parameters: of the node.
        worker: sees the frames, of all cameras.
        active: whether the node is.

    Raises:
        ImportError: seqamodal_msgs is not built.
    """

    def __init__(self, node: LifecycleNode, name: str, parameters: Parameters, worker: Worker, active: Callable[[], bool]):
        self.name, self._node, self._parameters, self._worker, self._active = name, node, parameters, worker, active
        self.reset()
        prefix = f"{name}/" if name else ""
        self._held = ExitStack()
        with ExitStack() as unwound:  # where something below raises, what was opened is closed
            unwound.callback(self._held.close)
            model_id = worker.perceiver.model_id
            self.outputs = Outputs(node, prefix, MessageTypes.ros(), model_id)
            self._held.callback(self.outputs.destroy)
            self.points = Points(node, prefix, self._without_points)
            self._held.callback(self.points.destroy)
            self.segment = SegmentService(
                node,
                prefix,
                request_frame=lambda frame: worker.request(replace(frame, camera=name)),
                message=self.outputs.message,
                refuse=lambda: "" if active() else "the node is not active: activate it first",
                num_samples=lambda: parameters.get("num_samples"),
                hypotheses=lambda: parameters.get("publish_hypotheses"),
            )
            self._held.callback(self.segment.destroy)
            self.images = self._subscribe(f"{prefix}image", parameters.get("image_transport"))
            self._held.callback(lambda: node.destroy_subscription(self.images))
            unwound.pop_all()

    def reset(self) -> None:
        """Counters at zero, nothing told."""
        self.counters, self.pace = Counters(), Pace()
        self.problem = ""  # the latest thing that went wrong, until it is told
        self._logged: dict[str, tuple[float, str]] = {}  # when each kind of problem was, seconds, and its reason
        self.last_stamp: Time | None = None  # of the image that was answered last
        self.frame_id = ""  # of the image that came last with a good header
        self.last_image: float | None = None  # when one came last, good or bad, seconds of the monotonic clock
        self.activated()

    def activated(self) -> None:
        """From now on images are waited for."""
        self._active_since = time.monotonic()
        self._unfed_logged = -math.inf  # when it was said that no images come, since some did, seconds
        self.size: Size | None = None  # of the image that could be read last
        self._pauses: deque[float] = deque(maxlen=LATEST_PAUSES)  # between images, seconds

    def unfed(self) -> str:
        """What is wrong where no images come, logged where it lasts; nothing where all is well, or images were as slow before."""
        reason, now = self._why_unfed(), time.monotonic()
        if not reason:
            self._unfed_logged = -math.inf
        elif now - self._active_since > QUIET and now - self._unfed_logged >= REPEAT_EVERY:  # a camera may start after its node
            self._unfed_logged = now
            self._warn(reason)
        return reason

    def _why_unfed(self) -> str:
        topic, waits = self.images.topic_name, time.monotonic() - max(self._active_since, self.last_image or 0.0)
        publishers, refused = publishers_of(self._node, self.images)
        if not publishers:
            return f"nobody publishes {topic}: does the camera run, is the topic right?"
        if len(refused) == publishers:
            return "; ".join(refused)
        if waits > max(QUIET, 3 * max(self._pauses, default=0.0)):
            quiet = (
                f"no image on {topic} for {waits:.0f} s, though it has a publisher: is the camera stuck, are its images lost "
                "(docs/node.md), or does its driver run as another user?"
            )
            return "; ".join([quiet, *refused])
        return ""

    def outside(self, region: Region) -> str:
        """How a region leaves the image that could be read last; nothing where it does not, or none has come."""
        try:
            if self.size is not None:
                check_region(region, *self.size, f" of {self.name}" if self.name else "")
        except InvalidMessage as error:
            return f"parameter 'region': {error}"
        return ""

    def cancel(self, reason: str) -> None:
        """Let go of what waits: callers, who get the reason, and clouds."""
        self.segment.cancel(reason)
        self.points.forget()

    def destroy(self) -> None:
        """Take topics and service away."""
        self._held.close()

    def age(self, stamp: Time) -> float:
        """Seconds since a stamp, on the node's clock."""
        return (self._node.get_clock().now().nanoseconds - stamp.nanoseconds) / 1e9

    def publish(self, answer: Answer) -> None:
        """Send what became of a frame to whoever wants it, or count why there is nothing to send."""
        if isinstance(answer.error, TooLate):
            self._drop_old(str(answer.error))
            return
        if isinstance(answer.error, NotDrawn):
            self._tell("no overlay", str(answer.error))
            return
        bad = answer.error if isinstance(answer.error, InvalidMessage) else None
        if answer.error is not None and bad is None:
            self.counters.failed += 1
            self._tell("inference failed", str(answer.error))
        if answer.frame.reply is not None:
            answer.frame.reply(answer)
        elif answer.scene is not None:
            self._publish(answer, answer.scene)
        elif answer.overlay is not None:
            self.outputs.publish_overlay(answer.frame, answer.overlay)
        elif bad is not None:
            self._reject(bad)

    def _publish(self, answer: Answer, scene: LayeredScene) -> None:
        self.counters.answered += 1
        self.last_stamp = Time.from_msg(answer.frame.header.stamp)
        self.outputs.publish(answer, scene)
        self.pace.answered(answer.frame.received, scene.seconds)
        if answer.label is not None and self.points.wanted:
            self.points.publish(answer.frame, scene, answer.label)

    def _without_points(self, why: InvalidMessage) -> None:
        self.counters.without_points += 1
        self._tell("no cloud", str(why))

    def _subscribe(self, topic: str, transport: str) -> Any:
        """The camera's images; compressed ones come beside the raw topic, as image_transport names them."""
        kind, read = Image, raw_image
        if transport != "raw":
            kind, topic, read = CompressedImage, f"{self._node.resolve_topic_name(topic)}/compressed", compressed_image
        # As of sensors, but for the depth: in a queue of five, large frames that come faster than they are read grow old. One of
        # its own for each subscription, as rclpy writes what parameters override into it.
        newest = QoSProfile(depth=1, reliability=QoSReliabilityPolicy.BEST_EFFORT)
        return subscribe_counting_lost(
            self._node,
            self._on_lost,
            kind,
            topic,
            lambda message: self._on_image(message, read),
            newest,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_image(self, message: Any, read: Callable[[Any], tuple[Source, Size]]) -> None:
        """`read` checks a message and says how large its image is; the worker makes that image, if it takes it."""
        if not self._active():
            return
        received = time.monotonic()
        if self.last_image is not None and self.last_image >= self._active_since:
            self._pauses.append(received - self.last_image)
        self.last_image = received
        self.counters.received += 1
        try:
            check_header(message.header)
            self.frame_id = message.header.frame_id
            source, self.size = read(message)
            region = self._region(*self.size)
        except InvalidMessage as error:
            self.segment.pass_over(error)
            self._reject(error)
            return
        if unstamped(message.header):
            self._tell("an image without a stamp", "let the driver set header.stamp; until then age and max_age mean nothing")
        self.segment.offer(message.header, source, region)
        if not (self.outputs.wanted or self.points.wanted):  # the cores are for what somebody hears
            self.counters.unwanted += 1
            return
        most, stamp = self._parameters.get("max_age"), Time.from_msg(message.header.stamp)

        def late() -> float:  # one from the future, as after a jump in time, is not
            return self.age(stamp) - most if most and not unstamped(message.header) else -math.inf

        if (seconds := late()) > 0:
            came = f"it came {most + seconds:.2f} s after its stamp"
            self._drop_old(f"{came}: are the clocks synchronised, and does use_sim_time match?")
            return
        frame = Frame(
            message.header,
            source,
            self._parameters.get("num_samples"),
            self._parameters.get("seed"),
            label=self.outputs.label_wanted or self.points.wanted,
            overlay=self.outputs.overlay_wanted,
            hypotheses=self._parameters.get("publish_hypotheses"),
            depth=self.points.match(message.header),
            max_depth_skew=self._parameters.get("max_depth_skew"),
            camera=self.name,
            region=region,
            stillness=self._parameters.get("stillness"),
            received=received,
            late=late,
        )
        if self._worker.submit(frame):
            self.counters.superseded += 1
            self._worker.give_way(self.name)

    def _drop_old(self, why: str) -> None:
        self.counters.too_old += 1
        self._tell("dropped an image older than max_age", why)

    def _on_lost(self, number: int) -> None:
        if self._active():
            self.counters.lost += number
            of_fastdds = "fastrtps" in get_rmw_implementation_identifier()
            self._tell("images lost", f"by the middleware{FASTDDS_REMEDY if of_fastdds else ''}")

    def _reject(self, error: InvalidMessage) -> None:
        self.counters.rejected += 1
        self._tell("dropped an image", str(error))

    def _region(self, width: int, height: int) -> Region:
        """The part of an image of this size that this camera's parameter names.

        Raises:
            InvalidMessage: it leaves the image.
        """
        region = self._parameters.region(self.name)
        check_region(region, width, height, ": set the parameter 'region'")
        return region

    def _tell(self, kind: str, reason: str) -> None:
        """Keep a problem for diagnostics; log it, unless one of its kind was logged just now, or the same not long ago."""
        self.problem = f"{kind}: {reason}"
        now = time.monotonic()
        since, before = self._logged.get(kind, (-math.inf, ""))
        if now - since >= (REPEAT_EVERY if reason == before else WARN_EVERY):
            self._logged[kind] = now, reason
            self._warn(self.problem)

    def _warn(self, text: str) -> None:
        self._node.get_logger().warning(f"{self.name}: {text}" if self.name else text)
