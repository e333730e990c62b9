# SPDX-License-Identifier: Apache-2.0
"""The service `~/segment`: the layered masks of one image, of the one sent or of the camera's next."""

from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.task import Future
from rclpy.time import Time
from rclpy.timer import Timer

from seqamodal_ros.messages import InvalidMessage, check_frame_id, unstamped
from seqamodal_ros.perceiver import LARGEST_NUM_SAMPLES
from seqamodal_ros.ros.images import raw_image
from seqamodal_ros.ros.mailbox import MOST_REQUESTED
from seqamodal_ros.ros.worker import Answer, Frame, Region, Source
from seqamodal_ros.scene.scene import LayeredScene

Outcome = Any  # LayeredMasks, or a string: why there are none

ENDING = "the node is being cleaned up"
TOO_MANY = "too many requests wait already: call again when they are answered"
ANSWER_WITHIN = 10.0  # seconds, where the request names no timeout
BURST = 50  # requests that may come at once and are all answered, if only that too many wait; they may hold images
LONGEST_WAIT = 600.0  # seconds: a caller who is gone holds a place for as long


class SegmentService:
    """Answers requests one by one ahead of the camera's frames; the executor stays free while one is at work.

    `prefix` comes before its name; `request_frame` leaves a frame with the worker and returns False where too many wait;
    `message` makes LayeredMasks of a frame and its scene; `refuse` says why requests cannot be taken now, or nothing.
    """

    def __init__(
        self,
        node: Node,
        prefix: str,
        request_frame: Callable[[Frame], bool],
        message: Callable[[Frame, LayeredScene], Any],
        refuse: Callable[[], str],
        num_samples: Callable[[], int],
        hypotheses: Callable[[], bool],
    ):
        from seqamodal_msgs.srv import SegmentImage

        self._node, self._request_frame, self._message = node, request_frame, message
        self._refuse, self._num_samples, self._hypotheses = refuse, num_samples, hypotheses
        self._ending = False
        self._passed_over = ""  # why the camera's last image is no answer, if it is none
        self._open: set[Future] = set()
        self._for_camera: list[tuple[Time, Any, Future]] = []  # what waits for the camera's next image: since when, request
        # a group of its own: in the node's, a request that waits would keep every other callback waiting
        group = ReentrantCallbackGroup()
        burst = QoSProfile(depth=BURST)
        self._service = node.create_service(
            SegmentImage, f"~/{prefix}segment", self._on_request, qos_profile=burst, callback_group=group
        )

    def offer(self, header: Any, source: Source, region: Region) -> None:
        """An image of the camera, to be seen in a region: it is the answer to whoever has waited since before its stamp.

        Or since what is in the future now, as the clock has jumped back: a simulation or a bag that began anew.
        """
        self._passed_over = "it has no stamp, let the driver set header.stamp" if unstamped(header) else ""
        if self._passed_over:  # nothing tells whether it was taken before the request
            return
        stamp, now = Time.from_msg(header.stamp).nanoseconds, self._node.get_clock().now().nanoseconds
        due = [waiting for waiting in self._for_camera if waiting[0].nanoseconds <= stamp or waiting[0].nanoseconds > now]
        self._for_camera = [waiting for waiting in self._for_camera if waiting not in due]
        for _, request, future in due:
            self._begin(request, header, source, region, future)

    def pass_over(self, error: InvalidMessage) -> None:
        """An image of the camera that cannot be used: those who wait for one are told why where none comes in time."""
        self._passed_over = str(error)

    def cancel(self, reason: str) -> None:
        """Tell all who wait that they wait in vain."""
        self._for_camera.clear()
        for future in list(self._open):
            _resolve(future, reason)

    @property
    def waited_for(self) -> bool:
        """Whether somebody waits who has not been answered."""
        return bool(self._open)

    def destroy(self) -> None:
        """Tell all who wait, and take the service away once they have been told, which the executor does after this callback."""
        if not self._open:
            self._node.destroy_service(self._service)
            return
        self._ending = True
        self.cancel(ENDING)
        timer: Timer = self._node.create_timer(0.01, lambda: self._end(timer), clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _end(self, timer: Timer) -> None:
        if not self._open:
            self._node.destroy_timer(timer)
            self._node.destroy_service(self._service)

    async def _on_request(self, request: Any, response: Any) -> Any:
        future = Future()
        self._open.add(future)
        seconds = _seconds(request)
        timer = self._node.create_timer(
            seconds if seconds > 0 else ANSWER_WITHIN,
            lambda: _resolve(future, self._too_late(future)),
            callback_group=ReentrantCallbackGroup(),  # of its own: the node's would remember it for ever
            clock=Clock(clock_type=ClockType.STEADY_TIME),  # a caller waits in real time, also while a bag is paused
        )
        try:
            self._start(request, future)
            outcome = await future
        finally:
            self._open.discard(future)
            self._for_camera = [waiting for waiting in self._for_camera if waiting[2] is not future]
            self._node.destroy_timer(timer)
        response.success = not isinstance(outcome, str)
        if isinstance(outcome, str):
            response.message = outcome
        else:
            response.masks = outcome
        return response

    def _start(self, request: Any, future: Future) -> None:
        """Hand the request on, or resolve it with what is wrong with it."""
        if reason := ENDING if self._ending else self._refuse():
            _resolve(future, reason)
        elif len(self._open) > MOST_REQUESTED:
            _resolve(future, TOO_MANY)
        elif request.num_samples > LARGEST_NUM_SAMPLES:
            _resolve(future, f"num_samples must be in 0..{LARGEST_NUM_SAMPLES} (0: the node's), not {request.num_samples}")
        elif not 0 <= _seconds(request) <= LONGEST_WAIT:
            in_range = f"in 0..{LONGEST_WAIT:.0f} s (0: {ANSWER_WITHIN:.0f} s)"
            _resolve(future, f"timeout must be {in_range}, not {_seconds(request):g} s")
        elif len(request.image.data) or request.image.width:
            try:
                check_frame_id(request.image.header)
                self._begin(request, request.image.header, raw_image(request.image)[0], None, future)
            except InvalidMessage as error:
                _resolve(future, _unusable(error))
        else:
            if not self._for_camera:
                self._passed_over = ""
            self._for_camera.append((self._node.get_clock().now(), request, future))

    def _begin(self, request: Any, header: Any, source: Source, region: Region, future: Future) -> None:
        def reply(answer: Answer) -> None:
            if not future.done():  # or a message would be made for nobody
                future.set_result(self._outcome(answer))

        num_samples = request.num_samples or self._num_samples()
        frame = Frame(
            header,
            source,
            num_samples,
            request.seed,
            region=region,
            hypotheses=self._hypotheses(),
            reply=reply,
            wanted=lambda: not future.done(),
        )
        if not self._request_frame(frame):  # where frames of callers who have stopped waiting lie, too
            _resolve(future, TOO_MANY)

    def _outcome(self, answer: Answer) -> Outcome:
        """Made at once: on a CPU the worker waits for it, and no inference goes on beside."""
        if isinstance(answer.error, InvalidMessage):
            return _unusable(answer.error)
        return f"inference failed: {answer.error}" if answer.scene is None else self._message(answer.frame, answer.scene)

    def _too_late(self, future: Future) -> str:
        if any(waiting[2] is future for waiting in self._for_camera):
            if self._passed_over:
                return f"no image came in time that can be used: {self._passed_over}"
            return "no image stamped after the request came in time: does the camera publish, and on this node's clock?"
        return "the answer was not ready in time: allow a longer timeout"


def _seconds(request: Any) -> float:
    """How long the caller waits at most, seconds."""
    return float(request.timeout.sec + request.timeout.nanosec / 1e9)


def _resolve(future: Future, outcome: Outcome) -> None:
    """The first outcome counts: a scene that comes after the timeout is nobody's."""
    if not future.done():
        future.set_result(outcome)


def _unusable(error: InvalidMessage) -> str:
    return f"the image cannot be used: {error}"
