"""The job of `vsrm preview`: some places of a video, upscaled by several networks, on one page."""

import re
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.decode.image_sequence import find_images, is_sequence
from vsrm_cli.encode.options import choose_codec, plan_encoding
from vsrm_cli.errors import OutputError, UsageError
from vsrm_cli.evaluation.baselines import upscale_frame
from vsrm_cli.files import check_output_path
from vsrm_cli.frame import SCALE, Frame, Pixels, to_8_bits
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.media.geometry import output_shape
from vsrm_cli.media.orientation import rotate_upright
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.preview.clips import FRAMES_SHOWN, PreviewClip, read_preview_clip
from vsrm_cli.preview.page import BICUBIC, NetworkEstimate, encode_images, preview_page
from vsrm_cli.preview.places import Read, find_places
from vsrm_cli.report.html import write_whole
from vsrm_cli.upscale.devices import new_restorer
from vsrm_cli.upscale.job import load_network
from vsrm_cli.upscale.open_media import encoding_of, open_input
from vsrm_cli.upscale.options import DEFAULT_MODEL, UpscaleOptions
from vsrm_cli.upscale.pipeline import Progress
from vsrm_cli.upscale.plan import (
    estimate_bytes,
    estimate_seconds,
    expected_frames,
    select_model,
    suitable_models,
)
from vsrm_cli.upscale.resumable_reader import PIPE

PLACES = 5
# Containers for the suggested outputs, which hold H.264 and almost all other streams.
_CONTAINERS = (".mp4", ".m4v", ".mov", ".mkv")

Report = Callable[[Progress], None]


@dataclass(frozen=True)
class Preview:
    """Summary of a preview.

    Attributes:
        output: The page.
        times: Start of each place, in seconds after the first frame.
        versions: Methods on the page: bicubic, and the networks.
        page_bytes: Size of the page.
        seconds: How long it took.
    """

    output: str
    times: tuple[float, ...]
    versions: tuple[str, ...]
    page_bytes: int
    seconds: float


@dataclass(frozen=True)
class _Version:
    """A network, the reason if it is the default, and a detail other than its own."""

    model: str
    detail: float | None = None
    reason: str = ""

    @property
    def name(self) -> str:
        """Its name on the page."""
        if self.detail is not None:
            return f"{self.model}, detail {self.detail:g}"
        path = Path(self.model)
        # Fine-tuning gives all weight files the same name, but in different folders.
        return f"{path.absolute().parent.name}/{path.stem}" if path.is_file() else self.model


def preview_video(
    src: Path,
    output: Path,
    options: UpscaleOptions | None = None,
    *,
    models: Sequence[str] = (),
    at: Sequence[Fraction] = (),
    overwrite: bool = False,
    report: Report | None = None,
    report_transfer: Callable[[DownloadProgress], None] | None = None,
    warn: Callable[[str], None] = lambda _: None,
) -> Preview:
    """Write a page with upscaled samples and estimates of the whole job.

    Args:
        src: The video to read; or a folder or pattern of images.
        output: The page to write; its name ends in ".html".
        options: Device, precision, tiles and the like, as for the job itself.
        models: The networks to show; empty for all that fit the video.
        at: Start times in seconds after the first frame; empty to choose them.
        overwrite: Whether `output` may exist and be replaced.
        report: Called after each frame that a network has finished.
        report_transfer: Called while a weight file is downloaded.
        warn: Called with each assumption about the input.

    Raises:
        InputError: If the video cannot be read, or has no frame at one of the times.
        OutputError: If the page cannot be written.
        UsageError: If the input is a pipe.
        WeightsError: If there is no such network.
    """
    began = time.perf_counter()
    options = options or UpscaleOptions()
    if src == PIPE:
        raise UsageError("A preview seeks to several places of the video; give a file, not a pipe.")
    if output.suffix.lower() not in (".html", ".htm"):
        raise OutputError(f"A preview is a page; give it a name such as {output.stem}.html.")
    files = find_images(src) if is_sequence(src) else [src]
    check_output_path(output, inputs=files, overwrite=overwrite)
    with open_input(src, options) as source:
        info = source.info
        for notice in source.notices:
            warn(notice)
    versions = _versions(models, info, files)
    for version in versions:
        locate(version.model, report=report_transfer)
    clips = _clips(src, info, options, at)
    images: list[list[list[bytes]]] = [[] for _ in clips]
    estimates = []
    done = _FrameCounter(len(versions) * sum(len(clip.frames) for clip in clips), report)
    qualities: list[int | None] = [None] * len(clips)
    for version in versions:
        asked = replace(options, model=version.model, detail=version.detail)
        restorer = new_restorer(load_network(asked, report_transfer), asked, None)
        estimates.append(_estimate(restorer, version, src, output, info, options))
        for number, clip in enumerate(clips):
            frames = list(done.count(clip.frames, restorer.restore(clip.frames)))[clip.shown]
            shown = _shown(frames, clip, restorer.network.scale, info)
            encoded, qualities[number] = encode_images(shown, qualities[number])
            images[number].append(encoded)
    for row, clip, quality in zip(images, clips, qualities, strict=True):
        frames = [upscale_frame(frame) for frame in clip.frames[clip.shown]]
        row.insert(0, encode_images(_shown(frames, clip, SCALE, info), quality)[0])
    page = preview_page(info, clips, images, estimates)
    write_whole(output, page, overwrite=overwrite)
    return Preview(
        output=str(output),
        times=tuple(float(clip.time) for clip in clips),
        versions=(BICUBIC, *(version.name for version in versions)),
        page_bytes=len(page),
        seconds=round(time.perf_counter() - began, 1),
    )


def _versions(models: Sequence[str], info: VideoInfo, files: Sequence[Path]) -> list[_Version]:
    """The networks to show, the default one first unless they are given."""
    name, reason = select_model(DEFAULT_MODEL, info, files)
    best = _Version(str(name), reason=reason)
    versions: dict[tuple[str, float | None], _Version] = {}
    for model in models or (DEFAULT_MODEL, *suitable_models(best.model)):
        version = best if model == DEFAULT_MODEL else _Version(model)
        versions.setdefault((version.model, version.detail), version)
    return list(versions.values())


def _clips(
    src: Path, info: VideoInfo, options: UpscaleOptions, at: Sequence[Fraction]
) -> list[PreviewClip]:
    """The frames at the given times, or at times that are chosen."""
    step = 1 / info.frame_rate if info.frame_rate else Fraction(1, 25)
    # Black or still frames and scene cuts are found in interlaced frames, too.
    places = sorted(set(at)) or find_places(
        _reading(src, replace(options, deinterlace=False), step),
        info.duration or (info.expected_frames or 0) * step,
        start=info.start,
        count=PLACES,
        frames=FRAMES_SHOWN,
    )
    read = _reading(src, options, step)
    return [read_preview_clip(read, place, info=info, step=step) for place in places]


def _reading(src: Path, options: UpscaleOptions, step: Fraction) -> Read:
    """Make a function that seeks to a time and reads from there."""

    def read(time: Fraction) -> Iterator[Frame]:
        # The headers of all images between start and end are read before the first image.
        end = time + 4 * FRAMES_SHOWN * step if is_sequence(src) else None
        with open_input(src, replace(options, start=time or None, end=end)) as source:
            yield from source.frames()

    return read


def _estimate(
    restorer: Restorer,
    version: _Version,
    src: Path,
    output: Path,
    info: VideoInfo,
    options: UpscaleOptions,
) -> NetworkEstimate:
    """Estimate the whole job, and format its command."""
    frames = expected_frames(info, options)
    restorer.choose_tile(min(options.window, frames or options.window), info.height, info.width)
    shape = output_shape(info, scale=Fraction(restorer.network.scale))
    encoding = choose_codec(
        encoding_of(options), _suffix(src), bits=info.bits, size=(shape.width, shape.height)
    )
    plan = plan_encoding(encoding, info.pixel_format, hdr=info.hdr)
    seen = shape.upright(info)
    return NetworkEstimate(
        name=version.name,
        reason=version.reason,
        seconds=None if frames is None else estimate_seconds(restorer, info, frames=frames),
        file_bytes=estimate_bytes(plan, shape, frames=frames),
        memory_bytes=restorer.memory_bytes(info.height, info.width),
        size=f"{seen.width}x{seen.height}",
        command=_command(version, src, output, options),
    )


def _command(version: _Version, src: Path, output: Path, options: UpscaleOptions) -> str:
    """The command of the whole job; its output is next to the page."""
    is_images = is_sequence(src)
    stem = src.absolute().name if src.is_dir() else src.stem.split("%")[0] or "video"
    name = f"{stem}_{re.sub(r'[^A-Za-z0-9.-]+', '_', version.name)}"
    words = ["vsrm", "upscale", str(src), "-o", str(output.with_name(name + _suffix(src)))]
    words += ["--model", version.model]
    chosen = {
        "--detail": None if version.detail is None else f"{version.detail:g}",
        "--device": None if options.device == "auto" else options.device,
        "--dtype": None if options.dtype == "auto" else options.dtype,
        "--tile": None if options.tile == "auto" else str(options.tile or "off"),
        "--fps": str(options.fps) if is_images else None,
    }
    words += [word for name, value in chosen.items() if value for word in (name, value)]
    return shlex.join(words)


def _suffix(src: Path) -> str:
    """The suffix of the output: that of the input, if it can be written."""
    return src.suffix.lower() if src.suffix.lower() in _CONTAINERS else ".mkv"


def _shown(frames: Sequence[Frame], clip: PreviewClip, scale: int, info: VideoInfo) -> list[Pixels]:
    """The shown part of upscaled frames, rotated and scaled as players do, uint8."""
    rows, columns = (slice(scale * part.start, scale * part.stop) for part in clip.inside)
    return [
        rotate_upright(to_8_bits(frame.pixels[:, rows, columns]), info.display_matrix)
        for frame in frames
    ]


class _FrameCounter:
    """Counts the frames that the networks have restored, and reports them."""

    def __init__(self, expected: int, report: Report | None) -> None:
        self._expected = expected
        self._report = report
        self._frames = self._taken = 0
        self._began = time.perf_counter()

    def count(self, taken: Sequence[Frame], given: Iterator[Frame]) -> Iterator[Frame]:
        """Pass on the frames that a network returns for its input frames."""
        # It returns all of them at the end, so progress follows from the input frames.
        self._taken += len(taken)
        for frame in given:
            self._frames += 1
            seconds = (time.perf_counter() - self._began) / self._taken
            if self._report:
                self._report(
                    Progress(
                        frames_done=self._frames,
                        frames_expected=self._expected,
                        network_fps=1 / seconds,
                        seconds_left=seconds * (self._expected - self._taken),
                    )
                )
            yield frame
