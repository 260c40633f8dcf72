"""Free memory, peak memory, running out of memory, and the C library's allocator."""

import ctypes
import os
import sys
from pathlib import Path

import torch

if sys.platform != "win32":
    import resource

# The settings of glibc's mallopt (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3

# If the system does not report free memory (Windows): what a small laptop can spare.
UNKNOWN_FREE_BYTES = 4 << 30

_CLEAR_REFS = Path("/proc/self/clear_refs")

# Only CUDA has an exception of its own for this. Others are recognized by their messages.
MEMORY_SHORTAGE_WORDS = (
    "DefaultCPUAllocator",
    "out of memory",
    "STATUS_ALLOC_FAILED",
    "std::bad_alloc",
)


def keep_freed_memory() -> None:
    """Make the C library keep freed memory for the next allocation, instead of returning it.

    On a CPU a network constantly allocates and frees arrays of some megabytes. The system fills new
    pages with zeros each time, which took an eighth of the time of `vsrm upscale` (24 frames of
    320 x 180 on two cores, with and without). Does nothing if the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return
    mallopt(_MMAP_THRESHOLD, 32 * 2**20)  # the largest value that it accepts
    mallopt(_TRIM_THRESHOLD, 2**30)
    mallopt(_TOP_PAD, 64 * 2**20)


def is_memory_shortage(error: Exception) -> bool:
    """Whether an error means that a device, or this machine, ran out of memory."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(
        words in str(error) for words in MEMORY_SHORTAGE_WORDS
    )


def free_cache(device: torch.device) -> None:
    """Return cached memory of PyTorch to the device."""
    if device.type != "cpu":
        torch.get_device_module(device).empty_cache()


def free_memory_bytes(device: torch.device) -> int:
    """The memory available to a new computation on a device, in bytes."""
    if device.type in ("cuda", "xpu"):
        module = torch.get_device_module(device)
        free, _ = module.mem_get_info(device)
        # Memory that PyTorch has cached is free for us.
        return int(free + module.memory_reserved(device) - module.memory_allocated(device))
    if device.type == "mps":
        return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
    return free_host_bytes()


def free_host_bytes(root: Path = Path("/")) -> int:
    """Free main memory, in bytes.

    Args:
        root: Root of the file system with ``proc`` and ``sys``.
    """
    meminfo = root / "proc" / "meminfo"
    if meminfo.exists():
        kibibytes = _named_number(meminfo, "MemAvailable:")
        return min(kibibytes * 1024, _free_group_bytes(root / "sys" / "fs" / "cgroup"))
    if hasattr(os, "sysconf"):  # macOS reports total memory only: assume half
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return UNKNOWN_FREE_BYTES


def _free_group_bytes(group: Path) -> int:
    """Memory left of the limit of a container (cgroup version 2); practically unlimited without."""
    limit = group / "memory.max"
    if not limit.exists() or limit.read_text().strip() == "max":
        return 1 << 62
    used = int((group / "memory.current").read_text())
    # Cached files count as used, but are evicted when memory is needed.
    used -= _named_number(group / "memory.stat", "inactive_file")
    return max(0, int(limit.read_text()) - used)


def _named_number(table: Path, name: str) -> int:
    """Read the number after a name from a file with one such pair per line."""
    pairs = (line.split() for line in table.read_text().splitlines())
    return next(int(pair[1]) for pair in pairs if pair and pair[0] == name)


class PeakMemory:
    """The peak memory from now on."""

    def __init__(self, device: torch.device) -> None:
        """Start measuring.

        Args:
            device: Whose memory: on CUDA that of its tensors, elsewhere all of this process.
        """
        self._device = device
        self._before = _largest_so_far()
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        elif _can_forget():
            _CLEAR_REFS.write_text("5")  # proc(5): resets the peak of this process

    def read_bytes(self) -> int | None:
        """The peak since the start; None if the system does not report it."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        if _can_forget():
            return 1024 * _named_number(Path("/proc/self/status"), "VmHWM:")
        # Elsewhere the peak of a process cannot be reset: if it has risen, it is from this time.
        peak = _largest_so_far()
        has_risen = peak is not None and self._before is not None and peak > self._before
        return peak if has_risen else None


def _can_forget() -> bool:
    return os.access(_CLEAR_REFS, os.W_OK)


def _largest_so_far() -> int | None:
    """The largest size of this process since its start, in bytes; None on Windows."""
    if sys.platform == "win32":
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # bytes there, KiB elsewhere
