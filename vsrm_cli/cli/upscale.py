"""The command `vsrm upscale`: its options, and one call for each input.

The job is imported by the command, not by this file: it brings torch, and `vsrm --help` should
not wait for it.
"""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.failures import EXIT_INTERRUPTED, report_failures
from vsrm_cli.cli.signals import stop_on_signal
from vsrm_cli.errors import UsageError
from vsrm_cli.upscale.options import DEFAULT_MODEL, DEFAULT_OVERLAP, DEFAULT_WINDOW, UpscaleOptions

if TYPE_CHECKING:  # it brings torch, see above
    from vsrm_cli.upscale.plan import Plan

OPTIONS = [field.name for field in fields(UpscaleOptions) if field.name != "is_scale_given"]


def upscale(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Video to upscale; a folder of images, frame_%05d.png, or - for y4m on stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output file; its ending sets the container. A folder or frame_%05d.png writes "
            "images, - writes y4m to stdout.",
            show_default="required, or --out-dir",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder for the outputs of several inputs, under their own names.",
            show_default=False,
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME|FILE",
            help="Network: a name from `vsrm models`, a .safetensors or .pth file, or a Hub id; "
            "auto picks one for the input.",
            rich_help_panel="Network",
        ),
    ] = DEFAULT_MODEL,
    detail: Annotated[
        float | None,
        typer.Option(
            metavar="0..1",
            help="For networks with a faithful and a sharp weight file: 0 is faithful, 1 is sharp.",
            show_default="by input",
            rich_help_panel="Network",
        ),
    ] = None,
    window: Annotated[
        int,
        typer.Option(
            metavar="N", help="Frames that the network sees together.", rich_help_panel="Network"
        ),
    ] = DEFAULT_WINDOW,
    overlap: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Frames shared by neighboring windows.",
            show_default=f"{DEFAULT_OVERLAP}, at most half a window",
            rich_help_panel="Network",
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|N|off",
            help="Tile size in input pixels; small tiles need less memory and more time.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps",
            help="Where to compute; auto picks the best device. cuda:0,cuda:1 shares the work, "
            "cuda:all takes every GPU.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    mixed: Annotated[
        bool,
        typer.Option(
            "--mixed",
            metavar="",
            help="Let devices of different kinds share the work; their frames differ by rounding.",
            rich_help_panel="Network",
        ),
    ] = False,
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision; auto is fp16 on CUDA and fp32 elsewhere.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    codec: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="h264, hevc, av1, ffv1, or another encoder that PyAV offers.",
            rich_help_panel="Encoding",
        ),
    ] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Quality on the codec's own scale; smaller is better and larger.",
            show_default="by codec; 17 for h264",
            rich_help_panel="Encoding",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Encoder preset, such as fast, medium or slow.",
            show_default="by codec",
            rich_help_panel="Encoding",
        ),
    ] = None,
    pix_fmt: Annotated[
        str,
        typer.Option(
            metavar="FORMAT",
            help="Pixel format of the output; auto picks the nearest to the input.",
            rich_help_panel="Encoding",
        ),
    ] = "auto",
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Enlarge N times, 1 to 16; what no network here does is resampled.",
            show_default="as the network; 4 for auto",
            rich_help_panel="Picture",
        ),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Target height, such as 1080.",
            show_default=False,
            rich_help_panel="Picture",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Fit into this size, such as 1920x1080.",
            show_default=False,
            rich_help_panel="Picture",
        ),
    ] = None,
    deinterlace: Annotated[
        str,
        typer.Option(
            metavar="auto|off|tff|bff",
            help="Deinterlace if the video is interlaced; never; or always, top or bottom field "
            "first.",
            rich_help_panel="Picture",
        ),
    ] = "auto",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Start here: seconds, MM:SS or HH:MM:SS.",
            show_default="start of the input",
            rich_help_panel="Part",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop before this time of the input.",
            show_default="end of the input",
            rich_help_panel="Part",
        ),
    ] = None,
    fps: Annotated[
        str,
        typer.Option(
            metavar="RATE",
            help="Frames per second of image files.",
            rich_help_panel="Part",
        ),
    ] = "25",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", metavar="", help="Replace the output if it exists.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", metavar="", help="Start over; ignore unfinished work."),
    ] = False,
    hwaccel: Annotated[
        str,
        typer.Option(
            metavar="auto|off",
            help="Decode in hardware if its frames are identical; encode in software if the "
            "hardware encoder is missing.",
            rich_help_panel="Encoding",
        ),
    ] = "off",
    segment_frames: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Minimum frames per segment; an interrupted job resumes after the last one.",
            show_default="half a minute of work",
            rich_help_panel="Encoding",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", metavar="", help="Show the plan and estimates; do nothing."),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", metavar="", help="Print the summary as one JSON object on stdout."),
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", metavar="", help="Print only warnings and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", metavar="", help="Print tracebacks of errors.")
    ] = False,
) -> None:
    """Make a video four times larger; everything else in the file is copied.

    To resume an interrupted job, run the same command again.

    Example: vsrm upscale small.mp4 -o large.mp4
    """
    given = locals()
    options = UpscaleOptions.read(**{name: given[name] for name in OPTIONS})
    from vsrm_cli.upscale.batch import plan_batch
    from vsrm_cli.upscale.job import upscale_video

    def print_plan(plan: "Plan") -> bool:
        if as_json:
            typer.echo(json.dumps(plan.as_dict()))
        else:
            typer.echo("\n".join(console.plan_lines(plan)))
        return False

    def enlarge(source: Path, target: Path) -> None:
        with (
            console.Display(is_quiet=quiet) as display,
            stop_on_signal(display.print_note, "segment") as should_stop,
        ):
            summary = upscale_video(
                source,
                target,
                options,
                confirm=print_plan if dry_run else None,
                report=display.report,
                report_transfer=display.report_transfer,
                should_stop=should_stop,
                warn=display.warn,
            )
        display.print_result(summary)
        if as_json:
            typer.echo(json.dumps(summary.as_dict()))

    if str(output) == "-" and (as_json or dry_run):
        raise UsageError(
            "With -o - the video goes to stdout; --json and --dry-run cannot be used with it."
        )
    if output is not None and out_dir is None and len(sources) == 1:
        enlarge(sources[0], output)
        return
    if output is not None or out_dir is None:
        raise UsageError("Give --output for one input, or --out-dir for several.")
    pairs = plan_batch(sources, out_dir, overwrite=overwrite)
    out_dir.mkdir(exist_ok=True)
    _do_all(enlarge, pairs, debug=debug)


def _do_all(
    enlarge: Callable[[Path, Path], None], pairs: list[tuple[Path, Path]], *, debug: bool
) -> None:
    """Upscale one input after another, also if one of them fails.

    Raises:
        Exit: With the code of the first failure, after the last input; an interruption ends all.
    """
    codes = []
    for source, target in pairs:
        try:
            with report_failures(debug=debug):
                enlarge(source, target)
        except typer.Exit as failure:
            if failure.exit_code == EXIT_INTERRUPTED:
                raise
            codes.append(failure.exit_code)
    if any(codes):
        raise typer.Exit(next(filter(None, codes)))
