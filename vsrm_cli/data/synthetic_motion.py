"""Synthetic motion: a virtual camera moves over a photo, and an object moves in front of it.

The true motion of every pixel is known, so the flow network can be trained with it.
"""

from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.data.crops import flip_and_rotate, most_detailed
from vsrm_cli.data.training_batch import ClipShape
from vsrm_cli.frame import SCALE


def move_camera(
    photo: Tensor, cover: Tensor, shape: ClipShape, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Make a clip of a photo by a moving camera; half of the clips have an object in front.

    Pan, zoom, rotation and perspective change smoothly. The object moves on its own, so that parts
    of the background are covered and uncovered.

    Args:
        photo: (3, H, W) uint8.
        cover: Another photo, from which the object is cut.
        shape: Size of the clip.
        rng: Decides everything.

    Returns:
        The clip, (T, 3, 4P, 4P), 0 to 1, and its exact flows in LR pixels, from t to t + 1 and
        from t + 1 to t, each (T-1, 2, P, P).
    """
    side = shape.patch * SCALE
    back = _camera_path(shape, rng)
    clip = _render(_place(photo, side, rng), back, side)
    backward, forward = _flows(back, shape.patch)
    if rng.random() < 0.5:
        front = _camera_path(shape, rng)
        center = torch.tensor(rng.uniform(-0.5, 0.5, 2) * side, dtype=torch.float32)
        radii = torch.tensor(rng.uniform(0.15, 0.45, 2) * side, dtype=torch.float32)
        mask = torch.stack([_ellipse(path, center, radii, side) for path in front])  # (T, 4P, 4P)
        clip = torch.lerp(clip, _render(_place(cover, side, rng), front, side), mask[:, None])
        covered = mask[:, None, SCALE // 2 :: SCALE, SCALE // 2 :: SCALE] > 0.5  # (T, 1, P, P)
        front_backward, front_forward = _flows(front, shape.patch)
        backward = torch.where(covered[:-1], front_backward, backward)
        forward = torch.where(covered[1:], front_forward, forward)
    return clip, backward, forward


def _camera_path(shape: ClipShape, rng: np.random.Generator) -> list[Tensor]:
    """One homography for each frame, from output pixels (origin at the center) to photo pixels."""
    side = shape.patch * SCALE
    # Most scenes move little: half of the speeds are below a quarter of the maximum.
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
    """A square of a photo with room for motion, flipped and rotated at random."""
    reach = min(2 * side, *photo.shape[1:])
    top, left = most_detailed(photo, reach, reach, rng)
    best = photo[:, top : top + reach, left : left + reach]
    return flip_and_rotate((best.float() / 255)[None], rng)[0]


def _render(photo: Tensor, path: list[Tensor], side: int) -> Tensor:
    """Sample a photo, (3, S, S), through each matrix of a path: (T, 3, side, side)."""
    points = torch.stack([_through(matrix, _grid(side)) for matrix in path])  # (T, side, side, 2)
    grid = points * (2.0 / photo.shape[-1])
    rendered = F.grid_sample(
        photo.expand(len(path), -1, -1, -1),
        grid.float(),
        mode="bicubic",
        padding_mode="reflection",
        align_corners=False,
    )
    return ((rendered * 255).round().clamp(0, 255)) / 255


def _flows(path: list[Tensor], patch: int) -> tuple[Tensor, Tensor]:
    """Exact flows between neighboring frames of a path, in LR pixels, each (T-1, 2, P, P)."""
    here = _grid(patch)
    enlarge = torch.diag(torch.tensor([SCALE, SCALE, 1.0], dtype=torch.float64))
    lr_path = [torch.linalg.inv(enlarge) @ matrix @ enlarge for matrix in path]
    backward = [_through(torch.linalg.inv(b) @ a, here) - here for a, b in pairwise(lr_path)]
    forward = [_through(torch.linalg.inv(a) @ b, here) - here for a, b in pairwise(lr_path)]
    if not backward:
        return (torch.zeros(0, 2, patch, patch),) * 2
    return tuple(torch.stack(f).permute(0, 3, 1, 2).float() for f in (backward, forward))  # type: ignore[return-value]


def _grid(side: int) -> Tensor:
    """Centers of the pixels of a square, (side, side, 2), x first, origin in the middle."""
    line = torch.arange(side, dtype=torch.float64) + 0.5 - side / 2
    return torch.stack(torch.meshgrid(line, line, indexing="xy"), dim=-1)


def _through(matrix: Tensor, points: Tensor) -> Tensor:
    """Transform points, (..., 2), by a homography."""
    moved = points @ matrix[:2, :2].T + matrix[:2, 2]
    return moved / (points @ matrix[2, :2] + matrix[2, 2])[..., None]


def _ellipse(matrix: Tensor, center: Tensor, radii: Tensor, side: int) -> Tensor:
    """The mask of an ellipse in front, (side, side), 0 to 1, with a soft edge."""
    distance = ((_through(matrix, _grid(side)) - center) / radii).norm(dim=-1)
    inside: Tensor = (1 - distance) * radii.min() / 1.5 + 0.5
    return inside.clamp(0, 1).float()
