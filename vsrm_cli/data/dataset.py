"""Sharp clips and their small twins, as a training loop wants them: one batch a step.

A clip is cut from a video, or made from a photo by moving a camera over it. Each sample depends on
the seed and its number alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from vsrm_cli.data.clip_cache import ClipCache
from vsrm_cli.data.degradations import SCALE, Degradation, degrade
from vsrm_cli.data.footage import Footage, stored_in
from vsrm_cli.data.packs import most_detailed
from vsrm_cli.data.sample import ClipShape, Sample
from vsrm_cli.data.synthetic_motion import move_camera, turn

# Small pixels around a patch that are compressed with it, where there are so many, and cut off
# afterwards: an encoder treats the border of a picture differently.
CONTEXT = 8
# Small and sharp frames, flows backward and forward, and whether these are known.
_Row = tuple[Tensor, Tensor, Tensor, Tensor, bool]


class Clips(Dataset[Sample]):
    """Batches of clips from footage; item n is the batch of step n.

    Args:
        footage: What `open_footage` found; or a pack, see `vsrm_cli.data.packs`.
        shape: Size of the samples.
        steps: How many items there are.
        seed: With the item's number, decides everything about a sample.
        share: Which share of each batch this is, where several processes divide it: sample
            ``share * shape.batch + i`` of the whole batch is sample i here.
        degradation: How the small frames are made, where none came with the footage.

    Attributes:
        skipped: Files that are not used, those too small or too short for the shape among them.
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
        """Leave out what is too short or too small for the shape.

        Raises:
            InputError: If nothing is left, or a pack cannot be read.
        """
        if isinstance(footage, Path):
            footage = Footage(footage, tuple(stored_in(footage)))
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

    def __getitem__(self, step: int) -> Sample:
        """Make the batch of one step.

        Raises:
            InputError: If the footage cannot be read any more.
        """
        if step >= self.steps:
            raise IndexError(step)
        numbers = range(self.first, self.first + self.shape.batch)
        small, sharp, backward, forward, known = zip(
            *(self._sample(step, number) for number in numbers), strict=True
        )
        return Sample(
            small=torch.stack(small),
            sharp=torch.stack(sharp),
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
        shelf = self.photos if from_photo else self.clips
        run = shelf.take(int(rng.integers(len(shelf))), step)
        if run.small is not None:
            return _cut_twins(run.sharp, run.small, shape, rng)
        around = CONTEXT if self.degradation is Degradation.REAL else 0
        if from_photo:
            cover = shelf.take(int(rng.integers(len(shelf))), step)
            wide = replace(shape, patch=shape.patch + 2 * around)
            sharp, *flows = move_camera(run.sharp[0], cover.sharp[0], wide, rng)
            backward, forward = (_middle(flow, around) for flow in flows)
        else:
            sharp, around = _cut(run.sharp, shape, rng, around=around)
            sharp = turn(sharp, rng)
            backward = forward = torch.zeros(shape.frames - 1, 2, shape.patch, shape.patch)
        # Degraded after colors were swapped and pictures turned: an encoder weighs colors, and
        # goes through a picture from its top left.
        sharp = _recolor(sharp, rng)
        small = degrade(sharp, self.degradation, np.random.default_rng([*seed, 1]))
        return _middle(small, around), _middle(sharp, SCALE * around), backward, forward, from_photo


def _cut(
    clip: Tensor, shape: ClipShape, rng: np.random.Generator, *, around: int
) -> tuple[Tensor, int]:
    """Cut the most detailed of three patches out of a clip (T, 3, H, W) uint8.

    Returns:
        The patch, (T, 3, 4P, 4P) or larger, 0 to 1, and how many small pixels it holds around
        that at each side: ``around``, or what there is.
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


def _cut_twins(sharp: Tensor, small: Tensor, shape: ClipShape, rng: np.random.Generator) -> _Row:
    """Cut the same patch out of sharp frames and the small ones that came with them.

    A photo becomes a clip by a walk over it, in whole small pixels, so that nothing has to be
    resampled. Colors are not swapped: artifacts of compression depend on them.
    """
    is_photo = len(sharp) == 1
    alike = int(rng.integers(1 << 32))
    sharp, small = (
        turn(twin.float() / 255, np.random.default_rng(alike)) for twin in (sharp, small)
    )
    tops, down = _walk(small.shape[-2] - shape.patch, shape.frames, rng, fastest=2 * is_photo)
    lefts, right = _walk(small.shape[-1] - shape.patch, shape.frames, rng, fastest=2 * is_photo)
    start = int(rng.integers(max(len(sharp) - shape.frames, 0) + 1))
    numbers = [0 if is_photo else start + t for t in range(shape.frames)]
    if rng.random() < 0.5 and not is_photo:
        numbers.reverse()
    cuts = []
    for twin, scale in ((small, 1), (sharp, SCALE)):
        side = scale * shape.patch
        cuts.append(
            torch.stack(
                [
                    twin[n, :, scale * y : scale * y + side, scale * x : scale * x + side]
                    for n, y, x in zip(numbers, tops, lefts, strict=True)
                ]
            )
        )
    # Where the window walks to the right, what it shows goes to the left.
    forward = torch.tensor([right, down], dtype=torch.float32).view(1, 2, 1, 1)
    forward = forward.expand(shape.frames - 1, 2, shape.patch, shape.patch).contiguous()
    return cuts[0], cuts[1], -forward, forward, is_photo


def _walk(
    room: int, frames: int, rng: np.random.Generator, *, fastest: int
) -> tuple[list[int], int]:
    """Steady steps within so many pixels: the place in each frame, and the length of a step."""
    fastest = min(fastest, room // max(1, frames - 1))
    step = int(rng.integers(-fastest, fastest + 1))
    way = step * (frames - 1)
    first = int(rng.integers(room - abs(way) + 1)) - min(0, way)
    return [first + step * t for t in range(frames)], step


def _middle(pictures: Tensor, edge: int) -> Tensor:
    """Cut an edge of so many pixels off pictures, (..., H, W)."""
    height, width = pictures.shape[-2:]
    return pictures[..., edge : height - edge, edge : width - edge]


def _recolor(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Swap the color channels of (T, 3, H, W) at random, for variety; values stay as they are."""
    return pictures[:, torch.from_numpy(rng.permutation(3))]
