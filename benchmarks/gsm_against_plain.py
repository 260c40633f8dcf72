"""Compare the speed of GSMamba with a plain implementation that follows the authors' code.

    python benchmarks/gsm_against_plain.py

The released configuration restores five frames of 64 x 64 with random weights. Timed are the
alignment (composing flows, gathering frames onto each anchor) and the whole network; the scan of
the plain implementation runs step by step. Both must give the same frames. The times are processor
time, which depends less on other programs than wall time. It takes some minutes.
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
    """Wrap a function so that its processor time is added to an entry of `seconds`."""

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
    network(clip)  # the first call compiles
    align = implicit_alignment.ImplicitAlign
    gsmamba.ComposedFlows = timed("alignment", gsmamba.ComposedFlows)
    for name in ("project_query", "project_keys_values", "forward"):
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
    table = Table("stage", "plain (s)", "vsrm (s)", "ratio")
    for name, slow in seconds.items():
        table.add_row(name, f"{slow:.1f}", f"{fast[name]:.1f}", f"{slow / fast[name]:.1f}")
    console = Console()
    console.print(table)
    console.print(f"Largest difference of the frames: {(plain - restored).abs().max():.1e}")


if __name__ == "__main__":
    main()
