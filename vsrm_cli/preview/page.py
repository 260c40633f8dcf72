"""The page of a preview: each place in all versions, and estimates of the whole job."""

from collections.abc import Sequence
from dataclasses import dataclass

from vsrm_cli.encode.webp import encode_webp
from vsrm_cli.frame import SCALE, Pixels
from vsrm_cli.media.orientation import rotate_upright
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.preview.clips import CONTEXT, PreviewClip
from vsrm_cli.report import viewer
from vsrm_cli.report.html import (
    data_uri_of,
    heading,
    html_page,
    paragraph,
)
from vsrm_cli.report.units import format_bytes, format_duration

BICUBIC = "bicubic"
# WebP qualities, tried in order until the images of a place are small enough on average.
_QUALITIES, _IMAGE_BYTES = (90, 80, 70, 55, 40), 130_000


@dataclass(frozen=True)
class NetworkEstimate:
    """A network, with estimates and the command of the whole job.

    Attributes:
        name: On the page.
        reason: Why it is the default; empty for the others.
        seconds: Estimated time; None if unknown.
        file_bytes: Estimated size of the output.
        memory_bytes: Estimated memory of the network.
        size: Of the frames of the output.
        command: The command line.
    """

    name: str
    reason: str
    seconds: float | None
    file_bytes: int | None
    memory_bytes: int
    size: str
    command: str


def encode_images(images: Sequence[Pixels], quality: int | None) -> tuple[list[bytes], int]:
    """Encode the frames of a place in one version as WebP; also return the quality.

    Args:
        images: (3, H, W) uint8 each.
        quality: Of the other versions; None for the best that keeps the page small.
    """
    for each in _QUALITIES if quality is None else (quality,):
        files = [encode_webp(image, quality=each) for image in images]
        if sum(map(len, files)) <= _IMAGE_BYTES * len(files):
            break
    return files, each


def preview_page(
    info: VideoInfo,
    clips: Sequence[PreviewClip],
    images: Sequence[Sequence[Sequence[bytes]]],
    estimates: Sequence[NetworkEstimate],
) -> bytes:
    """The page.

    Args:
        info: The video.
        clips: The places.
        images: WebP files for each place, version (bicubic and each estimate) and frame.
        estimates: The networks.
    """
    versions = [BICUBIC, *(estimate.name for estimate in estimates)]
    views = [_view(info, clip, row) for clip, row in zip(clips, images, strict=True)]
    plays = any(len(view.frames[0]) > 1 for view in views)
    lead = f"{info.path.name}: {info.width}x{info.height}, {len(clips)} "
    lead += "place" if len(clips) == 1 else "places"
    if info.duration is not None:
        lead += f" of {format_duration(float(info.duration))}"
    hint = "Move the edge in each image with the mouse, a finger, or the slider below it."
    context = (
        f"The networks used up to {CONTEXT} more frames before and after the frames of each place; "
        "in the whole job they use at least as many."
    )
    parts = [
        paragraph(hint),
        viewer.toolbar(versions, plays=plays),
        *(viewer.viewer(view, versions) for view in views),
        heading("The whole job"),
        paragraph("Estimates for this machine, and the command."),
        *(
            viewer.command_box(estimate.name, _facts(estimate), estimate.command)
            for estimate in estimates
        ),
        paragraph(context),
    ]
    style, script = viewer.STYLE, viewer.SCRIPT
    return html_page("vsrm preview", lead, parts, style=style, script=script).encode()


def _facts(estimate: NetworkEstimate) -> str:
    """Estimates of the whole job."""
    facts = [f"{estimate.size} pixels"]
    if estimate.seconds is not None:
        unit = "hours" if estimate.seconds >= 3600 else "minutes"
        facts.append(f"about {format_duration(estimate.seconds)} {unit}")
    if estimate.file_bytes is not None:
        facts.append(f"{format_bytes(estimate.file_bytes)}")
    facts.append(f"{format_bytes(estimate.memory_bytes)} of memory")
    return ", ".join(facts) + (f"; the default {estimate.reason}" if estimate.reason else "")


def _view(
    info: VideoInfo, clip: PreviewClip, versions: Sequence[Sequence[bytes]]
) -> viewer.PlaceVersions:
    shown = clip.frames[clip.shown]
    lines, columns = (part.stop - part.start for part in clip.inside)
    # The output is as large as that of the network, whatever its pixel aspect ratio.
    height, width = SCALE * lines, round(SCALE * columns * (info.sample_aspect_ratio or 1))
    if info.is_turned:
        height, width = width, height
    length = float(shown[-1].time - shown[0].time)
    overview = None
    if clip.overview is not None:
        small = rotate_upright(clip.overview, info.display_matrix)
        overview = data_uri_of(encode_webp(small, quality=_QUALITIES[0]), "webp")
    return viewer.PlaceVersions(
        title=f"at {format_duration(int(clip.time))}.{int(clip.time * 100) % 100:02}",
        caption="" if overview is None else "the part with most detail",
        frames=[[data_uri_of(file, "webp") for file in files] for files in versions],
        width=width,
        height=height,
        milliseconds=1000 * length / (len(shown) - 1) if len(shown) > 1 else 1000,
        number=len(shown) // 2,
        overview=overview,
    )
