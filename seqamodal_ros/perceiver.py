# SPDX-License-Identifier: Apache-2.0
"""The one door: an image goes in, an ordered stack of complete object masks comes out."""

from __future__ import annotations

import operator
import os
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from seqamodal_ros.scene.doubt import why_in_doubt
from seqamodal_ros.scene.geometry import FITS, LARGEST_SIDE, Geometry
from seqamodal_ros.scene.layers import cumulative_masks
from seqamodal_ros.scene.probability import calibrated, tempered
from seqamodal_ros.scene.scene import LayeredScene
from seqamodal_ros.settings import overridden

if TYPE_CHECKING:
    from seqamodal_ros.diffusion.adapter import CentredNetwork
    from seqamodal_ros.diffusion.sequence import Second
    from seqamodal_ros.diffusion.weights import Model

DEVICES = ("auto", "cpu", "cuda")
RUNTIMES = ("auto", "torch", "torch-bf16", "onnxruntime", "openvino")
LARGEST_NUM_SAMPLES = 64


class Perceiver:
    """Sees layered scenes in images; make one with `Perceiver.load`. Calls of several threads wait for one another.

    Attributes:
        model: the weights that it was loaded with, and its settings.
        runtime: what computes it, one of `RUNTIMES` but "auto".
        precision: what that computes in, "float32" or "bfloat16".
    """

    def __init__(self, model: Model, device: str, fit: str, runtime: str, before_call: Callable[[], None], source: str = ""):
        """See `load`, which makes one; `source` is what the model was loaded by, see `network_on`."""
        from seqamodal_ros.diffusion.schedule import Schedule
        from seqamodal_ros.runtimes.choice import network_on

        self.model = model
        self._device = device
        self._source = source
        self._network: CentredNetwork | None  # None while it rests
        self._network, self.runtime, self.precision = network_on(model, device, runtime, source)
        self._fit = fit
        self._schedule = Schedule.linear()
        self._before_call = before_call
        self._at_work = threading.RLock()  # runtimes answer one call at a time; `before_call` may call again

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Perceiver holds a network on its device: load one in each process, instead of sending it there")

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] = "default",
        device: str = "auto",
        *,
        fit: str = "letterbox",
        max_layers: int | None = None,
        area_min: int | None = None,
        majority_null: bool | None = None,
        sampling_steps: int | None = None,
        mirror: bool | None = None,
        runtime: str = "auto",
        before_call: Callable[[], None] = lambda: None,
    ) -> Perceiver:
        """Load a model.

        Args:
            model: a name in models/manifest.yaml, or the path of a .safetensors file.
            device: "cuda", "cpu" or "auto" (cuda where torch sees one).
            fit: "letterbox" (nothing is cut) or "centre_crop".
            max_layers, area_min, majority_null, sampling_steps, mirror: as in `SequenceSettings` and `ModelSettings`;
                None keeps the model's own.
            runtime: what computes the network: "torch" in float32, "torch-bf16" with bfloat16 where the hardware has it, on a
                GPU as CUDA graphs; "onnxruntime" or "openvino" what the command `export` wrote, on the CPU; "auto" an export
                if there is one, else "torch", on a GPU "torch-bf16". One that is named and not there is told in a warning, and
                the next best takes its place. Rounding differs among them. An export leaves one thread to PyTorch, in the whole
                process, until a model is loaded by PyTorch on the CPU.
            before_call: runs before each network call; what it raises ends the inference (cancellation, heartbeat). Other
                threads' calls wait meanwhile: it must not wait for one of them.

        Raises:
            ImportError: torch is not installed.
            TypeError: a value of another kind.
            ValueError: an unknown model, device, fit or runtime, a value out of range, a tampered weights file.
            FileNotFoundError: the weights file is missing.
            RuntimeError: from PyTorch, for example where the GPU has too little memory left.
        """
        model = os.fspath(model)
        numbers = {"max_layers": max_layers, "area_min": area_min, "sampling_steps": sampling_steps}
        for name, value in numbers.items():
            if value is not None:
                check_whole(name, value)
        for name, value in {"majority_null": majority_null, "mirror": mirror}.items():
            if value is not None and not isinstance(value, bool):
                raise TypeError(f"{name} must be True, False or None, not {value!r}")
        if fit not in FITS:
            raise ValueError(f"fit must be one of {', '.join(FITS)}, not {fit!r}")
        if runtime not in RUNTIMES:
            raise ValueError(f"runtime must be one of {', '.join(RUNTIMES)}, not {runtime!r}")
        try:
            import torch

            from seqamodal_ros.diffusion.weights import load_model
        except ImportError as error:
            missing = f"cannot import {error.name}: install the model's packages with `pip install -r requirements/robot.txt`"
            raise ImportError(missing, name=error.name) from error
        if device not in DEVICES:
            raise ValueError(f"device must be one of {', '.join(DEVICES)}, not {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise ValueError("device 'cuda' was asked for but torch sees no CUDA device here: use 'cpu' or 'auto'")
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        loaded = load_model(model)
        own = loaded.settings
        sequence = overridden(own.sequence, max_layers=max_layers, area_min=area_min, majority_null=majority_null)
        settings = overridden(own, sequence=sequence, sampling_steps=sampling_steps, mirror=mirror)
        return cls(replace(loaded, settings=settings), device, fit, runtime, before_call, model)

    @property
    def model_id(self) -> str:
        """ "name@sha256:..." of the weights."""
        return self.model.model_id

    @property
    def device(self) -> str:
        """ "cpu" or "cuda", where the network runs."""
        return self._device

    @property
    def computed_by(self) -> str:
        """In a line: which weights, on which device, by which runtime and in which precision."""
        return f"{self.model_id[:40]} on {self.device} by {self.runtime} in {self.precision}"

    @property
    def network(self) -> CentredNetwork:
        """The network as its runtime computes it, brought onto the device again after `rest`: do not keep it beyond that.

        Raises:
            RuntimeError: from PyTorch, for example where the GPU has too little memory left.
        """
        import torch

        from seqamodal_ros.runtimes.choice import network_on

        with self._at_work:
            if self._network is None:
                with torch.inference_mode(False):  # what is moved in it could not be moved away again
                    self._network, self.runtime, self.precision = network_on(self.model, self._device, self.runtime, self._source)
            return self._network

    @property
    def gpu_memory(self) -> int | None:
        """Bytes that PyTorch holds of the GPU's memory; None where the network runs on a CPU."""
        import torch

        return torch.cuda.memory_reserved() if self._device == "cuda" else None

    def rest(self) -> None:
        """Let go of the GPU's memory; the next image takes it again, and waits that much longer. On the CPU there is none."""
        import torch

        if self._device == "cuda":
            with self._at_work:
                self._network = None
                self.model.network.to("cpu")
                torch.cuda.empty_cache()

    def warm_up(self, num_samples: int = 3, images: int = 1) -> None:
        """Make the network calls that frames take, of nothing: the first of each batch size is slower than those that follow.

        OpenVINO compiles for the pieces of batches, a GPU records a CUDA graph of each. Frames of so many images and hypotheses
        then find nothing of that left to do, on a GPU until it rests.

        Args:
            num_samples: K, hypotheses of a layer, 1..64.
            images: that a batch has at most, such as one of each camera; 1 or more.

        Raises:
            TypeError, ValueError: as of `__call__`, or `images` is no such number.
            RuntimeError: from PyTorch, for example where the GPU has too little memory left.
        """
        from seqamodal_ros.runtimes.blank_calls import call_blank, most_sizes

        num_samples, images = _checked_samples(num_samples), check_whole("images", images)
        if images < 1:
            raise ValueError(f"images must be 1 or more, not {images}")
        most = most_sizes(self._device)
        with self._at_work:
            call_blank(self.network, self.model, self._device, num_samples, images, most, self._before_call)

    def __call__(
        self,
        image: np.ndarray,
        num_samples: int = 3,
        seed: int = 0,
        *,
        region: tuple[int, int, int, int] | None = None,
    ) -> LayeredScene:
        """See one image.

        Args:
            image: uint8 [H, W, 3] RGB, any size.
            num_samples: K, hypotheses of each layer.
            seed: of the noise; the same seed, image, device and runtime give the same masks.
            region: x, y, width, height in source pixels, to look at a part of the image alone.

        Raises:
            TypeError: the image is no uint8 array; `num_samples`, `seed` or a number of the region is no whole one.
            ValueError: the image's shape, the region, `num_samples` or `seed` is out of range.
        """
        return self.batch([image], num_samples, seed, regions=[region])[0]

    def batch(
        self,
        images: Sequence[np.ndarray],
        num_samples: int = 3,
        seed: int = 0,
        *,
        regions: Sequence[tuple[int, int, int, int] | None] | None = None,
    ) -> list[LayeredScene]:
        """See several images (cameras or crops) in one pass; each as if it were alone.

        Args:
            images: each as in `__call__`, of any sizes.
            num_samples, seed: as in `__call__`, of all.
            regions: of each image, the part to look at, or None for all of it.

        Raises:
            TypeError, ValueError: as of `__call__`; or there are not as many regions as images.
        """
        num_samples, seed = _checked_samples(num_samples), check_whole("seed", seed)
        if not 0 <= seed < 2**64:
            raise ValueError(f"seed must be in 0..2**64 - 1, not {seed}")
        for image in images:
            check_image(image)
        regions = [None] * len(images) if regions is None else regions
        if len(regions) != len(images):
            raise ValueError(f"regions must be one for each image, {len(images)}, not {len(regions)}")
        if not len(images):
            return []
        geometries = [self._geometry(*pair) for pair in zip(images, regions, strict=True)]
        with self._at_work:
            return self._see(images, geometries, num_samples, seed)

    def _see(
        self, images: Sequence[np.ndarray], geometries: Sequence[Geometry], num_samples: int, seed: int
    ) -> list[LayeredScene]:
        """`batch`, of checked arguments and one or more images."""
        import torch

        from seqamodal_ros.diffusion.adapter import normalised
        from seqamodal_ros.diffusion.proposals import drawer, numbered, proposer
        from seqamodal_ros.diffusion.sequence import run, sequence

        began = time.monotonic()
        settings = self.model.settings
        size = settings.network.mask_size
        squares = [g.to_model(i, settings.network.image_size) for g, i in zip(geometries, images, strict=True)]
        inside = [g.inside(size) for g in geometries]
        with torch.inference_mode():
            self._before_call()
            network = self.network
            pixels = torch.from_numpy(np.stack(squares)).permute(0, 3, 1, 2).to(self._device)
            features = network.encode(normalised(pixels))
        propose = proposer(
            network,
            self._schedule,
            features,
            draws=[drawer((num_samples, 1, size, size), seed) for _ in images],
            samples=num_samples,
            sampler=settings.sampler,
            steps=settings.sampling_steps,
            before_call=self._before_call,
        )

        def propose_inside(indices: list[int], in_front: list[np.ndarray]) -> list[np.ndarray]:
            return [np.where(inside[i], x0, np.float32(-1)) for i, x0 in zip(indices, propose(indices, in_front), strict=True)]

        opinions = self._second_opinions(features, inside)
        lead = numbered(network)
        sequences = [sequence(settings.sequence, (size, size), num_samples, second=second, lead=lead) for second in opinions]
        found = run(sequences, propose_inside)
        with torch.inference_mode():
            to_centres = self._to_centres(network, [result.amodal for result in found], features)
        doubts = [
            "" if len(result.amodal) else why_in_doubt(square, geometry.inside(len(square)), self._published(result.left_out))
            for result, geometry, square in zip(found, geometries, squares, strict=True)
        ]
        seconds = time.monotonic() - began
        return [
            LayeredScene.assemble(
                amodal=result.amodal,
                probability=calibrated(result.probability, result.amodal, settings.temperatures) * within,
                hypotheses=result.hypotheses,
                geometry=geometry,
                to_centres=ways,
                area_min=settings.sequence.area_min,
                truncated=result.truncated,
                seed=seed,
                seconds=seconds,
                doubt=doubt,
            )
            for result, geometry, within, ways, doubt in zip(found, geometries, inside, to_centres, doubts, strict=True)
        ]

    def _published(self, left_out: float) -> float:
        """The highest probability of a first layer that was left out, with its temperature; 0 where none was."""
        return float(tempered(np.float32(left_out), self.model.settings.temperatures[0])) if left_out else 0.0

    def _second_opinions(self, features: tuple[Any, ...], inside: Sequence[np.ndarray]) -> Sequence[Second | None]:
        """Of each image, what is asked before its sequence stops."""
        from seqamodal_ros.diffusion.mirrored import mean_of_views
        from seqamodal_ros.second_opinion import second_opinions

        settings = self.model.settings
        drawn = mean_of_views(features[-1]) if settings.mirror else features[-1]
        return second_opinions(self.model.network, drawn, inside, settings.sequence.area_min)

    def _to_centres(
        self, network: CentredNetwork, stacks: Sequence[np.ndarray], features: tuple[Any, ...]
    ) -> list[np.ndarray | None]:
        """Of each image's layers bool [L, h, w], float [L, 2, h, w], see `FastNetwork.to_centres`; None of a network without it.

        One call a frame.
        """
        from seqamodal_ros.diffusion.fast import has_centres

        if not has_centres(self.model.network) or not any(map(len, stacks)):
            return [None] * len(stacks)
        self._before_call()
        return [*ways_to_centres(network, stacks, features)]

    def _geometry(self, image: np.ndarray, region: tuple[int, int, int, int] | None) -> Geometry:
        height, width = image.shape[:2]
        if region is not None:
            if len(region) != 4:
                raise ValueError(f"a region is x, y, width and height, four numbers, not {tuple(region)}")
            x, y, across, down = (check_whole("each number of a region", number) for number in region)
            return Geometry.region(width, height, x, y, across, down)
        return Geometry.letterbox(width, height) if self._fit == "letterbox" else Geometry.centre_crop(width, height)


def ways_to_centres(network: CentredNetwork, stacks: Sequence[np.ndarray], features: tuple[Any, ...]) -> list[np.ndarray]:
    """Of each image's layers bool [L, h, w], of which there is one at least, float [L, 2, h, w], see `FastNetwork.to_centres`.

    Args:
        network: of which `has_centres` holds; it is called once.
        features: that it gave of these images.
    """
    import torch

    from seqamodal_ros.diffusion.adapter import signed

    device = features[0].device
    counts = [len(stack) for stack in stacks]
    cumulative = np.concatenate([cumulative_masks(stack)[:-1] for stack in stacks])
    layers, in_front = (signed(torch.from_numpy(masks)[:, None]).to(device) for masks in (np.concatenate(stacks), cumulative))
    of_image = torch.repeat_interleave(torch.arange(len(stacks)), torch.tensor(counts)).to(device)
    ways = network.to_centres(layers, in_front, tuple(each[of_image] for each in features[network.conditions :]))
    return list(np.split(ways.cpu().numpy(), np.cumsum(counts)[:-1]))


def _checked_samples(num_samples: object) -> int:
    number = check_whole("num_samples", num_samples)
    if not 1 <= number <= LARGEST_NUM_SAMPLES:
        raise ValueError(f"num_samples must be in 1..{LARGEST_NUM_SAMPLES}, not {number}")
    return number


def check_whole(name: str, value: object) -> int:
    """The value as an int; raise TypeError, naming it, where it is no whole number."""
    try:
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{name} must be a whole number, not {value!r}") from None


def check_image(image: np.ndarray) -> None:
    """Raise TypeError or ValueError, saying what is wrong, unless `image` is uint8 [H, W, 3] of a sane size."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8:
        kind = f"a {image.dtype} array" if isinstance(image, np.ndarray) else type(image).__name__
        raise TypeError(f"the image must be a uint8 array [H, W, 3] in RGB order, not {kind}")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"the image must have the shape [H, W, 3] in RGB order, not {list(image.shape)}")
    if not (1 <= image.shape[0] <= LARGEST_SIDE and 1 <= image.shape[1] <= LARGEST_SIDE):
        raise ValueError(f"the image's sides must be in 1..{LARGEST_SIDE} pixels, not {image.shape[1]}x{image.shape[0]}")
