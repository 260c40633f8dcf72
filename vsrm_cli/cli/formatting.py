"""Plans, progress and results as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vsrm_cli.report.units import format_bytes, format_duration
from vsrm_cli.upscale.options import DEFAULT_SCALE
from vsrm_cli.upscale.pipeline import Progress

if TYPE_CHECKING:  # they import torch, and `vsrm --help` should not wait for it
    from vsrm_cli.upscale.plan import JobPlan
    from vsrm_cli.upscale.summary import JobSummary


def format_megabytes(count: int) -> str:
    """A number of bytes in megabytes, for people."""
    return f"{count / 1e6:.1f} MB"


def plan_lines(plan: JobPlan) -> list[str]:
    """A plan as lines, each a name and a value."""
    frames = "unknown" if plan.frames is None else f"about {plan.frames}"
    resumed = f", {plan.frames_resumed} of them finished" if plan.frames_resumed else ""
    tile = "whole frames" if plan.tile is None else f"{plan.tiles} per frame, {plan.tile} pixels"
    segments = (
        "about half a minute of work"
        if plan.segment_frames is None
        else f"{plan.segment_frames} frames or a little more"
    )
    rows = {
        "input": f"{plan.input} ({plan.source})",
        "output": f"{plan.output} ({plan.result})",
        "frames": frames + resumed,
        "color": plan.color,
        "copied": "; ".join(plan.kept) or "nothing else in the file",
        "dropped": "; ".join(plan.dropped) or "nothing",
        "network": f"{plan.model}{_factor(plan.model_scale)}{_detail(plan.detail)} "
        f"on {plan.device} in {plan.dtype}{_why(plan.model_reason)}",
        "windows": f"{plan.window} frames, {plan.overlap} shared with the next one",
        "tiles": tile,
        "segments": segments,
        "time": "unknown"
        if plan.seconds is None
        else f"about {format_duration(plan.seconds)} (estimate)",
        "memory": f"about {format_bytes(plan.memory_bytes)} for the network (estimate)",
        "size": "unknown"
        if plan.file_bytes is None
        else f"about {format_bytes(plan.file_bytes)}, "
        f"plus as much for segments until the end (estimate); {format_bytes(plan.free_bytes)} free",
    }
    return [f"{name:9} {text}" for name, text in rows.items()]


def bar_length(progress: Progress) -> int | None:
    """The length of the bar: the file's hint, unless it has proved too small."""
    expected = progress.frames_expected
    return None if expected is None or frames_computed(progress) > expected else expected


def frames_line(progress: Progress) -> str:
    """How many frames are done, and of how many."""
    length = bar_length(progress)
    total = "" if length is None else f" of ~{length}"
    return f"{int(frames_computed(progress))}{total} frames"


def frames_computed(progress: Progress) -> float:
    """Frames through the network: encoded ones are a window late."""
    return max(progress.frames_done, progress.frames_computed)


def stages_line(progress: Progress) -> str:
    """Frames per second of each stage, and the share of each device."""
    rates = ((name, fps) for name, fps in _rates(progress).items() if fps > 0)
    text = ", ".join(f"{name} {_rounded(fps)}" for name, fps in rates)
    shares = (f"{device} {frames}" for device, frames in progress.shares)
    return ", ".join([f"{text} fps"] * bool(text) + list(shares))


def time_left(seconds: float | None, scope: str = "") -> str:
    """How long it still takes; empty if unknown."""
    return "" if seconds is None else f"{format_duration(seconds)} left{scope}"


def _rates(progress: Progress) -> dict[str, float]:
    """Frames per second of each stage; 0 if not known yet."""
    return {
        "decode": progress.decode_fps,
        "network": progress.network_fps,
        "encode": progress.encode_fps,
    }


def _rounded(fps: float) -> str:
    return f"{fps:.0f}" if fps >= 10 else f"{fps:.1f}"


def step_rate(rate: float) -> str:
    """Training steps per second, with two digits."""
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"


def summary_line(summary: JobSummary, latest: Progress | None) -> str:
    """What a job did, in one line."""
    rates = {name: fps for name, fps in _rates(latest).items() if fps > 0} if latest else {}
    slowest = min(rates, key=rates.__getitem__, default=None)
    stage = f" (slowest stage: {slowest}, {_rounded(rates[slowest])})" if slowest else ""
    resumed = f" ({summary.frames_resumed} resumed)" if summary.frames_resumed else ""
    return (
        f"{summary.output}: {summary.frames_out} frames{resumed}, "
        f"{summary.width}x{summary.height}, in {format_duration(summary.elapsed_s)}, "
        f"{_rounded(summary.fps)} fps{stage}, "
        f"{summary.model}{_factor(summary.model_scale)}{_detail(summary.detail)} "
        f"on {summary.device}{_why(summary.model_reason)}"
    )


def _factor(scale: int) -> str:
    return "" if scale == DEFAULT_SCALE else f" (x{scale})"


def _detail(detail: float | None) -> str:
    return "" if detail is None else f" with detail {detail:g}"


def _why(reason: str) -> str:
    return f" ({reason})" if reason else ""
