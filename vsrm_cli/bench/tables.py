"""Format a result as tables and as a page."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vsrm_cli.bench.results import FigureChange, Result
from vsrm_cli.bench.speed import SIZES
from vsrm_cli.evaluation.baselines import FILTERS
from vsrm_cli.evaluation.quality import GainCrop
from vsrm_cli.report.html import (
    Table,
    heading,
    html_page,
    html_table,
    image_figure,
    paragraph,
    side_by_side,
    slider,
)
from vsrm_cli.report.svg import bar_plot, line_plot, point_plot
from vsrm_cli.report.units import format_rough_duration
from vsrm_cli.upscale.options import DEFAULT_OVERLAP, DEFAULT_WINDOW

Row = dict[str, Any]  # one measurement of a result

CROPS_SHOWN = 4
# Vimeo-90K-T has thousands of clips: only means are shown; the JSON has all clips.
MOST_CLIPS_SHOWN = 40


def tables(result: Result) -> list[Table]:
    """A table for each kind of measurement."""
    found = []
    if result["speed"]:
        found.append(_speed_table(result["speed"]))
    if result["kernels"]:
        found.append(_kernel_table(result["kernels"]))
    if result["end_to_end"]:
        found.append(_pipeline_table(result["end_to_end"]))
    if result["ablation"]:
        found.append(_ablation_table(result["ablation"]))
    if result["quality"]:
        found += _quality_tables(result["quality"])
    return found


def _table(title: str, rows: Sequence[Row], columns: Mapping[str, Callable[[Row], str]]) -> Table:
    """A table with a column for each header, of what its function makes of a row."""
    cells = tuple(tuple(cell(row) for cell in columns.values()) for row in rows)
    return Table(title, tuple(columns), cells)


def _speed_table(rows: Sequence[Row]) -> Table:
    return _table(
        "Networks alone",
        rows,
        {
            "model": lambda row: row["model"],
            "type": lambda row: row["dtype"],
            "size": lambda row: row["size"],
            "ms/frame": lambda row: row["problem"] or f"{row['ms_per_frame']:.1f}",
            "from-to": lambda row: _span(row["ms_lowest"], row["ms_highest"]),
            "fps": lambda row: _number(row["fps"], ".2f"),
            "memory": lambda row: _gibibytes(row["peak_memory_bytes"]),
            "weights": lambda row: f"{row['parameters'] / 1e6:.2f} M",
            "GMAC/frame": lambda row: f"{row['macs_per_frame'] / 1e9:.1f}",
            "tile": lambda row: str(row["largest_tile"] or "none"),
        },
    )


def _kernel_table(rows: Sequence[Row]) -> Table:
    return _table(
        "Selective scan",
        rows,
        {
            "implementation": lambda row: row["kernel"],
            "channels": lambda row: str(row["channels"]),
            "states": lambda row: str(row["state"]),
            "steps": lambda row: str(row["length"]),
            "ms": lambda row: row["problem"] or f"{row['ms']:.2f}",
            "times the reference": lambda row: _number(row["times_reference"], ".1f"),
            "differs by": lambda row: _number(row["largest_difference"], ".1e"),
        },
    )


def _pipeline_table(rows: Sequence[Row]) -> Table:
    return _table(
        "From file to file",
        rows,
        {
            "file": lambda row: row["input"],
            "model": lambda row: f"{row['model']} {row['dtype']} on {row['device']}",
            "frames": lambda row: str(row["frames"]),
            "result": lambda row: f"{row['width']}x{row['height']}",
            "fps": lambda row: f"{row['fps']:.2f}",
            "decode": lambda row: f"{row['decode_fps']:.2f}",
            "network": lambda row: f"{row['network_fps']:.2f}",
            "encode": lambda row: f"{row['encode_fps']:.2f}",
            "slowest": lambda row: row["slowest"],
        },
    )


def _ablation_table(rows: Sequence[Row]) -> Table:
    whole = {row["model"]: row["psnr"] for row in rows if row["part"] == "whole"}
    return _table(
        "What each part adds",
        rows,
        {
            "network": lambda row: row["model"],
            "run": lambda row: row["part"],
            "PSNR-Y": lambda row: _psnr(row["psnr"]),
            "against whole": lambda row: f"{row['psnr'] - whole[row['model']]:+.3f}",
            "ms per frame": lambda row: f"{row['ms_per_frame']:.0f}",
        },
    )


def _quality_tables(quality: dict[str, Any]) -> list[Table]:
    if not quality["clips"]:
        return []
    channel = "Y" if quality["on"] == "y" else "RGB"
    methods = [row["method"] for row in quality["means"]]
    rows = [
        (clip["clip"], *(_psnr(row["psnr"]) for row in clip["methods"]))
        for clip in _shown_clips(quality)
    ]
    rows.append(("mean", *(_psnr(row["psnr"]) for row in quality["means"])))
    per_clip = Table(f"PSNR-{channel} of each clip, dB", ("clip", *methods), tuple(rows))
    return [per_clip, _mean_table(quality, channel)]


# Further columns besides PSNR and SSIM: title, key in the result, and format.
_COLUMNS = (
    ("LPIPS", "lpips", ".3f"),
    ("CVVDP", "cvvdp", ".2f"),
    ("VMAF", "vmaf", ".1f"),
    ("sharpness", "sharpness", ".2f"),
    ("flicker", "flicker", ".1f"),
    ("warping error", "warping", ".3f"),
)


def _shown_clips(quality: dict[str, Any]) -> list[dict[str, Any]]:
    clips: list[dict[str, Any]] = quality["clips"]
    return clips if len(clips) <= MOST_CLIPS_SHOWN else []


def _mean_table(quality: dict[str, Any], channel: str) -> Table:
    """Means of the methods, and figures of papers for the set, best last."""
    scored = [(row["psnr"], row["method"], row) for row in quality["means"]]
    scored += [
        (row["psnr"], f"{row['model']}, {row['source']}", row) for row in quality["published"]
    ]
    # A PSNR of null is infinite: all frames are equal.
    scored.sort(key=lambda entry: float("inf") if entry[0] is None else entry[0])
    name = quality["test_set"] or quality["folder"]
    # Metrics that could not be measured here have no column.
    measured = [
        (title, key, form)
        for title, key, form in _COLUMNS
        if any(row.get(key) is not None for _, _, row in scored)
    ]
    return Table(
        f"{name}, {quality['degradation'].upper()} x{quality['scale']}",
        ("method", f"PSNR-{channel}", f"SSIM-{channel}", *(title for title, _, _ in measured)),
        tuple(
            (
                method,
                _psnr(row["psnr"]),
                f"{row['ssim']:.4f}",
                *(_number(row.get(key), form) for _, key, form in measured),
            )
            for _, method, row in scored
        ),
    )


def changes_table(changes: Sequence[FigureChange]) -> Table:
    """The comparison with an older result."""
    return Table(
        "Against the older result (more than 1 is worse)",
        ("figure", "before", "now", "ratio"),
        tuple(
            (c.figure, f"{c.old:.3f} {c.unit}", f"{c.new:.3f} {c.unit}", f"{c.ratio:.3f}")
            for c in changes
        ),
    )


def result_notes(result: Result) -> list[str]:
    """Notes for readers of the tables."""
    timed = [row for row in result["speed"] or () if row["ms_per_frame"] is not None]
    return [
        *([_minute_of_480p(timed)] if timed else []),
        *(_quality_remarks(result["quality"]) if result["quality"] else []),
    ]


def _minute_of_480p(rows: Sequence[Row]) -> str:
    """The time for one minute of 480p, from the largest size that was timed."""
    width, height = SIZES["480p"]
    largest = {(row["model"], row["dtype"]): row for row in rows}  # sizes are increasing
    times = []
    for (model, dtype), row in largest.items():
        pixels = width * height / (row["width"] * row["height"])
        frames = 60 * 24 * DEFAULT_WINDOW / (DEFAULT_WINDOW - DEFAULT_OVERLAP)
        seconds = frames * pixels * row["ms_per_frame"] / 1000
        times.append(f"{model} in {dtype} {format_rough_duration(seconds)}")
    return (
        "one minute of 480p at 24 frames per second takes here, by the number of pixels: "
        f"{', '.join(times)}; 'vsrm upscale --dry-run' estimates a video of yours"
    )


def _quality_remarks(quality: dict[str, Any]) -> list[str]:
    frames = (
        "the middle frame of each clip"
        if quality["frames_that_count"] == "center"
        else "all frames"
    )
    border = (
        f"{quality['crop']} pixels ignored at each edge" if quality["crop"] else "no border cut"
    )
    notes = [f"LR frames {quality['small_frames']}, {frames}, {border}"]
    truths = [c["truth_warping"] for c in quality["clips"] if c["truth_warping"] is not None]
    if truths:
        notes.append(
            f"warping error in thousandths, along the flow of {quality['flow_network']} between "
            f"ground truth frames; that of the ground truth is {sum(truths) / len(truths):.3f}. "
            "Blur reduces it: compare it at similar PSNR"
        )
    notes.append(
        "sharpness is the contrast of details relative to the ground truth, correct or not; "
        "flicker is the change of the error from frame to frame, in gray levels; LPIPS: less is "
        "better"
    )
    return [*notes, *quality["notes"]]


def result_page(result: Result, crops: Sequence[GainCrop]) -> str:
    """A page with the tables, plots and the crops with the largest gain.

    Args:
        result: Of `run_bench`.
        crops: Of `measure_quality`, those with the largest gain first.
    """
    machine, versions = result["machine"], result["versions"]
    lead = (
        f"vsrm {versions['vsrm']}, torch {versions['torch']}, on {machine['device_name']} "
        f"({machine['cores']} cores, {machine['system']})"
    )
    parts = [*map(paragraph, result_notes(result))]
    drawn = plots(result)
    if drawn:
        parts.append(side_by_side(list(drawn.values())))
    if crops:
        parts.append(heading("Before and after"))
        parts.append(side_by_side([_crop_part(crop) for crop in crops[:CROPS_SHOWN]]))
    parts += map(html_table, tables(result))
    return html_page("vsrm bench", lead, parts)


def _crop_part(crop: GainCrop) -> str:
    network = next(name for name in crop.images if name not in {*FILTERS, "ground truth"})
    where = f"{crop.clip}, frame {crop.frame}"
    compared = slider(
        crop.images["bicubic"],
        crop.images[network],
        labels=("bicubic", network),
        caption=where,
    )
    truth = image_figure(crop.images["ground truth"], caption=f"{where}: ground truth")
    return f"<div>{compared}{truth}</div>"


def plots(result: Result) -> dict[str, str]:
    """Plots as SVG, as far as there is data: "speed", "tradeoff" and "gain"."""
    drawn = {}
    timed = [row for row in result["speed"] or () if row["ms_per_frame"] is not None]
    if timed:
        drawn["speed"] = _speed_plot(timed)
    quality = result["quality"]
    if quality and quality["clips"]:
        tradeoff = _quality_against_speed(quality, timed) if timed else None
        if tradeoff:
            drawn["tradeoff"] = tradeoff
        drawn["gain"] = _gain_plot(quality)
    return drawn


def _speed_plot(rows: Sequence[Row]) -> str:
    lines: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        pixels = row["width"] * row["height"] / 1000
        name = f"{row['model']} {row['dtype']}"
        lines.setdefault(name, []).append((pixels, row["ms_per_frame"]))
    return line_plot(
        "Time by size",
        {name: sorted(points) for name, points in lines.items()},
        x_label="pixels of the LR frame, thousands",
        y_label="ms per frame",
    )


def _quality_against_speed(quality: dict[str, Any], rows: Sequence[Row]) -> str | None:
    """PSNR against speed at the smallest size that was timed; None if no network has both."""
    psnrs = {row["method"]: row["psnr"] for row in quality["means"]}
    smallest = min(rows, key=lambda row: row["width"])["size"]
    points = {
        f"{row['model']} {row['dtype']}": (row["fps"], psnrs[row["model"]])
        for row in rows
        if row["size"] == smallest and psnrs.get(row["model"]) is not None
    }
    if not points:
        return None
    return point_plot(
        "Quality against speed",
        points,
        x_label=f"frames per second at {smallest}",
        y_label="PSNR, dB",
    )


def _gain_plot(quality: dict[str, Any]) -> str:
    bars: dict[str, list[float]] = {}
    clips = _shown_clips(quality)
    for clip in [*clips, {"methods": quality["means"]}]:
        base = clip["methods"][0]["psnr"] or 0.0
        for row in clip["methods"][1:]:
            bars.setdefault(row["method"], []).append((row["psnr"] or base) - base)
    names = [clip["clip"] for clip in clips]
    return bar_plot("Gain over bicubic", [*names, "mean"], bars, label="dB")


def _psnr(value: float | None) -> str:
    return "equal" if value is None else f"{value:.2f}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _span(low: float | None, high: float | None) -> str:
    return "-" if low is None else f"{low:.1f}-{high:.1f}"


def _gibibytes(size: int | None) -> str:
    return "-" if size is None else f"{size / 2**30:.2f} GiB"
