"""Which reader and which writer a job uses, by the names of the files."""

import sys
from collections.abc import Sequence
from pathlib import Path

from vsrm_cli.encode.image_sequence import ImageSequenceWriter, check_images, names_files
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.segments import SegmentedVideo
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.encode.writer import DirectWriter, SegmentedWriter
from vsrm_cli.encode.y4m import Y4mWriter
from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path
from vsrm_cli.media.geometry import OutputShape, output_shape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.stream_mapping import check_container_name
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.resumable_reader import PIPE, ResumableReader


def open_input(path: Path, options: UpscaleOptions) -> ResumableReader:
    """Open an input: a video, a folder or pattern of images, or a pipe; see `ResumableReader`.

    Raises:
        InputError: If it cannot be read.
    """
    return ResumableReader(
        path,
        start=options.start,
        end=options.end,
        deinterlace=options.deinterlace,
        rate=options.fps,
        uses_hardware=options.hwaccel,
    )


def check_output(path: Path, sources: Sequence[Path], *, overwrite: bool) -> None:
    """Make sure that an output can be written.

    Args:
        path: A file; or a folder or pattern for images.
        sources: The input files.
        overwrite: Whether to replace an existing output.

    Raises:
        OutputError: If it cannot; the message says why and what to do.
    """
    if _is_for_images(path):
        check_images(path, sources, overwrite=overwrite)
    else:
        check_container_name(path)
        check_output_path(path, inputs=sources, overwrite=overwrite)


def open_output(
    path: Path,
    source: ResumableReader,
    options: UpscaleOptions,
    *,
    folder: Path,
) -> SegmentedWriter:
    """Try an output that has been checked; its segments go into a folder.

    Raises:
        UsageError: If a setting of the encoding can never work.
        OutputError: If it cannot be written.
    """
    if _is_for_images(path):
        return ImageSequenceWriter(
            path,
            source=source.info,
            names=source.image_names,
            shape=shape_of_output(source.info, options),
        )
    return SegmentedVideo(_video_target(path, source, options, overwrite=True, folder=folder))


def open_direct_output(
    path: Path, source: ResumableReader, options: UpscaleOptions
) -> DirectWriter:
    """Open an output that is written without segments, from a pipe or to one.

    Raises:
        UsageError: If a setting of the encoding can never work.
        OutputError: If it cannot be written.
    """
    if path == PIPE:
        return Y4mWriter(
            sys.stdout.buffer,
            source=source.info,
            shape=shape_of_output(source.info, options),
            pixel_format=options.pix_fmt,
        )
    if _is_for_images(path):
        raise OutputError(
            "A pipe cannot be written as image files; write a video, such as out.mkv."
        )
    return VideoWriter(_video_target(path, source, options, overwrite=options.overwrite))


def encoding_of(options: UpscaleOptions) -> EncodingOptions:
    """The encoder settings of the options."""
    return EncodingOptions(options.codec, options.crf, options.preset, options.pix_fmt)


def _video_target(
    path: Path,
    source: ResumableReader,
    options: UpscaleOptions,
    *,
    overwrite: bool,
    folder: Path | None = None,
) -> VideoTarget:
    return VideoTarget(
        path,
        source=source.info,
        shape=shape_of_output(source.info, options),
        encoding=encoding_of(options),
        start=options.start,
        end=options.end,
        overwrite=overwrite,
        folder=folder,
        audio=options.audio,
    )


def shape_of_output(info: VideoInfo, options: UpscaleOptions) -> OutputShape:
    """The shape of the output."""
    return output_shape(info, scale=options.scale, height=options.height, box=options.size)


def _is_for_images(path: Path) -> bool:
    return not path.suffix or path.is_dir() or names_files(path)
