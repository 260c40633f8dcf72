"""Pages in a real browser: sliders move, without console errors and without requests."""

import re
from dataclasses import replace

import pytest
from bench.test_results import measured, result_of, scores
from browser import CHROMIUM
from scenes import smooth_picture, to_8_bits

from vsrm_cli.bench.tables import result_page
from vsrm_cli.evaluation.quality import ClipScores, GainCrop
from vsrm_cli.report.html import write_whole

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

PLACE = """
(() => { const r = document.querySelector(".slider").getBoundingClientRect();
         return [r.left, r.top, r.width, r.height]; })()
"""
WAYS = ("", ", frames alone")
EDGE = 'getComputedStyle(document.querySelector(".slider .before")).clipPath'


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A page with everything on it that `vsrm bench` can measure."""
    sharp = to_8_bits(smooth_picture(120, 160, wavelength=9.0)).numpy()
    soft = to_8_bits(smooth_picture(120, 160, wavelength=30.0)).numpy()
    pictures = {"bicubic": soft, "lanczos": soft, "vsrm-t": sharp, "ground truth": sharp}
    crops = [GainCrop(f"clip {n}", 6, 100.0, pictures) for n in range(2)]
    path = tmp_path_factory.mktemp("page") / "a page, with spaces.html"
    write_whole(path, result_page(result_of(measured()), crops).encode())
    return path


@pytest.mark.parametrize(
    ("width", "is_phone"), [(1280, False), (390, True)], ids=["laptop", "phone"]
)
def test_the_page_works_on_a_laptop_and_on_a_phone(browser, page, width, is_phone):
    browser.requests.clear()
    browser.console_errors.clear()

    browser.open(page, width=width, is_phone=is_phone)

    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('svg').length") == 3
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth === 160)")
    assert browser.console_errors == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}


def test_a_table_of_many_methods_fits_on_a_laptop(browser, tmp_path):
    names = ["bicubic", "lanczos", *(f"vsrm-t-{n}{way}" for n in range(4) for way in WAYS)]
    rows = tuple(scores(name, 26.0) for name in names)
    clip = ClipScores("a clip", 1, 1280, 720, 0.4, rows)
    figures = measured()
    figures = replace(figures, quality=replace(figures.quality, clips=(clip,), means=rows))
    page = tmp_path / "page.html"
    page.write_text(result_page(result_of(figures), []), encoding="utf-8")

    browser.open(page, width=1280)

    hidden = "[...document.querySelectorAll('.wide')].map(e => e.scrollWidth - e.clientWidth)"
    assert set(browser.run(hidden)) == {0}


def percent(clip_path):
    """How much of the picture on top is cut off on its right."""
    return float(re.search(r"([\d.]+)%", clip_path)[1])


def test_the_slider_follows_the_mouse_and_the_keyboard(browser, page):
    browser.open(page, width=1280)
    browser.run('document.querySelector(".slider").scrollIntoView({block: "center"})')
    left, top, width, height = browser.run(PLACE)
    in_the_middle = browser.run(EDGE)

    browser.drag((left + width / 2, top + height / 2), (left + width * 0.8, top + height / 2))
    after_the_mouse = browser.run(EDGE)
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Home", windowsVirtualKeyCode=36)
    after_the_key = browser.run(EDGE)

    assert in_the_middle == "inset(0px 50% 0px 0px)"
    assert percent(after_the_mouse) == pytest.approx(20, abs=2)
    assert after_the_key == "inset(0px 100% 0px 0px)"


def test_the_page_blocks_requests_to_other_addresses(browser, page):
    browser.open(page, width=1280)

    browser.run(
        "document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/x.png'}))"
    )
    browser.run("new Promise(go => setTimeout(go, 100))")

    assert any("Content Security Policy" in words for words in browser.console_errors)
