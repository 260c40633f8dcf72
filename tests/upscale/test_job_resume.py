"""After any interruption the same call resumes after the last segment, with identical frames."""

import json
import os
from contextlib import suppress
from fractions import Fraction
from itertools import accumulate, pairwise

import av
import numpy as np
import pytest
import torch
from clips import VARIABLE, make_clip
from hypothesis import given
from hypothesis import strategies as st
from interlaced_video import make_video
from stub_network import HEIGHT, WIDTH, NearestNeighbor, draw_clip, names_in, read_clip

from vsrm_cli.errors import CheckFailed, InputError, Interrupted, OutputError
from vsrm_cli.frame import Frame
from vsrm_cli.inference.tiling import Chunking
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale import resumable_reader, segmenting
from vsrm_cli.upscale.devices import hardware_of
from vsrm_cli.upscale.job import upscale_video
from vsrm_cli.upscale.segmenting import Segmenter

# Each window gives 4 frames and each segment two windows: the first of them one frame more.
SMALL = {"window": 7, "overlap": 3, "segment_frames": 8}


class Remembering(NearestNeighbor):
    """Mixes every frame with those before it in its window, so each window shows in its frames."""

    calls = 0
    fails_at = None

    def forward(self, clip):
        Remembering.calls += 1
        if Remembering.fails_at == Remembering.calls:
            raise KeyboardInterrupt
        counts = torch.arange(1, clip.shape[1] + 1)[:, None, None, None]
        return super().forward((clip + clip.cumsum(1) / counts) / 2)


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(Remembering, "calls", 0)
    monkeypatch.setattr(Remembering, "fails_at", None)
    monkeypatch.setattr(upscale, "load_model", lambda *_, **__: Remembering().eval())


def draw_shots(path, lengths):
    """Write a video of shots in colors that have nothing in common."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", 25, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        numbers = [number for number, length in enumerate(lengths) for _ in range(length)]
        for index, number in enumerate(numbers):
            drawn = np.full((HEIGHT, WIDTH, 3), 10 + index, np.uint8)
            drawn[:, :, number % 3] = 200
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def pictures(path):
    """Every decoded picture of a video and its time, to the last bit."""
    with av.open(str(path)) as container:
        frames = list(container.decode(video=0))
    planes = [[bytes(plane) for plane in frame.planes] for frame in frames]
    return [frame.pts * frame.time_base for frame in frames], planes


def stop_after(segments):
    """A `should_stop` that says yes behind so many segments."""
    asked = iter(range(segments))
    return lambda: next(asked) == segments - 1


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("large.mp4", {}),
        ("large.mkv", {}),
        ("large.mov", {"codec": "prores"}),
        ("large.mp4", {"codec": "hevc", "preset": "ultrafast"}),
        ("large.mkv", {"codec": "hevc", "preset": "ultrafast"}),
        ("large.webm", {"codec": "vp9"}),
        pytest.param("large.webm", {"codec": "vp8"}, marks=pytest.mark.slow),
        ("large.mkv", {"codec": "ffv1"}),
        ("large.mp4", {"codec": "mpeg4"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_a_job_stopped_after_every_segment_gives_the_frames_of_one_that_was_not(
    tmp_path, name, options
):
    clip = draw_clip(tmp_path / "small.mp4", frames=33)
    upscale_video(clip, tmp_path / f"whole_{name}", **SMALL, **options)

    output = tmp_path / name
    for done in (9, 17, 25):
        with pytest.raises(
            Interrupted, match=rf"{done} frames .*\.{name}\.vsrm; run the same command"
        ):
            upscale_video(clip, output, should_stop=stop_after(1), **SMALL, **options)
    kept = names_in(tmp_path)
    summary = upscale_video(clip, output, **SMALL, **options)

    assert kept == sorted([f".{name}.vsrm", "small.mp4", f"whole_{name}"])
    assert summary.frames_resumed == 25
    assert summary.frames_in == summary.frames_out == 33
    assert pictures(output) == pictures(tmp_path / f"whole_{name}")
    assert names_in(tmp_path) == sorted(["small.mp4", name, f"whole_{name}"])


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
def test_joined_segments_have_the_times_and_audio_of_an_unsegmented_output(tmp_path, suffix):
    clip = make_clip(tmp_path / "small.mp4", times=VARIABLE, sound="aac", encoder={"bf": "2"})
    part = {"start": Fraction(500, 12800), "end": Fraction(13000, 12800), "window": 4, "overlap": 1}

    output = tmp_path / f"large{suffix}"
    with pytest.raises(Interrupted):
        upscale_video(clip, output, should_stop=stop_after(2), segment_frames=1, **part)
    upscale_video(clip, output, segment_frames=1, **part)

    clock = Fraction(1, 1000) if suffix == ".mkv" else Fraction(1, 12800)
    wanted = [Fraction(t - 500, 12800) for t in VARIABLE if 500 <= t < 13000]
    times, _ = pictures(output)
    assert times == [round(time / clock) * clock for time in wanted]
    with av.open(str(output)) as container:
        assert [stream.type for stream in container.streams] == ["video", "audio"]


def test_a_job_with_cuts_resumes_with_identical_frames(tmp_path):
    # Shots of 1 to 20 frames: shorter than a window, as long, and longer.
    shots = [20, 3, 1, 7, 8, 14, 2]
    clip = draw_shots(tmp_path / "small.mp4", shots)
    settings = {"window": 7, "overlap": 3, "segment_frames": 1, "codec": "ffv1"}
    upscale_video(clip, tmp_path / "whole.mkv", **settings)

    output = tmp_path / "large.mkv"
    stops = 0
    while not output.exists():
        with suppress(Interrupted):
            upscale_video(clip, output, should_stop=stop_after(1), **settings)
            break
        stops += 1

    # Every window ends a segment, and every shot a window.
    assert stops > len(shots)
    assert pictures(output) == pictures(tmp_path / "whole.mkv")


def test_an_interlaced_video_resumes_with_identical_frames(tmp_path):
    clip = make_video(tmp_path / "small.mp4", "tff", mark="tff", frames=30)
    settings = {"window": 4, "overlap": 1, "segment_frames": 6, "codec": "ffv1", "scale": 1}
    upscale_video(clip, tmp_path / "whole.mkv", **settings)
    upscale_video(clip, tmp_path / "combed.mkv", deinterlace="off", **settings)

    for _ in range(3):
        with pytest.raises(Interrupted):
            upscale_video(clip, tmp_path / "large.mkv", should_stop=stop_after(1), **settings)
    upscale_video(clip, tmp_path / "large.mkv", **settings)

    assert pictures(tmp_path / "large.mkv") == pictures(tmp_path / "whole.mkv")
    assert pictures(tmp_path / "large.mkv") != pictures(tmp_path / "combed.mkv")


X264 = {"g": "12", "bf": "3", "sc_threshold": "0"}


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("small.mkv", {"encoder": X264 | {"x264-params": "open-gop=1"}}),
        ("small.mp4", {"encoder": X264 | {"x264-params": "open-gop=1"}}),
        ("small.ts", {"encoder": X264}),
        (
            "small.ts",
            {"codec": "mpeg2video", "encoder": {"g": "12", "bf": "2"}, "clock": Fraction(1, 25)},
        ),
        ("small.mkv", {"encoder": {"intra-refresh": "1", "g": "12"}}),
        ("small.avi", {"codec": "mpeg4", "encoder": {"g": "12"}, "clock": Fraction(1, 25)}),
        ("small.avi", {"encoder": {"g": "12", "bf": "0"}, "clock": Fraction(1, 25)}),
        ("small.webm", {"codec": "libvpx-vp9", "clock": Fraction(1, 1000)}),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value.values())),
)
def test_frames_are_identical_whatever_seeking_returns(tmp_path, name, options):
    step = int(Fraction(1, 25) / options.get("clock", Fraction(1, 12800)))
    clip = make_clip(tmp_path / name, times=range(0, 60 * step, step), **options)
    settings = SMALL | {"codec": "ffv1"}
    alone = upscale_video(clip, tmp_path / "whole.mkv", **settings)

    for stops in (2, 3):
        with pytest.raises(Interrupted):
            upscale_video(clip, tmp_path / "large.mkv", should_stop=stop_after(stops), **settings)
    summary = upscale_video(clip, tmp_path / "large.mkv", **settings)

    assert (summary.frames_in, summary.frames_resumed) == (60, 42)
    assert summary.truncated == alone.truncated
    assert pictures(tmp_path / "large.mkv") == pictures(tmp_path / "whole.mkv")


def test_ctrl_c_at_any_window_loses_nothing_that_is_finished(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    upscale_video(clip, tmp_path / "whole.mp4", **SMALL)
    windows = Remembering.calls

    for window in range(1, windows + 1):
        monkeypatch.setattr(Remembering, "fails_at", Remembering.calls + window)
        with pytest.raises(KeyboardInterrupt, match="interrupted"):
            upscale_video(clip, tmp_path / "large.mp4", restart=True, **SMALL)
        monkeypatch.setattr(Remembering, "fails_at", None)
        summary = upscale_video(clip, tmp_path / "large.mp4", overwrite=True, **SMALL)

        # Segments end behind the frames 9 and 17, a window is needed for the fade, and the encoder
        # may be another one behind.
        assert summary.frames_resumed in (0, 9, 17)
        assert summary.frames_resumed >= 4 * (window - 4)
        assert pictures(tmp_path / "large.mp4") == pictures(tmp_path / "whole.mp4")
        (tmp_path / "large.mp4").unlink()


def test_a_file_with_unreliable_seeking_is_read_from_its_beginning(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=33)
    upscale_video(clip, tmp_path / "whole.mp4", **SMALL)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(2), **SMALL)

    honest = resumable_reader.VideoReader.__iter__

    def blurred(self):
        for frame in honest(self):
            if self._first is not None:
                np.bitwise_xor(frame.pixels, 1, out=frame.pixels)
            yield frame

    monkeypatch.setattr(resumable_reader.VideoReader, "__iter__", blurred)
    summary = upscale_video(clip, tmp_path / "large.mp4", **SMALL)

    assert summary.frames_resumed == 17
    assert summary.frames_in == 33
    assert pictures(tmp_path / "large.mp4") == pictures(tmp_path / "whole.mp4")


def test_damage_before_an_interruption_is_reported_after_resuming(tmp_path):
    whole = draw_clip(tmp_path / "small.mkv", frames=40).read_bytes()
    damaged = tmp_path / "damaged.mkv"
    damaged.write_bytes(whole[: len(whole) * 2 // 3])
    alone = upscale_video(damaged, tmp_path / "whole.mkv", **SMALL)

    with pytest.raises(Interrupted):
        upscale_video(damaged, tmp_path / "large.mkv", should_stop=stop_after(1), **SMALL)
    summary = upscale_video(damaged, tmp_path / "large.mkv", **SMALL)

    assert summary.truncated
    assert summary.frames_in == alone.frames_in
    assert summary.warnings == alone.warnings


def draw_program(path, *, shapes, frames):
    """Write parts of a TV program that differ in size and pixel aspect ratio."""
    with av.open(str(path), "w") as container:
        stream = None
        for part, (width, height, pixel) in enumerate(shapes):
            encoder = av.CodecContext.create("mpeg2video", "w")
            encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuv420p"
            encoder.framerate, encoder.time_base = 25, Fraction(1, 25)
            encoder.sample_aspect_ratio, encoder.gop_size = pixel, 4
            encoder.open()
            if stream is None:
                stream = container.add_stream("mpeg2video", 25)
                stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
                stream.codec_context.sample_aspect_ratio = pixel
            packets = []
            for number in range(part * frames, (part + 1) * frames):
                gray = np.full((height, width, 3), 40 + 3 * number, np.uint8)
                frame = av.VideoFrame.from_ndarray(gray, format="rgb24")
                frame.pts, frame.time_base = number, Fraction(1, 25)
                packets += encoder.encode(frame)
            for packet in (*packets, *encoder.encode(None)):
                packet.stream = stream
                container.mux(packet)
    return path


def test_frames_of_another_shape_are_counted_once_over_all_interruptions(tmp_path):
    shapes = [(64, 48, Fraction(8, 9)), (96, 64, Fraction(32, 27))]
    clip = draw_program(tmp_path / "small.ts", shapes=shapes, frames=18)
    alone = upscale_video(clip, tmp_path / "whole.mkv", **SMALL)

    for _ in range(3):
        with pytest.raises(Interrupted):
            upscale_video(clip, tmp_path / "large.mkv", should_stop=stop_after(1), **SMALL)
    summary = upscale_video(clip, tmp_path / "large.mkv", **SMALL)

    assert [word for text in alone.warnings for word in text.split() if word == "18"] == ["18"] * 2
    assert summary.frames_resumed == 25
    assert summary.warnings == alone.warnings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"crf": 30}, r"crf \(was None, is 30\)"),
        ({"window": 8, "overlap": 1}, r"window \(was 7, is 8\), overlap \(was 3, is 1\)"),
        ({"start": "0:00.1"}, r"start \(was None, is 1/10\)"),
        ({"segment_frames": None}, r"segment frames \(was 8, is None\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_other_settings_are_refused_without_restart(tmp_path, change, message):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(1), **SMALL)

    with pytest.raises(OutputError, match=f"{message}; .*--restart"):
        upscale_video(clip, tmp_path / "large.mp4", **(SMALL | change))
    kept = names_in(tmp_path / ".large.mp4.vsrm")
    summary = upscale_video(clip, tmp_path / "large.mp4", restart=True, **(SMALL | change))

    assert kept == ["000000000.mp4", "journal.json", "lock", "segments.jsonl"]
    assert summary.frames_resumed == 0


def test_another_input_or_other_weights_are_noticed(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(1), **SMALL)

    with monkeypatch.context() as patch:
        patch.setattr(upscale, "weights_checksum", lambda *_, **__: "another")
        with pytest.raises(OutputError, match=r"differs in weights \(was .*, is another\);"):
            upscale_video(clip, tmp_path / "large.mp4", **SMALL)
    about = clip.stat()
    os.utime(clip, ns=(about.st_atime_ns, about.st_mtime_ns + 10**10))
    with pytest.raises(OutputError, match="differs in date of the input"):
        upscale_video(clip, tmp_path / "large.mp4", **SMALL)
    draw_clip(clip, frames=21)
    with pytest.raises(OutputError, match=r"size of the input .* content of the input"):
        upscale_video(clip, tmp_path / "large.mp4", **SMALL)


def test_choices_of_the_first_run_are_kept(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    asked = SMALL | {"segment_frames": None, "tile": "auto"}
    monkeypatch.setattr(segmenting, "SEGMENT_SECONDS", 0)  # so each window is a segment
    loaded = []

    def load(name, *, device, dtype, detail, report):
        loaded.append((device, dtype))
        return Remembering().eval()

    monkeypatch.setattr(upscale, "load_model", load)
    with monkeypatch.context() as patch:
        patch.setattr("vsrm_cli.inference.restorer.choose_tile", lambda *_, **__: 64)
        with pytest.raises(Interrupted):
            upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(2), **asked)
    monkeypatch.setattr(segmenting, "SEGMENT_SECONDS", 3600)
    journal = json.loads((tmp_path / ".large.mp4.vsrm" / "journal.json").read_text())
    summary = upscale_video(clip, tmp_path / "large.mp4", **asked)

    assert journal["chosen"] == {
        "device": "cpu",
        "hardware": hardware_of(torch.device("cpu")),
        "dtype": "fp32",
        "threads": torch.get_num_threads(),
        "tile": 64,
        "batch": 1,
        "segment frames": 4,
    }
    assert loaded == [("auto", "auto"), ("cpu", "fp32")]
    assert (summary.frames_resumed, summary.tile) == (9, 64)


def test_a_job_with_all_segments_finished_is_only_joined(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=17)
    with monkeypatch.context() as patch:
        patch.setattr(upscale, "join_segments", lambda *_: pytest.fail("power cut"))
        with pytest.raises(BaseException, match="power cut"):
            upscale_video(clip, tmp_path / "large.mp4", **SMALL)
    windows = Remembering.calls

    summary = upscale_video(clip, tmp_path / "large.mp4", **SMALL)

    assert (summary.frames_resumed, summary.frames_in, summary.frames_out) == (17, 17, 17)
    assert Remembering.calls == windows


def test_a_segment_that_was_changed_on_the_disk_is_made_again(tmp_path):
    clip = draw_clip(tmp_path / "small.mp4", frames=33)
    upscale_video(clip, tmp_path / "whole.mp4", **SMALL)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(3), **SMALL)
    segment = tmp_path / ".large.mp4.vsrm" / "000000017.mp4"
    segment.write_bytes(segment.read_bytes()[:-100])

    summary = upscale_video(clip, tmp_path / "large.mp4", **SMALL)

    assert summary.frames_resumed == 17
    assert pictures(tmp_path / "large.mp4") == pictures(tmp_path / "whole.mp4")


def test_a_segment_with_other_frames_than_were_written_fails_the_check(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=17)
    monkeypatch.setattr(segmenting, "Segment", lambda path, ticks: NotAll(path, ticks[:-1]))

    class NotAll:
        def __init__(self, path, ticks):
            self.path, self.ticks = path, ticks

    with pytest.raises(CheckFailed, match="does not hold the frames"):
        upscale_video(clip, tmp_path / "large.mp4", **SMALL)

    assert not (tmp_path / "large.mp4").exists()


def test_images_changed_with_the_same_name_date_and_size_are_noticed(tmp_path, monkeypatch):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(1), **SMALL)
    monkeypatch.setattr(resumable_reader, "compute_fingerprint", lambda frame: None)

    with pytest.raises(InputError, match=r"has other frames now .* --restart"):
        upscale_video(clip, tmp_path / "large.mp4", **SMALL)


def test_the_frames_of_an_interrupted_job_count_as_progress(tmp_path):
    clip = draw_clip(tmp_path / "small.mp4", frames=20)
    with pytest.raises(Interrupted):
        upscale_video(clip, tmp_path / "large.mp4", should_stop=stop_after(1), **SMALL)
    reports = []

    upscale_video(clip, tmp_path / "large.mp4", report=reports.append, **SMALL)

    assert reports[0].frames_done >= 9
    assert (reports[-1].frames_done, reports[-1].seconds_left) == (20, 0)
    assert len(read_clip(tmp_path / "large.mp4")[0]) == 20


NOTHING = np.zeros((3, 0, 0), np.uint8)


class Windows:
    """Stands for a `Restorer`: gives frames that show no more than their numbers."""

    def __init__(self, cut, shots):
        self.cut = cut
        self.starts = [0, *accumulate(shots)]

    def give(self, begin):
        for start, stop in pairwise(self.starts):
            for piece in self.cut.chunks(stop - start):
                for number in range(piece.keep_start, piece.keep_stop - piece.fall):
                    is_last = number + 1 == piece.keep_stop - piece.fall
                    if start + number >= begin:
                        yield Frame(NOTHING, Fraction(start + number), ends_window=is_last)


@given(
    shots=st.lists(st.integers(1, 80), min_size=1, max_size=8),
    size=st.integers(1, 30),
    overlap=st.integers(0, 15),
    frames=st.integers(1, 100),
    begin=st.integers(0, 10),
)
def test_segments_do_not_depend_on_the_resume_point(shots, size, overlap, frames, begin):
    cut = Chunking(size, min(overlap, size // 2), shortest=size - size // 2)

    def ends(first):
        """Behind which frames segments end in the rest of the video."""
        segmenter = Segmenter(cut.stride, frames=frames, first=first)
        items = segmenter.cut(Windows(cut, shots).give(first), should_stop=lambda: False)
        return [int(item.frame.time) + 1 for item in items if item.ends_segment]

    whole = ends(0)

    # Segments hold as many frames as asked for, and more by less than a window.
    assert all(frames <= stop - start < frames + size for start, stop in pairwise([0, *whole]))
    assert sum(shots) - [0, *whole][-1] < frames + size
    if begin < len(whole):
        assert ends(whole[begin]) == whole[begin + 1 :]


@pytest.mark.parametrize(("seconds", "windows"), [(100, 1), (15, 2), (7.4, 4), (3.5, 8), (0, 64)])
def test_segments_hold_about_half_a_minute_of_work(seconds, windows):
    segmenter = Segmenter(20, frames=None, first=0)

    assert segmenter.frames_at(seconds / 20) == 20 * windows


def test_speed_is_measured_on_the_second_window(monkeypatch):
    # Windows of 8 frames that take 40, 4, 4, ... seconds: two of them do not fit into half a minute
    # with the first, and four do with the others.
    clock = iter(accumulate([0, 40, 0, *([4, 0] * 20)]))
    monkeypatch.setattr(segmenting.time, "perf_counter", lambda: next(clock))
    windows = Windows(Chunking(8, 0), [160])
    segmenter = Segmenter(8, frames=None, first=0)

    items = segmenter.cut(windows.give(0), should_stop=lambda: False)

    assert [int(item.frame.time) + 1 for item in items if item.ends_segment] == [
        8,
        40,
        72,
        104,
        136,
    ]
    assert segmenter.frames == 32
