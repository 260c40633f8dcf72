"""Consecutive segments of one worker are identical to those of separate workers."""

from contextlib import ExitStack, closing
from dataclasses import replace

import pytest
from multi_shot_video import SMALL

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.errors import VsrmError
from vsrm_cli.inference.restorer import plan_windows
from vsrm_cli.upscale.distributed.segment_worker import SegmentTask, SegmentWorker, WorkerSettings
from vsrm_cli.upscale.open_media import open_input
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.segmenting import plan_segments


@pytest.fixture
def counted(monkeypatch):
    """The number of frames in each call of a network."""
    calls = []

    def load(*arguments, **options):
        network = load_model(*arguments, **options)
        network.register_forward_hook(lambda _, clips, __: calls.append(clips[0].shape[1]))
        return network

    monkeypatch.setattr("vsrm_cli.upscale.distributed.segment_worker.load_model", load)
    return calls


@pytest.fixture
def plan(example, tmp_path):
    """The settings of a job, and the tasks of the example."""
    options = UpscaleOptions.read(**SMALL, model=example / "tiny.safetensors", device="cpu")
    settings = WorkerSettings(
        example / "small.mkv", tmp_path / "large.mkv", options, None, 1, tmp_path, "mp4"
    )
    with open_input(settings.src, options) as source:
        segments = plan_segments(
            source.frames(),
            plan_windows(options.window, options.overlap),
            length=SMALL["segment_frames"],
        )
    return settings, [SegmentTask(segment, None, 1) for segment in segments]


@pytest.fixture
def new_worker(plan):
    """Make workers that are closed after the test."""
    with ExitStack() as opened:

        def start():
            return opened.enter_context(closing(SegmentWorker(plan[0], "cpu")))

        yield start


def make(worker, task):
    """Make a segment: what is known of it, and its bytes."""
    done = worker.work(task, lambda _: None)
    file = worker._settings.folder / done.folder / done.entry.file
    return done.entry, file.read_bytes()


def test_consecutive_segments_are_identical_and_compute_no_window_twice(plan, new_worker, counted):
    tasks = plan[1]

    one = new_worker()
    in_one_go = [make(one, task) for task in tasks]
    frames_in_one_go = sum(counted)
    counted.clear()
    each_alone = [make(new_worker(), task) for task in tasks]

    assert in_one_go == each_alone
    assert sum(counted) >= frames_in_one_go + (len(tasks) - 1) * 4


def test_segments_in_any_order_are_identical(plan, new_worker):
    tasks = plan[1]
    worker = new_worker()

    jumping = [make(worker, tasks[place]) for place in (3, 0, 1, 3, 2, 3)]

    alone = [make(new_worker(), tasks[place]) for place in (3, 0, 1, 2)]
    assert jumping == [alone[place] for place in (0, 1, 2, 0, 3, 0)]


def test_smaller_tiles_are_used_for_one_segment_only(plan, new_worker):
    tasks = plan[1]
    worker = new_worker()
    make(worker, tasks[0])
    worker._restorer.tile = 64  # as after lack of memory

    again = make(worker, tasks[1])

    assert again[0].tile is None
    assert again == make(new_worker(), tasks[1])


def test_a_worker_can_be_used_after_a_failed_segment(plan, new_worker):
    tasks = plan[1]
    worker = new_worker()
    make(worker, tasks[0])
    too_long = replace(tasks[1], segment=replace(tasks[1].segment, stop=10_000))

    with pytest.raises(VsrmError, match="ends earlier than when the work was planned"):
        worker.work(too_long, lambda _: None)

    assert make(worker, tasks[1]) == make(new_worker(), tasks[1])
