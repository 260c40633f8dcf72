"""Read, describe, convert and save weight files as networks; nobody else knows what they mean.

A weight file is safetensors: tensors and a table of words, nothing that could be executed. The
words name the network and its configuration, so a file is loaded by its path alone. Files of other
origins are recognized by their keys (`origins`).
"""

import hashlib
import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from vsrm_cli.checkpoints.catalog import MODELS, blend_of
from vsrm_cli.checkpoints.detect import GSM_UNUSED, call_by_name, gsm_settings, is_gsm
from vsrm_cli.checkpoints.download import Transfer
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.checkpoints.safe_reader import Checkpoint, read_checkpoint, shown
from vsrm_cli.errors import UsageError, VsrmError, WeightsError
from vsrm_cli.files import write_atomically
from vsrm_cli.models.gsmamba import GSM, GSMConfig
from vsrm_cli.models.network import Network
from vsrm_cli.models.presets import GSM_FULL
from vsrm_cli.models.vsrm import VSRM, VSRMConfig
from vsrm_cli.models.vsrm_compact import CompactConfig, VSRMCompact
from vsrm_cli.models.vsrm_former import FormerConfig, FormerVSRM

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

NO_KEYS = re.compile(r"(?!)")

# What the compact networks of version 0.1 named their upsampler.
_FORMER_COMPACT = "direct"
# Options of `VSRMConfig` and `GSMConfig` in version 0.1, with the values of the published networks.
_FORMER = {
    "feature_blocks": 0,
    "upsampler": "two-step",
    "upsampler_blocks": 0,
    "neighbors": 0,
    "base": "bilinear",
}

# How many keys of each kind a message lists.
_KEYS_LISTED = 10


@dataclass(frozen=True)
class Family:
    """A kind of network.

    Attributes:
        config: The class of its configuration.
        network: Its own class, whose constructor takes a configuration.
        unused: Keys that strangers' files may hold and that no network reads.
    """

    config: type[Any]
    network: type[Any]
    unused: re.Pattern[str] = NO_KEYS


# By the name that stands in its weight files.
FAMILIES = {
    "vsrm": Family(VSRMConfig, VSRM),
    "vsrm-compact": Family(CompactConfig, VSRMCompact),
    "vsrm-former": Family(FormerConfig, FormerVSRM),
    "gsm": Family(GSMConfig, GSM, unused=GSM_UNUSED),
}


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    detail: float | None = None,
    report: Callable[[Transfer], None] | None = None,
) -> Network:
    """Load a network, ready to restore clips.

    Args:
        name_or_path: A name of the catalog, a ``.safetensors`` or ``.pth`` file, or a Hub id
            ``owner/name[@revision]``. What is not on this machine is fetched.
        device: "auto" (the best there is), "cpu", "cuda", "cuda:<n>", "mps" or "xpu".
        dtype: "auto" (fp16 on CUDA, fp32 elsewhere), "fp32", "fp16" or "bf16".
        detail: Of a name that belongs to a pair (`vsrm_cli.checkpoints.catalog.PAIRS`): where
            between its two weight files, 0 to 1. None takes the file of the name.
        report: Called as a file of the catalog comes in.

    Returns:
        A network that maps (B, T, 3, H, W) in 0 to 1 to (B, T, 3, scale H, scale W), any T and
        any size from one on, in evaluation mode. Its values are not clamped: some lie outside 0
        to 1. Its ``scale`` is 4 for most networks, and its
        ``name`` says what was loaded.

    Raises:
        WeightsError: If there is no such network or file, it cannot be fetched, or it does not fit.
        UsageError: If the device or dtype is none that exists, or there is a detail and no pair.
        VsrmError: If this machine lacks the device.
    """
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"The dtype is {dtype!r}; it can be auto, {', '.join(DTYPES)}.")
    place = find_device(device)
    (first, _), *others = blend_of(str(name_or_path), detail)
    network = _read_named(first, report)
    for other, share in others:
        _blend(network, _read_named(other, report), share)
    if dtype == "auto":
        dtype = "fp16" if place.type == "cuda" else "fp32"
    network.eval().requires_grad_(False).to(place)
    network.set_precision(DTYPES[dtype])
    return network


def network_scale(
    name_or_path: str | Path, *, report: Callable[[Transfer], None] | None = None
) -> int:
    """How many times a network enlarges, before it is loaded.

    Args:
        name_or_path: As for `load_model`; what is not on this machine is fetched, unless the
            catalog tells.
        report: Called as a file comes in.

    Raises:
        WeightsError: If there is no such network or file.
    """
    entry = MODELS.get(str(name_or_path))
    return _read_named(str(name_or_path), report).scale if entry is None else entry.scale


def _read_named(name_or_path: str, report: Callable[[Transfer], None] | None) -> Network:
    path = locate(name_or_path, report=report)
    is_file = Path(name_or_path).is_file() and name_or_path not in MODELS
    return read_weights(path, name=None if is_file else name_or_path)


def _blend(network: Network, other: Network, share: float) -> None:
    """Move a network's weights towards those of another one, by a share of the way."""
    if network.config != other.config:
        raise WeightsError(
            f"{network.name} and {other.name} are networks of different sizes and cannot be mixed."
        )
    others = other.state_dict()
    mixed = {
        key: x.float().lerp(others[key].float(), share).to(x.dtype)
        for key, x in network.state_dict().items()
    }
    network.load_state_dict(mixed, assign=True)


def weights_checksum(
    name_or_path: str | Path,
    *,
    detail: float | None = None,
    report: Callable[[Transfer], None] | None = None,
) -> str:
    """Compute the SHA-256 of the weight file that `load_model` reads, in digits.

    Args:
        name_or_path: As for `load_model`; what is not on this machine is fetched.
        detail: As for `load_model`. Of two files that are mixed it is that of their checksums
            and shares.
        report: Called as the file comes in.

    Raises:
        WeightsError: If there is no such network or file.
    """
    parts = blend_of(str(name_or_path), detail)
    checksums = [(_file_checksum(locate(name, report=report)), share) for name, share in parts]
    if len(checksums) == 1:
        return checksums[0][0]
    return hashlib.sha256(repr(checksums).encode()).hexdigest()


def _file_checksum(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error


def read_weights(path: Path, *, name: str | None = None, averaged: bool = False) -> Network:
    """Build the network that a file describes and give it the file's weights.

    Args:
        path: A safetensors or PyTorch file, of this project or of an origin that is known here.
        name: What to call the network if the file does not say; None for the file's own name.
        averaged: Of a PyTorch file with both, take the averaged weights (``params_ema``).

    Raises:
        WeightsError: If the file is damaged or hostile, is for no network that is known here, or
            does not hold exactly the weights that its configuration asks for.
    """
    return network_of(read_checkpoint(path, averaged=averaged), name or path.stem)


def save_weights(network: Network, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights and what describes them; the file appears when it is complete.

    Args:
        network: The network; its configuration goes into the file.
        path: Where to write, ending in ``.safetensors``.
        metadata: More to say: name, licence, recipe, source.
    """
    described = {
        "network": network.family,
        "config": json.dumps(asdict(network.config)),
        "scale": str(network.scale),
        **metadata,
    }
    tensors = {name: x.detach().cpu().contiguous() for name, x in network.state_dict().items()}
    with write_atomically(path) as part:
        save_file(tensors, part, metadata=described)


def network_of(checkpoint: Checkpoint, name: str) -> Network:
    """The network that a file describes, with the file's weights.

    Args:
        checkpoint: What the file held.
        name: What to call the network if the file does not say.

    Raises:
        WeightsError: As `read_weights`.
    """
    path = checkpoint.path
    try:
        family, config = _identify(checkpoint)
        with torch.device("meta"), _WithoutFirstValues():
            network: Network = family.network(config)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise WeightsError(
            f"{path} has a configuration that cannot be built: {shown(str(error))}."
        ) from error
    scale = checkpoint.metadata.get("scale", str(network.scale))
    if scale != str(network.scale):
        raise WeightsError(
            f"{path} says that it enlarges {shown(scale)} times, but its configuration is that of "
            f"a network that enlarges {network.scale} times."
        )
    wanted = network.state_dict()
    tensors = {key: x for key, x in checkpoint.tensors.items() if not family.unused.fullmatch(key)}
    _check_keys(path, wanted, tensors)
    # Built on the meta device, then given the tensors: no time goes into values to be replaced.
    network.load_state_dict(
        {key: x.to(wanted[key].dtype) for key, x in tensors.items()}, assign=True
    )
    network.name = checkpoint.metadata.get("name", name)
    return network


class _WithoutFirstValues(TorchFunctionMode):
    """Skips `torch.nn.init`: on the meta device it brings the compiler, a second of imports."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor to be filled as it is; call everything else."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def find_device(name: str) -> torch.device:
    """The device of a name: "auto" (the best there is), "cpu", "cuda", "cuda:<n>", "mps" or "xpu".

    Raises:
        UsageError: If there is no such name.
        VsrmError: If this machine has no such device.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.xpu.is_available():
            return torch.device("xpu")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(
            f"The device is {name!r}; it can be auto, cpu, cuda, mps or xpu."
        ) from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "xpu": torch.xpu.device_count(),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise VsrmError(f"This machine has no device {name}; use --device cpu or auto.")
    return device


def _identify(checkpoint: Checkpoint) -> tuple[Family, Any]:
    """The kind of network that a file is for, and its configuration."""
    metadata, shapes, path = checkpoint.metadata, checkpoint.shapes, checkpoint.path
    if is_gsm(shapes) and "network" not in metadata:
        return FAMILIES["gsm"], _released_gsm(path, gsm_settings(shapes, metadata))
    name = metadata.get("network")
    if name is None or "config" not in metadata:
        raise WeightsError(
            f"{path} does not say which network it is for, and {call_by_name(shapes)}; the "
            f"networks here are {', '.join(FAMILIES)}."
        )
    if name not in FAMILIES:
        raise WeightsError(
            f"{path} is for a network {shown(name)!r}; the networks here are {', '.join(FAMILIES)}."
        )
    values = json.loads(metadata["config"])
    if name == "vsrm" and values.get("upsampler") == _FORMER_COMPACT:
        name = "vsrm-former"
    elif name in ("vsrm", "gsm"):
        values = _published(path, values)
    sizes = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return FAMILIES[name], FAMILIES[name].config(**sizes)


def _published(path: Path, values: dict[str, Any]) -> dict[str, Any]:
    """A configuration without the options that only the compact networks of 0.1 used."""
    if any(values.pop(name, value) != value for name, value in _FORMER.items()):
        raise WeightsError(
            f"{path} is for a compact network that vsrm 0.1.0 was the last to read; use that "
            "version, or fine-tune the vsrm-t of this one."
        )
    return values


def _released_gsm(path: Path, settings: Mapping[str, int]) -> GSMConfig:
    """The configuration that the authors' code makes of its settings."""
    if settings["upscale"] != GSM.scale:
        raise WeightsError(
            f"{path} is a GSM checkpoint that enlarges {settings['upscale']} times; the networks "
            f"here enlarge {GSM.scale} times."
        )
    return replace(
        GSM_FULL,
        channels=settings["embed_dims"],
        heads=settings["num_heads"],
        layers=settings["prop_depth"],
        attention_blocks=settings["attn_depth"],
        radius=settings["pa_frame"],
        rank=math.ceil(settings["embed_dims"] / 16),
    )


def _check_keys(path: Path, wanted: Mapping[str, Tensor], found: Mapping[str, Tensor]) -> None:
    both = [(name, x, found[name]) for name, x in wanted.items() if name in found]
    faults = [
        *_listed("missing", [f"missing {name}" for name in wanted if name not in found]),
        *_listed("unexpected", [f"unexpected {shown(n)}" for n in found if n not in wanted]),
        *_listed(
            "of another shape",
            [
                f"{name} is {tuple(x.shape)}, wanted {tuple(y.shape)}"
                for name, y, x in both
                if x.shape != y.shape
            ],
        ),
        *_listed(
            "of another type",
            [
                f"{name} is {x.dtype}, wanted {y.dtype}"
                for name, y, x in both
                if x.is_floating_point() != y.is_floating_point()
            ],
        ),
    ]
    if faults:
        raise WeightsError(f"{path} does not fit its own configuration: {'; '.join(faults)}.")


def _listed(kind: str, faults: list[str]) -> list[str]:
    """The first of some faults, and how many there are where that is not all."""
    more = len(faults) - _KEYS_LISTED
    return [*faults[:_KEYS_LISTED], f"and {more} more {kind}"] if more > 0 else faults
