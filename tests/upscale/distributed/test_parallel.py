"""Several devices give the frames of one, whatever happens to their processes."""

import multiprocessing
import os
import signal
import sys
import time
from fractions import Fraction
from itertools import accumulate

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from multi_shot_video import SHOTS, SMALL, decoded_contents
from networks import make_network
from stub_network import names_in

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.errors import CheckFailed, Interrupted, OutputError, UsageError, VsrmError
from vsrm_cli.frame import Fingerprint, Frame, FrameRecord
from vsrm_cli.inference.restorer import plan_windows
from vsrm_cli.inference.tiling import Chunking
from vsrm_cli.upscale.devices import find_devices
from vsrm_cli.upscale.job import upscale_video
from vsrm_cli.upscale.segmenting import Segmenter, plan_segments


def start_over(example, output, **options):
    return upscale_video(
        example / "small.mkv",
        output,
        **SMALL | {"model": example / "tiny.safetensors", "device": "cpu,cpu"} | options,
    )


def kill_one():
    os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)


def test_two_processes_give_the_frames_and_streams_of_one(example, tmp_path):
    seen = []

    summary = start_over(example, tmp_path / "large.mkv", report=seen.append)

    frames, packets = decoded_contents(tmp_path / "large.mkv")
    assert (frames, packets) == decoded_contents(example / "whole.mkv")
    assert len(frames) == summary.frames_out == sum(SHOTS)
    assert {index for index, *_ in packets} == {1, 2}
    assert (summary.device, summary.equal) == ("cpu,cpu", True)
    assert seen[-1].frames_done == sum(frames for _, frames in seen[-1].shares) == sum(SHOTS)
    assert names_in(tmp_path) == ["large.mkv"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_process_that_is_killed_gives_its_segment_back(example, tmp_path):
    kills, warnings = iter([kill_one]), []

    def kill_once(progress):
        if any(frames for _, frames in progress.shares):
            next(kills, lambda: None)()

    start_over(example, tmp_path / "large.mkv", report=kill_once, warn=warnings.append)

    assert any("SIGKILL" in words and "retrying" in words for words in warnings)
    assert decoded_contents(tmp_path / "large.mkv") == decoded_contents(example / "whole.mkv")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_segment_that_kills_three_processes_ends_the_job_and_finished_ones_are_kept(
    example, tmp_path
):
    def kill_always(progress):
        # Then a segment is finished: two at work have fewer frames.
        if progress.shares and progress.frames_done >= 18 and multiprocessing.active_children():
            kill_one()

    with pytest.raises(VsrmError, match=r"frames \d+ to \d+ failed 3 times|No device is left"):
        start_over(example, tmp_path / "large.mkv", report=kill_always)
    summary = start_over(example, tmp_path / "large.mkv")

    assert summary.frames_resumed > 0
    assert decoded_contents(tmp_path / "large.mkv") == decoded_contents(example / "whole.mkv")


@pytest.mark.slow
def test_a_job_goes_from_one_device_to_two_and_back(example, tmp_path):
    output, asked = tmp_path / "large.mkv", iter(range(1000))

    with pytest.raises(Interrupted, match="9 frames are finished"):
        start_over(example, output, device="cpu", should_stop=lambda: next(asked) >= 0)
    done = []
    with pytest.raises(Interrupted):
        start_over(
            example,
            output,
            report=lambda progress: done.append(progress.frames_done),
            should_stop=lambda: bool(done) and done[-1] >= 12,
        )
    summary = start_over(example, output, device="cpu")

    assert summary.frames_resumed > 9
    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")


@pytest.mark.slow
def test_segments_after_a_gap_are_used_on_one_device(example, tmp_path):
    output = tmp_path / "large.mkv"
    done = []
    with pytest.raises(Interrupted):
        start_over(
            example,
            output,
            report=lambda progress: done.append(progress.frames_done),
            should_stop=lambda: bool(done) and done[-1] >= 22,
        )
    (tmp_path / ".large.mkv.vsrm" / "000000000.mp4").unlink()

    summary = start_over(example, output, device="cpu")

    assert summary.frames_resumed >= 6
    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")


@pytest.mark.slow
def test_a_network_that_fails_at_every_segment_ends_the_job_with_one_sentence(example, tmp_path):
    network = make_network()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1e20)
    save_weights(network, tmp_path / "broken.safetensors", {})

    with pytest.raises(CheckFailed, match=r"the segment of frames \d+ to \d+ failed 3 times: "):
        start_over(example, tmp_path / "large.mkv", model=tmp_path / "broken.safetensors")

    assert not (tmp_path / "large.mkv").exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="these faults are made by Linux's means")
def test_a_killed_command_ends_its_processes_and_can_be_resumed(example, tmp_path):
    import job_process

    output, log = tmp_path / "large.mkv", tmp_path / "log"
    words = [example / "small.mkv", "-o", output, "--model", example / "tiny.safetensors"]
    words += ["--device", "cpu,cpu", "--window", 7, "--overlap", 3, "--segment-frames", 8]

    job = job_process.start(*words, log=log)
    folder = tmp_path / ".large.mkv.vsrm"
    until = time.monotonic() + 60
    while not list(folder.glob("*[0-9].mp4")) and time.monotonic() < until:
        time.sleep(0.02)
    children = children_of(job.pid)
    job.kill()
    job.join()
    until = time.monotonic() + 20
    while (left := [pid for pid in children if is_running(pid)]) and time.monotonic() < until:
        time.sleep(0.1)
    code = job_process.end(job_process.start(*words, log=log))

    assert (left, code) == ([], 0)
    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")
    assert names_in(tmp_path) == ["large.mkv", "log"]


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="these faults are made by Linux's means")
def test_a_full_disk_is_reported_and_the_job_can_be_resumed(example, tmp_path):
    import job_process

    output, log = tmp_path / "large.mkv", tmp_path / "log"
    words = [example / "small.mkv", "-o", output, "--model", example / "tiny.safetensors"]
    words += ["--device", "cpu,cpu", "--window", 7, "--overlap", 3, "--segment-frames", 8]

    code = job_process.end(job_process.start(*words, largest_file=3_000, log=log))
    is_there = output.exists()
    again = job_process.end(job_process.start(*words))

    assert (code, is_there, again) == (1, False, 0)
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: ")
    assert "disk" in last
    assert "Traceback" not in log.read_text()
    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")


@pytest.mark.slow
def test_an_idle_device_is_reported(example, tmp_path):
    warnings = []

    start_over(example, tmp_path / "large.mkv", segment_frames=100, warn=warnings.append)

    assert any("only 1 of 2 devices are used" in words for words in warnings)


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("cuda:0,cuda:0", "names cuda:0 twice; name each GPU once"),
        ("cuda,cuda:0", "names cuda:0 twice"),
        ("cpu,cuda:1", "devices of different kinds, .* or allow it with --mixed"),
        ("cuda:1,cuda:7", "no device cuda:7"),
    ],
)
def test_devices_that_cannot_share_a_job_are_refused(monkeypatch, wanted, message):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

    with pytest.raises(VsrmError, match=message) as failure:
        find_devices(wanted, mixed=False)

    assert failure.value.exit_code == 1


def test_all_selects_every_gpu_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert find_devices("cuda:all", mixed=False) == ["cuda:0", "cuda:1", "cuda:2"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(VsrmError, match="has no CUDA device"):
        find_devices("cuda:all", mixed=False)


def test_other_hardware_resumes_only_if_frames_may_differ(example, tmp_path, monkeypatch):
    asked = iter(range(1000))
    with pytest.raises(Interrupted):
        start_over(
            example, tmp_path / "large.mkv", device="cpu", should_stop=lambda: next(asked) >= 0
        )
    monkeypatch.setattr("vsrm_cli.upscale.job.hardware_of", lambda _: "another")

    with pytest.raises(
        OutputError, match=r"unfinished run on cpu [^,]*, .*--mixed, or give --restart"
    ):
        start_over(example, tmp_path / "large.mkv", device="cpu")
    summary = start_over(example, tmp_path / "large.mkv", device="cpu", mixed=True)

    assert (summary.frames_resumed, summary.equal) == (9, False)


def test_a_pipe_is_for_one_device(example, tmp_path):
    with pytest.raises(UsageError, match="runs on one device"):
        upscale_video("-", tmp_path / "large.mkv", device="cpu,cpu")


@given(
    shots=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    window=st.integers(1, 9),
    overlap=st.integers(0, 4),
    length=st.integers(1, 20),
)
def test_planned_segments_end_where_a_single_process_ends_them(shots, window, overlap, length):
    windows = plan_windows(window, min(overlap, window // 2))
    starts = {0, *accumulate(shots)}

    planned = plan_segments(draw_frames(starts, sum(shots)), windows, length=length)

    assert [segment.stop for segment in planned] == ends_of_the_work(shots, windows, length)
    assert [segment.first for segment in planned] == [0, *(s.stop for s in planned)][:-1]
    for segment in planned:
        assert segment.resume_point.margin[-1].checksum == segment.stop - 1
        assert segment.stop <= segment.read_stop <= sum(shots)


def draw_frames(starts, count):
    for number in range(count):
        record = FrameRecord(number, Fingerprint(str(number), number))
        pixels = np.zeros((3, 1, 1), np.uint8)
        yield Frame(pixels, Fraction(number), begins_shot=number in starts - {0}, record=record)


def ends_of_the_work(shots, windows: Chunking, length):
    """Where `Segmenter` ends segments of frames as the network would give them."""
    ends = set()
    for start, shot in zip([0, *accumulate(shots)], shots, strict=False):
        ends |= {start + chunk.keep_stop - chunk.fall for chunk in windows.chunks(shot)}
    frames = [
        Frame(np.zeros((3, 1, 1), np.uint8), Fraction(n), ends_window=n + 1 in ends)
        for n in range(sum(shots))
    ]
    segmenter = Segmenter(windows.stride, frames=length, first=0)
    restored = segmenter.cut(frames, should_stop=lambda: False)
    cuts = [number for number, item in enumerate(restored, 1) if item.ends_segment]
    return cuts if cuts and cuts[-1] == sum(shots) else [*cuts, sum(shots)]
