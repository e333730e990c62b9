# SPDX-License-Identifier: Apache-2.0
"""The node's parameters: descriptions, ranges, what may change when, and one object to read their values from."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor, SetParametersResult
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node
from rclpy.parameter import Parameter

from seqamodal_ros.perceiver import DEVICES, LARGEST_NUM_SAMPLES, RUNTIMES
from seqamodal_ros.ros.command_line import with_defaults
from seqamodal_ros.ros.service_guards import refuse_unknown_types
from seqamodal_ros.ros.worker import Region
from seqamodal_ros.scene.geometry import FITS, LARGEST_SIDE

TRANSPORTS = ("raw", "compressed")


class Shape(NamedTuple):
    """What a list must look like: a test, and the words for it."""

    fits: Callable[[list[Any]], bool]
    words: str


def _are_names(values: list[Any]) -> bool:
    good = all(re.fullmatch("[A-Za-z][A-Za-z0-9_]*", each) and "__" not in each for each in values)  # as ROS's own names
    return values == [""] or (good and bool(values) and len(set(values)) == len(values))


def _are_regions(values: list[Any]) -> bool:
    fours = [values[k : k + 4] for k in range(0, len(values), 4)]
    within = all(0 <= value <= LARGEST_SIDE for value in values)
    return within and bool(fours) and all(len(four) == 4 and (not any(four) or min(four[2:]) > 0) for four in fours)


@dataclass(frozen=True)
class Spec:
    """One parameter: its default, what it means, its range, choices or shape, and whether it is fixed or set before configure."""

    default: Any
    description: str
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()
    shape: "Shape | None" = None
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
    "runtime": Spec(
        "auto",
        "What computes the network; auto: what `export` wrote for openvino or onnxruntime, else torch, on a GPU torch-bf16.",
        choices=RUNTIMES,
        before_configure=True,
    ),
    "cameras": Spec(
        [""],
        "Names of several cameras that share the model, each with topics of its own: NAME/image -> ~/NAME/layered_masks.",
        shape=Shape(_are_names, "different names of letters, digits and single _"),
        before_configure=True,
    ),
    "image_transport": Spec(
        "raw", "How images come: on `image`, or compressed on `image/compressed`.", choices=TRANSPORTS, before_configure=True
    ),
    "fit": Spec("letterbox", "How a frame becomes a square: padded, or cut.", choices=FITS, before_configure=True),
    "region": Spec(
        [0, 0, 0, 0],
        "Part of the camera's image that is looked at: x, y, width, height in pixels; zeros: all. Four for each of `cameras`.",
        shape=Shape(_are_regions, f"x, y, width and height of a region, at most {LARGEST_SIDE}, or four zeros, for each camera"),
    ),
    "max_layers": Spec(0, "N_max of Algorithm 2; 0 keeps the model's own.", 0, 50, before_configure=True),
    "sampling_steps": Spec(0, "Network calls a layer; 0 keeps the model's own.", 0, 1000, before_configure=True),
    "mirror": Spec(
        True,
        "Look at the mirror image of each image too, where the model is meant to; false halves the time.",
        before_configure=True,
    ),
    "majority_null": Spec(
        False,
        "Take all hypotheses of a layer for null where most of them are; false: as the model does. Moot where the model numbers "
        "them, as fast-base does.",
        before_configure=True,
    ),
    "num_samples": Spec(3, "K, the hypotheses of each layer.", 1, LARGEST_NUM_SAMPLES),
    # rqt_reconfigure shows no further parameter where a range goes beyond 32 bits
    "seed": Spec(0, "Of the noise; the same for every frame, so that a still scene stays still.", 0, 2**31 - 1),
    "stillness": Spec(
        2.0,
        "Grey levels by which a patch, of 32 a side, may differ from the image that was seen last and count as noise: "
        "nothing has moved, and the answer is the same. Said for 640x480 and larger; smaller images and regions, which average "
        "less noise away, are granted as much more. 0.0: every image is seen anew.",
        0.0,
        255.0,
    ),
    "max_age": Spec(
        0.0,
        "Images that come later than so many seconds after their stamp, or wait until then, are dropped; 0.0: none.",
        0.0,
        3600.0,
    ),
    "max_depth_skew": Spec(0.05, "Seconds by which a depth image's stamp may differ from the image's.", 0.0, 10.0),
    "publish_hypotheses": Spec(True, "Send the K hypotheses of each layer, too."),
}


def meanings() -> dict[str, str]:
    """Of each parameter what it means, its choices or range, and its default, for people."""
    said = {}
    for name, spec in SPECS.items():
        within = f" In {spec.least}..{spec.most}." if spec.least is not None else ""
        choices = f" One of {', '.join(spec.choices)}." if spec.choices else ""
        said[name] = (spec.default, f"{spec.description}{within}{choices}")
    return with_defaults(said)


class ParameterError(ValueError):
    """A parameter that cannot be used; the text says which and why."""


class Parameters:
    """The declared parameters of a node; a bad override is kept as an error for `configure` instead of ending the node."""

    def __init__(self, node: Node):
        self._node = node
        self._errors: dict[str, str] = {}
        self.locked = False  # true from configure to cleanup
        self.outside: Callable[[str, Region], str] = lambda camera, region: ""  # how one leaves its camera's image
        for name, spec in SPECS.items():
            self._declare(name, spec)
        node.add_on_set_parameters_callback(self._on_set)
        refuse_unknown_types(node)

    def get(self, name: str) -> Any:
        """The value of a parameter of `SPECS`."""
        return self._node.get_parameter(name).value

    def region(self, camera: str) -> Region:
        """The part of a camera's image that is looked at; None for all."""
        return self._region(camera, self.get("region"))

    def _region(self, camera: str, regions: Any) -> Region:
        first = 4 * list(self.get("cameras")).index(camera)
        region = tuple(regions[first : first + 4])
        return region if any(region) else None

    def check(self) -> None:
        """Raise ParameterError unless every value given at start was valid, or has been set to a valid one since."""
        wrong = "; ".join(self._errors.values()) or self._wrong_number(list(self.get("region")))
        if wrong:
            raise ParameterError(wrong)

    def _wrong_number(self, region: list[int]) -> str:
        cameras = self.get("cameras")
        if any(region) and len(region) != 4 * len(cameras):
            return f"parameter 'region' must be four numbers for each camera ({len(cameras)}), not {region}"
        return ""

    def _wrong_place(self, regions: list[int]) -> str:
        outside = (self.outside(camera, self._region(camera, regions)) for camera in self.get("cameras"))
        return next(filter(None, outside), "")

    def _declare(self, name: str, spec: Spec) -> None:
        given = self._node._parameter_overrides.get(name)
        try:
            if given is not None and given.type_ == Parameter.Type.NOT_SET:  # rclpy would take it for no value, and read none
                raise InvalidParameterTypeException(given, Parameter.Type.from_parameter_value(spec.default).name)
            self._node.declare_parameter(name, spec.default, spec.descriptor())
            wrong = _wrong_choice(name, spec, self.get(name))
        except (InvalidParameterValueException, InvalidParameterTypeException):
            wrong = self._describe(name, spec)
            self._node.declare_parameter(name, spec.default, spec.descriptor(), ignore_override=True)
        if wrong:
            self._errors[name] = wrong

    def _describe(self, name: str, spec: Spec) -> str:
        given = self._node._parameter_overrides[name].value  # rclpy has no public way to read a refused override
        if given is None and spec.shape:
            return f"parameter '{name}' must be {spec.shape.words}, not an empty list"
        within = f" in {spec.least}..{spec.most}" if spec.least is not None else ""
        hint = f": write {float(given)}" if isinstance(spec.default, float) and type(given) is int else ""
        told = "an empty list" if given is None else repr(given)
        return f"parameter '{name}' must be of type {type(spec.default).__name__}{within}, not {told}{hint}"

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        for parameter in parameters:
            spec = SPECS.get(parameter.name)
            if spec is None:
                continue
            if spec.before_configure and self.locked:
                reason = f"'{parameter.name}' takes effect at configure: deactivate and clean up the node first"
                return SetParametersResult(successful=False, reason=reason)
            wrong = _wrong_choice(parameter.name, spec, parameter.value)
            if not wrong and parameter.name == "region" and self.locked:
                wrong = self._wrong_number(list(parameter.value)) or self._wrong_place(list(parameter.value))
            if wrong:
                return SetParametersResult(successful=False, reason=wrong)
        for parameter in parameters:
            self._errors.pop(parameter.name, None)
        return SetParametersResult(successful=True)


def _wrong_choice(name: str, spec: Spec, value: Any) -> str:
    if spec.choices and value not in spec.choices:
        return f"parameter '{name}' must be one of {', '.join(spec.choices)}, not {value!r}"
    if spec.shape and not spec.shape.fits(list(value)):
        return f"parameter '{name}' must be {spec.shape.words}, not {list(value)}"
    return ""
