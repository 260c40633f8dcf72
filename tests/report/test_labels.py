"""The small font has every character that labels need."""

import string

import numpy as np
import pytest

from vsrm_cli.report.labels import _CHARACTERS, draw_label, text_mask


@pytest.mark.parametrize("sign", string.ascii_letters + string.digits + "._-,:()/+ ")
def test_every_character_has_its_own_glyph(sign):
    rows = _CHARACTERS[sign].split("/")

    assert [len(row) for row in rows] == [5] * 7
    assert set(_CHARACTERS[sign]) <= {"#", " ", "/"}
    assert [other for other, form in _CHARACTERS.items() if form == _CHARACTERS[sign]] == [sign]


def test_one_empty_column_separates_characters():
    ink = text_mask("H!", size=2)

    assert ink.shape == (14, 22)
    assert ink[:, :2].all()
    assert not ink[:, 10:12].any()


def test_an_unknown_character_is_drawn_as_a_box():
    assert (text_mask("字", size=1) == text_mask("\N{SNOWMAN}", size=1)).all()
    assert text_mask("字", size=1).sum() == 20


def test_empty_text_has_no_ink():
    assert text_mask("", size=3).shape == (21, 0)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_label_changes_only_its_corner(dtype):
    peak = np.iinfo(dtype).max
    picture = np.full((3, 40, 120), peak // 2, dtype)

    draw_label(picture, "vsrm-t")
    draw_label(picture, "B", right=True)

    assert (picture[:, :27] == peak // 2).all()
    assert (picture[:, 27:, 41:109] == peak // 2).all()
    assert (picture[:, 30:37, 3:38] == peak).any()
    assert (picture[:, 30:37, 112:117] == peak).any()


@pytest.mark.parametrize(("height", "width"), [(40, 20), (9, 200), (9, 20)])
def test_text_that_does_not_fit_is_cut(height, width):
    whole = text_mask("a very long label indeed", size=1)
    picture = np.zeros((3, height, width), np.uint8)

    draw_label(picture, "a very long label indeed")

    # Three pixels of the band stay free on each side, and the letters begin at the left.
    ink = picture[0, 3 + max(0, height - 13) : -3, 3:-3] == 255
    assert ink.shape == (min(7, height - 6), width - 6)
    shown = whole[: height - 6, : width - 6]
    assert (ink[:, : shown.shape[1]] == shown).all()
    assert (picture == 255).sum() == 3 * shown.sum() > 0


def test_an_image_too_small_for_a_letter_is_unchanged():
    picture = np.full((3, 6, 200), 100, np.uint8)

    draw_label(picture, "a")

    assert (picture == 100).all()
