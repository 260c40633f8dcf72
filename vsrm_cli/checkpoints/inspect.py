"""Describe networks and weight files, and convert weight files to safetensors."""

from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from vsrm_cli.checkpoints.catalog import (
    FOR_COMPRESSED,
    MODELS,
    ModelEntry,
    find_detail_pair,
    resolve_detail,
)
from vsrm_cli.checkpoints.download import DownloadProgress, checksum
from vsrm_cli.checkpoints.loading import build_network, save_weights
from vsrm_cli.checkpoints.locate import locate, weights_location
from vsrm_cli.checkpoints.safe_reader import read_checkpoint
from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path
from vsrm_cli.models.network import Network

# Metadata keys of the structure, which is read from the network instead.
_STRUCTURAL_KEYS = ("network", "name", "config", "scale", "format")


def describe(
    name_or_path: str | Path, *, report: Callable[[DownloadProgress], None] | None = None
) -> dict[str, Any]:
    """Describe a network by name or path, including its weight file if it is on this machine.

    Args:
        name_or_path: As for `load_model`.
        report: Called while a file of the Hub is downloaded; files of the catalog are not.

    Raises:
        WeightsError: If there is no such network, or its file is damaged.
    """
    entry = MODELS.get(str(name_or_path))
    if entry is None:
        return describe_weights(locate(name_or_path, report=report))
    path = weights_location(entry).path
    return {
        **describe_entry(entry),
        "config": asdict(entry.config),
        **(describe_weights(path) if path else {}),
    }


def describe_entry(entry: ModelEntry) -> dict[str, Any]:
    """Describe an entry of the catalog, and where its weights are now.

    Returns:
        The fields of the entry; place ("in the box", "cached", "to be fetched" or "none"), file (a
        path, or None), bytes, url and checksum of the file to download, and detail_pair (the names
        that `--detail` interpolates, or None).
    """
    where = weights_location(entry)
    left_out = ("config", "file", "remote")
    default = {"default": resolve_detail(FOR_COMPRESSED, None)}
    return {
        **{f.name: getattr(entry, f.name) for f in fields(entry) if f.name not in left_out},
        "place": str(where.place),
        "file": str(where.path) if where.path else None,
        "bytes": where.size,
        "url": entry.remote.url if entry.remote else None,
        "checksum": entry.remote.checksum if entry.remote else None,
        "detail_pair": asdict(pair) | default if (pair := find_detail_pair(entry.name)) else None,
    }


def describe_weights(path: Path) -> dict[str, Any]:
    """Describe a weight file, after all checks of loading it.

    Returns:
        file, bytes, sha256, network, name, scale, parameters, tensors, config and words (the other
        metadata of the file).

    Raises:
        WeightsError: As `read_weights`.
    """
    checkpoint = read_checkpoint(path)
    network = build_network(checkpoint, path.stem)
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
    """Convert a weight file of any supported format to safetensors with metadata.

    Args:
        source: A safetensors or PyTorch file.
        target: The file to write, ending in ``.safetensors``; written atomically.
        averaged: As for `read_weights`.
        overwrite: Whether `target` may exist and be replaced.

    Returns:
        The network that was written.

    Raises:
        WeightsError: As `read_weights`.
        OutputError: If the target cannot be written.
    """
    if target.suffix != ".safetensors":
        raise OutputError(f"{target} must end in .safetensors, the form that is written.")
    check_output_path(target, overwrite=overwrite)  # a file may be converted in place
    checkpoint = read_checkpoint(source, averaged=averaged)
    network = build_network(checkpoint, target.stem)
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
