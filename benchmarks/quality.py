"""Print the quality table of a network: PSNR-Y of each clip, beside bicubic and single frames.

    python benchmarks/quality.py FOLDER [MODEL]

FOLDER holds one folder of sharp pictures for each clip. Every clip is shrunk by BI x4 (antialiased
bicubic, rounded to 8 bits), restored, and compared over whole frames, no border cut.
"""

import argparse
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vsrm_cli.models.weights import load_model
from vsrm_cli.pack import make_validation_pack
from vsrm_cli.training.packs import load_pack
from vsrm_cli.training.validation import Score, validate


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("model", nargs="?", default="vsrm-t")
    options = arguments.parse_args()
    network = load_model(options.model, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        pack = Path(folder) / "validation.safetensors"
        make_validation_pack(options.folder, pack)
        _, clips = load_pack(pack)
        scores = validate(network, clips)
    table = Table("clip", "bicubic", f"{network.name}", "its frames alone", "gain", "from time")
    for score in [*scores, _mean(scores)]:
        alone = score.alone or 0.0
        table.add_row(
            score.clip,
            f"{score.bicubic:.2f}",
            f"{score.together:.2f}",
            f"{alone:.2f}",
            f"{score.together - score.bicubic:+.2f}",
            f"{score.together - alone:+.2f}",
        )
    Console().print(table)


def _mean(scores: list[Score]) -> Score:
    count = len(scores)
    return Score(
        clip="mean",
        bicubic=sum(score.bicubic for score in scores) / count,
        together=sum(score.together for score in scores) / count,
        alone=sum(score.alone or 0.0 for score in scores) / count,
    )


if __name__ == "__main__":
    main()
