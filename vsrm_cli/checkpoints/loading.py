"""Load networks from weight files, and save them.

A weight file is safetensors: tensors and metadata, no code. The metadata contain the network's
family and configuration, so a path is enough to load it. Files of other projects are recognized by
their keys (`detect`).
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

from vsrm_cli.checkpoints.catalog import MODELS, interpolation_shares
from vsrm_cli.checkpoints.detect import GSM_UNUSED, gsm_settings, guess_architecture, is_gsm
from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.checkpoints.safe_reader import Checkpoint, read_checkpoint, sanitize
from vsrm_cli.errors import UsageError, VsrmError, WeightsError
from vsrm_cli.files import write_atomically
from vsrm_cli.models.gsmamba import GSM, GSMConfig
from vsrm_cli.models.network import Network
from vsrm_cli.models.presets import GSM_FULL
from vsrm_cli.models.vsrm import VSRM, VSRMConfig
from vsrm_cli.models.vsrm_compact import CompactConfig, VSRMCompact
from vsrm_cli.models.vsrm_compact_v01 import CompactV01, CompactV01Config

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}

NO_KEYS = re.compile(r"(?!)")

# Prefix of the upsampler in the compact networks of version 0.1.
_FORMER_COMPACT = "direct"
# Options of `VSRMConfig` and `GSMConfig` in version 0.1, with the values of the published networks.
_FORMER = {
    "feature_blocks": 0,
    "upsampler": "two-step",
    "upsampler_blocks": 0,
    "neighbors": 0,
    "base": "bilinear",
}

# Number of keys of each kind in a message.
_KEYS_LISTED = 10


@dataclass(frozen=True)
class NetworkFamily:
    """A family of networks.

    Attributes:
        config: The class of its configuration.
        network: Its class, whose constructor takes a configuration.
        unused: Keys in published files that the network does not use.
    """

    config: type[Any]
    network: type[Any]
    unused: re.Pattern[str] = NO_KEYS


# By the name in weight files.
FAMILIES = {
    "vsrm": NetworkFamily(VSRMConfig, VSRM),
    "vsrm-compact": NetworkFamily(CompactConfig, VSRMCompact),
    "vsrm-former": NetworkFamily(CompactV01Config, CompactV01),
    "gsm": NetworkFamily(GSMConfig, GSM, unused=GSM_UNUSED),
}


def load_model(
    name_or_path: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    detail: float | None = None,
    report: Callable[[DownloadProgress], None] | None = None,
) -> Network:
    """Load a network, ready to restore clips.

    Args:
        name_or_path: A name of the catalog, a ``.safetensors`` or ``.pth`` file, or a Hub id
            ``owner/name[@revision]``, which is downloaded if it is not on this machine.
        device: "auto" (the best available), "cpu", "cuda", "cuda:<n>", "mps" or "xpu".
        dtype: "auto" (`fastest_dtype`), "fp32", "fp16" or "bf16".
        detail: For a pair (`vsrm_cli.checkpoints.catalog.PAIRS`): 0 to 1 interpolates its two
            weight files. None for the file of the name.
        report: Called while a file of the catalog is downloaded.

    Returns:
        A network in evaluation mode that maps (B, T, 3, H, W) in 0 to 1 to
        (B, T, 3, scale H, scale W), for any T and any size from one on. Outputs are not clamped.

    Raises:
        WeightsError: If there is no such network or file, the download fails, or it does not match.
        UsageError: If there is no such device or dtype, or a detail is given without a pair.
        VsrmError: If this machine does not have the device.
    """
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"The dtype is {dtype!r}; it can be auto, {', '.join(DTYPES)}.")
    place = find_device(device)
    (first, _), *others = interpolation_shares(str(name_or_path), detail)
    network = _read_named(first, report)
    for other, share in others:
        _blend(network, _read_named(other, report), share)
    if dtype == "auto":
        dtype = fastest_dtype(place)
    network.eval().requires_grad_(False).to(place)
    network.set_precision(DTYPES[dtype])
    return network


def fastest_dtype(device: torch.device) -> str:
    """The precision in which networks are fastest on a device, without a visible difference.

    This is fp16 on CUDA, bf16 on a CPU with AMX, which multiplies matrices in it, and fp32
    elsewhere: other CPUs, even with bfloat16 in AVX-512, are slower in bf16 than in fp32.
    """
    if device.type == "cuda":
        return "fp16"
    return "bf16" if device.type == "cpu" and has_amx() else "fp32"


def has_amx() -> bool:
    """Whether this CPU has AMX, units that multiply matrices in bfloat16."""
    if not hasattr(torch.cpu, "get_capabilities"):  # older versions of PyTorch
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


def network_scale(
    name_or_path: str | Path, *, report: Callable[[DownloadProgress], None] | None = None
) -> int:
    """The scale of a network, without loading it.

    Args:
        name_or_path: As for `load_model`; a file is downloaded if its scale is not in the catalog.
        report: Called while a file is downloaded.

    Raises:
        WeightsError: If there is no such network or file.
    """
    entry = MODELS.get(str(name_or_path))
    return _read_named(str(name_or_path), report).scale if entry is None else entry.scale


def _read_named(name_or_path: str, report: Callable[[DownloadProgress], None] | None) -> Network:
    path = locate(name_or_path, report=report)
    is_file = Path(name_or_path).is_file() and name_or_path not in MODELS
    return read_weights(path, name=None if is_file else name_or_path)


def _blend(network: Network, other: Network, share: float) -> None:
    """Interpolate a network's weights with those of another one, in place."""
    if network.config != other.config:
        raise WeightsError(f"{network.name} and {other.name} differ in size and cannot be blended.")
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
    report: Callable[[DownloadProgress], None] | None = None,
) -> str:
    """Compute the SHA-256 of the weight file that `load_model` reads, as hexadecimal digits.

    Args:
        name_or_path: As for `load_model`.
        detail: As for `load_model`. For two files it is the SHA-256 of their checksums and shares.
        report: Called while a file is downloaded.

    Raises:
        WeightsError: If there is no such network or file.
    """
    parts = interpolation_shares(str(name_or_path), detail)
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


def read_weights(path: Path, *, name: str | None = None) -> Network:
    """Build the network of a weight file and load its weights.

    Args:
        path: A safetensors or PyTorch file, of this project or another supported one.
        name: Of the network if the file has none; None for the file name.

    Raises:
        WeightsError: If the file is damaged or malicious, is for an unknown network, or its keys do
            not match its configuration exactly.
    """
    return build_network(read_checkpoint(path), name or path.stem)


def save_weights(network: Network, path: Path, metadata: Mapping[str, str]) -> None:
    """Write a network's weights with metadata atomically.

    Args:
        network: The network; its configuration is saved as metadata.
        path: The file to write, ending in ``.safetensors``.
        metadata: Further metadata: name, licence, recipe, source.
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


def build_network(checkpoint: Checkpoint, name: str) -> Network:
    """Build the network of a checkpoint and load its weights.

    Args:
        checkpoint: Content of a file.
        name: Of the network if the file has none.

    Raises:
        WeightsError: As `read_weights`.
    """
    path = checkpoint.path
    try:
        family, config = _identify(checkpoint)
        with torch.device("meta"), _SkipInit():
            network: Network = family.network(config)
    except (TypeError, ValueError, RuntimeError, AttributeError, KeyError) as error:
        raise WeightsError(
            f"{path} has a configuration that cannot be built: {sanitize(str(error))}."
        ) from error
    scale = checkpoint.metadata.get("scale", str(network.scale))
    if scale != str(network.scale):
        raise WeightsError(
            f"{path} says that it enlarges {sanitize(scale)} times, but its configuration is that "
            f"of a network that enlarges {network.scale} times."
        )
    wanted = network.state_dict()
    tensors = {key: x for key, x in checkpoint.tensors.items() if not family.unused.fullmatch(key)}
    _check_keys(path, wanted, tensors)
    # Built on the meta device, so that no weights are initialized just to be replaced.
    network.load_state_dict(
        {key: x.to(wanted[key].dtype) for key, x in tensors.items()}, assign=True
    )
    network.name = checkpoint.metadata.get("name", name)
    return network


class _SkipInit(TorchFunctionMode):
    """Skips `torch.nn.init`, which on the meta device imports the compiler, for a second."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Return the tensor of an init function unchanged; call all other functions."""
        kwargs = kwargs or {}
        if getattr(func, "__module__", "") == "torch.nn.init":
            return kwargs["tensor"] if "tensor" in kwargs else args[0]
        return func(*args, **kwargs)


def find_device(name: str) -> torch.device:
    """The device of a name: "auto" (the best available), "cpu", "cuda", "cuda:<n>", "mps" or "xpu".

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


def _identify(checkpoint: Checkpoint) -> tuple[NetworkFamily, Any]:
    """The family and the configuration of a checkpoint."""
    metadata, shapes, path = checkpoint.metadata, checkpoint.shapes, checkpoint.path
    if is_gsm(shapes) and "network" not in metadata:
        return FAMILIES["gsm"], _released_gsm(path, gsm_settings(shapes, metadata))
    name = metadata.get("network")
    if name is None or "config" not in metadata:
        raise WeightsError(
            f"{path} does not say which network it is for, and {guess_architecture(shapes)}; the "
            f"networks here are {', '.join(FAMILIES)}."
        )
    if name not in FAMILIES:
        raise WeightsError(
            f"{path} is for a network {sanitize(name)!r}; the networks here are "
            f"{', '.join(FAMILIES)}."
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
    """The configuration from the settings of the authors' code."""
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
        *_listed("unexpected", [f"unexpected {sanitize(n)}" for n in found if n not in wanted]),
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
    """The first faults, and the number of the others."""
    more = len(faults) - _KEYS_LISTED
    return [*faults[:_KEYS_LISTED], f"and {more} more {kind}"] if more > 0 else faults
