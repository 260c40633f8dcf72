"""Videos through pipes: the same frames as through files, or a clear error."""

import io
import os
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from clips import VARIABLE, make_clip
from stub_network import HEIGHT, WIDTH, draw_clip, read_clip

from vsrm_cli.errors import CheckFailed, InputError, Interrupted, OutputError
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale import open_media as ends
from vsrm_cli.upscale import resumable_reader as checkpoints
from vsrm_cli.upscale.job import upscale_video

pytestmark = pytest.mark.usefixtures("stub_network")

HERE = Path(__file__).parents[1]
PROGRAM = """
import sys, stub_network
from vsrm_cli.upscale import job as upscale
from vsrm_cli.__main__ import main
upscale.load_model = stub_network.load_nearest
sys.argv = ["vsrm", *sys.argv[1:]]
main()
"""


@pytest.fixture
def pipes(monkeypatch):
    """What stands for standard input and output."""
    pipes = SimpleNamespace(input=io.BytesIO(), output=io.BytesIO())
    # Not those of the real `sys`: pytest puts others there before each test.
    for module, name, file in (
        (checkpoints, "stdin", pipes.input),
        (ends, "stdout", pipes.output),
    ):
        fake_sys = SimpleNamespace(**{name: SimpleNamespace(buffer=file)})
        monkeypatch.setattr(module, "sys", fake_sys)
    return pipes


def send(file, *, frames=10, pixel_format="yuv420p", rate=Fraction(24000, 1001)):
    """Write a stream of noise as y4m, and give its frames."""
    noise = np.random.default_rng(0)
    sent = []
    with av.open(file, "w", format="yuv4mpegpipe", container_options={"strict": "-1"}) as output:
        stream = output.add_stream("wrapped_avframe", rate)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        for index in range(frames):
            pixels = noise.integers(60, 200, (HEIGHT, WIDTH, 3), np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels).reformat(format=pixel_format)
            frame.pts, frame.time_base = index, 1 / rate
            sent.append(frame)
            output.mux(stream.encode(frame))
    file.seek(0)
    return sent


def receive(file):
    file.seek(0)
    with av.open(file, format="yuv4mpegpipe") as container:
        return list(container.decode(video=0)), container.streams.video[0].average_rate


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le"])
def test_an_image_sequence_keeps_its_format_and_rate(pipes, pixel_format):
    sent = send(pipes.input, pixel_format=pixel_format)

    summary = upscale_video("-", "-")

    frames, rate = receive(pipes.output)
    assert (summary.frames_in, summary.frames_out) == (10, 10)
    assert rate == Fraction(24000, 1001)
    assert {(f.width, f.height, f.format.name) for f in frames} == {
        (4 * WIDTH, 4 * HEIGHT, pixel_format)
    }
    for large, small in zip(frames, sent, strict=True):
        brightness = [np.frombuffer(f.planes[0], np.uint8).mean() for f in (large, small)]
        assert brightness[0] == pytest.approx(brightness[1], rel=0.05)


def test_y4m_pipes_are_read_and_written(tmp_path, pipes):
    send(pipes.input)
    upscale_video("-", tmp_path / "large.mp4", start=0.1, end=0.3)
    times, _, _ = read_clip(tmp_path / "large.mp4")

    upscale_video(tmp_path / "large.mp4", "-", scale=1)
    frames, rate = receive(pipes.output)

    shown = [n * Fraction(1001, 24000) for n in range(10)]
    wanted = [time - Fraction(1, 10) for time in shown if 0.1 <= time < 0.3]
    assert times == pytest.approx(wanted, abs=1e-4)
    assert rate == Fraction(24000, 1001)
    assert len(frames) == len(wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["large.mp4"]


def test_a_video_of_a_phone_goes_upright_into_a_pipe(tmp_path, pipes):
    clip = make_clip(tmp_path / "in.mp4", prepare=lambda video: video.set_display_rotation(90))

    upscale_video(clip, "-", end="0.2")

    pipes.output.seek(0)
    assert (b" W128 H192 ") in pipes.output.readline()
    assert len(receive(pipes.output)[0]) == 5


def test_a_pipe_without_y4m_frames_is_reported(pipes):
    with pytest.raises(InputError, match="is not y4m"):
        upscale_video("-", "-")
    pipes.input.write(b"YUV4MPEG2 W48 H32 F25:1 Ip\n")
    pipes.input.seek(0)
    with pytest.raises(InputError, match="No frame came through"):
        upscale_video("-", "-")

    assert pipes.output.getvalue() == b""


def test_a_variable_frame_rate_is_refused_for_y4m(tmp_path, pipes):
    clip = make_clip(tmp_path / "small.mp4", times=VARIABLE)

    with pytest.raises(OutputError, match="y4m holds no other times"):
        upscale_video(clip, "-")


def test_formats_that_y4m_does_not_support_are_refused(tmp_path, pipes):
    clip = draw_clip(tmp_path / "small.mp4")

    with pytest.raises(OutputError, match=r"cannot hold nv12; choose one of yuv420p"):
        upscale_video(clip, "-", pix_fmt="nv12")
    send(pipes.input)
    with pytest.raises(OutputError, match="A pipe cannot be written as image files"):
        upscale_video("-", tmp_path / "out")


def test_an_interruption_leaves_no_file(tmp_path, pipes):
    send(pipes.input)

    with pytest.raises(Interrupted, match="cannot be resumed"):
        upscale_video("-", tmp_path / "large.mp4", should_stop=lambda: True)

    assert list(tmp_path.iterdir()) == []


def test_a_frame_lost_on_the_way_is_noticed(tmp_path, pipes, monkeypatch):
    send(pipes.input)
    monkeypatch.setattr(
        upscale.Restorer, "restore", lambda self, frames: iter(list(frames)[1:] and [])
    )

    with pytest.raises(CheckFailed, match="10 frames were read, but 0 written"):
        upscale_video("-", tmp_path / "large.mp4")


def test_the_program_works_in_a_chain_of_pipes(tmp_path):
    stream = io.BytesIO()
    send(stream, frames=5)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}

    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, "upscale", "-", "-o", "-"],
        input=stream.getvalue(),
        capture_output=True,
        check=False,
        env=environment,
    )

    assert done.returncode == 0
    assert len(receive(io.BytesIO(done.stdout))[0]) == 5
    assert done.stderr.decode().splitlines()[-1].startswith("-: 5 frames, 192x128")
