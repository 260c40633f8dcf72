"""Several inputs into one folder: what each of them becomes, known before any work begins."""

from collections.abc import Sequence
from pathlib import Path

from vsrm_cli.decode.image_sequence import find_images, is_sequence
from vsrm_cli.errors import InputError, OutputError, UsageError
from vsrm_cli.remux.stream_mapping import CONTAINERS

# What is taken for a video in a folder; a file that is named itself may be called anything.
_VIDEOS = {
    *CONTAINERS,
    *(".avi", ".ts", ".m2ts", ".mts", ".mpg", ".mpeg", ".vob", ".wmv", ".flv", ".ogv", ".3gp"),
}
# For inputs in containers that are not written: it holds nearly everything.
_OTHERS_BECOME = ".mkv"


def plan_batch(inputs: Sequence[Path], folder: Path, *, overwrite: bool) -> list[tuple[Path, Path]]:
    """Say what each input becomes: a file of its name in a folder, or a folder of pictures.

    Args:
        inputs: Videos, folders of videos, or folders of pictures.
        folder: Where the outputs go.
        overwrite: Whether outputs may exist already.

    Returns:
        Pairs of an input and its output.

    Raises:
        InputError: If an input does not exist, or a folder holds nothing to enlarge.
        UsageError: If two inputs would become one output.
        OutputError: If an output exists, or is one of the inputs.
    """
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"{folder} is not a folder; choose another --out-dir.")
    sources = [source for path in inputs for source in _expand(path)]
    outputs: dict[str, Path] = {}
    pairs = []
    for source in sources:
        output = folder / _name(source)
        # Some systems take names for the same that differ in capitals only.
        rival = outputs.setdefault(output.name.casefold(), source)
        if rival is not source:
            raise UsageError(
                f"{rival} and {source} would both become {output}; use a different --out-dir for "
                "one of them."
            )
        if any(output.exists() and output.samefile(other) for other in sources):
            raise OutputError(f"{output} is one of the inputs; choose another --out-dir.")
        if output.exists() and not overwrite:
            raise OutputError(f"{output} exists; choose another --out-dir, or give --overwrite.")
        pairs.append((source, output))
    return pairs


def _expand(path: Path) -> list[Path]:
    """The videos in a folder; if there are none, the folder itself, for its pictures."""
    if not path.exists() and not is_sequence(path):
        raise InputError(f"{path} does not exist; check the spelling.")
    if not path.is_dir():
        return [path]
    videos = sorted(file for file in path.iterdir() if file.suffix.lower() in _VIDEOS)
    if not videos:
        find_images(path)
    return videos or [path]


def _name(source: Path) -> str:
    if source.is_dir():
        return source.resolve().name
    if is_sequence(source):
        return source.name
    suffix = source.suffix.lower()
    return source.stem + (source.suffix if suffix in CONTAINERS else _OTHERS_BECOME)
