"""Frames as image files: a folder of them, names such as frame_%05d.png, or a single one.

Image files have no times and no sound. 8 bits stay 8 bits, more become 16.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame

from vsrm_cli.decode.image_sequence import NUMBER, find_images, is_image
from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.encode.writer import Segment
from vsrm_cli.errors import InputError, OutputError
from vsrm_cli.files import IMAGE_ENDINGS, flush_folder
from vsrm_cli.frame import FALLBACK_RATE, Frame
from vsrm_cli.media.color import RGB, Color, FromRgb
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.orientation import rotate_upright
from vsrm_cli.media.probe import VideoInfo

_ALL_BUT_PIXELS = "sound, subtitles, times and metadata: image files cannot hold them"
_METADATA = "metadata of the images, such as EXIF"


class ImageSequenceWriter:
    """An image sequence; its files are collected in a folder until all are there.

    Attributes:
        path: A folder, a pattern or one file.
        time_base: Length of a tick in seconds.
        frames_written: Images that have their names.

    For the others see `SegmentedWriter`.
    """

    kept: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    segment_container = "png"

    def __init__(
        self, path: Path, *, source: VideoInfo, names: Sequence[str], shape: OutputShape
    ) -> None:
        """Prepare to write.

        Args:
            path: A folder; or a pattern or one file, ending in .png.
            source: The input.
            names: Of the input's images, if it is an image sequence: files in a folder get the same
                names.
            shape: Of the frames as stored; the images are upright.
        """
        pixel_format = "rgb24" if source.bits <= 8 else "rgb48be"
        self.path = path
        self.plan = EncodingPlan("png", "png", pixel_format, {})
        self.shape = self.shown_shape = shape = shape.upright(source)
        self.dropped = (*source.dropped, _METADATA if names else _ALL_BUT_PIXELS)
        self._matrix = source.display_matrix
        self.time_base = source.time_base
        self.frames_written = 0
        self._rate = source.frame_rate or FALLBACK_RATE
        stems = [Path(name).stem for name in names]
        self._stems = stems if len(set(stems)) == len(stems) else []
        color = Color(RGB, True)
        self._from_rgb = FromRgb(color, pixel_format, width=shape.width, height=shape.height)

    def __enter__(self) -> Self:
        """Return the writer itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """Do nothing: there is nothing to close."""

    def ticks_of(self, time: Fraction) -> int:
        """When a frame is shown, in ticks."""
        return round(time / self.time_base)

    def encode(self, frame: Frame) -> bytes:
        """Encode a frame as a PNG file."""
        return encode_still(self._from_rgb(rotate_upright(frame.pixels, self._matrix)), "png")

    def open_segment(self, path: Path, container: str) -> ImageSegment:
        """Start a segment; see `SegmentedWriter.open_segment`."""
        return ImageSegment(path, self)

    def join(self, segments: Sequence[Segment], end: int) -> None:
        """Give the images their names, from the last to the first; see `SegmentedWriter.join`.

        So the first ones are still in the folder if this is interrupted, and the job can resume.
        """
        folder, count = segments[0].path.parent, sum(len(segment.ticks) for segment in segments)
        try:
            target = self.path.parent if names_files(self.path) else self.path
            target.mkdir(exist_ok=True)
            for number in reversed(range(count)):
                os.replace(folder / f"{number:09}.png", target / self._name(number))
            flush_folder(target)
        except OSError as error:
            raise self.failure(error) from error
        self.frames_written = count

    def failure(self, error: OSError) -> OutputError:
        """The error for a fault of the disk."""
        return OutputError(
            f"{self.path} could not be written ({error.strerror}); "
            "make sure that the disk is not full."
        )

    def _name(self, number: int) -> str:
        if names_files(self.path):  # of a name without a number there is one file
            return NUMBER.sub(lambda m: f"{number + 1:0{m[1] or 1}}", self.path.name, count=1)
        if self._stems:
            return f"{self._stems[number]}.png"
        return f"frame_{number + 1:06}.png"


class ImageSegment:
    """Consecutive images, each in its file and flushed to disk; see `SegmentFile`."""

    def __init__(self, path: Path, output: ImageSequenceWriter) -> None:
        """Start after the images that exist: ``path`` ends in the number of the next one."""
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
        """Do nothing: files that are not in the journal do not count."""


def encode_still(frame: VideoFrame, codec: str, **options: str) -> bytes:
    """Encode a frame as an image file.

    Args:
        frame: In a pixel format of the codec; its time is set to zero.
        codec: FFmpeg's name of the encoder.
        options: Its options.
    """
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, VideoCodecContext)
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, frame.format.name
    encoder.time_base = Fraction(1, 25)
    encoder.options = options
    frame.pts = 0
    return b"".join(bytes(packet) for packet in (*encoder.encode(frame), *encoder.encode(None)))


def names_files(path: Path) -> bool:
    """Whether an output is named by its image files, not by their folder."""
    return path.suffix.lower() in IMAGE_ENDINGS and not path.is_dir()


def check_images(path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that images can be written there.

    Args:
        path: A folder, a pattern or one file.
        sources: The input files.
        overwrite: Whether to replace existing images.

    Raises:
        OutputError: If they cannot.
    """
    is_file = names_files(path)
    if is_file and path.suffix.lower() != ".png":
        raise OutputError(
            f"Image files are written as .png, not as {path.name}; change the ending."
        )
    if (
        is_file
        and not NUMBER.search(path.name)
        and not (len(sources) == 1 and is_image(sources[0]))
    ):
        raise OutputError(
            f"{path} is one image file, and the input has many frames; name the output "
            f"{path.stem}_%05d.png."
        )
    parent = path.absolute().parent
    if not parent.is_dir():
        raise OutputError(f"The folder {parent} does not exist; make it, or choose another one.")
    if not is_file and path.exists() and not path.is_dir():
        raise OutputError(f"{path} is not a folder; name a folder for the image files.")
    try:
        images = find_images(path)
    except InputError:
        return
    if images[0].parent.samefile(sources[0].parent) and set(images) & set(sources):
        raise OutputError(f"{path} holds the input itself; choose another place for the output.")
    if not overwrite:
        raise OutputError(f"{images[0]} exists; choose another folder, or give --overwrite.")
