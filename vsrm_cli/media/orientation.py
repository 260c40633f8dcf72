"""Orientation: rotate stored pixels as the display matrix or EXIF tag says.

Cameras store frames as the sensor reads them, with a display matrix in videos and an EXIF tag in
photos. Containers keep the matrix. Our image files, y4m output and comparisons have none, so their
pixels are rotated.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from vsrm_cli.frame import Pixels

# FFmpeg's nine numbers, in fixed point: a, b, 0, c, d, 0, 0, 0, 1. A pixel at (x, y) is shown at
# (a x + c y, b x + d y), with y downwards.
Matrix = tuple[int, ...]

_ONE = 1 << 16
# a, b, c, d of the orientations of EXIF; the first is upright.
_EXIF = {
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
_ORIENTATION_TAG = 0x0112
_LARGEST_TIFF_HEADER = 1 << 16


def is_quarter_turn(matrix: Matrix | None) -> bool:
    """Whether it swaps width and height."""
    return matrix is not None and abs(matrix[0]) < abs(matrix[1])


def rotate_upright(pixels: Pixels, matrix: Matrix | None) -> Pixels:
    """Rotate pixels (3, H, W) to the nearest 90 degrees and flip them, as players do."""
    if matrix is None:
        return pixels
    across, down = matrix[0], matrix[4]
    if is_quarter_turn(matrix):
        pixels = pixels.swapaxes(1, 2)
        across, down = matrix[3], matrix[1]
    if across < 0:
        pixels = pixels[:, :, ::-1]
    if down < 0:
        pixels = pixels[:, ::-1]
    return cast(Pixels, np.ascontiguousarray(pixels))


def rotation_matrix(degrees: int) -> Matrix:
    """The matrix of a counterclockwise rotation."""
    cos, sin = (round(_ONE * f(math.radians(degrees))) for f in (math.cos, math.sin))
    return (cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30)


def exif_matrix(file: Path) -> Matrix | None:
    """The EXIF orientation of a JPEG, PNG, WebP or TIFF file as a matrix; None if it has none.

    PyAV 18 cannot list EXIF data: it gives the angle, but not whether an image is flipped.
    """
    with file.open("rb") as opened:
        for exif in _exif_blocks(opened):
            numbers = _EXIF.get(_orientation(exif))
            if numbers is not None:
                a, b, c, d = (_ONE * number for number in numbers)
                return (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    return None


def _exif_blocks(file: BinaryIO) -> Iterator[bytes | mmap]:
    """The EXIF blocks of an image file, each in TIFF format; a TIFF file is one itself."""
    head = file.read(12)
    if head[:2] == b"\xff\xd8":
        for marker, data in _jpeg_segments(file):
            if marker == 0xE1 and data[:6] == b"Exif\0\0":
                yield data[6:]
    elif head[:8] == b"\x89PNG\r\n\x1a\n":
        yield from _chunks(file, is_png=True)
    elif head[:4] == b"RIFF" and head[8:] == b"WEBP":
        for data in _chunks(file, is_png=False):
            yield data.removeprefix(b"Exif\0\0")
    elif head[:4] in (b"II*\0", b"MM\0*"):
        # The directory is often after the pixels, at the end of a large file.
        with mmap(file.fileno(), 0, access=ACCESS_READ) as mapped:
            yield mapped


def _jpeg_segments(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Marker and data of each segment before the first scan of a JPEG file."""
    file.seek(2)
    while len(head := file.read(4)) == 4:
        magic, marker, size = struct.unpack(">BBH", head)
        if magic != 0xFF or marker == 0xDA or size < 2:
            return
        yield marker, file.read(size - 2)


def _chunks(file: BinaryIO, *, is_png: bool) -> Iterator[bytes]:
    """The EXIF chunk of a PNG or WebP file, if it has one."""
    file.seek(8 if is_png else 12)
    while len(head := file.read(8)) == 8:
        if is_png:
            size, name = struct.unpack(">I4s", head)
            rest = 4  # a checksum
        else:
            name, size = struct.unpack("<4sI", head)
            rest = size % 2  # padding
        if name in (b"eXIf", b"EXIF"):
            yield file.read(min(size, _LARGEST_TIFF_HEADER))
            return
        file.seek(size + rest, 1)


def _orientation(tiff: bytes | mmap) -> int:
    """The orientation in the first directory of a TIFF file; 1 if it has none."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    try:
        if order is None:
            return 1
        (directory,) = struct.unpack_from(f"{order}I", tiff, 4)
        (entries,) = struct.unpack_from(f"{order}H", tiff, directory)
        for entry in range(entries):
            tag, _, _, value = struct.unpack_from(f"{order}HHIH", tiff, directory + 2 + 12 * entry)
            if tag == _ORIENTATION_TAG:
                return int(value)
    except struct.error:
        pass  # cut short
    return 1
