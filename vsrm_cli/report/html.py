"""A self-contained page: tables, plots and before/after sliders in one HTML file.

Plots are inline SVG, images are embedded as PNG, and a content security policy forbids all
requests, so the file works offline and can be sent by mail.
"""

import base64
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np

from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path, write_atomically
from vsrm_cli.frame import Pixels

# Only scripts, styles and images inside the file, and no network requests.
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #fff; --soft: #5b6470; --line: #d5dae0;
  --card: #f6f8fa; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebef; --paper: #14171b; --soft: #9aa4b0; --line: #343b44; --card: #1d2127; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1120px; padding: 1rem 1rem 3rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 1rem 0 .2rem; }
h2 { font-size: 1.2rem; margin: 2rem 0 .5rem; }
p { margin: .3rem 0; overflow-wrap: anywhere; }
.lead { color: var(--soft); }
.row { display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .7rem; text-align: right; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { white-space: normal; vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0;
  background: var(--paper); }
td.words { white-space: normal; text-align: left; min-width: 14rem; }
figure { margin: .5rem 0; }
figcaption { color: var(--soft); font-size: .9rem; }
svg { display: block; width: 100%; max-width: 640px; height: auto; }
.row > svg:only-child { max-width: 860px; margin: auto; }
.slider { position: relative; overflow: hidden; border-radius: 6px; background: var(--card);
  --at: 50%; }
.slider img { display: block; width: 100%; height: 100%; }
.slider .before { position: absolute; inset: 0; clip-path: inset(0 calc(100% - var(--at)) 0 0); }
.slider::after { content: ""; position: absolute; inset: 0 auto 0 var(--at); width: 2px;
  margin-left: -1px; background: #fff; box-shadow: 0 0 3px #000; pointer-events: none; }
.slider span { position: absolute; bottom: .4rem; padding: 0 .45rem; border-radius: 4px;
  color: #fff; background: #000a; font-size: .8rem; pointer-events: none; }
.slider .left { left: .4rem; }
.slider .right { right: .4rem; }
.slider input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0;
  cursor: ew-resize; touch-action: pan-y; }
.slider:focus-within { outline: 3px solid #0072b2; outline-offset: 2px; }
.still img { display: block; width: 100%; border-radius: 6px; }
"""

_SCRIPT = """
for (const input of document.querySelectorAll(".slider input")) {
  const move = () => input.parentElement.style.setProperty("--at", input.value + "%");
  input.addEventListener("input", move);
  move();
}
"""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: Its heading.
        headers: One for each column.
        rows: Each as long as ``headers``.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def html_page(
    title: str, lead: str, parts: Sequence[str], *, style: str = "", script: str = ""
) -> str:
    """Make a page.

    Args:
        title: Its title and heading.
        lead: A line below the heading.
        parts: HTML from the other functions of this folder.
        style: Additional CSS.
        script: Additional JavaScript.
    """
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}{style}</style>\n</head>\n<body>\n"
        f'<h1>{escape(title)}</h1>\n<p class="lead">{escape(lead)}</p>\n'
        + "\n".join(parts)
        + f"\n<script>{_SCRIPT}{script}</script>\n</body>\n</html>\n"
    )


def heading(words: str) -> str:
    """A heading inside the page."""
    return f"<h2>{escape(words)}</h2>"


def paragraph(words: str) -> str:
    """A paragraph of text."""
    return f"<p>{escape(words)}</p>"


def side_by_side(parts: Sequence[str]) -> str:
    """Parts in columns if the screen is wide enough, else below each other."""
    return f'<div class="row">{"".join(parts)}</div>'


def html_table(table: Table) -> str:
    """A table with its heading; wide ones scroll horizontally."""
    head = "".join(f"<th>{escape(header)}</th>" for header in table.headers)
    rows = "".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in table.rows)
    return (
        f'{heading(table.title)}<div class="wide"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )


def _cell(words: str) -> str:
    is_long = len(words) > 40
    return f"<td{' class=words' if is_long else ''}>{escape(words)}</td>"


def slider(before: Pixels, after: Pixels, *, labels: tuple[str, str], caption: str) -> str:
    """A before/after slider for two images of one size.

    Args:
        before: Left of the edge, (3, H, W) uint8.
        after: Right of the edge, the same shape.
        labels: Their names.
        caption: Text below.
    """
    height, width = before.shape[1:]
    return (
        f'<figure><div class="slider" style="aspect-ratio:{width}/{height}">'
        f'<img src="{data_uri(after)}" alt="{escape(labels[1])}">'
        f'<img class="before" src="{data_uri(before)}" alt="{escape(labels[0])}">'
        f'<span class="left">{escape(labels[0])}</span>'
        f'<span class="right">{escape(labels[1])}</span>'
        '<input type="range" min="0" max="100" value="50" step="0.5" '
        f'aria-label="{escape(labels[0])} against {escape(labels[1])}"></div>'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def image_figure(image: Pixels, *, caption: str) -> str:
    """An image, (3, H, W) uint8, with a caption."""
    return (
        f'<figure class="still"><img src="{data_uri(image)}" alt="{escape(caption)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def data_uri(image: Pixels) -> str:
    """An image, (3, H, W) uint8, as a data URI."""
    return data_uri_of(encode_png(image), "png")


def data_uri_of(file: bytes, kind: str) -> str:
    """An image file, such as "png" or "webp", as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(file).decode('ascii')}"


def encode_png(image: Pixels) -> bytes:
    """Encode RGB, (3, H, W) uint8, as PNG (ISO/IEC 15948), each row as differences from above."""
    rows = np.moveaxis(image, 0, -1).astype(np.uint8)
    height, width, _ = rows.shape
    above = np.concatenate((np.zeros_like(rows[:1]), rows[:-1]))
    filtered = np.full((height, 1 + 3 * width), 2, np.uint8)  # 2: the filter named "up"
    filtered[:, 1:] = (rows - above).reshape(height, -1)
    header = struct.pack(">2I5B", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", header),
            (b"IDAT", zlib.compress(filtered.tobytes(), 9)),
            (b"IEND", b""),
        )
    )


def write_whole(path: Path, content: bytes, *, overwrite: bool = False) -> None:
    """Write a file atomically.

    Raises:
        OutputError: As `check_output_path`, or if the disk is full.
    """
    check_output_path(path, overwrite=overwrite)
    try:
        with write_atomically(path) as part:
            part.write_bytes(content)
    except OSError as error:
        raise OutputError(f"{path} could not be written: {error.strerror}.") from error
