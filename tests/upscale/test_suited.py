"""Which network is taken where the user names none."""

import numpy as np
import pytest
from PIL import Image
from stand_in import draw_clip, load_nearest
from woven import make_video

from vsrm_cli.checkpoints.catalog import FOR_CLEAN, FOR_COMPRESSED, MODELS
from vsrm_cli.media.probe import probe
from vsrm_cli.upscale import job as upscale
from vsrm_cli.upscale.options import DEFAULT_MODEL
from vsrm_cli.upscale.plan import suited_model


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

    chosen, reason = suited_model(DEFAULT_MODEL, probe(path))

    assert chosen == model
    assert probe(path).codec in reason


@pytest.mark.parametrize(("ending", "model"), [("png", FOR_CLEAN), ("jpg", FOR_COMPRESSED)])
def test_pictures_are_judged_by_their_format(tmp_path, ending, model):
    Image.fromarray(np.full((32, 48, 3), 90, np.uint8)).save(tmp_path / f"photo.{ending}")

    assert suited_model(DEFAULT_MODEL, probe(tmp_path / f"photo.{ending}"))[0] == model


def test_what_the_user_names_is_taken(tmp_path):
    assert suited_model("gsm-t", probe(draw_clip(tmp_path / "clip.mp4"))) == ("gsm-t", "")


def test_both_have_weights_in_the_box():
    assert all(MODELS[name].file for name in (FOR_CLEAN, FOR_COMPRESSED))


def test_the_summary_tells_which_and_why(tmp_path, monkeypatch):
    asked = []

    def load(name, **options):
        asked.append(name)
        return load_nearest(name)

    monkeypatch.setattr(upscale, "load_model", load)
    clip = draw_clip(tmp_path / "clip.mp4")

    summary = upscale.upscale_video(clip, tmp_path / "large.mp4")

    assert asked == [FOR_COMPRESSED]
    assert summary.as_dict()["model_reason"] == "for compressed footage: the input is h264"
