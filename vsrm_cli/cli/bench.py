"""The commands that measure and compare: `vsrm bench`, `vsrm compare` and `vsrm doctor`.

They handle no failures: `app` adds them to the program and reports them.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.errors import UsageError, VsrmError
from vsrm_cli.upscale.options import check_cluster, read_time

if TYPE_CHECKING:  # the jobs bring torch, which `vsrm --help` need not wait for
    from vsrm_cli.bench.results import Result
    from vsrm_cli.evaluation.quality import Crop

EXIT_FAILED = 1
ALL_SIZES = ("180p", "270p", "360p", "480p", "540p")
CHANNELS = ("auto", "y", "rgb")


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
        typer.Option(
            "--speed",
            metavar="",
            help="Time the networks alone; the default if nothing else is chosen.",
            rich_help_panel="What to measure",
        ),
    ] = False,
    size: Annotated[
        list[str] | None,
        typer.Option(
            metavar="|".join(ALL_SIZES),
            help="Height of the LR frames for --speed; can be given several times.",
            show_default="all",
            rich_help_panel="What to measure",
        ),
    ] = None,
    window: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames that the network sees together.",
            show_default="24 on a GPU, 5 elsewhere; whole clips for --quality",
            rich_help_panel="What to measure",
        ),
    ] = None,
    kernels: Annotated[
        bool,
        typer.Option(
            "--kernels",
            metavar="",
            help="Time the implementations of the selective scan.",
            rich_help_panel="What to measure",
        ),
    ] = False,
    end_to_end: Annotated[
        Path | None,
        typer.Option(
            metavar="VIDEO",
            help="Time a whole job from file to file, and name the slowest stage.",
            show_default=False,
            rich_help_panel="What to measure",
        ),
    ] = None,
    quality: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Measure quality on a folder of sharp clips, or one with GT and LR inside.",
            show_default=False,
            rich_help_panel="What to measure",
        ),
    ] = None,
    degradation: Annotated[
        str,
        typer.Option(
            metavar="bi|bd|CODEC-QUALITY",
            help="How sharp clips are shrunk: bicubic, blur and subsample, or bicubic and "
            "compressed: h264-23, h264-28, hevc-30, vp9-40, mpeg4-6, mpeg2-6.",
            rich_help_panel="Quality",
        ),
    ] = "bi",
    on: Annotated[
        str,
        typer.Option(
            metavar="|".join(CHANNELS),
            help="Compare luma or RGB; auto does what the literature does for the test set.",
            rich_help_panel="Quality",
        ),
    ] = "auto",
    crop: Annotated[
        int,
        typer.Option(
            min=0,
            metavar="N",
            help="Pixels to leave out at each edge.",
            rich_help_panel="Quality",
        ),
    ] = 0,
    ablate: Annotated[
        bool,
        typer.Option(
            "--ablate",
            help="Measure what each part of the networks adds, on the clips of --quality.",
            rich_help_panel="Quality",
        ),
    ] = False,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=PATH",
            help="Also measure the results of another program: a folder with the names of the "
            "clips, or the result of the only clip; can be given several times.",
            show_default=False,
            rich_help_panel="Quality",
        ),
    ] = None,
    detail: Annotated[
        float | None,
        typer.Option(
            min=0.0,
            max=1.0,
            metavar="0..1",
            help="Of networks with two weight files (vsrm models): which mixture to measure.",
            show_default="the file of the name",
            rich_help_panel="Quality",
        ),
    ] = None,
    frames: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Frames to read of each clip.",
            show_default="all",
            rich_help_panel="Quality",
        ),
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json",
            metavar="",
            help="Print one JSON object on stdout instead of tables.",
            rich_help_panel="Results",
        ),
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Write a page with plots and before/after sliders.",
            show_default=False,
            rich_help_panel="Results",
        ),
    ] = None,
    compare: Annotated[
        Path | None,
        typer.Option(
            metavar="OLD.json",
            help="Compare with an older --json; exit 1 if a figure is worse by more than the "
            "tolerance.",
            show_default=False,
            rich_help_panel="Results",
        ),
    ] = None,
    tolerance: Annotated[
        float,
        typer.Option(
            min=0.0,
            metavar="SHARE",
            help="How much more time or squared error is accepted; 0.1 is 10 %.",
            rich_help_panel="Results",
        ),
    ] = 0.1,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            metavar="",
            help="Replace the page if it exists.",
            rich_help_panel="Results",
        ),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only results and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Print tracebacks of errors.")
    ] = False,
) -> None:
    """Measure the speed and quality of the networks on this machine.

    Example: vsrm bench --quick
    """
    _check_choice("value of --on", on, CHANNELS)
    if window is not None and window < 1:
        raise UsageError(f"The window must be 1 frame or more, not {window}.")
    if ablate and quality is None:
        raise UsageError("--ablate needs clips to measure on; give a folder with --quality.")
    if also and not quality:
        raise UsageError("--also is for --quality FOLDER.")
    from vsrm_cli.bench.results import read_result
    from vsrm_cli.bench.run import BenchOptions, run_bench
    from vsrm_cli.evaluation.quality import QualityOptions
    from vsrm_cli.evaluation.test_sets import check_degradation
    from vsrm_cli.files import check_output_path

    check_degradation(degradation)
    old = read_result(compare) if compare else None
    if html:
        check_output_path(html, overwrite=overwrite)
    asked = BenchOptions(
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
        wishes=QualityOptions(
            degradation,
            on,
            crop,
            window,
            frames,
            follows_time=not quick,
            also=dict(map(_named_path, also or ())),
            detail=detail,
        ),
        ablate=ablate,
    )
    result, crops = run_bench(asked, (lambda _: None) if quiet else console.print_note)
    _tell(result, crops, as_json=as_json, html=html, overwrite=overwrite)
    is_worse = old is not None and _tell_changes(old, result, tolerance, as_json=as_json)
    if is_worse or (result["quality"] and result["quality"]["problems"]):
        raise typer.Exit(EXIT_FAILED)


def compare(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A video; its times and sound are kept.", show_default=False
        ),
    ],
    second: Annotated[
        Path,
        typer.Argument(
            metavar="B",
            help="Another with the same number of frames: of the same size, or two or four times "
            "larger or smaller.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output: a video, a page with sliders (.html), or a still of the largest "
            "difference (.png).",
        ),
    ],
    third: Annotated[
        Path | None, typer.Argument(metavar="[C]", help="One more, likewise.", show_default=False)
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Start A here, if B is a part of it: the --start that B was made with.",
            show_default="start of A",
        ),
    ] = None,
    mode: Annotated[
        str,
        typer.Option(
            metavar="side|wipe|difference",
            help="For a video: side by side, a moving edge, or four times the difference.",
        ),
    ] = "side",
    label_a: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Label of A.", show_default="its file name")
    ] = None,
    label_b: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Label of B.", show_default="its file name")
    ] = None,
    label_c: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Label of C.", show_default="its file name")
    ] = None,
    codec: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="h264, hevc, av1, ffv1, or another encoder that PyAV offers."
        ),
    ] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Quality on the codec's own scale; smaller is better and larger.",
            show_default="by codec; 17 for h264",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace the output if it exists.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only warnings and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Print tracebacks of errors.")
    ] = False,
) -> None:
    """Compare two or three videos frame by frame, as a video, a page or a still.

    Example: vsrm compare small.mp4 large.mp4 -o both.mp4
    """
    from vsrm_cli.compare import compare_videos
    from vsrm_cli.encode.options import Encoding

    labels = [
        label or path.name
        for label, path in ((label_a, first), (label_b, second), (label_c, third))
        if path is not None
    ]
    with console.Display(is_quiet=quiet) as display:
        made = compare_videos(
            first,
            second,
            output,
            third=third,
            start=read_time(start, name="start"),
            mode=mode,
            labels=labels if label_a or label_b or label_c else None,
            encoding=Encoding(codec=codec, crf=crf),
            overwrite=overwrite,
            report=display.report,
        )
    if not quiet:
        enlarged = f", {made.enlarged} enlarged by bicubic" if made.enlarged else ""
        console.print_note(
            f"{made.output}: {made.frames} frames of {made.width}x{made.height}{enlarged}"
        )


def _named_path(text: str) -> tuple[str, Path]:
    """NAME=PATH as a name and a path."""
    name, _, path = text.partition("=")
    if not name or not path:
        raise UsageError(f'Give --also as NAME=PATH, such as realesrgan=out/, not "{text}".')
    return name, Path(path)


def _check_choice(what: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f'The {what} must be one of {", ".join(choices)}, not "{value}".')


def _tell(
    result: "Result", crops: "list[Crop]", *, as_json: bool, html: Path | None, overwrite: bool
) -> None:
    """Print a result, and write its page."""
    from vsrm_cli.bench.tables import remarks, result_page, tables
    from vsrm_cli.report.html import write_whole

    if as_json:
        typer.echo(json.dumps(result))
    else:
        for table in tables(result):
            console.show_table(table)
    for remark in remarks(result):
        console.print_note(remark)
    for problem in (result["quality"] or {}).get("problems", ()):
        console.print_error(problem)
    if html:
        write_whole(html, result_page(result, crops).encode(), overwrite=overwrite)
        console.print_note(f"page: {html}")


def _tell_changes(old: "Result", new: "Result", tolerance: float, *, as_json: bool) -> bool:
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


def doctor(
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Instead, list the nodes of a Ray cluster; auto is that of this machine.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", metavar="", help="Print a JSON list on stdout.")
    ] = False,
) -> None:
    """Test what this machine, or a cluster, can do; exit 1 if something is broken.

    Example: vsrm doctor
    """
    check_cluster(cluster)
    from vsrm_cli.doctor import State, examine, examine_cluster

    findings = []
    topic = ""
    for finding in examine() if cluster is None else examine_cluster(cluster):
        findings.append(finding)
        if not as_json:
            console.print_finding(finding, is_first=finding.topic != topic)
        topic = finding.topic
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    elif not any(finding.state is State.BROKEN for finding in findings):
        tested = sum(finding.state is State.GOOD for finding in findings)
        what = f"{tested} things work, and what is marked - is not needed"
        console.print_note(f"All good: {what if cluster is None else f'{tested} nodes'}.")
    if any(finding.state is State.BROKEN for finding in findings):
        where = "on this machine" if cluster is None else "in the cluster"
        raise VsrmError(f"Something is broken {where}; see above.")
