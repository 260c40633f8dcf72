"""The job of `vsrm upscale`: read a video, restore it, write it.

Frames stream through: one thread decodes, this one runs the network, a third encodes. The
file is opened for writing before the network is loaded, so that a wrong codec or a full folder
is told in the first second, and it gets its name only when every frame has arrived.
"""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vsrm_cli.errors import CheckFailed, UsageError
from vsrm_cli.intake.downloads import Transfer
from vsrm_cli.media.encoding import Encoding
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.media.reader import VideoReader
from vsrm_cli.media.writer import VideoWriter
from vsrm_cli.memory import keep_freed_memory
from vsrm_cli.models.network import Network
from vsrm_cli.models.weights import load_model
from vsrm_cli.pipeline import Progress, run_stages
from vsrm_cli.restore import MIN_TILE, Restorer
from vsrm_cli.settings import DEFAULT_MODEL, DEFAULT_WINDOW, Settings, Time

if sys.platform != "win32":
    import resource

# The writer must know the size of the pictures before the network is there to be asked.
SCALE = 4

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

# Tiles restored at the same time on a CPU, where it has so many cores.
MAX_WORKERS = 4

# What may lie in each queue. The network gives and takes a whole window at a time: a queue that
# holds one lets the other stages work on while it computes. For large pictures that would be
# gigabytes, so there the queue is shorter.
QUEUE_BYTES = 256 * 2**20


@dataclass(frozen=True)
class Summary:
    """What the job did; `as_dict` gives what `--json` prints.

    Attributes:
        input: The file read.
        output: The file written.
        frames_in: Frames decoded.
        frames_out: Frames written; always equal to `frames_in`.
        truncated: Whether the input had damage or no end, so that frames are missing.
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        model: Name of the network.
        device: Where it ran.
        dtype: The precision it ran in: fp32, fp16 or bf16.
        window: Frames that it saw together.
        tile: Side of a tile in pixels of the input; None for whole frames.
        elapsed_s: Seconds from call to return.
        fps: Frames per second over that time.
        peak_memory_bytes: On CUDA what the tensors took at most, elsewhere the largest size of
            this process since it began; None where the system does not tell (Windows).
        warnings: What the user should know, in sentences.
    """

    input: str
    output: str
    frames_in: int
    frames_out: int
    truncated: bool
    width: int
    height: int
    model: str
    device: str
    dtype: str
    window: int
    tile: int | None
    elapsed_s: float
    fps: float
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Give the facts, without the warnings, under their names."""
        facts = asdict(self)
        del facts["warnings"]
        return facts


def upscale_video(
    src: str | Path,
    dst: str | Path,
    *,
    model: str | Path = DEFAULT_MODEL,
    window: int = DEFAULT_WINDOW,
    overlap: int | None = None,
    tile: int | str | None = "auto",
    device: str = "auto",
    dtype: str = "auto",
    codec: str = "h264",
    crf: int | None = None,
    preset: str | None = None,
    pix_fmt: str = "auto",
    start: Time = None,
    end: Time = None,
    overwrite: bool = False,
    report: Callable[[Progress], None] | None = None,
    report_transfer: Callable[[Transfer], None] | None = None,
) -> Summary:
    """Make a video four times larger, frame for frame; sound and subtitles are carried over.

    Args:
        src: The video to read.
        dst: The file to write; its ending chooses the container. It appears when it is complete.
        model: A network by its name, a weight file, or a Hub id ``owner/name[@revision]``; what
            is not on this machine is fetched.
        window: Frames that the network sees together.
        overlap: Frames that two neighbouring windows share, half a window at most; None
            chooses.
        tile: Side of a tile in pixels of the input; "off" or None for whole frames; "auto"
            for as large as the free memory allows.
        device: "auto", "cpu", "cuda", "cuda:<n>" or "mps".
        dtype: "auto", "fp32", "fp16" or "bf16".
        codec: "h264", "hevc", "av1", "ffv1", or another encoder that PyAV offers.
        crf: Quality on the codec's own scale; None for a good one.
        preset: Speed of the encoder in its own words; None for a usual one.
        pix_fmt: Pixel format of the output; "auto" is nearest to the input.
        start: Where to begin, in seconds or as text such as "1:30.5"; None for the beginning.
        end: Where to stop, likewise; frames from this time on are left out.
        overwrite: Whether `dst` may exist and be replaced.
        report: Called in this thread after each frame that the network has finished.
        report_transfer: Called as a weight file comes in.

    Returns:
        What was done.

    Raises:
        VsrmError: One of its children, if the video cannot be read, the result cannot be
            written or checked, or an option cannot work. Nothing is left under `dst`'s name.
    """
    began = time.perf_counter()
    settings = Settings.read(
        window=window,
        overlap=overlap,
        tile=tile,
        device=device,
        dtype=dtype,
        start=start,
        end=end,
    )
    if isinstance(settings.tile, int) and settings.tile < MIN_TILE:
        raise UsageError(f"The tile must have {MIN_TILE} pixels or more, not {settings.tile}.")
    encoding = Encoding(codec=codec, crf=crf, preset=preset, pixel_format=pix_fmt)

    with (
        VideoReader(Path(src), start=settings.start, end=settings.end) as reader,
        VideoWriter(
            Path(dst),
            source=reader.info,
            width=SCALE * reader.info.width,
            height=SCALE * reader.info.height,
            encoding=encoding,
            start=settings.start,
            end=settings.end,
            overwrite=overwrite,
        ) as writer,
    ):
        network = load_model(
            model, device=settings.device, dtype=settings.dtype, report=report_transfer
        )
        if network.device.type == "cpu":
            keep_freed_memory()
        restorer = _new_restorer(network, settings)
        _begin_measuring_memory(network.device)
        _stream(reader, restorer, writer, settings=settings, report=report)
        _check_counts(reader, writer)

    elapsed = time.perf_counter() - began
    return Summary(
        input=str(src),
        output=str(dst),
        frames_in=reader.frames_read,
        frames_out=writer.frames_written,
        truncated=reader.truncated,
        width=SCALE * reader.info.width,
        height=SCALE * reader.info.height,
        model=network.name,
        device=str(network.device),
        dtype=DTYPE_NAMES[network.dtype],
        window=settings.window,
        tile=restorer.tile,
        elapsed_s=round(elapsed, 3),
        fps=round(writer.frames_written / elapsed, 3),
        peak_memory_bytes=_peak_memory_bytes(network.device),
        warnings=_warnings(reader, settings),
    )


def _new_restorer(network: Network, settings: Settings) -> Restorer:
    return Restorer(
        network,
        window=settings.window,
        overlap=settings.overlap,
        tile=settings.tile,
        device=network.device,
        dtype=network.dtype,
        workers=min(MAX_WORKERS, torch.get_num_threads()) if network.device.type == "cpu" else 1,
    )


def _stream(
    reader: VideoReader,
    restorer: Restorer,
    writer: VideoWriter,
    *,
    settings: Settings,
    report: Callable[[Progress], None] | None,
) -> None:
    """Take every frame from the reader through the network to the writer."""
    frame_bytes = reader.info.width * reader.info.height * (3 if reader.info.bits <= 8 else 6)
    run_stages(
        reader,
        restorer.restore,
        writer.write,
        read_depth=_queue_depth(settings.window, frame_bytes),
        write_depth=_queue_depth(settings.window, frame_bytes * SCALE**2),
        frames_expected=_expected_frames(reader.info, settings),
        report=report,
    )


def _queue_depth(window: int, frame_bytes: int) -> int:
    return max(1, min(window, QUEUE_BYTES // frame_bytes))


def _expected_frames(info: VideoInfo, settings: Settings) -> int | None:
    """Say about how many frames there will be; None where the file gives no hint."""
    if settings.start is None and settings.end is None:
        return info.expected_frames
    ends = [end for end in (info.duration, settings.end) if end is not None]
    if not ends or info.frame_rate is None:
        return None
    return max(0, round((min(ends) - (settings.start or 0)) * info.frame_rate))


def _check_counts(reader: VideoReader, writer: VideoWriter) -> None:
    """Compare what went in with what came out.

    Raises:
        CheckFailed: If frames were lost or added on the way.
    """
    if writer.frames_written != reader.frames_read:
        raise CheckFailed(
            f"{reader.frames_read} frames were read, but {writer.frames_written} written, "
            f"so the result was not kept; this is a bug in vsrm, please report it."
        )


def _warnings(reader: VideoReader, settings: Settings) -> tuple[str, ...]:
    if not reader.truncated:
        return ()
    expected = _expected_frames(reader.info, settings)
    of_about = "" if expected is None else f" of about {expected}"
    return (
        f"{reader.info.path} is damaged or its end is missing ({reader.damaged_packets} damaged "
        f"packets): {reader.frames_read}{of_about} frames could be read, and all of them are there",
    )


def _begin_measuring_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory_bytes(device: torch.device) -> int | None:
    """Say how much memory the job took at most; see `Summary`."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
