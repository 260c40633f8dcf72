"""Clips of every kind of motion, drawn by code: gray pictures (H, W), at a time counted in frames.

`PROGRESSIVE` holds those that detectors of interlacing are known to trip over. Pixel art that
scrolls by a line, credits, bricks and dithering change from line to line as combing does.
`INTERLACED` holds motion that leaves combing in its wake where two moments share a frame.
"""

from functools import cache

import numpy as np
from PIL import Image, ImageDraw

HEIGHT, WIDTH = 240, 320
SHEET = (1000, 900)


def doubled(sheet, times=2):
    """Each pixel as a square of several, as games of old are shown."""
    return np.kron(sheet, np.ones((times, times)))


@cache
def nature(seed):
    """Random shapes of all sizes, smooth as a photo."""
    rng = np.random.default_rng(seed)
    picture = np.zeros(SHEET)
    for size in (2, 4, 8, 16, 32, 64):
        shape = (SHEET[1] // size + 2, SHEET[0] // size + 2)
        noise = Image.fromarray(rng.standard_normal(shape[::-1]).astype(np.float32))
        picture += np.asarray(noise.resize(SHEET[::-1], Image.Resampling.BICUBIC)) * size**0.7
    return (picture - picture.min()) / np.ptp(picture) * 255


@cache
def tiles():
    """Four tiles of pixel noise, as in a game."""
    four = np.random.default_rng(11).integers(0, 2, (4, 8, 8)) * 120 + 60
    rows, columns = SHEET[0] // 8, SHEET[1] // 8
    return np.block([[four[(7 * r + 3 * c) % 4] for c in range(columns)] for r in range(rows)])


@cache
def bricks():
    sheet = np.full(SHEET, 150)
    for row in range(0, SHEET[0], 8):
        sheet[row] = 60
        sheet[row : row + 8, row % 16 // 2 + np.arange(0, SHEET[1] - 8, 16)] = 60
    return sheet


@cache
def text():
    rng = np.random.default_rng(3)
    sheet = Image.new("L", SHEET[::-1], 16)
    pen = ImageDraw.Draw(sheet)
    for top in range(0, SHEET[0], 18):
        letters = rng.integers(97, 123, 40)
        letters[rng.random(40) < 0.2] = 32
        pen.text((int(rng.integers(40)), top), bytes(letters.tolist()).decode(), fill=235)
    return np.asarray(sheet)


@cache
def dithered():
    y, x = np.mgrid[: SHEET[0], : SHEET[1]]
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16
    shade = (np.sin(y / 40) + np.cos(x / 33)) / 4 + 0.5
    return (shade > np.tile(bayer, (SHEET[0] // 4, SHEET[1] // 4))) * 200 + 20


def stripes(period):
    sheet = np.full(SHEET, 20)
    sheet[::period] = 220
    return sheet


def crop(sheet, top, left):
    """A part of a sheet, between its pixels where the place is."""
    (y, fy), (x, fx) = ((int(at // 1), at % 1) for at in (top, left))
    part = sheet[y : y + HEIGHT + 1, x : x + WIDTH + 1]
    upper, lower = (row[:, :-1] * (1 - fx) + row[:, 1:] * fx for row in (part[:-1], part[1:]))
    return upper * (1 - fy) + lower * fy


def moving(sheet, down=0.0, right=0.0, *, whole=False):
    """A window that moves over a sheet by so many pixels per frame, over whole ones if asked."""

    def draw(time):
        top, left = 200 + down * time, 100 + right * time
        return crop(sheet, top // 1 if whole else top, left // 1 if whole else left)

    return draw


def shaking(sheet):
    places = np.random.default_rng(1).integers(0, 7, 200)
    return lambda time: crop(sheet, 100 + int(places[int(time)]), 100)


def repeated(draw, frames):
    """Each picture shown for several frames."""
    return lambda time: draw(time // frames * frames)


def grainy(draw, levels):
    def noisy(time):
        rng = np.random.default_rng(round(2 * time))
        return draw(time) + rng.standard_normal((HEIGHT, WIDTH)) * levels

    return noisy


def box(time):
    """A bright box before moving waves."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    picture = 128 + 60 * np.sin((x + 6 * time) / 9) + 30 * np.cos(y / 7)
    left = 10 + round(6 * time) % (WIDTH - 50)
    picture[30:90, left : left + 30] = 230
    return picture


def zoom(sheet):
    def draw(time):
        scale = 1.5 / (1 + 0.02 * time)
        rows = 400 + ((np.arange(HEIGHT) - HEIGHT / 2) * scale).astype(int)
        columns = 400 + ((np.arange(WIDTH) - WIDTH / 2) * scale).astype(int)
        return sheet[rows][:, columns]

    return draw


def spin(time):
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([HEIGHT, WIDTH]).reshape(2, 1, 1) / 2
    cos, sin = np.cos(0.04 * time), np.sin(0.04 * time)
    return bricks()[(400 + y * cos - x * sin).astype(int), (400 + y * sin + x * cos).astype(int)]


def rain(time):
    rng = np.random.default_rng(8)
    picture = crop(nature(3), 30, 30) / 2
    for y, x, speed in rng.integers((0, 0, 6), (HEIGHT, WIDTH, 28), (300, 3)):
        top = int(y + speed * time) % HEIGHT
        picture[top : top + 6, x] = 230
    return picture


def ticker(time):
    """A line of news that runs below a still picture."""
    picture = crop(nature(4), 20, 20)
    picture[-60:] = text()[:60, int(6 * time) :][:, :WIDTH]
    return picture


def lightning(time):
    return crop(nature(2), 10, 10) * (1 if time % 5 < 1 else 0.3)


def dissolve(time):
    share = min(1, time / 20)
    return crop(nature(1), 10, 10) * (1 - share) + crop(tiles(), 10, 10) * share


def snow(time):
    return np.random.default_rng(round(2 * time)).integers(0, 256, (HEIGHT, WIDTH))


PROGRESSIVE = {
    "game": moving(tiles(), 1),
    "game, two lines": moving(tiles(), 2),
    "game, three lines": moving(tiles(), 3),
    "game, every other frame": moving(tiles(), 0.5, whole=True),
    "game, one and two lines": moving(tiles(), 1.5, whole=True),
    "game, diagonal": moving(tiles(), 1, 1),
    "game, sideways": moving(tiles(), 0, 1),
    "doubled game, one line": moving(doubled(tiles()), 1),
    "doubled game, two lines": moving(doubled(tiles()), 2),
    "doubled game, two lines up": moving(doubled(tiles()), -2),
    "doubled game, every other frame": repeated(moving(doubled(tiles()), 1), 2),
    "doubled game, diagonal": moving(doubled(tiles()), 2, 2),
    "tripled game": moving(doubled(tiles(), 3), 3),
    "shaking game": shaking(doubled(tiles())),
    "bricks, tilt": moving(bricks(), 1),
    "bricks, tilt up": moving(bricks(), -1),
    "bricks, slow tilt": moving(bricks(), 0.7),
    "bricks, shaking": shaking(bricks()),
    "bricks, with grain": grainy(moving(bricks(), 1), 6),
    "nature, tilt": moving(nature(1), 1),
    "nature, slow tilt": moving(nature(1), 0.5),
    "nature, fast tilt": moving(nature(1), 1.5),
    "nature, pan": moving(nature(1), 0, 3),
    "credits": moving(text(), 1),
    "credits, every other frame": moving(text(), 0.5, whole=True),
    "credits, between lines": moving(text(), 0.75),
    "credits, two lines": moving(text(), 2),
    "doubled credits": moving(doubled(text()), 2),
    "terminal": lambda time: crop(text(), 18 * (time // 3), 10),
    "dithered, tilt": moving(dithered(), 1),
    "dithered, two lines": moving(dithered(), 2),
    "dithered, diagonal": moving(dithered(), 1, 3),
    "stripes of two lines": moving(stripes(2), 1),
    "stripes of three lines": moving(stripes(3), 1),
    "lightning": lightning,
    "dissolve": dissolve,
    "snow": snow,
    "grain": grainy(box, 12),
    "zoom": zoom(nature(6)),
    "zoom into text": zoom(text()),
    "spin": spin,
    "rain": rain,
    "ticker": ticker,
    "box": box,
}
INTERLACED = {
    "box": box,
    "pan": moving(nature(1), 0, 4),
    "fast pan": moving(nature(7), 0, 14),
    "diagonal": moving(nature(3), 3, 4),
    "pan over text": moving(text(), 0, 6),
    "ticker": ticker,
    "zoom": zoom(nature(6)),
    "pan with grain": grainy(moving(nature(1), 0, 8), 4),
    "rain": rain,
    "pan over a game": moving(doubled(tiles(), 3), 0, 2),
}


def progressive(draw, frames):
    """Frames of one moment each, uint8."""
    return [draw(n).clip(0, 255).astype(np.uint8) for n in range(frames)]


def interlaced(draw, frames, *, order):
    """Frames of two moments each, half a frame apart; the earlier one in the field named."""
    moments = progressive(lambda n: draw(n / 2), 2 * frames)
    return _interlace(moments[::2], moments[1::2], order=order)


def telecined(draw, frames):
    """Film as television of 60 fields shows it: two fields of a frame, then three of the next."""
    fields = [n for n in range(frames) for _ in range(2 + n % 2)]
    film = progressive(draw, frames)
    pairs = zip(fields[0 : 2 * frames : 2], fields[1 : 2 * frames : 2], strict=True)
    first, second = zip(*pairs, strict=True)
    return _interlace([film[n] for n in first], [film[n] for n in second], order="tff")


def _interlace(early, late, *, order):
    frames = []
    for one, other in zip(early, late, strict=True):
        frame = one.copy()
        rows = slice(1 if order == "tff" else 0, None, 2)
        frame[rows] = other[rows]
        frames.append(frame)
    return frames
