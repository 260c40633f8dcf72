"""A page holds everything that it shows, escapes what it is given, and is written whole or not."""

import re

import numpy as np
import pytest
from html_images import decode_png, images_of

from vsrm_cli.report.html import (
    Table,
    encode_png,
    html_page,
    html_table,
    image_figure,
    paragraph,
    slider,
    write_whole,
)


def random_picture(height=21, width=34):
    return np.random.default_rng(3).integers(0, 256, (3, height, width), dtype=np.uint8)


@pytest.mark.parametrize("size", [(1, 1), (21, 34), (3, 200)])
def test_png_is_lossless(size):
    picture = random_picture(*size)

    assert (decode_png(encode_png(picture)) == picture).all()


def test_a_slider_has_both_images_and_their_names():
    before, after = random_picture(), 255 - random_picture()

    html = slider(before, after, labels=("bicubic", "vsrm-t"), caption="bear, frame 6")

    pictures = images_of(html)
    assert (pictures[0] == after).all()
    assert (pictures[1] == before).all()
    assert 'aria-label="bicubic against vsrm-t"' in html
    assert "aspect-ratio:34/21" in html


def test_text_cannot_become_markup():
    evil = "<script>alert('x')</script>"
    table = Table(evil, (evil,), ((evil,),))

    page = html_page(
        evil,
        evil,
        [
            html_table(table),
            paragraph(evil),
            image_figure(random_picture(), caption=evil),
            slider(random_picture(), random_picture(), labels=(evil, evil), caption=evil),
        ],
    )

    assert "<script>alert" not in page
    assert page.count("<script>") == 1


def test_a_page_forbids_requests():
    page = html_page("title", "lead", [image_figure(random_picture(), caption="c")])

    assert "default-src 'none'" in page
    assert not re.search(r"(src|href)=\"(?!data:)", page)
    assert "url(" not in page


def test_a_page_is_written_atomically(tmp_path):
    path = tmp_path / "page.html"

    write_whole(path, "<p>ü</p>".encode())
    write_whole(path, b"<p>new</p>", overwrite=True)

    assert path.read_text(encoding="utf-8") == "<p>new</p>"
    assert list(tmp_path.iterdir()) == [path]
