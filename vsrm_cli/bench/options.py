"""The options of `vsrm bench`, checked once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vsrm_cli.errors import UsageError
from vsrm_cli.evaluation.quality import QualityOptions
from vsrm_cli.evaluation.test_sets import check_degradation

CHANNELS = ("auto", "y", "rgb")


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """What to measure.

    Attributes:
        gpu: True for CUDA, False for the CPU, None for the best device.
        models: Names or weight files; empty for all that have weights.
        dtypes: "auto", "fp32", "fp16" or "bf16"; everything except speed uses the first one.
        is_quick: Whether to measure less.
        speed: Whether to time the networks alone.
        sizes: Names of `vsrm_cli.bench.speed.SIZES`; empty for all, or one if `is_quick`.
        window: Frames that a network sees together; None chooses.
        kernels: Whether to time the selective scans.
        video: A file to upscale from end to end, or None.
        folder: Clips to measure quality on, or None.
        quality: How to measure quality.
        ablate: Whether to measure what each part of the networks adds on those clips instead.

    Raises:
        UsageError: If an option can never work.
    """

    gpu: bool | None = None
    models: tuple[str, ...] = ()
    dtypes: tuple[str, ...] = ("auto",)
    is_quick: bool = False
    speed: bool = False
    sizes: tuple[str, ...] = ()
    window: int | None = None
    kernels: bool = False
    video: Path | None = None
    folder: Path | None = None
    quality: QualityOptions = field(default_factory=QualityOptions)
    ablate: bool = False

    def __post_init__(self) -> None:
        """Refuse what can never work."""
        if self.quality.on not in CHANNELS:
            raise UsageError(
                f'The value of --on must be one of {", ".join(CHANNELS)}, not "{self.quality.on}".'
            )
        if self.window is not None and self.window < 1:
            raise UsageError(f"The window must be 1 frame or more, not {self.window}.")
        if self.ablate and self.folder is None:
            raise UsageError("--ablate needs clips to measure on; give a folder with --quality.")
        if self.quality.also and self.folder is None:
            raise UsageError("--also is for --quality FOLDER.")
        check_degradation(self.quality.degradation)

    def settings(self) -> dict[str, Any]:
        """All options under their names in results."""
        values = asdict(self)
        quality = values.pop("quality")
        values["wishes"] = quality | {"also": {n: str(p) for n, p in self.quality.also.items()}}
        return {name: str(x) if isinstance(x, Path) else x for name, x in values.items()}


def read_also(pairs: Sequence[str]) -> dict[str, Path]:
    """Read results of other programs, each written NAME=PATH.

    Raises:
        UsageError: If one has another form.
    """
    also = {}
    for pair in pairs:
        name, _, path = pair.partition("=")
        if not name or not path:
            raise UsageError(f'Give --also as NAME=PATH, such as realesrgan=out/, not "{pair}".')
        also[name] = Path(path)
    return also
