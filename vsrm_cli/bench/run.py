"""The job of `vsrm bench`: run the requested measurements and collect the results."""

from collections.abc import Callable

import torch

from vsrm_cli.bench.end_to_end import measure_pipeline
from vsrm_cli.bench.kernels import measure_kernels
from vsrm_cli.bench.options import BenchOptions
from vsrm_cli.bench.results import Measurements, Result, new_result
from vsrm_cli.bench.speed import SIZES, choose_device, measure_speed
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.evaluation.ablation import measure_ablation
from vsrm_cli.evaluation.quality import GainCrop, measure_quality
from vsrm_cli.frame import SCALE

# Frames per window in timings. A CPU takes seconds for each.
WINDOW_ON_GPU, WINDOW_ON_CPU, QUICK_WINDOW = 24, 5, 3


def run_bench(
    options: BenchOptions, report: Callable[[str], None]
) -> tuple[Result, list[GainCrop]]:
    """Run the measurements.

    Args:
        options: What to measure.
        report: Called with what is being measured.

    Returns:
        The result as a JSON object, and crops of the clips, those with the largest gain first.

    Raises:
        VsrmError: If a network, a device or a clip cannot be used.
    """
    device = choose_device(gpu=options.gpu)
    models = options.models or models_with_weights()
    of_one_scale = options.models or models_with_weights(scale=SCALE)  # they get the same clips
    crops: list[GainCrop] = []
    speed = kernels = pipeline = quality = ablation = None
    if options.speed:
        speed = measure_speed(
            models,
            dtypes=options.dtypes,
            sizes=options.sizes or tuple(SIZES)[: 1 if options.is_quick else None],
            device=device,
            window=options.window or _usual_window(device, is_quick=options.is_quick),
            report=report,
        )
    if options.kernels:
        kernels = measure_kernels(device, is_quick=options.is_quick, report=report)
    if options.video:
        pipeline = measure_pipeline(
            options.video, models, dtype=options.dtypes[0], device=device, report=report
        )
    if options.folder and options.ablate:
        ablation = measure_ablation(
            options.folder,
            of_one_scale,
            degradation=options.quality.degradation,
            most_frames=options.quality.most_frames,
            dtype=options.dtypes[0],
            device=device,
            report=report,
        )
    elif options.folder:
        quality, crops = measure_quality(
            options.folder,
            of_one_scale,
            options.quality,
            dtype=options.dtypes[0],
            device=device,
            report=report,
        )
    measured = Measurements(speed, kernels, pipeline, quality, ablation)
    return new_result(measured, device=device, settings=options.settings()), crops


def models_with_weights(*, scale: int | None = None) -> tuple[str, ...]:
    """The names of the networks that have weights, of one scale or of all."""
    return tuple(
        name
        for name, entry in MODELS.items()
        if entry.file is not None and scale in (None, entry.scale)
    )


def _usual_window(device: torch.device, *, is_quick: bool) -> int:
    if is_quick:
        return QUICK_WINDOW
    return WINDOW_ON_GPU if device.type == "cuda" else WINDOW_ON_CPU
