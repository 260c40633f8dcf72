"""Hardware decoding, where it gives the same frames as software.

Drivers cannot be trusted to say so: the first frames are decoded both ways and compared.
"""

from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.codec.hwaccel import HWAccel, hwdevices_available
from av.logging import Capture
from av.video.frame import VideoFrame

from vsrm_cli.frame import Pixels
from vsrm_cli.media.color import ToRgb, color_of
from vsrm_cli.media.containers import open_container, video_stream

# FFmpeg's hardware interfaces that return decoded frames.
_DEVICES = ("cuda", "videotoolbox", "vaapi", "d3d12va", "d3d11va")
# Enough to include reordered frames.
_FRAMES_COMPARED = 8


def find_decoder(path: Path) -> str | None:
    """Find hardware that decodes a video correctly.

    Args:
        path: The video.

    Returns:
        FFmpeg's name of the interface, such as "cuda"; None where there is none, or where its
        frames differ from those of software.

    Raises:
        InputError: If the video cannot be read at all.
    """
    with open_container(path) as container:
        form, expected = _first_frames(container, path)
    for device in _DEVICES:
        if device in hwdevices_available() and _agrees(path, device, form, expected):
            return device
    return None


def _agrees(path: Path, device: str, form: str, expected: list[Pixels]) -> bool:
    """Whether a decoder opens here, and its first frames are as expected; False on any error."""
    try:
        with Capture(), _open_on(path, device) as container:
            _, found = _first_frames(container, path, form)
    except (av.FFmpegError, OSError, RuntimeError):
        return False
    return len(found) == len(expected) and all(map(np.array_equal, found, expected))


def _open_on(path: Path, device: str) -> av.container.InputContainer:
    """Open a video with this hardware only, without a fallback to software."""
    return av.open(str(path.absolute()), hwaccel=HWAccel(device, allow_software_fallback=False))


def _first_frames(
    container: av.container.InputContainer, path: Path, form: str | None = None
) -> tuple[str, list[Pixels]]:
    """The first frames as RGB, through a pixel format; None for that of the first one."""
    frames: list[VideoFrame] = list(
        islice(container.decode(video_stream(container, path)), _FRAMES_COMPARED)
    )
    if not frames:
        return "", []
    form = form or frames[0].format.name
    to_rgb = ToRgb(width=frames[0].width, height=frames[0].height)
    return form, [to_rgb(frame.reformat(format=form), color_of(frame)) for frame in frames]
