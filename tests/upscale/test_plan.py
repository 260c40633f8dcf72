"""The needs of a job are estimated in advance, and a far too small disk is refused."""

from collections import namedtuple
from fractions import Fraction

import numpy as np
import pytest
from clips import CONSTANT, make_clip
from interlaced_video import make_video
from motion import nature
from PIL import Image
from stub_network import X2_ENTRY, draw_clip, load_nearest

from vsrm_cli.checkpoints import catalog
from vsrm_cli.checkpoints.catalog import FOR_CLEAN, FOR_CLEAN_X2, FOR_COMPRESSED, MODELS, DetailPair
from vsrm_cli.errors import Declined, OutputError, UsageError
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import probe
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale import plan as forecast
from vsrm_cli.upscale.job import upscale_video
from vsrm_cli.upscale.options import DEFAULT_MODEL, UpscaleOptions
from vsrm_cli.upscale.plan import select_model, suggest_height

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(upscale, "load_model", load_nearest)
    monkeypatch.setitem(MODELS, FOR_CLEAN_X2, X2_ENTRY)


@pytest.fixture
def clip(tmp_path):
    return draw_clip(tmp_path / "small.mp4", frames=100)


def plan_of(clip, **options):
    plans = []

    def decline(plan):
        plans.append(plan)
        return False

    with pytest.raises(Declined):
        upscale_video(clip, clip.with_name("large.mkv"), confirm=decline, **options)
    (plan,) = plans
    return plan


def free_bytes(count):
    return lambda _: Usage(0, 0, count)


def test_the_size_follows_codec_and_quality(clip):
    usual = plan_of(clip)

    assert usual.file_bytes == int(100 * 192 * 128 * 0.4 / 8)
    assert usual.disk_bytes == 2 * usual.file_bytes
    assert plan_of(clip, crf=23).file_bytes == pytest.approx(usual.file_bytes / 2, abs=1)
    assert plan_of(clip, codec="hevc").file_bytes < usual.file_bytes
    assert plan_of(clip, codec="ffv1").file_bytes > 10 * usual.file_bytes
    assert plan_of(clip, end=2).file_bytes == pytest.approx(usual.file_bytes / 2, abs=1)


@pytest.mark.parametrize("ending", [".mp4", ".mkv"])  # exact times, and rounded ones
@pytest.mark.parametrize(
    ("start", "end"),
    [
        (None, "0.3"),
        (None, "0.32"),
        ("0.1", "0.3"),
        ("0.28", None),
        ("0.29", "9"),
        ("0.04", "0.08"),
    ],
)
def test_a_part_has_the_frames_that_are_expected(tmp_path, ending, start, end):
    clip = make_clip(tmp_path / f"small{ending}")  # 25 frames per second
    expected = plan_of(clip, start=start, end=end).frames

    summary = upscale_video(clip, tmp_path / "large.mkv", start=start, end=end)

    assert summary.frames_out == expected


def test_tiles_and_their_memory_are_those_that_would_be_used(clip):
    assert plan_of(clip, tile=64).memory_bytes <= plan_of(clip, tile="off").memory_bytes
    assert plan_of(clip, tile="off").tile is None


@pytest.mark.parametrize("ending", [".mp4", ".nut", "/"])
def test_a_rotated_video_has_the_size_that_players_show(tmp_path, ending):
    clip = make_clip(
        tmp_path / "phone.mp4",
        times=CONSTANT[:3],
        prepare=lambda video: video.set_display_rotation(90),
    )
    plans = []
    output = tmp_path / f"large{ending}".rstrip("/")

    summary = upscale_video(clip, output, confirm=lambda plan: plans.append(plan) or True)

    # .nut cannot hold the rotation, and says so.
    size = (192, 128) if ending == ".nut" else (128, 192)
    assert plans[0].source.startswith("32x48, ")
    assert plans[0].result.startswith("{}x{}, ".format(*size))
    assert (summary.width, summary.height) == size


def test_the_job_runs_after_confirmation(clip):
    summary = upscale_video(clip, clip.with_name("large.mkv"), confirm=lambda plan: True)

    assert summary.frames_out == 100


def test_a_disk_that_is_far_too_small_is_refused_before_the_network_is_loaded(clip, monkeypatch):
    monkeypatch.setattr(upscale, "load_model", lambda *_, **__: pytest.fail("was loaded"))
    monkeypatch.setattr(forecast.shutil, "disk_usage", free_bytes(20_000))

    with pytest.raises(OutputError, match=r"About 0.0 GB may be needed .* free some space"):
        upscale_video(clip, clip.with_name("large.mkv"))

    assert [path.name for path in clip.parent.iterdir()] == ["small.mp4"]


def test_a_disk_that_may_be_too_small_is_warned_of(clip, monkeypatch):
    monkeypatch.setattr(forecast.shutil, "disk_usage", free_bytes(80_000))
    warnings = []

    upscale_video(clip, clip.with_name("large.mkv"), warn=warnings.append)

    assert any("may be needed" in warning for warning in warnings)


@pytest.mark.parametrize(
    ("codec", "pixel_format", "name", "model"),
    [
        ("libx264", "yuv420p", "clip.mp4", FOR_COMPRESSED),
        ("mpeg4", "yuv420p", "clip.avi", FOR_COMPRESSED),
        ("ffv1", "yuv420p", "clip.mkv", FOR_CLEAN),
        ("prores_ks", "yuv422p10le", "clip.mov", FOR_CLEAN),
    ],
)
def test_the_codec_of_the_footage_decides(tmp_path, codec, pixel_format, name, model):
    path = make_video(
        tmp_path / name, "progressive", frames=2, codec=codec, pixel_format=pixel_format
    )

    chosen, reason = select_model(DEFAULT_MODEL, probe(path))

    assert chosen == model
    assert probe(path).codec in reason


@pytest.mark.parametrize(("ending", "model"), [("png", FOR_CLEAN), ("jpg", FOR_COMPRESSED)])
def test_image_sequences_are_classified_by_their_format(tmp_path, ending, model):
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / f"photo.{ending}")

    assert select_model(DEFAULT_MODEL, probe(tmp_path / f"photo.{ending}"))[0] == model


def test_lossless_files_are_classified_by_their_frames(tmp_path):
    photo = np.stack([nature(seed)[40:200, 60:300] for seed in (1, 2, 3)], -1).astype(np.uint8)
    Image.fromarray(photo).save(tmp_path / "clean.png")
    Image.fromarray(photo).save(tmp_path / "photo.jpg", quality=60)
    with Image.open(tmp_path / "photo.jpg") as compressed:
        compressed.save(tmp_path / "copy.png")
    palette = Image.fromarray(photo).quantize(48)
    Image.fromarray(photo).quantize(palette=palette, dither=3).save(tmp_path / "film.gif")

    chosen = {
        name: select_model(DEFAULT_MODEL, probe(tmp_path / name))
        for name in ("clean.png", "copy.png", "film.gif")
    }

    assert chosen["clean.png"][0] == FOR_CLEAN
    assert chosen["copy.png"][0] == chosen["film.gif"][0] == FOR_COMPRESSED
    assert "frames show the blocks of an earlier compression" in chosen["copy.png"][1]
    assert chosen["film.gif"][1].endswith(
        "the input is gif, but the frames are reduced to a palette"
    )


def test_the_named_network_is_used(tmp_path):
    assert select_model("gsm-t", probe(draw_clip(tmp_path / "clip.mp4"))) == ("gsm-t", "")


def test_both_default_networks_have_bundled_weights():
    assert all(MODELS[name].file for name in (FOR_CLEAN, FOR_COMPRESSED))


def test_the_summary_names_the_network_and_the_reason(tmp_path, monkeypatch):
    asked = []

    def load(name, **options):
        asked.append(name)
        return load_nearest(name)

    monkeypatch.setattr(upscale, "load_model", load)
    clip = draw_clip(tmp_path / "clip.mp4")

    summary = upscale.upscale_video(clip, tmp_path / "large.mp4")

    assert asked == [FOR_COMPRESSED]
    assert summary.as_dict()["model_reason"] == "for compressed footage: the input is h264"


@pytest.mark.parametrize(
    ("model", "wish", "detail"),
    [("auto", None, 1.0), ("auto", 0.25, 0.25), ("soft", None, 0.0), (FOR_COMPRESSED, None, 1.0)],
)
def test_the_detail_is_the_option_or_the_default_and_is_reported(
    tmp_path, monkeypatch, model, wish, detail
):
    monkeypatch.setattr(catalog, "PAIRS", (DetailPair("soft", FOR_COMPRESSED),))
    monkeypatch.setattr(upscale, "network_scale", lambda name, report: 4)
    monkeypatch.setattr("vsrm_cli.upscale.plan.network_scale", lambda name, report: 4)
    monkeypatch.setattr(
        upscale, "weights_checksum", lambda name, detail, report: f"{name} {detail}"
    )
    loaded = []

    def load(name, **options):
        loaded.append(options["detail"])
        return load_nearest(name)

    monkeypatch.setattr(upscale, "load_model", load)
    clip = draw_clip(tmp_path / "clip.mp4")

    summary = upscale.upscale_video(clip, tmp_path / "large.mp4", model=model, detail=wish)

    assert loaded == [detail]
    assert summary.as_dict()["detail"] == detail


def test_a_detail_for_a_network_without_a_pair_is_refused_before_it_is_loaded(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(upscale, "load_model", None)
    clip = draw_clip(tmp_path / "clip.mp4")

    with pytest.raises(UsageError, match='"gsm-t" has no second weight file for --detail'):
        upscale.upscale_video(clip, tmp_path / "large.mp4", model="gsm-t", detail=0.5)
    assert not (tmp_path / "large.mp4").exists()


@pytest.fixture
def clean(tmp_path):
    return make_video(tmp_path / "clean.mkv", "progressive", frames=2, codec="ffv1")


@pytest.mark.parametrize(
    ("factor", "model"),
    [(1, FOR_CLEAN_X2), (1.5, FOR_CLEAN_X2), (2, FOR_CLEAN_X2), (2.01, FOR_CLEAN), (4, FOR_CLEAN)],
)
def test_clean_footage_gets_the_network_that_enlarges_just_enough(clean, factor, model):
    assert select_model(DEFAULT_MODEL, probe(clean), factor=Fraction(factor))[0] == model


@pytest.mark.parametrize(("factor", "is_told"), [(2, True), (3, False), (4, False)])
def test_compressed_footage_has_one_network_for_every_scale(tmp_path, factor, is_told):
    compressed = probe(draw_clip(tmp_path / "clip.mp4"))

    model, reason = select_model(DEFAULT_MODEL, compressed, factor=factor)

    assert model == FOR_COMPRESSED
    assert ("no network for 2 times, so 4 times is shrunk" in reason) == is_told


@pytest.mark.parametrize(
    ("options", "model"),
    [
        ({}, FOR_CLEAN),
        ({"scale": 2}, FOR_CLEAN_X2),
        ({"scale": 3}, FOR_CLEAN),
        ({"height": 288}, FOR_CLEAN_X2),
        ({"height": 300}, FOR_CLEAN),
        ({"size": "352x1000"}, FOR_CLEAN_X2),
    ],
)
def test_every_way_to_ask_for_a_size_decides_over_the_network(clean, options, model):
    plan = plan_of(clean, **options)

    assert plan.model_scale == MODELS[model].scale
    assert ("up to 2 times" in plan.model_reason) == (model == FOR_CLEAN_X2)


@pytest.mark.parametrize(
    ("given", "size", "is_suggested"),
    [
        ({}, (7680, 4320), True),
        ({}, (4320, 7680), True),
        ({}, (3840, 2160), False),
        ({"scale": 3}, (7680, 4320), False),
        ({"height": 4320}, (7680, 4320), False),
    ],
)
def test_4k_is_suggested_where_four_times_the_input_is_more(given, size, is_suggested):
    advice = suggest_height(UpscaleOptions.read(**given), OutputShape(*size, None))

    assert (advice is not None) == is_suggested
    assert advice is None or "--height 2160" in advice


def test_the_advice_comes_before_the_work(tmp_path):
    told = []
    Image.new("RGB", (560, 560)).save(tmp_path / "wide.png")

    with pytest.raises(Declined):
        upscale_video(
            tmp_path / "wide.png",
            tmp_path / "large.png",
            confirm=lambda _: False,
            warn=told.append,
        )

    assert any("2240x2240" in warning and "--height 2160" in warning for warning in told)
