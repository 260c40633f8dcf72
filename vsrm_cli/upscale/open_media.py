"""The two ends of a job: which reader and which writer, by the names that the user gave."""

import sys
from collections.abc import Sequence
from pathlib import Path

from vsrm_cli.decode.image_sequence import is_sequence
from vsrm_cli.encode.destination import check_destination
from vsrm_cli.encode.image_sequence import PictureWriter, check_folder
from vsrm_cli.encode.options import Encoding
from vsrm_cli.encode.segments import choose_container
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.y4m import PipeWriter
from vsrm_cli.errors import OutputError
from vsrm_cli.media.geometry import Shape, output_shape
from vsrm_cli.upscale.options import Settings
from vsrm_cli.upscale.source import PIPE, Source

# What is made of segments, and what is not.
Collected = VideoWriter | PictureWriter
Direct = VideoWriter | PipeWriter


def open_source(path: Path, settings: Settings, *, is_watched: bool = True) -> Source:
    """Look at an input: a video, a folder or pattern of pictures, or a pipe; see `Source`.

    Raises:
        InputError: If it cannot be read.
    """
    return Source(
        path,
        start=settings.start,
        end=settings.end,
        deinterlace=settings.deinterlace,
        rate=settings.fps,
        uses_hardware=settings.hwaccel,
        is_watched=is_watched,
    )


def check_output(path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that an output may be written.

    Args:
        path: A file; or a folder or pattern for pictures.
        sources: The files that it is made of.
        overwrite: Whether it may exist.

    Raises:
        OutputError: If it may not; says why and what to do.
    """
    if _is_for_pictures(path):
        check_folder(path, sources, overwrite=overwrite)
    else:
        check_destination(path, sources[0], overwrite=overwrite)


def open_output(
    path: Path,
    source: Source,
    settings: Settings,
    encoding: Encoding,
    *,
    folder: Path,
) -> Collected:
    """Try an output that has been checked; its segments are to be collected in a folder.

    Raises:
        UsageError: If a setting of the encoding can never work.
        OutputError: If it cannot be written as asked.
    """
    if _is_for_pictures(path):
        return PictureWriter(
            path,
            source=source.info,
            names=source.picture_names,
            shape=_shape(source, settings),
        )
    output = _open_video(path, source, settings, encoding, overwrite=True, folder=folder)
    choose_container(output)
    return output


def open_direct_output(
    path: Path, source: Source, settings: Settings, encoding: Encoding, *, overwrite: bool
) -> Direct:
    """Begin an output that is written without segments, from a pipe or into one.

    Raises:
        UsageError: If a setting of the encoding can never work.
        OutputError: If it cannot be written as asked.
    """
    if path == PIPE:
        return PipeWriter(
            sys.stdout.buffer,
            source=source.info,
            shape=_shape(source, settings),
            pixel_format=encoding.pixel_format,
        )
    if _is_for_pictures(path):
        raise OutputError(
            "A pipe cannot be written as image files; write a video, such as out.mkv."
        )
    return _open_video(path, source, settings, encoding, overwrite=overwrite, folder=None)


def _open_video(
    path: Path,
    source: Source,
    settings: Settings,
    encoding: Encoding,
    *,
    overwrite: bool,
    folder: Path | None,
) -> VideoWriter:
    return VideoWriter(
        path,
        source=source.info,
        shape=_shape(source, settings),
        encoding=encoding,
        start=settings.start,
        end=settings.end,
        overwrite=overwrite,
        folder=folder,
    )


def _shape(source: Source, settings: Settings) -> Shape:
    return output_shape(source.info, scale=settings.scale, height=settings.height, box=settings.box)


def _is_for_pictures(path: Path) -> bool:
    return not path.suffix or is_sequence(path)
