"""What the checks and the figures of `gpu.py` share: tables, timing, networks, and inputs."""

import os
import statistics
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.checkpoints.loading import DTYPES, FAMILIES, load_model
from vsrm_cli.models.network import Network

SHIPPED = ("vsrm-t", "vsrm-t-real", "vsrm-t-sharp", "vsrm-t-x2")
# These are not bundled: they get random weights, which is enough to check and time them.
UNTRAINED = ("vsrm", "gsm")


@dataclass
class Part:
    """One table of the report.

    Attributes:
        title: What it shows.
        headers: Of its columns.
        rows: Their values, text or numbers.
        is_right: Whether all its checks passed.
        seconds: How long it took.
        errors: The last lines of the traceback of each error.
    """

    title: str
    headers: tuple[str, ...]
    rows: list[tuple[object, ...]] = field(default_factory=list)
    is_right: bool = True
    seconds: float = 0.0
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def record_errors(self) -> Iterator[None]:
        """Record an error and continue, so that one failure does not cost the other results."""
        try:
            yield
        except Exception:
            self.is_right = False
            self.errors.append("\n".join(traceback.format_exc().strip().splitlines()[-6:]))


@dataclass(frozen=True)
class Bench:
    """How to measure.

    Attributes:
        device: The device.
        is_rehearsal: Whether all inputs are small and the device is a CPU.
        deadline: When to stop starting rows, in seconds of `time.perf_counter`.
        keep: Saves a part that is not complete yet.
    """

    device: torch.device
    is_rehearsal: bool
    deadline: float
    keep: Callable[[Part], None]

    def size(self, real: int, small: int) -> int:
        """The size of an input: the small one in a rehearsal."""
        return small if self.is_rehearsal else real

    def is_over(self, part: Part) -> bool:
        """Whether the time is up; if so, the title of the part says it."""
        if time.perf_counter() <= self.deadline:
            return False
        part.title += "; the time was up"
        return True

    def milliseconds(self, run: Callable[[], object], *, seconds: float = 0.7) -> float:
        """The median time of a computation, after a warm-up.

        A short computation is repeated before the clock is read. Otherwise the launch of its
        kernels would be timed, not the kernels.
        """
        run()
        once = self._time(run, 1)
        if self.is_rehearsal or once > 2000:
            return once
        repeats = max(1, round(20 / once))
        times: list[float] = []
        while len(times) < 3 or (len(times) < 20 and repeats * sum(times) < 1000 * seconds):
            times.append(self._time(run, repeats))
        return statistics.median(times)

    def _time(self, run: Callable[[], object], repeats: int) -> float:
        self.wait()
        began = time.perf_counter()
        for _ in range(repeats):
            run()
        self.wait()
        return 1000 * (time.perf_counter() - began) / repeats

    def wait(self) -> None:
        """Wait until the device has finished its queue."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


@contextmanager
def kernels(name: str) -> Iterator[None]:
    """Set VSRM_KERNELS: the implementation of the scan, and the fused kernels that go with it."""
    before = os.environ.get("VSRM_KERNELS", "auto")
    os.environ["VSRM_KERNELS"] = name
    try:
        yield
    finally:
        os.environ["VSRM_KERNELS"] = before


def scan_inputs(length: int, channels: int, device: torch.device) -> dict[str, Tensor]:
    """Inputs of a scan in a Mamba block, token-major, float32; the same on every device."""
    rng = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng).to(device)

    return {
        "u": draw(1, length, channels),
        "delta": draw(1, length, channels),
        "A": -16 * torch.rand(channels, 16, generator=rng).to(device),
        "B": draw(1, length, 16),
        "C": draw(1, length, 16),
        "D": draw(channels),
        "z": draw(1, length, channels),
        "delta_bias": draw(channels) - 4,
        "add": draw(1, length, channels),
    }


def in_type(inputs: dict[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """Convert the inputs that depend on the token to another type."""
    return {name: x.to(dtype) if x.dim() == 3 else x for name, x in inputs.items()}


def build(name: str, device: torch.device, dtype: str) -> Network:
    """Load a network of the catalog; one that is not bundled gets random weights."""
    entry = MODELS[name]
    if entry.file is not None:
        return load_model(name, device=str(device), dtype=dtype)
    torch.manual_seed(0)
    network: Network = FAMILIES[entry.network].network(entry.config)
    network.eval().requires_grad_(False).to(device)
    network.set_precision(DTYPES[dtype])
    return network
