"""Scores are those of independent programs, and one broken clip does not spoil the others."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from networks import make_network
from PIL import Image
from scenes import draw_folder
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from stub_network import NearestNeighbor

from vsrm_cli.checkpoints import catalog
from vsrm_cli.checkpoints.catalog import DetailPair
from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.errors import InputError, UsageError, VsrmError
from vsrm_cli.evaluation import quality as measure
from vsrm_cli.evaluation.baselines import upscale_bicubic, upscale_lanczos
from vsrm_cli.evaluation.metrics import psnr
from vsrm_cli.evaluation.quality import QualityOptions, choose_crop
from vsrm_cli.evaluation.test_sets import EvaluationClip, find_clips, read_clip


@pytest.fixture(autouse=True)
def network(monkeypatch):
    def load(name, *, device="auto", dtype="auto"):
        stand_ins = {"nearest": 4, "twice": 2}
        return NearestNeighbor(stand_ins[name]).eval() if name in stand_ins else make_network()

    monkeypatch.setattr(measure, "load_model", load)
    # Whatever is installed here: what others have made has tests of its own.
    for name in ("find_lpips", "find_cvvdp"):
        monkeypatch.setattr(measure, name, lambda _: None)


def measured(folder, models=("nearest",), **options):
    return measure.measure_quality(
        folder,
        models,
        QualityOptions(**{"follows_time": False, **options}),
        dtype="auto",
        device=torch.device("cpu"),
        report=lambda _: None,
    )


def by_method(rows):
    return {row.method: row for row in rows}


@pytest.mark.parametrize(
    ("enlarge", "filter_name"),
    [(upscale_bicubic, "BICUBIC"), (upscale_lanczos, "LANCZOS")],
)
@pytest.mark.parametrize("scale", [2, 4])
def test_upscaling_equals_pillow(enlarge, filter_name, scale):
    # Neither black nor white: Pillow clamps between its two directions.
    lr = (60 + 120 * torch.rand(3, 9, 13, generator=torch.Generator().manual_seed(2))).round()

    large = (enlarge(lr / 255, scale=scale).clamp(0, 1) * 255).permute(1, 2, 0).numpy()

    source = Image.fromarray(lr.to(torch.uint8).permute(1, 2, 0).numpy())
    expected = np.asarray(source.resize((13 * scale, 9 * scale), Image.Resampling[filter_name]))
    # Pillow rounds to 8 bits after each direction.
    assert np.abs(large - expected).max() < 1.6


@pytest.mark.parametrize("on", ["y", "rgb"])
def test_bicubic_on_a_set_made_here_scores_as_scikit_image_says(tmp_path, on):
    draw_folder(tmp_path / "waves", frames=2)

    quality, _ = measured(tmp_path, on=on)

    clip = read_clip(find_clips(tmp_path, "bi").clips[0], "bi")
    expected = []
    for hr, lr in zip(clip.hr, clip.lr, strict=True):
        large = (upscale_bicubic(lr / 255).clamp(0, 1) * 255).round() / 255
        a, b = (x.permute(1, 2, 0).double().numpy() for x in (large, hr / 255))
        if on == "y":
            a, b = (rgb2ycbcr(x)[..., :1] / 255 for x in (a, b))
        similarity = structural_similarity(
            a,
            b,
            data_range=1,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
        expected.append((peak_signal_noise_ratio(b, a, data_range=1), similarity))
    bicubic = by_method(quality.means)["bicubic"]
    assert bicubic.psnr == pytest.approx(np.mean([e[0] for e in expected]), abs=1e-4)
    assert bicubic.ssim == pytest.approx(np.mean([e[1] for e in expected]), abs=1e-6)
    assert quality.clips[0].methods[0].frame_psnr == pytest.approx([e[0] for e in expected])


def test_the_methods_are_filters_and_networks_with_and_without_neighbors(tmp_path):
    draw_folder(tmp_path / "waves")

    quality, _ = measured(tmp_path, models=("nearest", "tiny"))

    rows = by_method(quality.means)
    assert list(rows) == [
        *("bicubic", "lanczos", "nearest", "nearest, frames alone"),
        *("vsrm-compact", "vsrm-compact, frames alone"),
    ]
    assert rows["nearest"].psnr == rows["nearest, frames alone"].psnr
    assert rows["vsrm-compact"].psnr != rows["vsrm-compact, frames alone"].psnr


def test_a_perfect_result_has_perfect_scores(tmp_path):
    folder = tmp_path / "GT" / "plain"
    folder.mkdir(parents=True)
    Image.new("RGB", (32, 32), (10, 20, 30)).save(folder / "0.png")

    quality, _ = measured(tmp_path)

    assert {row.psnr for row in quality.means} == {math.inf}
    assert [row.ssim for row in quality.means] == pytest.approx([1.0] * 4)


def test_an_unreadable_clip_is_reported_and_the_rest_is_measured(tmp_path):
    draw_folder(tmp_path / "good")
    draw_folder(tmp_path / "odd", height=34)
    draw_folder(tmp_path / "torn")
    (tmp_path / "torn" / "001.png").write_bytes(b"not a picture")

    quality, crops = measured(tmp_path)

    assert [clip.clip for clip in quality.clips] == ["good", "odd"]
    (problem,) = quality.problems
    assert "001.png" in problem
    assert quality.notes == ("clip odd was cropped from 48x34 to 48x32 pixels",)
    assert {crop.clip for crop in crops} == {"good", "odd"}


def test_only_the_middle_frame_of_vimeo_clips_is_measured(tmp_path):
    draw_folder(tmp_path / "GT" / "00001" / "0266", frames=7, names="im{}.png")

    quality, _ = measured(tmp_path)

    assert quality.frames_that_count == "center"
    assert len(quality.clips[0].methods[0].frame_psnr) == 1
    assert quality.published[-1].model == "VSRM (16/7)"


def test_the_warping_error_uses_the_flow_of_the_ground_truth(tmp_path):
    draw_folder(tmp_path / "waves")

    quality, _ = measured(tmp_path, follows_time=True)

    (clip,) = quality.clips
    assert quality.flow_network == "vsrm-compact"  # the stand-in for vsrm-t
    assert clip.truth_warping > 0
    assert all(row.warping > 0 for row in clip.methods)


def test_one_frame_has_no_neighbors_to_be_compared_with(tmp_path):
    draw_folder(tmp_path / "still", frames=1)

    quality, _ = measured(tmp_path, follows_time=True)

    assert quality.means[0].warping is None


def test_the_window_and_the_number_of_frames_can_be_chosen(tmp_path):
    draw_folder(tmp_path / "waves", frames=5)

    together, _ = measured(tmp_path, models=("tiny",), most_frames=4)
    pairs, _ = measured(tmp_path, models=("tiny",), most_frames=4, window=2)

    assert together.clips[0].frames == pairs.clips[0].frames == 4
    assert (
        by_method(together.means)["vsrm-compact"].psnr
        != by_method(pairs.means)["vsrm-compact"].psnr
    )


def test_the_crop_is_where_the_network_improves_most():
    truth = torch.zeros(1, 3, 200, 300, dtype=torch.uint8)
    bicubic, network = truth.clone(), truth.clone()
    bicubic[..., 60:180, 100:260] = 50

    crop = choose_crop(
        EvaluationClip("clip", truth, truth, ""),
        {"bicubic": bicubic, "mine": network},
        network="mine",
    )

    assert crop.gain == pytest.approx(2500)
    assert crop.images["bicubic"].shape == (3, 120, 160)
    assert (crop.images["bicubic"] == 50).all()
    assert set(crop.images) == {"bicubic", "mine", "ground truth"}


def test_results_of_other_programs_are_measured(tmp_path, monkeypatch):
    draw_folder(tmp_path / "waves")
    monkeypatch.setattr(measure, "find_lpips", lambda _: lambda a, b: 0.25)
    monkeypatch.setattr(measure, "find_cvvdp", lambda _: lambda a, b: 7.5)
    monkeypatch.setattr(measure, "find_vmaf", lambda: lambda a, b: 80.0)

    quality, _ = measured(tmp_path)

    assert {(row.lpips, row.cvvdp, row.vmaf) for row in quality.means} == {(0.25, 7.5, 80.0)}


def test_sharpness_and_flicker_distinguish_soft_clips_from_the_ground_truth(tmp_path):
    draw_folder(tmp_path / "waves")
    truth = read_clip(find_clips(tmp_path, "bi").clips[0], "bi").hr

    quality, _ = measured(tmp_path, also={"the truth": tmp_path})

    rows = by_method(quality.means)
    assert rows["the truth"].psnr == math.inf
    assert (rows["the truth"].sharpness, rows["the truth"].flicker) == (1, 0)
    assert rows["bicubic"].sharpness < 1
    assert rows["bicubic"].flicker > 0
    assert len(truth) > 1


def test_the_detail_of_a_pair_can_be_chosen_and_is_part_of_the_name(tmp_path, monkeypatch):
    draw_folder(tmp_path / "waves")
    monkeypatch.setattr(catalog, "PAIRS", (DetailPair("soft", "sharp"),))
    asked = []

    def load(name, **options):
        asked.append((name, options.get("detail")))
        return NearestNeighbor().eval()

    monkeypatch.setattr(measure, "load_model", load)

    quality, _ = measured(tmp_path, models=("soft", "other"), detail=0.25)

    assert asked == [("soft", 0.25), ("other", None)]
    assert "nearest, detail 0.25" in by_method(quality.means)


def test_weight_files_of_one_name_have_a_row_each(tmp_path):
    draw_folder(tmp_path / "waves")

    quality, _ = measured(tmp_path, models=("a.safetensors", "b.safetensors", "b.safetensors"))

    names = [name for name in by_method(quality.means) if name.startswith("vsrm-compact")]
    assert names[::2] == ["vsrm-compact (a.safetensors)", "vsrm-compact (b.safetensors)"]


def test_the_output_of_another_program_is_found_by_the_name_of_the_clip(tmp_path):
    for name in ("calm", "wild"):
        draw_folder(tmp_path / "set" / name)
        draw_folder(tmp_path / "theirs" / name)

    quality, _ = measured(tmp_path / "set", also={"theirs": tmp_path / "theirs"})

    assert [clip.clip for clip in quality.clips] == ["calm", "wild"]
    assert by_method(quality.means)["theirs"].psnr == math.inf


@pytest.mark.parametrize(
    ("frames", "height", "words"),
    [
        (3, 64, r"theirs: clip waves has 3 frames in .*, but the ground truth has 5"),
        (5, 128, r"theirs: clip waves has frames of 96x128 in .*, but the ground truth has 96x64"),
    ],
)
def test_the_output_of_another_program_with_other_frames_is_a_problem(
    tmp_path, frames, height, words
):
    draw_folder(tmp_path / "set" / "waves", frames=5, height=64, width=96)
    draw_folder(tmp_path / "theirs" / "waves", frames=frames, height=height, width=96)

    quality, _ = measured(tmp_path / "set", also={"theirs": tmp_path / "theirs"})

    assert not quality.clips
    assert re.search(words, quality.problems[0])


@pytest.mark.parametrize(
    ("also", "words"),
    [
        ({"bicubic": "."}, '"bicubic" is measured already'),
        ({"theirs": "nowhere"}, "nowhere does not exist"),
    ],
)
def test_another_program_that_cannot_be_measured_is_refused(tmp_path, also, words):
    draw_folder(tmp_path / "waves")

    with pytest.raises(VsrmError, match=words):
        measured(tmp_path, also={name: Path(path) for name, path in also.items()})


@pytest.mark.parametrize("degradation", ["hevc-30", "vp9-45", "mpeg4-8"])
def test_clips_can_be_compressed_by_other_codecs(tmp_path, degradation):
    draw_folder(tmp_path / "waves")

    behind, clean = (measured(tmp_path, degradation=d)[0] for d in (degradation, "bi"))

    assert by_method(behind.means)["bicubic"].psnr < by_method(clean.means)["bicubic"].psnr


@pytest.mark.parametrize("degradation", ["jpeg", "h264", "h264-60", "av1-30"])
def test_an_unknown_degradation_is_wrong_usage(tmp_path, degradation):
    draw_folder(tmp_path / "waves")

    with pytest.raises(UsageError, match=degradation):
        measured(tmp_path, degradation=degradation)


def test_an_lpips_that_does_not_work_is_noted_and_the_rest_is_measured(tmp_path, monkeypatch):
    def refuse(_):
        raise VsrmError("LPIPS cannot be measured here.")

    draw_folder(tmp_path / "waves")
    monkeypatch.setattr(measure, "find_lpips", refuse)

    quality, _ = measured(tmp_path)

    assert quality.notes == ("LPIPS cannot be measured here.",)
    assert quality.means[0].psnr > 10


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no clip"):
        measured(tmp_path)


def test_a_network_that_enlarges_two_times_is_given_frames_of_half_the_size(tmp_path):
    frames = draw_folder(tmp_path / "waves", frames=2)

    quality, _ = measured(tmp_path, models=["twice"])

    lr = (shrink_bicubic(frames / 255, scale=2) * 255).round()
    nearest = lr.repeat_interleave(2, -1).repeat_interleave(2, -2) / 255
    expected = [
        psnr(a, b, on_luma=True, crop=0) for a, b in zip(nearest, frames / 255, strict=True)
    ]
    assert quality.scale == 2
    assert by_method(quality.means)["nearest"].psnr == pytest.approx(np.mean(expected), abs=1e-4)


def test_networks_of_different_scales_are_not_measured_together(tmp_path):
    draw_folder(tmp_path / "waves")

    with pytest.raises(UsageError, match="upscale 2 and 4 times; measure those of one scale"):
        measured(tmp_path, models=["nearest", "twice"])


def test_the_bd_degradation_is_refused_for_scale_2(tmp_path):
    draw_folder(tmp_path / "waves")

    with pytest.raises(UsageError, match='"bd" is for networks that upscale 4 times'):
        measured(tmp_path, models=["twice"], degradation="bd")
