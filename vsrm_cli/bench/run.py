"""The job of `vsrm bench`: take the requested measurements and collect the results."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from vsrm_cli.bench.end_to_end import measure_pipeline
from vsrm_cli.bench.kernels import measure_kernels
from vsrm_cli.bench.results import Measured, Result, new_result
from vsrm_cli.bench.speed import SIZES, choose_device, measure_speed
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.data.degradations import SCALE
from vsrm_cli.evaluation.ablation import measure_ablation
from vsrm_cli.evaluation.quality import Crop, QualityOptions, measure_quality

# Frames that a network sees together while it is timed. A CPU takes seconds for each.
WINDOW_ON_GPU, WINDOW_ON_CPU, QUICK_WINDOW = 24, 5, 3


@dataclass(frozen=True)
class BenchOptions:
    """What to measure.

    Attributes:
        gpu: True for CUDA, False for the CPU, None for the best device.
        models: Names or weight files; empty for all that have weights.
        dtypes: "auto", "fp32", "fp16" or "bf16"; everything except speed uses the first one.
        is_quick: Whether to measure less.
        speed: Whether to time the networks alone.
        sizes: Names of `SIZES`; empty for all, or for the smallest if `is_quick`.
        window: Frames that a network sees together; None chooses.
        kernels: Whether to time the selective scans.
        video: A file to upscale from end to end, or None.
        folder: Clips to measure quality on, or None.
        wishes: How to measure quality.
        ablate: Whether to measure what each part of the networks adds on those clips instead.
    """

    gpu: bool | None
    models: tuple[str, ...]
    dtypes: tuple[str, ...]
    is_quick: bool
    speed: bool
    sizes: tuple[str, ...]
    window: int | None
    kernels: bool
    video: Path | None
    folder: Path | None
    wishes: QualityOptions
    ablate: bool = False


def run_bench(asked: BenchOptions, report: Callable[[str], None]) -> tuple[Result, list[Crop]]:
    """Measure.

    Args:
        asked: What.
        report: Called with what is being measured.

    Returns:
        The result as JSON has it, and the most telling crops of the clips.

    Raises:
        VsrmError: If something that was asked for is not there.
    """
    device = choose_device(gpu=asked.gpu)
    models = asked.models or models_with_weights()
    of_one_scale = asked.models or models_with_weights(scale=SCALE)  # they get the same clips
    crops: list[Crop] = []
    speed = kernels = pipeline = quality = ablation = None
    if asked.speed:
        speed = measure_speed(
            models,
            dtypes=asked.dtypes,
            sizes=asked.sizes or tuple(SIZES)[: 1 if asked.is_quick else None],
            device=device,
            window=asked.window or _usual_window(device, is_quick=asked.is_quick),
            report=report,
        )
    if asked.kernels:
        kernels = measure_kernels(device, is_quick=asked.is_quick, report=report)
    if asked.video:
        pipeline = measure_pipeline(
            asked.video, models, dtype=asked.dtypes[0], device=device, report=report
        )
    if asked.folder and asked.ablate:
        ablation = measure_ablation(
            asked.folder,
            of_one_scale,
            degradation=asked.wishes.degradation,
            most_frames=asked.wishes.most_frames,
            dtype=asked.dtypes[0],
            device=device,
            report=report,
        )
    elif asked.folder:
        quality, crops = measure_quality(
            asked.folder,
            of_one_scale,
            asked.wishes,
            dtype=asked.dtypes[0],
            device=device,
            report=report,
        )
    measured = Measured(speed, kernels, pipeline, quality, ablation)
    return new_result(measured, device=device, settings=_settings(asked)), crops


def models_with_weights(*, scale: int | None = None) -> tuple[str, ...]:
    """The names of the networks that have weights; of those that enlarge so many times, or all."""
    return tuple(
        name
        for name, entry in MODELS.items()
        if entry.file is not None and scale in (None, entry.scale)
    )


def _usual_window(device: torch.device, *, is_quick: bool) -> int:
    if is_quick:
        return QUICK_WINDOW
    return WINDOW_ON_GPU if device.type == "cuda" else WINDOW_ON_CPU


def _settings(asked: BenchOptions) -> dict[str, Any]:
    words = asdict(asked)
    words["wishes"]["also"] = {name: str(path) for name, path in asked.wishes.also.items()}
    return {key: str(value) if isinstance(value, Path) else value for key, value in words.items()}
