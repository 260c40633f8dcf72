"""Read NumPy arrays from an untrusted pickle.

A pickle can call any function. This reader allows only the three names that a plain array needs,
and builds each array itself; everything else is refused.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vsrm_cli.errors import WeightsError

_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")


class _ArrayReader(pickle.Unpickler):
    """Unpickles only arrays and built-in types: text, numbers, dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in _MODULES:
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: Any, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """The start of NumPy's own pickles: an empty array, which is filled later."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it asks for an array that NumPy would not have written")
    return np.empty(0, dtype=np.uint8)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read nested dictionaries of float arrays; no code in the file is executed.

    Args:
        path: A pickle.

    Returns:
        The arrays in float32, by their nested keys, joined by slashes.

    Raises:
        WeightsError: If the file cannot be read or holds anything except arrays of numbers.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayReader(file).load()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
    # A malicious or damaged pickle can raise any exception.
    except Exception as error:
        raise WeightsError(
            f"{path} is not a file of plain arrays ({error}); nothing of it was executed."
        ) from error
    arrays: dict[str, Tensor] = {}
    _collect(path, content, "", arrays)
    return arrays


def _collect(path: Path, content: Any, name: str, arrays: dict[str, Tensor]) -> None:
    if isinstance(content, Mapping):
        for key, value in content.items():
            _collect(path, value, f"{name}/{key}" if name else str(key), arrays)
    elif isinstance(content, np.ndarray) and content.dtype.kind == "f":
        arrays[name] = torch.from_numpy(content.astype(np.float32))
    else:
        raise WeightsError(f"{path} holds {type(content).__name__} where arrays of floats belong.")
