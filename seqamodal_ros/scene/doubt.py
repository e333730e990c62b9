# SPDX-License-Identifier: Apache-2.0
"""Where a camera sees next to nothing, or a model is not sure of anything, no answer tells that nothing is there."""

import numpy as np

BLACK, WHITE = 20, 230  # grey levels, with noise, where a sensor gets no light, or too much: video's are 16 and 235
MOST = 0.95  # share of the image


def why_in_doubt(square: np.ndarray, inside: np.ndarray, left_out: float = 0.0) -> str:
    """Why nobody can tell from an image what is there; empty where all is well.

    Args:
        square: uint8 [S, S, 3] RGB, as the model gets it.
        inside: bool [S, S], what of it is no padding.
        left_out: the highest probability, as it would be published, of a first layer that was left out for it; 0 where none was.
    """
    seen = square[inside]
    for share, word in (((seen < BLACK).all(axis=1).mean(), "black"), ((seen > WHITE).all(axis=1).mean(), "white")):
        if share >= MOST:
            return f"{share:.0%} of the image is {word}: is the lens covered, is the exposure right?"
    return f"of what may lie in front no pixel is surer than {left_out:.2f}" if left_out else ""
