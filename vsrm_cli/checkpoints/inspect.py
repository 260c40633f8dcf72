"""What a name or a weight file holds, told; and any weights in a file that tells it itself."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vsrm_cli.checkpoints.catalog import MODELS, ModelEntry, pair_of
from vsrm_cli.checkpoints.download import Transfer, checksum
from vsrm_cli.checkpoints.loading import network_of, save_weights
from vsrm_cli.checkpoints.locate import locate, whereabouts
from vsrm_cli.checkpoints.safe_reader import read_checkpoint
from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path
from vsrm_cli.models.network import Network

# What a file says of its structure; the network itself reports that.
_STRUCTURAL_KEYS = ("network", "name", "config", "scale", "format")


def describe(
    name_or_path: str | Path, *, report: Callable[[Transfer], None] | None = None
) -> dict[str, Any]:
    """What there is to know of a network: of a name, with its file if that is on this machine.

    Args:
        name_or_path: As for `load_model`.
        report: Called as a file of the Hub or the catalog comes in; a file that the catalog knows
            is not fetched for this.

    Raises:
        WeightsError: If there is no such thing, or its file is damaged.
    """
    entry = MODELS.get(str(name_or_path))
    if entry is None:
        return describe_weights(locate(name_or_path, report=report))
    path = whereabouts(entry).path
    return {
        **describe_entry(entry),
        "config": asdict(entry.config),
        **(describe_weights(path) if path else {}),
    }


def describe_entry(entry: ModelEntry) -> dict[str, Any]:
    """What the catalog tells of a network, and where its weights are at this moment.

    Returns:
        The fields of the entry but for its configuration; place ("in the box", "cached", "to be
        fetched" or "none"), file (a path, or None), bytes, url and checksum of what is to be
        fetched, and detail_pair (the names between which `--detail` chooses, or None).
    """
    where = whereabouts(entry)
    left_out = ("config", "file", "remote")
    return {
        **{f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in left_out},
        "place": str(where.place),
        "file": str(where.path) if where.path else None,
        "bytes": where.size,
        "url": entry.remote.url if entry.remote else None,
        "checksum": entry.remote.checksum if entry.remote else None,
        "detail_pair": asdict(pair) if (pair := pair_of(entry.name)) else None,
    }


def describe_weights(path: Path) -> dict[str, Any]:
    """What a weight file holds, after all checks that loading it would make.

    Returns:
        file, bytes, sha256, network, name, scale, parameters, tensors, config (sizes by their
        names) and words (what the file says of itself, but for its configuration).

    Raises:
        WeightsError: As `read_weights`.
    """
    checkpoint = read_checkpoint(path)
    network = network_of(checkpoint, path.stem)
    return {
        "file": str(path),
        "bytes": path.stat().st_size,
        "sha256": checksum(path, "sha256").removeprefix("sha256:"),
        "network": network.family,
        "name": network.name,
        "scale": network.scale,
        "parameters": sum(p.numel() for p in network.parameters()),
        "tensors": len(checkpoint.tensors),
        "config": asdict(network.config),
        "words": {k: v for k, v in checkpoint.metadata.items() if k not in _STRUCTURAL_KEYS},
    }


def convert_weights(
    source: Path, target: Path, *, averaged: bool = False, overwrite: bool = False
) -> Network:
    """Turn a weight file of any readable form into one of this project, which says what it is.

    Args:
        source: A safetensors or PyTorch file.
        target: Where to write, ending in ``.safetensors``; appears when it is complete.
        averaged: As for `read_weights`.
        overwrite: Whether `target` may exist and be replaced.

    Returns:
        The network that was written.

    Raises:
        WeightsError: As `read_weights`.
        OutputError: If the target cannot be written as asked.
    """
    if target.suffix != ".safetensors":
        raise OutputError(f"{target} must end in .safetensors, the form that is written.")
    check_output_path(target, overwrite=overwrite)  # a file may be converted in place
    checkpoint = read_checkpoint(source, averaged=averaged)
    network = network_of(checkpoint, target.stem)
    metadata = {
        "name": network.name,
        "source": f"{source.name}, {checksum(source, 'sha256')}",
        **{k: v for k, v in checkpoint.metadata.items() if k not in _STRUCTURAL_KEYS},
    }
    try:
        save_weights(network, target, metadata)
    except OSError as error:
        raise OutputError(f"{target} cannot be written ({error.strerror or error}).") from error
    return network
