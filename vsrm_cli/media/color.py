"""Color conversion: decoded frames to RGB for the network, and RGB to frames for the encoder.

Video stores luma and two chroma components (YUV). Converting it needs a matrix (BT.601, BT.709,
...) and a range (limited: 16 to 235, full: 0 to 255). If a file has no tags for them, they are
assumed from the frame size, as players do. The output uses the same matrix and range, and is tagged
with them.

No other file handles matrices and ranges.
"""

import os
import re
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.filter import Graph
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from vsrm_cli.errors import InputError
from vsrm_cli.frame import Pixels

# FFmpeg's numbers for matrices (AVColorSpace) and ranges (AVColorRange).
RGB, BT709, UNSPECIFIED, FCC, BT470BG, SMPTE170M, SMPTE240M, BT2020 = 0, 1, 2, 4, 5, 6, 7, 9
LIMITED_RANGE, FULL_RANGE = 1, 2

# Matrices in swscale's numbers. Its 5 stands for every flavor of BT.601.
_SWSCALE_MATRIX = {
    BT709: 1,
    FCC: 4,
    BT470BG: 5,
    SMPTE170M: 5,
    SMPTE240M: 7,
    BT2020: 9,
}

# The same as names, for the scale filter.
_MATRIX_NAME = {
    BT709: "bt709",
    FCC: "fcc",
    BT470BG: "bt601",
    SMPTE170M: "bt601",
    SMPTE240M: "smpte240m",
    BT2020: "bt2020",
}
# Color models that a matrix alone cannot convert to RGB.
_UNSUPPORTED_MODELS = {
    **{8: "YCgCo", 11: "Y'D'zD'x (SMPTE ST 2085)"},
    **dict.fromkeys((10, 13), "YCbCr of constant luminance"),
    **{14: "ICtCp", 15: "IPT-PQ-C2 (Dolby Vision)", 16: "YCgCo-R", 17: "YCgCo-R"},
}
# Between YUV and 16-bit RGB, swscale's white is 255 * 256 for limited range, whatever the depth of
# the YUV. Full range is only shifted up by the missing bits.
_SWSCALE_WHITE = 255 * 256

# Rows converted at a time: whole frames would not stay in the CPU's cache between steps.
_ROWS_PER_STEP = 32

# Codecs that signal the chroma location, or that define a default. Others are read like H.264, with
# chroma at the left pixel of two.
_CODECS_WITH_CHROMA_LOCATION = {
    *("h264", "hevc", "vvc", "mpeg1video", "mpeg2video", "mpeg4", "vc1", "wmv3"),
    *("mjpeg", "dvvideo", "rawvideo"),
}
# Common names.
_NAMES = {
    RGB: "RGB",
    BT709: "BT.709",
    FCC: "FCC",
    BT470BG: "BT.601",
    SMPTE170M: "BT.601",
    SMPTE240M: "SMPTE 240M",
    BT2020: "BT.2020",
}

# RGB packed into one or two bytes, and the bits of its first, second and third component.
_PACKED_RGB = re.compile("(rgb|bgr)(444|555|565|8|4_byte)(le|be)?")
_PACKED_BITS = {
    "444": (4, 4, 4),
    "555": (5, 5, 5),
    "565": (5, 6, 5),
    "8": (3, 3, 2),
    "4_byte": (1, 2, 1),
}

# swscale's own defaults trade up to three code values for speed.
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
    """How to interpret the pixel values of a frame, in FFmpeg's numbers.

    Attributes:
        matrix: AVColorSpace: how YUV comes from RGB; 0 for frames stored as RGB.
        full_range: Whether 8-bit luma runs from 0 to 255 instead of 16 to 235.
        primaries: AVColorPrimaries, copied as found; 2 says unspecified.
        transfer: AVColorTransferCharacteristic, copied as found; 2 says unspecified.
        guessed: Whether the file has no tag of a supported matrix, so that ``matrix`` is assumed.
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
        """Adapt it to a pixel format.

        It changes only between RGB or gray and YUV, and for ``yuvj`` formats, which are always full
        range.
        """
        if av.VideoFormat(pixel_format).is_rgb:
            return replace(self, matrix=RGB, full_range=True)
        matrix = assumed_matrix(width, height) if self.matrix == RGB else self.matrix
        # RGB and gray are full range. In YUV that is rare, and many players ignore its tag.
        is_new_yuv = self.matrix == RGB or _is_gray(source_format)
        full_range = _is_always_full(pixel_format) or (self.full_range and not is_new_yuv)
        return replace(self, matrix=matrix, full_range=full_range)


def assumed_matrix(width: int, height: int) -> int:
    """The matrix of a video that names none: BT.601 for SD, BT.709 for anything larger."""
    return SMPTE170M if height <= 576 and width <= 1024 else BT709


def has_chroma_location(codec: str, pixel_format: str) -> bool:
    """Whether the location of subsampled chroma is known; always true without subsampling.

    Args:
        codec: FFmpeg's name of the codec.
        pixel_format: Of the frames.
    """
    form = av.VideoFormat(pixel_format)
    is_halved = not form.is_rgb and len(form.components) >= 3 and form.chroma_width(64) == 32
    return not is_halved or pixel_format.startswith("yuvj") or codec in _CODECS_WITH_CHROMA_LOCATION


def bit_depth(pixel_format: str) -> int:
    """Bits of the deepest component of a pixel format."""
    return max((c.bits for c in av.VideoFormat(pixel_format).components), default=8)


def has_alpha(pixel_format: str) -> bool:
    """Whether pixels of a format may be transparent."""
    return any(component.is_alpha for component in av.VideoFormat(pixel_format).components)


def color_of(frame: VideoFrame) -> Color:
    """The color tags of a decoded frame, with assumptions for missing ones."""
    tags = (frame.color_primaries, frame.color_trc)
    name = frame.format.name
    if frame.format.is_rgb or frame.format.has_palette:
        return Color(RGB, True, *tags)
    full_range = name.startswith("yuvj") or frame.color_range == FULL_RANGE
    if _is_gray(name) and frame.color_range != LIMITED_RANGE:
        full_range = True
    if frame.colorspace in _SWSCALE_MATRIX:
        return Color(frame.colorspace, full_range, *tags)
    return Color(assumed_matrix(frame.width, frame.height), full_range, *tags, guessed=True)


def color_model(frame: VideoFrame) -> str | None:
    """Name the color model of a frame; None for YCbCr, RGB and gray."""
    return None if frame.format.is_rgb else _UNSUPPORTED_MODELS.get(frame.colorspace)


def luma_of(frame: VideoFrame) -> NDArray[np.uint8]:
    """The luma of a frame, (H, W), full range."""
    # swscale refuses frames with a matrix tag that it does not support.
    matrix = _SWSCALE_MATRIX.get(color_of(frame).matrix)
    gray = frame.reformat(format="gray", src_colorspace=matrix, dst_colorspace=matrix)
    return cast("NDArray[np.uint8]", gray.to_ndarray())


class ToRgb:
    """Converts the decoded frames of one video to RGB pixels of one size.

    All frames share one scaler: each new one would leak megabytes.
    """

    def __init__(self, *, width: int, height: int) -> None:
        """Prepare for output of ``width`` x ``height`` pixels."""
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
        is_deep = bit_depth(frame.format.name) > 8
        if packed := _PACKED_RGB.fullmatch(frame.format.name):
            frame = _unpack_rgb(frame, packed)
        try:
            planar = self._scaler.reformat(
                frame,
                width=self._width,
                height=self._height,
                format="gbrp16le" if is_deep else "gbrp",
                src_colorspace=_SWSCALE_MATRIX.get(color.matrix),
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
        green, blue, red = (_samples(plane, is_deep=is_deep) for plane in planar.planes)
        pixels: Pixels = np.stack([red, green, blue])
        if _is_gray(frame.format.name):
            return pixels if color.full_range else _expand_range(pixels)
        bits = bit_depth(frame.format.name)
        is_integer_planes = frame.format.name.startswith("gbr") and bits <= 16
        if is_deep and (is_integer_planes or not frame.format.is_rgb):
            white = ((1 << bits) - 1) << (16 - bits) if color.full_range else _SWSCALE_WHITE
            for channel in pixels:
                _rescale(channel, channel, np.iinfo(np.uint16).max / white)
        return pixels


class FromRgb:
    """Converts RGB pixels to frames in the pixel format and color of one output."""

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
        """Convert pixels, (3, H, W), uint8 or uint16, to a frame without a time.

        Pixels of another size are resized with a Lanczos filter, antialiased when downscaling.
        """
        _, height, width = pixels.shape
        is_deep = pixels.dtype == np.uint16
        planar = VideoFrame(width, height, "gbrp16le" if is_deep else "gbrp")
        for plane, channel in zip(planar.planes, (1, 2, 0), strict=True):
            samples = _samples(plane, is_deep=is_deep)
            if is_deep and self._is_yuv:
                _rescale(pixels[channel], samples, _SWSCALE_WHITE / np.iinfo(np.uint16).max)
            else:
                samples[:] = pixels[channel]
        planar.color_range = FULL_RANGE
        if self._graph is None or self._kind != (width, height, is_deep):
            self._kind = (width, height, is_deep)
            self._graph = self._new_graph(planar)
        planar.pts = 0
        self._graph.vpush(planar)
        frame = self._graph.vpull()
        frame.pts = None
        set_color_tags(frame, self.color)
        return frame

    def _new_graph(self, frame: VideoFrame) -> Graph:
        """A graph of one scale filter; `VideoReformatter` has no option for chroma location."""
        width, height = self._size
        is_resized = (frame.width, frame.height) != self._size
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
            width=frame.width,
            height=frame.height,
            format=frame.format,
            time_base=Fraction(1),
        )
        scaler = graph.add("scale", w=str(width), h=str(height), **options)
        form = graph.add("format", pix_fmts=self._format)
        graph.link_nodes(source, scaler, form, graph.add("buffersink")).configure()
        return graph


def set_color_tags(target: VideoFrame | VideoCodecContext, color: Color) -> None:
    """Write down how the pixels of a frame or a stream are to be read."""
    target.colorspace = color.matrix
    target.color_range = color.range
    target.color_primaries = color.primaries
    target.color_trc = color.transfer


def _is_gray(pixel_format: str) -> bool:
    return pixel_format.startswith(("gray", "ya8", "ya16", "yaf", "mono"))


def _is_always_full(pixel_format: str) -> bool:
    return _is_gray(pixel_format) or pixel_format.startswith("yuvj")


def _unpack_rgb(frame: VideoFrame, packed: re.Match[str]) -> VideoFrame:
    """Convert packed RGB to rgb24.

    swscale only shifts its bits up, so that white becomes 248, or 240.
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


def _samples(plane: VideoPlane, *, is_deep: bool) -> NDArray[Any]:
    """The samples of a plane, (H, W), without the padding at the end of its rows."""
    buffer = np.frombuffer(cast(Any, plane), np.uint8)  # its stub hides that it is a buffer
    rows: NDArray[Any] = buffer.reshape(plane.height, plane.line_size)
    return (rows.view(np.uint16) if is_deep else rows)[:, : plane.width]


def _rescale(source: NDArray[Any], target: NDArray[Any], factor: float) -> None:
    """Write 16-bit samples (H, W) times a factor near 1, rounded and clipped."""
    for top in range(0, len(source), _ROWS_PER_STEP):
        scaled = source[top : top + _ROWS_PER_STEP].astype(np.float32)
        scaled *= np.float32(factor)
        scaled += np.float32(0.5)
        np.minimum(scaled, np.float32(65535), out=scaled)
        target[top : top + _ROWS_PER_STEP] = scaled


def _expand_range(pixels: Pixels) -> Pixels:
    """Expand limited to full range: swscale does it for YUV, but never for gray."""
    unit = np.iinfo(pixels.dtype).max
    black, white = 16 / 255, 235 / 255
    if pixels.dtype == np.uint16:  # deeper formats are limited to 64/1023, 256/4095, ...
        black, white = 16 / 256, 235 / 256
    stretched: NDArray[Any] = (pixels / unit - black) / (white - black)
    return cast(Pixels, (stretched.clip(0, 1) * unit).round().astype(pixels.dtype))
