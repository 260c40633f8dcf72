"""How much memory a training step needs, estimated before the first one.

The activations that a step keeps for its backward pass grow with clips, frames and pixels. A trial
with one small clip is measured and scaled up. A run that cannot fit is refused, instead of being
killed by the system without a message.
"""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from vsrm_cli.data.training_batch import ClipShape, TrainingBatch
from vsrm_cli.errors import MemoryShortage
from vsrm_cli.frame import SCALE
from vsrm_cli.inference.memory import PeakMemory, free_memory_bytes
from vsrm_cli.training.distributed import process_count
from vsrm_cli.training.recipe import Recipe
from vsrm_cli.training.trainer import Trainer

# Two trials, since part of the memory does not depend on the number of frames.
_FRAMES = (2, 3)
_PATCH = 32
# Weights, their average and gradients, two moments of Adam, and the two copies of all but the
# gradients that the divergence guard keeps.
_COPIES_OF_WEIGHTS = 13
# If the product of weights and pixels is below this, in bytes, a step takes less than a gigabyte
# and needs no trial.
_SMALL = 1 << 28


def check_memory(trainer: Trainer, recipe: Recipe) -> None:
    """Refuse a run whose steps do not fit into the memory of its device.

    Args:
        trainer: Before its first step; its gradients are cleared.
        recipe: Of the run.

    Raises:
        MemoryShortage: If they do not fit; the message says which options make them smaller.
    """
    shape = _shape_of_part(recipe)
    weights = sum(p.numel() * p.element_size() for p in trainer.network.parameters())
    if weights * shape.batch * shape.frames * shape.patch**2 <= _SMALL:
        return
    device = trainer.network.device
    needed = _COPIES_OF_WEIGHTS * weights + _activation_bytes(trainer, shape)
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
    """The shape of what one process computes at a time."""
    shape = recipe.shape
    clips = -(-shape.batch // (process_count() * recipe.accumulate))
    return replace(shape, batch=clips, frames=shape.frames * (2 if recipe.mirrored else 1))


def _activation_bytes(trainer: Trainer, shape: ClipShape) -> int:
    """Memory of a forward and a backward pass beside the weights, from two small trials."""
    few, more = (_trial_bytes(trainer, frames) for frames in _FRAMES)
    per_frame = max(0, more - few) / (_FRAMES[1] - _FRAMES[0])
    clip = max(few, few + per_frame * (shape.frames - _FRAMES[0]))
    return int(clip * shape.batch * shape.patch**2 / _PATCH**2)


def _trial_bytes(trainer: Trainer, frames: int) -> int:
    """The peak of a trial with one clip, in bytes."""
    device = trainer.network.device
    batch = _flat_batch(frames, device)
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        peak = PeakMemory(device)
        trainer.run_trial(batch)
        return (peak.read_bytes() or before) - before
    meter = PeakMeter()
    with meter:
        trainer.run_trial(batch)
    return meter.peak


def _flat_batch(frames: int, device: torch.device) -> TrainingBatch:
    lr = torch.full((1, frames, 3, _PATCH, _PATCH), 0.5, device=device)
    hr = torch.full((1, frames, 3, SCALE * _PATCH, SCALE * _PATCH), 0.5, device=device)
    flow = torch.zeros(1, frames - 1, 2, _PATCH, _PATCH, device=device)
    return TrainingBatch(lr, hr, flow, flow, torch.ones(1, dtype=torch.bool, device=device))


class PeakMeter(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive inside it.

    Attributes:
        peak: The largest count.
    """

    def __init__(self) -> None:
        """Start at zero."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run an operator, and count its outputs."""
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
