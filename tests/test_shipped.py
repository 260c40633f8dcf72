"""The bundled weights on the bundled sample clip."""

import json
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from data import make
from safetensors import safe_open
from scenes import add_lr_frames

from vsrm_cli import load_model, upscale_video
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.frame import Frame
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.training.validation import validate
from vsrm_cli.upscale.options import DEFAULT_OVERLAP, DEFAULT_WINDOW

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "tests" / "data" / "sample.mp4"
SHIPPED = [name for name, entry in MODELS.items() if entry.file is not None]


@pytest.fixture(scope="module", params=SHIPPED)
def network(request):
    return load_model(request.param, device="cpu")


@pytest.fixture(scope="module")
def sample():
    """The frames of the sample clip, (T, 3, H, W) uint8."""
    with av.open(str(SAMPLE)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2).contiguous()


def restore(network, clip, *, window=16, overlap=4, tile=None):
    """Restored frames of a clip (T, 3, H, W) uint8, as (T, 3, 4H, 4W) float64."""
    restorer = Restorer(
        network,
        window=window,
        overlap=overlap,
        tile=tile,
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    frames = [Frame(pixels.numpy(), time=t) for t, pixels in enumerate(clip)]
    return np.stack([frame.pixels for frame in restorer.restore(frames)]).astype(np.float64)


def psnr(a, b):
    with np.errstate(divide="ignore"):  # equal pictures
        return 10 * np.log10(255**2 / np.square(a - b).mean())


@pytest.mark.parametrize("name", SHIPPED)
def test_the_file_has_its_configuration_recipe_and_licence(name):
    with safe_open(ROOT / "weights" / MODELS[name].file, framework="pt") as file:
        words = file.metadata()

    assert words["network"] == MODELS[name].network
    assert json.loads(words["config"])["channels"] == MODELS[name].config.channels
    assert json.loads(words["recipe"])
    assert words["licence"] == "MIT"


def test_the_network_of_the_catalog_is_the_one_in_the_file(network):
    assert network.config == MODELS[network.name].config
    assert sum(p.numel() for p in network.parameters()) <= 1_000_000


def test_a_clip_has_higher_psnr_than_bicubic(network):
    street = make.street()
    pictures = [
        make.draw_frame(street, number).resize((768, 432), make.BICUBIC) for number in range(3)
    ]
    clip = torch.stack(
        [torch.from_numpy(np.array(picture)).permute(2, 0, 1) for picture in pictures]
    )

    score = validate(network, add_lr_frames({"sample": clip}, scale=network.scale), alone=False)[0]

    # The stage sharp gives up some of the PSNR.
    assert score.together > score.bicubic + (0.8 if network.name != "vsrm-t-sharp" else 0.0)


def test_the_downscaled_result_is_the_source(network, sample):
    clip = sample[:3]

    restored = restore(network, clip)

    again = shrink_bicubic(torch.from_numpy(restored / 255), scale=network.scale).numpy() * 255
    # Networks for compressed footage take some fine texture of a clean clip for artifacts.
    most = {"vsrm-t": 1.5, "vsrm-t-x2": 3.5, "vsrm-t-real": 4.0}.get(network.name, 8.0)
    assert np.abs(again - clip.numpy()).mean() < most


@pytest.mark.parametrize("kernels", ["reference", "chunked"])
def test_every_implementation_of_the_scan_gives_the_same_frames(
    network, sample, kernels, monkeypatch
):
    clip = sample[:2, :, :16, :24]
    monkeypatch.delenv("VSRM_KERNELS", raising=False)
    chosen = restore(network, clip)

    monkeypatch.setenv("VSRM_KERNELS", kernels)

    assert psnr(restore(network, clip), chosen) >= 60


# Flow is computed on grids of 8 and 16 pixels; no height is a multiple of both.
@pytest.mark.slow
@pytest.mark.parametrize("height", [101, 104, 108])
def test_tiles_give_the_same_frame_as_without_tiles(network, sample, height):
    clip = sample[:6, :, :height]

    whole = restore(network, clip)
    tiled = restore(network, clip, tile=80)

    assert psnr(whole, tiled) >= 47


@pytest.mark.slow
def test_short_windows_give_the_frames_of_one_long_window(network, sample):
    clip = sample[:20, :, :48, :64]

    together = restore(network, clip, window=20, overlap=0)
    windowed = restore(network, clip, window=10, overlap=4)

    # The better a network carries detail along, the more of it depends on the frames before.
    least = {"vsrm-t": 35, "vsrm-t-real": 38, "vsrm-t-sharp": 32}.get(network.name, 40)
    assert psnr(together, windowed) >= least


@pytest.mark.slow
def test_frames_where_windows_join_are_about_as_sharp_as_the_others(sample):
    network = load_model("vsrm-t-sharp", device="cpu")
    clip = sample[:44, :, :64, :96]

    together = restore(network, clip, window=44, overlap=0)
    windowed = restore(network, clip, window=DEFAULT_WINDOW, overlap=DEFAULT_OVERLAP)

    energies = [np.abs(np.diff(frames)).mean((1, 2, 3)) for frames in (windowed, together)]
    assert min(energies[0] / energies[1]) >= 0.93


@pytest.mark.slow
def test_the_sample_clip_is_enlarged_frame_for_frame(network, tmp_path):
    output = tmp_path / "large.mp4"

    summary = upscale_video(SAMPLE, output, model=network.name, end=0.5, device="cpu")

    # Brightness only: the encoder halves the colors of both in size.
    large, lr = (read_grey(path) for path in (output, SAMPLE))
    assert summary.frames_in == summary.frames_out == len(large) == 12
    for big, source in zip(large, lr, strict=False):
        height, width = source.shape
        scale = network.scale
        assert big.shape == (scale * height, scale * width)
        # Shrunk as the network takes its input to have been: a plain average of 4 x 4 pixels
        # blurs the fine print of this clip.
        shrunk = shrink_bicubic(torch.from_numpy(big / 255).expand(3, -1, -1), scale=scale)[0]
        # What is trained for looks strengthens the fine print.
        most = 7 if network.name == "vsrm-t-sharp" else 3
        assert np.abs(shrunk.numpy() * 255 - source).mean() < most


def read_grey(path):
    """The brightness of a video's frames, (H, W) uint8 each."""
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="gray") for frame in container.decode(video=0)]
