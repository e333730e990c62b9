# SPDX-License-Identifier: Apache-2.0
"""The packed format: scenes in a few arrays that memory-map, so that many workers read one copy and a set opens at once.

A set is a folder of NumPy arrays, and `meta.json` that is written last and holds the sha256 of each:

    images.npy       uint8 [N, S, S, 3] RGB
    first.npy        int64 [N + 1], the objects of scene n are first[n]..first[n + 1] - 1
    amodal.npy       uint8 [O, h * w / 8], amodal mask of each object, its pixels as bits, row by row
    occluded_by.npy  uint8 [O, M / 8], bit j: the object is occluded by object j of its scene (Z of Eq. 1)
    source.npy       int64 [N], which scene of the generator, or photograph, this is a view of
    depth.npy        uint16 [N, S, S], millimetres, 0 where unknown; of renders that are not for training, which does not read it

Objects come nearest layer first. Layers (Eq. 2) and visible masks follow from what is kept, so they are worked out on reading.
"""

import hashlib
import json
import operator
import shutil
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from seqamodal_ros.files import write_whole
from seqamodal_ros.scene.layers import layer_indices
from training.data.scene import Scene
from training.data.workers import in_parallel

Shard = tuple[Sequence[Scene], Sequence[int], Mapping[str, int]]  # scenes, their sources, reason -> how many were dropped

FORMAT = 1
ARRAYS = ("images", "first", "amodal", "occluded_by", "source")
DEPTH = "depth"
MOST_OBJECTS = 64  # of a scene, M


class PackedScenes:
    """A set that was packed, read from memory-mapped files; a sequence of `Scene`.

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
        self.folder = folder
        try:
            self.meta: dict[str, Any] = json.loads(path.read_text())
            written, shapes, sums = (self.meta[key] for key in ("format", "shapes", "sha256"))
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} cannot be read ({error}): make the set anew") from None
        if written != FORMAT:
            raise ValueError(f"{folder} is of format {written}, this reads {FORMAT}: make it anew")
        arrays = {}
        names = (*ARRAYS, DEPTH) if DEPTH in shapes else ARRAYS
        for name in names:
            file = folder / f"{name}.npy"
            try:
                arrays[name] = np.load(file, mmap_mode="r")
            except (OSError, ValueError) as error:
                raise ValueError(f"{file} cannot be read ({error}): make the set anew") from None
            if list(arrays[name].shape) != shapes[name] or (check and file_sha256(file) != sums[name]):
                raise ValueError(f"{file} is not what it was when the set was made: make the set anew")
        self._images, self._first, self._amodal, self._occluded_by = (arrays[name] for name in ARRAYS[:4])
        self.source = arrays["source"]
        self._depth = arrays.get(DEPTH)

    def __reduce__(self) -> tuple[type, tuple[Path]]:
        return PackedScenes, (self.folder,)  # so that another process maps the files itself

    def __len__(self) -> int:
        return len(self._images)

    def __iter__(self) -> Iterator[Scene]:
        return (self[index] for index in range(len(self)))

    def __getitem__(self, index: int) -> Scene:
        number = operator.index(index)
        if not -len(self) <= number < len(self):
            raise IndexError(f"scene {number} of a set of {len(self)}")
        number %= len(self)
        first, last = self._first[number], self._first[number + 1]
        side = self.meta["mask_size"]
        amodal = np.unpackbits(self._amodal[first:last], axis=1).reshape(last - first, side, side).astype(bool)
        depth = None if self._depth is None else np.array(self._depth[number])
        return Scene(np.array(self._images[number]), amodal, self._occlusions(number), depth)

    def depths(self) -> list[int]:
        """How many layers each scene has."""
        return [int(layer_indices(self._occlusions(number)).max(initial=0)) for number in range(len(self))]

    def not_deeper(self, max_layers: int) -> list[int]:
        """The numbers of the scenes with so many layers at most."""
        return [number for number, depth in enumerate(self.depths()) if depth <= max_layers]

    def _occlusions(self, number: int) -> np.ndarray:
        """Z of Eq. 1, bool [N, N]."""
        first, last = self._first[number], self._first[number + 1]
        return np.unpackbits(self._occluded_by[first:last], axis=1, count=last - first).astype(bool)


def evenly(total: int, count: int) -> list[int]:
    """At most `count` numbers out of 0..total - 1, spread evenly."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def to_measure_on(folder: Path) -> PackedScenes:
    """A packed set that was not made for training, its files compared with their sha256.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it was made for training, or cannot be read.
    """
    packed = PackedScenes(folder, check=True)
    if packed.meta["split"] == "train":
        raise ValueError(f"{folder} was made for training: measure on a set for val, test or unseen")
    return packed


def fingerprint(*content: Any) -> str:
    """A short hash of strings, paths, numbers and arrays, and of sequences and mappings of these."""
    sha = hashlib.sha256()
    _feed(sha, content)
    return sha.hexdigest()[:16]


def pack(
    folder: Path, about: Mapping[str, Any], work: Callable[[int], Shard], shards: int, enough: int | None = None
) -> PackedScenes:
    """Make a set shard by shard, on all cores.

    Finished shards wait in ``<folder>.part`` until all are there; a set that was interrupted goes on with them, and one that is
    whole is left as it is.

    Args:
        folder: the set to be.
        about: all that the set depends on, such as seed, settings and a `fingerprint` of what it is made from.
        work: makes a shard, the same one whenever it is called with its index; it is sent to other processes.
        shards: how many.
        enough: stop once so many scenes are there; the set is the first so many.

    Raises:
        FileExistsError: the folder, or its ``.part``, was made with another `about`.
        ValueError: no scene was kept; the message says why.
    """
    described = {"name": folder.name, **json.loads(json.dumps(about))}
    if folder.exists():
        found = PackedScenes(folder)
        if {key: found.meta.get(key) for key in described} != described:
            raise FileExistsError(f"{folder} is there already, made from something else: remove it, or give another --out")
        return found
    unfinished = folder.with_name(folder.name + ".part")
    begun = unfinished / "about.json"
    if not begun.is_file():
        unfinished.mkdir(parents=True, exist_ok=True)
        write_whole(begun, json.dumps(described).encode())
    elif json.loads(begun.read_text()) != described:
        raise FileExistsError(f"{unfinished} was begun from something else: remove it, or give another --out")
    kept = used = 0
    for count in in_parallel(partial(_make, unfinished, work, described.get("split") != "train"), shards, folder.name):
        kept, used = kept + count, used + 1
        if enough is not None and kept >= enough:
            break
    _assemble(unfinished, folder, described, [unfinished / f"{index:06d}.npz" for index in range(used)], enough)
    shutil.rmtree(unfinished)
    return PackedScenes(folder)


def _make(folder: Path, work: Callable[[int], Shard], with_depth: bool, index: int) -> int:
    """Make a shard unless it is there and sound; how many scenes it has."""
    path = folder / f"{index:06d}.npz"
    try:
        with np.load(path) as shard:
            return len(dict(shard)["source"])  # all of it is read, which compares the checksums
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        scenes, source, dropped = work(index)
    draft = folder / f".{index:06d}.npz"
    depths = [scene.depth for scene in scenes if scene.depth is not None and with_depth]
    if len(depths) not in (0, len(scenes)):
        raise ValueError(f"{len(depths)} of {len(scenes)} scenes have a depth image: give one to all of them, or to none")
    arrays: dict[str, Any] = {
        "images": np.array([scene.image for scene in scenes], np.uint8),
        "counts": np.array([len(scene.amodal) for scene in scenes], np.int64),
        "amodal": _joined([np.packbits(_rows(scene.amodal), axis=1) for scene in scenes]),
        "occluded_by": _joined([_occluder_bits(scene.occluded_by) for scene in scenes]),
        "source": np.array(source, np.int64),
        "dropped": json.dumps(dropped),
    }
    if depths:
        arrays[DEPTH] = np.array(depths, np.uint16)
    np.savez(draft, **arrays)
    draft.rename(path)
    return len(scenes)


def _assemble(unfinished: Path, folder: Path, described: Mapping[str, Any], paths: Sequence[Path], enough: int | None) -> None:
    """Put the shards together, in their order."""
    dropped = Counter[str]()
    counts: list[int] = []
    filled: list[Path] = []
    with_depth: list[bool] = []
    for path in paths:
        with np.load(path) as shard:
            dropped += Counter(json.loads(str(shard["dropped"])))
            counts += shard["counts"].tolist()
            if len(shard["source"]):
                filled.append(path)
                with_depth.append(DEPTH in shard)
                names = [name for name in ("images", "amodal", "occluded_by", "source", DEPTH) if name in shard]
                shapes = {name: shard[name].shape[1:] for name in names}
    if any(with_depth) and not all(with_depth):
        raise ValueError(f"some parts of {unfinished} have depth images and some have not: remove it, and begin anew")
    if not filled:
        shutil.rmtree(unfinished)
        raise ValueError(f"nothing to put into {folder}; dropped: {dict(dropped)}")
    whole = unfinished / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    whole.mkdir()
    found, counts = len(counts), counts[:enough]
    np.save(whole / "first.npy", np.concatenate([[0], np.cumsum(counts)]).astype(np.int64))
    rows = {"images": len(counts), "source": len(counts), "amodal": sum(counts), "occluded_by": sum(counts), DEPTH: len(counts)}
    kinds: dict[str, np.dtype] = {"source": np.dtype(np.int64), DEPTH: np.dtype(np.uint16)}
    left = dict(rows)
    with ExitStack() as opened:  # written, not mapped: a full disk is an error then, and not the end of the process
        files = {name: opened.enter_context((whole / f"{name}.npy").open("wb")) for name in shapes}
        for name, shape in shapes.items():
            kind = np.lib.format.dtype_to_descr(kinds.get(name, np.dtype(np.uint8)))
            header = {"descr": kind, "fortran_order": False, "shape": (rows[name], *shape)}
            np.lib.format.write_array_header_1_0(files[name], header)
        for path in filled:
            with np.load(path) as shard:
                for name, file in files.items():
                    some = shard[name][: left[name]]
                    some.tofile(file)
                    left[name] -= len(some)
    mask_size = round((8 * shapes["amodal"][0]) ** 0.5)
    meta = {"format": FORMAT, "count": len(counts), "image_size": shapes["images"][0], "mask_size": mask_size, **described}
    meta |= {"found": found, "dropped": dict(sorted(dropped.items()))}
    names = ["first", *names]
    meta["shapes"] = {name: list(np.load(whole / f"{name}.npy", mmap_mode="r").shape) for name in names}
    meta["sha256"] = {name: file_sha256(whole / f"{name}.npy") for name in names}
    (whole / "meta.json").write_text(json.dumps(meta, indent=1) + "\n")
    whole.rename(folder)


def _joined(rows: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(rows) if rows else np.zeros((0, 0), np.uint8)


def _rows(masks: np.ndarray) -> np.ndarray:
    """bool [N, h * w] from bool [N, h, w]; N may be 0."""
    return masks.reshape(len(masks), int(np.prod(masks.shape[1:])))


def _occluder_bits(occluded_by: np.ndarray) -> np.ndarray:
    """Z of Eq. 1 as bits: uint8 [N, M / 8]; a ValueError where there are more than M objects."""
    count = len(occluded_by)
    if count > MOST_OBJECTS:
        raise ValueError(f"a scene of {count} objects: the packed format takes {MOST_OBJECTS}")
    padded = np.zeros((count, MOST_OBJECTS), bool)
    padded[:, :count] = occluded_by
    return np.packbits(padded, axis=1)


def file_sha256(path: Path) -> str:
    """Of a file that is not empty, in hexadecimal digits."""
    return hashlib.sha256(np.memmap(path, np.uint8, "r").data).hexdigest()


def _feed(sha: Any, content: Any) -> None:
    if isinstance(content, np.ndarray):
        sha.update(f"{content.dtype}{content.shape}".encode() + np.ascontiguousarray(content).tobytes())
    elif isinstance(content, Mapping):
        _feed(sha, list(content.items()))
    elif isinstance(content, (list, tuple)):
        sha.update(f"[{len(content)}".encode())
        for item in content:
            _feed(sha, item)
    else:
        sha.update(f"{content!r},".encode())
