"""The plan of a job: what it will do and need, and which network it uses.

Times, sizes and memory are estimates.
"""

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

from vsrm_cli.checkpoints.catalog import (
    FOR_CLEAN,
    FOR_CLEAN_X2,
    FOR_COMPRESSED,
    MODELS,
    find_detail_pair,
    resolve_detail,
)
from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.checkpoints.loading import network_scale
from vsrm_cli.decode.artifacts import find_artifacts
from vsrm_cli.encode.options import EncodingPlan
from vsrm_cli.encode.writer import SegmentedWriter
from vsrm_cli.errors import OutputError
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.inference.tiling import TILE_OVERLAP, plan_grid
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.open_media import shape_of_output
from vsrm_cli.upscale.options import DEFAULT_MODEL, DEFAULT_SCALE, UpscaleOptions
from vsrm_cli.upscale.resumable_reader import ResumableReader
from vsrm_cli.upscale.segmenting import PLANNED_WINDOWS

# Bits per pixel of a codec at our default quality for common footage, the median of four clips with
# H.264 (0.2 to 1.2): less for still scenes, more for leaves in the wind. The other codecs lose
# little or nothing.
_BITS_PER_PIXEL = {"h264": 0.4, "hevc": 0.27, "av1": 0.2, "vp9": 0.4, "vp8": 0.5}
_BITS_PER_PIXEL_OTHERS = 6.0
_HEIGHT_4K = 2160
# By how much of a frame the times in a file may be off, which count in milliseconds or so.
_ROUNDED_FRAMES = Fraction(1, 16)
# A step of six on the scales of x264 and x265 halves or doubles the size.
_CRF_TO_HALVE = 6
# Footage needs less than a tenth of the estimate only if almost nothing moves.
_LEAST_SHARE = 10


@dataclass(frozen=True)
class JobPlan:
    """The plan of a job; `as_dict` gives what `--dry-run --json` prints.

    Attributes:
        input: The file to read.
        output: The file to write.
        frames: About how many there are; None if unknown.
        frames_resumed: Of these, how many an earlier run has finished.
        source: Displayed size and pixel format of the input.
        color: How its pixel values are read.
        result: Displayed size, pixel format and encoder of the output.
        kept: The streams that are copied.
        dropped: What the output cannot hold, and why.
        model: Name of the network.
        model_scale: How many times it enlarges; the result is resampled from that.
        model_reason: Why it was selected; empty if the user chose it.
        detail: The mixture of its two weight files, 0 to 1; None if it has one.
        device: Where it will run.
        dtype: Its precision.
        window: Frames that it sees together.
        overlap: Frames that two windows share.
        tile: Side of a tile in pixels of the input; None for whole frames.
        tiles: Number of tiles of a frame.
        segment_frames: Minimum frames between resume points; None for half a minute of work.
        seconds: Estimate of the remaining time; None if unknown.
        memory_bytes: Estimate of the memory needed on the device.
        file_bytes: Estimate of the size of the output; None if unknown.
        disk_bytes: Estimate of the disk space needed until the output is complete.
        free_bytes: Free space on that disk.
    """

    input: str
    output: str
    frames: int | None
    frames_resumed: int
    source: str
    color: str
    result: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    model: str
    model_scale: int
    model_reason: str
    detail: float | None
    device: str
    dtype: str
    window: int
    overlap: int
    tile: int | None
    tiles: int
    segment_frames: int | None
    seconds: float | None
    memory_bytes: int
    file_bytes: int | None
    disk_bytes: int | None
    free_bytes: int

    @classmethod
    def of(
        cls,
        source: ResumableReader,
        restorer: Restorer,
        output: SegmentedWriter,
        journal: Journal,
        options: UpscaleOptions,
        *,
        model: str,
        model_reason: str,
        device: str,
        dtype: str,
    ) -> Self:
        """Plan a job; the network restores one small tile to measure its speed."""
        info, shown = source.info, output.shown_shape
        seen = info.upright()
        frames = expected_frames(info, options)
        restorer.choose_tile(min(options.window, frames or options.window), *_size(info))
        grid = plan_grid(*_size(info), tile=restorer.tile, overlap=TILE_OVERLAP)
        devices = device.count(",") + 1
        planned = PLANNED_WINDOWS * restorer.windows.stride if devices > 1 else None
        seconds = None
        if frames is not None:
            left = estimate_seconds(restorer, info, frames=frames - journal.frames_done)
            seconds = round(left / devices, 1)
        return cls(
            input=str(info.path),
            output=str(output.path),
            frames=frames,
            frames_resumed=journal.frames_done,
            source=f"{seen.width}x{seen.height}, {info.pixel_format}",
            color=str(info.color)
            + ("" if info.has_chroma_location else ", color samples on the left (assumed)"),
            result=f"{shown.width}x{shown.height}, {output.plan.pixel_format}, "
            f"{output.plan.encoder}",
            kept=tuple(output.kept),
            dropped=tuple(output.dropped),
            model=model,
            model_scale=restorer.network.scale,
            model_reason=model_reason,
            detail=options.detail,
            device=device,
            dtype=dtype,
            window=options.window,
            overlap=options.overlap,
            tile=restorer.tile,
            tiles=len(grid.rows) * len(grid.columns),
            segment_frames=options.segment_frames or planned,
            seconds=seconds,
            memory_bytes=restorer.memory_bytes(*_size(info)),
            file_bytes=estimate_bytes(output.plan, shown, frames=frames),
            disk_bytes=_disk_bytes(output, journal, frames),
            free_bytes=shutil.disk_usage(journal.folder).free,
        )

    def as_dict(self) -> dict[str, Any]:
        """All values by name."""
        return asdict(self)


def check_disk_space(output: SegmentedWriter, journal: Journal, frames: int | None) -> str | None:
    """Compare the needed disk space with the free space.

    Args:
        output: The output.
        journal: With the finished segments.
        frames: How many there will be; None if unknown.

    Returns:
        A warning, if the estimate exceeds the free space.

    Raises:
        OutputError: If even a tenth of the estimate does.
    """
    needed = _disk_bytes(output, journal, frames) or 0
    free = shutil.disk_usage(journal.folder).free
    if needed <= free:
        return None
    finding = (
        f"about {needed / 1e9:.1f} GB may be needed in the folder of {output.path} until it is "
        f"finished, and {free / 1e9:.1f} GB are free"
    )
    if needed > _LEAST_SHARE * free:
        raise OutputError(
            f"{finding[0].upper()}{finding[1:]}; free some space, choose another disk, or "
            "use a larger --crf."
        )
    return finding


def suggest_height(options: UpscaleOptions, shape: OutputShape) -> str | None:
    """Advise 4K if the output is larger and the user gave no size."""
    is_given = options.is_scale_given or options.height is not None or options.size is not None
    if is_given or min(shape.width, shape.height) <= _HEIGHT_4K:
        return None
    return (
        f"the output is {shape.width}x{shape.height}, more than most players and screens can "
        f"show; --height {_HEIGHT_4K} makes it 4K, in a much smaller file"
    )


def suggest_network(info: VideoInfo, options: UpscaleOptions, model: str, scale: int) -> str | None:
    """Advise another network if this one enlarges less than the output needs."""
    factor = shape_of_output(info, options).enlargement(info)
    if scale >= DEFAULT_SCALE or scale >= factor:
        return None
    return (
        f"{model} enlarges {scale} times, and its frames are resampled to be "
        f"{float(factor):g} times larger; a network for {DEFAULT_SCALE} times shows more"
    )


def expected_frames(info: VideoInfo, options: UpscaleOptions) -> int | None:
    """About how many frames there will be; None if unknown."""
    if options.start is None and options.end is None:
        return info.expected_frames
    rate, end = info.frame_rate, options.end
    if rate is None:
        return None
    count = info.expected_frames
    if count is None and info.duration is not None:
        count = round(info.duration * rate)
    counts = [count] if end is None else [count, _frames_before(end, rate)]
    last = min((known for known in counts if known is not None), default=None)
    return None if last is None else max(0, last - _frames_before(options.start or 0, rate))


def _frames_before(time: Fraction | int, rate: Fraction) -> int:
    """How many frames are shown before a time; those at it, but for rounding, are not."""
    return math.ceil(time * rate - _ROUNDED_FRAMES)


def estimate_seconds(restorer: Restorer, info: VideoInfo, *, frames: int) -> float:
    """Estimate how long the network takes for this many frames, by measuring it."""
    grid = plan_grid(*_size(info), tile=restorer.tile, overlap=TILE_OVERLAP)
    read = frames * restorer.windows.size / restorer.windows.stride
    return round(read * grid.pixels_read * restorer.seconds_per_pixel(*_size(info)), 1)


def estimate_bytes(plan: EncodingPlan, shape: OutputShape, *, frames: int | None) -> int | None:
    """Estimate the size of the output's video."""
    if frames is None:
        return None
    bits = _BITS_PER_PIXEL.get(plan.codec, _BITS_PER_PIXEL_OTHERS)
    bits *= 2 ** (-plan.crf_above_default / _CRF_TO_HALVE)
    return int(frames * shape.width * shape.height * bits / 8)


def _disk_bytes(output: SegmentedWriter, journal: Journal, frames: int | None) -> int | None:
    """Estimate the disk space still needed: for missing segments and the output."""
    expected = estimate_bytes(output.plan, output.shape, frames=frames)
    if expected is None:
        return None
    done = sum(entry.size_bytes for entry in journal.entries)
    return 2 * max(expected, done) - done


def _size(info: VideoInfo) -> tuple[int, int]:
    return info.height, info.width


def select_model(
    model: str | Path,
    info: VideoInfo,
    files: Sequence[Path] = (),
    *,
    factor: Fraction | int = DEFAULT_SCALE,
) -> tuple[str | Path, str]:
    """Select the network: the one that the user named, or the best one for such footage.

    `weights/README.md` has the figures, on clean and on H.264 clips. If two networks qualify, the
    one with the smaller sufficient scale is selected.

    Args:
        model: A network, or `DEFAULT_MODEL`.
        info: The input.
        files: Files in which to look for artifacts if the codec is lossless; by default that of
            ``info``.
        factor: How many times larger the output is.

    Returns:
        The network, and why it was selected; empty if the user chose it.
    """
    if model != DEFAULT_MODEL:
        return model, ""
    seen = None if info.is_lossy else find_artifacts(_spread(files) or [info.path])
    if info.is_lossy or seen is not None:
        but = "" if seen is None else f", but {seen}"
        shrunk = "; it has no network for 2 times, so 4 times is shrunk" if factor <= 2 else ""
        return FOR_COMPRESSED, f"for compressed footage: the input is {info.codec}{but}{shrunk}"
    clean = f"clean footage: the input is {info.codec}, without visible artifacts"
    if factor <= MODELS[FOR_CLEAN_X2].scale:
        return FOR_CLEAN_X2, f"for up to 2 times larger, and {clean}"
    return FOR_CLEAN, f"for {clean}"


def resolve_model(
    options: UpscaleOptions,
    info: VideoInfo,
    files: Sequence[Path] = (),
    *,
    report: Callable[[DownloadProgress], None] | None = None,
) -> tuple[UpscaleOptions, str]:
    """Choose the network, its detail and the scale, if the user has not.

    The writer must know the size of the frames before the network is loaded.

    Args:
        options: The options as given.
        info: The input.
        files: As in `select_model`.
        report: Called while a weight file is downloaded, which may have to tell its scale.

    Returns:
        The options with all three, and why this network; empty if the user chose it.
    """
    factor = shape_of_output(info, options).enlargement(info)
    model, reason = select_model(options.model, info, files, factor=factor)
    is_default = options.model == DEFAULT_MODEL
    detail = resolve_detail(str(model), options.detail)
    scale = options.scale
    if options.is_size_open and not is_default:
        scale = Fraction(network_scale(model, report=report))
    return replace(options, model=model, detail=detail, scale=scale), reason


def _spread(files: Sequence[Path]) -> list[Path]:
    """A few of the files, evenly spread."""
    last = len(files) - 1
    return [files[place] for place in sorted({0, last // 3, 2 * last // 3, last}) if files]


def suitable_models(chosen: str) -> list[str]:
    """The bundled networks for the same footage as the one that `select_model` returns.

    For compressed footage these are the networks with `--detail`, for clean footage all of the same
    scale.
    """
    scale = MODELS[chosen].scale
    bundled = [
        name for name, entry in MODELS.items() if entry.file is not None and entry.scale == scale
    ]
    return [name for name in bundled if chosen == FOR_CLEAN or find_detail_pair(name)]
