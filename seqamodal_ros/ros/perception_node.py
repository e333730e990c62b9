# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in, ordered layered masks out. A lifecycle node; the newest frame only."""

from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from seqamodal_ros.messages import InvalidMessage, MessageTypes, check_header, image_rgb, scene_to_message
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros.diagnostics import Counters, diagnostics
from seqamodal_ros.ros.parameters import Parameters
from seqamodal_ros.ros.worker import Answer, Frame, Worker

WARN_EVERY = 5.0  # seconds between log lines of one kind; every bad message is counted all the same


class PerceptionNode(LifecycleNode):
    """`image` -> `~/layered_masks`, while active. Inference runs on a worker thread, ROS on the executor's alone."""

    def __init__(self, **kwargs: Any):
        super().__init__("seqamodal", **kwargs)
        self.parameters = Parameters(self)
        self._worker: Worker | None = None
        self._active = False
        self._problem = ""
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
        p = self.parameters
        try:
            p.check()
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
        except Exception as error:  # of CUDA too, say; rclpy would swallow it and leave no word
            self.get_logger().error(f"cannot configure: {error}")
            return TransitionCallbackReturn.FAILURE
        self._types = types
        self.counters = Counters()
        self._masks = self.create_lifecycle_publisher(types.layered_masks, "~/layered_masks", 5)
        self._images = self.create_subscription(Image, "image", self._on_image, qos_profile_sensor_data)
        self._worker = worker
        p.locked = True
        perceiver = worker.perceiver
        self.get_logger().info(f"configured: {perceiver.model_id[:40]} on {perceiver.device}")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to answer frames."""
        self._active = True
        self.get_logger().info(f"active: {self._images.topic_name} -> {self._masks.topic_name}")
        return super().on_activate(state)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the frame at work and answer no more."""
        self._active = False
        if self._worker is not None:
            self._worker.cancel()
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

    def _release(self) -> None:
        self._active = False
        if self._worker is not None:
            self._worker.stop()
            self._worker = None
            self.destroy_subscription(self._images)
            self.destroy_lifecycle_publisher(self._masks)
        self.parameters.locked = False

    def _on_image(self, message: Image) -> None:
        if not self._active or self._worker is None:
            return
        self.counters.received += 1
        try:
            check_header(message.header)
            image = image_rgb(message)
        except InvalidMessage as error:
            self.counters.rejected += 1
            self._problem = f"dropped a bad image: {error}"
            self.get_logger().warning(self._problem, throttle_duration_sec=WARN_EVERY)
            return
        frame = Frame(message.header, image, self.parameters.get("num_samples"), self.parameters.get("seed"))
        self.counters.superseded += self._worker.submit(frame)

    def _publish_answers(self) -> None:
        if not self._active or self._worker is None:
            return
        for answer in self._worker.answers():
            self._publish(answer, self._worker.perceiver.model_id)

    def _publish(self, answer: Answer, model_id: str) -> None:
        if answer.scene is None:
            self.counters.failed += 1
            self._problem = f"inference failed: {answer.error}"
            self.get_logger().error(self._problem, throttle_duration_sec=WARN_EVERY)
            return
        self.counters.answered += 1
        hypotheses = self.parameters.get("publish_hypotheses")
        self._masks.publish(scene_to_message(answer.scene, answer.frame.header, model_id, self._types, hypotheses))

    def _report(self) -> None:
        state = "active" if self._active else "inactive" if self._worker else "unconfigured"
        details = {}
        if self._worker is not None:
            details = {"model": self._worker.perceiver.model_id, "device": self._worker.perceiver.device}
        stamp = self.get_clock().now().to_msg()
        name = self.get_fully_qualified_name()
        self._diagnostics.publish(diagnostics(stamp, name, state, self._problem, self.counters, details))
        self._problem = ""


def main() -> None:
    """Run the node until it is shut down."""
    rclpy.init()
    node = PerceptionNode()
    executor = SingleThreadedExecutor()  # before the model loads: an interrupt meanwhile would leave a half-made one
    executor.add_node(node)
    try:
        node.autostart()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == "__main__":
    main()
