"""Films as picture files, one for each frame: a folder of them, or names such as frame_%05d.png.

Pictures hold no times, so they are read at a rate that the user tells, and no sound. 8 bits stay 8
bits, and deeper ones become 16. Pictures may differ in format: optimizers store a black frame as a
gray one. They are all looked at before any work begins, and turned upright, as written ones are.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
from av.video.codeccontext import VideoCodecContext

from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.frame import Frame, Pixels
from vsrm_cli.media.color import RGB, Color, FromRgb, ToRgb, bits_of, color_of, has_alpha
from vsrm_cli.media.cuts import CutFinder
from vsrm_cli.media.encoding import EncodingPlan
from vsrm_cli.media.geometry import Shape
from vsrm_cli.media.orientation import exif_matrix, is_quarter_turn, upright
from vsrm_cli.media.probe import NO_ALPHA, VideoInfo, open_container, probe, video_stream

PICTURES = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp"}

_ALL_BUT_PIXELS = "times, sound and all else but the pictures: picture files cannot hold them"
_NUMBER = re.compile(r"%0?(\d*)d")
_DIGITS = re.compile(r"(\d+)")


def is_pattern(path: Path) -> bool:
    """Whether a name stands for numbered files, such as frame_%05d.png."""
    is_picture = path.suffix.lower() in PICTURES
    return is_picture and _NUMBER.search(path.name) is not None and not path.is_file()


def is_sequence(path: Path) -> bool:
    """Whether a name stands for a film of pictures: a folder, or numbered files."""
    return path.is_dir() or is_pattern(path)


def find_pictures(path: Path) -> list[Path]:
    """Find the pictures of a film, in the order of the numbers in their names.

    Args:
        path: A folder, or a pattern for the names of files.

    Raises:
        InputError: If there are none.
    """
    if is_pattern(path):
        head, tail = (re.escape(part) for part in _split(path.name))
        name = re.compile(rf"{head}\d+{tail}")
        files = [file for file in path.parent.glob("*") if name.fullmatch(file.name)]
    else:
        files = [file for file in path.glob("*") if file.suffix.lower() in PICTURES]
    if not files:
        kinds = ", ".join(sorted(PICTURES))
        raise InputError(f"There are no pictures {path}; name a folder of files such as {kinds}.")
    return sorted(files, key=by_number)


def by_number(file: Path) -> list[tuple[int, str]]:
    """What to sort pictures by: their names, but numbers by value; 2 comes before 10."""
    parts = _DIGITS.split(file.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def read_picture(file: Path) -> Pixels:
    """Read a picture as RGB, (3, H, W), upright, full range: uint8 up to 8 bits, else uint16.

    Raises:
        InputError: If it cannot be read.
    """
    picture = _decode(file)
    pixels = ToRgb(width=picture.width, height=picture.height)(picture, color_of(picture))
    return upright(pixels, exif_matrix(file))


class PictureReader:
    """The frames of a film of pictures; like a `VideoReader`, but that nothing is uncertain.

    Attributes:
        info: What the pictures say, upright, and the rate at which they are read.
        frames_read: Frames handed out so far.
        damaged_packets: Always 0: a broken picture is an error.
        resized_frames: Always 0, likewise.
        reshaped_frames: Always 0, likewise.
        truncated: Always False.
        notices: None.
    """

    damaged_packets = 0
    resized_frames = 0
    reshaped_frames = 0
    truncated = False
    notices: tuple[str, ...] = ()

    def __init__(
        self, path: Path, *, start: Fraction | None, end: Fraction | None, rate: Fraction
    ) -> None:
        """Look at all pictures.

        Args:
            path: A folder or a pattern.
            start: Leave out frames shown earlier than this, in seconds.
            end: Leave out frames shown at this time or later, in seconds.
            rate: Frames per second.

        Raises:
            InputError: If there are no pictures, one cannot be read, or they differ in size.
        """
        self._path = path
        self._files = find_pictures(path)
        self._start = start or Fraction(0)
        self._end = end
        self.frames_read = 0
        count = len(self._files)
        first = probe(self._files[0]).upright()
        self.info: VideoInfo = replace(
            _as_one(first, [file for _, file in self._asked_files(1 / rate)]),
            frame_rate=rate,
            time_base=1 / rate,
            start=Fraction(0),
            duration=count / rate,
            expected_frames=count,
        )

    @property
    def names(self) -> list[str]:
        """Names of the files that are read."""
        return [file.name for _, file in self._asked_files(self.info.time_base)]

    def close(self) -> None:
        """Do nothing: each picture is closed when it has been read."""

    def __iter__(self) -> Iterator[Frame]:
        """Yield the pictures in order.

        Raises:
            InputError: If one cannot be read, or if none lies in the asked range.
        """
        cuts = CutFinder()
        for time, file in self._asked_files(self.info.time_base):
            pixels = read_picture(file)
            if self.info.bits > 8 and pixels.dtype == np.uint8:
                pixels = pixels.astype(np.uint16) * 257
            self.frames_read += 1
            yield Frame(pixels, time, self.info.time_base, cuts.begins_shot(pixels))
        if self.frames_read == 0:
            raise InputError(
                f"None of the {len(self._files)} pictures {self._path} lies in the part that was "
                "asked for; choose another --start or --end."
            )

    def _asked_files(self, step: Fraction) -> Iterator[tuple[Fraction, Path]]:
        """The pictures in the asked range, each with the time at which it is shown."""
        for number, file in enumerate(self._files):
            time = number * step
            if time >= self._start and (self._end is None or time < self._end):
                yield time, file


class PictureWriter:
    """A film of pictures to be written; its files are collected in a folder until all are there.

    Attributes:
        path: A folder or a pattern.
        plan: How pictures are encoded.
        shape: Of the pictures.
        time_base: Length of a tick in seconds.
        frames_written: Pictures that have their names.
        kept: Nothing.
        dropped: What pictures cannot hold.
        warnings: None.
    """

    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    def __init__(
        self, path: Path, *, source: VideoInfo, names: Sequence[str], shape: Shape
    ) -> None:
        """Prepare to write.

        Args:
            path: A folder or a pattern, ending in .png.
            source: The film that they are made of.
            names: Of the pictures that they are made of, if they are: what is written into a
                folder is named alike.
            shape: Of the film's frames as they are stored; the pictures are upright.
        """
        pixel_format = "rgb24" if source.bits <= 8 else "rgb48be"
        self.path = path
        self.plan = EncodingPlan("png", "png", pixel_format, {})
        shape = shape.upright(source)
        self.shape = shape
        self.dropped = (*source.left_behind, _ALL_BUT_PIXELS)
        self._matrix = source.display_matrix
        self.time_base = source.time_base
        self.frames_written = 0
        self._rate = source.frame_rate or Fraction(25)
        stems = [Path(name).stem for name in names]
        self._stems = stems if len(set(stems)) == len(stems) else []
        color = Color(RGB, True)
        self._from_rgb = FromRgb(color, pixel_format, width=shape.width, height=shape.height)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Do nothing: there is nothing to close."""

    def ticks_of(self, time: Fraction) -> int:
        """When a frame is shown, in ticks."""
        return round(time / self.time_base)

    def encode(self, frame: Frame) -> bytes:
        """Make a PNG file of a frame."""
        picture = self._from_rgb(upright(frame.pixels, self._matrix))
        codec = av.CodecContext.create("png", "w")
        assert isinstance(codec, VideoCodecContext)
        codec.width, codec.height = picture.width, picture.height
        codec.pix_fmt = self.plan.pixel_format
        codec.time_base = Fraction(1, 25)
        picture.pts = 0
        return b"".join(bytes(packet) for packet in (*codec.encode(picture), *codec.encode(None)))

    def collect(self, folder: Path, count: int) -> None:
        """Give the pictures in a folder their names, from the last to the first.

        So the first ones are there to go on from if that is interrupted.

        Raises:
            OutputError: If that fails.
        """
        try:
            target = self.path.parent if is_pattern(self.path) else self.path
            target.mkdir(exist_ok=True)
            for number in reversed(range(count)):
                os.replace(folder / f"{number:09}.png", target / self._name(number))
        except OSError as error:
            raise self.failure(error) from error
        self.frames_written = count

    def failure(self, error: OSError) -> OutputError:
        """Tell a fault of the disk to the user."""
        return OutputError(
            f"{self.path} could not be written ({error.strerror}); "
            "make sure that the disk is not full."
        )

    def _name(self, number: int) -> str:
        if is_pattern(self.path):
            return _NUMBER.sub(lambda m: f"{number + 1:0{m[1] or 1}}", self.path.name, count=1)
        if self._stems:
            return f"{self._stems[number]}.png"
        return f"frame_{number + 1:06}.png"


class PictureSegment:
    """Some pictures in a row, each in its file, safely on the disk; like a `SegmentWriter`.

    Attributes:
        path: The file written last.
        ticks: When the pictures are shown.
        end: Until when the last of them is.
    """

    def __init__(self, path: Path, output: PictureWriter) -> None:
        """Begin behind the pictures that are there: ``path`` ends in the number of the next."""
        self.path = path
        self.ticks: list[int] = []
        self.end = 0
        self._folder = path.parent
        self._first = int(path.name)
        self._output = output

    def write(self, frame: Frame) -> None:
        """Write a frame into a file of its own.

        Raises:
            OutputError: If the disk is full.
        """
        self.path = self._folder / f"{self._first + len(self.ticks):09}.png"
        content = self._output.encode(frame)
        try:
            with self.path.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise self._output.failure(error) from error
        self.ticks.append(self._output.ticks_of(frame.time))
        self.end = self.ticks[-1] + 1

    def close(self) -> None:
        """Do nothing: all files are closed."""

    def abandon(self) -> None:
        """Do nothing: files of which the journal does not know do not count."""


def check_folder(path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that pictures may be written there.

    Args:
        path: A folder or a pattern.
        sources: The files that they are made of.
        overwrite: Whether pictures may lie there already.

    Raises:
        OutputError: If they may not.
    """
    if is_pattern(path) and path.suffix.lower() != ".png":
        raise OutputError(f"Pictures are written as .png; name them so, not {path.name}.")
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"The folder {parent} does not exist; make it, or choose another one.")
    if not is_pattern(path) and path.exists() and not path.is_dir():
        raise OutputError(f"{path} is no folder; name one for the pictures.")
    try:
        pictures = find_pictures(path)
    except InputError:
        return
    if pictures[0].parent.samefile(sources[0].parent) and set(pictures) & set(sources):
        raise OutputError(f"{path} holds the input itself; choose another place for the output.")
    if not overwrite:
        raise OutputError(
            f"{pictures[0]} exists; choose another place for the pictures, or give --overwrite."
        )


def _as_one(first: VideoInfo, files: Sequence[Path]) -> VideoInfo:
    """Describe pictures by the first one, in a format that can hold all of them.

    Raises:
        InputError: If one cannot be read, or has another size.
    """
    formats = dict.fromkeys([first.pixel_format])
    for file in files:
        width, height, pixel_format = _look_at(file)
        if (width, height) != (first.width, first.height):
            raise InputError(
                f"{file} is {width}x{height}, but {first.path.name} is {first.width}x"
                f"{first.height}; give all pictures one size."
            )
        formats[pixel_format] = None
    if len(formats) == 1:
        return first
    is_deep = any(bits_of(name) > 8 for name in formats)
    lost = dict.fromkeys(first.left_behind)
    if any(has_alpha(name) for name in formats):
        lost[NO_ALPHA] = None
    return replace(
        first,
        pixel_format="rgb48le" if is_deep else "rgb24",
        bits=16 if is_deep else 8,
        color=Color(RGB, True),
        is_siting_told=True,
        is_lossy=first.is_lossy,
        left_behind=tuple(lost),
    )


def _look_at(file: Path) -> tuple[int, int, str]:
    """Width and height of a picture, upright, and its pixel format, from its header.

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
    return InputError(f"{file} cannot be read as a picture; copy or make it again.")


def _decode(file: Path) -> av.VideoFrame:
    try:
        with open_container(file) as container:
            return next(container.decode(video_stream(container, file)))
    except (av.FFmpegError, StopIteration) as error:
        raise _unreadable(file) from error


def _split(name: str) -> tuple[str, str]:
    match = _NUMBER.search(name)
    assert match is not None
    return name[: match.start()], name[match.end() :]
