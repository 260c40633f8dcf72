"""Ablation: quality and time of a network with one part disabled at a time."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.evaluation.baselines import common_scale, restore_clip
from vsrm_cli.evaluation.metrics import psnr
from vsrm_cli.evaluation.test_sets import find_clips, read_clip
from vsrm_cli.models.network import Network

# Frames of a short window, which has neighbors but no long-term memory.
SHORT_WINDOW = 5


@dataclass(frozen=True)
class AblationRow:
    """A network with a part disabled.

    Attributes:
        model: Its name.
        part: The disabled part; "whole" for none.
        psnr: Mean PSNR-Y over the frames of each clip, then over the clips, in dB.
        ms_per_frame: Mean time per frame in milliseconds, without decoding and metrics.
    """

    model: str
    part: str
    psnr: float
    ms_per_frame: float


class _Ablated:
    """A network with another forward function, for `Restorer`."""

    def __init__(self, network: Network, run: Callable[[Tensor], Tensor]) -> None:
        self.scale, self.memory_bytes, self._run = network.scale, network.memory_bytes, run
        self.device, self.clip_dtype = network.device, network.clip_dtype

    def __call__(self, clip: Tensor) -> Tensor:
        return self._run(clip)


def measure_ablation(
    folder: Path,
    models: Sequence[str],
    *,
    degradation: str,
    most_frames: int | None,
    dtype: str,
    device: torch.device,
    report: Callable[[str], None],
) -> list[AblationRow]:
    """Restore the clips of a folder with each part of the networks disabled in turn.

    Args:
        folder: As `vsrm_cli.evaluation.test_sets` describes it.
        models: Names, or weight files.
        degradation: "bi", "bd", "h264-23" or "h264-28".
        most_frames: Frames of each clip that are read; None for all.
        dtype: "auto", "fp32", "fp16" or "bf16".
        device: Of the networks.
        report: Called with what is being measured.

    Raises:
        InputError: If the folder holds no clips.
        VsrmError: If a network cannot be loaded or a clip cannot be read.
    """
    networks = [load_model(model, device=str(device), dtype=dtype) for model in models]
    scale = common_scale(networks)
    clips = [
        read_clip(files, degradation, scale=scale, most_frames=most_frames)
        for files in find_clips(folder, degradation, scale=scale).clips
    ]
    rows = []
    for network in networks:
        ways: dict[str, tuple[Callable[[Tensor], Tensor], int | None]] = {
            "whole": (network, None),
            f"windows of {SHORT_WINDOW} frames": (network, SHORT_WINDOW),
            "frames one at a time": (network, 1),
            **{part: (run, None) for part, run in network.ablations().items()},
        }
        for part, (run, window) in ways.items():
            report(f"{network.name}, {part}")
            ablated, scores, seconds, frames = _Ablated(network, run), [], 0.0, 0
            for clip in clips:
                began = perf_counter()
                large = restore_clip(ablated, clip.lr, window=window)
                seconds += perf_counter() - began
                frames += len(large)
                pairs = zip(large.float() / 255, clip.hr.float() / 255, strict=True)
                scores.append(sum(psnr(*p, on_luma=True, crop=0) for p in pairs) / len(large))
            rows.append(
                AblationRow(network.name, part, sum(scores) / len(scores), 1000 * seconds / frames)
            )
    return rows
