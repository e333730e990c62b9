# SPDX-License-Identifier: Apache-2.0
"""What `make soak` holds on to: the node's process, started again as a launch does, and a robot's end of its topics."""

import os
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import SetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import QoSProfile
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2

from seqamodal_msgs.msg import LayeredMasks

WITHIN = 120.0  # seconds for what is due at once; a slow machine is no failure
TRANSITIONS = {
    "configure": Transition.TRANSITION_CONFIGURE,
    "cleanup": Transition.TRANSITION_CLEANUP,
    "activate": Transition.TRANSITION_ACTIVATE,
    "deactivate": Transition.TRANSITION_DEACTIVATE,
}
OUTCOMES = ("answered", "unwanted", "superseded", "too_old", "rejected", "failed")  # one of an image message, in /diagnostics


def wait(condition: Callable[[], Any], seconds: float = WITHIN) -> bool:
    """Whether a condition came true in time."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def spawn(module: str, *arguments: str, **options: Any) -> subprocess.Popen:
    """A module as a process that Ctrl-C does not reach: whoever started it ends it."""
    return subprocess.Popen([sys.executable, "-m", module, *arguments], start_new_session=True, **options)


def end(process: subprocess.Popen) -> str:
    """End a process in peace, or else by force; returns what it printed, if that was piped."""
    process.terminate()
    try:
        return process.communicate(timeout=20)[0] or ""
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[0] or ""


class NodeProcess:
    """The perception node as a process; its log goes to a file.

    `parameters` are `name:=value`; `module` is what is run.
    """

    def __init__(self, log: Path, *parameters: str, module: str = "seqamodal_ros.ros.perception_node"):
        self._log, self._module = log, module
        self._arguments = ["--ros-args", *(item for each in parameters for item in ("-p", each))]
        self.process = self._start()

    def _start(self) -> subprocess.Popen:
        with self._log.open("a") as log:
            return spawn(self._module, *self._arguments, stdout=log, stderr=subprocess.STDOUT)

    def start_again(self) -> int:
        """Waits until the process has died, as a launch does, starts it anew; returns what it died with."""
        died = self.process.wait(WITHIN)
        self.process = self._start()
        return died

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    @property
    def memory(self) -> float:
        """MB of memory, resident."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    @property
    def threads(self) -> int:
        """How many the process has."""
        return len(os.listdir(f"/proc/{self.process.pid}/task"))

    def end(self) -> None:
        """End it."""
        end(self.process)


class Robot:
    """Hears masks, clouds and diagnostics, on a thread of its own; sends images, changes state and parameters.

    `keep` keeps the masks whole, where they are not thousands; `queue` is how many images may be under way.
    """

    def __init__(self, keep: bool = False, queue: int = 1) -> None:
        self._keep = keep
        self.context = rclpy.Context()
        rclpy.init(context=self.context, signal_handler_options=SignalHandlerOptions.NO)
        self.node = rclpy.create_node("robot", context=self.context)
        self.masks: list[tuple[LayeredMasks, float]] = []  # and the clock's seconds when they came
        self.status: dict[str, str] = {}  # the latest diagnostics
        self.told = 0.0  # when they came, seconds of the monotonic clock
        self.clouds = 0
        self.repeated = 0  # good frames that were sent again, as no answer to the one before came in a second
        self.labels: deque[Image] = deque(maxlen=1)
        self.images = self.node.create_publisher(Image, "image", QoSProfile(depth=queue))
        self.compressed = self.node.create_publisher(CompressedImage, "image/compressed", QoSProfile(depth=queue))
        self.depths = self.node.create_publisher(Image, "depth", QoSProfile(depth=1))
        self.infos = self.node.create_publisher(CameraInfo, "camera_info", QoSProfile(depth=1))
        self.node.create_subscription(LayeredMasks, "seqamodal/layered_masks", self._on_masks, QoSProfile(depth=10))
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, QoSProfile(depth=10))
        self._change = self.node.create_client(ChangeState, "seqamodal/change_state")
        self._set = self.node.create_client(SetParameters, "seqamodal/set_parameters")
        self._executor = SingleThreadedExecutor(context=self.context)
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            pass

    def _on_masks(self, message: LayeredMasks) -> None:
        if not self._keep:
            message.layers, message.objects = [], []
        self.masks.append((message, self.now()))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            self.status, self.told = {item.key: item.value for item in status.values}, time.monotonic()

    def now(self) -> float:
        """Seconds of the clock that stamps images."""
        return float(self.node.get_clock().now().nanoseconds / 1e9)

    def listen_to_points(self) -> None:
        """Hear clouds from now on, which has the node make them."""

        def count(_: PointCloud2) -> None:
            self.clouds += 1

        self.node.create_subscription(PointCloud2, "seqamodal/points", count, QoSProfile(depth=10))

    def listen_to_label(self) -> None:
        """Hear labels from now on, which has the node draw them."""
        self.node.create_subscription(Image, "seqamodal/label", lambda label: self.labels.append(label), QoSProfile(depth=1))

    def number(self, name: str) -> int:
        """A counter of the latest diagnostics."""
        return int(self.status.get(name, 0))

    def settled(self) -> dict[str, str]:
        """Diagnostics of which no frame is at work any more; the latest where frames go on being lost."""
        since = time.monotonic()
        wait(lambda: self.told > since, 20)
        wait(lambda: self.number("received") == sum(map(self.number, OUTCOMES)), 20)
        return self.status

    def answer(self, publish: Callable[[Any], None], seconds: float = WITHIN) -> bool:
        """Whether a good frame is answered; `publish` sends one with a stamp, again and again until then."""
        came = len(self.masks)
        stamp = self.node.get_clock().now().to_msg()

        def answered() -> bool:
            nonlocal stamp
            if any(masks.header.stamp == stamp for masks, _ in self.masks[came:]):
                return True
            if self.now() - stamp.sec - stamp.nanosec / 1e9 > 1.0:
                stamp = self.node.get_clock().now().to_msg()
                publish(stamp)
                self.repeated += 1
            return False

        publish(stamp)
        return wait(answered, seconds) or len(self.masks) > came

    def change(self, transition: str) -> bool:
        """Ask for a transition as a lifecycle manager does; whether it was made."""
        request = ChangeState.Request(transition=Transition(id=TRANSITIONS[transition]))
        future = self._change.call_async(request)
        return wait(future.done) and bool(future.result().success)

    def set(self, **values: Any) -> bool:
        """Set parameters; whether all were taken."""
        parameters = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        future = self._set.call_async(SetParameters.Request(parameters=parameters))
        return wait(future.done) and all(result.successful for result in future.result().results)

    def ready(self) -> bool:
        """Wait until node and robot have found one another."""
        return (
            wait(lambda: self._change.service_is_ready() and self._set.service_is_ready())
            and wait(lambda: self.images.get_subscription_count() + self.compressed.get_subscription_count() > 0)
            and wait(lambda: self.node.count_publishers("seqamodal/layered_masks") > 0)
        )

    def close(self) -> None:
        """Leave the domain."""
        self._executor.shutdown()
        self._thread.join(5)
        self.node.destroy_node()
        rclpy.shutdown(context=self.context)
