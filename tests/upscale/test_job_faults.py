"""Every fault is reported in one sentence, and damages neither the input nor an earlier output."""

import os
import random
import re
import shutil
import signal
import sys
import time

import av
import numpy as np
import pytest
from clips import make_clip
from networks import make_network
from stub_network import draw_clip, names_in

from vsrm_cli.checkpoints.loading import load_model, save_weights
from vsrm_cli.errors import InputError, Interrupted, OutputError, VsrmError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.job import upscale_video

if sys.platform == "win32":
    pytest.skip("these faults are made by means that Windows lacks", allow_module_level=True)

import job_process

pytestmark = pytest.mark.usefixtures("stub_network")

SMALL = {"window": 7, "overlap": 3, "segment_frames": 8}
WORDS = ("--window", 7, "--overlap", 3, "--segment-frames", 8)


def pictures(path):
    """Every decoded picture of a video and its time, to the last bit."""
    with av.open(str(path)) as container:
        return [
            (frame.pts * frame.time_base, [bytes(plane) for plane in frame.planes])
            for frame in container.decode(video=0)
        ]


@pytest.mark.slow
def test_a_job_killed_at_twenty_random_moments_gives_the_frames_of_one_that_was_not(tmp_path):
    clip = make_clip(tmp_path / "small.mp4", times=range(0, 240 * 512, 512), sound="aac")
    whole, output = tmp_path / "whole.mp4", tmp_path / "large.mp4"
    upscale_video(clip, whole, **SMALL)
    moments = random.Random(20)

    kills = 0
    while kills < 20:
        job = job_process.start(clip, "-o", output, *WORDS, seconds_per_window=0.01)
        job.join(moments.uniform(0.05, 0.9))
        job.kill()
        job.join()
        kills += job.exitcode != 0
        if output.exists():
            assert pictures(output) == pictures(whole)
            output.unlink()
    code = job_process.end(job_process.start(clip, "-o", output, *WORDS))

    assert code == 0
    assert pictures(output) == pictures(whole)
    assert names_in(tmp_path) == ["large.mp4", "small.mp4", "whole.mp4"]


@pytest.mark.slow
@pytest.mark.parametrize("largest_file", [1_000, 2_000, 6_000, 15_000])
def test_a_full_disk_is_reported_and_the_job_can_be_resumed(tmp_path, largest_file):
    clip = draw_noise(tmp_path / "small.mp4", frames=40)
    whole, output = tmp_path / "whole.mp4", tmp_path / "large.mp4"
    upscale_video(clip, whole, **SMALL)
    output.write_text("precious")
    log = tmp_path / "log"

    job = job_process.start(
        clip, "-o", output, "--overwrite", *WORDS, largest_file=largest_file, log=log
    )
    code = job_process.end(job)
    kept = output.read_text()
    again = job_process.end(job_process.start(clip, "-o", output, "--overwrite", *WORDS))

    assert (code, kept, again) == (1, "precious", 0)
    last = log.read_text().splitlines()[-1]
    assert last.startswith("error: ")
    assert "Traceback" not in log.read_text()
    assert pictures(output) == pictures(whole)
    assert names_in(tmp_path) == ["large.mp4", "log", "small.mp4", "whole.mp4"]


def test_a_full_disk_is_not_a_bug(tmp_path):
    clip = draw_noise(tmp_path / "small.mp4", frames=20)
    log = tmp_path / "log"

    job = job_process.start(clip, "-o", tmp_path / "large.nut", *WORDS, largest_file=3_000, log=log)

    assert job_process.end(job) == 1
    last = log.read_text().splitlines()[-1]
    assert "disk" in last
    assert "bug in vsrm" not in last


@pytest.mark.parametrize("frame", [1, 8])
def test_an_input_that_is_replaced_ends_the_work(tmp_path, frame):
    clip = make_clip(tmp_path / "small.mp4", sound="aac")
    other = make_clip(tmp_path / "other.mp4", sound="flac")

    def replace_input(progress):
        if progress.frames_done >= frame and other.exists():
            os.replace(other, clip)

    with pytest.raises(InputError, match="has changed since the job started"):
        upscale_video(clip, tmp_path / "large.mkv", report=replace_input, **SMALL)

    assert not (tmp_path / "large.mkv").exists()


def draw_noise(path, *, frames):
    """Pictures that no encoder can make small."""
    noise = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"crf": "5"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for _ in range(frames):
            pixels = noise.integers(0, 256, (32, 48, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("frame", [1, 8, 20, 32])
def test_a_folder_removed_during_the_job_is_reported(tmp_path, frame):
    clip = draw_clip(tmp_path / "small.mp4", frames=33)
    folder = tmp_path / "out"
    folder.mkdir()

    def remove(progress):
        while progress.frames_done >= frame and folder.exists():
            shutil.rmtree(folder, ignore_errors=True)  # a file may appear in it meanwhile

    with pytest.raises(OutputError, match=r"could not be written|is missing"):
        upscale_video(clip, folder / "large.mp4", report=remove, **SMALL)

    assert names_in(tmp_path) == ["small.mp4"]


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_a_truncated_input_gives_its_frames_or_an_error(tmp_path, suffix):
    whole = make_clip(tmp_path / f"whole{suffix}", sound="aac").read_bytes()
    clip, output = tmp_path / f"small{suffix}", tmp_path / "large.mkv"
    frames = []

    for tenth in range(10):
        clip.write_bytes(whole[: len(whole) * tenth // 10])
        try:
            summary = upscale_video(clip, output, overwrite=True, **SMALL)
        except VsrmError:
            assert not output.exists()
            frames.append(0)
        else:
            assert len(pictures(output)) == summary.frames_out == summary.frames_in
            assert summary.truncated or summary.frames_in == 24
            frames.append(summary.frames_out)
            output.unlink()

    assert frames[0] == 0
    assert frames == sorted(frames)
    assert suffix == ".mp4" or frames[9] > 10
    assert names_in(tmp_path) == [f"small{suffix}", f"whole{suffix}"]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_a_hundred_files_with_flipped_bytes_are_upscaled_or_refused(tmp_path, suffix):
    whole = make_clip(tmp_path / f"whole{suffix}", sound="aac", subtitles=None).read_bytes()
    clip, output = tmp_path / f"small{suffix}", tmp_path / "large.mkv"
    log = tmp_path / "log"

    for seed in range(100):
        draw = random.Random(seed)
        flipped = bytearray(whole)
        for _ in range(draw.choice([1, 3, 30])):
            flipped[draw.randrange(len(flipped))] ^= 1 << draw.randrange(8)
        clip.write_bytes(flipped)
        log.unlink(missing_ok=True)

        code = job_process.end(job_process.start(clip, "-o", output, *WORDS, log=log), within=30)

        told = log.read_text()
        # 3: what was carried over of a damaged sound could not be proved to be all there.
        assert code in (0, 1, 3), f"seed {seed}: {told}"
        assert "Traceback" not in told, f"seed {seed}: {told}"
        assert code == 3 or "bug in vsrm" not in told, f"seed {seed}: {told}"
        assert output.exists() == (code == 0), f"seed {seed}"
        if code == 0:
            assert pictures(output), f"seed {seed}"
            output.unlink()
        # Work that was done before the failure is kept.
        if code != 0:
            shutil.rmtree(tmp_path / ".large.mkv.vsrm", ignore_errors=True)
        assert names_in(tmp_path) == ["log", f"small{suffix}", f"whole{suffix}"], f"seed {seed}"


def test_a_weight_file_replaced_in_between_is_noticed(tmp_path, monkeypatch):
    monkeypatch.setattr(upscale, "load_model", load_model)
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    weights = tmp_path / "mine.safetensors"
    settings = SMALL | {"model": weights, "device": "cpu"}
    save_weights(make_network(seed=1), weights, {"name": "mine"})
    content = weights.read_bytes()
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=lambda: True, **settings)

    save_weights(make_network(seed=2), weights, {"name": "mine"})
    with pytest.raises(OutputError, match=r"differs in weights .* --restart"):
        upscale_video(clip, tmp_path / "large.mp4", **settings)
    weights.write_bytes(content)
    summary = upscale_video(clip, tmp_path / "large.mp4", **settings)

    assert summary.frames_resumed == 9


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)
def test_one_signal_finishes_the_segment_and_the_same_command_resumes(tmp_path, number):
    clip = draw_clip(tmp_path / "small.mp4", frames=40)
    output, log = tmp_path / "large.mp4", tmp_path / "log"
    job = job_process.start(clip, "-o", output, *WORDS, seconds_per_window=0.3, log=log)
    wait_for(tmp_path / ".large.mp4.vsrm" / "journal.json")

    os.kill(job.pid, number)
    code = job_process.end(job)
    told = log.read_text().splitlines()
    log.unlink()
    again = job_process.end(job_process.start(clip, "-o", output, *WORDS, log=log))

    assert (code, again) == (130, 0)
    assert "finishing this segment; press Ctrl-C again to stop now" in told
    kept = re.fullmatch(
        r"interrupted: (\d+) frames are finished .*; run the same command .*", told[-1]
    )
    assert int(kept[1]) in (9, 17, 25, 33)
    assert f"large.mp4: 40 frames ({kept[1]} resumed)" in log.read_text()
    assert len(pictures(output)) == 40


def wait_for(path):
    until = time.monotonic() + 30
    while not path.exists():
        assert time.monotonic() < until
        time.sleep(0.01)


@pytest.mark.slow
def test_a_second_process_on_one_output_is_refused_without_disturbing_the_first(tmp_path):
    clip = draw_clip(tmp_path / "small.mp4", frames=40)
    output, log = tmp_path / "large.mp4", tmp_path / "log"
    first = job_process.start(clip, "-o", output, *WORDS, seconds_per_window=1)
    wait_for(tmp_path / ".large.mp4.vsrm" / "journal.json")

    second = job_process.end(job_process.start(clip, "-o", output, *WORDS, log=log))

    assert second == 1
    assert log.read_text().startswith("error: Another vsrm is working on ")
    assert job_process.end(first) == 0
    assert len(pictures(output)) == 40


@pytest.mark.slow
def test_three_thousand_frames_take_no_more_memory_than_three_hundred(tmp_path):
    peaks = []
    for frames in (300, 3000):
        clip = draw_clip(tmp_path / f"{frames}.mp4", frames=frames)
        peaks.append(job_process.peak_kibibytes(clip, "-o", tmp_path / f"large_{frames}.mp4"))

    assert peaks[1] < 1.1 * peaks[0]
