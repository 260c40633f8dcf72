"""Locate a weight file by catalog name, path or Hub id, in this order; download it if needed."""

import enum
from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path

from vsrm_cli.checkpoints.catalog import MODELS, ModelEntry
from vsrm_cli.checkpoints.download import DownloadProgress, fetch, find_cached
from vsrm_cli.checkpoints.hub import ENDINGS, fetch_from_hub, is_hub_id
from vsrm_cli.errors import WeightsError


class WeightsPlace(enum.StrEnum):
    """Where the weights of a name are."""

    BUNDLED = "in the box"
    CACHE = "cached"
    REMOTE = "to be fetched"
    NOWHERE = "none"


@dataclass(frozen=True)
class WeightsLocation:
    """Where the weight file of a name is, and its size in bytes, if there is one."""

    place: WeightsPlace
    path: Path | None
    size: int | None


def locate(
    name_or_path: str | Path, *, report: Callable[[DownloadProgress], None] | None = None
) -> Path:
    """Find a weight file; download it if it is not on this machine.

    Args:
        name_or_path: A name of the catalog, the path of a file, or a Hub id
            ``owner/name[@revision]``.
        report: Called while a file of the catalog is downloaded.

    Raises:
        WeightsError: If there is no such network or file, or the download fails.
    """
    name, path = str(name_or_path), Path(name_or_path)
    if name in MODELS:
        return _locate_entry(MODELS[name], report)
    if path.is_file():
        return path
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; give the path of a weight file in it.")
    if is_hub_id(name):
        return fetch_from_hub(name)
    if path.suffix in ENDINGS or len(path.parts) > 1:
        raise WeightsError(f"There is no weight file {path}; check the path.")
    raise WeightsError(f"There is no model {name!r}; {_suggestion(name)}.")


def weights_location(entry: ModelEntry) -> WeightsLocation:
    """Where the weights of an entry are, without downloading anything."""
    path = _bundled_path(entry.file) if entry.file else None
    if path:
        return WeightsLocation(WeightsPlace.BUNDLED, path, path.stat().st_size)
    if entry.remote is None:
        return WeightsLocation(WeightsPlace.NOWHERE, None, None)
    path = find_cached(entry.remote)
    if path:
        return WeightsLocation(WeightsPlace.CACHE, path, path.stat().st_size)
    return WeightsLocation(WeightsPlace.REMOTE, None, entry.remote.size)


def _locate_entry(entry: ModelEntry, report: Callable[[DownloadProgress], None] | None) -> Path:
    if entry.remote:
        return fetch(entry.remote, report=report)
    if entry.file is None:
        raise WeightsError(
            f"The model {entry.name!r} has no public weights: it is {entry.about}. "
            f"{entry.how_to_get}"
        )
    path = _bundled_path(entry.file)
    if path is None:
        raise WeightsError(
            f"The weight file {entry.file} is missing from the installation; reinstall vsrm."
        )
    return path


def _bundled_path(file: str) -> Path | None:
    # The folder is inside an installed package, or next to the package in a clone.
    package = Path(str(files("vsrm_cli")))
    folders = (package / "weights", package.parent / "weights")
    return next((folder / file for folder in folders if (folder / file).is_file()), None)


def _suggestion(name: str) -> str:
    near = get_close_matches(name.lower(), MODELS, n=3, cutoff=0.5)
    if near:
        return f"the nearest names are {', '.join(near)} ('vsrm models' lists them all)"
    return f"the models are {', '.join(MODELS)}"
