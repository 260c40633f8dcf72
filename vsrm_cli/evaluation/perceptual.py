"""Measures that others have trained, where they are installed: LPIPS and VMAF."""

import json
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

from vsrm_cli.errors import VsrmError

Measure = Callable[[Tensor, Tensor], float]


def find_lpips(device: torch.device) -> Measure | None:
    """LPIPS (AlexNet) of a frame, where the extra ``metrics`` is installed.

    Args:
        device: Where to compute.

    Returns:
        A function of a restored and a sharp frame, (3, H, W) uint8 each; smaller is better. None
        where the package lpips is missing.

    Raises:
        VsrmError: If it is there but does not work.

    Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
    Metric", arXiv:1801.03924, by its authors' package, which fetches its network when it is
    first used.
    """
    if find_spec("lpips") is None:
        return None
    try:
        import lpips  # an extra: this file must import without it

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torchvision, about how lpips calls it
            network = lpips.LPIPS(net="alex", verbose=False).to(device).eval()
    # A torchvision that does not fit to torch, or no connection to fetch the network.
    except (ImportError, OSError, RuntimeError) as error:
        raise VsrmError(f"LPIPS is installed but cannot be measured here ({error}).") from error

    def measure(restored: Tensor, sharp: Tensor) -> float:
        pair = [x.to(device)[None].float() / 127.5 - 1 for x in (restored, sharp)]
        with torch.inference_mode():
            return float(network(*pair))

    return measure


def find_vmaf() -> Measure | None:
    """VMAF of a clip by an ``ffmpeg`` with libvmaf, where one is on the path.

    Returns:
        A function of a restored and a sharp clip, (T, 3, H, W) uint8 each; 0 to 100, more is
        better. None where there is no such program.
    """
    return _run_vmaf if _has_vmaf() else None


@cache
def _has_vmaf() -> bool:
    if shutil.which("ffmpeg") is None:
        return False
    told = subprocess.run(
        ["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True, check=False
    )
    return " libvmaf " in told.stdout


def _run_vmaf(restored: Tensor, sharp: Tensor) -> float:
    height, width = sharp.shape[-2:]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
    with tempfile.TemporaryDirectory() as folder:
        for name, clip in (("restored", restored), ("sharp", sharp)):
            Path(folder, name).write_bytes(clip.permute(0, 2, 3, 1).contiguous().numpy().tobytes())
        done = subprocess.run(
            [
                *("ffmpeg", "-v", "error", *raw, "-i", "restored", *raw, "-i", "sharp", "-lavfi"),
                "[0:v]format=yuv420p[a];[1:v]format=yuv420p[b];"
                "[a][b]libvmaf=log_fmt=json:log_path=vmaf.json",
                *("-f", "null", "-"),
            ],
            cwd=folder,  # so that no path needs to be quoted for the filter
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise VsrmError(f"ffmpeg could not measure VMAF: {done.stderr.strip()[-200:]}")
        log = json.loads(Path(folder, "vmaf.json").read_text(encoding="utf-8"))
    return float(log["pooled_metrics"]["vmaf"]["mean"])
