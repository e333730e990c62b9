# SPDX-License-Identifier: Apache-2.0
"""Images are checked on the executor's thread and made by the worker."""

from types import SimpleNamespace

import numpy as np
import pytest

from seqamodal_ros.messages import COLOURS, ENCODINGS, InvalidMessage, fill_image
from seqamodal_ros.ros.images import raw_image

HEADER = SimpleNamespace(frame_id="camera", stamp=SimpleNamespace(sec=3, nanosec=5))


@pytest.mark.parametrize("encoding", COLOURS)
def test_the_worker_makes_all_that_takes_no_cv_bridge(encoding):
    _, channels = ENCODINGS[encoding]
    pixels = np.full((6, 8) if channels == 1 else (6, 8, channels), 90, np.uint8)
    source, size = raw_image(fill_image(SimpleNamespace(), pixels, encoding, HEADER))
    assert callable(source) and size == (8, 6)
    assert source().shape == (6, 8, 3) and source() is source()


@pytest.mark.parametrize(("encoding", "width"), [("yuyv", 7), ("bayer_rggb8", 2)])
def test_what_the_worker_could_not_make_does_not_get_to_it(encoding, width):
    channels = ENCODINGS[encoding][1]
    pixels = np.zeros((6, width) if channels == 1 else (6, width, channels), np.uint8)
    with pytest.raises(InvalidMessage, match="even, not 7|2x6 pixels tells no colours"):
        raw_image(fill_image(SimpleNamespace(), pixels, encoding, HEADER))
