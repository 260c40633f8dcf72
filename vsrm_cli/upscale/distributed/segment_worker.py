"""A worker that makes segments on one device, in its own process, here or on another machine."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from uuid import uuid4

import torch

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.errors import InputError, MemoryShortage, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.memory import PeakMemory, is_memory_shortage
from vsrm_cli.upscale.devices import DTYPE_NAMES, MIXED, hardware_of, new_restorer, queue_depths
from vsrm_cli.upscale.journal import Choices, Entry
from vsrm_cli.upscale.open_media import open_output, open_source
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import run_stages
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.segmenting import PlannedSegment, Recorder, Restored
from vsrm_cli.upscale.source import Source
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
            if isinstance(self._output, VideoWriter):
                self._output.segment_container = settings.container
            self._restorer = new_restorer(network, options, chosen)
            frames = min(options.window, expected_frames(self._info, options) or options.window)
            self._restorer.settle_tile(frames, self._info.height, self._info.width)
            self._report: Callable[[float], None] = lambda _: None
            self._restorer.watch(lambda ahead: self._report(ahead))
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
        segment, options = task.segment, self._settings.options
        # Lack of memory reduces them for one segment only.
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

    def _listen(self, report: Callable[[float], None]) -> None:
        self._report = report

    def _restore(self, segment: PlannedSegment, frames: Iterable[Frame]) -> Iterator[Restored]:
        begin = segment.first - (segment.behind.shot if segment.behind else 0)
        restored = self._restorer.restore(frames, begin=begin)
        for number in range(segment.first, segment.stop):
            frame = next(restored, None)
            if frame is None:
                return
            yield Restored(frame, ends_segment=number + 1 == segment.stop)


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


def _needed(source: Source, segment: PlannedSegment) -> Iterator[Frame]:
    """The frames to read for a segment, with its margin and the rest of its last window."""
    margin = len(segment.behind.margin) if segment.behind else 0
    return islice(source.frames(behind=segment.behind), segment.read_stop - segment.first + margin)
