"""The frame index: which frames a video has and when each is shown, without decoding."""

from dataclasses import dataclass
from pathlib import Path

import av

from vsrm_cli.errors import InputError
from vsrm_cli.media.containers import open_container, video_stream
from vsrm_cli.media.probe import is_lossy


@dataclass(frozen=True)
class FrameIndex:
    """The times of the frames of a video.

    Attributes:
        ticks: When each is shown, in the stream's units, rising.
        is_lossy: Whether its codec leaves artifacts.
    """

    ticks: tuple[int, ...]
    is_lossy: bool


def read_frame_index(path: Path) -> FrameIndex:
    """Read the times of all frames of a video; all of the file is read once.

    Raises:
        InputError: If it cannot be read, or if its frames have no times.
    """
    ticks: set[int] = set()
    with open_container(path) as container:
        stream = video_stream(container, path)
        try:
            for packet in container.demux(stream):
                if packet.size == 0 or packet.is_discard:
                    continue
                time = packet.pts if packet.pts is not None else packet.dts
                if time is None:
                    raise InputError(f"The frames of {path} have no times; convert it to MP4.")
                ticks.add(time)
        except av.FFmpegError:
            pass  # the part before the error is used
        return FrameIndex(tuple(sorted(ticks)), is_lossy(stream))
