# SPDX-License-Identifier: Apache-2.0
"""What the paper says of its three datasets (Section 5.1)."""

from dataclasses import dataclass


@dataclass(frozen=True)
class PaperSet:
    """One dataset, as the paper processed it.

    Attributes:
        train, test: number of images.
        max_layers: images with more are dropped.
        crop: images are cropped to a square; else fitted into one.
        test_subset: how many images of the test split are drawn; None keeps all.
    """

    train: int
    test: int
    max_layers: int = 5
    crop: bool = False
    test_subset: int | None = None


PAPER_SETS = {
    "intra_afruit": PaperSet(187204, 3000, test_subset=3000),
    "acom": PaperSet(9378, 2355),
    "muva": PaperSet(5582, 1722, max_layers=7, crop=True),
}
