"""The command that upscales: its options, and one call for each input.

The job is imported by the command, not by this file: it brings torch, and `vsrm --help` should
not wait for it.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.failures import EXIT_INTERRUPTED, failures_told
from vsrm_cli.cli.signals import stop_when_asked
from vsrm_cli.errors import UsageError
from vsrm_cli.upscale.options import DEFAULT_MODEL, DEFAULT_OVERLAP, DEFAULT_WINDOW, Settings

if TYPE_CHECKING:  # it brings torch, see above
    from vsrm_cli.upscale.plan import Plan


def upscale(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="The video to enlarge; a folder of pictures, or frame_%05d.png; "
            "- is y4m on stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="The file to write; its ending chooses the container. A folder, or "
            "frame_%05d.png, is for pictures; - is y4m on stdout.",
            show_default="needed, or --out-dir",
        ),
    ] = None,
    out_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="Instead: where several inputs, or the videos of a folder, go under their names.",
            show_default="none",
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="A name, a .safetensors or .pth file, or a Hub id; auto takes what suits the "
            "footage.",
            rich_help_panel="Network",
        ),
    ] = DEFAULT_MODEL,
    window: Annotated[
        int,
        typer.Option(help="Frames that the network sees together.", rich_help_panel="Network"),
    ] = DEFAULT_WINDOW,
    overlap: Annotated[
        int | None,
        typer.Option(
            help="Frames that two neighbouring windows share.",
            show_default=f"{DEFAULT_OVERLAP}, at most half a window",
            rich_help_panel="Network",
        ),
    ] = None,
    tile: Annotated[
        str,
        typer.Option(
            metavar="auto|N|off",
            help="Side of a tile in pixels of the input: less memory, more time.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    device: Annotated[
        str,
        typer.Option(
            metavar="auto|cpu|cuda[:N]|mps", help="Where to compute.", rich_help_panel="Network"
        ),
    ] = "auto",
    dtype: Annotated[
        str,
        typer.Option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision to compute in; auto is fp16 on CUDA and fp32 elsewhere.",
            rich_help_panel="Network",
        ),
    ] = "auto",
    codec: Annotated[
        str,
        typer.Option(
            help="h264, hevc, av1, ffv1, or another encoder that PyAV offers.",
            rich_help_panel="Encoding",
        ),
    ] = "h264",
    crf: Annotated[
        int | None,
        typer.Option(
            help="Quality on the codec's own scale; smaller is better and larger.",
            show_default="by codec",
            rich_help_panel="Encoding",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="Speed of the encoder, in its own words.",
            show_default="by codec",
            rich_help_panel="Encoding",
        ),
    ] = None,
    pix_fmt: Annotated[
        str,
        typer.Option(
            help="Pixel format of the output; auto is nearest to the input.",
            rich_help_panel="Encoding",
        ),
    ] = "auto",
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="N",
            help="Times larger, from 1 to 16; anything but 4 is resampled from that.",
            show_default="4",
            rich_help_panel="Picture",
        ),
    ] = None,
    height: Annotated[
        int | None,
        typer.Option(
            help="Instead: lines on the screen, such as 1080.",
            show_default="by --scale",
            rich_help_panel="Picture",
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            metavar="WxH",
            help="Instead: the box on the screen that the picture just fits into.",
            show_default="by --scale",
            rich_help_panel="Picture",
        ),
    ] = None,
    deinterlace: Annotated[
        str,
        typer.Option(
            metavar="auto|off|tff|bff",
            help="Deinterlace where combing is seen; never; or always, with the top or the bottom "
            "field first.",
            rich_help_panel="Picture",
        ),
    ] = "auto",
    start: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Begin here: seconds, MM:SS or HH:MM:SS.",
            show_default="the beginning",
            rich_help_panel="Part",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="Stop before this time of the input.",
            show_default="the end",
            rich_help_panel="Part",
        ),
    ] = None,
    fps: Annotated[
        str,
        typer.Option(
            metavar="RATE",
            help="Frames per second of an input of pictures.",
            rich_help_panel="Part",
        ),
    ] = "25",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace the output if it exists.")
    ] = False,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Begin again, even where an interrupted run could go on."),
    ] = False,
    hwaccel: Annotated[
        str,
        typer.Option(
            metavar="auto|off",
            help="Decode in graphics hardware if its pictures are the same; encode in software "
            "what absent hardware should.",
            rich_help_panel="Encoding",
        ),
    ] = "off",
    segment_frames: Annotated[
        int | None,
        typer.Option(
            help="Frames, at least, between the points from which an interrupted run can go on.",
            show_default="half a minute of work",
            rich_help_panel="Encoding",
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Tell what would be done and what it would need, only."),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Print nothing but warnings and errors.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Print the traceback of an error.")
    ] = False,
) -> None:
    """Make a video four times larger; everything else in the file is carried over.

    The same command goes on where an interrupted one stopped.

    Example: vsrm upscale small.mp4 -o large.mp4
    """
    Settings.read(
        window=window,
        overlap=overlap,
        tile=tile,
        device=device,
        dtype=dtype,
        start=start,
        end=end,
        scale=scale,
        height=height,
        size=size,
        deinterlace=deinterlace,
        fps=fps,
        segment_frames=segment_frames,
        hwaccel=hwaccel,
    )
    from vsrm_cli.upscale.batch import plan_batch
    from vsrm_cli.upscale.job import upscale_video

    def tell_plan(plan: "Plan") -> bool:
        if as_json:
            typer.echo(json.dumps(plan.as_dict()))
        else:
            typer.echo("\n".join(console.plan_lines(plan)))
        return False

    def enlarge(source: Path, target: Path) -> None:
        with (
            console.Display(is_quiet=quiet) as display,
            stop_when_asked(display.tell_note, "segment") as should_stop,
        ):
            summary = upscale_video(
                source,
                target,
                model=model,
                window=window,
                overlap=overlap,
                tile=tile,
                device=device,
                dtype=dtype,
                codec=codec,
                crf=crf,
                preset=preset,
                pix_fmt=pix_fmt,
                start=start,
                end=end,
                scale=scale,
                height=height,
                size=size,
                deinterlace=deinterlace,
                hwaccel=hwaccel,
                fps=fps,
                overwrite=overwrite,
                segment_frames=segment_frames,
                restart=restart,
                confirm=tell_plan if dry_run else None,
                report=display.report,
                report_transfer=display.report_transfer,
                should_stop=should_stop,
                warn=display.warn,
            )
        display.tell_result(summary)
        if as_json:
            typer.echo(json.dumps(summary.as_dict()))

    if str(output) == "-" and (as_json or dry_run):
        raise UsageError("With -o - the video goes to stdout: leave --json and --dry-run out.")
    if output is not None and out_dir is None and len(sources) == 1:
        enlarge(sources[0], output)
        return
    if output is not None or out_dir is None:
        raise UsageError("Give --output for one input, or --out-dir for any number.")
    pairs = plan_batch(sources, out_dir, overwrite=overwrite)
    out_dir.mkdir(exist_ok=True)
    _do_all(enlarge, pairs, debug=debug)


def _do_all(
    enlarge: Callable[[Path, Path], None], pairs: list[tuple[Path, Path]], *, debug: bool
) -> None:
    """Enlarge one after another; one that fails does not keep the others from being made.

    Raises:
        Exit: With the code of the first failure, behind the last input; an interruption ends all.
    """
    codes = []
    for source, target in pairs:
        try:
            with failures_told(debug=debug):
                enlarge(source, target)
        except typer.Exit as failure:
            if failure.exit_code == EXIT_INTERRUPTED:
                raise
            codes.append(failure.exit_code)
    if any(codes):
        raise typer.Exit(next(filter(None, codes)))
