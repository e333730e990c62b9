# SPDX-License-Identifier: Apache-2.0
"""The packed format: scenes in a few arrays that memory-map, so that many workers read one copy and a set opens at once.

A set is a folder of NumPy arrays, and `meta.json` that is written last and holds the sha256 of each:

    images.npy       uint8 [N, S, S, 3] RGB
    first.npy        int64 [N + 1], the objects of scene n are first[n]..first[n + 1] - 1
    amodal.npy       uint8 [O, h * w / 8], amodal mask of each object, its pixels as bits, row by row
    occluded_by.npy  uint8 [O, M / 8], bit j: the object is occluded by object j of its scene (Z of Eq. 1)
    source.npy       int64 [N], which scene of the generator, or photograph, this is a view of

Objects come nearest layer first. Layers (Eq. 2) and visible masks follow from what is kept, so they are worked out on reading.
"""

import hashlib
import json
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from training.data.compositor import Composite

Shard = tuple[Sequence[Composite], Sequence[int], Mapping[str, int]]  # scenes, their sources, reason -> how many were dropped

FORMAT = 1
ARRAYS = ("images", "first", "amodal", "occluded_by", "source")
MOST_OBJECTS = 64  # of a scene, M


class PackedScenes(Sequence[Composite]):
    """A set that was packed, read from memory-mapped files.

    Args:
        folder: the set.
        check: compare the files' sha256 with what is written down; takes as long as reading them.

    Attributes:
        meta: what `meta.json` says.
        source: int64 [N].

    Raises:
        FileNotFoundError: there is no set in the folder, or no whole one.
        ValueError: of another format, or a file is not what it was when the set was made.
    """

    def __init__(self, folder: Path, check: bool = False):
        path = folder / "meta.json"
        if not path.is_file():
            raise FileNotFoundError(f"no packed set in {folder}: it has no meta.json, which is written once a set is whole")
        self.meta: dict[str, Any] = json.loads(path.read_text())
        if self.meta["format"] != FORMAT:
            raise ValueError(f"{folder} is of format {self.meta['format']}, this reads {FORMAT}: make it anew")
        for name, expected in self.meta["sha256"].items():
            if check and _sha256(folder / f"{name}.npy") != expected:
                raise ValueError(f"{folder / name}.npy is not what it was when the set was made: make it anew")
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        self._images, self._first, self._amodal, self._occluded_by = (arrays[name] for name in ARRAYS[:4])
        self.source = arrays["source"]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: Any) -> Any:
        """Scene `index`, a `Composite`."""
        first, last = self._first[index], self._first[index + 1]
        side = self.meta["mask_size"]
        amodal = np.unpackbits(self._amodal[first:last], axis=1).reshape(last - first, side, side).astype(bool)
        occluded_by = np.unpackbits(self._occluded_by[first:last], axis=1, count=last - first).astype(bool)
        return Composite(np.array(self._images[index]), amodal, occluded_by)


class Packer:
    """Makes a set shard by shard, in ``<folder>.part``; shards that are there already need not be made again.

    Args:
        folder: the set to be.
        about: all that the set depends on, such as seed and settings; it goes into `meta.json`.

    Raises:
        FileExistsError: there is such a folder already, or an unfinished one of another `about`.
    """

    def __init__(self, folder: Path, about: Mapping[str, Any]):
        if folder.exists():
            raise FileExistsError(f"{folder} is there already: remove it, or give another --out")
        self.folder, self.unfinished = folder, folder.with_name(folder.name + ".part")
        self.about = json.dumps({"name": folder.name, **about}, indent=1)
        begun = self.unfinished / "about.json"
        if begun.is_file() and begun.read_text() != self.about:
            raise FileExistsError(f"{self.unfinished} was begun with other settings: remove it, or give another --out")
        self.unfinished.mkdir(parents=True, exist_ok=True)
        begun.write_text(self.about)

    def path(self, index: int) -> Path:
        """Of shard `index`."""
        return self.unfinished / f"{index:06d}.npz"

    def add(self, index: int, shard: Shard) -> None:
        """Write shard `index` in one go."""
        scenes, source, dropped = shard
        images = np.array([scene.image for scene in scenes], np.uint8)
        counts = np.array([len(scene.amodal) for scene in scenes], np.int64)
        amodal = [
            np.packbits(scene.amodal.reshape(len(scene.amodal), np.prod(scene.amodal.shape[1:])), axis=1) for scene in scenes
        ]
        occluded_by = [_rows(scene.occluded_by) for scene in scenes]
        draft = self.unfinished / f".{index:06d}.npz"
        empty = np.zeros((0, 0), np.uint8)
        np.savez(
            draft,
            images=images,
            counts=counts,
            amodal=np.concatenate(amodal) if amodal else empty,
            occluded_by=np.concatenate(occluded_by) if occluded_by else empty,
            source=np.array(source, np.int64),
            dropped=json.dumps(dropped),
        )
        draft.rename(self.path(index))

    def fill(self, work: Callable[[int], Shard], shards: int, enough: int | None = None) -> None:
        """Make shards 0, 1, ... that are not there yet, on all cores, with a progress bar.

        Args:
            work: makes a shard, the same one whenever it is called with its index; it is sent to other processes.
            shards: how many.
            enough: stop once the shards so far hold so many scenes.
        """
        kept = 0
        with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_start, initargs=(self, work)) as pool:
            try:
                for count in tqdm(
                    pool.map(_make, range(shards)), total=shards, desc=self.folder.name, unit="shard", disable=None
                ):
                    kept += count
                    if enough is not None and kept >= enough:
                        break
            finally:
                pool.shutdown(cancel_futures=True)

    def finish(self, enough: int | None = None) -> PackedScenes:
        """Put the shards together, in their order, and remove them.

        Args:
            enough: take no more scenes than the first so many.

        Raises:
            ValueError: there is no scene in any shard.
        """
        shards = [np.load(path) for path in sorted(self.unfinished.glob("[0-9]*.npz"))]
        dropped = sum((Counter(json.loads(str(shard["dropped"]))) for shard in shards), Counter())
        shards = [shard for shard in shards if len(shard["images"])]
        if not shards:
            raise ValueError(f"no scene in {self.unfinished}, dropped: {dict(dropped)}")
        whole = self.unfinished / "whole"
        shutil.rmtree(whole, ignore_errors=True)
        whole.mkdir()
        found = np.concatenate([shard["counts"] for shard in shards])
        counts = found[:enough]
        np.save(whole / "first.npy", np.concatenate([[0], np.cumsum(counts)]))
        for name in ("images", "amodal", "occluded_by", "source"):
            rows = len(counts) if name in ("images", "source") else int(counts.sum())
            first = shards[0][name]
            array = np.lib.format.open_memmap(whole / f"{name}.npy", "w+", first.dtype, (rows, *first.shape[1:]))
            at = 0
            for shard in shards:
                some = shard[name][: rows - at]
                array[at : at + len(some)] = some
                at += len(some)
            array.flush()
        image_size, mask_size = shards[0]["images"].shape[1], round((8 * shards[0]["amodal"].shape[1]) ** 0.5)
        meta = {
            "format": FORMAT,
            "count": len(counts),
            "image_size": image_size,
            "mask_size": mask_size,
            **json.loads(self.about),
        }
        meta |= {"found": len(found), "dropped": dict(sorted(dropped.items()))}
        meta["sha256"] = {name: _sha256(whole / f"{name}.npy") for name in ARRAYS}
        (whole / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
        whole.rename(self.folder)
        shutil.rmtree(self.unfinished)
        return PackedScenes(self.folder)


def _rows(occluded_by: np.ndarray) -> np.ndarray:
    """Z of Eq. 1 as bits: uint8 [N, M / 8].

    Raises:
        ValueError: more than M objects.
    """
    count = len(occluded_by)
    if count > MOST_OBJECTS:
        raise ValueError(f"a scene of {count} objects: the packed format takes {MOST_OBJECTS}")
    padded = np.zeros((count, MOST_OBJECTS), bool)
    padded[:, :count] = occluded_by
    return np.packbits(padded, axis=1)


def _sha256(path: Path) -> str:
    return hashlib.sha256(np.memmap(path, np.uint8, "r").data).hexdigest()


_job: list[Any] = []  # of a worker process: the packer, and what makes a shard, sent to it once


def _start(packer: Packer, work: Callable[[int], Shard]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    _job[:] = packer, work


def _make(index: int) -> int:
    """Make a shard unless it is there; how many scenes it has."""
    packer, work = _job
    if not packer.path(index).is_file():
        packer.add(index, work(index))
    with np.load(packer.path(index)) as shard:
        return len(shard["source"])
