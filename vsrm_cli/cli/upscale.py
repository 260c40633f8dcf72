"""The command `vsrm upscale`: its options, and one call for each input.

The job is imported by the command, not by this file: it imports torch, and `vsrm --help` should
not wait for that.
"""

import json
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vsrm_cli.cli import console
from vsrm_cli.cli.failures import EXIT_INTERRUPTED, report_failures
from vsrm_cli.cli.formatting import plan_lines
from vsrm_cli.cli.options import (
    CODECS,
    DEVICES,
    TILE_HELP,
    Debug,
    JsonSummary,
    Quiet,
    complete,
    complete_model,
    panel,
)
from vsrm_cli.cli.signals import stop_on_signal
from vsrm_cli.errors import UsageError
from vsrm_cli.upscale.options import (
    AUDIO,
    DEFAULT_MODEL,
    DEFAULT_OVERLAP,
    DEFAULT_WINDOW,
    DTYPES,
    UpscaleOptions,
)

if TYPE_CHECKING:  # it brings torch, see above
    from vsrm_cli.models.network import Network
    from vsrm_cli.upscale.plan import JobPlan
    from vsrm_cli.upscale.request import LoadedAs

_network_option, _encoding_option = panel("Network"), panel("Encoding")
_picture_option, _part_option = panel("Picture"), panel("Part")

# Whether a scale was given is no option of its own.
OPTIONS = [field.name for field in fields(UpscaleOptions) if field.name != "is_scale_given"]


def upscale(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Video or image to upscale; a folder of images, frame_%05d.png, or - for y4m on "
            "stdin.",
            show_default=False,
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Output file; its ending sets the container. A folder/ or frame_%05d.png writes "
            "images, - writes y4m to stdout.",
            show_default="INPUT_x4, beside the input",
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
        _network_option(
            metavar="NAME|FILE",
            help="Network: a name from `vsrm models`, a .safetensors or .pth file, or a Hub id; "
            "auto picks one for the input.",
            envvar="VSRM_MODEL",
            autocompletion=complete_model,
        ),
    ] = DEFAULT_MODEL,
    detail: Annotated[
        float | None,
        _network_option(
            metavar="0..1",
            help="For networks with a faithful and a sharp weight file: 0 is faithful, 1 is sharp.",
            show_default="by input",
        ),
    ] = None,
    window: Annotated[
        int, _network_option(metavar="N", help="Frames that the network sees together.")
    ] = DEFAULT_WINDOW,
    overlap: Annotated[
        int | None,
        _network_option(
            metavar="N",
            help="Frames shared by neighboring windows.",
            show_default=f"a quarter of the window, at most {DEFAULT_OVERLAP}",
        ),
    ] = None,
    tile: Annotated[
        str,
        _network_option(metavar="auto|N|off", help=TILE_HELP),
    ] = "auto",
    device: Annotated[
        str,
        _network_option(
            metavar="auto|cpu|cuda[:N]|mps|xpu",
            help="Where to compute; auto picks the best device. cuda:0,cuda:1 shares the work, "
            "cuda:all takes every GPU.",
            envvar="VSRM_DEVICE",
            autocompletion=complete(*DEVICES),
        ),
    ] = "auto",
    cluster: Annotated[
        str | None,
        _network_option(
            metavar="auto|HOST:PORT",
            help="Share the work among all machines of a Ray cluster; auto is this machine's.",
            show_default=False,
        ),
    ] = None,
    mixed: Annotated[
        bool,
        _network_option(
            "--mixed",
            metavar="",
            help="Let devices of different kinds share the work; their frames differ by rounding.",
        ),
    ] = False,
    dtype: Annotated[
        str,
        _network_option(
            metavar="auto|fp32|fp16|bf16",
            help="Precision; auto is fp16 on CUDA, bf16 on CPUs with AMX, else fp32.",
            autocompletion=complete(*DTYPES),
        ),
    ] = "auto",
    codec: Annotated[
        str,
        _encoding_option(
            metavar="NAME",
            help="h264, hevc, av1, vp9, ffv1, or another encoder that PyAV offers; auto is h264, "
            "hevc for 10 bits, and av1 in .webm.",
            autocompletion=complete(*CODECS),
        ),
    ] = "auto",
    crf: Annotated[
        int | None,
        _encoding_option(
            metavar="N",
            help="Quality on the codec's own scale; smaller is better and larger.",
            show_default="by codec; 17 for h264",
        ),
    ] = None,
    preset: Annotated[
        str | None,
        _encoding_option(
            metavar="NAME",
            help="Encoder preset, such as fast, medium or slow.",
            show_default="by codec",
        ),
    ] = None,
    pix_fmt: Annotated[
        str,
        _encoding_option(
            metavar="FORMAT",
            help="Pixel format of the output; auto is 4:2:0 at the bit depth of the input.",
        ),
    ] = "auto",
    audio: Annotated[
        str,
        _encoding_option(
            metavar="copy|transcode|none",
            autocompletion=complete(*AUDIO),
            help="Copy sound; encode sound that the container cannot hold as AAC or Opus; or leave "
            "sound out.",
        ),
    ] = "copy",
    scale: Annotated[
        str | None,
        _picture_option(
            metavar="N",
            help="Enlarge N times, 1 to 16; what no network here does is resampled.",
            show_default="as the network; 4 for auto",
        ),
    ] = None,
    height: Annotated[
        int | None,
        _picture_option(metavar="N", help="Target height, such as 1080.", show_default=False),
    ] = None,
    size: Annotated[
        str | None,
        _picture_option(
            metavar="WxH", help="Fit into this size, such as 1920x1080.", show_default=False
        ),
    ] = None,
    deinterlace: Annotated[
        str,
        _picture_option(
            metavar="auto|off|tff|bff",
            help="Deinterlace if the video is interlaced; never; or always, top or bottom field "
            "first.",
        ),
    ] = "auto",
    start: Annotated[
        str | None,
        _part_option(
            metavar="TIME",
            help="Start here: seconds, MM:SS or HH:MM:SS.",
            show_default="start of the input",
        ),
    ] = None,
    end: Annotated[
        str | None,
        _part_option(
            metavar="TIME",
            help="Stop before this time of the input.",
            show_default="end of the input",
        ),
    ] = None,
    fps: Annotated[
        str | None,
        _part_option(metavar="RATE", help="Frames per second of image files.", show_default="25"),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite/--no-overwrite",
            "-y/-n",
            metavar="",
            help="Replace the output if it exists; or never do.",
        ),
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", metavar="", help="Skip inputs whose output exists.")
    ] = False,
    restart: Annotated[
        bool, typer.Option("--restart", metavar="", help="Start over; ignore unfinished work.")
    ] = False,
    hwaccel: Annotated[
        str,
        _encoding_option(
            metavar="auto|off",
            help="Decode in hardware if its frames are identical; encode in software if the "
            "hardware encoder is missing.",
        ),
    ] = "off",
    segment_frames: Annotated[
        int | None,
        _encoding_option(
            metavar="N",
            help="Minimum frames per segment; an interrupted job resumes after the last one.",
            show_default="half a minute of work",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", metavar="", help="Show the plan and estimates; do nothing.")
    ] = False,
    as_json: JsonSummary = False,
    progress: Annotated[
        str,
        typer.Option(
            metavar="auto|plain|json",
            help="A bar on a terminal and lines elsewhere; always lines; or JSON lines on stderr.",
            autocompletion=complete(*console.PROGRESS),
        ),
    ] = "auto",
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Make a video four times larger; everything else in the file is copied.

    To resume an interrupted job, run the same command again.

    Example: vsrm upscale small.mp4 -o large.mp4
    """
    given = locals()
    options = UpscaleOptions.read(**{name: given[name] for name in OPTIONS if name in given})
    from vsrm_cli.upscale.batch import check_ending, check_exists, check_takes_rate, plan_batch

    def enlarge(source: Path, target: Path) -> None:
        def print_plan(plan: "JobPlan") -> bool:
            display.clear()
            if as_json:
                typer.echo(json.dumps(plan.as_dict()))
            else:
                typer.echo("\n".join(plan_lines(plan)))
            return False

        with (
            console.Display(
                is_quiet=quiet,
                beginning="estimating" if dry_run else "loading",
                mode=progress,
                position=positions.get((source, target)),
            ) as display,
            stop_on_signal(display.print_note, "segment") as should_stop,
        ):
            # Only now: the bar is there while torch comes, which can take seconds.
            from vsrm_cli.upscale.job import upscale_video

            summary = upscale_video(
                source,
                target,
                options,
                confirm=print_plan if dry_run else None,
                report=display.report,
                report_transfer=display.report_transfer,
                should_stop=should_stop,
                warn=display.warn,
                networks=networks,
            )
        display.print_result(summary)
        if as_json:
            typer.echo(json.dumps(summary.as_dict()))

    if progress not in console.PROGRESS:
        raise UsageError(f"The progress must be {', '.join(console.PROGRESS)}, not {progress!r}.")
    if output == "-" and (as_json or dry_run):
        raise UsageError(
            "With -o - the video goes to stdout; --json and --dry-run cannot be used with it."
        )
    if dry_run and cluster is not None:
        raise UsageError("--dry-run shows the plan of this machine; leave --cluster out.")
    if overwrite and skip_existing:
        raise UsageError("Give --overwrite or --skip-existing, not both.")
    if output is not None and (out_dir is not None or len(sources) > 1):
        raise UsageError("Give --output for one input, or --out-dir for several.")
    if output is None and out_dir is None and len(sources) == 2 and not sources[1].exists():
        raise UsageError(
            f"{sources[1]} does not exist; for an output of that name: vsrm upscale {sources[0]} "
            f"-o {sources[1]}"
        )
    for source in sources:
        check_exists(source)
    if fps is not None:
        check_takes_rate(sources)
    if output is not None:
        if sys.stderr.isatty():  # a script is taken at its word
            check_ending(output, sources[0])
        pairs = [(sources[0], Path(output))]
    else:
        pairs = plan_batch(sources, out_dir, options, skip_existing=skip_existing)
    if out_dir is not None:
        out_dir.mkdir(parents=True, exist_ok=True)
    existing = [target for _, target in pairs if skip_existing and target.exists()]
    for target in existing if not quiet else ():
        console.print_note(f"skipped: {target} exists")
    pairs = [pair for pair in pairs if pair[1] not in existing]
    networks: dict[LoadedAs, Network] = {}
    positions = dict(zip(pairs, _positions([source for source, _ in pairs]), strict=True))
    _do_all(enlarge, pairs, debug=debug)


def _positions(sources: list[Path]) -> list[console.BatchPosition | None]:
    """Where each input stands among all of them, for the time that is left in total."""
    if len(sources) == 1:
        return [None]
    from vsrm_cli.upscale.batch import estimate_work

    work = [estimate_work(source) for source in sources]
    return [
        console.BatchPosition(
            source.name, number, len(sources), work=work[number - 1], work_after=sum(work[number:])
        )
        for number, source in enumerate(sources, 1)
    ]


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
