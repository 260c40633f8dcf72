"""A viewer that compares versions of a video in a page.

A movable edge has one version on its left and another on its right. A toolbar selects versions,
zoom and playback for all viewers of the page.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

# Screen pixels per pixel of a frame; 0 fits the frame into the page.
_ZOOMS = (("fit", 0), ("1:1", 1), ("2:1", 2))

STYLE = """
html { scroll-padding-top: 9rem; }
.bar { position: sticky; top: 0; z-index: 5; display: flex; flex-wrap: wrap; gap: .3rem 1rem;
  align-items: center; margin: 0 -1rem; padding: .5rem 1rem; background: var(--paper);
  border-bottom: 1px solid var(--line); font-size: .9rem; }
.bar fieldset { display: flex; gap: .3rem; align-items: center; border: 0; margin: 0;
  padding: .2rem; min-width: 0; max-width: 100%; overflow-x: auto; scrollbar-width: none; }
.bar legend { float: left; padding: 0 .3rem 0 0; color: var(--soft); }
.bar label { position: relative; white-space: nowrap; }
.bar input { position: absolute; inset: 0; margin: 0; opacity: 0; cursor: pointer; }
.bar > label { color: var(--soft); padding: .2rem; }
.bar span, button, select { display: inline-block; padding: .25rem .7rem; border-radius: 6px;
  font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  cursor: pointer; }
.bar :checked + span { color: #fff; background: #0067a3; border-color: #0067a3; }
.bar :focus-visible + span, button:focus-visible, select:focus-visible, .window:focus-visible,
.view > input:focus-visible { outline: 3px solid #3aa0e0; outline-offset: 2px; }
.view { margin: 1.2rem 0; }
.view figcaption { display: flex; gap: 1rem; align-items: center; justify-content: space-between; }
.view figcaption img { display: block; max-width: 30%; max-height: 6rem; border-radius: 4px; }
.box, .view > input { display: block; width: min(100%, 90vh * var(--w) / var(--h)); }
.box { position: relative; margin: .4rem auto; }
.window { display: grid; overflow: hidden; aspect-ratio: var(--w) / var(--h); border-radius: 6px;
  background: var(--card); cursor: ew-resize; touch-action: pan-y; user-select: none; }
.window.zoomed { overflow: auto; cursor: grab; touch-action: auto; }
.stage { position: relative; margin: auto; width: 100%; aspect-ratio: var(--w) / var(--h);
  --at: 50%; }
.stage img { position: absolute; inset: 0; width: 100%; height: 100%; visibility: hidden;
  pointer-events: none; }
.stage .right, .stage .left { visibility: visible; }
.stage .left { z-index: 1; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.stage::after { content: ""; position: absolute; z-index: 2; inset: 0 auto 0 var(--at);
  width: 2px; margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000;
  pointer-events: none; }
.zoomed.enlarged img { image-rendering: pixelated; }
.box > span { position: absolute; z-index: 3; top: .4rem; max-width: 48%; padding: 0 .45rem;
  overflow: hidden; white-space: nowrap; text-overflow: ellipsis; border-radius: 4px;
  color: #fff; background: #000a; font-size: .8rem; pointer-events: none; }
.box > .name-left { left: .4rem; }
.box > .name-right { right: .4rem; }
.view > input { height: 1.6rem; margin: 0 auto; accent-color: #0067a3; }
.command { margin: 1rem 0; }
.command code { display: block; margin: .2rem 0 .4rem; padding: .5rem .7rem; border-radius: 6px;
  background: var(--card); font-size: .9rem; overflow-wrap: anywhere; user-select: all; }
"""

SCRIPT = """
const bar = document.querySelector(".bar");
const views = [...document.querySelectorAll(".view")].map(view => ({
  images: [...view.querySelectorAll(".stage img")],
  names: ["left", "right"].map(side => view.querySelector(".name-" + side)),
  stage: view.querySelector(".stage"),
  window: view.querySelector(".window"),
  edge: view.querySelector("input"),
  milliseconds: Number(view.dataset.milliseconds),
  count: Number(view.dataset.count),
  number: Number(view.dataset.number),
}));
const versions = [...bar.elements.left.options].map(option => option.text);
const chosen = name => Number(bar.elements[name].value);
let isPlaying = false;

function show(view) {
  const sides = ["left", "right"].map(chosen);
  view.names.forEach((name, side) => { name.textContent = versions[sides[side]]; });
  view.images.forEach((image, index) => {
    const version = Math.floor(index / view.count), isNow = index % view.count === view.number;
    image.classList.toggle("left", isNow && version === sides[0]);
    image.classList.toggle("right", isNow && version === sides[1] && sides[0] !== sides[1]);
  });
}
function moveEdge(view) {
  const stage = view.stage.getBoundingClientRect();
  const at = view.window.getBoundingClientRect().left - stage.left
    + view.edge.value / 100 * view.window.clientWidth;
  view.stage.style.setProperty("--at", 100 * at / stage.width + "%");
}
function zoom(view) {
  const factor = chosen("zoom"), shown = view.window;
  const x = (shown.scrollLeft + shown.clientWidth / 2) / shown.scrollWidth;
  const y = (shown.scrollTop + shown.clientHeight / 2) / shown.scrollHeight;
  shown.classList.toggle("zoomed", factor > 0);
  shown.classList.toggle("enlarged", factor > 1);
  const width = shown.parentElement.parentElement.style.getPropertyValue("--w");
  view.stage.style.width = factor ? width * factor / devicePixelRatio + "px" : "";
  shown.scrollLeft = x * shown.scrollWidth - shown.clientWidth / 2;
  shown.scrollTop = y * shown.scrollHeight - shown.clientHeight / 2;
  moveEdge(view);
}
function play(now) {
  if (!isPlaying) return;
  for (const view of views) {
    const number = Math.floor(now / view.milliseconds) % view.count;
    if (number !== view.number) { view.number = number; show(view); }
  }
  requestAnimationFrame(play);
}
for (const view of views) {
  let drag = null;
  const move = event => {
    if (!drag) return;
    if (chosen("zoom") === 0) {
      const place = view.window.getBoundingClientRect();
      view.edge.value = 100 * (event.clientX - place.left) / place.width;
      moveEdge(view);
    } else {
      view.window.scrollLeft = drag.left + drag.x - event.clientX;
      view.window.scrollTop = drag.top + drag.y - event.clientY;
    }
  };
  view.window.addEventListener("pointerdown", event => {
    if (event.pointerType !== "mouse" && chosen("zoom") > 0) return;
    const { scrollLeft: left, scrollTop: top } = view.window;
    drag = { x: event.clientX, y: event.clientY, left, top };
    view.window.setPointerCapture(event.pointerId);
    move(event);
  });
  view.window.addEventListener("pointermove", move);
  for (const end of ["pointerup", "pointercancel"])
    view.window.addEventListener(end, () => { drag = null; });
  view.window.addEventListener("scroll", () => moveEdge(view));
  view.edge.addEventListener("input", () => moveEdge(view));
}
bar.addEventListener("change", event => {
  views.forEach(event.target.name === "zoom" ? zoom : show);
});
bar.querySelector("button")?.addEventListener("click", event => {
  isPlaying = !isPlaying;
  event.target.textContent = isPlaying ? "Pause" : "Play";
  requestAnimationFrame(play);
});
addEventListener("resize", () => views.forEach(zoom));
bar.addEventListener("submit", event => event.preventDefault());
views.forEach(show);
views.forEach(zoom);
for (const button of document.querySelectorAll(".command button"))
  button.addEventListener("click", async () => {
    const code = button.previousElementSibling;
    getSelection().selectAllChildren(code);
    try { await navigator.clipboard.writeText(code.textContent); }
    catch { document.execCommand("copy"); }
    button.textContent = "Copied";
    setTimeout(() => { button.textContent = "Copy"; }, 2000);
  });
"""


@dataclass(frozen=True)
class PlaceVersions:
    """One place of a video in all versions.

    Attributes:
        title: Its name, such as the time.
        caption: Text next to it.
        frames: Data URIs of the frames of each version, in the order of the toolbar; all versions
            have the same number.
        width: Of a displayed frame, in pixels.
        height: Likewise.
        milliseconds: Duration of a frame during playback.
        number: The frame shown without playback.
        overview: Data URI of a thumbnail of the whole frame; None for none.
    """

    title: str
    caption: str
    frames: Sequence[Sequence[str]]
    width: int
    height: int
    milliseconds: float = 40.0
    number: int = 0
    overview: str | None = None


def toolbar(versions: Sequence[str], *, plays: bool) -> str:
    """The toolbar of a page.

    Args:
        versions: Their names; the first is initially on the left, the second on the right.
        plays: Whether any place has more than one frame.
    """
    options = "".join(
        f'<option value="{number}">{escape(name)}</option>' for number, name in enumerate(versions)
    )
    right = _choice("right", [(name, number) for number, name in enumerate(versions)], checked=1)
    button = '<button type="button">Play</button>' if plays else ""
    return (
        '<form class="bar" aria-label="Versions and zoom">'
        f'<label>left <select name="left">{options}</select></label>'
        f"{right}{_choice('zoom', _ZOOMS, checked=0)}{button}</form>"
    )


def _choice(name: str, options: Sequence[tuple[str, int]], *, checked: int) -> str:
    """Radio buttons in a row."""
    buttons = "".join(
        f'<label><input type="radio" name="{name}" value="{value}"'
        f"{' checked' if number == checked else ''}><span>{escape(words)}</span></label>"
        for number, (words, value) in enumerate(options)
    )
    return f"<fieldset><legend>{name}</legend>{buttons}</fieldset>"


def viewer(view: PlaceVersions, versions: Sequence[str]) -> str:
    """A viewer for one place: two versions, an edge between them, and a slider for the edge."""
    images = "".join(
        f'<img decoding="sync" alt="{escape(name)}, frame {number + 1}" src="{frame}"'
        f"{_side(version, is_shown=number == view.number)}>"
        for version, (name, frames) in enumerate(zip(versions, view.frames, strict=True))
        for number, frame in enumerate(frames)
    )
    overview = (
        f'<img alt="the whole frame, and which part of it is shown" src="{view.overview}">'
        if view.overview
        else ""
    )
    return (
        f'<figure class="view" style="--w:{view.width};--h:{view.height}" '
        f'data-milliseconds="{view.milliseconds:.3f}" data-count="{len(view.frames[0])}" '
        f'data-number="{view.number}">'
        f"<figcaption><div><b>{escape(view.title)}</b> {escape(view.caption)}</div>{overview}"
        f'</figcaption><div class="box"><div class="window" tabindex="0" role="group" '
        f'aria-label="{escape(view.title)}"><div class="stage">{images}</div></div>'
        f'<span class="name-left">{escape(versions[0])}</span>'
        f'<span class="name-right">{escape(versions[1])}</span></div>'
        '<input type="range" min="0" max="100" step="0.5" value="50" '
        f'aria-label="Edge between left and right, {escape(view.title)}"></figure>'
    )


def _side(version: int, *, is_shown: bool) -> str:
    """The class of an image without the script."""
    return f' class="{("left", "right")[version]}"' if is_shown and version < 2 else ""


def command_box(name: str, facts: str, words: str) -> str:
    """A command line with its name, some facts, and a copy button."""
    return (
        f'<div class="command"><b>{escape(name)}</b> <span>{escape(facts)}</span>'
        f'<code>{escape(words)}</code><button type="button">Copy</button></div>'
    )
