# SPDX-License-Identifier: Apache-2.0
"""The generated interfaces: their fields and types, which are frozen, and that they survive serialisation."""

from array import array

import pytest
from builtin_interfaces.msg import Duration, Time
from rclpy.serialization import deserialize_message, serialize_message
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from seqamodal_msgs.msg import AmodalLayer, AmodalObject, LayeredMasks
from seqamodal_msgs.srv import SegmentImage

FROZEN = {
    LayeredMasks: {
        "header": "std_msgs/Header",
        "status": "uint8",
        "status_message": "string",
        "source_height": "uint32",
        "source_width": "uint32",
        "mask_height": "uint32",
        "mask_width": "uint32",
        "scale_x": "double",
        "scale_y": "double",
        "offset_x": "double",
        "offset_y": "double",
        "layers": "sequence<seqamodal_msgs/AmodalLayer>",
        "objects": "sequence<seqamodal_msgs/AmodalObject>",
        "pick_order": "sequence<uint16>",
        "truncated": "boolean",
        "num_samples": "uint32",
        "seed": "uint64",
        "inference_time": "builtin_interfaces/Duration",
        "model_id": "string",
    },
    AmodalLayer: {
        "index": "uint16",
        "amodal": "sensor_msgs/Image",
        "visible": "sensor_msgs/Image",
        "probability": "sensor_msgs/Image",
        "hypotheses": "sequence<sensor_msgs/Image>",
        "agreement": "float",
    },
    AmodalObject: {
        "id": "uint16",
        "layer": "uint16",
        "roi": "sensor_msgs/RegionOfInterest",
        "amodal": "sensor_msgs/Image",
        "visible": "sensor_msgs/Image",
        "score": "float",
        "visible_ratio": "float",
        "uncertainty": "float",
        "touches_border": "boolean",
        "occluded_by": "sequence<uint16>",
    },
    SegmentImage.Request: {
        "image": "sensor_msgs/Image",
        "num_samples": "uint32",
        "seed": "uint64",
        "timeout": "builtin_interfaces/Duration",
    },
    SegmentImage.Response: {
        "success": "boolean",
        "message": "string",
        "masks": "seqamodal_msgs/LayeredMasks",
    },
}

HEADER = Header(stamp=Time(sec=12, nanosec=34), frame_id="camera_optical_frame")


def image(encoding: str, bytes_per_pixel: int, value: int) -> Image:
    """A 4 x 3 image of one byte value."""
    filled = Image(header=HEADER, height=3, width=4, encoding=encoding, step=4 * bytes_per_pixel)
    filled.data = array("B", bytes([value]) * (3 * filled.step))
    return filled


def scene() -> LayeredMasks:
    """A message with a value other than the default in every field."""
    mask, blank = image("mono8", 1, 255), image("mono8", 1, 0)
    layer = AmodalLayer(index=1, amodal=mask, visible=mask, hypotheses=[mask, blank, mask], agreement=0.5)
    layer.probability = image("32FC1", 4, 63)
    thing = AmodalObject(id=65535, layer=65535, amodal=mask, visible=blank, score=0.75, visible_ratio=0.25, uncertainty=0.125)
    thing.roi = RegionOfInterest(x_offset=1, y_offset=2, height=3, width=4)
    thing.touches_border = True
    thing.occluded_by = [1, 65535]
    return LayeredMasks(
        header=HEADER,
        status=LayeredMasks.LOW_CONFIDENCE,
        status_message="the hypotheses disagree",
        source_height=480,
        source_width=640,
        mask_height=3,
        mask_width=4,
        scale_x=10.0,
        scale_y=10.0,
        offset_x=0.0,
        offset_y=-80.0,
        layers=[layer, layer],
        objects=[thing],
        pick_order=[65535, 1],
        truncated=True,
        num_samples=3,
        seed=2**64 - 1,
        inference_time=Duration(sec=0, nanosec=250_000_000),
        model_id="fast@sha256:" + "0" * 64,
    )


def round_trip(message):
    return deserialize_message(serialize_message(message), type(message))


@pytest.mark.parametrize("interface", FROZEN, ids=lambda interface: interface.__name__)
def test_fields_and_types_are_the_frozen_ones(interface):
    # The items in order: an exchange of two fields changes the wire format as much as a new type does.
    assert list(interface.get_fields_and_field_types().items()) == list(FROZEN[interface].items())


def test_status_constants():
    assert (LayeredMasks.OK, LayeredMasks.EMPTY, LayeredMasks.LOW_CONFIDENCE) == (0, 1, 2)


def test_a_full_message_survives():
    sent = scene()
    received = round_trip(sent)
    assert received == sent
    assert received.layers[0].probability.data.tobytes() == bytes([63]) * 48
    assert list(received.objects[0].occluded_by) == [1, 65535]


def test_a_message_without_layers_survives():
    assert round_trip(LayeredMasks(header=HEADER, status=LayeredMasks.EMPTY)) == LayeredMasks(header=HEADER, status=1)


def test_not_computed_is_nan():
    received = round_trip(AmodalObject(score=float("nan")))
    assert received.score != received.score


def test_the_service_survives():
    request = SegmentImage.Request(image=image("rgb8", 3, 7), num_samples=3, seed=2**64 - 1, timeout=Duration(sec=5))
    response = SegmentImage.Response(success=True, message="done", masks=scene())
    assert round_trip(request) == request
    assert round_trip(response) == response
