"""The job of `vsrm upscale`: read a video, restore it, write it.

Frames stream through: one thread decodes, this one runs the network, a third encodes. The output is
tried before the network is loaded, so that a wrong codec or a full disk is reported in the first
second. The work goes into segments; if it is interrupted, the same call resumes after the last
finished one. At the end the segments are joined, and the file gets its name when every frame has
been verified.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from vsrm_cli import __version__
from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.checkpoints.loading import load_model, network_scale, weights_checksum
from vsrm_cli.decode.image_sequence import find_images, is_sequence
from vsrm_cli.encode.encoders import replace_absent_hardware
from vsrm_cli.encode.writer import FrameWriter
from vsrm_cli.errors import CheckFailed, Declined, Interrupted, UsageError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.memory import PeakMemory
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.devices import (
    DTYPE_NAMES,
    MIXED,
    device_kind,
    find_devices,
    hardware_of,
    new_restorer,
    queue_depths,
    resolve_hardware,
)
from vsrm_cli.upscale.distributed import parallel
from vsrm_cli.upscale.distributed.cluster import Cluster, make_node_workers
from vsrm_cli.upscale.distributed.segment_worker import WorkerSettings
from vsrm_cli.upscale.journal import JobIdentity, Journal, describe_files
from vsrm_cli.upscale.open_media import (
    check_output,
    encoding_of,
    open_direct_output,
    open_input,
    open_output,
)
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import Progress, run_stages
from vsrm_cli.upscale.plan import (
    JobPlan,
    check_disk_space,
    expected_frames,
    resolve_model,
    suggest_height,
    suggest_network,
)
from vsrm_cli.upscale.request import Job, LoadedAs, Request
from vsrm_cli.upscale.resumable_reader import PIPE, ResumableReader, check_unchanged
from vsrm_cli.upscale.segmenting import (
    RestoredFrame,
    Segmenter,
    SegmentRecorder,
    check_counts,
    join_segments,
    segment_container,
    segment_frames,
)
from vsrm_cli.upscale.settings import JobSettings
from vsrm_cli.upscale.summary import InferenceSummary, JobSummary


def upscale_video(
    src: str | Path,
    dst: str | Path,
    options: UpscaleOptions | None = None,
    *,
    confirm: Callable[[JobPlan], bool] | None = None,
    report: Callable[[Progress], None] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    warn: Callable[[str], None] = lambda _: None,
    report_transfer: Callable[[DownloadProgress], None] | None = None,
    networks: dict[LoadedAs, Network] | None = None,
    **given: Any,
) -> JobSummary:
    """Make a video four times larger, frame for frame; all other streams are copied.

    If an earlier call with the same options was interrupted, this one resumes where it stopped.

    Args:
        src: The video to read; a folder of images, or names such as "frame_%05d.png"; or "-" for
            YUV4MPEG2 on standard input.
        dst: The file to write; its ending chooses the container. A name without an ending, or such
            as "frame_%05d.png", is for images, and "-" stands for YUV4MPEG2 on standard output.
            A file appears when it is complete.
        options: The options, if they have been read already.
        confirm: Called with the plan before the work starts; the job ends if it returns false.
        report: Called in this thread for each finished frame, and twice a second while a window is
            computed, where the network can tell (`Network.paced`, without CUDA graphs).
        should_stop: Called at each resume point; the job stops there if it returns true.
        warn: Called, before the work starts, with warnings about the input and about what the
            output cannot hold.
        report_transfer: Called while a weight file is downloaded.
        networks: Keeps the network for the next call with it; not on several devices.
        given: Instead of `options`: each by its name in `UpscaleOptions`, such as ``window=16``.

    Returns:
        A summary.

    Raises:
        TypeError: If there is no option of a name.
        Interrupted: If `should_stop` returned true.
        Declined: If `confirm` returned false.
        VsrmError: Another subclass, if the video cannot be read, the result cannot be
            written or checked, or an option cannot work. Nothing is left under `dst`'s name.
    """
    if options is None:
        options = UpscaleOptions.read(**given)
    elif given:
        raise TypeError(f"got both an options object and {', '.join(given)}")
    if options.hwaccel:
        encoding, replacement = replace_absent_hardware(encoding_of(options))
        if replacement is not None:
            warn(replacement)
            options = replace(options, codec=encoding.codec, preset=encoding.preset)
    request = Request(
        src=Path(src),
        dst=Path(dst),
        confirm=confirm,
        report=report,
        report_transfer=report_transfer,
        should_stop=should_stop,
        warn=warn,
        networks={} if networks is None else networks,
    )
    if confirm is not None and options.cluster:
        raise UsageError("A plan is for this machine only; ask for it without --cluster.")
    upscale = _upscale_through_pipe if PIPE in (request.src, request.dst) else _upscale_in_segments
    return upscale(request, options)


def _upscale_in_segments(request: Request, options: UpscaleOptions) -> JobSummary:
    """Upscale a file into a file, from where an earlier call stopped."""
    began = time.perf_counter()
    src, dst = request.src, request.dst
    files = find_images(src) if is_sequence(src) else [src]
    cluster = Cluster(options.cluster) if options.cluster else None
    with cluster or nullcontext(), open_input(src, options) as source:
        if cluster is None:
            devices = find_devices(options.device, mixed=options.mixed)
            kind = device_kind(devices)
        else:
            devices, kind = [], cluster.device_kind(options.device)
        options, reason = resolve_model(options, source.info, files, report=request.report_transfer)
        check_output(dst, files, overwrite=options.overwrite)
        with Journal(dst) as journal:
            with open_output(dst, source, options, folder=journal.folder) as output:
                content = describe_files(files)
                journal.load(content | _describe(request, options, kind), restart=options.restart)
                frames_resumed = journal.frames_kept
                _warn_beforehand(source, output, request, options)
                if scarcity := check_disk_space(
                    output, journal, expected_frames(source.info, options)
                ):
                    request.warn(scarcity)
                job = Job(request, options, reason, source, output, journal)
                if cluster is not None:
                    make_workers = partial(make_node_workers, cluster, kind, files, request.warn)
                    run = _run_on_devices(make_workers, devices, job)
                elif len(devices) > 1 or journal.after_gap:
                    make_workers = partial(parallel.make_device_workers, devices, request.warn)
                    run = _run_on_devices(make_workers, devices, job)
                else:
                    run = _run_here(job)
                # Sound and all other streams are read only now, and must be of the same file.
                check_unchanged(src, files, content)
                join_segments(output, journal)
                check_unchanged(src, files, content)
            journal.clear()
    return JobSummary.of(
        source,
        output,
        options,
        run,
        path=dst,
        model_reason=reason,
        frames_resumed=frames_resumed,
        seconds=time.perf_counter() - began,
    )


def _run_here(job: Job) -> InferenceSummary:
    """Make the missing segments, in this process."""
    options, journal = job.options, job.journal
    network = _load(job.request, options, job.source.info, journal.settings)
    restorer = new_restorer(network, options, journal.settings)
    hardware = [hardware_of(network.device)]
    settings = JobSettings(
        device=str(network.device),
        hardware=resolve_hardware(hardware, journal, mixed=options.mixed),
        dtype=DTYPE_NAMES[network.dtype],
        threads=torch.get_num_threads(),
    )
    _confirm(job, network, restorer, device=settings.device)
    journal.discard_unfinished()
    memory = PeakMemory(network.device)
    _restore(job, restorer, settings)
    return replace(
        InferenceSummary.of(job.source, network, restorer, memory),
        equal=settings.hardware != MIXED and len({entry.tile for entry in journal.entries}) == 1,
    )


def _run_on_devices(
    make_workers: Callable[[WorkerSettings], parallel.DeviceWorkers],
    devices: Sequence[str],
    job: Job,
) -> InferenceSummary:
    """Make the missing segments, with a worker for each device."""
    request, options, info, earlier = (
        job.request,
        job.options,
        job.source.info,
        job.journal.settings,
    )
    if request.confirm is not None:  # speed and memory are measured on the first device
        network = _load(request, options, info, earlier)
        restorer = new_restorer(network, options, earlier)
        _confirm(job, network, restorer, device=",".join(devices))
        del network, restorer
    else:
        scale = network_scale(options.model, report=request.report_transfer)
        if advice := suggest_network(info, options, str(options.model), scale):
            request.warn(advice)
    return parallel.restore_on_devices(make_workers, job)


def _confirm(job: Job, network: Network, restorer: Restorer, *, device: str) -> None:
    """Show the plan, if there is a `confirm`.

    Raises:
        Declined: If it returns false.
    """
    if job.request.confirm is None:
        return
    plan = JobPlan.of(
        job.source,
        restorer,
        job.output,
        job.journal,
        job.options,
        model=network.name,
        model_reason=job.model_reason,
        device=device,
        dtype=DTYPE_NAMES[network.dtype],
    )
    if not job.request.confirm(plan):
        raise Declined("Nothing was done.")


def _upscale_through_pipe(request: Request, options: UpscaleOptions) -> JobSummary:
    """Upscale from standard input or to standard output; this cannot be resumed."""
    began = time.perf_counter()
    if options.cluster or len(find_devices(options.device, mixed=True)) > 1:
        raise UsageError(
            "A job with a pipe runs on one device of this machine; name one with --device."
        )
    with open_input(request.src, options) as source:
        options, reason = resolve_model(options, source.info, report=request.report_transfer)
        with open_direct_output(request.dst, source, options) as output:
            _warn_beforehand(source, output, request, options)
            network = _load(request, options, source.info, None)
            restorer = new_restorer(network, options, None)
            memory = PeakMemory(network.device)

            def restore(frames: Iterable[Frame]) -> Iterator[Frame]:
                for frame in restorer.restore(frames):
                    if request.should_stop():
                        raise Interrupted("interrupted: a job with a pipe cannot be resumed")
                    yield frame

            read_depth, write_depth = queue_depths(source.info, options, restorer)
            run_stages(
                source.frames(),
                restore,
                output.write,
                read_depth=read_depth,
                write_depth=write_depth,
                frames_expected=expected_frames(source.info, options),
                report=request.report,
                watch=restorer.watch,
            )
            check_counts(read=source.frames_read, written=output.frames_written)
    run = InferenceSummary.of(source, network, restorer, memory)
    return JobSummary.of(
        source,
        output,
        options,
        run,
        path=request.dst,
        model_reason=reason,
        frames_resumed=0,
        seconds=time.perf_counter() - began,
    )


def _warn_beforehand(
    source: ResumableReader, output: FrameWriter, request: Request, options: UpscaleOptions
) -> None:
    for notice in (*source.notices, *(f"dropped: {part}" for part in output.dropped)):
        request.warn(notice)
    if advice := suggest_height(options, output.shape):
        request.warn(advice)


def _describe(request: Request, options: UpscaleOptions, kind: str) -> JobIdentity:
    """Everything that the output depends on besides the input; must be equal to resume."""
    return {
        "weights": weights_checksum(
            options.model, detail=options.detail, report=request.report_transfer
        ),
        **options.for_journal(),
        "device": kind,
        "version of vsrm": __version__,
        "version of PyAV": version("av"),
        "version of PyTorch": torch.__version__,
    }


def _load(
    request: Request, options: UpscaleOptions, info: VideoInfo, earlier: JobSettings | None
) -> Network:
    """Load the network, on the device and in the precision that the job started with."""
    device, dtype = find_devices(options.device, mixed=True)[0], options.dtype
    if earlier is not None:
        dtype = earlier.dtype
        if device == "auto":
            device = earlier.device.split(",")[0]
        # Sums over another number of threads differ by rounding.
        torch.set_num_threads(earlier.threads or torch.get_num_threads())
    options = replace(options, device=device, dtype=dtype)
    weights = weights_checksum(options.model, detail=options.detail, report=request.report_transfer)
    loaded_as = (weights, device, dtype)
    if loaded_as not in request.networks:
        request.networks.clear()  # memory is for one
        request.networks[loaded_as] = load_network(options, request.report_transfer)
    network = request.networks[loaded_as]
    if advice := suggest_network(info, options, network.name, network.scale):
        request.warn(advice)
    return network


def load_network(
    options: UpscaleOptions, report_transfer: Callable[[DownloadProgress], None] | None
) -> Network:
    """Load the network of the options."""
    return load_model(
        options.model,
        device=options.device,
        dtype=options.dtype,
        detail=options.detail,
        report=report_transfer,
    )


def _restore(job: Job, restorer: Restorer, settings: JobSettings) -> None:
    """Pass every unfinished frame from the source through the network to segments.

    Raises:
        Interrupted: If `should_stop` returned true.
    """
    source, options, journal, request = job.source, job.options, job.journal, job.request
    begin = journal.resume_point
    frames = segment_frames(journal, options)
    segmenter = Segmenter(restorer.windows.stride, frames=frames, first=begin.next)
    container = segment_container(job.output, journal)
    recorder = SegmentRecorder(
        job.output, restorer.windows, container, folder=journal.folder, after=begin, add=journal.add
    )

    def restore(frames: Iterable[Frame]) -> Iterator[RestoredFrame]:
        restored = restorer.restore(frames, begin=begin.next - begin.shot)
        for item in segmenter.cut(restored, should_stop=request.should_stop):
            tile, batch = item.frame.tile, restorer.batch
            now = replace(settings, tile=tile, batch=batch, segment_frames=segmenter.frames)
            if journal.settings != now:
                journal.write_settings(now)
            yield item

    read_depth, write_depth = queue_depths(source.info, options, restorer)
    try:
        run_stages(
            source.frames(after=begin),
            restore,
            recorder.write,
            read_depth=read_depth,
            write_depth=write_depth,
            frames_before=begin.next,
            frames_expected=expected_frames(source.info, options),
            report=request.report,
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
