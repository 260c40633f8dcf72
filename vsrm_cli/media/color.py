"""Colors: from what a file stores to RGB for the network, and back again.

Video stores brightness and two color differences (YUV). Which numbers stand for red depends
on the matrix (BT.601, BT.709, ...) and on the range (limited: 16 to 235, full: 0 to 255). A
file may name them in tags, or say nothing; then we do as players do and go by the size. The
same matrix and range lead back, and are written into the tags of the output.

This is the only file that knows matrices, ranges and bit depths.
"""

import os
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.filter import Graph
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vsrm_cli.errors import InputError
from vsrm_cli.frame import Pixels

# FFmpeg's numbers for matrices (AVColorSpace) and ranges (AVColorRange).
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 0, 1, 2, 4, 5, 6, 7, 9
LIMITED_RANGE, FULL_RANGE = 1, 2

# What the scaler calls the matrices that it knows. Its 5 stands for every flavor of BT.601.
_SCALER_MATRIX = {
    BT709: 1,
    FCC: 4,
    BT470BG: 5,
    SMPTE170M: 5,
    SMPTE240M: 7,
    BT2020: 9,
}

# The same for its filter.
_MATRIX_NAME = {
    BT709: "bt709",
    FCC: "fcc",
    BT470BG: "bt601",
    SMPTE170M: "bt601",
    SMPTE240M: "smpte240m",
    BT2020: "bt2020",
}
# What is neither YCbCr nor RGB, and no matrix alone turns into it.
_OTHER_MODELS = {
    **{8: "YCgCo", 11: "Y'D'zD'x (SMPTE ST 2085)"},
    **dict.fromkeys((10, 13), "YCbCr of constant luminance"),
    **{14: "ICtCp", 15: "IPT-PQ-C2 (Dolby Vision)", 16: "YCgCo-R", 17: "YCgCo-R"},
}
# Between YUV and RGB of 16 bits the scaler takes 255 * 256 for white, whatever the depth of the
# YUV; but full range it only shifts up by the missing bits.
_SCALER_WHITE = 255 * 256

# Whole pictures of numbers would leave the cache between one step and the next.
_LINES_IN_CACHE = 32

# Codecs that say where samples of color lie, or mean one place by saying nothing. Frames of the
# others are taken as those of H.264: beside the left one of two pixels.
_SITING_TELLERS = {
    *("h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"),
    *("mjpeg", "dvvideo", "rawvideo"),
}
# What people call them.
_NAMES = {
    RGB: "RGB",
    BT709: "BT.709",
    FCC: "FCC",
    BT470BG: "BT.601",
    SMPTE170M: "BT.601",
    SMPTE240M: "SMPTE 240M",
    BT2020: "BT.2020",
}

# RGB of a few bits in one number, and how many bits its first, second and third component have.
_PACKED_RGB = re.compile("(rgb|bgr)(444|555|565|8|4_byte)(le|be)?")
_PACKED_BITS = {
    "444": (4, 4, 4),
    "555": (5, 5, 5),
    "565": (5, 6, 5),
    "8": (3, 3, 2),
    "4_byte": (1, 2, 1),
}

# The scaler's own defaults trade up to three code values for speed.
_QUALITY = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
)
_EXACT_FLAGS = ("accurate_rnd", "full_chroma_int", "full_chroma_inp")
_THREADS = min(4, os.cpu_count() or 1)


@dataclass(frozen=True, slots=True)
class Color:
    """How the numbers of a picture are to be read; numbers are FFmpeg's.

    Attributes:
        matrix: AVColorSpace: how YUV comes from RGB; 0 for pictures stored as RGB.
        full_range: Whether 8-bit luma runs from 0 to 255 instead of 16 to 235.
        primaries: AVColorPrimaries, copied as found; 2 says unspecified.
        transfer: AVColorTransferCharacteristic, copied as found; 2 says unspecified.
        guessed: The file does not name a matrix that we know; ``matrix`` is our assumption.
    """

    matrix: int
    full_range: bool
    primaries: int = UNSPECIFIED
    transfer: int = UNSPECIFIED
    guessed: bool = False

    @property
    def range(self) -> int:
        """FFmpeg's number for the range."""
        return FULL_RANGE if self.full_range else LIMITED_RANGE

    def __str__(self) -> str:
        """Name the matrix and the range, and say if they are assumed."""
        name = _NAMES.get(self.matrix, f"matrix {self.matrix}")
        extent = "full" if self.full_range else "limited"
        return f"{name}, {extent} range" + (" (assumed, the file names none)" * self.guessed)

    def fitted(
        self, pixel_format: str, *, width: int, height: int, source_format: str = "yuv420p"
    ) -> "Color":
        """The color under which a picture of this one can be stored in ``pixel_format``.

        Only where RGB or gray become YUV, or the other way round, must anything change; and the
        ``yuvj`` formats, which are full range by their definition.
        """
        if av.VideoFormat(pixel_format).is_rgb:
            return replace(self, matrix=RGB, full_range=True)
        matrix = assumed_matrix(width, height) if self.matrix == RGB else self.matrix
        # Full range is the nature of those two. In YUV it is rare, and many players overlook it.
        is_new_yuv = self.matrix == RGB or _is_gray(source_format)
        full_range = _is_always_full(pixel_format) or (self.full_range and not is_new_yuv)
        return replace(self, matrix=matrix, full_range=full_range)


def assumed_matrix(width: int, height: int) -> int:
    """The matrix of a video that names none: BT.601 for SD, BT.709 for anything larger."""
    return SMPTE170M if height <= 576 and width <= 1024 else BT709


def has_chroma_location(codec: str, pixel_format: str) -> bool:
    """Whether frames say where the samples of quartered or halved color lie.

    Args:
        codec: FFmpeg's name of the codec.
        pixel_format: Of the frames.
    """
    form = av.VideoFormat(pixel_format)
    is_halved = not form.is_rgb and len(form.components) >= 3 and form.chroma_width(64) == 32
    return not is_halved or pixel_format.startswith("yuvj") or codec in _SITING_TELLERS


def bits_of(pixel_format: str) -> int:
    """Bits of the deepest component of a pixel format."""
    return max((c.bits for c in av.VideoFormat(pixel_format).components), default=8)


def has_alpha(pixel_format: str) -> bool:
    """Whether pixels of a format may be transparent."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def color_of(frame: VideoFrame) -> Color:
    """What a decoded frame says about its color, completed where it says nothing."""
    tags = (frame.color_primaries, frame.color_trc)
    name = frame.format.name
    if frame.format.is_rgb or frame.format.has_palette:
        return Color(RGB, True, *tags)
    full_range = name.startswith("yuvj") or frame.color_range == FULL_RANGE
    if _is_gray(name) and frame.color_range != LIMITED_RANGE:
        full_range = True
    if frame.colorspace in _SCALER_MATRIX:
        return Color(frame.colorspace, full_range, *tags)
    return Color(assumed_matrix(frame.width, frame.height), full_range, *tags, guessed=True)


def color_model(frame: VideoFrame) -> str | None:
    """What a frame names that is neither YCbCr nor RGB nor gray; None for these."""
    return None if frame.format.is_rgb else _OTHER_MODELS.get(frame.colorspace)


def luma_of(frame: VideoFrame) -> NDArray[np.uint8]:
    """The brightness of a frame, (H, W), full range."""
    # The scaler refuses frames that name a matrix unknown to it.
    matrix = _SCALER_MATRIX.get(color_of(frame).matrix)
    gray = frame.reformat(format="gray", src_colorspace=matrix, dst_colorspace=matrix)
    return cast("NDArray[np.uint8]", gray.to_ndarray())


class ToRgb:
    """Turns the decoded frames of one video into RGB pixels of one size.

    One scaler serves all frames: each new one would cost megabytes that are never returned.
    """

    def __init__(self, *, width: int, height: int) -> None:
        """Prepare for frames that shall come out ``width`` x ``height``."""
        self._scaler = VideoReformatter()
        self._width = width
        self._height = height

    def __call__(self, frame: VideoFrame, color: Color) -> Pixels:
        """Convert one frame.

        Args:
            frame: Any pixel format; alpha is dropped.
            color: How to read it.

        Returns:
            RGB, (3, H, W), full range: uint8 for up to 8 bits, uint16 for more.

        Raises:
            InputError: If the pixel format cannot be converted.
        """
        deep = bits_of(frame.format.name) > 8
        if packed := _PACKED_RGB.fullmatch(frame.format.name):
            frame = _unpacked(frame, packed)
        try:
            planar = self._scaler.reformat(
                frame,
                width=self._width,
                height=self._height,
                format="gbrp16le" if deep else "gbrp",
                src_colorspace=_SCALER_MATRIX.get(color.matrix),
                src_color_range=color.range,
                dst_color_range=FULL_RANGE,
                interpolation=_QUALITY,
                threads=_THREADS,
            )
        except av.FFmpegError as error:
            raise InputError(
                f"The video is stored as {frame.format.name}, which cannot be converted to RGB "
                f"({error.strerror}); convert it to a common format such as yuv420p first."
            ) from error
        green, blue, red = (_samples(plane, deep=deep) for plane in planar.planes)
        pixels: Pixels = np.stack([red, green, blue])
        if _is_gray(frame.format.name):
            return pixels if color.full_range else _expanded(pixels)
        bits = bits_of(frame.format.name)
        is_integer_planes = frame.format.name.startswith("gbr") and bits <= 16
        if deep and (is_integer_planes or not frame.format.is_rgb):
            white = ((1 << bits) - 1) << (16 - bits) if color.full_range else _SCALER_WHITE
            for channel in pixels:
                _rescale(channel, channel, np.iinfo(np.uint16).max / white)
        return pixels


class FromRgb:
    """Turns RGB pixels into frames of the pixel format and color of one output."""

    def __init__(self, color: Color, pixel_format: str, *, width: int, height: int) -> None:
        """Prepare for one output of ``width`` x ``height``.

        ``color`` must be fitted to ``pixel_format``.
        """
        self.color = color
        self._format = pixel_format
        self._size = (width, height)
        self._is_yuv = not av.VideoFormat(pixel_format).is_rgb
        self._graph: Graph | None = None
        self._kind: tuple[int, int, bool] | None = None

    def __call__(self, pixels: Pixels) -> VideoFrame:
        """Convert one picture, (3, H, W), uint8 or uint16, to a frame without a time.

        A picture of another size is resampled by Lanczos' filter, which is widened where it has
        to shrink, so that nothing flickers or forms steps.
        """
        _, height, width = pixels.shape
        deep = pixels.dtype == np.uint16
        planar = VideoFrame(width, height, "gbrp16le" if deep else "gbrp")
        for plane, channel in zip(planar.planes, (1, 2, 0), strict=True):
            samples = _samples(plane, deep=deep)
            if deep and self._is_yuv:
                _rescale(pixels[channel], samples, _SCALER_WHITE / np.iinfo(np.uint16).max)
            else:
                samples[:] = pixels[channel]
        planar.color_range = FULL_RANGE
        if self._graph is None or self._kind != (width, height, deep):
            self._kind = (width, height, deep)
            self._graph = self._new_graph(planar)
        planar.pts = 0
        self._graph.vpush(planar)
        frame = self._graph.vpull()
        frame.pts = None
        frame.colorspace = self.color.matrix
        frame.color_range = self.color.range
        frame.color_primaries = self.color.primaries
        frame.color_trc = self.color.transfer
        return frame

    def _new_graph(self, picture: VideoFrame) -> Graph:
        """A chain of one scaler; unlike `VideoReformatter` it can be told of the chroma siting."""
        width, height = self._size
        is_resized = (picture.width, picture.height) != self._size
        options = {
            "flags": "+".join(("lanczos" if is_resized else "bicubic", *_EXACT_FLAGS)),
            "in_range": "full",
            "out_range": "full" if self.color.full_range else "limited",
        }
        if self._is_yuv:
            options["out_color_matrix"] = _MATRIX_NAME[self.color.matrix]
            options["out_chroma_loc"] = "left"
        graph = Graph()
        graph.threads = _THREADS
        source = graph.add_buffer(
            width=picture.width,
            height=picture.height,
            format=picture.format,
            time_base=Fraction(1),
        )
        scaler = graph.add("scale", w=str(width), h=str(height), **options)
        form = graph.add("format", pix_fmts=self._format)
        graph.link_nodes(source, scaler, form, graph.add("buffersink")).configure()
        return graph


def _is_gray(pixel_format: str) -> bool:
    return pixel_format.startswith(("gray", "ya8", "ya16", "yaf", "mono"))


def _is_always_full(pixel_format: str) -> bool:
    return _is_gray(pixel_format) or pixel_format.startswith("yuvj")


def _unpacked(frame: VideoFrame, packed: re.Match[str]) -> VideoFrame:
    """RGB of a few bits as rgb24.

    The scaler only shifts its bits up, so that white becomes 248, or 240.
    """
    order, kind, ending = packed.groups()
    (plane,) = frame.planes
    buffer = np.frombuffer(cast(Any, plane), np.uint8).reshape(plane.height, plane.line_size)
    words = buffer.view({"le": "<u2", "be": ">u2", None: "u1"}[ending])[:, : plane.width]
    bits = _PACKED_BITS[kind]
    low_to_high = bits[::-1] if order == "rgb" else bits
    components = []
    shift = 0
    for count in low_to_high:
        most = (1 << count) - 1
        component = (words.astype(np.uint32) >> shift & most) * 255 + most // 2
        components.append((component // most).astype(np.uint8))
        shift += count
    if order == "rgb":
        components.reverse()
    return VideoFrame.from_ndarray(np.stack(components, -1), format="rgb24")


def _samples(plane: VideoPlane, *, deep: bool) -> NDArray[Any]:
    """The picture inside a plane, (H, W), without the padding at the end of its rows."""
    buffer = np.frombuffer(cast(Any, plane), np.uint8)  # its stub hides that it is a buffer
    rows: NDArray[Any] = buffer.reshape(plane.height, plane.line_size)
    return (rows.view(np.uint16) if deep else rows)[:, : plane.width]


def _rescale(source: NDArray[Any], target: NDArray[Any], factor: float) -> None:
    """Write deep samples (H, W) times a factor near 1, rounded, without leaving their range."""
    for top in range(0, len(source), _LINES_IN_CACHE):
        scaled = source[top : top + _LINES_IN_CACHE].astype(np.float32)
        scaled *= np.float32(factor)
        scaled += np.float32(0.5)
        np.minimum(scaled, np.float32(65535), out=scaled)
        target[top : top + _LINES_IN_CACHE] = scaled


def _expanded(pixels: Pixels) -> Pixels:
    """Stretch limited range to full range: the scaler does it for YUV, but never for gray."""
    unit = np.iinfo(pixels.dtype).max
    black, white = 16 / 255, 235 / 255
    if pixels.dtype == np.uint16:  # deeper formats are limited to 64/1023, 256/4095, ...
        black, white = 16 / 256, 235 / 256
    stretched: NDArray[Any] = (pixels / unit - black) / (white - black)
    return cast(Pixels, (stretched.clip(0, 1) * unit).round().astype(pixels.dtype))
