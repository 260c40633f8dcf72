"""Make the fixtures in `gsm/` from numbers that the authors' GSMamba produced.

    python tests/data/make_gsm.py FOLDER

FOLDER holds, for sets A and B, weights, inputs, outputs, features and one window as safetensors.
Kept are the weights but for what can be computed, inputs and flows whole, and of everything else
the values at places drawn at random: few enough for a repository, and no mistake misses them all.
"""

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

PLACES = 4096


def places(name, count):
    """Which values of a tensor are kept; drawn by its name."""
    rng = torch.Generator().manual_seed(sum(name.encode()))
    return torch.randint(count, (PLACES,), generator=rng)


def main():
    folder, out = Path(sys.argv[1]), Path(__file__).parent / "gsm"
    out.mkdir(exist_ok=True)
    for letter in "AB":
        path = folder / f"{letter}_weights.safetensors"
        with safe_open(path, framework="pt") as file:
            words = file.metadata()
        weights = load_file(path)
        kept = {k: v for k, v in weights.items() if not k.endswith("relative_position_index")}
        save_file(kept, out / f"{letter}_weights.safetensors", {"config": words["config"]})
        numbers = {}
        for path in sorted(folder.glob(f"{letter}_*.safetensors")):
            if path.stem.endswith("weights"):
                continue
            for name, x in load_file(path).items():
                if name in ("input", "flows_backward", "flows_forward"):
                    numbers[name] = x
                else:
                    numbers[name] = x.flatten()[places(name, x.numel())]
        save_file(numbers, out / f"{letter}_numbers.safetensors")


if __name__ == "__main__":
    main()
