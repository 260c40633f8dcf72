"""Several processes, started by torchrun, train one network.

Each computes a share of every batch. The gradients are averaged before each step, so all of them
have the same weights. Without torchrun there is one process, and these functions do nothing.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, distributed, nn


@contextmanager
def process_group(device: str) -> Iterator[str]:
    """Join the process group of torchrun, if there is one, and leave it at the end.

    Args:
        device: As the user gave it; with CUDA each process takes the GPU of its local rank.

    Yields:
        The device of this process.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield device
        return
    on_gpu = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_gpu:
        device = f"cuda:{os.environ['LOCAL_RANK']}"
        torch.cuda.set_device(torch.device(device))
    else:
        # Two processes with one thread each are faster than one process with two.
        torch.set_num_threads(1)
    distributed.init_process_group("nccl" if on_gpu else "gloo")
    try:
        yield device
    finally:
        distributed.destroy_process_group()


def rank() -> int:
    """The number of this process, from 0; number 0 writes and reports."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def process_count() -> int:
    """How many processes share each batch."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def all_reduce_max(value: float, device: torch.device) -> float:
    """The maximum of a value over all processes."""
    if not distributed.is_initialized():
        return value
    values = torch.tensor(value, dtype=torch.float64, device=device)
    distributed.all_reduce(values, distributed.ReduceOp.MAX)
    return float(values)


def barrier() -> None:
    """Wait for all processes."""
    if distributed.is_initialized():
        distributed.barrier()


def average_over_processes(parameters: Iterable[nn.Parameter], figures: Tensor) -> Tensor:
    """Average gradients over all processes, in place.

    Args:
        parameters: Those without a gradient are skipped.
        figures: (N,), averaged along with them.

    Returns:
        The averaged figures.
    """
    if not distributed.is_initialized():
        return figures
    gradients = [p.grad for p in parameters if p.grad is not None]
    flat = torch.cat([*(g.flatten() for g in gradients), figures])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    pieces = flat[: -len(figures)].split([g.numel() for g in gradients])
    for gradient, piece in zip(gradients, pieces, strict=True):
        gradient.copy_(piece.view_as(gradient))
    return flat[-len(figures) :]
