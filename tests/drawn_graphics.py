"""Graphics that networks trained on photographs may damage: text, cartoons, pixel art."""

import numpy as np
import torch
from PIL import Image, ImageDraw

from vsrm_cli.report.labels import text_mask

HEIGHT, WIDTH = 192, 256
LINES = ("Edit  View  Help", "def main():", "  return 0  # ok", "1234567890 +-*/=", "The quick fox")


def screen(number):
    """A window with lines of text that scrolls by two pixels a frame, (3, H, W) uint8."""
    frame = np.full((HEIGHT, WIDTH, 3), 245, np.uint8)
    frame[:20] = (40, 60, 120)
    frame[20:22] = 0
    for row in range(8):
        ink = text_mask(LINES[row % len(LINES)], size=2)
        top = 28 + 20 * row + 2 * number
        part = ink[: max(0, HEIGHT - top), : WIDTH - 12]
        area = frame[top : top + part.shape[0], 8 : 8 + part.shape[1]]
        area[part] = (20, 20, 20) if row % 3 else (160, 30, 30)
    return torch.from_numpy(frame).permute(2, 0, 1).contiguous()


def cartoon(number):
    """Flat colors inside dark outlines, antialiased, one figure moving."""
    image = Image.new("RGB", (4 * WIDTH, 4 * HEIGHT), (120, 190, 240))
    draw = ImageDraw.Draw(image)
    draw.rectangle(
        (0, 560, 4 * WIDTH, 4 * HEIGHT), fill=(90, 170, 80), outline=(20, 30, 20), width=8
    )
    left = 200 + 12 * number
    draw.ellipse((left, 200, left + 320, 520), fill=(250, 210, 60), outline=(30, 20, 10), width=12)
    draw.ellipse((left + 90, 290, left + 130, 340), fill=(30, 20, 10))
    draw.ellipse((left + 190, 290, left + 230, 340), fill=(30, 20, 10))
    draw.arc((left + 80, 300, left + 240, 460), 20, 160, fill=(30, 20, 10), width=12)
    draw.polygon(((700, 560), (800, 260), (900, 560)), fill=(200, 60, 60), outline=(30, 20, 10))
    frame = np.asarray(image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    return torch.from_numpy(frame.copy()).permute(2, 0, 1).contiguous()


def pixel_art(number):
    """Sprites of large square pixels that move by a whole one each frame."""
    palette = np.array([(20, 20, 40), (230, 80, 70), (250, 220, 120), (70, 160, 90)], np.uint8)
    cells = np.random.default_rng(7).integers(0, 4, (HEIGHT // 8, WIDTH // 8))
    cells[:, ::5] = 0
    frame = palette[np.roll(cells, number, axis=1)].repeat(8, axis=0).repeat(8, axis=1)
    return torch.from_numpy(frame).permute(2, 0, 1).contiguous()


def clip_of(scene, *, frames=3):
    """Some frames of a scene, (T, 3, H, W) uint8."""
    return torch.stack([scene(number) for number in range(frames)])
