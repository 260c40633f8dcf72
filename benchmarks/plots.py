"""Draw the plots of a result as SVG files, for pages that are not HTML.

    vsrm bench --quality FOLDER --json > result.json
    python benchmarks/plots.py result.json OUT

OUT receives one file for each plot that the result has data for: speed.svg, tradeoff.svg, gain.svg.
"""

import argparse
from pathlib import Path

from vsrm_cli.bench.results import read_result
from vsrm_cli.bench.tables import plots


def main() -> None:
    """Read, draw and write."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("result", type=Path)
    arguments.add_argument("out", type=Path)
    options = arguments.parse_args()
    for name, svg in plots(read_result(options.result)).items():
        (options.out / f"{name}.svg").write_text(svg, encoding="utf-8")


if __name__ == "__main__":
    main()
