"""Speed of a whole job, from file to file, and its slowest stage."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from vsrm_cli.upscale.job import upscale_video
from vsrm_cli.upscale.pipeline import Progress


@dataclass(frozen=True)
class PipelineSpeed:
    """Speed of a whole job, from file to file.

    Attributes:
        input: The file read.
        model: Name of the network.
        dtype: fp32, fp16 or bf16.
        device: Where it ran.
        frames: Number of frames.
        width: Of the result, in pixels.
        height: Of the result, in pixels.
        elapsed_s: From the first byte read to the finished file, loading included.
        fps: Frames per second over that time.
        decode_fps: Frames per second of the decoder while it works.
        network_fps: Likewise for the network.
        encode_fps: Likewise for the encoder.
        slowest: decode, network or encode.
    """

    input: str
    model: str
    dtype: str
    device: str
    frames: int
    width: int
    height: int
    elapsed_s: float
    fps: float
    decode_fps: float
    network_fps: float
    encode_fps: float
    slowest: str


def measure_pipeline(
    video: Path,
    models: Sequence[str],
    *,
    dtype: str,
    device: torch.device,
    report: Callable[[str], None],
) -> list[PipelineSpeed]:
    """Upscale a whole video with each network, and delete the result.

    Args:
        video: The file to read.
        models: Names, or weight files.
        dtype: "auto", "fp32", "fp16" or "bf16".
        device: Where.
        report: Called with what is being measured.

    Raises:
        VsrmError: As `upscale_video` raises it.
    """
    rows = []
    for model in models:
        report(f"upscaling {video} with {model}")
        progress: list[Progress] = []
        with tempfile.TemporaryDirectory() as folder:
            summary = upscale_video(
                video,
                Path(folder) / "result.mkv",
                model=model,
                dtype=dtype,
                device=str(device),
                report=progress.append,
            )
        last = progress[-1]
        rates = {
            "decode": last.decode_fps,
            "network": last.network_fps,
            "encode": last.encode_fps,
        }
        rows.append(
            PipelineSpeed(
                input=summary.input,
                model=summary.model,
                dtype=summary.dtype,
                device=summary.device,
                frames=summary.frames_out,
                width=summary.width,
                height=summary.height,
                elapsed_s=summary.elapsed_s,
                fps=summary.fps,
                decode_fps=last.decode_fps,
                network_fps=last.network_fps,
                encode_fps=last.encode_fps,
                slowest=min(rates, key=rates.__getitem__),
            )
        )
    return rows
