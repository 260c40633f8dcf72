"""The job from file to file: every frame at its time, or no output at all."""

import os
import sys
import threading
import time
from dataclasses import fields
from fractions import Fraction
from itertools import islice
from mmap import PAGESIZE, mmap

import av
import pytest
import torch
from clips import CONSTANT, make_clip
from stub_network import HEIGHT, WIDTH, NearestNeighbor, draw_clip, load_nearest, read_clip

from vsrm_cli.encode import segments
from vsrm_cli.errors import CheckFailed, InputError, OutputError, UsageError
from vsrm_cli.inference.cuda_graphs import ReplayedNetwork
from vsrm_cli.media.probe import probe
from vsrm_cli.upscale import devices, resumable_reader
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.job import JobSummary, upscale_video
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.pipeline import queue_depth

pytestmark = pytest.mark.usefixtures("stub_network")


def files_beside(path):
    return sorted(file.name for file in path.parent.iterdir())


@pytest.mark.parametrize("frames", [1, 2, 16, 17, 29])
def test_each_frame_is_written_once_at_its_time_in_four_times_the_size(tmp_path, frames):
    clip = draw_clip(tmp_path / "small.mp4", frames=frames)

    summary = upscale_video(clip, tmp_path / "large.mp4")

    times, greys, _ = read_clip(clip)
    large_times, large_greys, size = read_clip(tmp_path / "large.mp4")
    assert large_times == times
    assert large_greys == pytest.approx(greys, abs=2)
    assert size == (4 * WIDTH, 4 * HEIGHT)
    assert summary.frames_in == summary.frames_out == frames


@pytest.mark.skipif(not os.path.isdir("/proc/self/task"), reason="needs Linux")
def test_a_job_leaves_the_priority_of_the_process_as_it_was(tmp_path, clip):
    upscale_video(clip, tmp_path / "large.webm", codec="av1")

    tasks = [int(task) for task in os.listdir("/proc/self/task")]
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}


@pytest.mark.skipif(sys.platform == "win32", reason="Windows flushes names by itself")
@pytest.mark.parametrize("name", ["large.mp4", "large"], ids=["video", "images"])
def test_the_output_is_on_the_disk_before_segments_and_journal_go(
    tmp_path, clip, monkeypatch, name
):
    flushed = set()
    flush = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: (flush(file), flushed.add(os.fstat(file).st_ino)))
    on_the_disk = []
    clear = Journal.clear

    def look_and_clear(journal):
        output = tmp_path / name
        files = sorted(output.iterdir()) if output.is_dir() else [output]
        folder = files[0].parent
        on_the_disk[:] = [path.stat().st_ino in flushed for path in (*files, folder)]
        clear(journal)

    monkeypatch.setattr(Journal, "clear", look_and_clear)

    upscale_video(clip, tmp_path / name)

    assert all(on_the_disk)
    assert len(on_the_disk) == (2 if name == "large.mp4" else 11)


def written_pages(size):
    memory = mmap(-1, size)
    for page in range(0, size, PAGESIZE):
        memory[page] = 1
    return memory


def test_memory_of_an_earlier_video_is_not_counted_again(tmp_path, clip, monkeypatch):
    taken = []

    def take_and_load(*words, **options):
        # For the first video, and not from the heap, which may be large from earlier tests.
        taken.append(written_pages(200 * 2**20) if not taken else None)
        return load_nearest(*words, **options)

    monkeypatch.setattr(upscale, "load_model", take_and_load)

    first = upscale_video(clip, tmp_path / "first.mp4")
    taken[0] = None
    second = upscale_video(clip, tmp_path / "second.mp4")

    if first.peak_memory_bytes and second.peak_memory_bytes:
        assert second.peak_memory_bytes < first.peak_memory_bytes - 100e6


def test_the_summary_says_what_was_done(tmp_path, clip):
    began = time.perf_counter()

    summary = upscale_video(str(clip), str(tmp_path / "large.mp4"), window=6, overlap=2, tile=64)

    elapsed = time.perf_counter() - began
    assert summary.input == str(clip)
    assert summary.output == str(tmp_path / "large.mp4")
    assert (summary.width, summary.height) == (4 * WIDTH, 4 * HEIGHT)
    assert (summary.model, summary.device, summary.dtype) == ("nearest", "cpu", "fp32")
    assert (summary.window, summary.tile) == (6, 64)
    assert 0 < summary.elapsed_s <= elapsed + 0.001
    assert summary.fps == pytest.approx(10 / summary.elapsed_s, rel=0.1)
    assert summary.peak_memory_bytes > 2**20
    assert not summary.truncated
    assert summary.warnings == ()


@pytest.mark.parametrize(
    ("wish", "size"),
    [
        ({"scale": 2}, (2 * WIDTH, 2 * HEIGHT)),
        ({"scale": "1.5"}, (72, 48)),
        ({"height": 2 * HEIGHT + 2}, (100, 66)),
        ({"size": "100x1000"}, (100, 66)),
    ],
)
def test_another_size_is_resampled_from_that_of_the_network(tmp_path, clip, wish, size):
    summary = upscale_video(clip, tmp_path / "large.mp4", **wish)

    times, greys, large_size = read_clip(tmp_path / "large.mp4")
    assert large_size == (summary.width, summary.height) == size
    assert (times, greys) == (read_clip(clip)[0], pytest.approx(read_clip(clip)[1], abs=2))


@pytest.mark.parametrize(
    "name", ["with spaces & 'quotes' $HOME %05d", "Übergröße 日本語 🎬", "l" * 230, "-o", "a:b"]
)
def test_special_characters_in_names_have_no_meaning(tmp_path, monkeypatch, name):
    if sys.platform == "win32" and not name.isalnum():
        pytest.skip("Windows has rules of its own for names")
    folder = tmp_path / name
    folder.mkdir()
    clip = draw_clip(tmp_path / "small.mp4", frames=3).rename(folder / f"{name}.mp4")
    monkeypatch.chdir(folder)

    upscale_video(clip.name, f"{name}.x4.mp4")

    assert read_clip(folder / f"{name}.x4.mp4")[0] == read_clip(clip)[0]
    assert len(list(folder.iterdir())) == 2


@pytest.mark.parametrize(
    ("name", "codec"), [("large.mp4", "h264"), ("large.mkv", "ffv1"), ("large.mov", "prores")]
)
def test_display_metadata_for_players_are_kept(tmp_path, name, codec):
    def tag(video):
        context = video.codec_context
        context.colorspace, context.color_range = 1, 1
        context.color_primaries, context.color_trc = 1, 13
        context.sample_aspect_ratio = Fraction(16, 11)
        video.set_display_rotation(90)
        video.metadata.update(language="fra")

    source = make_clip(tmp_path / "small.mp4", times=CONSTANT[:5], sound="aac", prepare=tag)

    upscale_video(source, tmp_path / name, codec=codec)

    before, after = probe(source), probe(tmp_path / name)
    # Where a codec cannot store the shape of pixels, they become square.
    pixel, width = (Fraction(16, 11), 192) if codec == "h264" else (None, 280)
    assert (after.sample_aspect_ratio, after.width, after.height) == (pixel, width, 128)
    assert after.color == before.color
    assert after.display_matrix == before.display_matrix
    with av.open(str(tmp_path / name)) as container:
        german = "ger" if name.endswith(".mov") else "deu"  # QuickTime's code for it
        assert [stream.language for stream in container.streams] == ["fra", german]
        assert container.metadata["title"] == "A drawn film"


def test_dropped_streams_are_reported_before_the_network_is_loaded(tmp_path, monkeypatch):
    source = tmp_path / "small.mkv"
    with av.open(str(draw_clip(tmp_path / "small.mp4"))) as clip, av.open(source, "w") as copy:
        video = copy.add_stream_from_template(clip.streams.video[0])
        copy.add_attachment("font.ttf", "font/ttf", b"letters")
        for packet in clip.demux(clip.streams.video[0]):
            if packet.size:
                packet.stream = video
                copy.mux(packet)
    events = []

    def load(*args, **kwargs):
        events.append("load")
        return load_nearest(*args, **kwargs)

    monkeypatch.setattr(upscale, "load_model", load)

    summary = upscale_video(source, tmp_path / "large.mp4", warn=events.append)

    lost = "stream 1 (attachment, font.ttf): a .mp4 file cannot hold it; an .mkv may"
    assert events == [f"dropped: {lost}", "load"]
    assert (summary.kept, summary.dropped) == ((), (lost,))


def test_warnings_are_not_part_of_the_facts(tmp_path, clip):
    summary = upscale_video(clip, tmp_path / "large.mp4")

    facts = [field.name for field in fields(JobSummary) if field.name != "warnings"]
    assert summary.as_dict() == {name: getattr(summary, name) for name in facts}


@pytest.mark.parametrize(
    ("start", "end"),
    [("0:00.12", "0.28"), (0.12, 0.28), (Fraction(3, 25), Fraction(7, 25))],
)
def test_a_part_begins_at_zero_and_stops_before_its_end(tmp_path, clip, start, end):
    summary = upscale_video(clip, tmp_path / "part.mp4", start=start, end=end)

    _, all_greys, _ = read_clip(clip)
    times, greys, _ = read_clip(tmp_path / "part.mp4")
    assert summary.frames_out == 4
    assert times == [Fraction(index, 25) for index in range(4)]
    assert greys == pytest.approx(all_greys[3:7], abs=2)


def test_progress_is_reported_after_each_frame_and_ends_complete(tmp_path, clip):
    reports = []

    upscale_video(clip, tmp_path / "large.mp4", report=reports.append)

    last = reports[-1]
    assert len(reports) >= 11
    assert [r.frames_computed for r in reports] == sorted(r.frames_computed for r in reports)
    assert (last.frames_done, last.frames_expected, last.seconds_left) == (10, 10, 0)
    assert min(last.decode_fps, last.network_fps, last.encode_fps) > 0


@pytest.mark.parametrize(
    ("part", "expected"),
    [({"start": 0.2}, 5), ({"end": 0.2}, 5), ({"start": 0.1, "end": 99}, 8), ({"end": 0.3}, 8)],
)
def test_progress_counts_only_the_requested_part(tmp_path, clip, part, expected):
    reports = []

    upscale_video(clip, tmp_path / "part.mp4", report=reports.append, **part)

    assert reports[-1].frames_expected == pytest.approx(expected, abs=1)


def test_a_part_without_frames_is_an_error_and_leaves_nothing(tmp_path, clip):
    with pytest.raises(InputError, match=r"No frame of .*small\.mp4"):
        upscale_video(clip, tmp_path / "part.mp4", start=100)

    assert files_beside(clip) == ["small.mp4"]


def test_the_decodable_frames_of_a_damaged_video_are_upscaled_with_a_warning(tmp_path):
    whole = draw_clip(tmp_path / "small.mkv", frames=40).read_bytes()
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(whole[: len(whole) * 2 // 3])

    summary = upscale_video(damaged, tmp_path / "large.mkv")

    assert summary.truncated
    assert 0 < summary.frames_in == summary.frames_out < 40
    (warning,) = summary.warnings
    assert f"{summary.frames_out} of about 40 frames could be read" in warning


def test_an_invalid_output_is_reported_before_the_network_is_loaded(tmp_path, clip, monkeypatch):
    monkeypatch.setattr(upscale, "load_model", lambda *_, **__: pytest.fail("was loaded"))

    with pytest.raises(UsageError, match="h265x"):
        upscale_video(clip, tmp_path / "large.mp4", codec="h265x")
    with pytest.raises(OutputError):
        upscale_video(clip, tmp_path / "large.webm", codec="h264")
    with pytest.raises(OutputError):
        upscale_video(clip, clip)

    assert files_beside(clip) == ["small.mp4"]


@pytest.mark.parametrize("tile", [1, 63])
def test_a_tile_smaller_than_its_overlaps_is_refused(tmp_path, clip, tile):
    with pytest.raises(UsageError, match=f"tile must have 64 pixels or more, not {tile}"):
        upscale_video(clip, tmp_path / "large.mp4", tile=tile)


def test_a_missing_frame_fails_verification_and_removes_the_output(tmp_path, clip, monkeypatch):
    honest = upscale.Restorer.restore

    def lose_one(self, frames, **options):
        restored = honest(self, frames, **options)
        next(restored)
        yield from restored

    monkeypatch.setattr(upscale.Restorer, "restore", lose_one)

    with pytest.raises(CheckFailed, match=r"Frame 1, .* came back as frame 0"):
        upscale_video(clip, tmp_path / "large.mp4")

    assert files_beside(clip) == ["small.mp4"]


def test_a_missing_end_fails_verification_and_removes_the_output(tmp_path, clip, monkeypatch):
    honest = upscale.Restorer.restore
    monkeypatch.setattr(
        upscale.Restorer, "restore", lambda self, *a, **k: islice(honest(self, *a, **k), 9)
    )

    with pytest.raises(CheckFailed, match="10 frames were read, but 9 written"):
        upscale_video(clip, tmp_path / "large.mp4")

    assert files_beside(clip) == ["small.mp4"]


def load_failing(error):
    class Failing(NearestNeighbor):
        def forward(self, clip):
            raise error

    return lambda *_, **__: Failing()


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("a bug")], ids=repr)
def test_an_error_in_the_network_leaves_no_file_and_no_thread(tmp_path, clip, monkeypatch, error):
    monkeypatch.setattr(upscale, "load_model", load_failing(error))

    with pytest.raises(type(error)):
        upscale_video(clip, tmp_path / "large.mp4", window=4)

    assert files_beside(clip) == ["small.mp4"]
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"decode", "encode"})


@pytest.mark.parametrize(
    "stage", [(resumable_reader.VideoReader, "__iter__"), (segments.SegmentWriter, "write")]
)
def test_an_error_in_another_stage_leaves_no_file_and_no_thread(tmp_path, clip, monkeypatch, stage):
    def fail(*_):
        raise OSError("the disk has gone")

    monkeypatch.setattr(*stage, fail)

    with pytest.raises(OSError, match="the disk has gone"):
        upscale_video(clip, tmp_path / "large.mp4", window=4)

    assert files_beside(clip) == ["small.mp4"]
    assert {thread.name for thread in threading.enumerate()}.isdisjoint({"decode", "encode"})


def test_an_existing_file_is_replaced_only_with_overwrite_and_by_a_complete_one(
    tmp_path, clip, monkeypatch
):
    output = tmp_path / "large.mp4"
    output.write_text("precious")

    with pytest.raises(OutputError, match="overwrite"):
        upscale_video(clip, output)
    with monkeypatch.context() as patch:
        patch.setattr(upscale, "load_model", load_failing(ValueError("a bug")))
        with pytest.raises(ValueError, match="a bug"):
            upscale_video(clip, output, overwrite=True)
    content_after_failures = output.read_text()
    upscale_video(clip, output, overwrite=True)

    assert content_after_failures == "precious"
    assert len(read_clip(output)[0]) == 10


def test_queues_hold_a_window_but_not_gigabytes():
    assert queue_depth(16, 48 * 32 * 3) == 16
    assert queue_depth(16, 7680 * 4320 * 3) == 2
    assert queue_depth(16, 2**40) == 1


def test_every_dtype_has_a_name():
    assert {upscale.DTYPE_NAMES[d] for d in (torch.float32, torch.float16, torch.bfloat16)} == {
        "fp32",
        "fp16",
        "bf16",
    }


def test_failed_graph_recording_is_reported_at_the_end(clip, tmp_path, monkeypatch):
    def refuse(network, clip):
        raise RuntimeError("operation not permitted when stream is capturing")

    network = ReplayedNetwork(NearestNeighbor(), record=refuse)
    right = devices.Restorer
    monkeypatch.setattr(devices, "Restorer", lambda _, **kw: right(network, **kw))

    summary = upscale_video(clip, tmp_path / "large.mp4", window=2, overlap=0)

    assert summary.warnings == (
        "slower, without CUDA graphs: operation not permitted when stream is capturing",
    )
