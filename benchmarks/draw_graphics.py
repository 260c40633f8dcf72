"""Draw clips of text, flat cartoons and pixel art, to train on together with real footage.

A small share of such clips prevents artifacts on text and graphics.

    python benchmarks/draw_graphics.py FOLDER --clips 60

FOLDER, a subfolder of the training folder, receives lossless videos of 12 frames. The same seed
gives the same clips.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

SIDE, FRAMES = 208, 12
WORDS = (
    "the of and to in is you that it was for with his this "
    "have from word but what all were when your said which how"
)

Clip = npt.NDArray[np.uint8]


def main() -> None:
    """Draw the clips and write each into a file."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--clips", type=int, default=60)
    arguments.add_argument("--seed", type=int, default=0)
    given = arguments.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    scenes: list[Callable[[np.random.Generator], Clip]] = [text, cartoon, pixel_art]
    for number in range(given.clips):
        rng = np.random.default_rng([given.seed, number])
        write(given.folder / f"graphics_{number:03}.mkv", scenes[number % len(scenes)](rng))


def write(path: Path, clip: Clip) -> None:
    """Write frames, (T, H, W, 3), to a lossless video."""
    with av.open(path, "w") as file:
        stream: Any = file.add_stream("ffv1", rate=25)
        stream.height, stream.width = clip.shape[1:3]
        stream.pix_fmt = "bgr0"
        for frame in clip:
            file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        file.mux(stream.encode())


def text(rng: np.random.Generator) -> Clip:
    """A scrolling page of text, light or dark, with bars and lines; whole pixels per frame."""
    is_dark = rng.random() < 0.35
    height = SIDE + 5 * FRAMES
    page = Image.new("RGB", (SIDE, height), color(rng, 10, 50) if is_dark else color(rng, 215))
    draw = ImageDraw.Draw(page)
    top = 0
    while top < height:
        size = int(rng.integers(9, 22))
        if rng.random() < 0.1:
            draw.rectangle((int(rng.integers(SIDE)), top, SIDE, top + size), fill=color(rng))
        elif rng.random() < 0.07:
            draw.line((0, top, SIDE, top), fill=color(rng), width=int(rng.integers(1, 4)))
        else:
            ink = color(rng, 160) if is_dark else color(rng, 0, 100)
            line = " ".join(rng.choice(WORDS.split(), 12))
            font = ImageFont.load_default(size)
            draw.text((int(rng.integers(-30, 40)), top), line, font=font, fill=ink)
        top += round(1.3 * size)
    speed = int(rng.integers(5))
    return np.stack([np.asarray(page)[speed * t : speed * t + SIDE] for t in range(FRAMES)])


def cartoon(rng: np.random.Generator) -> Clip:
    """Flat shapes with outlines, antialiased; some of them move."""
    large = 4 * SIDE
    background, shapes = color(rng), []
    for _ in range(int(rng.integers(3, 9))):
        place, size = rng.uniform(-0.2, 1, 2) * large, rng.uniform(0.1, 0.8, 2) * large
        step = rng.uniform(-12, 12, 2) * (rng.random() < 0.6)
        outline = {"outline": color(rng, 0, 60), "width": int(rng.integers(1, 20))}
        shapes.append((bool(rng.integers(2)), place, size, step, color(rng), outline))
    frames = []
    for number in range(FRAMES):
        image = Image.new("RGB", (large, large), background)
        draw = ImageDraw.Draw(image)
        for is_round, place, size, step, fill, outline in shapes:
            start = place + number * step
            box = (*start, *(start + size))
            (draw.ellipse if is_round else draw.rectangle)(box, fill=fill, **outline)
        frames.append(np.asarray(image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)))
    return np.stack(frames)


def pixel_art(rng: np.random.Generator) -> Clip:
    """Large square blocks of a few colors that move by whole pixels."""
    palette = rng.integers(0, 256, (int(rng.integers(2, 9)), 3)).astype(np.uint8)
    square = int(rng.integers(4, 13))
    reach = square * FRAMES
    cells = rng.integers(0, len(palette), 2 * ((SIDE + reach) // square + 1,))
    image = palette[cells].repeat(square, 0).repeat(square, 1)
    down, right = rng.integers(0, square + 1, 2)
    return np.stack(
        [image[down * t : down * t + SIDE, right * t : right * t + SIDE] for t in range(FRAMES)]
    )


def color(rng: np.random.Generator, least: int = 0, most: int = 256) -> tuple[int, ...]:
    """A random color whose channels lie in a range."""
    return tuple(int(value) for value in rng.integers(least, most, 3))


if __name__ == "__main__":
    main()
