"""A preview shows the right frames, offers commands that run, and reports errors in a sentence."""

import base64
import io
import json
import re
import shlex
from fractions import Fraction
from html import unescape

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from vsrm_cli.cli import app as cli
from vsrm_cli.errors import WeightsError
from vsrm_cli.preview import job

pytestmark = pytest.mark.usefixtures("stub_network")


def draw(path, *, frames=50, size=(48, 32), rate=25, prepare=None):
    """A video of one scene, a wave that moves: frame n is a wave with phase n / 10."""
    width, height = size
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate, options={"crf": "8", "preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        if prepare:
            prepare(stream)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(wave(index, size))
            frame.pts, frame.time_base = index, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def wave(index, size):
    width, height = size
    x, y = np.arange(width)[None, :], np.arange(height)[:, None]
    gray = 128 + 60 * np.sin(x / 7 + index / 4) * np.cos(y / 9)
    return np.repeat(gray[:, :, None], 3, axis=2).round().astype(np.uint8)


def call(*words):
    return CliRunner().invoke(cli.app, ["preview", *map(str, words)])


def made(*words):
    result = call(*words, "--json", "--quiet")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def images_of(page):
    """The pictures of the first place, by version: a list of (H, W, 3) uint8."""
    figure = re.findall(r"<figure.*?</figure>", page.read_text(encoding="utf-8"), re.S)[0]
    versions = {}
    for name, file in re.findall(
        r'alt="([^"]*), frame \d+" src="data:image/webp;base64,([^"]+)', figure
    ):
        picture = Image.open(io.BytesIO(base64.b64decode(file)))
        versions.setdefault(unescape(name), []).append(np.asarray(picture).astype(int))
    return versions


def commands_of(page):
    return [
        unescape(c) for c in re.findall(r"<code>(.*?)</code>", page.read_text(encoding="utf-8"))
    ]


def test_a_place_shows_its_frames_in_every_version(tmp_path):
    clip, page = draw(tmp_path / "a.mp4"), tmp_path / "a.html"

    summary = made(clip, "-o", page, "--at", "0.8", "--model", "vsrm-t,vsrm-t-sharp")

    versions = images_of(page)
    assert summary["times"] == [0.8]
    assert list(versions) == summary["versions"] == ["bicubic", "vsrm-t", "vsrm-t-sharp"]
    for pictures in versions.values():
        assert len(pictures) == 8
        for number, picture in enumerate(pictures, 20):
            large = wave(number, (48, 32)).repeat(4, 0).repeat(4, 1).astype(int)
            assert np.abs(picture - large).mean() < 6


def test_by_default_the_default_network_comes_first(tmp_path):
    clip, page = draw(tmp_path / "a.mp4"), tmp_path / "a.html"

    summary = made(clip, "-o", page)

    assert summary["versions"] == [
        "bicubic",
        "vsrm-t-sharp",
        "vsrm-t-real",
    ]
    assert len(summary["times"]) == 1
    assert "the default for compressed footage" in page.read_text(encoding="utf-8")


def test_the_commands_run_and_make_what_they_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a small film.mp4", frames=12)

    made("a small film.mp4", "-o", "a.html", "--device", "cpu", "--model", "auto,vsrm-t")

    commands = [shlex.split(words) for words in commands_of(tmp_path / "a.html")]
    assert [words[0] for words in commands] == ["vsrm", "vsrm"]
    for words in commands:
        assert CliRunner().invoke(cli.app, [*words[1:], "--quiet"]).exit_code == 0
    assert (tmp_path / "a small film_vsrm-t-sharp.mp4").exists()
    assert (tmp_path / "a small film_vsrm-t.mp4").exists()


def test_the_estimates_are_those_of_the_dry_run(tmp_path, monkeypatch):
    from vsrm_cli.inference.restorer import Restorer

    monkeypatch.setattr(Restorer, "seconds_per_pixel", lambda *_: 1e-3)
    clip, page = draw(tmp_path / "a.mp4"), tmp_path / "a.html"

    made(clip, "-o", page, "--model", "vsrm-t")
    words = [clip, "-o", tmp_path / "large.mp4", "--model", "vsrm-t", "--dry-run", "--json"]
    plan = json.loads(CliRunner().invoke(cli.app, ["upscale", *map(str, words)]).stdout)

    assert plan["seconds"] == pytest.approx(50 * 32 / 24 * 48 * 32 / 1000, abs=0.1)
    facts = page.read_text(encoding="utf-8")
    assert f"about {round(plan['seconds']) // 60}:{round(plan['seconds']) % 60:02} minutes" in facts
    assert f"{plan['file_bytes'] / 1e3:.1f} KB" in facts


def test_large_frames_are_cropped_to_the_part_with_most_detail(tmp_path):
    clip, page = tmp_path / "a.mkv", tmp_path / "a.html"
    with av.open(str(clip), "w") as container:
        stream = container.add_stream("ffv1", 25, width=640, height=480, pix_fmt="bgr0")
        for index in range(20):
            drawn = np.full((480, 640, 3), 100, np.uint8)
            drawn[300:460, 330:630:4] = 150 + index
            container.mux(stream.encode(av.VideoFrame.from_ndarray(drawn)))
        container.mux(stream.encode())

    made(clip, "-o", page, "--model", "vsrm-t", "--at", "0")

    picture = images_of(page)["vsrm-t"][0]
    assert picture.shape == (720, 1280, 3)
    assert (picture[..., 0] > 130).mean() > 0.15
    assert "the part with most detail" in page.read_text(encoding="utf-8")


def test_a_video_of_a_phone_is_shown_upright(tmp_path):
    clip = draw(tmp_path / "a.mp4", prepare=lambda stream: stream.set_display_rotation(90))
    page = tmp_path / "a.html"

    made(clip, "-o", page, "--model", "vsrm-t", "--at", "0")

    assert images_of(page)["vsrm-t"][0].shape == (192, 128, 3)
    assert "--w:128;--h:192" in page.read_text(encoding="utf-8")


def test_pixels_that_are_not_square_are_shown_in_their_shape(tmp_path):
    def widen(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(3, 2)

    clip, page = draw(tmp_path / "a.mp4", prepare=widen), tmp_path / "a.html"

    made(clip, "-o", page, "--model", "vsrm-t", "--at", "0")

    assert "--w:288;--h:128" in page.read_text(encoding="utf-8")


def test_weight_files_of_the_same_name_are_distinguished(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.mp4")
    for name in ("beach", "snow"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"weights")

    models = "beach/model.safetensors,snow/model.safetensors"
    summary = made("a.mp4", "-o", "a.html", "--model", models, "--at", "0")

    assert summary["versions"] == ["bicubic", "beach/model", "snow/model"]
    assert commands_of(tmp_path / "a.html")[1] == (
        "vsrm upscale a.mp4 -o a_snow_model.mp4 --model snow/model.safetensors"
    )


@pytest.mark.parametrize("frames", [1, 5])
def test_a_video_shorter_than_a_place_is_shown_whole(tmp_path, frames):
    clip, page = draw(tmp_path / "a.mp4", frames=frames), tmp_path / "a.html"

    summary = made(clip, "-o", page)

    assert summary["times"] == [0.0]
    assert {len(pictures) for pictures in images_of(page).values()} == {frames}
    assert (">Play</button>" in page.read_text(encoding="utf-8")) == (frames > 1)


def test_the_last_frames_can_be_requested(tmp_path):
    clip, page = draw(tmp_path / "a.mp4", frames=20), tmp_path / "a.html"

    made(clip, "-o", page, "--at", "0.7", "--at", "0:00.1")

    assert [len(x) for x in images_of(page).values()][:1] == [8]
    counts = re.findall(r'data-count="(\d)"', page.read_text(encoding="utf-8"))
    assert counts == ["8", "2"]


def test_a_folder_of_images_is_previewed_at_its_rate(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "frames").mkdir()
    for index in range(20):
        Image.fromarray(wave(index, (48, 32))).save(tmp_path / f"frames/{index:03}.png")

    summary = made("frames", "-o", "a.html", "--fps", "10", "--at", "1")

    assert summary["times"] == [1.0]
    page = tmp_path / "a.html"
    assert 'data-milliseconds="100.000"' in page.read_text(encoding="utf-8")
    assert commands_of(page)[0].startswith("vsrm upscale frames -o frames_vsrm-t")
    assert "--fps 10" in commands_of(page)[0]


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["a.mp4", "-o", "a.html", "--at", "1:00"], 1, r"2\.000 s is shown at 60 s.*earlier --at"),
        (["a.mp4", "-o", "a.html", "--at", "soon"], 2, "time of --at"),
        (["a.mp4", "-o", "mine.html"], 1, r"mine\.html exists; .*--overwrite"),
        (["a.mp4", "-o", "a.mp4", "--overwrite"], 1, r"a\.html"),
        (["a.mp4", "-o", "no/a.html"], 1, "does not exist"),
        (["-", "-o", "a.html"], 2, "not a pipe"),
        (["missing.mp4", "-o", "a.html"], 1, r"missing\.mp4 does not exist"),
        (["a.mp4", "-o", "a.html", "--device", "gpu"], 2, "device"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_invalid_input_gives_one_sentence(tmp_path, monkeypatch, words, exit_code, message):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "a.mp4")
    (tmp_path / "mine.html").write_text("precious")

    result = call(*words)

    assert re.fullmatch(f"error: .*{message}.*\n", result.stderr)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "mine.html"]
    assert (tmp_path / "mine.html").read_text() == "precious"


def test_an_unknown_network_is_refused_before_another_runs(tmp_path):
    clip, seen = draw(tmp_path / "a.mp4"), []

    with pytest.raises(WeightsError, match="There is no model 'vsrm-z'"):
        job.preview_video(
            clip, tmp_path / "a.html", models=["vsrm-t", "vsrm-z"], report=seen.append
        )

    assert seen == []


def test_progress_counts_the_frames_of_all_networks(tmp_path):
    clip, seen = draw(tmp_path / "a.mp4"), []

    job.preview_video(
        clip,
        tmp_path / "a.html",
        models=["vsrm-t", "vsrm-t-real"],
        at=[Fraction(1)],
        report=seen.append,
    )

    assert [progress.frames_done for progress in seen] == list(range(1, 33))
    assert {progress.frames_expected for progress in seen} == {32}
    assert seen[-1].seconds_left == 0


def test_an_interrupted_preview_leaves_nothing(tmp_path):
    clip = draw(tmp_path / "a.mp4")

    def interrupt(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job.preview_video(clip, tmp_path / "a.html", report=interrupt)

    assert list(tmp_path.iterdir()) == [clip]
