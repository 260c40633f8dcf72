"""Less memory for more time: what lies inside a branch is computed again for its gradients."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn
from torch.utils.checkpoint import checkpoint

from vsrm_cli.models.network import Network


@contextmanager
def recomputing(network: Network) -> Iterator[None]:
    """Keep, of the branches or layers and of each large frame, only what goes in and comes out.

    The network computes the same values as without, and so do the gradients, as long as the
    forward pass lies inside.

    Args:
        network: Left as it was.
    """
    changed = [(module, "forward") for module in _members(network)]
    changed.append((network, "upsample_features"))
    for owner, name in changed:
        setattr(owner, name, _checkpointed(getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name in changed:
            delattr(owner, name)


def _members(network: Network) -> list[nn.Module]:
    """What carries features through time in several parts, each a member of a list or table."""
    temporal = {id(parameter) for parameter in network.temporal_parameters()}
    return [
        member
        for part in network.children()
        if isinstance(part, nn.ModuleList | nn.ModuleDict)
        for member in part.children()
        if any(id(parameter) in temporal for parameter in member.parameters())
    ]


def _checkpointed(compute: Callable[..., Any]) -> Callable[..., Any]:
    return partial(checkpoint, compute, use_reentrant=False, preserve_rng_state=False)
