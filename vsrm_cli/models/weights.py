"""Find, read and save weight files; nobody else knows their format.

A weight file is safetensors: tensors and a table of words, nothing that could be executed. The
words name the network and its configuration, so a file is loaded by its path alone.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vsrm_cli.errors import UsageError, VsrmError, WeightsError
from vsrm_cli.models.catalog import MODELS
from vsrm_cli.models.network import Network
from vsrm_cli.models.vsrm import VSRM, VSRMConfig

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def load_model(name_or_path: str | Path, *, device: str = "auto", dtype: str = "auto") -> VSRM:
    """Load a network, ready to restore clips.

    Args:
        name_or_path: A name of the catalog, or a ``.safetensors`` file of this project.
        device: "auto" (the best there is), "cpu", "cuda", "cuda:<n>" or "mps".
        dtype: "auto" (fp16 on CUDA, fp32 elsewhere), "fp32", "fp16" or "bf16".

    Returns:
        A network that maps (B, T, 3, H, W) in 0 to 1 to (B, T, 3, 4H, 4W), any T and any size
        from one on, in evaluation mode. Its ``name`` says what was loaded.

    Raises:
        WeightsError: If there is no such network or file, or the file does not fit.
        UsageError: If the device or dtype is none that exists.
        VsrmError: If this machine lacks the device.
    """
    if dtype not in ("auto", *DTYPES):
        raise UsageError(f"The dtype is {dtype!r}; it can be auto, {', '.join(DTYPES)}.")
    place = _device(device)
    network = read_weights(_find(name_or_path))
    if dtype == "auto":
        dtype = "fp16" if place.type == "cuda" else "fp32"
    network.eval().requires_grad_(False).to(place)
    network.set_precision(DTYPES[dtype])
    return network


def read_weights(path: Path) -> VSRM:
    """Build the network that a file describes and give it the file's weights.

    Raises:
        WeightsError: If the file is damaged, is not one of this project's, or does not hold
            exactly the weights that its configuration asks for.
    """
    try:
        with safe_open(path, framework="pt") as file:
            words = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} is not a readable safetensors file ({error}).") from error
    network = _build(path, words)
    _check_keys(path, network, tensors)
    # Built on the meta device, then given the tensors: no time goes into values to be replaced.
    network.load_state_dict(tensors, assign=True)
    network.name = words.get("name", path.stem)
    return network


def save_weights(network: Network, path: Path, words: Mapping[str, str]) -> None:
    """Write a network's weights and what describes them; the file appears when it is complete.

    Args:
        network: The network; its configuration goes into the file.
        path: Where to write, ending in ``.safetensors``.
        words: More to say: name, licence, recipe, source.
    """
    described = {
        "network": network.family,
        "config": json.dumps(asdict(network.config)),
        "scale": str(network.scale),
        **words,
    }
    tensors = {name: x.detach().cpu().contiguous() for name, x in network.state_dict().items()}
    part = path.with_name(f".{path.name}.part")
    try:
        save_file(tensors, part, metadata=described)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _find(name_or_path: str | Path) -> Path:
    """The weight file of a name or path."""
    name = str(name_or_path)
    path = Path(name_or_path)
    if name not in MODELS:
        if path.is_file():
            return path
        if path.suffix == ".safetensors" or len(path.parts) > 1:
            raise WeightsError(f"There is no weight file {path}; check the path.")
        raise WeightsError(f"There is no model {name!r}; the models are {', '.join(MODELS)}.")
    file = MODELS[name].file
    if file is None:
        raise WeightsError(
            f"The model {name!r} has no public weights: {MODELS[name].about}. Use one with "
            f"weights, such as 'vsrm-t', or give the path of a file that you trained."
        )
    # Installed, the folder lies inside the package; in a clone, beside it.
    package = Path(str(files("vsrm_cli")))
    for folder in (package / "weights", package.parent / "weights"):
        if (folder / file).is_file():
            return folder / file
    raise WeightsError(f"The weight file {file} is missing from the installation; reinstall vsrm.")


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"The device is {name!r}; it can be auto, cpu, cuda or mps.") from error
    count = {
        "cpu": 1,
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
    }.get(device.type, 0)
    if (device.index or 0) >= count:
        raise VsrmError(f"This machine has no device {name}; use --device cpu or auto.")
    return device


def _build(path: Path, words: Mapping[str, str]) -> VSRM:
    if words.get("network") != "vsrm" or "config" not in words:
        raise WeightsError(f"{path} does not say which network it is for; it is not ours.")
    try:
        values = json.loads(words["config"])
        sizes: dict[str, Any] = {
            n: tuple(v) if isinstance(v, list) else v for n, v in values.items()
        }
        config = VSRMConfig(**sizes)
        with torch.device("meta"):
            return VSRM(config)
    except (TypeError, ValueError, RuntimeError, AttributeError) as error:
        raise WeightsError(f"{path} has a configuration that cannot be built: {error}.") from error


def _check_keys(path: Path, network: VSRM, tensors: Mapping[str, Tensor]) -> None:
    wanted = {name: tuple(x.shape) for name, x in network.state_dict().items()}
    found = {name: tuple(x.shape) for name, x in tensors.items()}
    if wanted == found:
        return
    faults = [f"missing {name}" for name in wanted if name not in found]
    faults += [f"unexpected {name}" for name in found if name not in wanted]
    faults += [
        f"{name} is {found[name]}, wanted {shape}"
        for name, shape in wanted.items()
        if name in found and found[name] != shape
    ]
    raise WeightsError(f"{path} does not fit its own configuration: {'; '.join(faults)}.")
