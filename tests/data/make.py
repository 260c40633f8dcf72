"""Draw `sample.mp4`, the clip that the README's first command enlarges.

A street corner: brick, gingham, ivy, cobbles, a bicycle, and print of several sizes. It is
drawn eight times larger than it will be and shrunk by an antialiased bicubic kernel, so that
the small clip holds what a camera would have left of fine detail, and an enlargement has
something to bring back. Camera, ivy, wheels and words move by fractions of a pixel, which is
what a video network lives on.

Lengths are in pixels of the small clip. No outside footage; random numbers have fixed seeds.
Run it with the extra `test` installed: python tests/data/make.py
"""

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 192, 108
WORLD_WIDTH = 208  # the camera pans over the difference
LARGER = 8
BICUBIC = Image.Resampling.BICUBIC  # with antialiasing, where it makes smaller
FRAMES, RATE = 60, 24
SAMPLE_RATE = 44_100
OUTPUT = Path(__file__).parent / "sample.mp4"

NAVY, INK, CREAM, GOLD = (24, 34, 66), (24, 22, 28), (250, 241, 222), (242, 190, 92)
CORAL, TEAL = (226, 92, 70), (20, 118, 124)
TICKER = "Drawn by a script, shrunk to 192 x 108, and now made four times larger."

Array = NDArray[np.float64]


def mesh(width: float, height: float) -> tuple[Array, Array]:
    """Coordinates x and y of the pixels of a large picture, each (H, W)."""
    x = (np.arange(round(width * LARGER)) + 0.5) / LARGER
    y = (np.arange(round(height * LARGER)) + 0.5) / LARGER
    xs, ys = np.meshgrid(x, y)
    return xs, ys


def mix(a: tuple[int, ...], b: tuple[int, ...], share: Array) -> Array:
    """Color `a` where the share is 0, `b` where it is 1: (H, W, channels)."""
    return np.asarray(a) * (1 - share[..., None]) + np.asarray(b) * share[..., None]


def hills(x: Array, y: Array, *, cell: float, seed: int) -> Array:
    """Smooth random hills about `cell` wide, 0 to 1."""
    table = np.random.default_rng(seed).random((64, 64))
    u, v = x / cell, y / cell
    i, j = np.floor(u).astype(int), np.floor(v).astype(int)
    u, v = ((3 - 2 * f) * f * f for f in (u - i, v - j))
    corner = [[table[(j + dj) % 64, (i + di) % 64] for di in (0, 1)] for dj in (0, 1)]
    rows = [left * (1 - u) + right * u for left, right in corner]
    return np.asarray(rows[0] * (1 - v) + rows[1] * v)


def picture(colors: Array) -> Image.Image:
    """An image of (H, W, 3) or (H, W, 4) values from 0 to 255."""
    return Image.fromarray(np.clip(colors + 0.5, 0, 255).astype(np.uint8))


def at(*lengths: float) -> list[float]:
    """Lengths of the small clip in pixels of the large drawing."""
    return [LARGER * length for length in lengths]


def write(
    draw: ImageDraw.ImageDraw,
    x: float,
    y: float,
    words: str,
    *,
    size: float,
    color: tuple[int, ...],
) -> None:
    """Print words, centered on (x, y); `size` is the height of the font."""
    draw.text(at(x, y), words, fill=color, font=ImageFont.load_default(size * LARGER), anchor="mm")


def wall() -> Image.Image:
    """Courses of bricks, each of its own red, in the light of an evening."""
    x, y = mesh(WORLD_WIDTH, HEIGHT)
    course = np.floor(y / 4)
    along = x + 4.5 * (course % 2)
    brick = hills(np.floor(along / 9) * 13.7, course * 17.3, cell=1, seed=1)
    grain = hills(x, y, cell=0.5, seed=2)
    colors = mix((120, 46, 40), (218, 122, 84), 0.7 * brick + 0.3 * grain)
    mortar = (y % 4 < 0.7) | (along % 9 < 0.7)
    colors = np.where(mortar[..., None], mix((166, 150, 138), (214, 200, 182), grain), colors)
    return picture(colors * (1.08 - 0.3 * (x / WORLD_WIDTH))[..., None])


def cobbles() -> Image.Image:
    """The pavement: rounded stones in rows."""
    x, y = mesh(WORLD_WIDTH, 24)
    row = np.floor(y / 3)
    along = x + 2.5 * (row % 2)
    u, v = (along % 5) / 5 - 0.5, (y % 3) / 3 - 0.5
    dome = np.clip(1.1 - 14 * (u**4 + v**4), 0, 1)
    tone = hills(np.floor(along / 5) * 9.1, row * 5.3, cell=1, seed=3)
    grain = hills(x, y, cell=0.6, seed=4)
    return picture(mix((46, 44, 56), (178, 170, 168), dome * (0.45 + 0.35 * tone + 0.2 * grain)))


def gingham() -> Image.Image:
    """A curtain of woven checks, every thread drawn."""
    x, y = mesh(50, 30)
    fold = 0.8 + 0.2 * np.sin(x * 1.1)
    checks = ((x % 4 < 2) * 1.0 + (y % 4 < 2)) / 2
    threads = np.where((np.floor(x / 0.5) + np.floor(y / 0.5)) % 2 == 0, 1.0, 0.86)
    return picture(mix(CREAM, (64, 120, 150), checks) * (fold * threads)[..., None])


def street() -> Image.Image:
    """Everything that stands still."""
    scene = wall()
    draw = ImageDraw.Draw(scene)
    scene.paste(cobbles(), (0, 84 * LARGER))
    draw.rectangle(at(0, 82, WORLD_WIDTH, 84.4), fill=(92, 84, 88))
    draw.rectangle(at(10, 32, 66, 76), fill=CREAM)
    x, y = mesh(50, 38)
    glass = mix((255, 206, 130), (196, 104, 92), (y / 38 + 0.15 * np.sin((x + y) / 3)).clip(0, 1))
    scene.paste(picture(glass), (13 * LARGER, 35 * LARGER))
    scene.paste(gingham().crop((0, 0, 50 * LARGER, 17 * LARGER)), (13 * LARGER, 56 * LARGER))
    for bar in (29.2, 46):
        draw.rectangle(at(bar, 34, bar + 1.2, 74), fill=CREAM)
    draw.rectangle(at(12, 54.6, 64, 56), fill=CREAM)
    draw.rectangle(at(8, 75, 68, 78), fill=(206, 196, 176))
    draw.rounded_rectangle(at(80, 8, 158, 40), radius=3 * LARGER, fill=INK)
    draw.rounded_rectangle(at(80.8, 8.8, 157.2, 39.2), radius=2.5 * LARGER, fill=NAVY)
    draw.rounded_rectangle(at(82, 10, 156, 38), radius=2 * LARGER, outline=GOLD, width=4)
    write(draw, 119, 19, "PICTURE HOUSE", size=9, color=CREAM)
    write(draw, 119, 28, "four times larger, every night at eight", size=4.2, color=GOLD)
    write(draw, 119, 33.4, "bring your smallest films", size=4.2, color=CREAM)
    return scene


def draw_awning(scene: Image.Image, time: float) -> None:
    """A striped cloth above the window, moved by the wind."""
    x, y = mesh(64, 20)
    wind = 0.5 * np.sin(x / 5 - 5 * time)
    y = y + wind
    stripe = ((x + wind * 0.3) / 4) % 2 < 1
    hem = 13.5 + 2.5 * np.abs(np.sin((x + 4) * math.pi / 8))
    shade = (0.88 + 0.12 * np.sin(x / 5 - 5 * time)) * np.where(y < 12, 1.0, 0.88)
    colors = np.where(stripe[..., None], np.asarray(CORAL), np.asarray(CREAM)) * shade[..., None]
    cover = 255.0 * ((y > 1) & (y < hem))
    cloth = picture(np.dstack((colors, cover)))
    scene.paste(cloth, (6 * LARGER, 20 * LARGER), cloth)


def draw_ivy(scene: Image.Image, time: float) -> None:
    """Leaves hanging at the right, swaying more the lower they hang."""
    draw = ImageDraw.Draw(scene)
    rng = np.random.default_rng(5)
    for _ in range(900):
        x, y = WORLD_WIDTH - 46 * rng.random() ** 1.6, 80 * rng.random() ** 1.5
        size, angle, tone = 0.9 + 1.5 * rng.random(), rng.random() * math.tau, rng.random()
        x += y / 80 * 1.6 * math.sin(2.6 * time + y / 16) + 0.25 * math.sin(6 * time + angle)
        angle += 0.3 * math.sin(3 * time + y / 9)
        color = tuple(round(v) for v in mix((18, 62, 40), (158, 194, 84), np.asarray(tone)))
        tip = (math.cos(angle), math.sin(angle))
        corners = [(1.5, 0.0), (0.2, 0.8), (-1.0, 0.0), (0.2, -0.8)]
        leaf = [
            LARGER * (c + size * (a * s + b * t))
            for a, b in corners
            for c, s, t in ((x, tip[0], -tip[1]), (y, tip[1], tip[0]))
        ]
        draw.polygon(leaf, fill=color)


def draw_bicycle(scene: Image.Image, x: float) -> None:
    """A bicycle that rolls along the curb, its rear hub at `x`; the spokes turn as it goes."""
    draw = ImageDraw.Draw(scene)
    radius, y = 13.0, 80.0
    for hub in (x, x + 36):
        for spoke in range(20):
            angle = x / radius + spoke * math.tau / 20
            rim = (hub + radius * math.cos(angle), y + radius * math.sin(angle))
            draw.line(at(hub, y, *rim), fill=(226, 228, 232), width=2)
        for reach, color, width in ((radius + 0.9, INK, 1.3), (radius - 0.4, (206, 208, 214), 0.5)):
            box = at(hub - reach, y - reach, hub + reach, y + reach)
            draw.ellipse(box, outline=color, width=round(width * LARGER))
        draw.ellipse(at(hub - 1.2, y - 1.2, hub + 1.2, y + 1.2), fill=INK)
    seat, crank, head = (x + 10, y - 19), (x + 15, y + 1), (x + 31, y - 20)
    tubes = [((x, y), crank), (crank, seat), (seat, (x, y)), (crank, head), (head, (x + 36, y))]
    tubes += [((x + 10.6, y - 16.5), (x + 30.6, y - 17)), (head, (x + 29.5, y - 25))]
    for start, end in tubes:
        draw.line(at(*start, *end), fill=TEAL, width=round(1.3 * LARGER))
    draw.line(at(x + 25, y - 25, x + 30, y - 25), fill=INK, width=round(1.4 * LARGER))
    draw.rounded_rectangle(at(x + 6, y - 21.5, x + 14, y - 19), radius=LARGER, fill=(92, 52, 34))
    draw.ellipse(at(x + 12, y - 2, x + 18, y + 4), outline=GOLD, width=6)


def draw_ticker(frame: Image.Image, time: float) -> None:
    """A band of running words at the foot of the frame."""
    draw = ImageDraw.Draw(frame)
    draw.rectangle(at(0, 98, WIDTH, HEIGHT), fill=NAVY)
    draw.rectangle(at(0, 97.6, WIDTH, 98), fill=GOLD)
    draw.text(
        at(6 - 19.3 * time, 103),
        TICKER,
        fill=CREAM,
        font=ImageFont.load_default(7 * LARGER),
        anchor="lm",
    )


def draw_frame(background: Image.Image, number: int) -> Image.Image:
    """Frame `number` of the clip, `LARGER` times its final size."""
    time = number / RATE
    scene = background.copy()
    draw_awning(scene, time)
    draw_ivy(scene, time)
    draw_bicycle(scene, 62 + 17.3 * time)
    pan = (WORLD_WIDTH - WIDTH) * (0.5 - 0.5 * math.cos(math.pi * number / FRAMES))
    left = round(pan * LARGER)
    frame = scene.crop((left, 0, left + WIDTH * LARGER, HEIGHT * LARGER))
    draw_ticker(frame, time)
    return frame


def tone() -> NDArray[np.float32]:
    """A sine that rises by two octaves from 220 Hz, (1, samples), softly begun and ended."""
    seconds = FRAMES / RATE
    t = np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    phase = 2 * math.pi * 220 * seconds / math.log(4) * 4 ** (t / seconds)
    swell = np.minimum(1, np.minimum(t, seconds - t) / 0.1)
    return (0.2 * swell * np.sin(phase)).astype(np.float32)[None]


def main() -> None:
    """Draw every frame, encode them with the tone, and write the file."""
    background = street()
    with av.open(str(OUTPUT), "w") as container:
        video = container.add_stream("libx264", rate=RATE, options={"crf": "12", "preset": "slow"})
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        video.codec_context.thread_count = 1  # x264 writes another file for each number of threads
        sound = container.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        for number in range(FRAMES):
            small = draw_frame(background, number).resize((WIDTH, HEIGHT), BICUBIC)
            container.mux(video.encode(av.VideoFrame.from_image(small)))
        container.mux(video.encode())
        samples = av.AudioFrame.from_ndarray(tone(), format="fltp", layout="mono")
        samples.sample_rate, samples.pts, samples.time_base = (
            SAMPLE_RATE,
            0,
            Fraction(1, SAMPLE_RATE),
        )
        container.mux(sound.encode(samples))
        container.mux(sound.encode())


if __name__ == "__main__":
    main()
