# SPDX-License-Identifier: Apache-2.0
"""What a training run writes to be looked at: losses as lines, curves and TensorBoard events, and sheets of what it sees."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import mean

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from seqamodal_ros.files import write_whole
from seqamodal_ros.scene.pictures import write_image
from training.data.scene import Scene
from training.data.sheets import answer_sheet

SMOOTHED = 0.05  # share of the run that a curve is averaged over


class Record:
    """Writes ``log.jsonl``, ``curves.png``, ``events.*`` of TensorBoard and ``seen.png`` into a run's folder.

    Args:
        folder: of the run.
        step: where the run begins or goes on; lines of later steps, which a kill left behind, are dropped.
        scenes: for the sheets.
    """

    def __init__(self, folder: Path, step: int, scenes: Sequence[Scene]):
        self.folder, self.scenes = folder, scenes
        self.path = folder / "log.jsonl"
        self.lines = [line for line in _read(self.path) if line["step"] <= step]
        write_whole(self.path, "".join(f"{json.dumps(line)}\n" for line in self.lines).encode())
        self.events = SummaryWriter(str(folder), purge_step=step + 1)

    def losses(self, step: int, seconds: float, values: Mapping[str, float]) -> None:
        """Write down the means since the last line."""
        self.lines.append({"step": step, "seconds": round(seconds, 1), **values})
        with self.path.open("a") as log:
            log.write(json.dumps(self.lines[-1]) + "\n")
        for name, value in values.items():
            self.events.add_scalar(name, value, step)

    def sheet(self, step: int, see: Callable[[Sequence[np.ndarray]], list[np.ndarray]]) -> None:
        """Draw the curves so far, and the layers that `see` finds in the scenes' images, beside the true ones."""
        picture = answer_sheet(self.scenes, see([scene.image for scene in self.scenes]))
        write_image(self.folder / "seen.png", picture)
        self.events.add_image("image, truth, seen", picture, step, dataformats="HWC")
        self._curves()

    def close(self) -> None:
        """Draw the curves, and let TensorBoard have all that is written down."""
        self._curves()
        self.events.close()

    def _curves(self) -> None:
        if not self.lines:
            return
        import matplotlib.figure

        names = [name for name in self.lines[-1] if name not in ("step", "seconds", "images_per_second")]
        figure = matplotlib.figure.Figure(figsize=(5 * len(names), 3.6), layout="constrained")
        steps = [line["step"] for line in self.lines]
        width = max(1, round(SMOOTHED * len(steps)))
        panels = figure.subplots(1, len(names), squeeze=False)[0]
        for axes, name in zip(panels, names, strict=True):
            values = [line[name] for line in self.lines]
            means = [mean(values[max(0, k - width + 1) : k + 1]) for k in range(len(values))]
            axes.plot(steps, values, color="0.75", linewidth=0.8)
            axes.plot(steps, means, color="tab:blue")
            axes.set(title=name, xlabel="step", yscale="log" if min(values) > 0 else "linear")
            axes.grid(alpha=0.3)
        figure.savefig(self.folder / "curves.png", dpi=90)


def _read(path: Path) -> list[dict[str, float]]:
    """The lines of a log; none where there is none, and not a last one that a full disk or a kill cut off."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    try:
        return [json.loads(line) for line in lines]
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it, and the run goes on without its losses so far") from error
