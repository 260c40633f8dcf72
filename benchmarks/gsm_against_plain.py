"""How much faster GSMamba is than its plain twin, which repeats all work as the authors' code does.

    python benchmarks/gsm_against_plain.py

The released configuration with random weights restores five frames of 64 x 64. Compared are the
alignment (flows composed, frames gathered onto each anchor) and the whole; the twin's scan runs
step by step. Both must give the same picture. Seconds are of the processor, which a busy machine
disturbs less than the clock; it takes some minutes.
"""

import sys
import time
from collections import defaultdict
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from vsrm_cli.inference.memory import keep_freed_memory
from vsrm_cli.layers import implicit_alignment
from vsrm_cli.models import gsmamba
from vsrm_cli.models.presets import GSM_FULL
from vsrm_cli.ops.selective_scan.reference import selective_scan_reference

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
from gsm_reference import GSMReference

SIZE = (1, 5, 3, 64, 64)
seconds: dict[str, float] = defaultdict(float)


def timed(name, function):
    """The function, its time added to an entry of `seconds`."""

    def run(*args, **kwargs):
        began = time.process_time()
        result = function(*args, **kwargs)
        seconds[name] += time.process_time() - began
        return result

    return run


def step_by_step(u, delta, A, B, C, *, D, z, delta_bias, delta_softplus):
    """The scan as a loop over tokens."""
    assert delta_softplus
    step = torch.nn.functional.softplus(delta.transpose(1, 2) + delta_bias)
    B, C = B.transpose(1, 2).unsqueeze(2), C.transpose(1, 2).unsqueeze(2)
    y = selective_scan_reference(u.transpose(1, 2), step, A, B, C).transpose(1, 2)
    return (y + D[:, None] * u) * torch.nn.functional.silu(z)


def main():
    """Measure and print."""
    keep_freed_memory()  # as `vsrm upscale` does
    torch.manual_seed(0)
    network = gsmamba.GSM(GSM_FULL).eval().requires_grad_(False)
    torch.nn.init.normal_(network.conv_after_body.weight, std=0.05)
    clip = torch.rand(SIZE)
    network(clip)  # compiles what is compiled at the first call
    align = implicit_alignment.ImplicitAlign
    gsmamba.Motion = timed("alignment", gsmamba.Motion)
    for name in ("ask", "answers", "forward"):
        setattr(align, name, timed("alignment", getattr(align, name)))
    flows = network.flows(clip)
    restored = timed("whole", network)(clip)
    fast = dict(seconds)
    seconds.clear()
    twin = GSMReference(
        network.state_dict(), heads=GSM_FULL.heads, radius=GSM_FULL.radius, scan=step_by_step
    )
    twin.gather = timed("alignment", twin.gather)
    plain = timed("whole", twin.forward)(clip, *flows)
    table = Table("stage", "plain twin (s)", "this network (s)", "ratio")
    for name, slow in seconds.items():
        table.add_row(name, f"{slow:.1f}", f"{fast[name]:.1f}", f"{slow / fast[name]:.1f}")
    console = Console()
    console.print(table)
    console.print(f"Greatest difference of the pictures: {(plain - restored).abs().max():.1e}")


if __name__ == "__main__":
    main()
