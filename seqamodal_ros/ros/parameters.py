# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: descriptions, ranges, what may change when, and one frozen object to read them from."""

import re
from dataclasses import dataclass
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from seqamodal_ros.perceiver import DEVICES, LARGEST_NUM_SAMPLES
from seqamodal_ros.scene.geometry import FITS

TRANSPORTS = ("raw", "compressed")


@dataclass(frozen=True)
class Spec:
    """One parameter: its default, what it means, its range or choices, and whether it is fixed or set before configure."""

    default: Any
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    read_only: bool = False
    before_configure: bool = False

    def descriptor(self) -> ParameterDescriptor:
        """What `ros2 param describe` shows, and what rclpy enforces."""
        constraints = f"one of: {', '.join(self.choices)}" if self.choices else ""
        if self.before_configure:
            constraints = f"{constraints}{'; ' if constraints else ''}takes effect at configure"
        descriptor = ParameterDescriptor(
            description=self.description, read_only=self.read_only, additional_constraints=constraints
        )
        if self.least is not None and self.most is not None and isinstance(self.default, float):
            descriptor.floating_point_range = [FloatingPointRange(from_value=self.least, to_value=self.most)]
        elif self.least is not None and self.most is not None:
            descriptor.integer_range = [IntegerRange(from_value=int(self.least), to_value=int(self.most), step=1)]
        return descriptor


SPECS: dict[str, Spec] = {
    "autostart": Spec(True, "Configure and activate at start, without a lifecycle manager.", read_only=True),
    "model": Spec("default", "A name in models/manifest.yaml, or the path of a .safetensors file.", before_configure=True),
    "device": Spec("auto", "Where the network runs; auto takes cuda where there is one.", choices=DEVICES, before_configure=True),
    "cameras": Spec(
        [""],
        "Names of several cameras that share the model, each with topics of its own: NAME/image -> ~/NAME/layered_masks.",
        before_configure=True,
    ),
    "image_transport": Spec(
        "raw", "How images come: on `image`, or compressed on `image/compressed`.", choices=TRANSPORTS, before_configure=True
    ),
    "fit": Spec("letterbox", "How a frame becomes a square: padded, or cut.", choices=FITS, before_configure=True),
    "max_layers": Spec(0, "N_max of Algorithm 2; 0 keeps the model's own.", 0, 50, before_configure=True),
    "sampling_steps": Spec(0, "Network calls a layer; 0 keeps the model's own.", 0, 1000, before_configure=True),
    "majority_null": Spec(False, "Stop where most hypotheses of a layer are null too.", before_configure=True),
    "num_samples": Spec(3, "K, the hypotheses of each layer.", 1, LARGEST_NUM_SAMPLES),
    "seed": Spec(0, "Of the noise; the same for every frame, so that a still scene stays still.", 0, 2**63 - 1),
    "max_age": Spec(0.0, "Images that come later than so many seconds after their stamp are dropped; 0: none.", 0.0, 3600.0),
    "max_depth_skew": Spec(0.05, "Seconds by which a depth image's stamp may differ from the image's.", 0.0, 10.0),
    "publish_hypotheses": Spec(True, "Send the K hypotheses of each layer, too."),
}


class ParameterError(ValueError):
    """A parameter that cannot be used; the text says which and why."""


class Parameters:
    """The declared parameters of a node; a bad override is kept as an error for `configure` instead of ending the node."""

    def __init__(self, node: Node):
        self._node = node
        self._errors: dict[str, str] = {}
        self.locked = False  # true from configure to cleanup
        for name, spec in SPECS.items():
            self._declare(name, spec)
        node.add_on_set_parameters_callback(self._on_set)

    def get(self, name: str) -> Any:
        """The value of a parameter of `SPECS`."""
        return self._node.get_parameter(name).value

    def check(self) -> None:
        """Raise ParameterError unless every value given at start was valid, or has been set to a valid one since."""
        if self._errors:
            raise ParameterError("; ".join(self._errors.values()))

    def _declare(self, name: str, spec: Spec) -> None:
        try:
            self._node.declare_parameter(name, spec.default, spec.descriptor())
            wrong = _wrong_choice(name, spec, self.get(name))
        except (InvalidParameterValueException, InvalidParameterTypeException):
            wrong = self._describe(name, spec)
            self._node.declare_parameter(name, spec.default, spec.descriptor(), ignore_override=True)
        if wrong:
            self._errors[name] = wrong

    def _describe(self, name: str, spec: Spec) -> str:
        given = self._node._parameter_overrides[name].value  # rclpy has no public way to read a refused override
        within = f" in {spec.least}..{spec.most}" if spec.least is not None else ""
        return f"parameter '{name}' must be of type {type(spec.default).__name__}{within}, not {given!r}"

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            spec = SPECS.get(parameter.name)
            if spec is None:
                continue
            if spec.before_configure and self.locked:
                reason = f"'{parameter.name}' takes effect at configure: deactivate and clean up the node first"
                return SetParametersResult(successful=False, reason=reason)
            if wrong := _wrong_choice(parameter.name, spec, parameter.value):
                return SetParametersResult(successful=False, reason=wrong)
        for parameter in parameters:
            self._errors.pop(parameter.name, None)
        return SetParametersResult(successful=True)


def _wrong_choice(name: str, spec: Spec, value: Any) -> str:
    if spec.choices and value not in spec.choices:
        return f"parameter '{name}' must be one of {', '.join(spec.choices)}, not {value!r}"
    if isinstance(spec.default, list) and list(value) != spec.default:
        wrong = [each for each in value if not re.fullmatch("[A-Za-z][A-Za-z0-9_]*", each)]
        if wrong or not value or len(set(value)) < len(value):
            return f"parameter '{name}' must be different names of letters, digits and _, not {list(value)}"
    return ""
