"""A result survives JSON, and can be held against an older one."""

import copy
import json
import math
from dataclasses import replace

import pytest
import torch

from vsrm_cli.bench.end_to_end import PipelineSpeed
from vsrm_cli.bench.kernels import KernelSpeed
from vsrm_cli.bench.options import BenchOptions
from vsrm_cli.bench.results import Measurements, compare_results, new_result, read_result
from vsrm_cli.bench.speed import NetworkSpeed
from vsrm_cli.bench.tables import changes_table, plots, result_notes, tables
from vsrm_cli.errors import InputError
from vsrm_cli.evaluation.ablation import AblationRow
from vsrm_cli.evaluation.published import published_scores
from vsrm_cli.evaluation.quality import ClipScores, MethodScores, QualityResult


def scores(method, psnr, **changes):
    usual = {"ssim": 0.7, "warping": 0.5, "lpips": None, "vmaf": None, "cvvdp": None}
    usual |= {"sharpness": 0.5, "flicker": 16.0}
    return MethodScores(
        method=method, psnr=psnr, **{**usual, **changes}, frame_psnr=(psnr,), frame_ssim=(0.7,)
    )


def measured(*, ms=100.0, psnr=27.0):
    speed = NetworkSpeed(
        *("vsrm-t", "fp32", "180p", 320, 180, 5, 3),
        *(ms, ms - 5, ms + 5, 1000 / ms, 2**30, 574_896, 31_000_000_000, 640, None),
    )
    without_room = NetworkSpeed(
        *("vsrm-t", "fp32", "540p", 960, 540, 5, 0),
        *(None, None, None, None, None, 574_896, 279_000_000_000, None, "no room"),
    )
    rows = (scores("bicubic", 25.77), scores("vsrm-t", psnr), scores("equal", math.inf))
    quality = QualityResult(
        folder="clips",
        test_set="REDS4",
        degradation="bi",
        scale=4,
        small_frames="made here",
        on="rgb",
        crop=0,
        frames_that_count="all",
        flow_network="vsrm-t",
        clips=(ClipScores("000", 1, 1280, 720, 0.4, rows),),
        means=rows,
        published=tuple(published_scores("REDS4", "bi")),
        notes=("clip 000 was cropped from 1281x720 to 1280x720 pixels",),
        problems=("clip 011 is torn",),
    )
    return Measurements(
        speed=[speed, without_room],
        kernels=[KernelSpeed("chunked", 16, 4, 4096, 2.0, 50.0, 1e-6, None)],
        end_to_end=[
            PipelineSpeed(
                *("small.mp4", "vsrm-t", "fp32", "cpu", 60, 768, 432),
                *(20.0, 3.0, 900.0, 3.5, 90.0, "network"),
            )
        ],
        quality=quality,
    )


def result_of(figures):
    options = BenchOptions(models=("vsrm-t",), is_quick=True, speed=True, kernels=True)
    result = new_result(figures, device=torch.device("cpu"), settings=options.settings())
    return json.loads(json.dumps(result, allow_nan=False))


@pytest.mark.parametrize("figures", [measured(), Measurements()], ids=["everything", "nothing"])
def test_a_result_comes_back_as_it_was_printed(figures, tmp_path):
    result = result_of(figures)
    (tmp_path / "old.json").write_text(json.dumps(result))

    assert read_result(tmp_path / "old.json") == result
    assert tables(result) == tables(read_result(tmp_path / "old.json"))


def test_an_ablation_is_compared_with_the_whole_network():
    rows = [
        AblationRow("tiny", "whole", 28.0, 100.0),
        AblationRow("tiny", "without flow", 27.5, 9.0),
    ]

    (table,) = tables(result_of(Measurements(ablation=rows)))

    assert table.rows[1] == ("tiny", "without flow", "27.50", "-0.500", "9")


def test_a_result_names_machine_and_versions():
    result = result_of(Measurements())

    assert result["machine"]["device"] == "cpu"
    assert result["machine"]["processor"]
    assert result["versions"]["torch"] == torch.__version__


def test_an_infinite_psnr_becomes_null():
    assert result_of(measured())["quality"]["means"][2]["psnr"] is None


def test_ratios_above_one_are_worse_for_time_and_for_error():
    old, new = result_of(measured()), result_of(measured(ms=150.0, psnr=27.0 - 3.0103))

    changes = {change.figure: change for change in compare_results(old, new)}

    assert changes["vsrm-t fp32 180p, 5 frames"].ratio == pytest.approx(1.5)
    assert changes["vsrm-t on clips bi rgb"].ratio == pytest.approx(2, rel=1e-4)
    assert changes["bicubic on clips bi rgb"].ratio == 1
    assert changes["scan chunked 16 x 4 x 4096"].ratio == 1
    assert changes["small.mp4 with vsrm-t fp32"].ratio == 1
    assert len(changes) == 5  # neither the size without room nor the equal frames


def test_results_without_a_common_figure_cannot_be_compared():
    with pytest.raises(InputError, match="no figure in common"):
        compare_results(result_of(Measurements()), result_of(measured()))


@pytest.mark.parametrize(
    ("content", "message"),
    [("[1", "is not JSON"), ("[]", "is not a result"), ('{"schema": 99}', "is not a result")],
)
def test_another_file_is_refused(tmp_path, content, message):
    path = tmp_path / "old.json"
    path.write_text(content)

    with pytest.raises(InputError, match=message):
        read_result(path)


def test_a_missing_file_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"old\.json cannot be read"):
        read_result(tmp_path / "old.json")


def test_tables_show_every_figure():
    speed, kernels, pipeline, clips, means = tables(result_of(measured()))

    assert speed.rows[0][:6] == ("vsrm-t", "fp32", "180p", "100.0", "95.0-105.0", "10.00")
    assert speed.rows[1][3:6] == ("no room", "-", "-")
    assert kernels.rows[0][4:] == ("2.00", "50.0", "1.0e-06")
    assert pipeline.rows[0][-1] == "network"
    assert clips.rows == (
        ("000", "25.77", "27.00", "equal"),
        ("mean", "25.77", "27.00", "equal"),
    )
    assert all(
        len(row) == len(t.headers) for t in (speed, kernels, pipeline, means) for row in t.rows
    )


def test_published_scores_are_sorted_among_the_methods_by_psnr():
    means = tables(result_of(measured()))[-1]

    names = [row[0] for row in means.rows]
    assert means.title == "REDS4, BI x4"
    assert names[:4] == [
        "bicubic",
        "Bicubic, as quoted in the papers below",
        "vsrm-t",
        "EDVR (5/7), arXiv:1905.02716",
    ]
    assert names[-1] == "equal"


def test_thousands_of_clips_are_shown_by_their_mean_alone():
    result = result_of(measured())
    clip = result["quality"]["clips"][0]
    result["quality"]["clips"] = [copy.deepcopy(clip) for _ in range(41)]

    assert [row[0] for row in tables(result)[3].rows] == ["mean"]


def test_the_rules_of_measurement_are_noted():
    said = result_notes(result_of(replace(measured(), speed=None)))

    assert said[0] == "LR frames made here, all frames, no border cut"
    assert "along the flow of vsrm-t" in said[1]
    assert "that of the ground truth is 0.400" in said[1]
    assert any(line.startswith("clip 000 was cropped") for line in said)


def test_the_time_for_a_minute_of_video_is_reported():
    result = result_of(replace(measured(), quality=None))

    (told,) = result_notes(result)

    # 1440 frames, each window of 32 gives 24 new ones; 100 ms per frame of 180p.
    assert "one minute of 480p" in told
    assert (
        f"vsrm-t in fp32 {1440 * 32 / 24 * 0.1 * 854 * 480 / (320 * 180) / 60:.0f} minutes" in told
    )


def test_changes_are_formatted_as_a_table():
    old, new = result_of(measured()), result_of(measured(ms=150.0))

    table = changes_table(compare_results(old, new))

    assert table.rows[0] == ("vsrm-t fp32 180p, 5 frames", "100.000 ms", "150.000 ms", "1.500")


def test_networks_that_were_not_timed_have_no_plot_of_quality_against_speed():
    result = result_of(measured())
    for row in result["speed"]:
        row["model"] = "another"

    assert set(plots(result)) == {"speed", "gain"}
