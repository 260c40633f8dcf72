"""The job of `vsrm upscale`: read a video, restore it, write it.

Frames stream through: one thread decodes, this one runs the network, a third encodes. The
file is tried before the network is loaded, so that a wrong codec or a full folder is told in
the first second. The work goes into segments, and whatever ends it, the same call goes on behind
the last one that was finished. At the end they are joined, and the file gets its name when every
frame has been found in it at its time.
"""

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vsrm_cli import __version__
from vsrm_cli.checkpoints import Recorder, Restored, Segmenter, Source
from vsrm_cli.errors import CheckFailed, Declined, Interrupted, UsageError
from vsrm_cli.forecast import Plan, check_room, expected_frames
from vsrm_cli.frame import Frame
from vsrm_cli.journal import Choices, Entry, Journal, describe_file
from vsrm_cli.media.destination import check_destination
from vsrm_cli.media.encoding import Encoding
from vsrm_cli.media.geometry import output_shape
from vsrm_cli.media.segments import Segment, join
from vsrm_cli.media.writer import VideoWriter
from vsrm_cli.memory import keep_freed_memory
from vsrm_cli.models.vsrm import VSRM
from vsrm_cli.models.weights import load_model, weights_checksum
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
        frames_resumed: Of these, how many an earlier call had finished.
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
        kept: The streams beside the picture that went along, in words.
        dropped: What of the input the output cannot hold, and why.
        assumed: What the input leaves open of its colors, and how they were read.
        peak_memory_bytes: On CUDA what the tensors took at most, elsewhere the largest size of
            this process since it began; None where the system does not tell (Windows).
        warnings: What the user should know, in sentences.
    """

    input: str
    output: str
    frames_in: int
    frames_out: int
    frames_resumed: int
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
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    assumed: tuple[str, ...]
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
    scale: Fraction | float | str | None = None,
    height: int | None = None,
    size: str | None = None,
    deinterlace: str = "auto",
    overwrite: bool = False,
    segment_frames: int | None = None,
    restart: bool = False,
    confirm: Callable[[Plan], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
) -> Summary:
    """Make a video four times larger, frame for frame; all other streams are carried over.

    If an earlier call with the same arguments was interrupted, this one goes on where it stopped.

    Args:
        src: The video to read.
        dst: The file to write; its ending chooses the container. It appears when it is complete.
        model: A network by its name, or a weight file.
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
        scale: How many times larger to make the picture, from 1 to 16; None for 4.
        height: Instead: how many lines it shall have on the screen.
        size: Instead: the box on the screen that it shall just fit into, such as "1920x1080".
        deinterlace: "auto" makes whole frames of interlaced ones, "off" does not.
        overwrite: Whether `dst` may exist and be replaced.
        segment_frames: Frames, at least, between the points at which the work can go on after an
            interruption; None for about half a minute of work.
        restart: Throw away what an earlier call has left unfinished.
        confirm: Shown what would be done, before it is; a no ends the job there.
        report: Called in this thread after each frame that the network has finished.
        should_stop: Asked at each such point; a yes ends the work there.
        warn: Called, before the work begins, with each thing that is uncertain of the input, and
            each that the output cannot hold.

    Returns:
        What was done.

    Raises:
        Interrupted: If `should_stop` said yes.
        Declined: If `confirm` said no.
        VsrmError: Another of its children, if the video cannot be read, the result cannot be
            written or checked, or an option cannot work. Nothing is left under `dst`'s name.
    """
    began = time.perf_counter()
    src, dst = Path(src), Path(dst)
    settings = Settings.read(
        window=window,
        overlap=overlap,
        tile=tile,
        device=device,
        dtype=dtype,
        start=start,
        end=end,
        scale=scale,
        height=height,
        size=size,
        deinterlace=deinterlace,
        segment_frames=segment_frames,
    )
    if isinstance(settings.tile, int) and settings.tile < MIN_TILE:
        raise UsageError(f"The tile must have {MIN_TILE} pixels or more, not {settings.tile}.")
    encoding = Encoding(codec=codec, crf=crf, preset=preset, pixel_format=pix_fmt)

    with Source(
        src, start=settings.start, end=settings.end, deinterlace=settings.deinterlace
    ) as source:
        check_destination(dst, src, overwrite=overwrite)
        with Journal(dst) as journal:
            with VideoWriter(
                dst,
                source=source.info,
                shape=output_shape(
                    source.info, scale=settings.scale, height=settings.height, box=settings.box
                ),
                encoding=encoding,
                start=settings.start,
                end=settings.end,
                overwrite=overwrite,
                folder=journal.folder,
            ) as output:
                journal.open(
                    describe_file(src) | _describe(settings, encoding, model), restart=restart
                )
                for notice in (
                    *source.notices,
                    *(f"left out: {part}" for part in output.dropped),
                ):
                    warn(notice)
                frames_resumed = journal.frames_done
                if scarcity := check_room(output, journal, expected_frames(source.info, settings)):
                    warn(scarcity)
                network = _load(model, settings, journal.chosen)
                restorer = _new_restorer(network, settings, journal.entries)
                chosen: Choices = {
                    "device": str(network.device),
                    "dtype": DTYPE_NAMES[network.dtype],
                }
                if confirm is not None and not confirm(
                    Plan.of((source, restorer, output), journal, settings, network.name, chosen)
                ):
                    raise Declined("Nothing was done.")
                _begin_measuring_memory(network.device)
                _restore(
                    (source, restorer, output),
                    journal,
                    settings,
                    chosen=chosen,
                    report=report,
                    should_stop=should_stop,
                )
                segments = [Segment(journal.folder / e.file, e.ticks) for e in journal.entries]
                join(segments, journal.entries[-1].end, output)
            journal.clear()

    elapsed = time.perf_counter() - began
    return Summary(
        input=str(src),
        output=str(dst),
        frames_in=source.frames_read,
        frames_out=output.frames_written,
        frames_resumed=frames_resumed,
        truncated=source.truncated,
        width=output.shape.width,
        height=output.shape.height,
        model=network.name,
        device=str(network.device),
        dtype=DTYPE_NAMES[network.dtype],
        window=settings.window,
        tile=restorer.tile,
        elapsed_s=round(elapsed, 3),
        fps=round((output.frames_written - frames_resumed) / elapsed, 3),
        kept=output.kept,
        dropped=output.dropped,
        assumed=source.info.assumed,
        peak_memory_bytes=_peak_memory_bytes(network.device),
        warnings=(*_warnings(source, settings), *output.warnings),
    )


def _describe(settings: Settings, encoding: Encoding, model: str | Path) -> Choices:
    """Name all that the output depends on beside the input; a run goes on only with the same."""
    asked = asdict(settings) | asdict(encoding)
    return {
        "weights": weights_checksum(model),
        **{name.replace("_", " "): None if x is None else str(x) for name, x in asked.items()},
        "version of vsrm": __version__,
        "version of PyAV": version("av"),
        "version of PyTorch": torch.__version__,
    }


def _load(model: str | Path, settings: Settings, chosen: Choices | None) -> VSRM:
    """Load the network, on the device and in the precision that the run has begun with."""
    device, dtype = settings.device, settings.dtype
    if chosen is not None:
        device, dtype = str(chosen["device"]), str(chosen["dtype"])
    network = load_model(model, device=device, dtype=dtype)
    if network.device.type == "cpu":
        keep_freed_memory()
    return network


def _new_restorer(network: VSRM, settings: Settings, entries: Sequence[Entry]) -> Restorer:
    return Restorer(
        network,
        window=settings.window,
        overlap=settings.overlap,
        tile=entries[-1].tile if entries else settings.tile,
        device=network.device,
        dtype=network.dtype,
        workers=min(MAX_WORKERS, torch.get_num_threads()) if network.device.type == "cpu" else 1,
    )


def _restore(
    stages: tuple[Source, Restorer, VideoWriter],
    journal: Journal,
    settings: Settings,
    *,
    chosen: Choices,
    report: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
) -> None:
    """Take every frame that is not finished from the source through the network to segments.

    Raises:
        Interrupted: If `should_stop` said yes.
    """
    source, restorer, output = stages
    begin = journal.frames_done
    latest = journal.entries[-1] if journal.entries else None
    frames = settings.segment_frames
    if journal.chosen is not None:
        frames = int(journal.chosen["segment frames"] or 0)
    segmenter = Segmenter(restorer.windows.stride, frames=frames, first=begin)
    recorder = Recorder(journal, source, output, restorer.windows)

    def restore(frames: Iterable[Frame]) -> Iterator[Restored]:
        restored = restorer.restore(frames, begin=begin - latest.shot if latest else 0)
        for item in segmenter.cut(restored, state=restorer, should_stop=should_stop):
            if journal.chosen is None:
                journal.begin({**chosen, "segment frames": segmenter.frames})
            yield item

    frame_bytes = source.info.width * source.info.height * (3 if source.info.bits <= 8 else 6)
    try:
        run_stages(
            source.frames(behind=latest),
            restore,
            recorder.write,
            read_depth=_queue_depth(settings.window, frame_bytes),
            write_depth=_queue_depth(settings.window, frame_bytes * SCALE**2),
            frames_before=begin,
            frames_expected=expected_frames(source.info, settings),
            report=report,
        )
        if segmenter.is_stopped:
            raise Interrupted(_how_to_go_on(journal))
        recorder.finish()
    except CheckFailed:
        journal.clear()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(_how_to_go_on(journal)) from None
    finally:
        recorder.abandon()


def _how_to_go_on(journal: Journal) -> str:
    if not journal.entries:
        return "interrupted: nothing was written"
    return (
        f"interrupted: {journal.frames_done} frames are finished and kept in {journal.folder}; "
        "the same command goes on behind them"
    )


def _queue_depth(window: int, frame_bytes: int) -> int:
    return max(1, min(window, QUEUE_BYTES // frame_bytes))


def _warnings(source: Source, settings: Settings) -> tuple[str, ...]:
    warnings = []
    if source.resized_frames:
        warnings.append(
            f"the picture of {source.info.path} changes its size on the way: "
            f"{source.resized_frames} frames were scaled to the size of the first one"
        )
    if not source.truncated:
        return tuple(warnings)
    expected = expected_frames(source.info, settings)
    of_about = "" if expected is None else f" of about {expected}"
    warnings.append(
        f"{source.info.path} is damaged or its end is missing ({source.damaged_packets} damaged "
        f"packets): {source.frames_read}{of_about} frames could be read, and all of them are there"
    )
    return tuple(warnings)


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
