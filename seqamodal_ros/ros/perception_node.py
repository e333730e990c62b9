# SPDX-License-Identifier: Apache-2.0
"""The perception node: images in, ordered layered masks out. A lifecycle node; each camera's newest frame only."""

import os
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import wraps
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from std_srvs.srv import Trigger

from seqamodal_ros.messages import InvalidMessage
from seqamodal_ros.perceiver import Perceiver
from seqamodal_ros.ros import malloc
from seqamodal_ros.ros.camera import Camera
from seqamodal_ros.ros.command_line import UNUSABLE, WRONG_VALUES, only_ros_arguments, warn_of_unknown_parameters
from seqamodal_ros.ros.diagnostics import Counters, memory, status
from seqamodal_ros.ros.library_log import to_ros
from seqamodal_ros.ros.parameters import Parameters, meanings
from seqamodal_ros.ros.service_guards import refuse_unfit_transitions
from seqamodal_ros.ros.signals import Signalled, ending_at_once, until_signalled
from seqamodal_ros.ros.watchdog import Watchdog
from seqamodal_ros.ros.worker import NotDrawn, TooLate, Worker, together

HEAR_WITHIN = 0.1  # seconds: Python hears a signal once the executor has no more to wait for
TOLD_WITHIN = 1.0  # seconds that the last words of a process take to reach others
DOUBLE_AFTER = 25  # reports in a row that see a node of our name: one that was killed is announced for Fast DDS's lease of 20 s
TIMELESS_AFTER = 3  # reports in a row without a simulation's time: the first comes before the executor has heard any
FAILURES = 10  # in a row, on a GPU: an error that stays with the process, as where the GPU was lost

WAITS = "unconfigured: configure and activate it, or start it with autostart set to true"

Transition = Callable[["PerceptionNode", LifecycleState], TransitionCallbackReturn]


def _remembered(transition: Transition) -> Transition:
    """A transition of the node; what it raises is remembered for `on_error`, as rclpy tells nobody."""

    @wraps(transition)
    def run(self: "PerceptionNode", state: LifecycleState) -> TransitionCallbackReturn:
        try:
            return transition(self, state)
        except Exception as error:
            self._raised = f"{transition.__name__}: {error!r}"
            raise

    return run


class PerceptionNode(LifecycleNode):
    """Cameras that share a model, while active. Inference runs on a worker thread, ROS on the executor's alone."""

    def __init__(self, **kwargs: Any):
        super().__init__("seqamodal", **kwargs)
        refuse_unfit_transitions(self)
        self.parameters = Parameters(self)
        self.parameters.outside = lambda camera, region: self.cameras[camera].outside(region)
        warn_of_unknown_parameters(self, of_topics=False)
        self._worker: Worker | None = None
        self._held = ExitStack()  # what configure has acquired
        self._active = self._finalized = False
        self._raised = ""  # by the transition that failed last
        self._refused = ""  # why configure failed, until it does not
        self._failures = 0  # frames in a row whose inference failed
        self._doubles_seen = self._timeless = 0
        self.cameras: dict[str, Camera] = {}  # by name; while configured
        self._answer_ready = self.create_guard_condition(self._publish_answers)
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 1)
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))  # also while a bag is paused
        self._watchdog = Watchdog(self._give_up)
        self._end_log = to_ros(self.get_logger())

    def autostart(self) -> None:
        """Configure and activate, where the parameter says so; a refusal is logged by `on_configure`."""
        if not self.parameters.get("autostart"):
            self.get_logger().info(WAITS)
        elif self.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            self.trigger_activate()

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Check parameters, load the model; what is wrong is logged in one line and the node stays unconfigured."""
        try:
            self.parameters.check()
            perceiver = self._acquire().perceiver
        except Exception as error:  # of CUDA too, say; rclpy would swallow it and leave no word
            self._release()
            self._refused = f"cannot configure: {error}"
            self.get_logger().error(self._refused)
            return TransitionCallbackReturn.FAILURE
        self._refused = ""
        self.parameters.locked = True
        warn_of_unknown_parameters(self, of_topics=True)
        self.get_logger().info(f"configured: {perceiver.computed_by}")
        return TransitionCallbackReturn.SUCCESS

    @_remembered
    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start to answer frames."""
        self._active = True
        for camera in self.cameras.values():
            camera.activated()
            self.get_logger().info(f"active: {camera.images.topic_name} -> {camera.outputs.topic}")
        return super().on_activate(state)

    @_remembered
    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Drop the frame at work, answer no more, give back the GPU's memory and what of the CPU's was freed; the model stays."""
        self._active = False
        self._cancel("the node was deactivated")
        if self._worker is not None:
            self._worker.rest()
        self.get_logger().info("deactivated: images are ignored, the model stays in memory")
        return super().on_deactivate(state)

    @_remembered
    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model's memory back."""
        self._release()
        malloc.give_back()
        self.get_logger().info("cleaned up: the model's memory is given back")
        return TransitionCallbackReturn.SUCCESS

    @_remembered
    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """As cleanup, for good."""
        self._release()
        self._finalized, self._refused = True, ""
        self.get_logger().info("shut down for good: end this process, and start another to go on")
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """A transition raised: let go of everything, back to unconfigured; where that fails, too, it is the end."""
        self._refused = (
            f"a transition failed ({self._raised}); this is a bug, please report it: configure the node again to go on"
        )
        self.get_logger().error(self._refused)
        self._finalized = True
        self._release()
        self._finalized = False
        return TransitionCallbackReturn.SUCCESS

    def destroy_node(self) -> None:
        """Stop the worker before the node goes; its name and lifecycle services leave the graph at once."""
        self._release()
        self._watchdog.end()
        self._end_log()
        super().destroy_node()
        # The state machine holds those services, and rclpy keeps it until the node is collected as garbage: others would wait for
        # them. To destroy it here would crash the process where another thread is in a transition, which ends in AttributeError.
        self.__dict__.pop("_state_machine", None)

    def dismiss(self, executor: SingleThreadedExecutor) -> None:
        """Answer callers of `~/segment` that the node ends, and give them a second; for whoever ends it, before the executor."""
        self._active = False
        waited_for = any(camera.segment.waited_for for camera in self.cameras.values())
        self._cancel("the node ends")
        until = time.monotonic() + TOLD_WITHIN
        while waited_for and time.monotonic() < until:  # also once all are answered: what is on its way may be lost with the node
            executor.spin_once(timeout_sec=HEAR_WITHIN)

    def _acquire(self) -> Worker:
        """Load the model, start the worker, open topics and services; `_release` undoes what was done, in reverse."""
        p = self.parameters
        with malloc.loading():
            worker = Worker(self._load, self._answer_ready.trigger, p.get("num_samples"), self._watchdog.heartbeat)
        self._held.callback(worker.stop)
        for name in p.get("cameras"):
            camera = Camera(self, name, p, worker, lambda: self._active)
            self._held.callback(camera.destroy)
            self.cameras[name] = camera
        reset = self.create_service(Trigger, "~/reset", self._on_reset)
        self._held.callback(lambda: self.destroy_service(reset))
        self._worker = worker
        return worker

    def _load(self, before_call: Callable[[], None]) -> Perceiver:
        """The model, after its first calls: they are slower than those that follow."""
        p = self.parameters
        self.get_logger().info(f"loading the model {p.get('model')}")
        with ending_at_once():
            perceiver = Perceiver.load(
                p.get("model"),
                p.get("device"),
                fit=p.get("fit"),
                runtime=p.get("runtime"),
                max_layers=p.get("max_layers") or None,
                sampling_steps=p.get("sampling_steps") or None,
                mirror=None if p.get("mirror") else False,
                majority_null=p.get("majority_null") or None,  # false keeps the model's own
                before_call=before_call,
            )
            samples = p.get("num_samples")
            perceiver.warm_up(samples, together(perceiver.device, len(p.get("cameras")), samples))
        return perceiver

    def _release(self) -> None:
        self._active = False
        self._failures = 0
        self._worker = None
        try:
            self._held.close()
        finally:
            self.cameras.clear()
            self.parameters.locked = False

    def _cancel(self, reason: str) -> None:
        if self._worker is not None:
            self._worker.cancel()
        for camera in self.cameras.values():
            camera.cancel(reason)

    def _on_reset(self, request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self._cancel("the node was reset")
        for camera in self.cameras.values():
            camera.reset()
        response.success, response.message = True, "cancelled pending frames and reset the counters"
        return response

    def _publish_answers(self) -> None:
        if self._worker is None:
            return
        for answer in self._worker.answers():  # none of before a deactivation, which cancels
            self.cameras[answer.frame.camera].publish(answer)
            if isinstance(answer.error, (InvalidMessage, NotDrawn, TooLate)):  # which say nothing of the GPU
                continue
            may_last = answer.error is not None and type(answer.error).__name__ != "OutOfMemoryError"  # of others' memory, say
            self._failures = self._failures + 1 if may_last and self._worker.perceiver.device != "cpu" else 0
            if self._failures >= FAILURES:
                self._give_up(
                    f"{FAILURES} frames in a row failed on the GPU: exiting with code 1, so that launch restarts the node"
                )

    def _report(self) -> None:
        name = self.get_fully_qualified_name()
        doubles = self.get_node_names_and_namespaces().count((self.get_name(), self.get_namespace())) > 1
        self._doubles_seen = self._doubles_seen + 1 if doubles else 0
        self._timeless = 0 if self.get_clock().now().nanoseconds else self._timeless + 1
        problems = []
        if self._doubles_seen >= DOUBLE_AFTER:
            problems.append(f"another node is named {name} too: start one of them with `--ros-args -r __node:=NAME`")
            self.get_logger().warning(problems[-1], throttle_duration_sec=60.0)
        if self._timeless >= TIMELESS_AFTER:
            problems.append("use_sim_time is set, but /clock tells no time: no age is known, and max_age drops nothing")
            self.get_logger().warning(problems[-1], throttle_duration_sec=60.0)
        if self._worker is not None and not self._worker.alive:
            self._give_up(
                "the worker thread has ended, which is a bug, please report it: exiting, so that launch restarts the node"
            )
        self._tell("; ".join(problems))

    def _tell(self, problem: str, fatal: bool = False) -> None:
        """A status a camera; one for the node where it has none yet, or they have names."""
        name = self.get_fully_qualified_name()
        message = DiagnosticArray()
        message.header.stamp = self.get_clock().now().to_msg()
        if self._worker is None:
            state = "finalized" if self._finalized else "unconfigured"
            waits = "" if self._finalized or self._refused or fatal else WAITS
            both = "; ".join(filter(None, (problem, self._refused, waits)))
            message.status = [status(name, state, both, Counters(), memory(), fatal or bool(self._refused))]
        else:
            state = "active" if self._active else "inactive"
            perceiver = self._worker.perceiver
            about = {**memory(), "model": perceiver.model_id, "device": perceiver.device}
            about |= {"runtime": perceiver.runtime, "precision": perceiver.precision}
            if self._worker.gpu_memory is not None:
                about["gpu_memory_mb"] = f"{self._worker.gpu_memory / 1e6:.0f}"
            if "" not in self.cameras:  # or what was said of the node before it had cameras would stand for ever
                message.status.append(status(name, state, problem, None, about, fatal))
            for camera in self.cameras.values():
                details = {**about, **camera.pace.described()}
                if camera.last_stamp is not None:
                    details["age_s"] = f"{camera.age(camera.last_stamp):.2f}"
                if camera.last_image is not None:
                    details["since_image_s"] = f"{time.monotonic() - camera.last_image:.1f}"
                named = f"{name}: {camera.name}" if camera.name else name
                both = "; ".join(filter(None, (problem, camera.unfed() if self._active else "", camera.problem)))
                message.status.append(status(named, state, both, camera.counters, details, fatal, camera.frame_id))
                camera.problem = ""
        self._diagnostics.publish(message)

    def _give_up(self, problem: str) -> None:
        """End the process, on whatever thread: what is stuck cannot be ended, and whoever launched us can start anew."""
        try:
            self.get_logger().fatal(problem)
            self._tell(problem, fatal=True)
            time.sleep(TOLD_WITHIN)
        finally:
            os._exit(1)


def main() -> None:
    """Run the node until SIGINT or SIGTERM; it ends once the network call at work has, or at once where it loads a model."""
    only_ros_arguments("perception_node", __doc__ or "", meanings())
    malloc.share_arenas()
    with until_signalled() as stop:
        try:
            node, executor = PerceptionNode(), SingleThreadedExecutor()
        except WRONG_VALUES as error:
            print(f"perception_node: error: {error}", file=sys.stderr)
            sys.exit(UNUSABLE)
        executor.add_node(node)
        try:
            with suppress(Signalled):
                node.autostart()
                while not stop:
                    executor.spin_once(timeout_sec=HEAR_WITHIN)
        finally:
            try:
                with suppress(Signalled):  # of who asks it to configure now
                    node.dismiss(executor)
            finally:
                executor.shutdown()
                node.destroy_node()


if __name__ == "__main__":
    main()
