# SPDX-License-Identifier: Apache-2.0
"""A network whose calls are recorded as CUDA graphs: one launch a call, not one for each of its hundreds of small kernels."""

import logging
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from seqamodal_ros.diffusion.adapter import CentredNetwork, ImageFeatures, WithTraitsOf
from seqamodal_ros.diffusion.blocks import numbers

LOGGER = logging.getLogger(__name__)
MOST = 32  # graphs that are kept; each holds its inputs and answers
WARM_UP = 3  # calls before one is recorded: libraries choose their kernels in the first
AGREES = 1e-2  # largest difference of a graph to what it was recorded of, as a share of the largest value; kernels may differ
NO_GRAPH = "cannot capture %s as a CUDA graph for a batch of %d (%s): continuing without CUDA graphs"

Call = Callable[..., ImageFeatures]


class Recorded(NamedTuple):
    """A call that can be made again without Python: fill `given`, `replay`, read `answers`."""

    given: tuple[Tensor, ...]
    answers: ImageFeatures
    replay: Callable[[], None]


class CudaGraphs(WithTraitsOf):
    """Wraps a network on a GPU; see `Network`. For each kind of call and batch size the first call is recorded, and takes longer.

    Where a call cannot be recorded, or its graph does not answer as the network does, that is told, all graphs go, and from then
    on every call is made without; what memory they took may stay PyTorch's. Where there is no memory to record a call,
    torch.OutOfMemoryError goes on to the caller.

    Args:
        network: which; its weights must stay where they are.
        record: makes a `Recorded` of a call and what it is given.
    """

    def __init__(self, network: CentredNetwork, record: Callable[[Call, tuple[Tensor, ...]], Recorded] | None = None):
        self.network = network
        super().__init__(network)
        self._record: Callable[[Call, tuple[Tensor, ...]], Recorded] | None = record or Recorder().record
        self._recorded: dict[tuple[str, tuple[torch.Size, ...]], Recorded] = {}

    def encode(self, image: Tensor) -> ImageFeatures:
        """As the network's."""
        return self._answer("encode", self.network.encode, image)

    def denoise(
        self, x_t: Tensor, t: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures, hypothesis: Tensor | None = None
    ) -> Tensor:
        """As the network's."""

        def call(x_t: Tensor, t: Tensor, cumulative_mask: Tensor, hypothesis: Tensor, *features: Tensor) -> ImageFeatures:
            return (self.network.denoise(x_t, t, cumulative_mask, features, hypothesis),)

        number = numbers(hypothesis, t)
        return self._answer("denoise", call, x_t, t, cumulative_mask, number, *image_features[: self.conditions])[0]

    def to_centres(self, layer: Tensor, cumulative_mask: Tensor, image_features: ImageFeatures) -> Tensor:
        """As the network's."""

        def call(layer: Tensor, cumulative_mask: Tensor, *features: Tensor) -> ImageFeatures:
            return (self.network.to_centres(layer, cumulative_mask, features),)

        return self._answer("to_centres", call, layer, cumulative_mask, *image_features)[0]

    @torch.inference_mode()  # whatever the caller's: tensors that were made in it can be written to in no other
    def _answer(self, name: str, call: Call, *given: Tensor) -> ImageFeatures:
        key = name, tuple(each.shape for each in given)
        if self._record is not None and key not in self._recorded and len(self._recorded) < MOST:
            if why := self._try(key, self._record, call, given):
                LOGGER.warning(NO_GRAPH, name, len(given[0]), why)
                # all of them: they share memory, of which a library may hold a part for a graph that went wrong
                self._record, self._recorded = None, {}
        recorded = self._recorded.get(key)
        return call(*given) if recorded is None else _replay(recorded, given)

    def _try(
        self,
        key: tuple[str, tuple[torch.Size, ...]],
        record: Callable[[Call, tuple[Tensor, ...]], Recorded],
        call: Call,
        given: tuple[Tensor, ...],
    ) -> str:
        """Record a call; why not, or ""."""
        try:
            # of other inputs than those it is checked with, or a graph that ignores them would pass
            others = tuple(torch.zeros_like(each) if each.any() else torch.ones_like(each) for each in given)
            self._recorded[key] = recorded = record(call, others)
            pairs = zip(_replay(recorded, given), call(*given), strict=True)
            agrees = all((ours - theirs).abs().max() <= AGREES * theirs.abs().max() for ours, theirs in pairs)
            return "" if agrees else "it answers otherwise than the network"
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # CUDA's own are of many kinds
            return str(error) or repr(error)


def _replay(recorded: Recorded, given: tuple[Tensor, ...]) -> ImageFeatures:
    for kept, new in zip(recorded.given, given, strict=True):
        kept.copy_(new)
    recorded.replay()
    return tuple(answer.clone() for answer in recorded.answers)  # the next replay writes over them


class Recorder:
    """Records on the current GPU. Its graphs share memory, as each answer is copied before the next graph runs."""

    _stream: torch.cuda.Stream | None = None  # one for the whole process, as libraries keep a workspace for each

    def __init__(self) -> None:
        self._pool = torch.cuda.graph_pool_handle()
        Recorder._stream = Recorder._stream or torch.cuda.Stream()

    def record(self, call: Call, given: tuple[Tensor, ...]) -> Recorded:
        """See `Recorded`."""
        kept, stream = tuple(each.clone() for each in given), Recorder._stream
        assert stream is not None
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):  # left whatever happens, which `graph` does not see to
            for _ in range(WARM_UP):
                call(*kept)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=stream, capture_error_mode="thread_local"):
                    answers = call(*kept)
            except torch.OutOfMemoryError as error:  # a recording that was broken off is more than a want of memory
                raise RuntimeError(f"no memory to record in: {error}") from error
        torch.cuda.current_stream().wait_stream(stream)
        return Recorded(kept, answers, graph.replay)
