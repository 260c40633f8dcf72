"""The figures of the papers are there with their sources, in the order that the papers claim."""

import pytest

from vsrm_cli.evaluation.published import published_scores

SETS = [
    ("REDS4", "bi"),
    ("Vid4", "bi"),
    ("Vimeo-90K-T", "bi"),
    ("UDM10", "bd"),
    ("Vid4", "bd"),
    ("Vimeo-90K-T", "bd"),
]


@pytest.mark.parametrize(("name", "degradation"), SETS)
def test_every_figure_is_possible_and_has_a_source(name, degradation):
    scores = published_scores(name, degradation)

    assert scores[0].model == "Bicubic"
    assert len(scores) >= 7
    assert len({score.model for score in scores}) == len(scores)
    for score in scores:
        assert 20 < score.psnr < 45
        assert 0.5 < score.ssim < 1
        assert score.source


def test_well_known_published_figures_are_correct():
    reds = {score.model: (score.psnr, score.ssim) for score in published_scores("REDS4", "bi")}

    assert reds["Bicubic"] == (26.14, 0.7292)
    assert reds["BasicVSR++ (30/14)"] == (32.39, 0.9069)
    assert reds["VSRM (16/7)"] == (33.11, 0.9162)


def test_an_unknown_set_has_no_figures():
    assert published_scores("", "bi") == []
    assert published_scores("REDS4", "bd") == []
