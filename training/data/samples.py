# SPDX-License-Identifier: Apache-2.0
"""The sample frames and their truth: written by `training.synthesize`, read by tests and evaluation (no pycocotools)."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import cv2
import numpy as np

from seqamodal_ros.scene.geometry import Geometry
from seqamodal_ros.scene.image_files import DEPTH
from seqamodal_ros.scene.layers import layer_indices

if TYPE_CHECKING:
    from training.data.catalogue import Catalogue, Credit
    from training.data.piles import Pile

QUALITY = 92  # of the JPEGs
CAMERA_NAME = "sample_camera"


class Sample(NamedTuple):
    """One frame.

    Attributes:
        image: uint8 [H, W, 3] RGB.
        amodal: bool [N, H, W].
        occluded_by: bool [N, N], Z of Eq. 1.
    """

    image: np.ndarray
    amodal: np.ndarray
    occluded_by: np.ndarray


def encode_mask(mask: np.ndarray) -> dict[str, list[int]]:
    """COCO's uncompressed run lengths of a mask, bool [h, w]: column after column, a run of false first (it may be 0 long)."""
    flat = np.asarray(mask, bool).ravel(order="F")
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flat]).astype(np.int8))).tolist()
    counts = np.diff([0, *edges, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": counts}


def decode_mask(encoded: Mapping[str, Sequence[int]]) -> np.ndarray:
    """bool [h, w] from `encode_mask`.

    Raises:
        ValueError: the runs do not add up to the size.
    """
    height, width = encoded["size"]
    counts = encoded["counts"]
    if sum(counts) != height * width:
        raise ValueError(f"runs of {sum(counts)} pixels for a mask of {width}x{height}: the truth file is damaged")
    return np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape((height, width), order="F")


def letterboxed(mask: np.ndarray, size: int) -> np.ndarray:
    """bool [size, size]: a mask bool [h, w] as the model's square shows it (`Geometry.letterbox`)."""
    height, width = mask.shape
    geometry = Geometry.letterbox(width, height)
    square = np.zeros((round(geometry.side), round(geometry.side)), np.float32)
    top, left = -round(geometry.top), -round(geometry.left)
    square[top : top + height, left : left + width] = mask
    return cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA) >= 0.5


def read_truth(folder: Path) -> dict[str, Any]:
    """``truth.json`` of a folder of samples as it stands."""
    return json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def read_samples(folder: Path) -> list[Sample]:
    """The frames of a folder with their truth.

    Raises:
        FileNotFoundError: ``truth.json`` or an image that it names is missing or unreadable.
    """
    samples = []
    for frame in read_truth(folder)["frames"]:
        image = cv2.imread(str(folder / frame["image"]), cv2.IMREAD_COLOR)
        if image is None:
            raise FileNotFoundError(f"{folder / frame['image']}, named by truth.json, is not an image that OpenCV can read")
        objects = frame["objects"]
        occluded_by = np.zeros((len(objects), len(objects)), bool)
        for index, item in enumerate(objects):
            occluded_by[index, item["occluded_by"]] = True
        amodal = np.array([decode_mask(item["amodal"]) for item in objects])
        samples.append(Sample(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), amodal, occluded_by))
    return samples


def write_samples(folder: Path, piles: Sequence["Pile"], catalogue: "Catalogue", seed: int, dropped: Mapping[str, int]) -> None:
    """Write frames, their ``depth``, ``truth.json``, ``camera_info.yaml``, ``ATTRIBUTION.md`` and ``README.md`` into `folder`.

    Args:
        folder: made where missing.
        piles: one for each frame.
        catalogue: where the objects came from, for the attribution.
        seed: what the piles were drawn from.
        dropped: how many piles were dropped, by rule.
    """
    from training.data.stage import HEIGHT, WIDTH, camera_matrix

    (folder / DEPTH).mkdir(parents=True, exist_ok=True)
    frames = []
    for index, pile in enumerate(piles, 1):
        image = f"frame_{index:02d}.jpg"
        if not cv2.imwrite(str(folder / image), pile.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY]):
            raise OSError(f"cannot write {folder / image}")
        depth = folder / DEPTH / f"frame_{index:02d}.png"
        millimetres = (1000 * pile.depth).round()
        if not cv2.imwrite(str(depth), np.where(millimetres < 2**16, millimetres, 0).astype(np.uint16)):
            raise OSError(f"cannot write {depth}")
        frames.append({"image": image, "tilt_degrees": round(pile.tilt, 1), "objects": _objects(pile)})
    truth = {
        "image_size": {"width": WIDTH, "height": HEIGHT},
        "camera_matrix": camera_matrix().tolist(),
        "masks": "uncompressed run lengths as in COCO: columns from left to right, each from top to bottom, background first",
        "occluded_by": "indices, from 0, of the frame's objects that lie in front (Eq. 1)",
        "seed": seed,
        "dropped": dict(sorted(dropped.items())),
        "frames": frames,
    }
    (folder / "truth.json").write_text(_compact(truth), encoding="utf-8")
    (folder / "camera_info.yaml").write_text(_camera_info(WIDTH, HEIGHT, camera_matrix()), encoding="utf-8")
    names = sorted({name for pile in piles for name in pile.names})
    (folder / "ATTRIBUTION.md").write_text(_attribution(catalogue.credits(names), catalogue.mit_notice()), encoding="utf-8")
    (folder / "README.md").write_text(_readme(seed), encoding="utf-8")


def _objects(pile: "Pile") -> list[dict[str, Any]]:
    rows = zip(pile.names, layer_indices(pile.occluded_by), pile.occluded_by, pile.visible, pile.amodal, strict=True)
    return [
        {
            "name": name,
            "layer": int(layer),
            "occluded_by": np.flatnonzero(occluders).tolist(),
            "visible_pixels": int(visible.sum()),
            "amodal": encode_mask(amodal),
        }
        for name, layer, occluders, visible, amodal in rows
    ]


def _compact(truth: dict[str, Any]) -> str:
    """JSON with a line for each object, so that a change of one shows as one."""
    text = json.dumps(truth, separators=(",", ":"))
    for mark in ('{"image":', '{"name":', '"frames":'):
        text = text.replace(mark, "\n" + mark)
    return text + "\n"


def _camera_info(width: int, height: int, matrix: np.ndarray) -> str:
    """The file that ROS' camera_calibration writes and camera_info_manager reads."""

    def block(name: str, values: np.ndarray) -> str:
        data = ", ".join(f"{value:g}" for value in values.ravel())
        return f"{name}:\n  rows: {values.shape[0]}\n  cols: {values.shape[1]}\n  data: [{data}]\n"

    return (
        f"image_width: {width}\nimage_height: {height}\ncamera_name: {CAMERA_NAME}\n"
        + block("camera_matrix", matrix)
        + "distortion_model: plumb_bob\n"
        + block("distortion_coefficients", np.zeros((1, 5)))
        + block("rectification_matrix", np.eye(3))
        + block("projection_matrix", np.hstack([matrix, np.zeros((3, 1))]))
    )


def _attribution(credits: Sequence["Credit"], notice: str) -> str:
    rows = "\n".join(f"| {credit.name} | {credit.work} | {credit.author} | {credit.licence} |" for credit in credits)
    return f"""# Attribution of the sample frames

The frames are renders of ours and, like the textures of tables and of the printed carton, the scenes, the light and the truth,
under Apache-2.0 as the rest of this repository. The objects in them come from two collections; all were rescaled, some
recoloured.

- Rows marked MIT: meshes and textures of robosuite, taken from its Python package; its notice stands below.
- Rows marked CC0 1.0: models of Blend Swap, collected by Emmanuel Puybaret for Sweet Home 3D and packaged in Debian's
  `sweethome3d-furniture` as `BlendSwap-CC-0.sh3f`, dedicated to the public domain. CC0 asks for no credit; it is given gladly.

| object | model | author | licence |
| --- | --- | --- | --- |
{rows}

## Notice of robosuite

```
{notice.strip()}
```
"""


def _readme(seed: int) -> str:
    return (
        "A dozen frames, 640x480, made by `python -m training.synthesize samples --out samples "
        f"--furniture BlendSwap-CC-0.sh3f --robosuite DIR --seed {seed}`:\n"
        "MuJoCo drops the objects in a heap and renders it; each object rendered alone gives its amodal mask "
        "and who lies on whom\n(`truth.json`, read by `training/data/samples.py`); "
        "one camera took them all (`camera_info.yaml`). Objects and licences: `ATTRIBUTION.md`.\n"
        "`depth/` has what an ideal depth camera would measure there: PNGs of 16 bits, millimetres.\n"
    )
