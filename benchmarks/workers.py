"""Measure the speedup of several processes, and the overhead of planning and assigning segments.

    python benchmarks/workers.py            # two workers of one thread against one, on two cores
    python benchmarks/workers.py --overhead # 10,000 segments that take no work

The first prints the time of two workers divided by that of one; the limit is 0.6. The second prints
the seconds for everything but decoder, network, encoder and join; the limit is 30. Run it on an
otherwise idle machine.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from fractions import Fraction
from functools import partial
from pathlib import Path

import av
import numpy as np
import torch

from vsrm_cli import upscale_video
from vsrm_cli.frame import Fingerprint, Frame, FrameRecord
from vsrm_cli.inference.restorer import plan_windows
from vsrm_cli.upscale.distributed.segment_worker import clear_folder
from vsrm_cli.upscale.distributed.workers import Workers
from vsrm_cli.upscale.entries import JournalEntry
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.segmenting import PlannedSegment, plan_segments
from vsrm_cli.upscale.settings import JobSettings

WINDOWS = plan_windows(24, 4)


def print_line(line: str) -> None:
    """Print a line."""
    print(line, flush=True)  # noqa: T201 - this script is a terminal program


class StubWorker:
    """Writes an empty file for each segment, in place of a real worker."""

    def __init__(self, folder: Path, device: str) -> None:
        """Choose a folder."""
        self.facts = device
        self._folder = folder / f"{os.getpid()}.part"

    def work(self, task: PlannedSegment, report: Callable[[int], None]) -> tuple[JournalEntry, str]:
        """Write an empty segment and return its entry."""
        ticks = list(range(task.first, task.stop))
        name = f"{task.first:09}.mp4"
        clear_folder(self._folder)
        with (self._folder / name).open("wb") as file:
            os.fsync(file.fileno())
        entry = JournalEntry(name, ticks, task.stop, None, task.resume_point)
        return entry, self._folder.name


def draw_clip(path: Path, frames: int) -> None:
    """Write a clip with motion and without scene cuts, so that all windows are full.

    Blocks of color move by one pixel per frame. In noise, most frames would be detected as cuts.
    """
    colors = np.random.default_rng(0).integers(0, 255, (12, 20 + frames // 8 + 1, 3), np.uint8)
    blocks = colors.repeat(8, axis=0).repeat(8, axis=1)[:90]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"preset": "ultrafast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        for number in range(frames):
            drawn = np.ascontiguousarray(blocks[:, number : number + 160])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn, format="rgb24")))
        container.mux(stream.encode())


def measure_gain(frames: int) -> float:
    """The time of a job on two workers divided by that on one; one thread each, with startup."""
    torch.set_num_threads(1)
    seconds = {}
    with tempfile.TemporaryDirectory() as folder:
        clip = Path(folder) / "small.mp4"
        draw_clip(clip, frames)
        for device in ("cpu", "cpu,cpu"):
            began = time.perf_counter()
            upscale_video(
                clip,
                Path(folder) / f"{device}.mp4",
                model="vsrm-t",
                device=device,
                window=12,
                overlap=2,
                segment_frames=30,
                preset="ultrafast",
            )
            seconds[device] = time.perf_counter() - began
            print_line(f"{device}: {seconds[device]:.1f} s for {frames} frames of 160x90")
    return seconds["cpu,cpu"] / seconds["cpu"]


def stub_frames(count: int) -> Iterator[Frame]:
    """Frames of one pixel, with records as from a reader."""
    pixels = np.zeros((3, 1, 1), np.uint8)
    for number in range(count):
        record = FrameRecord(number, Fingerprint(f"{number}/25", number))
        yield Frame(pixels, Fraction(number, 25), record=record)


def measure_overhead(segments: int) -> float:
    """Seconds to plan, assign and record segments, and to read the journal again."""
    frames = segments * WINDOWS.stride
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        with Journal(Path(folder) / "large.mp4") as journal:
            journal.load({}, restart=False)
            planned = plan_segments(stub_frames(frames), WINDOWS, length=WINDOWS.stride)
            planned_at = time.perf_counter()
            journal.discard_unfinished()
            settings = JobSettings(device="cpu,cpu", hardware="cpu", dtype="fp32", threads=1)
            journal.write_settings(settings)
            open_worker = partial(StubWorker, journal.folder)
            with Workers(open_worker, ["cpu", "cpu"], warn=print_line) as workers:
                workers.facts()
                ready_at = time.perf_counter()
                for result in workers.do(planned, should_stop=lambda: False):
                    if result is not None:
                        entry, move_from = result[1]
                        journal.add(entry, move_from=journal.folder / move_from)
                    journal.flush_if_due()
            done_at = time.perf_counter()
        with Journal(Path(folder) / "large.mp4") as journal:
            journal.load({}, restart=False)
            assert journal.frames_done == frames, "segments are missing"
        ended = time.perf_counter()
    print_line(
        f"{len(planned)} segments: planned in {planned_at - began:.1f} s, "
        f"workers started in {ready_at - planned_at:.1f} s, "
        f"assigned and recorded in {done_at - ready_at:.1f} s, "
        f"journal read again in {ended - done_at:.1f} s"
    )
    return ended - began


def main() -> None:
    """Measure one of the two."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--overhead", action="store_true", help="measure 10,000 empty segments")
    parser.add_argument("--frames", type=int, default=600, help="of the clip (default: 600)")
    parser.add_argument("--segments", type=int, default=10_000)
    options = parser.parse_args()
    if options.overhead:
        seconds = measure_overhead(options.segments)
        print_line(f"overhead: {seconds:.1f} s (limit: 30 s)")
        sys.exit(seconds > 30)
    if hasattr(os, "sched_getaffinity"):
        print_line(f"cores: {len(os.sched_getaffinity(0))}, load: {os.getloadavg()[0]:.1f}")
    ratio = measure_gain(options.frames)
    print_line(f"ratio: {ratio:.2f} (limit: 0.6)")
    sys.exit(ratio > 0.6)


if __name__ == "__main__":
    main()
