"""Check the GPU code against plain code on the CPU, then measure it.

    python benchmarks/gpu.py --out FOLDER

This takes less than four minutes on one CUDA device. It needs PyTorch with Triton and a checkout of
this project; PyAV is needed only to upscale a whole file. The results go into ``gpu.json`` and
``gpu.md`` in FOLDER. Both are rewritten after each long row, so an interrupted run keeps its
results. Errors are recorded, and the run continues. Exit code 1 means that a check failed; do not
trust the timings of such a run. ``--rehearse`` runs everything on the CPU with small inputs;
``--parts`` runs only the checks or only the timings.
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # the checkout, where it is not installed

from gpu_checks import fused_kernels_are_right, networks_are_right, scans_are_right
from gpu_figures import (
    compact_networks,
    from_file_to_file,
    hot_spots,
    large_networks,
    operators,
)
from gpu_parts import Bench, Part

# The parts, each with the seconds after which it starts no more rows.
# The scan comes last: its kernels are compiled for each type, direction and number of tokens,
# which took 60 s on an H200.
CHECKS = {fused_kernels_are_right: 10, networks_are_right: 60, scans_are_right: 60}
FIGURES = {
    operators: 15,
    compact_networks: 60,
    hot_spots: 30,
    large_networks: 45,
    from_file_to_file: 30,
}


def main(arguments: list[str] | None = None) -> int:
    """Check, measure and write; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rehearse", action="store_true")
    parser.add_argument("--minutes", type=float, default=3.4, help="start nothing after this time")
    parts_of = {"checks": CHECKS, "figures": FIGURES, "all": CHECKS | FIGURES}
    parser.add_argument("--parts", choices=parts_of, default="all")
    options = parser.parse_args(arguments)
    if not options.rehearse and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --rehearse does it in small on the CPU")
    options.out.mkdir(parents=True, exist_ok=True)
    parts: list[Part] = []
    bench = Bench(
        device=torch.device("cpu" if options.rehearse else "cuda"),
        is_rehearsal=options.rehearse,
        deadline=time.perf_counter() + 60 * options.minutes,
        keep=lambda part: write(options.out, bench, [*parts, part]),
    )
    for work, seconds in parts_of[options.parts].items():
        started = time.perf_counter()
        part = Part(work.__name__, ())
        if started > bench.deadline:
            part.title += ": left out, the time was up"
        else:
            with part.record_errors():
                part = work(replace(bench, deadline=min(bench.deadline, started + seconds)))
        part.seconds = round(time.perf_counter() - started, 1)
        parts.append(part)
        write(options.out, bench, parts)
    sys.stdout.write((options.out / "gpu.md").read_text(encoding="utf-8"))
    return 0 if all(part.is_right for part in parts) else 1


def write(folder: Path, bench: Bench, parts: list[Part]) -> None:
    """Write the results so far as JSON and as Markdown."""
    device = "CPU (a rehearsal: no figure here means anything)"
    if not bench.is_rehearsal:
        device = torch.cuda.get_device_name(bench.device)
    machine = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda}
    facts = {**machine, "parts": [asdict(part) for part in parts]}
    (folder / "gpu.json").write_text(json.dumps(facts, indent=1), encoding="utf-8")
    lines = [f"# {device}, PyTorch {torch.__version__}, CUDA {torch.version.cuda}", ""]
    for part in parts:
        mark = "" if part.is_right else " **WRONG**"
        lines += [f"## {part.title}{mark} ({part.seconds:.0f} s)", ""]
        if part.rows:
            rows = (part.headers, ("---",) * len(part.headers), *part.rows)
            lines += ["| " + " | ".join(map(str, row)) + " |" for row in rows]
            lines.append("")
        for error in part.errors:
            lines += ["```", error, "```", ""]
    (folder / "gpu.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
