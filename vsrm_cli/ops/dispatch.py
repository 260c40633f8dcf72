"""Select an implementation of the selective scan.

The choice depends on the installed packages and on device and dtype of the tensors, never on a
caught exception. The environment variable ``VSRM_KERNELS`` overrides it for the whole program.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor

from vsrm_cli.errors import UsageError

NAMES = ("reference", "chunked", "compiled", "triton", "mamba_ssm")

# Fastest first; the chunked scan supports all inputs and devices.
PREFERRED = {
    "cpu": ("compiled", "chunked"),
    "cuda": ("triton", "mamba_ssm", "chunked"),
}


@dataclass(frozen=True)
class ScanKernel:
    """One implementation, and whether it can run on a device.

    Args:
        name: As ``VSRM_KERNELS`` takes it.
        reason: Why it cannot run; empty where it can.
    """

    name: str
    reason: str

    @property
    def is_usable(self) -> bool:
        """Whether it can run."""
        return not self.reason


def usable_kernels(device: torch.device) -> list[ScanKernel]:
    """All implementations, each usable on this device or with the reason why it is not."""
    return [ScanKernel(name, _missing(name, device)) for name in NAMES]


def choose_kernel(device: torch.device, dtype: torch.dtype, *, is_shared: bool) -> str:
    """Name the implementation for an input: the forced one, or the fastest that supports it.

    Args:
        device: Where the tensors are.
        dtype: Type of ``u``.
        is_shared: Whether all channels share ``B`` and ``C``, which differ for each step.

    Raises:
        UsageError: If the forced one does not exist or does not support the input.
    """
    forced = os.environ.get("VSRM_KERNELS", "auto")

    def disabled_reason(name: str) -> str:
        return _missing(name, device) or _unable(name, dtype, is_shared)

    if forced == "auto":
        names = PREFERRED.get(device.type, ("chunked",))
        return next(name for name in names if not disabled_reason(name))
    if forced not in NAMES:
        raise UsageError(f"VSRM_KERNELS is {forced!r}; it can be one of auto, {', '.join(NAMES)}.")
    if reason := disabled_reason(forced):
        raise UsageError(
            f"VSRM_KERNELS is {forced!r}, but {reason}; unset VSRM_KERNELS to choose automatically."
        )
    return forced


@contextmanager
def force_kernel(name: str) -> Iterator[None]:
    """Set ``VSRM_KERNELS``, and restore it."""
    before = os.environ.get("VSRM_KERNELS")
    os.environ["VSRM_KERNELS"] = name
    try:
        yield
    finally:
        del os.environ["VSRM_KERNELS"]
        if before is not None:
            os.environ["VSRM_KERNELS"] = before


def uses_fused_kernels(*inputs: Tensor) -> bool:
    """Whether to use fused Triton kernels, which have no gradients, instead of PyTorch.

    They are used where the scan runs in Triton.

    Args:
        inputs: All tensors of the operation; the first one decides on device and dtype.

    Raises:
        UsageError: If ``VSRM_KERNELS`` names an implementation that cannot run here.
    """
    if torch.is_grad_enabled() and any(x.requires_grad for x in inputs):
        return False
    return choose_kernel(inputs[0].device, inputs[0].dtype, is_shared=True) == "triton"


def _missing(name: str, device: torch.device) -> str:
    """Why the implementation cannot run on the device, whatever the input; empty if it can."""
    if name == "compiled":
        if not _is_installed("numba"):
            return "Numba is not installed (run: pip install numba)"
        if device.type != "cpu":
            return f"the compiled loop runs on CPUs only, not on {device.type}"
    if name == "triton":
        if not _is_installed("triton"):
            return "Triton is not installed (run: pip install triton)"
        # Triton's interpreter runs kernels on a CPU, to test them: very slowly.
        if device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
            return f"Triton kernels run on CUDA devices only, not on {device.type}"
    if name == "mamba_ssm":
        if not _is_installed("mamba_ssm"):
            return "mamba-ssm is not installed (see the extra `mamba`)"
        if not _is_installed("selective_scan_cuda"):
            return "mamba-ssm was built without its CUDA scan, selective_scan_cuda"
        if device.type != "cuda":
            return f"mamba-ssm's scan runs on CUDA devices only, not on {device.type}"
    return ""


def _unable(name: str, dtype: torch.dtype, is_shared: bool) -> str:
    """Why the implementation does not support such an input on any device; empty if it does."""
    if name in ("reference", "chunked"):
        return ""
    if dtype == torch.float64:
        return "it does not compute in float64"
    if name != "mamba_ssm" and not is_shared:
        return "it takes only B and C that are shared by all channels"
    return ""


@cache
def _is_installed(module: str) -> bool:
    return find_spec(module) is not None
