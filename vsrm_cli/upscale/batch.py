"""Several inputs: their outputs are named and checked before the work starts."""

import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

from vsrm_cli.decode.image_sequence import find_images, is_image, is_pattern, is_sequence
from vsrm_cli.errors import InputError, OutputError, UsageError, VsrmError
from vsrm_cli.files import VIDEO_ENDINGS, files_in
from vsrm_cli.media.probe import probe
from vsrm_cli.remux.stream_mapping import CONTAINERS
from vsrm_cli.upscale.options import DEFAULT_MODEL, UpscaleOptions
from vsrm_cli.upscale.resumable_reader import PIPE

# The output of inputs in containers that are not written: it holds nearly everything.
_OTHERS_BECOME = ".mkv"


def name_output(source: Path, options: UpscaleOptions) -> Path:
    """The default name of an output: beside the input, such as a_x4.mp4.

    Raises:
        UsageError: If the input has no name, or is a folder of videos.
    """
    if source == PIPE:
        raise UsageError("A pipe has no name: name the output with -o.")
    scale = options.scale
    if options.model != DEFAULT_MODEL and not options.is_scale_given:
        # Imported here, so that a mistyped name does not wait for torch.
        from vsrm_cli.checkpoints.loading import network_scale

        scale = Fraction(network_scale(options.model))
    size = f"x{float(scale):g}"
    if options.height is not None:
        size = f"{options.height}p"
    elif options.size is not None:
        size = "{}x{}".format(*options.size)
    if source.is_dir():
        if _expand(source) != [source]:
            raise UsageError(f"{source} is a folder of videos: give --out-dir for the outputs.")
        return source.parent / f"{source.resolve().name}_{size}"
    return source.with_name(f"{source.stem}_{size}{Path(_name(source)).suffix}")


def check_ending(output: str, source: Path) -> None:
    """Make sure that image files are wanted, if the output has no ending.

    Raises:
        UsageError: If neither a slash at the end nor an image sequence as input shows it.
    """
    path = Path(output)
    says_folder = output.endswith(("/", os.sep)) or is_sequence(source)
    if path.suffix or path == PIPE or says_folder:
        return
    if path.is_dir():
        raise UsageError(
            f"{output} is a folder: give --out-dir {output} for a video in it, or -o {output}/ for "
            "image files."
        )
    raise UsageError(
        f"{output} has no ending: name it {output}.mp4 for a video, or {output}/ for a folder of "
        "image files."
    )


def plan_batch(
    inputs: Sequence[Path],
    folder: Path | None,
    options: UpscaleOptions,
    *,
    skip_existing: bool = False,
) -> list[tuple[Path, Path]]:
    """Name the output of each input: a file or a folder of images.

    Args:
        inputs: Videos, folders of videos, folders of images, or single images.
        folder: Folder of the outputs; None for beside their inputs, see `name_output`.
        options: Size of the outputs, and whether to replace existing ones.
        skip_existing: Whether existing outputs will be skipped.

    Returns:
        Pairs of an input and its output.

    Raises:
        InputError: If an input does not exist, or a folder holds nothing to enlarge.
        UsageError: If two inputs would become one output.
        OutputError: If an output exists, or is one of the inputs.
    """
    if folder is not None and folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; choose another --out-dir.")
    if folder is None:
        sources = list(inputs)
    else:
        sources = [source for path in inputs for source in _expand(path)]
    outputs: dict[str, Path] = {}
    pairs = []
    for source in sources:
        output = name_output(source, options) if folder is None else folder / _name(source)
        # Some systems do not distinguish upper and lower case.
        rival = outputs.setdefault(str(output).casefold(), source)
        if rival is not source:
            raise UsageError(
                f"{rival} and {source} would both become {output}; run them one by one, with "
                "different outputs."
            )
        if any(output.exists() and output.samefile(other) for other in sources if other != PIPE):
            raise OutputError(f"{output} is one of the inputs; choose another --out-dir.")
        if output.exists() and not options.overwrite and not skip_existing:
            raise OutputError(
                f"{output} exists; name another output, or give --overwrite or --skip-existing."
            )
        pairs.append((source, output))
    return pairs


def _expand(path: Path) -> list[Path]:
    """The videos in a folder; if there are none, the folder itself, as an image sequence."""
    check_exists(path)
    if not path.is_dir():
        return [path]
    videos = [file for file in files_in(path) if file.suffix.lower() in VIDEO_ENDINGS]
    if not videos:
        find_images(path)
    return videos or [path]


def estimate_work(source: Path) -> int:
    """The amount of work: pixels of all frames; 0 if unknown."""
    files = find_images(source) if is_sequence(source) else [source]
    try:
        info = probe(files[0])
    except VsrmError:  # reported when its job starts
        return 0
    frames = len(files) if is_sequence(source) else info.expected_frames or 0
    return frames * info.width * info.height


def check_exists(path: Path) -> None:
    """Make sure that an input exists.

    Raises:
        InputError: If it does not.
    """
    if path.parts[:1] in (("http:",), ("https:",)):
        raise InputError(f"{path.parts[-1]} is on the web: download it first, with yt-dlp or curl.")
    if not (path == PIPE or path.exists() or is_sequence(path)):
        raise InputError(f"{path} does not exist; check the spelling.")


def check_takes_rate(sources: Sequence[Path]) -> None:
    """Make sure that there is an image sequence, which --fps is for.

    Raises:
        UsageError: If there is none.
    """
    if not any(is_sequence(source) for source in sources):
        raise UsageError(
            f"--fps is for image files; {sources[0]} keeps the times of its frames. FFmpeg changes "
            "them in the result."
        )


def _name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    if is_image(source) or is_pattern(source):
        return f"{source.stem}.png"
    suffix = source.suffix.lower()
    return source.stem + (source.suffix if suffix in CONTAINERS else _OTHERS_BECOME)
