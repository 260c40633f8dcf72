"""A worker that makes segments on one device, in its own process, here or on another machine."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from uuid import uuid4

import torch

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.errors import InputError, MemoryShortage, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.memory import PeakMemory, is_memory_shortage
from vsrm_cli.upscale.devices import DTYPE_NAMES, MIXED, hardware_of, new_restorer, queue_depths
from vsrm_cli.upscale.entries import JournalEntry
from vsrm_cli.upscale.open_media import open_input, open_output
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import ReadAhead, WriteBehind
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.resumable_reader import ResumableReader
from vsrm_cli.upscale.segmenting import PlannedSegment, RestoredFrame, SegmentRecorder
from vsrm_cli.upscale.settings import JobSettings
from vsrm_cli.upscale.summary import network_warnings


@dataclass(frozen=True)
class WorkerSettings:
    """Settings of all workers.

    Attributes:
        src: The input.
        dst: The output.
        options: Of the job.
        earlier: Settings of the interrupted job that is resumed.
        threads: For each process.
        folder: Where the segments go.
        container: Of segments of a video.
    """

    src: Path
    dst: Path
    options: UpscaleOptions
    earlier: JobSettings | None
    threads: int
    folder: Path
    container: str


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

    entry: JournalEntry
    folder: str
    batch: int
    decoder: str
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class _Stream:
    """Frames of the input that are read and restored one after another.

    Attributes:
        source: The input.
        restored: The restored frames.
        next: Number of the next one.
    """

    source: ResumableReader
    restored: Iterator[Frame]
    next: int


class SegmentWorker:
    """Makes segments on one device, in its own process.

    Attributes:
        facts: About the device.
    """

    def __init__(self, settings: WorkerSettings, device: str) -> None:
        """Load the network and check the output.

        Raises:
            VsrmError: If the device cannot be used, or the output cannot be written from here.
        """
        self._settings = settings
        options = settings.options
        earlier, dtype = settings.earlier, options.dtype
        if earlier is not None and earlier.hardware != MIXED:
            dtype = earlier.dtype
        torch.set_num_threads(settings.threads)
        try:
            network = load_model(options.model, device=device, dtype=dtype, detail=options.detail)
            with open_input(settings.src, options) as source:
                self._info = source.info
                self._output = open_output(settings.dst, source, options, folder=settings.folder)
            self._restorer = new_restorer(network, options, earlier)
            frames = min(options.window, expected_frames(self._info, options) or options.window)
            self._restorer.choose_tile(frames, self._info.height, self._info.width)
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
        self._stream: _Stream | None = None
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
        entries: list[JournalEntry] = []
        clear_folder(self._folder)
        recorder = SegmentRecorder(
            self._output,
            self._restorer.windows,
            self._settings.container,
            folder=self._folder,
            after=segment.after,
            add=entries.append,
        )
        read_depth, write_depth = queue_depths(self._info, self._settings.options, self._restorer)
        try:
            stream = self._stream_for(task, read_depth)
            with WriteBehind(recorder.write, depth=write_depth) as encoded:
                self._restorer.watch(lambda _: report(encoded.timer.items))
                restored = islice(stream.restored, segment.stop - segment.first)
                for stop, frame in enumerate(restored, segment.first + 1):
                    encoded.put(RestoredFrame(frame, ends_segment=stop == segment.stop))
                    report(encoded.timer.items)
                encoded.finish()
                report(encoded.timer.items)
            if not entries:
                raise InputError(
                    f"{stream.source.path} ends earlier than when the work was planned."
                )
            self._stream = replace(stream, next=segment.stop)
        except BaseException:
            self.close()
            raise
        finally:
            recorder.abandon()
        return FinishedSegment(
            entries[0],
            self._folder.name,
            batch=self._restorer.batch or 1,
            decoder=stream.source.decoder,
            peak_memory_bytes=self._memory.read_bytes(),
            warnings=network_warnings(self._restorer),
        )

    def close(self) -> None:
        """Stop reading and restoring; the next segment starts afresh."""
        self._stream = None
        self._opened.close()

    def _stream_for(self, task: SegmentTask, depth: int) -> _Stream:
        """The stream of the last task if this one continues it, else one from its margin.

        It is not continued with other tiles, which lack of memory reduces; nor with batches, which
        start anew with each segment and change rounding.
        """
        segment, tile, batch = task.segment, self._restorer.tile, self._restorer.batch
        is_same = (tile, batch) == (task.tile, task.batch) and batch == 1
        if self._stream is not None and self._stream.next == segment.first and is_same:
            return self._stream
        self.close()
        # Lack of memory reduces them for one segment only.
        self._restorer.tile, self._restorer.batch = task.tile, task.batch
        opened = self._opened
        source = opened.enter_context(open_input(self._settings.src, self._settings.options))
        frames = source.frames(after=segment.after)
        if task.batch > 1:
            # No window of the next segment may join the last batch.
            margin = len(segment.after.margin)
            frames = islice(frames, segment.read_stop - segment.first + margin)
        decoded = opened.enter_context(ReadAhead(frames, depth=depth))
        restored = self._restorer.restore(decoded, begin=segment.first - segment.after.shot)
        return _Stream(source, opened.enter_context(closing(restored)), segment.first)


def clear_folder(folder: Path) -> None:
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
