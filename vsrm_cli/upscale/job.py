"""The job of `vsrm upscale`: read a video, restore it, write it.

Frames stream through: one thread decodes, this one runs the network, a third encodes. The
file is tried before the network is loaded, so that a wrong codec or a full folder is told in
the first second. The work goes into segments, and whatever ends it, the same call goes on behind
the last one that was finished. At the end they are joined, and the file gets its name when every
frame has been found in it at its time.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vsrm_cli import __version__
from vsrm_cli.checkpoints.catalog import settle_detail
from vsrm_cli.checkpoints.download import Transfer
from vsrm_cli.checkpoints.loading import load_model, network_scale, weights_checksum
from vsrm_cli.decode.image_sequence import find_images, is_sequence
from vsrm_cli.encode.encoders import replace_absent_hardware
from vsrm_cli.encode.image_sequence import ImageSequenceWriter
from vsrm_cli.encode.segments import Segment, join
from vsrm_cli.errors import CheckFailed, Declined, InputError, Interrupted, UsageError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.memory import PeakMemory
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.cluster import Cluster, hire_nodes
from vsrm_cli.upscale.devices import (
    DTYPE_NAMES,
    MIXED,
    find_devices,
    hardware_of,
    kind_of,
    new_restorer,
    queue_depths,
    settle_hardware,
)
from vsrm_cli.upscale.journal import Choices, Journal, describe_files
from vsrm_cli.upscale.open_media import (
    Collected,
    Direct,
    asked_shape,
    check_output,
    encoding_of,
    open_direct_output,
    open_output,
    open_source,
)
from vsrm_cli.upscale.options import DEFAULT_MODEL, DEFAULT_SCALE, UpscaleOptions
from vsrm_cli.upscale.parallel import Team, hire_processes, restore_on_devices
from vsrm_cli.upscale.pipeline import Progress, run_stages
from vsrm_cli.upscale.plan import (
    Plan,
    check_room,
    expected_frames,
    select_model,
    suggest_height,
)
from vsrm_cli.upscale.segment_worker import Settings
from vsrm_cli.upscale.segmenting import Recorder, Restored, Segmenter, check_counts, keep_container
from vsrm_cli.upscale.source import PIPE, Source
from vsrm_cli.upscale.summary import Run, Summary


def upscale_video(
    src: str | Path,
    dst: str | Path,
    options: UpscaleOptions | None = None,
    *,
    confirm: Callable[[Plan], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
    report_transfer: Callable[[Transfer], None] | None = None,
    **given: Any,
) -> Summary:
    """Make a video four times larger, frame for frame; all other streams are carried over.

    If an earlier call with the same options was interrupted, this one resumes where it stopped.

    Args:
        src: The video to read; a folder of images, or names such as "frame_%05d.png"; or "-" for
            YUV4MPEG2 on standard input.
        dst: The file to write; its ending chooses the container. A name without an ending, or such
            as "frame_%05d.png", is for images, and "-" stands for YUV4MPEG2 on standard output.
            A file appears when it is complete.
        options: What is asked for, where it has been read already.
        confirm: Shown what would be done, before it is; a no ends the job there.
        report: Called in this thread twice a second while the network computes, and for each frame
            that it has finished.
        should_stop: Asked at each point from which a job can be resumed; a yes ends it there.
        warn: Called, before the work begins, with each thing that is uncertain of the input, and
            each that the output cannot hold.
        report_transfer: Called as a weight file comes in.
        given: Instead of `options`: each by its name in `UpscaleOptions`, such as ``window=16``.

    Returns:
        What was done.

    Raises:
        TypeError: If there is no option of a name.
        Interrupted: If `should_stop` said yes.
        Declined: If `confirm` said no.
        VsrmError: Another of its children, if the video cannot be read, the result cannot be
            written or checked, or an option cannot work. Nothing is left under `dst`'s name.
    """
    if options is None:
        options = UpscaleOptions.read(**given)
    elif given:
        raise TypeError(f"options are there already, and {', '.join(given)} beside them")
    if options.hwaccel:
        encoding, replacement = replace_absent_hardware(encoding_of(options))
        if replacement is not None:
            warn(replacement)
            options = replace(options, codec=encoding.codec, preset=encoding.preset)
    order = _Order(
        src=Path(src),
        dst=Path(dst),
        options=options,
        model_reason="",
        confirm=confirm,
        report=report,
        report_transfer=report_transfer,
        should_stop=should_stop,
        warn=warn,
    )
    if confirm is not None and options.cluster:
        raise UsageError("A plan tells of this machine; ask for it without --cluster.")
    through_pipe = PIPE in (order.src, order.dst)
    return _upscale_through_pipe(order) if through_pipe else _upscale_in_segments(order)


@dataclass(frozen=True)
class _Order:
    """What was asked for, and who wants to hear of it; see `upscale_video`."""

    src: Path
    dst: Path
    options: UpscaleOptions
    model_reason: str
    confirm: Callable[[Plan], bool] | None
    report: Callable[[Progress], None] | None
    report_transfer: Callable[[Transfer], None] | None
    should_stop: Callable[[], bool]
    warn: Callable[[str], None]


def _upscale_in_segments(order: _Order) -> Summary:
    """Do the job between files, from where an earlier call stopped."""
    began = time.perf_counter()
    src, dst, options = order.src, order.dst, order.options
    files = find_images(src) if is_sequence(src) else [src]
    cluster = Cluster(options.cluster) if options.cluster else None
    with cluster or nullcontext(), open_source(src, options) as source:
        if cluster is None:
            devices = find_devices(options.device, mixed=options.mixed)
            kind = kind_of(devices)
        else:
            devices, kind = [], cluster.kind_of(options.device)
        order = _with_model(order, source.info, files)
        options = order.options
        check_output(dst, files, overwrite=options.overwrite)
        with Journal(dst) as journal:
            with open_output(dst, source, options, folder=journal.folder) as output:
                content = describe_files(files)
                journal.open(content | _describe(order, kind), restart=options.restart)
                frames_resumed = journal.frames_kept
                keep_container(output, [*journal.entries, *journal.later.values()])
                _warn_beforehand(source, output, order)
                if scarcity := check_room(output, journal, expected_frames(source.info, options)):
                    order.warn(scarcity)
                ends = (source, output)
                if cluster is not None:
                    hire = partial(hire_nodes, cluster, kind, files, order.warn)
                    run = _run_on_devices(hire, devices, ends, journal, order)
                elif len(devices) > 1 or journal.later:
                    hire = partial(hire_processes, devices, order.warn)
                    run = _run_on_devices(hire, devices, ends, journal, order)
                else:
                    run = _run_here(ends, journal, order)
                # Sound and all else is read only now. Pictures and sound must be of one file.
                _check_unchanged(order, files, content)
                _put_together(output, journal)
                _check_unchanged(order, files, content)
            journal.clear()
    return Summary.of(
        ends,
        order.options,
        run,
        path=order.dst,
        model_reason=order.model_reason,
        frames_resumed=frames_resumed,
        seconds=time.perf_counter() - began,
    )


def _run_here(ends: tuple[Source, Collected], journal: Journal, order: _Order) -> Run:
    """Make the segments that are not finished, in this process."""
    source, output = ends
    network = _load(order, ends[0].info, journal.chosen)
    restorer = new_restorer(network, order.options, journal.chosen)
    chosen: Choices = {
        "device": str(network.device),
        "hardware": settle_hardware(
            [hardware_of(network.device)], journal, mixed=order.options.mixed
        ),
        "dtype": DTYPE_NAMES[network.dtype],
        "threads": torch.get_num_threads(),
    }
    _confirm((source, restorer, output), journal, order, network.name, chosen)
    journal.start()
    memory = PeakMemory(network.device)
    _restore((source, restorer, output), journal, order, chosen)
    return replace(
        Run.of(source, network, restorer, memory),
        equal=chosen["hardware"] != MIXED and len({entry.tile for entry in journal.entries}) == 1,
    )


def _run_on_devices(
    hire: Callable[[Settings], Team],
    devices: Sequence[str],
    ends: tuple[Source, Collected],
    journal: Journal,
    order: _Order,
) -> Run:
    """Make the segments that are not finished, by a worker for each device."""
    if order.confirm is not None:  # how fast a device is, and what it needs, the first one tells
        network = _load(order, ends[0].info, journal.chosen)
        restorer = new_restorer(network, order.options, journal.chosen)
        chosen: Choices = {"device": ",".join(devices), "dtype": DTYPE_NAMES[network.dtype]}
        _confirm((ends[0], restorer, ends[1]), journal, order, network.name, chosen)
        del network, restorer
    else:
        model = order.options.model
        scale = network_scale(model, report=order.report_transfer)
        _warn_of_scale(order, ends[0].info, str(model), scale)
    return restore_on_devices(
        hire,
        ends,
        journal,
        order.options,
        report=order.report,
        should_stop=order.should_stop,
        warn=order.warn,
    )


def _confirm(
    stages: tuple[Source, Restorer, Collected],
    journal: Journal,
    order: _Order,
    model: str,
    chosen: Choices,
) -> None:
    """Show what would be done, if somebody wants to know.

    Raises:
        Declined: If they say no.
    """
    if order.confirm is None:
        return
    plan = Plan.of(stages, journal, order.options, model, order.model_reason, chosen)
    if not order.confirm(plan):
        raise Declined("Nothing was done.")


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


def _with_model(order: _Order, info: VideoInfo, files: Sequence[Path] = ()) -> _Order:
    """Settle the network and the factor, where the user leaves them open.

    The writer must know the size of the frames before the network is there to be asked.
    """
    options = order.options
    factor = asked_shape(info, options).enlargement(info)
    model, reason = select_model(options.model, info, files, factor=factor)
    is_default = options.model == DEFAULT_MODEL
    detail = settle_detail(str(model), options.detail, is_default=is_default)
    scale = options.scale
    if options.is_size_open and not is_default:
        scale = Fraction(network_scale(model, report=order.report_transfer))
    options = replace(options, model=model, detail=detail, scale=scale)
    return replace(order, options=options, model_reason=reason)


def _put_together(output: Collected, journal: Journal) -> None:
    """Make the output of what the finished segments hold."""
    if isinstance(output, ImageSequenceWriter):
        output.collect(journal.folder, journal.frames_done)
    else:
        segments = [Segment(journal.folder / e.file, e.ticks) for e in journal.entries]
        join(segments, journal.entries[-1].end, output)


def _upscale_through_pipe(order: _Order) -> Summary:
    """Do the job from standard input, or to standard output; there is nothing to go on from."""
    began = time.perf_counter()
    if order.options.cluster or len(find_devices(order.options.device, mixed=True)) > 1:
        raise UsageError(
            "A job with a pipe runs on one device of this machine; name one with --device."
        )
    with open_source(order.src, order.options) as source:
        order = _with_model(order, source.info)
        options = order.options
        with open_direct_output(order.dst, source, options) as output:
            _warn_beforehand(source, output, order)
            network = _load(order, source.info, None)
            restorer = new_restorer(network, options, None)
            memory = PeakMemory(network.device)

            def restore(frames: Iterable[Frame]) -> Iterator[Frame]:
                for frame in restorer.restore(frames):
                    if order.should_stop():
                        raise Interrupted("interrupted: a job with a pipe cannot be resumed")
                    yield frame

            read_depth, write_depth = queue_depths(source.info, options, restorer)
            run_stages(
                source.frames(behind=None),
                restore,
                output.write,
                read_depth=read_depth,
                write_depth=write_depth,
                frames_expected=expected_frames(source.info, options),
                report=order.report,
                watch=restorer.watch,
            )
            check_counts(read=source.frames_read, written=output.frames_written)
    run = Run.of(source, network, restorer, memory)
    return Summary.of(
        (source, output),
        options,
        run,
        path=order.dst,
        model_reason=order.model_reason,
        frames_resumed=0,
        seconds=time.perf_counter() - began,
    )


def _warn_beforehand(source: Source, output: Collected | Direct, order: _Order) -> None:
    for notice in (*source.notices, *(f"dropped: {part}" for part in output.dropped)):
        order.warn(notice)
    if advice := suggest_height(order.options, output.shape):
        order.warn(advice)


def _describe(order: _Order, kind: str) -> Choices:
    """Name all that the output depends on beside the input; a run goes on only with the same."""
    return {
        "weights": weights_checksum(
            order.options.model, detail=order.options.detail, report=order.report_transfer
        ),
        **order.options.for_journal(),
        "device": kind,
        "version of vsrm": __version__,
        "version of PyAV": version("av"),
        "version of PyTorch": torch.__version__,
    }


def _load(order: _Order, info: VideoInfo, chosen: Choices | None) -> Network:
    """Load the network, on the device and in the precision that the run has begun with."""
    device, dtype = find_devices(order.options.device, mixed=True)[0], order.options.dtype
    if chosen is not None:
        dtype = str(chosen["dtype"])
        if device == "auto":
            device = str(chosen["device"]).split(",")[0]
        threads = int(chosen.get("threads") or torch.get_num_threads())
        if threads != torch.get_num_threads():  # sums over another number differ by rounding
            torch.set_num_threads(threads)
    options = replace(order.options, device=device, dtype=dtype)
    network = load_network(options, order.report_transfer)
    _warn_of_scale(order, info, network.name, network.scale)
    return network


def load_network(
    options: UpscaleOptions, report_transfer: Callable[[Transfer], None] | None
) -> Network:
    """Load the network that the options name, where and as they say."""
    return load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        detail=options.detail,
        report=report_transfer,
    )


def _warn_of_scale(order: _Order, info: VideoInfo, model: str, scale: int) -> None:
    factor = asked_shape(info, order.options).enlargement(info)
    if scale < DEFAULT_SCALE and scale < factor:
        order.warn(
            f"{model} enlarges {scale} times, and its frames are resampled to be "
            f"{float(factor):g} times larger; a network for {DEFAULT_SCALE} times shows more"
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
    frames = order.options.segment_frames
    if journal.chosen is not None and journal.chosen["segment frames"] is not None:
        frames = int(journal.chosen["segment frames"])
    segmenter = Segmenter(restorer.windows.stride, frames=frames, first=begin)
    recorder = Recorder(
        output, restorer.windows, folder=journal.folder, behind=latest, add=journal.add
    )

    def restore(frames: Iterable[Frame]) -> Iterator[Restored]:
        restored = restorer.restore(frames, begin=begin - latest.shot if latest else 0)
        for item in segmenter.cut(restored, should_stop=order.should_stop):
            choices: Choices = {
                **chosen,
                "tile": restorer.tile,
                "batch": restorer.batch,
                "segment frames": segmenter.frames,
            }
            if journal.chosen != choices:
                journal.begin(choices)
            yield item

    read_depth, write_depth = queue_depths(source.info, order.options, restorer)
    try:
        run_stages(
            source.frames(behind=latest),
            restore,
            recorder.write,
            read_depth=read_depth,
            write_depth=write_depth,
            frames_before=begin,
            frames_expected=expected_frames(source.info, order.options),
            report=order.report,
            watch=restorer.watch,
        )
        if segmenter.is_stopped:
            raise Interrupted(journal.resume_hint())
        recorder.finish(frames_read=source.frames_read)
    except CheckFailed:
        journal.clear()
        raise
    except KeyboardInterrupt:
        raise KeyboardInterrupt(journal.resume_hint()) from None
    finally:
        recorder.abandon()
