"""The job of `vsrm upscale`: read a video, restore it, write it.

Frames stream through: one thread decodes, this one runs the network, a third encodes. The
file is tried before the network is loaded, so that a wrong codec or a full folder is told in
the first second. The work goes into segments, and whatever ends it, the same call goes on behind
the last one that was finished. At the end they are joined, and the file gets its name when every
frame has been found in it at its time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from importlib.metadata import version
from pathlib import Path

import torch

from vsrm_cli import __version__
from vsrm_cli.checkpoints.catalog import settle_detail
from vsrm_cli.checkpoints.download import Transfer
from vsrm_cli.checkpoints.loading import load_model, weights_checksum
from vsrm_cli.decode.image_sequence import find_pictures, is_sequence
from vsrm_cli.encode.encoders import replace_absent_hardware
from vsrm_cli.encode.image_sequence import PictureWriter
from vsrm_cli.encode.options import Encoding
from vsrm_cli.encode.segments import Segment, join
from vsrm_cli.errors import CheckFailed, Declined, InputError, Interrupted, UsageError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.cuda_graphs import ReplayedNetwork
from vsrm_cli.inference.memory import keep_freed_memory
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.inference.tiling import MAX_BATCH, MIN_TILE
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.journal import Choices, Entry, Journal, describe_files
from vsrm_cli.upscale.open_media import (
    Collected,
    Direct,
    check_output,
    open_direct_output,
    open_output,
    open_source,
)
from vsrm_cli.upscale.options import DEFAULT_MODEL, DEFAULT_WINDOW, Settings, Time
from vsrm_cli.upscale.pipeline import Progress, queue_depth, run_stages
from vsrm_cli.upscale.plan import Plan, check_room, expected_frames, suited_model
from vsrm_cli.upscale.segmenting import Recorder, Restored, Segmenter, check_counts
from vsrm_cli.upscale.source import PIPE, Source
from vsrm_cli.upscale.summary import Summary, begin_measuring_memory, peak_memory_bytes

# The writer must know the size of the pictures before the network is there to be asked.
SCALE = 4

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}

# Tiles restored at the same time on a CPU, where it has so many cores.
MAX_WORKERS = 4


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
    hwaccel: str = "off",
    detail: float | None = None,
    fps: Fraction | float | str = 25,
    overwrite: bool = False,
    segment_frames: int | None = None,
    restart: bool = False,
    confirm: Callable[[Plan], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
    report_transfer: Callable[[Transfer], None] | None = None,
) -> Summary:
    """Make a video four times larger, frame for frame; all other streams are carried over.

    If an earlier call with the same arguments was interrupted, this one goes on where it stopped.

    Args:
        src: The video to read; a folder of pictures, or names such as "frame_%05d.png"; or "-" for
            YUV4MPEG2 on standard input.
        dst: The file to write; its ending chooses the container. A name without an ending, or such
            as "frame_%05d.png", is for pictures, and "-" stands for YUV4MPEG2 on standard output.
            A file appears when it is complete.
        model: A network by its name, a weight file, or a Hub id ``owner/name[@revision]``; what
            is not on this machine is fetched. "auto" takes the one that suits the footage.
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
        fps: Frames per second of an input of pictures.
        deinterlace: "auto" makes whole frames of interlaced ones, "off" does not.
        hwaccel: "auto" decodes in graphics hardware where that gives the same pictures, and takes
            a software encoder where the hardware of the named one is not there; "off" does neither.
        detail: Of a network with two weight files: 0 stays close to what can be known, 1 shows
            what is likely; None takes what suits.
        overwrite: Whether `dst` may exist and be replaced.
        segment_frames: Frames, at least, between the points at which the work can go on after an
            interruption; None for about half a minute of work.
        restart: Throw away what an earlier call has left unfinished.
        confirm: Shown what would be done, before it is; a no ends the job there.
        report: Called in this thread after each frame that the network has finished.
        should_stop: Asked at each such point; a yes ends the work there.
        warn: Called, before the work begins, with each thing that is uncertain of the input, and
            each that the output cannot hold.
        report_transfer: Called as a weight file comes in.

    Returns:
        What was done.

    Raises:
        Interrupted: If `should_stop` said yes.
        Declined: If `confirm` said no.
        VsrmError: Another of its children, if the video cannot be read, the result cannot be
            written or checked, or an option cannot work. Nothing is left under `dst`'s name.
    """
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
        fps=fps,
        segment_frames=segment_frames,
        hwaccel=hwaccel,
        detail=detail,
    )
    if isinstance(settings.tile, int) and settings.tile < MIN_TILE:
        raise UsageError(f"The tile must have {MIN_TILE} pixels or more, not {settings.tile}.")
    encoding = Encoding(codec=codec, crf=crf, preset=preset, pixel_format=pix_fmt)
    if settings.hwaccel:
        encoding, replacement = replace_absent_hardware(encoding)
        if replacement is not None:
            warn(replacement)
    order = _Order(
        src=Path(src),
        dst=Path(dst),
        model=model,
        model_reason="",
        detail=None,
        settings=settings,
        encoding=encoding,
        overwrite=overwrite,
        restart=restart,
        confirm=confirm,
        report=report,
        report_transfer=report_transfer,
        should_stop=should_stop,
        warn=warn,
    )
    through_pipe = PIPE in (order.src, order.dst)
    return _upscale_through_pipe(order) if through_pipe else _upscale_in_segments(order)


@dataclass(frozen=True)
class _Order:
    """What was asked for, and who wants to hear of it; see `upscale_video`."""

    src: Path
    dst: Path
    model: str | Path
    model_reason: str
    detail: float | None
    settings: Settings
    encoding: Encoding
    overwrite: bool
    restart: bool
    confirm: Callable[[Plan], bool] | None
    report: Callable[[Progress], None] | None
    report_transfer: Callable[[Transfer], None] | None
    should_stop: Callable[[], bool]
    warn: Callable[[str], None]


def _upscale_in_segments(order: _Order) -> Summary:
    """Do the job between files, from where an earlier call stopped."""
    began = time.perf_counter()
    src, dst, settings = order.src, order.dst, order.settings
    files = find_pictures(src) if is_sequence(src) else [src]
    with open_source(src, settings) as source:
        order = _with_model(order, source.info)
        check_output(dst, files, overwrite=order.overwrite)
        with Journal(dst) as journal:
            with open_output(
                dst, source, settings, order.encoding, folder=journal.folder
            ) as output:
                content = describe_files(files)
                journal.open(content | _describe(order), restart=order.restart)
                frames_resumed = journal.frames_done
                _warn_beforehand(source, output, order.warn)
                if scarcity := check_room(output, journal, expected_frames(source.info, settings)):
                    order.warn(scarcity)
                network = _load(order, journal.chosen)
                restorer = _new_restorer(network, settings, journal.entries)
                stages = (source, restorer, output)
                chosen: Choices = {
                    "device": str(network.device),
                    "dtype": DTYPE_NAMES[network.dtype],
                }
                if order.confirm is not None and not order.confirm(
                    Plan.of(
                        stages,
                        journal,
                        settings,
                        network.name,
                        order.model_reason,
                        order.detail,
                        chosen,
                    )
                ):
                    raise Declined("Nothing was done.")
                journal.start()
                begin_measuring_memory(network.device)
                _restore(stages, journal, order, chosen)
                # Sound and all else is read only now. Pictures and sound must be of one file.
                _check_unchanged(order, files, content)
                _put_together(output, journal)
                _check_unchanged(order, files, content)
            journal.clear()
    return _sum_up(stages, order, network, frames_resumed=frames_resumed, began=began)


def _check_unchanged(order: _Order, files: Sequence[Path], content: Choices) -> None:
    """Make sure that the input is still what it was when the work began.

    Raises:
        InputError: If it is not.
    """
    try:
        is_the_same = describe_files(files) == content
    except OSError:
        is_the_same = False
    if not is_the_same:
        raise InputError(
            f"{order.src} has changed since the work began. Put the old file back and give the "
            "same command to go on, or give --restart to begin again with the new one."
        )


def _with_model(order: _Order, info: VideoInfo) -> _Order:
    """Settle the network, where the user leaves it open."""
    model, reason = suited_model(order.model, info)
    is_default = order.model == DEFAULT_MODEL
    detail = settle_detail(str(model), order.settings.detail, is_default=is_default)
    return replace(order, model=model, model_reason=reason, detail=detail)


def _put_together(output: Collected, journal: Journal) -> None:
    """Make the output of what the finished segments hold."""
    if isinstance(output, PictureWriter):
        output.collect(journal.folder, journal.frames_done)
    else:
        segments = [Segment(journal.folder / e.file, e.ticks) for e in journal.entries]
        join(segments, journal.entries[-1].end, output)


def _upscale_through_pipe(order: _Order) -> Summary:
    """Do the job from standard input, or to standard output; there is nothing to go on from."""
    began = time.perf_counter()
    settings = order.settings
    with (
        open_source(order.src, settings, is_watched=False) as source,
        open_direct_output(
            order.dst, source, settings, order.encoding, overwrite=order.overwrite
        ) as output,
    ):
        _warn_beforehand(source, output, order.warn)
        order = _with_model(order, source.info)
        network = _load(order, None)
        restorer = _new_restorer(network, settings, [])
        begin_measuring_memory(network.device)

        def restore(frames: Iterable[Frame]) -> Iterator[Frame]:
            for frame in restorer.restore(frames):
                if order.should_stop():
                    raise Interrupted("interrupted: a job with a pipe cannot be resumed")
                yield frame

        read_depth, write_depth = _queue_depths(source.info, settings, restorer)
        run_stages(
            source.frames(behind=None),
            restore,
            output.write,
            read_depth=read_depth,
            write_depth=write_depth,
            frames_expected=expected_frames(source.info, settings),
            report=order.report,
        )
        check_counts(read=source.frames_read, written=output.frames_written)
    return _sum_up((source, restorer, output), order, network, frames_resumed=0, began=began)


def _sum_up(
    stages: tuple[Source, Restorer, Collected | Direct],
    order: _Order,
    network: Network,
    *,
    frames_resumed: int,
    began: float,
) -> Summary:
    """Tell what was done."""
    source, restorer, output = stages
    elapsed = time.perf_counter() - began
    return Summary(
        input=str(source.path),
        output=str(order.dst),
        frames_in=source.frames_read,
        frames_out=output.frames_written,
        frames_resumed=frames_resumed,
        truncated=source.truncated,
        width=output.shape.width,
        height=output.shape.height,
        model=network.name,
        model_reason=order.model_reason,
        detail=order.detail,
        device=str(network.device),
        dtype=DTYPE_NAMES[network.dtype],
        decoder=source.decoder,
        encoder=output.plan.encoder,
        window=order.settings.window,
        tile=restorer.tile,
        elapsed_s=round(elapsed, 3),
        fps=round((output.frames_written - frames_resumed) / elapsed, 3),
        kept=output.kept,
        dropped=output.dropped,
        assumed=source.info.assumed,
        peak_memory_bytes=peak_memory_bytes(network.device),
        warnings=(*_warnings(source, order.settings, restorer.network), *output.warnings),
    )


def _warn_beforehand(
    source: Source, output: Collected | Direct, warn: Callable[[str], None]
) -> None:
    for notice in (*source.notices, *(f"dropped: {part}" for part in output.dropped)):
        warn(notice)


def _describe(order: _Order) -> Choices:
    """Name all that the output depends on beside the input; a run goes on only with the same."""
    asked = asdict(order.settings) | asdict(order.encoding)
    return {
        "weights": weights_checksum(order.model, detail=order.detail, report=order.report_transfer),
        **{name.replace("_", " "): None if x is None else str(x) for name, x in asked.items()},
        "version of vsrm": __version__,
        "version of PyAV": version("av"),
        "version of PyTorch": torch.__version__,
    }


def _load(order: _Order, chosen: Choices | None) -> Network:
    """Load the network, on the device and in the precision that the run has begun with."""
    device, dtype = order.settings.device, order.settings.dtype
    if chosen is not None:
        device, dtype = str(chosen["device"]), str(chosen["dtype"])
    network = load_model(
        order.model,
        device=device,
        dtype=dtype,
        detail=order.detail,
        report=order.report_transfer,
    )
    if network.device.type == "cpu":
        keep_freed_memory()
    return network


def _new_restorer(network: Network, settings: Settings, entries: Sequence[Entry]) -> Restorer:
    is_cpu = network.device.type == "cpu"
    return Restorer(
        network if network.device.type != "cuda" else ReplayedNetwork(network),
        window=settings.window,
        overlap=settings.overlap,
        tile=entries[-1].tile if entries else settings.tile,
        device=network.device,
        dtype=network.dtype,
        workers=min(MAX_WORKERS, torch.get_num_threads()) if is_cpu else 1,
        batch=1 if is_cpu else None,
    )


def _restore(
    stages: tuple[Source, Restorer, Collected],
    journal: Journal,
    order: _Order,
    chosen: Choices,
) -> None:
    """Take every frame that is not finished from the source through the network to segments.

    Raises:
        Interrupted: If `should_stop` said yes.
    """
    source, restorer, output = stages
    begin = journal.frames_done
    latest = journal.entries[-1] if journal.entries else None
    frames = order.settings.segment_frames
    if journal.chosen is not None and journal.chosen["segment frames"] is not None:
        frames = int(journal.chosen["segment frames"])
    segmenter = Segmenter(restorer.windows.stride, frames=frames, first=begin)
    recorder = Recorder(journal, source, output, restorer.windows)

    def restore(frames: Iterable[Frame]) -> Iterator[Restored]:
        restored = restorer.restore(frames, begin=begin - latest.shot if latest else 0)
        for item in segmenter.cut(restored, state=restorer, should_stop=order.should_stop):
            choices: Choices = {**chosen, "segment frames": segmenter.frames}
            if journal.chosen != choices:
                journal.begin(choices)
            yield item

    read_depth, write_depth = _queue_depths(source.info, order.settings, restorer)
    try:
        run_stages(
            source.frames(behind=latest),
            restore,
            recorder.write,
            read_depth=read_depth,
            write_depth=write_depth,
            frames_before=begin,
            frames_expected=expected_frames(source.info, order.settings),
            report=order.report,
        )
        if segmenter.is_stopped:
            raise Interrupted(journal.how_to_go_on())
        recorder.finish()
    except CheckFailed:
        journal.clear()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(journal.how_to_go_on()) from None
    finally:
        recorder.abandon()


def _queue_depths(info: VideoInfo, settings: Settings, restorer: Restorer) -> tuple[int, int]:
    """Say how many small and how many large frames may wait: all that the network takes at once."""
    frame_bytes = info.width * info.height * (3 if info.bits <= 8 else 6)
    frames = settings.window * (1 if restorer.batch == 1 else MAX_BATCH)
    return queue_depth(frames, frame_bytes), queue_depth(frames, frame_bytes * SCALE**2)


def _warnings(source: Source, settings: Settings, network: object) -> tuple[str, ...]:
    warnings = []
    if isinstance(network, ReplayedNetwork) and network.hindrance is not None:
        warnings.append(f"slower, without CUDA graphs: {network.hindrance}")
    if source.resized_frames:
        warnings.append(
            f"the frame size of {source.info.path} changes: "
            f"{source.resized_frames} frames were scaled to the size of the first one"
        )
    if not source.truncated:
        return tuple(warnings)
    expected = expected_frames(source.info, settings)
    of_about = "" if expected is None else f" of about {expected}"
    warnings.append(
        f"{source.info.path} is damaged or its end is missing ({source.damaged_packets} damaged "
        f"packets): {source.frames_read}{of_about} frames could be read, and all of them were kept"
    )
    return tuple(warnings)
