"""Checks of configurations, which may come from untrusted files.

A file of a few bytes can name a million blocks, and building them would take hours. The largest
published network has 64 blocks, 200 channels and 6 levels.
"""

import math
from collections.abc import Collection
from dataclasses import fields
from typing import Any, get_args, get_origin

_WIDEST = 4096
_LONGEST = 16
_MOST_BLOCKS = 512


def check_sizes(config: Any) -> None:
    """Check that each size has the type that the configuration declares, and a possible value.

    Args:
        config: A dataclass of integers, floats, booleans, strings, and tuples of them.

    Raises:
        ValueError: If one has not; the message names it.
    """
    for field in fields(config):
        value = getattr(config, field.name)
        is_tuple = get_origin(field.type) is tuple
        kind = get_args(field.type)[0] if is_tuple else field.type
        items = value if isinstance(value, tuple) else (value,)
        is_fit = isinstance(value, tuple) == is_tuple and len(items) <= _LONGEST
        if not is_fit or not all(_is_possible(x, kind) for x in items):
            raise ValueError(f"{field.name} cannot be {str(value)[:60]!r}")


def check_blocks(count: int) -> None:
    """Check the total number of blocks of a network.

    Raises:
        ValueError: If there are too many.
    """
    if count > _MOST_BLOCKS:
        raise ValueError(f"it asks for {count} blocks, and {_MOST_BLOCKS} is the most")


def check_choice(name: str, value: str, choices: Collection[str]) -> None:
    """Check that a value is one of the choices.

    Raises:
        ValueError: If it is not; the message lists the choices.
    """
    if value not in choices:
        raise ValueError(f"{name} is {value[:60]!r}, but it can be {' or '.join(choices)}")


def _is_possible(x: Any, kind: Any) -> bool:
    """Whether a value is of a type (an int is a float too, a bool is not a number)."""
    if kind in (int, float):
        is_number = type(x) is int or (kind is float and type(x) is float)
        return is_number and math.isfinite(x) and 0 <= x <= _WIDEST
    return isinstance(x, kind)
