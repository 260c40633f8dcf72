"""A job on several devices: one process for each, which takes the next open segment.

What a segment shows follows from the input, the numbers of its frames and the settings. So all
segments are planned before the work, by reading the input once, and the settings that can change
a pixel are chosen once, for all devices. Who makes a segment, and when, is of no matter.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import uuid4

import torch

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.errors import (
    CheckFailed,
    InputError,
    Interrupted,
    MemoryShortage,
    OutputError,
)
from vsrm_cli.frame import Frame
from vsrm_cli.inference.memory import PeakMemory, is_memory_shortage
from vsrm_cli.inference.restorer import windows_of
from vsrm_cli.upscale.devices import (
    DTYPE_NAMES,
    MIXED,
    hardware_of,
    new_restorer,
    queue_depths,
    settle_hardware,
)
from vsrm_cli.upscale.journal import Choices, Entry, Journal, number_of
from vsrm_cli.upscale.open_media import Collected, open_output, open_source
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import Progress, run_stages
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.segmenting import (
    PLANNED_WINDOWS,
    PlannedSegment,
    Recorder,
    Restored,
    check_counts,
    plan_segments,
)
from vsrm_cli.upscale.source import Source
from vsrm_cli.upscale.summary import Run, network_warnings
from vsrm_cli.upscale.workers import Workers


@dataclass(frozen=True)
class Settings:
    """What all devices are told, beside their segments; see `UpscaleOptions` for the rest.

    Attributes:
        src: The input.
        dst: The output.
        options: What the user has asked for.
        chosen: What an earlier run has chosen; None if there was none.
        threads: For each process.
        folder: Where the segments go.
        container: Of segments of a video.
    """

    src: Path
    dst: Path
    options: UpscaleOptions
    chosen: Choices | None
    threads: int
    folder: Path
    container: str | None


@dataclass(frozen=True)
class DeviceFacts:
    """What a device says of itself, with what it would choose."""

    model: str
    model_scale: int
    hardware: str
    dtype: str
    tile: int | None
    batch: int


@dataclass(frozen=True)
class SegmentTask:
    """A segment, with the settings that were chosen for all of them."""

    segment: PlannedSegment
    tile: int | None
    batch: int

    def __str__(self) -> str:
        """Name it in messages."""
        return f"the segment of frames {self.segment.first} to {self.segment.stop - 1}"


@dataclass(frozen=True)
class FinishedSegment:
    """What comes back: the entry of the closed segment, where its files are, and how it went."""

    entry: Entry
    made_in: str
    batch: int
    decoder: str
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


class SegmentWorker:
    """Makes segments on one device, in a process of its own.

    Attributes:
        facts: What the device is, and what it would choose.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        """Load the network and try the output.

        Raises:
            VsrmError: If the device cannot be used, or the output cannot be written from here.
        """
        self._settings = settings
        options = settings.options
        chosen, dtype = settings.chosen, options.dtype
        if chosen is not None and chosen["hardware"] != MIXED:
            dtype = str(chosen["dtype"])
        torch.set_num_threads(settings.threads)
        try:
            network = load_model(options.model, device=device, dtype=dtype, detail=options.detail)
            with open_source(settings.src, options) as source:
                self._info = source.info
                self._output = open_output(settings.dst, source, options, folder=settings.folder)
            if isinstance(self._output, VideoWriter):
                self._output.segment_container = settings.container
            self._restorer = new_restorer(network, options, chosen)
            frames = min(options.window, expected_frames(self._info, options) or options.window)
            self._restorer.settle_tile(frames, self._info.height, self._info.width)
            self._tell: Callable[[float], None] = lambda _: None
            self._restorer.watch(lambda ahead: self._tell(ahead))
        except RuntimeError as error:
            if not is_memory_shortage(error):
                raise
            raise MemoryShortage(
                f"{device} has not enough free memory; close other programs, or leave it out."
            ) from error
        self._memory = PeakMemory(network.device)
        # Its own: whoever keeps the journal moves finished segments from there. So it does no harm
        # if one is made twice, or by a worker that was believed dead.
        self._folder = settings.folder / f"{uuid4().hex}.part"
        self.facts = DeviceFacts(
            model=network.name,
            model_scale=network.scale,
            hardware=hardware_of(network.device),
            dtype=DTYPE_NAMES[network.dtype],
            tile=self._restorer.tile,
            batch=self._restorer.batch or 1,
        )

    def work(self, task: SegmentTask, report: Callable[[int], None]) -> FinishedSegment:
        """Make a segment; `report` is told how many of its frames are done.

        Raises:
            VsrmError: If that fails.
        """
        segment, options = task.segment, self._settings.options
        # A shortage of memory makes them smaller for one segment only.
        self._restorer.tile, self._restorer.batch = task.tile, task.batch
        entries: list[Entry] = []
        make_empty(self._folder)
        with open_source(self._settings.src, options) as source:
            recorder = Recorder(
                self._output,
                self._restorer.windows,
                folder=self._folder,
                behind=segment.behind,
                add=entries.append,
            )
            read_depth, write_depth = queue_depths(self._info, options, self._restorer)
            try:
                run_stages(
                    _needed(source, segment),
                    partial(self._restore, segment),
                    recorder.write,
                    read_depth=read_depth,
                    write_depth=write_depth,
                    frames_expected=None,
                    report=lambda progress: report(progress.frames_done),
                    watch=self._listen,
                )
            finally:
                recorder.abandon()
            if not entries:
                raise InputError(f"{source.path} ends earlier than when the work was planned.")
            return FinishedSegment(
                entries[0],
                self._folder.name,
                batch=self._restorer.batch or 1,
                decoder=source.decoder,
                peak_memory_bytes=self._memory.read_bytes(),
                warnings=network_warnings(self._restorer),
            )

    def _listen(self, tell: Callable[[float], None]) -> None:
        self._tell = tell

    def _restore(self, segment: PlannedSegment, frames: Iterable[Frame]) -> Iterator[Restored]:
        begin = segment.first - (segment.behind.shot if segment.behind else 0)
        restored = self._restorer.restore(frames, begin=begin)
        for number in range(segment.first, segment.stop):
            frame = next(restored, None)
            if frame is None:
                return
            yield Restored(frame, ends_segment=number + 1 == segment.stop)


def make_empty(folder: Path) -> None:
    """Make a folder, or delete what a segment that failed has left in it.

    Raises:
        OutputError: If it cannot be written.
    """
    try:
        folder.mkdir(exist_ok=True)
        for remainder in folder.iterdir():
            remainder.unlink()
    except OSError as error:
        raise OutputError(
            f"No segment can be written into {folder.parent} ({error.strerror}); make sure that "
            "every worker may write there."
        ) from error


def _needed(source: Source, segment: PlannedSegment) -> Iterator[Frame]:
    """The frames that are read for a segment: its margin, and the rest of its last window."""
    margin = len(segment.behind.margin) if segment.behind else 0
    return islice(source.frames(behind=segment.behind), segment.read_stop - segment.first + margin)


def restore_on_devices(
    devices: Sequence[str],
    stages: tuple[Source, Collected],
    journal: Journal,
    options: UpscaleOptions,
    *,
    report: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
    warn: Callable[[str], None],
) -> Run:
    """Make all segments that are not finished.

    Args:
        devices: One for each process.
        stages: The input and the output.
        journal: What is finished, and where segments go.
        options: What the user has asked for.
        report: Called with the progress of all devices together.
        should_stop: Asked all the time; after a yes the segments at work are finished.
        warn: Called with each failure that does not end the work, and if a device stays idle.

    Raises:
        Interrupted: If `should_stop` said yes.
        VsrmError: If a device cannot be used, or a segment fails three times.
    """
    source, _ = stages
    settings = _settings(stages, journal, options)
    with Workers(partial(SegmentWorker, settings), devices, warn=warn) as workers:
        try:
            facts: list[DeviceFacts] = workers.facts()
            chosen = _choose(devices, facts, settings, journal)
            planned_at = time.monotonic()
            segments = _plan(source, journal, chosen, options, report, should_stop)
            # On its way to a segment, a worker may have to read all that lies before it.
            workers.patience_seconds += 3 * (time.monotonic() - planned_at)
            journal.start()
            journal.begin(chosen)
            tasks = [
                SegmentTask(segment, number_of(chosen["tile"]), int(chosen["batch"] or 1))
                for segment in segments
                if segment.first not in journal.later
            ]
            if 0 < len(tasks) < len(devices):
                warn(
                    f"only {len(tasks)} of {len(devices)} devices are used: the video has no more "
                    "segments left; a smaller --segment-frames makes more of them"
                )
            finished: list[FinishedSegment] = []
            began, frames_before = time.perf_counter(), journal.frames_kept
            for result in workers.do(tasks, should_stop=should_stop):
                if result is not None:
                    task, done = result
                    _check(done.entry, task.segment, source)
                    journal.add(done.entry, made_in=settings.folder / done.made_in)
                    finished.append(done)
                journal.flush_if_due()
                if report:
                    report(_progress(workers.shares(), frames_before, source.frames_read, began))
        except KeyboardInterrupt:
            raise KeyboardInterrupt(journal.resume_hint()) from None
    if journal.frames_done < source.frames_read:
        raise Interrupted(journal.resume_hint())
    check_counts(read=source.frames_read, written=journal.frames_done)
    return _describe_run(source, journal, chosen, facts[0], finished)


def _describe_run(
    source: Source,
    journal: Journal,
    chosen: Choices,
    facts: DeviceFacts,
    finished: Sequence[FinishedSegment],
) -> Run:
    """Tell how the network ran, by what one device says of itself and what all have finished."""
    peaks = [done.peak_memory_bytes for done in finished if done.peak_memory_bytes is not None]
    return Run(
        model=facts.model,
        model_scale=facts.model_scale,
        device=str(chosen["device"]),
        dtype=facts.dtype,
        tile=number_of(chosen["tile"]),
        decoder=finished[0].decoder if finished else source.decoder,
        equal=chosen["hardware"] != MIXED
        and all(entry.tile == chosen["tile"] for entry in journal.entries)
        and all(done.batch == chosen["batch"] for done in finished),
        peak_memory_bytes=max(peaks, default=None),
        warnings=tuple(dict.fromkeys(words for done in finished for words in done.warnings)),
    )


def _settings(
    stages: tuple[Source, Collected], journal: Journal, options: UpscaleOptions
) -> Settings:
    """What the devices are told: what an earlier run chose, and else what was asked for."""
    source, output = stages
    threads = number_of(journal.chosen["threads"]) if journal.chosen else None
    return Settings(
        src=source.path.absolute(),
        dst=output.path.absolute(),
        options=options,
        chosen=journal.chosen,
        threads=threads or torch.get_num_threads(),
        folder=journal.folder.absolute(),
        container=output.segment_container if isinstance(output, VideoWriter) else None,
    )


def _choose(
    devices: Sequence[str], facts: Sequence[DeviceFacts], settings: Settings, journal: Journal
) -> Choices:
    """Choose what every device can do."""
    tiles = [about.tile for about in facts if about.tile is not None]
    stride = windows_of(settings.options.window, settings.options.overlap).stride
    frames = settings.options.segment_frames
    if journal.chosen and journal.chosen["segment frames"] is not None:
        frames = int(journal.chosen["segment frames"])
    return {
        "device": ",".join(devices),
        "hardware": settle_hardware(
            [about.hardware for about in facts], journal, mixed=settings.options.mixed
        ),
        "dtype": facts[0].dtype,
        "threads": settings.threads,
        "tile": min(tiles, default=None),
        "batch": min(about.batch for about in facts),
        "segment frames": frames or PLANNED_WINDOWS * stride,
    }


def _plan(
    source: Source,
    journal: Journal,
    chosen: Choices,
    options: UpscaleOptions,
    report: Callable[[Progress], None] | None,
    should_stop: Callable[[], bool],
) -> list[PlannedSegment]:
    """Read what is left of the input, and say which segments it has.

    What the journal has of later segments is kept where it is one of them.

    Raises:
        Interrupted: If `should_stop` said yes.
    """
    expected = expected_frames(source.info, options)
    began = time.perf_counter()
    behind = journal.entries[-1] if journal.entries else None

    def watched() -> Iterator[Frame]:
        for number, frame in enumerate(source.frames(behind=behind), 1):
            if should_stop():
                raise Interrupted(journal.resume_hint())
            if report:
                fps = number / (time.perf_counter() - began)
                report(Progress(journal.frames_kept, expected, fps, 0.0, 0.0, None))
            yield frame

    windows = windows_of(options.window, options.overlap)
    length = int(chosen["segment frames"] or 1)
    segments = plan_segments(watched(), windows, length=length, behind=behind)
    journal.later = {
        segment.first: entry
        for segment in segments
        if (entry := journal.later.get(segment.first)) and _is_of(entry, segment)
    }
    return segments


def _is_of(entry: Entry, segment: PlannedSegment) -> bool:
    place = (segment.first, segment.stop, segment.ahead.shot, segment.ahead.margin)
    return (entry.first, entry.next, entry.shot, entry.margin) == place


def _check(entry: Entry, segment: PlannedSegment, source: Source) -> None:
    """Make sure that a device has seen the frames that the plan is about.

    Raises:
        CheckFailed: If it has not.
    """
    if not _is_of(entry, segment):
        raise CheckFailed(
            f"{source.path} gives other frames after a jump to frame {segment.first} than when it "
            "is read in one go; give --restart and a single --device."
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
        decode_fps=0.0,
        network_fps=done / seconds if seconds else 0.0,
        encode_fps=0.0,
        seconds_left=seconds / done * left if done else None,
        shares=tuple(shares),
    )
