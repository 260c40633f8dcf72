"""Sharp clips and their shrunken twins.

A clip is cut from a video, or made from a photo by moving a camera over it: then the true
motion of every pixel is known, and the flow network can learn from it. Each sample depends on
the seed and its number alone, so a resumed run sees what an uninterrupted one would have seen.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from vsrm_cli.errors import InputError
from vsrm_cli.training.packs import detail, load_pack

SCALE = 4


@dataclass(frozen=True)
class ClipShape:
    """What one training sample looks like.

    Attributes:
        frames: How many frames a clip has.
        patch: Side of the small (network input) frames in pixels.
        batch: Clips in one step.
        photo_share: How many of the clips are made from photos, 0 to 1.
        motion: Greatest speed of the synthetic camera, in small pixels per frame.
    """

    frames: int
    patch: int
    batch: int
    photo_share: float
    motion: float = 4.0


@dataclass(frozen=True)
class Sample:
    """Clips to learn from.

    Attributes:
        small: Network input, (B, T, 3, H, W), 0 to 1, steps of 1/255.
        sharp: What the network should give, (B, T, 3, 4H, 4W), 0 to 1.
        flow_backward: True flow from frame t to t + 1 in small pixels, (B, T-1, 2, H, W); x first.
        flow_forward: True flow from frame t + 1 to t, same shape.
        has_flow: (B,), whether the flow of a clip is known; where not, it holds zeros.
    """

    small: Tensor
    sharp: Tensor
    flow_backward: Tensor
    flow_forward: Tensor
    has_flow: Tensor


class Clips(Dataset[Sample]):
    """Batches of clips from a pack; item n is the batch of step n.

    Args:
        pack: A pack file, see `vsrm_cli.training.packs`.
        shape: Size of the samples.
        steps: How many items there are.
        seed: With the item's number, decides everything about a sample.
        share: Which share of each batch this is, where several processes divide it: sample
            ``share * shape.batch + i`` of the whole batch is sample i here.
    """

    def __init__(
        self, pack: Path, shape: ClipShape, *, steps: int, seed: int, share: int = 0
    ) -> None:
        """Read the pack; clips too short or too small for the shape are left out."""
        photos, clips = load_pack(pack)
        self.shape, self.steps, self.seed = shape, steps, seed
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
        rows = [
            self._sample(np.random.default_rng([self.seed, step, self.first + index]))
            for index in range(self.shape.batch)
        ]
        sharp = torch.stack([row[0] for row in rows])
        return Sample(
            small=shrink_4x(sharp),
            sharp=sharp,
            flow_backward=torch.stack([row[1] for row in rows]),
            flow_forward=torch.stack([row[2] for row in rows]),
            has_flow=torch.tensor([row[3] for row in rows]),
        )

    def _sample(self, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, bool]:
        shape = self.shape
        from_photo = rng.random() < shape.photo_share
        if self.photos and (from_photo or not self.clips):
            photo, cover = (self.photos[rng.integers(len(self.photos))] for _ in range(2))
            sharp, backward, forward = move_camera(photo, cover, shape, rng)
            return _recolor(sharp, rng), backward, forward, True
        clip = self.clips[rng.integers(len(self.clips))]
        sharp = _turn(_cut(clip, shape, rng), rng)
        nothing = torch.zeros(shape.frames - 1, 2, shape.patch, shape.patch)
        return _recolor(sharp, rng), nothing, nothing, False


def shrink_4x(sharp: Tensor) -> Tensor:
    """Shrink four times as the literature's BI does, and round to 8 bits.

    Antialiased bicubic interpolation (a = -0.5, support widened four times): what MATLAB's
    imresize and Pillow compute.

    Args:
        sharp: (..., 3, H, W), values 0 to 1; H and W multiples of four.

    Returns:
        (..., 3, H/4, W/4), values 0 to 1 in steps of 1/255.

    Raises:
        ValueError: If a side is no multiple of four.
    """
    height, width = sharp.shape[-2:]
    if height % SCALE or width % SCALE:
        raise ValueError(f"sides must be multiples of {SCALE}, got {height} x {width}")
    small = F.interpolate(
        sharp.reshape(-1, 3, height, width),
        size=(height // SCALE, width // SCALE),
        mode="bicubic",
        antialias=True,
        align_corners=False,
    )
    small = (small * 255).round().clamp(0, 255) / 255
    return small.reshape(*sharp.shape[:-2], *small.shape[-2:])


def move_camera(
    photo: Tensor, cover: Tensor, shape: ClipShape, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Film a photo with a moving camera, and in front of it, half of the time, a piece of another.

    Pan, zoom, rotation and perspective change smoothly. The piece in front moves on its own, so
    that parts of the background come and go, as they do in real scenes.

    Args:
        photo: (3, H, W) uint8.
        cover: Another photo, for the piece in front.
        shape: Size of the clip.
        rng: Decides everything.

    Returns:
        The clip, (T, 3, 4P, 4P), 0 to 1, and its exact flows in small pixels, from t to t + 1
        and from t + 1 to t, each (T-1, 2, P, P).
    """
    side = shape.patch * SCALE
    back = _camera_path(shape, rng)
    clip = _film(_place(photo, side, rng), back, side)
    backward, forward = _flows(back, shape.patch)
    if rng.random() < 0.5:
        front = _camera_path(shape, rng)
        center = torch.tensor(rng.uniform(-0.5, 0.5, 2) * side, dtype=torch.float32)
        radii = torch.tensor(rng.uniform(0.15, 0.45, 2) * side, dtype=torch.float32)
        mask = torch.stack([_ellipse(path, center, radii, side) for path in front])  # (T, 4P, 4P)
        clip = torch.lerp(clip, _film(_place(cover, side, rng), front, side), mask[:, None])
        covered = mask[:, None, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] > 0.5  # (T, 1, P, P)
        front_backward, front_forward = _flows(front, shape.patch)
        backward = torch.where(covered[:-1], front_backward, backward)
        forward = torch.where(covered[1:], front_forward, forward)
    return clip, backward, forward


def _camera_path(shape: ClipShape, rng: np.random.Generator) -> list[Tensor]:
    """One 3 x 3 matrix a frame: from output pixels (origin at the center) to photo pixels."""
    side = shape.patch * SCALE
    # Most scenes move little: the speed is drawn so that half of them stay below a quarter.
    speed = SCALE * shape.motion * rng.random() ** 2
    angle = rng.uniform(0, 2 * np.pi)
    pan = speed * np.array([np.cos(angle), np.sin(angle)])
    drift = rng.normal(0, 0.08, 2) * speed
    turn, turn_rate = rng.normal(0, 0.05), rng.normal(0, 0.006)
    zoom, zoom_rate = np.log(rng.uniform(0.95, 1.35)), rng.normal(0, 0.004)
    tilt, tilt_rate = rng.normal(0, 0.08, 2) / side, rng.normal(0, 0.01, 2) / side
    path = []
    for t in np.arange(shape.frames) - (shape.frames - 1) / 2:
        theta, size = turn + turn_rate * t, np.exp(zoom + zoom_rate * t)
        shift = pan * t + drift * t * abs(t)
        path.append(
            np.array(
                [
                    [size * np.cos(theta), -size * np.sin(theta), shift[0]],
                    [size * np.sin(theta), size * np.cos(theta), shift[1]],
                    [*(tilt + tilt_rate * t), 1.0],
                ]
            )
        )
    return [torch.tensor(matrix, dtype=torch.float64) for matrix in path]


def _place(photo: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """A square of a photo with room for motion around it, flipped and turned at random."""
    reach = min(2 * side, *photo.shape[1:])
    places = []
    for _ in range(3):
        top, left = (int(rng.integers(size - reach + 1)) for size in photo.shape[1:])
        places.append(photo[:, top : top + reach, left : left + reach])
    best = max(places, key=lambda place: detail(place[:, ::2, ::2]))
    return _turn((best.float() / 255)[None], rng)[0]


def _film(photo: Tensor, path: list[Tensor], side: int) -> Tensor:
    """Sample a photo, (3, S, S), through each matrix of a path: (T, 3, side, side)."""
    points = torch.stack([_through(matrix, _grid(side)) for matrix in path])  # (T, side, side, 2)
    grid = points * (2.0 / photo.shape[-1])
    film = F.grid_sample(
        photo.expand(len(path), -1, -1, -1),
        grid.float(),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return ((film * 255).round().clamp(0, 255)) / 255


def _flows(path: list[Tensor], patch: int) -> tuple[Tensor, Tensor]:
    """Exact flows between neighboring frames of a path, in small pixels, each (T-1, 2, P, P)."""
    here = _grid(patch)
    enlarge = torch.diag(torch.tensor([SCALE, SCALE, 1.0], dtype=torch.float64))
    small = [torch.linalg.inv(enlarge) @ matrix @ enlarge for matrix in path]
    backward = [_through(torch.linalg.inv(b) @ a, here) - here for a, b in pairwise(small)]
    forward = [_through(torch.linalg.inv(a) @ b, here) - here for a, b in pairwise(small)]
    if not backward:
        return (torch.zeros(0, 2, patch, patch),) * 2
    return tuple(torch.stack(f).permute(0, 3, 1, 2).float() for f in (backward, forward))  # type: ignore[return-value]


def _grid(side: int) -> Tensor:
    """Centers of the pixels of a square, (side, side, 2), x first, origin in the middle."""
    line = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)


def _through(matrix: Tensor, points: Tensor) -> Tensor:
    """Move points, (..., 2), by a homography."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved / (points @ matrix[2, :2] + matrix[2, 2])[..., None]


def _ellipse(matrix: Tensor, center: Tensor, radii: Tensor, side: int) -> Tensor:
    """An ellipse of the front layer as the camera sees it, (side, side), 0 to 1, soft edge."""
    distance = ((_through(matrix, _grid(side)) - center) / radii).norm(dim=-1)
    inside: Tensor = (1 - distance) * radii.min() / 1.5 + 0.5
    return inside.clamp(0, 1).float()


def _cut(clip: Tensor, shape: ClipShape, rng: np.random.Generator) -> Tensor:
    """A patch of a stored clip, (T, 3, 4P, 4P), 0 to 1; of three places the most detailed."""
    side = shape.patch * SCALE
    start = int(rng.integers(clip.shape[0] - shape.frames + 1))
    places = []
    for _ in range(3):
        top, left = (int(rng.integers(max(size - side, 0) + 1)) for size in clip.shape[-2:])
        places.append(clip[start : start + shape.frames, :, top : top + side, left : left + side])
    best = max(places, key=lambda place: detail(place[0, :, ::2, ::2])).float() / 255
    return best.flip(0) if rng.random() < 0.5 else best


def _turn(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Flip and rotate (..., H, W) by quarter turns at random."""
    if rng.random() < 0.5:
        pictures = pictures.flip(-1)
    return torch.rot90(pictures, int(rng.integers(4)), (-2, -1)).contiguous()


def _recolor(pictures: Tensor, rng: np.random.Generator) -> Tensor:
    """Swap the color channels of (T, 3, H, W) at random, for variety; values stay as they are."""
    return pictures[:, torch.from_numpy(rng.permutation(3))]
