"""A worker that makes segments on one device, in its own process, here or on another machine."""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from uuid import uuid4

import torch

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.errors import InputError, MemoryShortage, OutputError
from vsrm_cli.inference.memory import PeakMemory, is_memory_shortage
from vsrm_cli.upscale.devices import DTYPE_NAMES, MIXED, hardware_of, new_restorer, queue_depths
from vsrm_cli.upscale.journal import Choices, Entry
from vsrm_cli.upscale.open_media import open_output, open_source
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import ReadAhead, WriteBehind
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.segmenting import PlannedSegment, Recorder, Restored
from vsrm_cli.upscale.summary import network_warnings


@dataclass(frozen=True)
class Settings:
    """Settings of all workers.

    Attributes:
        src: The input.
        dst: The output.
        options: Of the job.
        chosen: Settings of an earlier run; None if there was none.
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
    """Facts about a device, and the settings that it would choose."""

    model: str
    model_scale: int
    hardware: str
    dtype: str
    tile: int | None
    batch: int


@dataclass(frozen=True)
class SegmentTask:
    """A segment, with the settings chosen for all segments."""

    segment: PlannedSegment
    tile: int | None
    batch: int

    def __str__(self) -> str:
        """Its name in messages."""
        return f"the segment of frames {self.segment.first} to {self.segment.stop - 1}"


@dataclass(frozen=True)
class FinishedSegment:
    """The result: the entry of the closed segment, its files, and statistics."""

    entry: Entry
    made_in: str
    batch: int
    decoder: str
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


class SegmentWorker:
    """Makes segments on one device, in its own process.

    Attributes:
        facts: About the device.
    """

    def __init__(self, settings: Settings, device: str) -> None:
        """Load the network and check the output.

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
            self._output.segment_container = settings.container
            self._restorer = new_restorer(network, options, chosen)
            frames = min(options.window, expected_frames(self._info, options) or options.window)
            self._restorer.settle_tile(frames, self._info.height, self._info.width)
        except RuntimeError as error:
            if not is_memory_shortage(error):
                raise
            raise MemoryShortage(
                f"{device} has too little free memory; close other programs, or leave it out."
            ) from error
        self._memory = PeakMemory(network.device)
        # The parent moves finished segments out of this worker's own folder. So it is harmless if a
        # segment is made twice, for example by a worker that was assumed dead.
        self._folder = settings.folder / f"{uuid4().hex}.part"
        self._opened = ExitStack()
        self._next: int | None = None
        self._report_frames: Callable[[], None] = lambda: None
        self.facts = DeviceFacts(
            model=network.name,
            model_scale=network.scale,
            hardware=hardware_of(network.device),
            dtype=DTYPE_NAMES[network.dtype],
            tile=self._restorer.tile,
            batch=self._restorer.batch or 1,
        )

    def work(self, task: SegmentTask, report: Callable[[int], None]) -> FinishedSegment:
        """Make a segment; `report` is called with the number of finished frames.

        Raises:
            VsrmError: If that fails.
        """
        segment = task.segment
        entries: list[Entry] = []
        make_empty(self._folder)
        recorder = Recorder(
            self._output,
            self._restorer.windows,
            folder=self._folder,
            behind=segment.behind,
            add=entries.append,
        )
        read_depth, write_depth = queue_depths(self._info, self._settings.options, self._restorer)
        try:
            if not self._continues_with(task):
                self._start_at(task, read_depth)
            with WriteBehind(recorder.write, depth=write_depth) as encoded:
                self._report_frames = lambda: report(encoded.timer.items)
                restored = islice(self._restored, segment.stop - segment.first)
                for stop, frame in enumerate(restored, segment.first + 1):
                    encoded.put(Restored(frame, ends_segment=stop == segment.stop))
                    self._report_frames()
                encoded.finish()
                self._report_frames()
            if not entries:
                raise InputError(
                    f"{self._source.path} ends earlier than when the work was planned."
                )
            self._next = segment.stop
        except BaseException:
            self.close()
            raise
        finally:
            recorder.abandon()
        return FinishedSegment(
            entries[0],
            self._folder.name,
            batch=self._restorer.batch or 1,
            decoder=self._source.decoder,
            peak_memory_bytes=self._memory.read_bytes(),
            warnings=network_warnings(self._restorer),
        )

    def close(self) -> None:
        """Stop reading and restoring; the next segment starts afresh."""
        self._next = None
        self._opened.close()

    def _continues_with(self, task: SegmentTask) -> bool:
        """Whether a task continues the last one, and a fresh start would give the same frames.

        Not with other tiles, which lack of memory reduces; nor with batches, which start anew with
        each segment and change rounding.
        """
        settings = (self._restorer.tile, self._restorer.batch)
        return (
            task.segment.first == self._next
            and settings == (task.tile, task.batch)
            and task.batch == 1
        )

    def _start_at(self, task: SegmentTask, depth: int) -> None:
        """Start to read and restore, from the margin of a segment."""
        self.close()
        segment, behind = task.segment, task.segment.behind
        # Lack of memory reduces them for one segment only.
        self._restorer.tile, self._restorer.batch = task.tile, task.batch
        self._source = self._opened.enter_context(
            open_source(self._settings.src, self._settings.options)
        )
        frames = self._source.frames(behind=behind)
        if task.batch > 1:
            # No window of the next segment may join the last batch.
            margin = len(behind.margin) if behind else 0
            frames = islice(frames, segment.read_stop - segment.first + margin)
        decoded = self._opened.enter_context(ReadAhead(frames, depth=depth))
        self._restorer.watch(lambda _: self._report_frames())
        begin = segment.first - (behind.shot if behind else 0)
        self._restored = self._opened.enter_context(
            closing(self._restorer.restore(decoded, begin=begin))
        )


def make_empty(folder: Path) -> None:
    """Make a folder, or delete the remains of a failed segment in it.

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
