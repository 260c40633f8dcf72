"""Read tensors and metadata from an untrusted file.

A safetensors file contains only numbers. A PyTorch file (``.pth``) is a zip archive with a pickle,
which can call any function: it is read with ``weights_only=True``, after checking that the archive
does not expand. No more memory is allocated than the file's size on disk.
"""

import math
import re
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from vsrm_cli.errors import WeightsError

# Keys of training frameworks that wrap weights, outermost first, and prefixes of the names inside.
# Weights are preferred to averaged ones, as in the test script of GSM's authors.
WRAPPERS = ("state_dict", "model", "model_state_dict", "network", "params", "params_ema")
AVERAGED = "params_ema"
PREFIXES = ("module.", "_orig_mod.")

_FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_TYPES = (*_FLOATS, torch.int64, torch.int32, torch.uint8, torch.bool)
_MOST_NESTED = 4
_LONGEST_NAME = 100


@dataclass(frozen=True)
class Checkpoint:
    """Content of a file: tensors by name, and metadata."""

    path: Path
    tensors: Mapping[str, Tensor]
    metadata: Mapping[str, str]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each tensor, by name."""
        return {name: tuple(x.shape) for name, x in self.tensors.items()}


def read_checkpoint(path: Path, *, averaged: bool = False) -> Checkpoint:
    """Read a weight file; no code in it is executed.

    Args:
        path: A safetensors file or a zipped PyTorch file; the suffix does not matter.
        averaged: Whether to take the running average (``params_ema``) if a file has both.

    Raises:
        WeightsError: If the file cannot be read, is neither of the two, contains anything except
            numbers, unpacks to more than its own size, or holds NaN or infinite values.
    """
    try:
        with path.open("rb") as file:
            start = file.read(9)
        size = path.stat().st_size
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
    metadata: dict[str, str] = {}
    if start.startswith(b"PK\x03\x04"):
        tensors = _unwrap(path, _read_pytorch(path, size), averaged=averaged)
    elif start.startswith(b"\x80") and start[8:] != b"{":  # the length of a header may be 0x80 too
        raise WeightsError(
            f"{path} is a bare pickle, which could run code and is not read; ask for a "
            "safetensors file, or for one saved by PyTorch 1.6 or later."
        )
    else:
        tensors, metadata = _read_safetensors(path)
    tensors = _strip(tensors)
    for name, x in tensors.items():
        _check(path, name, x, size)
    return Checkpoint(path, tensors, metadata)


def sanitize(text: str) -> str:
    """Make a name from an untrusted file safe to print: short, and without control characters."""
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= _LONGEST_NAME else f"{text[:_LONGEST_NAME]}..."


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError, KeyError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors or PyTorch file ({sanitize(str(error))})."
        ) from error


def _read_pytorch(path: Path, size: int) -> Any:
    _check_archive(path, size)
    try:
        return torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    # A malicious pickle can raise any exception.
    except Exception as error:
        call = re.search(r"GLOBAL ([\w.]+)", str(error))
        if call:
            raise WeightsError(
                f"{path} was refused: it asks to call {sanitize(call[1])}, which weights never "
                "need; nothing was executed."
            ) from error
        reason = sanitize(str(error).splitlines()[0] if str(error) else type(error).__name__)
        raise WeightsError(f"{path} is not a readable PyTorch file ({reason}).") from error


def _check_archive(path: Path, size: int) -> None:
    """Refuse compressed archives; PyTorch itself never compresses."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise WeightsError(f"{path} is damaged or cut short ({error}).") from error
    unpacked = sum(entry.file_size for entry in entries)
    if unpacked > size or any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise WeightsError(
            f"{path} was refused: it has {size} bytes and would unpack to {unpacked}; PyTorch does "
            "not compress its files."
        )


def _unwrap(path: Path, content: Any, *, averaged: bool) -> dict[str, Tensor]:
    """Remove the wrappers of training frameworks."""
    order = (AVERAGED, *WRAPPERS) if averaged else WRAPPERS
    for _ in range(_MOST_NESTED):
        key = next((k for k in order if _is_mapping_at(content, k)), None)
        if key is None:
            break
        content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds no weights.")
    strange = next((k for k, x in content.items() if not _is_named_tensor(k, x)), None)
    if strange is not None:
        raise WeightsError(
            f"{path} holds {sanitize(str(strange))}, which is not a tensor, where weights "
            "should be."
        )
    return {name: x.detach() for name, x in content.items()}


def _is_mapping_at(content: Any, key: str) -> bool:
    return isinstance(content, Mapping) and isinstance(content.get(key), Mapping)


def _is_named_tensor(name: Any, x: Any) -> bool:
    return isinstance(name, str) and isinstance(x, Tensor)


def _strip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Remove prefixes that all names have."""
    named = dict(tensors)
    for prefix in PREFIXES * 2:  # in either order
        if named and all(name.startswith(prefix) for name in named):
            named = {name.removeprefix(prefix): x for name, x in named.items()}
    return named


def _check(path: Path, name: str, x: Tensor, size: int) -> None:
    """Refuse a tensor that is not a dense block of finite numbers of this file."""
    if x.is_meta or x.layout != torch.strided or x.dtype not in _TYPES:
        raise WeightsError(
            f"{path} holds {sanitize(name)} as {x.dtype}, {x.layout}, as weights never are."
        )
    if math.prod(x.shape) * x.element_size() > size:
        raise WeightsError(
            f"{path} was refused: {sanitize(name)} claims the shape {tuple(x.shape)}, more than "
            f"the {size} bytes of the file can hold."
        )
    if x.dtype in _FLOATS and not bool(torch.isfinite(x).all()):
        raise WeightsError(
            f"{path} holds NaN or infinite values in {sanitize(name)}: it is damaged, or its "
            "training failed."
        )
