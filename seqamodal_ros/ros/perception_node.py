# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in, ordered layered masks out. A lifecycle node; the newest frame only."""

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.qos_overriding_options import QoSOverridingOptions
from rclpy.subscription import Subscription
from rclpy.time import Time
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from seqamodal_ros.messages import InvalidMessage, MessageTypes, check_header, compressed_rgb, image_rgb
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros.diagnostics import Counters, Pace, diagnostics, memory
from seqamodal_ros.ros.outputs import Outputs
from seqamodal_ros.ros.parameters import Parameters
from seqamodal_ros.ros.points import Points
from seqamodal_ros.ros.segment import SegmentService
from seqamodal_ros.ros.worker import Answer, Frame, Worker
from seqamodal_ros.scene.scene import LayeredScene

WARN_EVERY = 5.0  # seconds between log lines of one kind; every bad message is counted all the same
WARM_UP = (480, 640, 3)  # shape of the first image
WATCH_EVERY = 0.5  # seconds between looks at the worker
TOLD_WITHIN = 0.3  # seconds that the last words of a process take to reach others
DOUBLE_AFTER = 3  # reports in a row that see a node of our name: one that has just ended may still be announced


class PerceptionNode(LifecycleNode):
    """`image` -> `~/layered_masks` and the like, while active. Inference runs on a worker thread, ROS on the executor's alone."""

    def __init__(self, **kwargs: Any):
        super().__init__("seqamodal", **kwargs)
        self.parameters = Parameters(self)
        self._worker: Worker | None = None
        self._held = ExitStack()  # what configure has acquired
        self._active = False
        self._problem = ""
        self._doubles_seen = 0
        self.counters, self._pace = Counters(), Pace()
        self._last_stamp: Time | None = None  # of the image that was answered last
        self._answer_ready = self.create_guard_condition(self._publish_answers)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(1.0, self._report)
        self.create_timer(WATCH_EVERY, self._watch, clock=Clock(clock_type=ClockType.STEADY_TIME))  # also while a bag is paused

    def autostart(self) -> None:
        """Configure and activate, where the parameter says so; a refusal is logged by `on_configure`."""
        if self.parameters.get("autostart") and self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check parameters, load the model; what is wrong is logged in one line and the node stays unconfigured."""
        try:
            self.parameters.check()
            perceiver = self._acquire().perceiver
        except Exception as error:  # of CUDA too, say; rclpy would swallow it and leave no word
            self._release()
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self.counters, self._pace = Counters(), Pace()
        self.parameters.locked = True
        self.get_logger().info(f"configured: {perceiver.model_id[:40]} on {perceiver.device}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to answer frames."""
        self._active = True
        self.get_logger().info(f"active: {self._images.topic_name} -> {self._outputs.topic}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the frame at work and answer no more."""
        self._active = False
        self._cancel("the node was deactivated")
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, for good."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: let go of everything, back to unconfigured."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before the node goes."""
        self._release()
        super().destroy_node()

    def _acquire(self) -> Worker:
        """Load the model, start the worker, open topics and services; `_release` undoes what was done, in reverse."""
        p = self.parameters
        types = MessageTypes.ros()
        worker = Worker(self._load, self._answer_ready.trigger, p.get("num_samples"))
        held = self._held
        held.callback(worker.stop)
        model_id = worker.perceiver.model_id
        self._outputs = Outputs(self, types, model_id, lambda: p.get("publish_hypotheses"))
        held.callback(self._outputs.destroy)
        self._points = Points(self)
        held.callback(self._points.destroy)
        self._segment = SegmentService(
            self,
            request_frame=worker.request,
            message=self._outputs.message,
            refuse=lambda: "" if self._active else "the node is not active: activate it first",
            num_samples=lambda: p.get("num_samples"),
        )
        held.callback(self._segment.destroy)
        reset = self.create_service(Trigger, "~/reset", self._on_reset)
        held.callback(lambda: self.destroy_service(reset))
        self._images = self._subscribe(p.get("image_transport"))
        held.callback(lambda: self.destroy_subscription(self._images))
        self._worker = worker
        return worker

    def _load(self, before_call: Callable[[], None]) -> Perceiver:
        """The model, after a first look at a blank image: the first is slower than those that follow."""
        p = self.parameters
        perceiver = Perceiver.load(
            p.get("model"),
            p.get("device"),
            fit=p.get("fit"),
            max_layers=p.get("max_layers") or None,
            sampling_steps=p.get("sampling_steps") or None,
            majority_null=p.get("majority_null"),
            before_call=before_call,
        )
        perceiver(np.zeros(WARM_UP, np.uint8), p.get("num_samples"))
        return perceiver

    def _release(self) -> None:
        self._active = False
        self._worker = None
        self._held.close()
        self.parameters.locked = False

    def _cancel(self, reason: str) -> None:
        if self._worker is not None:
            self._worker.cancel()
            self._segment.cancel(reason)

    def _subscribe(self, transport: str) -> Subscription:
        """The camera's images; compressed ones come beside the raw topic, as image_transport names them."""
        kind, topic, convert = Image, "image", image_rgb
        if transport != "raw":
            kind, topic, convert = CompressedImage, f"{self.resolve_topic_name('image')}/compressed", compressed_rgb
        return self.create_subscription(
            kind,
            topic,
            lambda message: self._on_image(message, convert),
            qos_profile_sensor_data,
            qos_overriding_options=QoSOverridingOptions.with_default_policies(),
        )

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._cancel("the node was reset")
        self.counters, self._pace = Counters(), Pace()
        self._problem = ""
        response.success, response.message = True, "cancelled what was at work, counters are zero"
        return response

    def _on_image(self, message: Any, convert: Callable[[Any], np.ndarray]) -> None:
        if not self._active or self._worker is None:
            return
        self.counters.received += 1
        try:
            check_header(message.header)
            image = convert(message)
        except InvalidMessage as error:
            self.counters.rejected += 1
            self._problem = f"dropped a bad image: {error}"
            self.get_logger().warning(self._problem, throttle_duration_sec=WARN_EVERY)
            return
        self._segment.offer(message.header, image)
        most = self.parameters.get("max_age")
        if (
            most and self._age(Time.from_msg(message.header.stamp)) > most
        ):  # one from the future, as after a jump in time, is fine
            self.counters.too_old += 1
            return
        frame = Frame(
            message.header,
            image,
            self.parameters.get("num_samples"),
            self.parameters.get("seed"),
            label=self._outputs.label_wanted or self._points.wanted,
            overlay=self._outputs.overlay_wanted,
            depth=self._points.nearest(message.header),
        )
        self.counters.superseded += self._worker.submit(frame)

    def _age(self, stamp: Time) -> float:
        """Seconds since a stamp, on the node's clock."""
        return (self.get_clock().now().nanoseconds - stamp.nanoseconds) / 1e9

    def _publish_answers(self) -> None:
        if not self._active or self._worker is None:
            return
        for answer in self._worker.answers():
            if answer.scene is None:
                self.counters.failed += 1
                self._problem = f"inference failed: {answer.error}"
                self.get_logger().error(self._problem, throttle_duration_sec=WARN_EVERY)
            if answer.frame.reply is not None:
                answer.frame.reply(answer)
            elif answer.scene is not None:
                self._publish(answer, answer.scene)

    def _publish(self, answer: Answer, scene: LayeredScene) -> None:
        self.counters.answered += 1
        self._pace.answered(answer.frame.received)
        self._last_stamp = Time.from_msg(answer.frame.header.stamp)
        self._outputs.publish(answer, scene)
        if answer.label is None or not self._points.wanted:
            return
        try:
            self._points.publish(answer, scene, answer.label, self.parameters.get("max_depth_skew"))
        except InvalidMessage as error:
            self.counters.without_points += 1
            self._problem = f"no cloud: {error}"
            self.get_logger().warning(self._problem, throttle_duration_sec=WARN_EVERY)

    def _report(self) -> None:
        name = self.get_fully_qualified_name()
        doubles = self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())) > 1
        self._doubles_seen = self._doubles_seen + 1 if doubles else 0
        if self._doubles_seen >= DOUBLE_AFTER:
            self._problem = f"another node is named {name} too: start one of them with `--ros-args -r __node:=NAME`"
            self.get_logger().warning(self._problem, throttle_duration_sec=60.0)
        self._tell(self._problem)
        self._problem = ""

    def _tell(self, problem: str, fatal: bool = False) -> None:
        state = "active" if self._active else "inactive" if self._worker else "unconfigured"
        details = {**self._pace.described(), **memory()}
        if self._worker is not None:
            details |= {"model": self._worker.perceiver.model_id, "device": self._worker.perceiver.device}
        if self._last_stamp is not None:
            details["age_s"] = f"{self._age(self._last_stamp):.2f}"
        stamp, name = self.get_clock().now().to_msg(), self.get_fully_qualified_name()
        self._diagnostics.publish(diagnostics(stamp, name, state, problem, self.counters, details, fatal))

    def _watch(self) -> None:
        """End the process where the worker is stuck: its thread cannot be ended, and whoever launched it can start it anew."""
        heartbeat = self._worker.heartbeat if self._worker is not None else None
        if heartbeat is None or heartbeat.silence() <= heartbeat.allowed:
            return
        problem = (
            f"a network call has not ended for {heartbeat.silence():.1f} s, {heartbeat.allowed:.1f} s are allowed: "
            "this process ends with 1, to be started anew"
        )
        self.get_logger().fatal(problem)
        self._tell(problem, fatal=True)
        time.sleep(TOLD_WITHIN)
        os._exit(1)


def main() -> None:
    """Run the node until it is shut down."""
    rclpy.init()
    try:
        _run()
    except KeyboardInterrupt:
        pass
    except Exception:  # an interrupt ends the context under whatever runs, and rclpy's words for that are many
        if rclpy.ok():
            raise
    finally:
        rclpy.try_shutdown()


def _run() -> None:
    node = PerceptionNode()
    executor = SingleThreadedExecutor()  # before the model loads: an interrupt meanwhile would leave a half-made one
    executor.add_node(node)
    try:
        node.autostart()
        executor.spin()
    finally:
        executor.shutdown()
        node.destroy_node()


if __name__ == "__main__":
    main()
