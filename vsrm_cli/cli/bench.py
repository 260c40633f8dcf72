"""The command that measures: `vsrm bench`.

It handles no failures: `app` adds it to the program and reports them.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import Debug, panel

if TYPE_CHECKING:  # the jobs bring torch, which `vsrm --help` need not wait for
    from vsrm_cli.bench.results import Result
    from vsrm_cli.evaluation.quality import GainCrop

EXIT_FAILED = 1

_measurement, _quality_option = panel("What to measure"), panel("Quality")
_result_option = panel("Results")


def bench(
    gpu: Annotated[
        bool | None,
        typer.Option(
            "--gpu/--cpu", metavar="", help="Where to measure.", show_default="the best device"
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME|FILE",
            help="A network or a weight file; can be given several times.",
            show_default="all with weights",
        ),
    ] = None,
    dtype: Annotated[
        list[str] | None,
        typer.Option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision; can be given several times.",
            show_default="auto",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option("--quick", metavar="", help="Measure less: one size, few frames, no flicker."),
    ] = False,
    speed: Annotated[
        bool,
        _measurement(
            "--speed",
            metavar="",
            help="Time the networks alone; the default if nothing else is chosen.",
        ),
    ] = False,
    size: Annotated[
        list[str] | None,
        _measurement(
            metavar="180p|270p|360p|480p|540p",
            help="Height of the LR frames for --speed; can be given several times.",
            show_default="all",
        ),
    ] = None,
    window: Annotated[
        int | None,
        _measurement(
            metavar="N",
            help="Frames that the network sees together.",
            show_default="24 on a GPU, 5 elsewhere; whole clips for --quality",
        ),
    ] = None,
    kernels: Annotated[
        bool,
        _measurement(
            "--kernels", metavar="", help="Time the implementations of the selective scan."
        ),
    ] = False,
    end_to_end: Annotated[
        Path | None,
        _measurement(
            metavar="VIDEO",
            help="Time a whole job from file to file, and name the slowest stage.",
            show_default=False,
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        _measurement(
            metavar="FOLDER",
            help="Measure quality on a folder of HR clips, or one with GT and LR inside.",
            show_default=False,
        ),
    ] = None,
    degradation: Annotated[
        str,
        _quality_option(
            metavar="bi|bd|CODEC-QUALITY",
            help="How HR clips are shrunk: bicubic, blur and subsample, or bicubic and "
            "compressed: h264-23, h264-28, hevc-30, vp9-40, mpeg4-6, mpeg2-6.",
        ),
    ] = "bi",
    on: Annotated[
        str,
        _quality_option(
            metavar="auto|y|rgb",
            help="Compare luma or RGB; auto does what the literature does for the test set.",
        ),
    ] = "auto",
    crop: Annotated[
        int, _quality_option(min=0, metavar="N", help="Pixels to leave out at each edge.")
    ] = 0,
    ablate: Annotated[
        bool,
        _quality_option(
            "--ablate",
            help="Measure what each part of the networks adds, on the clips of --quality.",
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        _quality_option(
            metavar="NAME=PATH",
            help="Also measure the results of another program: a folder with the names of the "
            "clips, or the result of the only clip; can be given several times.",
            show_default=False,
        ),
    ] = None,
    detail: Annotated[
        float | None,
        _quality_option(
            min=0.0,
            max=1.0,
            metavar="0..1",
            help="Of networks with two weight files (vsrm models): which mixture to measure.",
            show_default="the file of the name",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        _quality_option(
            min=1, metavar="N", help="Frames to read of each clip.", show_default="all"
        ),
    ] = None,
    as_json: Annotated[
        bool,
        _result_option(
            "--json", metavar="", help="Print one JSON object on stdout instead of tables."
        ),
    ] = False,
    html: Annotated[
        Path | None,
        _result_option(
            metavar="FILE",
            help="Write a page with plots and before/after sliders.",
            show_default=False,
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        _result_option(
            metavar="OLD.json",
            help="Compare with an older --json; exit 1 if a figure is worse by more than the "
            "tolerance.",
            show_default=False,
        ),
    ] = None,
    tolerance: Annotated[
        float,
        _result_option(
            min=0.0,
            metavar="SHARE",
            help="How much more time or squared error is accepted; 0.1 is 10 %.",
        ),
    ] = 0.1,
    overwrite: Annotated[
        bool, _result_option("--overwrite", "-y", metavar="", help="Replace the page if it exists.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only results and errors.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Measure the speed and quality of the networks on this machine.

    Example: vsrm bench --quick
    """
    from vsrm_cli.bench.options import BenchOptions, read_also
    from vsrm_cli.bench.results import read_result
    from vsrm_cli.bench.run import run_bench
    from vsrm_cli.evaluation.quality import QualityOptions
    from vsrm_cli.files import check_output_path

    options = BenchOptions(
        gpu=gpu,
        models=tuple(model or ()),
        dtypes=tuple(dtype or ("auto",)),
        is_quick=quick,
        speed=speed or not (kernels or end_to_end or quality),
        sizes=tuple(size or ()),
        window=window,
        kernels=kernels,
        video=end_to_end,
        folder=quality,
        quality=QualityOptions(
            degradation=degradation,
            on=on,
            crop=crop,
            window=window,
            most_frames=frames,
            follows_time=not quick,
            also=read_also(also or ()),
            detail=detail,
        ),
        ablate=ablate,
    )
    old = read_result(compare) if compare else None
    if html:
        check_output_path(html, overwrite=overwrite)
    result, crops = run_bench(options, (lambda _: None) if quiet else console.print_note)
    _print_result(result, crops, as_json=as_json, html=html, overwrite=overwrite)
    is_worse = old is not None and _print_changes(old, result, tolerance, as_json=as_json)
    if is_worse or (result["quality"] and result["quality"]["problems"]):
        raise typer.Exit(EXIT_FAILED)


def _print_result(
    result: "Result", crops: "list[GainCrop]", *, as_json: bool, html: Path | None, overwrite: bool
) -> None:
    """Print a result, and write its page."""
    from vsrm_cli.bench.tables import result_notes, result_page, tables
    from vsrm_cli.report.html import write_whole

    if as_json:
        typer.echo(json.dumps(result))
    else:
        for table in tables(result):
            console.show_table(table)
    for remark in result_notes(result):
        console.print_note(remark)
    for problem in (result["quality"] or {}).get("problems", ()):
        console.print_error(problem)
    if html:
        write_whole(html, result_page(result, crops).encode(), overwrite=overwrite)
        console.print_note(f"page: {html}")


def _print_changes(old: "Result", new: "Result", tolerance: float, *, as_json: bool) -> bool:
    """Print how two results compare; True if the new one is worse than is accepted."""
    from vsrm_cli.bench.results import compare_results
    from vsrm_cli.bench.tables import changes_table

    changes = compare_results(old, new)
    if old["machine"]["device_name"] != new["machine"]["device_name"]:
        console.print_note(
            f"the older result is from another device: {old['machine']['device_name']}"
        )
    if not as_json:
        console.show_table(changes_table(changes))
    worse = [change for change in changes if change.ratio > 1 + tolerance]
    for change in worse:
        console.print_error(f"{change.figure} is {change.ratio:.2f} times what it was")
    return bool(worse)
