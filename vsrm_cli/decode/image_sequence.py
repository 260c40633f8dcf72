"""Image files as frames: a folder of them, names such as frame_%05d.png, or a single one.

Images hold no times, so they are read at a rate that the user gives, and no sound. 8 bits stay 8
bits, and deeper ones become 16. Images may differ in format: optimizers store a black frame as a
gray one. They are all looked at before any work begins, and turned upright.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.errors import InputError
from vsrm_cli.files import IMAGE_ENDINGS, files_in
from vsrm_cli.frame import Faults, Frame, Pixels, to_16_bits
from vsrm_cli.media.color import RGB, Color, ToRgb, bit_depth, color_of, has_alpha
from vsrm_cli.media.containers import is_animated_webp, open_container, video_stream
from vsrm_cli.media.orientation import exif_matrix, is_quarter_turn, rotate_upright
from vsrm_cli.media.probe import NO_ALPHA, VideoInfo, probe

NUMBER = re.compile(r"%0?(\d*)d")
_DIGITS = re.compile(r"(\d+)")
# In the first bytes of a PNG file that is a video (APNG).
_ANIMATION, _HEAD_BYTES = b"acTL", 4096


def is_pattern(path: Path) -> bool:
    """Whether a name is a pattern for numbered files, such as frame_%05d.png."""
    is_image_name = path.suffix.lower() in IMAGE_ENDINGS
    return is_image_name and NUMBER.search(path.name) is not None and not path.is_file()


def is_image(path: Path) -> bool:
    """Whether a file is a single image, by its name; an animated PNG is a video."""
    if path.suffix.lower() not in IMAGE_ENDINGS or not path.is_file():
        return False
    with path.open("rb") as file:
        return _ANIMATION not in file.read(_HEAD_BYTES)


def is_sequence(path: Path) -> bool:
    """Whether a name means image files: a folder, numbered files, or a single one."""
    return path.is_dir() or is_pattern(path) or is_image(path)


def find_images(path: Path) -> list[Path]:
    """Find the images of a sequence, sorted by the numbers in their names.

    Args:
        path: A folder, a pattern for the names of files, or one file.

    Raises:
        InputError: If there are none.
    """
    if path.is_file():
        return [path]
    if is_pattern(path):
        head, tail = (re.escape(part) for part in _split(path.name))
        name = re.compile(rf"{head}\d+{tail}")
        files = [file for file in path.parent.glob("*") if name.fullmatch(file.name)]
    else:
        files = [file for file in files_in(path) if file.suffix.lower() in IMAGE_ENDINGS]
    if not files:
        kinds = ", ".join(sorted(IMAGE_ENDINGS))
        raise InputError(
            f"There are no image files {path}; name a folder of files such as {kinds}."
        )
    return sorted(files, key=by_number)


def by_number(file: Path) -> list[tuple[int, str]]:
    """Sort key of images: their names, with numbers by value; 2 comes before 10."""
    parts = _DIGITS.split(file.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts]


def read_image(file: Path) -> Pixels:
    """Read an image as RGB, (3, H, W), upright, full range: uint8 up to 8 bits, else uint16.

    Raises:
        InputError: If it cannot be read.
    """
    av_frame = _decode(file)
    pixels = ToRgb(width=av_frame.width, height=av_frame.height)(av_frame, color_of(av_frame))
    return rotate_upright(pixels, exif_matrix(file))


class ImageSequenceReader:
    """The frames of an image sequence, upright; see `FrameReader`. A broken image is an error."""

    decoder = "software"
    faults = Faults()
    truncated = False
    notices: tuple[str, ...] = ()

    def __init__(
        self, path: Path, *, start: Fraction | None, end: Fraction | None, rate: Fraction
    ) -> None:
        """Probe all images.

        Args:
            path: A folder, a pattern or one file.
            start: Leave out frames shown earlier than this, in seconds.
            end: Leave out frames shown at this time or later, in seconds.
            rate: Frames per second.

        Raises:
            InputError: If there are no images, one cannot be read, or they differ in size.
        """
        self._path = path
        self._files = find_images(path)
        self._start = start or Fraction(0)
        self._end = end
        self.frames_read = 0
        count = len(self._files)
        first = probe(self._files[0]).upright()
        self.info: VideoInfo = replace(
            _common_info(first, [file for _, file in self._files_in_range(1 / rate)]),
            frame_rate=rate,
            time_base=1 / rate,
            start=Fraction(0),
            duration=count / rate,
            expected_frames=count,
        )

    @property
    def image_names(self) -> list[str]:
        """Names of the files."""
        return [file.name for _, file in self._files_in_range(self.info.time_base)]

    def close(self) -> None:
        """Do nothing: each image is closed after reading."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the images in order.

        Raises:
            InputError: If one cannot be read, or none is in the range.
        """
        cuts = SceneCutFinder()
        for time, file in self._files_in_range(self.info.time_base):
            pixels = read_image(file)
            if self.info.bits > 8:
                pixels = to_16_bits(pixels)
            self.frames_read += 1
            yield Frame(pixels, time, self.info.time_base, cuts.begins_shot(pixels))
        if self.frames_read == 0:
            raise InputError(
                f"None of the {len(self._files)} image files {self._path} is between --start and "
                "--end; choose another --start or --end."
            )

    def _files_in_range(self, step: Fraction) -> Iterator[tuple[Fraction, Path]]:
        """The images in the range, each with its time."""
        for number, file in enumerate(self._files):
            time = number * step
            if time >= self._start and (self._end is None or time < self._end):
                yield time, file


def _common_info(first: VideoInfo, files: Sequence[Path]) -> VideoInfo:
    """Describe images by the first one, in a format that can hold all of them.

    Raises:
        InputError: If one cannot be read, or has another size.
    """
    formats = dict.fromkeys([first.pixel_format])
    for file in files:
        width, height, pixel_format = _probe(file)
        if (width, height) != (first.width, first.height):
            raise InputError(
                f"{file} is {width}x{height}, but {first.path.name} is {first.width}x"
                f"{first.height}; give all images one size."
            )
        formats[pixel_format] = None
    if len(formats) == 1:
        return first
    is_deep = any(bit_depth(name) > 8 for name in formats)
    lost = dict.fromkeys(first.dropped)
    if any(has_alpha(name) for name in formats):
        lost[NO_ALPHA] = None
    return replace(
        first,
        pixel_format="rgb48le" if is_deep else "rgb24",
        bits=16 if is_deep else 8,
        color=Color(RGB, True),
        has_chroma_location=True,
        dropped=tuple(lost),
    )


def _probe(file: Path) -> tuple[int, int, str]:
    """Width and height of an image, upright, and its pixel format, from its header.

    Raises:
        InputError: If it cannot be read.
    """
    try:
        with open_container(file) as container:
            context = video_stream(container, file).codec_context
            width, height, pixel_format = context.width, context.height, context.pix_fmt
    except InputError:
        raise _unreadable(file) from None
    if pixel_format is None or not width:
        raise _unreadable(file)
    if is_quarter_turn(exif_matrix(file)):
        width, height = height, width
    return width, height, pixel_format


def _unreadable(file: Path) -> InputError:
    if file.is_file() and is_animated_webp(file):
        return InputError(
            f"{file} is an animated WebP, which cannot be decoded here; save its frames as files "
            "with another program first."
        )
    return InputError(f"{file} cannot be read as an image; copy or make it again.")


def _decode(file: Path) -> av.VideoFrame:
    try:
        with open_container(file) as container:
            return next(container.decode(video_stream(container, file)))
    except (av.FFmpegError, StopIteration) as error:
        raise _unreadable(file) from error


def _split(name: str) -> tuple[str, str]:
    match = NUMBER.search(name)
    assert match is not None
    return name[: match.start()], name[match.end() :]
