"""A job on several devices: one worker for each, which makes consecutive segments.

A segment depends on the input, its frame numbers and the settings only. So all segments are planned
first, by reading the input once, and settings that can change pixels are chosen once for all
devices. It does not matter which device makes a segment, or when.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch

from vsrm_cli.errors import CheckFailed, Interrupted, VsrmError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.restorer import plan_windows
from vsrm_cli.upscale.devices import MIXED, resolve_hardware
from vsrm_cli.upscale.distributed.segment_worker import (
    DeviceFacts,
    FinishedSegment,
    SegmentTask,
    SegmentWorker,
    WorkerSettings,
)
from vsrm_cli.upscale.distributed.workers import Workers
from vsrm_cli.upscale.entries import JournalEntry
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.pipeline import Progress
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.request import Job
from vsrm_cli.upscale.resumable_reader import ResumableReader
from vsrm_cli.upscale.segmenting import (
    PLANNED_WINDOWS,
    PlannedSegment,
    check_counts,
    plan_segments,
    segment_container,
    segment_frames,
)
from vsrm_cli.upscale.settings import JobSettings
from vsrm_cli.upscale.summary import InferenceSummary

DeviceWorkers = Workers[SegmentTask, FinishedSegment]


def make_device_workers(
    devices: Sequence[str], warn: Callable[[str], None], settings: WorkerSettings
) -> DeviceWorkers:
    """Make a worker for each device of this machine."""
    return Workers(partial(SegmentWorker, settings), devices, warn=warn)


def restore_on_devices(
    make_workers: Callable[[WorkerSettings], DeviceWorkers], job: Job
) -> InferenceSummary:
    """Make all segments that are not finished.

    Args:
        make_workers: Makes the workers from the settings.
        job: Its `report` is called with the total progress of all devices, its `warn` with each
            failure that does not end the work, and if a device stays idle. Its `should_stop` is
            polled; once it returns true, the segments in progress are finished.

    Raises:
        Interrupted: If `should_stop` returned true.
        VsrmError: If a device cannot be used, or a segment fails three times.
    """
    source, journal, request = job.source, job.journal, job.request
    settings = _settings(job)
    with make_workers(settings) as workers:
        try:
            facts: list[DeviceFacts] = workers.facts()
            chosen = _choose(workers.devices, facts, settings, journal)
            planned_at = time.monotonic()
            segments = _plan(job, chosen)
            # Before a segment, a worker may have to read all frames that precede it.
            workers.timeout_seconds += 3 * (time.monotonic() - planned_at)
            journal.discard_unfinished()
            journal.write_settings(chosen)
            tasks = [
                SegmentTask(segment, chosen.tile, chosen.batch or 1)
                for segment in segments
                if segment.first not in journal.after_gap
            ]
            if 0 < len(tasks) < (count := len(workers.devices)):
                request.warn(
                    f"only {len(tasks)} of {count} devices are used: the video has no more "
                    "segments left; a smaller --segment-frames makes more of them"
                )
            finished: list[FinishedSegment] = []
            began, frames_before = time.perf_counter(), journal.frames_kept
            accept = partial(_accept, chosen)
            for result in workers.do(tasks, should_stop=request.should_stop, accept=accept):
                if result is not None:
                    task, done = result
                    _check(done.entry, task.segment, source)
                    journal.add(done.entry, move_from=settings.folder / done.folder)
                    finished.append(done)
                journal.flush_if_due()
                if request.report:
                    shares = workers.shares()
                    request.report(_progress(shares, frames_before, source.frames_read, began))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(journal.resume_hint()) from None
    if journal.frames_done < source.frames_read:
        raise Interrupted(journal.resume_hint())
    check_counts(read=source.frames_read, written=journal.frames_done)
    return _describe_run(source, journal, chosen, facts[0], finished)


def _accept(chosen: JobSettings, facts: DeviceFacts) -> None:
    """Check that a worker that joins later has the same hardware as the others.

    Raises:
        VsrmError: If it has not.
    """
    if chosen.hardware not in (MIXED, facts.hardware):
        raise VsrmError(f"it runs on {facts.hardware}, and the others on {chosen.hardware}")


def _describe_run(
    source: ResumableReader,
    journal: Journal,
    chosen: JobSettings,
    facts: DeviceFacts,
    finished: Sequence[FinishedSegment],
) -> InferenceSummary:
    """Describe how the network ran, from the facts of a device and all finished segments."""
    peaks = [done.peak_memory_bytes for done in finished if done.peak_memory_bytes is not None]
    return InferenceSummary(
        model=facts.model,
        model_scale=facts.model_scale,
        device=chosen.device,
        dtype=facts.dtype,
        tile=chosen.tile,
        decoder=finished[0].decoder if finished else source.decoder,
        equal=chosen.hardware != MIXED
        and all(entry.tile == chosen.tile for entry in journal.entries)
        and all(done.batch == chosen.batch for done in finished),
        peak_memory_bytes=max(peaks, default=None),
        warnings=tuple(dict.fromkeys(words for done in finished for words in done.warnings)),
    )


def _settings(job: Job) -> WorkerSettings:
    """The settings for the devices: those of an earlier run, else the options."""
    earlier = job.journal.settings
    return WorkerSettings(
        src=job.source.path.absolute(),
        dst=job.output.path.absolute(),
        options=job.options,
        earlier=earlier,
        threads=(earlier and earlier.threads) or torch.get_num_threads(),
        folder=job.journal.folder.absolute(),
        container=segment_container(job.output, job.journal),
    )


def _choose(
    devices: Sequence[str], facts: Sequence[DeviceFacts], settings: WorkerSettings, journal: Journal
) -> JobSettings:
    """Choose settings that every device supports."""
    tiles = [about.tile for about in facts if about.tile is not None]
    stride = plan_windows(settings.options.window, settings.options.overlap).stride
    return JobSettings(
        device=",".join(devices),
        hardware=resolve_hardware(
            [about.hardware for about in facts], journal, mixed=settings.options.mixed
        ),
        dtype=facts[0].dtype,
        threads=settings.threads,
        tile=min(tiles, default=None),
        batch=min(about.batch for about in facts),
        segment_frames=segment_frames(journal, settings.options) or PLANNED_WINDOWS * stride,
    )


def _plan(job: Job, chosen: JobSettings) -> list[PlannedSegment]:
    """Read the rest of the input, and plan its segments.

    Later segments in the journal are kept if they match the plan.

    Raises:
        Interrupted: If `should_stop` returned true.
    """
    source, options, journal, request = job.source, job.options, job.journal, job.request
    expected = expected_frames(source.info, options)
    began = time.perf_counter()

    def watched() -> Iterator[Frame]:
        for number, frame in enumerate(source.frames(after=journal.resume_point), 1):
            if request.should_stop():
                raise Interrupted(journal.resume_hint())
            if request.report:
                fps = number / (time.perf_counter() - began)
                request.report(Progress(journal.frames_kept, expected, decode_fps=fps))
            yield frame

    windows = plan_windows(options.window, options.overlap)
    length = chosen.segment_frames or 1
    segments = plan_segments(watched(), windows, length=length, after=journal.resume_point)
    journal.keep_only({segment.first: segment.resume_point for segment in segments})
    return segments


def _check(entry: JournalEntry, segment: PlannedSegment, source: ResumableReader) -> None:
    """Check that a device has read the same frames as the plan.

    Raises:
        CheckFailed: If it has not.
    """
    if (entry.first, entry.resume_point) != (segment.first, segment.resume_point):
        raise CheckFailed(
            f"{source.path} gives other frames after seeking to frame {segment.first} than when "
            "it is read from the start; give --restart and a single --device."
        )


def _progress(
    shares: Sequence[tuple[str, int]], frames_before: int, frames_total: int, began: float
) -> Progress:
    done = sum(frames for _, frames in shares)
    seconds = time.perf_counter() - began
    left = frames_total - frames_before - done
    return Progress(
        frames_done=frames_before + done,
        frames_expected=frames_total,
        network_fps=done / seconds if seconds else 0.0,
        seconds_left=seconds / done * left if done else None,
        shares=tuple(shares),
    )
