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

from vsrm_cli.errors import InputError
from vsrm_cli.training.camera import move_camera, turn
from vsrm_cli.training.degradations import SCALE, Degradation, degrade
from vsrm_cli.training.packs import detail, load_pack
from vsrm_cli.training.sample import ClipShape, Sample

# Small pixels around a patch that are compressed with it, where there are so many, and cut off
# afterwards: an encoder treats the border of a picture differently.
CONTEXT = 8


class Clips(Dataset[Sample]):
    """Batches of clips from a pack; item n is the batch of step n.

    Args:
        pack: A pack file, see `vsrm_cli.training.packs`.
        shape: Size of the samples.
        steps: How many items there are.
        seed: With the item's number, decides everything about a sample.
        share: Which share of each batch this is, where several processes divide it: sample
            ``share * shape.batch + i`` of the whole batch is sample i here.
        degradation: How the small frames are made.
    """

    def __init__(
        self,
        pack: Path,
        shape: ClipShape,
        *,
        steps: int,
        seed: int,
        share: int = 0,
        degradation: Degradation = Degradation.BI,
    ) -> None:
        """Read the pack; clips too short or too small for the shape are left out."""
        photos, clips = load_pack(pack)
        self.shape, self.steps, self.seed, self.degradation = shape, steps, seed, degradation
        self.first = share * shape.batch
        side = SCALE * shape.patch
        self.photos = [p for p in photos.values() if min(p.shape[1:]) >= side]
        self.clips = [
            c for c in clips.values() if c.shape[0] >= shape.frames and min(c.shape[2:]) >= side
        ]
        if not self.photos and not self.clips:
            raise InputError(
                f"{pack} holds no photo and no clip of {side} pixels and {shape.frames} frames; "
                f"make the patch smaller or the clips shorter."
            )

    def __len__(self) -> int:
        """Number of steps."""
        return self.steps

    def __getitem__(self, step: int) -> Sample:
        """Make the batch of one step."""
        if step >= self.steps:
            raise IndexError(step)
        numbers = range(self.first, self.first + self.shape.batch)
        small, sharp, backward, forward, known = zip(
            *(self._sample([self.seed, step, number]) for number in numbers), strict=True
        )
        return Sample(
            small=torch.stack(small),
            sharp=torch.stack(sharp),
            flow_backward=torch.stack(backward),
            flow_forward=torch.stack(forward),
            has_flow=torch.tensor(known),
        )

    def _sample(self, seed: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor, bool]:
        """Small and sharp frames of one clip, its flows, and whether these are known."""
        rng = np.random.default_rng(seed)
        shape = self.shape
        around = CONTEXT if self.degradation is Degradation.REAL else 0
        from_photo = rng.random() < shape.photo_share
        from_photo = bool(self.photos) and (from_photo or not self.clips)
        if from_photo:
            photo, cover = (self.photos[rng.integers(len(self.photos))] for _ in range(2))
            wide = replace(shape, patch=shape.patch + 2 * around)
            sharp, *flows = move_camera(photo, cover, wide, rng)
            backward, forward = (_middle(flow, around) for flow in flows)
        else:
            clip = self.clips[rng.integers(len(self.clips))]
            sharp, around = _cut(clip, shape, rng, around=around)
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
    side = shape.patch * SCALE
    start = int(rng.integers(clip.shape[0] - shape.frames + 1))
    run = clip[start : start + shape.frames]
    height, width = clip.shape[-2:]
    places = [
        tuple(int(rng.integers(max(size - side, 0) + 1)) for size in (height, width))
        for _ in range(3)
    ]
    top, left = max(
        places, key=lambda at: detail(run[0, :, at[0] : at[0] + side : 2, at[1] : at[1] + side : 2])
    )
    around = min(
        around, *(room // SCALE for room in (top, left, height - side - top, width - side - left))
    )
    edge = SCALE * around
    patch = run[..., top - edge : top + side + edge, left - edge : left + side + edge].float() / 255
    return (patch.flip(0) if rng.random() < 0.5 else patch), around


def _middle(pictures: Tensor, edge: int) -> Tensor:
    """Cut an edge of so many pixels off pictures, (..., H, W)."""
    height, width = pictures.shape[-2:]
    return pictures[..., edge : height - edge, edge : width - edge]


def _recolor(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Swap the color channels of (T, 3, H, W) at random, for variety; values stay as they are."""
    return pictures[:, torch.from_numpy(rng.permutation(3))]
