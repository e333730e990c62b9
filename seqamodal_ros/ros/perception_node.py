# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in, ordered layered masks out. A lifecycle node; the newest frame only."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from rclpy.subscription import Subscription
from sensor_msgs.msg import CompressedImage, Image
from std_srvs.srv import Trigger

from seqamodal_ros.messages import InvalidMessage, MessageTypes, check_header, compressed_rgb, image_rgb
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros.diagnostics import Counters, diagnostics
from seqamodal_ros.ros.outputs import Outputs
from seqamodal_ros.ros.parameters import Parameters
from seqamodal_ros.ros.points import Points
from seqamodal_ros.ros.segment import SegmentService
from seqamodal_ros.ros.worker import Answer, Frame, Worker
from seqamodal_ros.scene.scene import LayeredScene

WARN_EVERY = 5.0  # seconds between log lines of one kind; every bad message is counted all the same
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
        self.counters = Counters()
        self._answer_ready = self.create_guard_condition(self._publish_answers)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(1.0, self._report)

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
        self.counters = Counters()
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
        worker = Worker(
            lambda before_call: Perceiver.load(
                p.get("model"),
                p.get("device"),
                fit=p.get("fit"),
                max_layers=p.get("max_layers") or None,
                sampling_steps=p.get("sampling_steps") or None,
                majority_null=p.get("majority_null"),
                before_call=before_call,
            ),
            self._answer_ready.trigger,
        )
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
        if transport == "raw":
            return self.create_subscription(
                Image, "image", lambda message: self._on_image(message, image_rgb), qos_profile_sensor_data
            )
        return self.create_subscription(
            CompressedImage,
            f"{self.resolve_topic_name('image')}/compressed",
            lambda message: self._on_image(message, compressed_rgb),
            qos_profile_sensor_data,
        )

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._cancel("the node was reset")
        self.counters = Counters()
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
        state = "active" if self._active else "inactive" if self._worker else "unconfigured"
        details = {}
        if self._worker is not None:
            details = {"model": self._worker.perceiver.model_id, "device": self._worker.perceiver.device}
        stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(diagnostics(stamp, name, state, self._problem, self.counters, details))
        self._problem = ""


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
