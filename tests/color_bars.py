"""Color bars with the values of the standards, not of a library."""

from itertools import product

import numpy as np
from av.video.frame import VideoFrame

from vsrm_cli.media.color import bit_depth

BT709, BT601, BT2020 = 1, 6, 9
LIMITED, FULL = 1, 2
# Weights of red and blue in luma, ITU-R BT.709-6, BT.601-7 and BT.2020-2.
LUMA = {BT709: (0.2126, 0.0722), BT601: (0.299, 0.114), BT2020: (0.2627, 0.0593)}


def plane_of(frame, index):
    plane = frame.planes[index]
    kind = np.uint16 if bit_depth(frame.format.name) > 8 else np.uint8
    rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)
    return rows.view(kind)[:, : plane.width]


def color_bars(pixel_format, matrix, color_range, *, patch=16):
    """All corners of the RGB cube and some colors between, as patches of YUV."""
    steps = (0, 1) if "420" in pixel_format else (0, 0.25, 0.5, 0.75, 1)
    rgb = np.array(list(product(steps, repeat=3)))
    red, green, blue = rgb.T
    weight_red, weight_blue = LUMA[matrix]
    y = weight_red * red + (1 - weight_red - weight_blue) * green + weight_blue * blue
    u, v = (blue - y) / (2 - 2 * weight_blue), (red - y) / (2 - 2 * weight_red)
    bits = bit_depth(pixel_format)
    unit, peak = 2 ** (bits - 8), 2**bits - 1
    if color_range == LIMITED:
        levels = [(16 + 219 * y) * unit, (128 + 224 * u) * unit, (128 + 224 * v) * unit]
    else:
        levels = [y * peak, u * peak + 128 * unit, v * peak + 128 * unit]
    frame = VideoFrame(patch * len(rgb), patch, pixel_format)
    for index, level in enumerate(levels):
        row = np.repeat(level.round().clip(0, peak), plane_of(frame, index).shape[1] // len(rgb))
        plane_of(frame, index)[:] = row
    frame.colorspace, frame.color_range = matrix, color_range
    return frame
