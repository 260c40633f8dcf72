"""Frames from a pipe, as YUV4MPEG2 (y4m), which other programs write.

A header gives size, rate and pixel format, and the frames follow, uncompressed. There is no sound,
no time except for the rate, and no seeking, so such a job cannot be resumed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO, cast

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from vsrm_cli.decode.scene_cuts import SceneCutFinder
from vsrm_cli.errors import InputError
from vsrm_cli.frame import Faults, Frame
from vsrm_cli.media.color import ToRgb, color_of
from vsrm_cli.media.probe import VideoInfo, probe

_LONGEST_HEADER = 4096


class Y4mReader:
    """The frames of a video from a pipe; see `FrameReader`."""

    image_names = ()
    decoder = "software"
    faults = Faults()
    truncated = False  # the length of a pipe is unknown

    def __init__(self, file: BinaryIO, *, start: Fraction | None, end: Fraction | None) -> None:
        """Read the first frame.

        Args:
            file: The pipe.
            start: Leave out frames shown earlier than this, in seconds.
            end: Leave out frames shown at this time or later, in seconds.

        Raises:
            InputError: If the data is not YUV4MPEG2.
        """
        header = file.readline(_LONGEST_HEADER)
        if not header.startswith(b"YUV4MPEG2 "):
            raise InputError("Standard input is not y4m; with ffmpeg, use -f yuv4mpegpipe.")
        self.frames_read = 0
        self.notices: list[str] = []
        if any(word[:1] == b"I" and word[1:2] not in b"p?" for word in header.split()[1:]):
            self.notices.append(
                "the video in the pipe is marked as interlaced; it is not deinterlaced"
            )
        self._start = start or Fraction(0)
        self._end = end
        try:
            self._container = av.open(cast(Any, _Rejoined(header, file)), format="yuv4mpegpipe")
            self._frames = self._container.decode(video=0)
            first = next(self._frames)
        except (av.FFmpegError, StopIteration) as error:
            raise InputError(
                "No frame came through the pipe; check the program that writes to it."
            ) from error
        self._frames = chain([first], self._frames)
        # The beginning goes into a file, for code that probes a path.
        self._folder = tempfile.TemporaryDirectory(prefix="vsrm-")
        beginning = Path(self._folder.name) / "stdin.y4m"
        beginning.write_bytes(header + b"FRAME\n" + pack_planes(first))
        self.info: VideoInfo = replace(probe(beginning), duration=None, expected_frames=None)

    def close(self) -> None:
        """Close the pipe."""
        self._container.close()
        self._folder.cleanup()

    def __iter__(self) -> Iterator[Frame]:
        """Yield the frames in order.

        Raises:
            InputError: If none is in the range.
        """
        to_rgb = ToRgb(width=self.info.width, height=self.info.height)
        cuts = SceneCutFinder()
        step = self.info.time_base
        for number, av_frame in enumerate(self._frames):
            time = number * step
            if time < self._start:
                continue
            if self._end is not None and time >= self._end:
                break
            color = color_of(av_frame)
            pixels = to_rgb(av_frame, self.info.color if color.guessed else color)
            self.frames_read += 1
            yield Frame(pixels, time, step, cuts.begins_shot(pixels))
        if self.frames_read == 0:
            raise InputError(
                "No frame in the pipe is between --start and --end; choose another --start "
                "or --end."
            )


class _Rejoined:
    """A file whose first line is put back."""

    def __init__(self, line: bytes, file: BinaryIO) -> None:
        self._line = line
        self._file = file

    def read(self, size: int) -> bytes:
        data, self._line = self._line[:size], self._line[size:]
        return data or self._file.read(size)


def pack_planes(frame: VideoFrame) -> bytes:
    """The planes of a frame, without row padding."""
    width = 2 if any(part.bits > 8 for part in frame.format.components) else 1
    parts = []
    for plane in frame.planes:
        rows: NDArray[np.uint8] = np.frombuffer(cast(Any, plane), np.uint8)
        parts.append(
            rows.reshape(plane.height, plane.line_size)[:, : plane.width * width].tobytes()
        )
    return b"".join(parts)
