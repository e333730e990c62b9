# SPDX-License-Identifier: Apache-2.0
"""How large an image may be. OpenCV is told before it is first imported, as it reads the size before it decodes anything."""

import os

LARGEST_SIDE = 16384  # of a source image, pixels

for side in ("WIDTH", "HEIGHT"):
    os.environ.setdefault(f"OPENCV_IO_MAX_IMAGE_{side}", str(LARGEST_SIDE))
