"""How much memory a training step needs, found out before the first one.

A step keeps what its backward pass needs, which grows with clips, frames and pixels alike. So one
clip of a few frames and pixels is learned from, as a trial, and what it takes is counted and
scaled up. A run that cannot fit is refused, instead of being killed by the system without a word.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vsrm_cli.data.sample import ClipShape, Sample
from vsrm_cli.errors import MemoryShortage
from vsrm_cli.inference.memory import PeakMemory, free_memory_bytes
from vsrm_cli.models.network import SCALE
from vsrm_cli.training.distributed import process_count
from vsrm_cli.training.recipe import Recipe
from vsrm_cli.training.trainer import Trainer

# The trial: two lengths, since a clip of no frames would take some memory too.
_FRAMES = (2, 3)
_PATCH = 32
# Weights, their average and gradients, two moments of Adam, and two copies of all but the gradients
# that the guard keeps.
_COPIES_OF_WEIGHTS = 13
# A weight gives a few values for each pixel at most, so a step whose weights and pixels have a
# product below this, in bytes, needs no trial: it takes less than a gigabyte.
_SMALL = 1 << 28


def check_memory(learner: Trainer, recipe: Recipe) -> None:
    """Refuse a run whose steps do not fit into the memory of its device.

    Args:
        learner: As it is before the first step; its gradients are cleared.
        recipe: What it is to compute.

    Raises:
        MemoryShortage: If they do not fit; the message says which options make them smaller.
    """
    shape = _shape_of_part(recipe)
    weights = sum(p.numel() * p.element_size() for p in learner.network.parameters())
    if weights * shape.batch * shape.frames * shape.patch**2 <= _SMALL:
        return
    device = learner.network.device
    needed = _COPIES_OF_WEIGHTS * weights + _activation_bytes(learner, shape)
    free = free_memory_bytes(device)
    if needed <= free:
        return
    ways = [] if recipe.recompute else ["--recompute (a third more time)"]
    if shape.batch > 1:
        ways.append(f"--accumulate {recipe.accumulate * shape.batch} (the same steps, in parts)")
    ways.append("fewer --clip-frames, or a smaller --patch")
    raise MemoryShortage(
        f"A training step needs about {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free on "
        f"{device}; give {', or '.join(ways)}."
    )


def _shape_of_part(recipe: Recipe) -> ClipShape:
    """What is computed at a time, in one process."""
    shape = recipe.shape
    clips = -(-shape.batch // (process_count() * recipe.accumulate))
    return replace(shape, batch=clips, frames=shape.frames * (2 if recipe.mirrored else 1))


def _activation_bytes(learner: Trainer, shape: ClipShape) -> int:
    """What a forward and a backward pass take beside the weights, by two small trials."""
    few, more = (_trial_bytes(learner, frames) for frames in _FRAMES)
    per_frame = max(0, more - few) / (_FRAMES[1] - _FRAMES[0])
    clip = max(few, few + per_frame * (shape.frames - _FRAMES[0]))
    return int(clip * shape.batch * shape.patch**2 / _PATCH**2)


def _trial_bytes(learner: Trainer, frames: int) -> int:
    """The peak of a trial with one clip, in bytes."""
    device = learner.network.device
    sample = _flat_sample(frames, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        peak = PeakMemory(device)
        learner.try_out(sample)
        return (peak.read_bytes() or before) - before
    meter = PeakMeter()
    with meter:
        learner.try_out(sample)
    return meter.peak


def _flat_sample(frames: int, device: torch.device) -> Sample:
    small = torch.full((1, frames, 3, _PATCH, _PATCH), 0.5, device=device)
    sharp = torch.full((1, frames, 3, SCALE * _PATCH, SCALE * _PATCH), 0.5, device=device)
    flow = torch.zeros(1, frames - 1, 2, _PATCH, _PATCH, device=device)
    return Sample(small, sharp, flow, flow, torch.ones(1, dtype=torch.bool, device=device))


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are made inside, as long as each lives.

    Attributes:
        peak: The most at one time.
    """

    def __init__(self) -> None:
        """Begin with nothing."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Compute, and count what comes out."""
        result = func(*args, **(kwargs or {}))
        tree_map_only(Tensor, self._note, result)
        return result

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self._now += storage.nbytes()
        self.peak = max(self.peak, self._now)
        weakref.finalize(storage, self._forget, key, storage.nbytes())

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._now -= size
