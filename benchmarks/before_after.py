"""Draw the README's picture: a piece of the sample clip, enlarged by bicubic and by vsrm-t.

    python benchmarks/before_after.py

Writes `benchmarks/before_after.png`. Needs Pillow, which the extra `test` brings.
"""

from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from vsrm_cli.media.reader import VideoReader
from vsrm_cli.models.weights import load_model

ROOT = Path(__file__).parents[1]
FRAME, NEIGHBORS = 20, 3
LEFT, TOP, RIGHT, BOTTOM = 58, 6, 158, 96  # in pixels of the clip
SCALE = 4


def main() -> None:
    """Enlarge some frames, cut the piece out of the middle one, and write both side by side."""
    with VideoReader(ROOT / "tests" / "data" / "sample.mp4") as reader:
        frames = list(reader)[FRAME - NEIGHBORS : FRAME + NEIGHBORS + 1]
    small = torch.stack([torch.from_numpy(frame.pixels.copy()) for frame in frames]).float() / 255
    with torch.inference_mode():
        restored = load_model("vsrm-t", device="cpu")(small[None])[0, NEIGHBORS]
    source = _picture(small[NEIGHBORS])
    size = (SCALE * source.width, SCALE * source.height)
    box = (SCALE * LEFT, SCALE * TOP, SCALE * RIGHT, SCALE * BOTTOM)
    pieces = [
        ("bicubic", source.resize(size, Image.Resampling.BICUBIC).crop(box)),
        ("vsrm-t", _picture(restored).crop(box)),
    ]
    width, height = pieces[0][1].size
    sheet = Image.new("RGB", (2 * width + 8, height + 32), "white")
    draw = ImageDraw.Draw(sheet)
    for number, (name, piece) in enumerate(pieces):
        left = number * (width + 8)
        sheet.paste(piece, (left, 32))
        draw.text((left + 4, 4), name, fill="black", font=ImageFont.load_default(20))
    sheet.save(ROOT / "benchmarks" / "before_after.png", optimize=True)


def _picture(values: torch.Tensor) -> Image.Image:
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.permute(1, 2, 0).numpy())


if __name__ == "__main__":
    main()
