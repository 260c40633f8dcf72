"""The commands that check a result and a machine: `vsrm compare` and `vsrm doctor`.

They handle no failures: `app` adds them to the program and reports them.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.options import Debug, JsonList, Overwrite, Quiet
from vsrm_cli.errors import VsrmError
from vsrm_cli.upscale.options import check_cluster, read_time


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
        Path | None, typer.Argument(metavar="[C]", help="A third one.", show_default=False)
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
    overwrite: Overwrite = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Compare two or three videos frame by frame, as a video, a page or a still.

    Example: vsrm compare small.mp4 large.mp4 -o both.mp4
    """
    from vsrm_cli.compare import compare_videos
    from vsrm_cli.encode.options import EncodingOptions

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
            encoding=EncodingOptions(codec=codec, crf=crf),
            overwrite=overwrite,
            report=display.report,
        )
    if not quiet:
        enlarged = f", {made.enlarged} enlarged by bicubic" if made.enlarged else ""
        console.print_note(
            f"{made.output}: {made.frames} frames of {made.width}x{made.height}{enlarged}"
        )


def doctor(
    cluster: Annotated[
        str | None,
        typer.Option(
            metavar="auto|HOST:PORT",
            help="Instead, list the nodes of a Ray cluster; auto is that of this machine.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonList = False,
) -> None:
    """Test what this machine, or a cluster, can do; exit 1 if something is broken.

    Example: vsrm doctor
    """
    check_cluster(cluster)
    from vsrm_cli.doctor import CheckStatus, run_checks, run_cluster_checks

    results = []
    topic = ""
    for result in run_checks() if cluster is None else run_cluster_checks(cluster):
        results.append(result)
        if not as_json:
            console.print_check_result(result, is_first=result.topic != topic)
        topic = result.topic
    if as_json:
        typer.echo(json.dumps([asdict(result) for result in results]))
    elif not any(result.state is CheckStatus.BROKEN for result in results):
        tested = sum(result.state is CheckStatus.GOOD for result in results)
        what = f"{tested} things work, and what is marked - is not needed"
        console.print_note(f"All good: {what if cluster is None else f'{tested} nodes'}.")
    if any(result.state is CheckStatus.BROKEN for result in results):
        where = "on this machine" if cluster is None else "in the cluster"
        raise VsrmError(f"Something is broken {where}; see above.")
