"""The page of a preview in a real browser: with a mouse, a finger and the keyboard."""

import time

import numpy as np
import pytest
from browser import CHROMIUM
from clips import make_clip
from stub_network import load_nearest

from vsrm_cli.preview import job
from vsrm_cli.report import viewer
from vsrm_cli.report.html import data_uri, html_page
from vsrm_cli.upscale import job as upscale

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")

BLACK = data_uri(np.zeros((3, 1, 1), np.uint8))
VERSIONS = ["bicubic", "vsrm-t", "vsrm-t-real"]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """Two places of a clip in bicubic and two networks, of frames of 384 x 256 pixels."""
    folder = tmp_path_factory.mktemp("a page, with spaces")
    clip = make_clip(folder / "it's.mkv", size=(96, 64), codec="ffv1", pixel_format="bgr0")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(upscale, "load_model", load_nearest)
        job.preview_video(clip, folder / "a.html", models=VERSIONS[1:], at=[0, job.Fraction(1, 2)])
    return folder / "a.html"


@pytest.fixture
def opened(browser, page):
    browser.requests.clear()
    browser.console_errors.clear()
    browser.open(page, width=1280)
    yield browser
    assert browser.console_errors == []


def shown(browser, side):
    """Version and number of the pictures that are seen on a side, of both places."""
    alts = browser.run(f"[...document.querySelectorAll('.stage .{side}')].map(x => x.alt)")
    return [tuple(alt.split(", frame ")) for alt in alts]


def edges(browser):
    """Where the edges are, in percent of the pictures."""
    code = "[...document.querySelectorAll('.stage')].map(x => x.style.getPropertyValue('--at'))"
    return [float(at.rstrip("%")) for at in browser.run(code)]


def place_of(browser, selector):
    code = f"""(() => {{
        const element = document.querySelector({selector!r});
        element.scrollIntoView({{block: "center"}});
        const r = element.getBoundingClientRect();
        return [r.left, r.top, r.width, r.height]; }})()"""
    return browser.run(code)


def press(browser, key, code):
    for kind in ("rawKeyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=code)


def click(browser, selector):
    left, top, width, height = place_of(browser, selector)
    browser.drag(*[(left + width / 2, top + height / 2)] * 2)


def right(version):
    return f'input[name=right][value="{VERSIONS.index(version)}"]'


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    ("width", "is_phone"), [(1280, False), (390, True)], ids=["laptop", "phone"]
)
def test_the_page_is_self_contained(browser, page, width, is_phone, scheme):
    browser.requests.clear()
    browser.console_errors.clear()
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.send("Emulation.setEmulatedMedia", features=[feature])

    browser.open(page, width=width, is_phone=is_phone)

    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('.stage img').length") == 2 * 3 * 8
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth === 384)")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if scheme == "light" else "rgb(20, 23, 27)"
    )
    assert browser.console_errors == []
    assert {url for url in browser.requests if not url.startswith("data:")} == {page.as_uri()}


def test_the_edge_follows_the_mouse_and_the_keyboard(opened):
    left, top, width, height = place_of(opened, ".window")
    at_first = edges(opened)

    opened.drag((left + width / 2, top + height / 2), (left + width * 0.8, top + height / 2))
    after_the_mouse = edges(opened)
    opened.run("document.querySelector('.view > input').focus()")
    press(opened, "Home", 36)

    assert at_first == pytest.approx([50, 50])
    assert after_the_mouse == pytest.approx([80, 50], abs=1)
    assert edges(opened) == pytest.approx([0, 50], abs=1)


def test_the_edge_follows_a_finger(browser, page):
    browser.open(page, width=390, is_phone=True)
    browser.send("Emulation.setTouchEmulationEnabled", enabled=True)
    left, top, width, height = place_of(browser, ".window")

    for kind, share in (("touchStart", 0.5), ("touchMove", 0.3), ("touchMove", 0.2)):
        point = {"x": left + width * share, "y": top + height / 2}
        browser.send("Input.dispatchTouchEvent", type=kind, touchPoints=[point])
    browser.send("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    browser.send("Emulation.setTouchEmulationEnabled", enabled=False)

    assert edges(browser)[0] == pytest.approx(20, abs=2)


def test_a_click_and_a_key_switch_the_version_of_all_places(opened):
    at_first = [shown(opened, side) for side in ("left", "right")]

    click(opened, right("vsrm-t-real"))
    after_the_click = shown(opened, "right")
    press(opened, "ArrowLeft", 37)
    after_the_key = shown(opened, "right")
    opened.run("document.querySelector('[name=left]').focus()")
    press(opened, "ArrowDown", 40)
    press(opened, "ArrowDown", 40)

    assert at_first == [[("bicubic", "5")] * 2, [("vsrm-t", "5")] * 2]
    assert after_the_click == [("vsrm-t-real", "5")] * 2
    assert after_the_key == [("vsrm-t", "5")] * 2
    assert shown(opened, "left") == [("vsrm-t-real", "5")] * 2
    assert opened.run("document.querySelector('.name-left').textContent") == "vsrm-t-real"


def test_one_to_one_shows_a_pixel_as_a_pixel_of_the_screen(browser, page):
    width = "document.querySelector('.stage').getBoundingClientRect().width"
    browser.open(page, width=390, is_phone=True)
    fitted = browser.run(width)

    click(browser, 'input[name=zoom][value="1"]')
    one_to_one = browser.run(width)
    click(browser, 'input[name=zoom][value="2"]')
    left, top, across, height = place_of(browser, ".window")
    before_the_drag = browser.run("document.querySelector('.window').scrollLeft")
    browser.drag((left + across / 2, top + height / 2), (left + across / 2 - 5, top + height / 2))

    assert fitted == pytest.approx(390 - 2 * 16)
    assert one_to_one == 384 / 2
    assert browser.run(width) == 384
    after_the_drag = browser.run("document.querySelector('.window').scrollLeft")
    assert after_the_drag == pytest.approx(before_the_drag + 5, abs=1)


def test_a_tall_image_fits_into_the_page(browser, tmp_path):
    view = viewer.PlaceVersions("a", "", [[BLACK], [BLACK]], width=90, height=1600)
    parts = [viewer.toolbar(["x", "y"], plays=False), viewer.viewer(view, ["x", "y"])]
    page = tmp_path / "tall.html"
    page.write_text(html_page("t", "", parts, style=viewer.STYLE, script=viewer.SCRIPT))

    browser.open(page, width=1280)

    _, _, width, height = place_of(browser, ".stage")
    assert place_of(browser, ".window")[2:] == pytest.approx([width, height])
    assert height == pytest.approx(0.9 * 900, abs=2)
    assert width == pytest.approx(height * 90 / 1600, abs=2)


def test_the_loop_plays_all_frames_at_the_speed_of_the_video(opened):
    assert opened.run("document.querySelector('.view').dataset.milliseconds") == "40.000"
    opened.run(
        """globalThis.seen = [];
        new MutationObserver(() => seen.push(document.querySelector('.stage .right').alt)).observe(
            document.querySelector('.stage'), {attributes: true, subtree: true});"""
    )

    click(opened, ".bar button")
    for _ in range(50):
        opened.send(
            "Runtime.evaluate",
            expression="new Promise(go => setTimeout(go, 100))",
            awaitPromise=True,
        )
        if opened.run("new Set(seen).size") == 8:
            break

    assert opened.run("new Set(seen).size") == 8
    click(opened, ".bar button")
    assert opened.run("document.querySelector('.bar button').textContent") == "Play"


def test_a_command_is_copied(opened):
    opened.run(
        """seen = []; new MutationObserver(() => seen.push(label())).observe(
            document.querySelector('.command button'), {childList: true, subtree: true});
        function label() { return document.querySelector('.command button').textContent }"""
    )
    click(opened, ".command button")

    assert opened.run("getSelection().toString()").startswith("vsrm upscale ")
    assert "it'\"'\"'s.mkv" in opened.run("document.querySelector('.command code').textContent")
    deadline = time.monotonic() + 30
    while not opened.run("seen.includes('Copied')"):
        assert time.monotonic() < deadline, "the button does not say that it has copied"
