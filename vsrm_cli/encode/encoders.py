"""Which codecs work here: those in software are tried, those in graphics hardware are opened."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.codec.hwaccel import hwdevices_available
from av.container import OutputContainer
from av.logging import Capture
from av.video.stream import VideoStream

from vsrm_cli.encode.options import EncodingOptions, plan_encoding
from vsrm_cli.errors import VsrmError

# The ends of encoder names, and whose hardware they need.
MAKERS = {
    "_nvenc": "NVIDIA",
    "_qsv": "Intel",
    "_amf": "AMD",
    "_vaapi": "VAAPI",
    "_videotoolbox": "Apple",
}
# No encoder for hardware that is in use refuses this size.
_WIDTH, _HEIGHT = 512, 512
_FRAMES = 5


@dataclass(frozen=True, slots=True)
class HardwareEncoder:
    """An encoder that FFmpeg was built with.

    Attributes:
        name: FFmpeg's name.
        maker: Whose hardware it needs.
        is_usable: Whether it can be opened here.
    """

    name: str
    maker: str
    is_usable: bool


def measure_coding_error(codec: str) -> float:
    """Encode a few drawn frames, decode them again, and compare.

    Args:
        codec: As in `EncodingOptions`.

    Returns:
        Mean difference of brightness, in levels of 255.

    Raises:
        VsrmError: If the codec cannot encode, or not all frames come back.
    """
    drawn = [_ramp(number) for number in range(_FRAMES)]
    plan = plan_encoding(EncodingOptions(codec=codec), "yuv420p")
    file = io.BytesIO()
    try:
        with av.open(file, "w", format="matroska") as output:
            stream = cast(
                VideoStream,
                output.add_stream(
                    plan.encoder,
                    rate=25,
                    options=plan.options,
                    width=128,
                    height=96,
                    pix_fmt=plan.pixel_format,
                ),
            )
            start_encoding(output)
            for frame in drawn:
                output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="gray")))
            output.mux(stream.encode(None))
        file.seek(0)
        with av.open(file, "r") as source:
            found = [frame.to_ndarray(format="gray") for frame in source.decode(video=0)]
    except av.FFmpegError as error:
        raise VsrmError(f"{plan.encoder} failed: {error.strerror}.") from error
    if len(found) != len(drawn):
        raise VsrmError(f"of {len(drawn)} frames, {len(found)} came back from {plan.encoder}.")
    pairs = zip(drawn, found, strict=True)
    return float(np.mean([np.abs(a.astype(float) - b).mean() for a, b in pairs]))


def _ramp(number: int) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """A soft slope that moves."""
    row, column = np.mgrid[:96, :128]
    slope = 40 + (row + column + 8 * number) * 0.7
    return np.asarray(slope, dtype=np.uint8)


def replace_absent_hardware(encoding: EncodingOptions) -> tuple[EncodingOptions, str | None]:
    """Choose software where a hardware encoder was named that cannot be opened here.

    Args:
        encoding: The options.

    Returns:
        What can be done, and a sentence that says so where it is something else. The preset is
        left out then: its words are those of one encoder.
    """
    name = encoding.codec
    if not name.endswith(tuple(MAKERS)) or not _is_encoder(name) or _can_be_opened(name):
        return encoding, None
    codec = av.Codec(name, "w").canonical_name
    return (
        replace(encoding, codec=codec, preset=None),
        f"no hardware for {name}: encoded as {codec} in software",
    )


def hardware_encoders() -> list[HardwareEncoder]:
    """Open every hardware encoder of the build once: nothing else tells whether it works.

    Returns:
        All of them, in the order of their names.
    """
    return [
        HardwareEncoder(name, maker, _can_be_opened(name))
        for name in sorted(av.codecs_available)
        for ending, maker in MAKERS.items()
        if name.endswith(ending) and _is_encoder(name)
    ]


def hardware_decoders() -> list[str]:
    """FFmpeg's names of the interfaces to hardware decoders that the build knows."""
    return sorted(hwdevices_available())


def _is_encoder(name: str) -> bool:
    try:
        codec = av.Codec(name, "w")
    except av.codec.codec.UnknownCodecError:
        return False
    return codec.type == "video"


@contextmanager
def keep_priority() -> Iterator[None]:
    """Keep the scheduling of this process as it is while an encoder is opened.

    For root, SVT-AV1 gives every thread of the process real-time priority, its own and ours:
    whatever else runs on the machine then waits until the video is finished.
    """
    tasks = Path("/proc/self/task")
    if not tasks.is_dir():
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for task in tasks.iterdir():
            with suppress(OSError):  # a thread that has ended meanwhile
                if os.sched_getscheduler(int(task.name)) != policy:
                    os.sched_setscheduler(int(task.name), policy, parameters)


def start_encoding(container: OutputContainer) -> None:
    """Open the encoders of an output and write its header; the process keeps its priority.

    Raises:
        FFmpegError: If an encoder or the container refuses.
    """
    with keep_priority():
        container.start_encoding()


def _can_be_opened(name: str) -> bool:
    context = cast(av.VideoCodecContext, av.CodecContext.create(name, "w"))
    context.width, context.height = _WIDTH, _HEIGHT
    context.pix_fmt = "nv12" if name.endswith(("_qsv", "_vaapi")) else "yuv420p"
    context.time_base = Fraction(1, 25)
    try:
        with (
            keep_priority(),
            Capture(),
        ):  # what FFmpeg would say on stderr about a driver that is not there
            context.open()
    except (av.FFmpegError, OSError):
        return False
    return True
