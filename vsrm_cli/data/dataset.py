"""LR-HR clips for training, one batch for each step.

A clip is cut from a video, or made from a photo by moving a camera over it. Each sample depends on
the seed and its number alone, so a resumed run gets the same samples as an uninterrupted one.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vsrm_cli.data.clip_cache import ClipCache
from vsrm_cli.data.crops import flip_and_rotate, most_detailed
from vsrm_cli.data.degradations import Degradation, degrade
from vsrm_cli.data.footage import Footage, load_pack_sources
from vsrm_cli.data.synthetic_motion import move_camera
from vsrm_cli.data.training_batch import ClipShape, TrainingBatch
from vsrm_cli.frame import SCALE

# LR pixels around a patch that are compressed along with it, as far as there are any, and cropped
# afterwards: an encoder treats the borders of a frame differently.
CONTEXT = 8
# LR frames, HR frames, flows backward and forward, and whether the flows are known.
_Row = tuple[Tensor, Tensor, Tensor, Tensor, bool]


class ClipDataset(Dataset[TrainingBatch]):
    """Batches of clips from footage; item n is the batch of step n.

    Args:
        footage: From `open_footage`; or a pack, see `vsrm_cli.data.packs`.
        shape: Size of the samples.
        steps: Number of items.
        seed: Decides, with the item's number, everything about a sample.
        share: Which share of each batch this is, if several processes divide it: sample
            ``share * shape.batch + i`` of the whole batch is sample i here.
        degradation: How LR frames are made, if the footage has none.

    Attributes:
        skipped: Files that are not used, including those too small or too short for the shape.
    """

    def __init__(
        self,
        footage: Footage | Path,
        shape: ClipShape,
        *,
        steps: int,
        seed: int,
        share: int = 0,
        degradation: Degradation = Degradation.BI,
    ) -> None:
        """Leave out footage that is too short or too small for the shape.

        Raises:
            InputError: If nothing is left, or a pack cannot be read.
        """
        if isinstance(footage, Path):
            footage = Footage(footage, tuple(load_pack_sources(footage)))
        footage = footage.usable(shape)
        self.skipped = footage.skipped
        self.shape, self.steps, self.seed, self.degradation = shape, steps, seed, degradation
        self.first = share * shape.batch
        side = SCALE * shape.patch
        self.photos, self.clips = (
            ClipCache(sources, frames=shape.frames, side=side, seed=(seed, kind))
            for kind, sources in enumerate((footage.photos, footage.clips), start=1)
        )

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> TrainingBatch:
        """Make the batch of one step.

        Raises:
            InputError: If the footage cannot be read any more.
        """
        if step >= self.steps:
            raise IndexError(step)
        numbers = range(self.first, self.first + self.shape.batch)
        lr, hr, backward, forward, known = zip(
            *(self._sample(step, number) for number in numbers), strict=True
        )
        return TrainingBatch(
            lr=torch.stack(lr),
            hr=torch.stack(hr),
            flow_backward=torch.stack(backward),
            flow_forward=torch.stack(forward),
            has_flow=torch.tensor(known),
        )

    def _sample(self, step: int, number: int) -> _Row:
        seed = [self.seed, step, number]
        rng = np.random.default_rng(seed)
        shape = self.shape
        from_photo = rng.random() < shape.photo_share
        from_photo = bool(self.photos) and (from_photo or not self.clips)
        cache = self.photos if from_photo else self.clips
        run = cache.take(int(rng.integers(len(cache))), step)
        if run.lr is not None:
            return _cut_pair(run.hr, run.lr, shape, rng)
        around = CONTEXT if self.degradation is Degradation.REAL else 0
        if from_photo:
            cover = cache.take(int(rng.integers(len(cache))), step)
            wide = replace(shape, patch=shape.patch + 2 * around)
            hr, *flows = move_camera(run.hr[0], cover.hr[0], wide, rng)
            backward, forward = (_crop_edges(flow, around) for flow in flows)
        else:
            hr, around = _cut(run.hr, shape, rng, around=around)
            hr = flip_and_rotate(hr, rng)
            backward = forward = torch.zeros(shape.frames - 1, 2, shape.patch, shape.patch)
        # Degraded after colors were swapped and frames turned: encoders weigh colors differently,
        # and go through a frame from its top left.
        hr = _recolor(hr, rng)
        lr = degrade(hr, self.degradation, np.random.default_rng([*seed, 1]))
        return (
            _crop_edges(lr, around),
            _crop_edges(hr, SCALE * around),
            backward,
            forward,
            from_photo,
        )


def _cut(
    clip: Tensor, shape: ClipShape, rng: np.random.Generator, *, around: int
) -> tuple[Tensor, int]:
    """Cut the most detailed of three patches out of a clip (T, 3, H, W) uint8.

    Returns:
        The patch, (T, 3, 4P, 4P) or larger, 0 to 1, and how many LR pixels it has around that at
        each side: ``around``, or as many as there are.
    """
    side = SCALE * shape.patch
    start = int(rng.integers(clip.shape[0] - shape.frames + 1))
    frames = clip[start : start + shape.frames]
    top, left = most_detailed(frames[0], side, side, rng)
    height, width = clip.shape[-2:]
    room = min(top, left, height - side - top, width - side - left)
    around = min(around, room // SCALE)
    edge = SCALE * around
    patch = frames[..., top - edge : top + side + edge, left - edge : left + side + edge].float()
    return (patch.flip(0) if rng.random() < 0.5 else patch) / 255, around


def _cut_pair(hr: Tensor, lr: Tensor, shape: ClipShape, rng: np.random.Generator) -> _Row:
    """Cut the same patch out of HR frames and the LR frames of the footage.

    A photo becomes a clip by moving the crop in whole LR pixels, so that nothing is resampled.
    Colors are not swapped: compression artifacts depend on them.
    """
    is_photo = len(hr) == 1
    seed = int(rng.integers(1 << 32))
    hr, lr = (flip_and_rotate(x.float() / 255, np.random.default_rng(seed)) for x in (hr, lr))
    tops, down = _walk(lr.shape[-2] - shape.patch, shape.frames, rng, fastest=2 * is_photo)
    lefts, right = _walk(lr.shape[-1] - shape.patch, shape.frames, rng, fastest=2 * is_photo)
    start = int(rng.integers(max(len(hr) - shape.frames, 0) + 1))
    numbers = [0 if is_photo else start + t for t in range(shape.frames)]
    if rng.random() < 0.5 and not is_photo:
        numbers.reverse()
    cuts = []
    for frames, scale in ((lr, 1), (hr, SCALE)):
        side = scale * shape.patch
        cuts.append(
            torch.stack(
                [
                    frames[n, :, scale * y : scale * y + side, scale * x : scale * x + side]
                    for n, y, x in zip(numbers, tops, lefts, strict=True)
                ]
            )
        )
    # If the crop moves to the right, its content moves to the left.
    forward = torch.tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1)
    forward = forward.expand(shape.frames - 1, 2, shape.patch, shape.patch).contiguous()
    return cuts[0], cuts[1], -forward, forward, is_photo


def _walk(
    room: int, frames: int, rng: np.random.Generator, *, fastest: int
) -> tuple[list[int], int]:
    """Steady steps within this many pixels: the position in each frame, and the step."""
    fastest = min(fastest, room // max(1, frames - 1))
    step = int(rng.integers(-fastest, fastest + 1))
    way = step * (frames - 1)
    first = int(rng.integers(room - abs(way) + 1)) - min(0, way)
    return [first + step * t for t in range(frames)], step


def _crop_edges(frames: Tensor, edge: int) -> Tensor:
    """Crop this many pixels at each edge of frames, (..., H, W)."""
    height, width = frames.shape[-2:]
    return frames[..., edge : height - edge, edge : width - edge]


def _recolor(frames: Tensor, rng: np.random.Generator) -> Tensor:
    """Swap the color channels of (T, 3, H, W) at random, for variety; values stay as they are."""
    return frames[:, torch.from_numpy(rng.permutation(3))]
