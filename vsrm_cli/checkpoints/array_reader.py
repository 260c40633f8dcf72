"""Numbers out of a pickle of NumPy arrays, without trusting it.

A pickle can ask for any function to be called. This reader knows three names, those that a plain
array is made of, and builds each array itself: whatever else a file asks for is refused.
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
    """Builds nothing but arrays and what Python itself has: text, numbers, dictionaries."""

    def find_class(self, module: str, name: str) -> Any:
        if name == "_reconstruct" and module in _MODULES:
            return _empty_array
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")


def _empty_array(kind: Any, shape: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """What NumPy's own pickles begin with: an array without elements, filled in afterwards."""
    if kind is not np.ndarray or shape != (0,):
        raise pickle.UnpicklingError("it asks for an array that NumPy would not have written")
    return np.empty(0, dtype=np.uint8)


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read nested dictionaries of float arrays; nothing that the file holds is executed.

    Args:
        path: A pickle.

    Returns:
        The arrays in float32, by the keys on the way to them, joined by slashes.

    Raises:
        WeightsError: If the file cannot be read or holds anything but arrays of numbers.
    """
    try:
        with path.open("rb") as file:
            content = _ArrayReader(file).load()
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({error.strerror}).") from error
    # A hostile or damaged pickle can make its reader fail in any way; each means the same.
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
