"""The script for a GPU works as far as a machine without one can tell."""

import importlib
import json
import math
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from scenes import draw_pack

from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.checkpoints.locate import locate
from vsrm_cli.checkpoints.safe_reader import read_checkpoint
from vsrm_cli.errors import InputError

FOLDER = Path(__file__).parents[2] / "benchmarks"
SMALL = ["--device", "cpu", "--batch", "1", "--patch", "16", "--frames", "3", "--photo-clips", "2"]


@pytest.fixture(scope="module")
def script():
    path = list(sys.path)
    sys.path.insert(0, str(FOLDER))
    module = importlib.import_module("train_on_gpu")
    sys.path[:] = path
    return module


def draw_degraded_pack(path):
    draw_pack(path, side=96, clips=2)
    tensors = load_file(path)
    lr = {f"twin-0.{n}": tensors[f"clip.{n}"][..., ::4, ::4].contiguous() for n in range(2)}
    save_file(tensors | lr, path)
    return path


@pytest.mark.parametrize(("share", "expected"), [(0.0, 0.2), (1.0, -0.0023 * 13.98)])
def test_the_loss_changes_from_charbonnier_to_psnr(script, share, expected):
    frames = torch.full((1, 1, 3, 4, 4), 0.5)
    trainer = script.Trainer.__new__(script.Trainer)
    trainer._hr, trainer._psnr_share = frames, torch.tensor(share)

    assert trainer._loss(frames + 0.2).item() == pytest.approx(expected, rel=1e-3)


def test_the_psnr_loss_of_a_constant_error_by_hand(script):
    # An error of 0.1 in every channel is one of 0.1 in the luma: a PSNR of 20 dB both times.
    loss = script.psnr_loss(torch.full((1, 3, 4, 4), 0.6), torch.full((1, 3, 4, 4), 0.5), eps=0.0)

    assert loss.item() == pytest.approx(-20, rel=1e-5)


def test_the_psnr_loss_weights_a_green_error_by_its_share_of_luma(script):
    restored, hr = torch.zeros(1, 3, 4, 4), torch.zeros(1, 3, 4, 4)
    restored[:, 1] = 0.1

    loss = script.psnr_loss(restored, hr, eps=0.0)

    rgb, luma = -10 * math.log10(0.01 / 3), -20 * math.log10(0.0587)
    assert loss.item() == pytest.approx(-(rgb + luma) / 2, rel=1e-5)


def test_the_psnr_loss_averages_the_psnr_of_the_frames(script):
    hr = torch.zeros(2, 3, 4, 4)
    restored = torch.cat((torch.full((1, 3, 4, 4), 0.1), torch.full((1, 3, 4, 4), 0.01)))

    loss = script.psnr_loss(restored, hr, eps=0.0)

    assert loss.item() == pytest.approx(-(20 + 40) / 2, rel=1e-5)


def test_the_psnr_loss_of_equal_images_is_bounded(script):
    x = torch.rand(1, 3, 4, 4)

    assert script.psnr_loss(x, x).item() == pytest.approx(-47, abs=0.1)


def test_lr_and_hr_crops_have_the_same_position_and_rotation(script):
    hr = torch.randint(256, (4, 3, 16, 16), dtype=torch.uint8).repeat_interleave(4, -1)
    hr = hr.repeat_interleave(4, -2)
    clip = script.Clip(hr, (hr[..., ::4, ::4],), hr[0, ..., ::4, ::4])
    shape = script.ClipShape(frames=3, patch=8, batch=16, photo_share=0.5)

    lr, drawn_hr = script.Batches(([clip], []), shape, is_clean=True).draw()

    assert lr.shape == (16, 3, 3, 8, 8)
    assert torch.equal(drawn_hr[..., ::4, ::4], lr)


@pytest.mark.slow
def test_a_learning_rate_of_zero_changes_no_weight(script):
    # A graph is recorded by such steps.
    network = load_model("vsrm-t", device="cpu")
    before = {name: x.clone() for name, x in network.state_dict().items()}
    trainer = script.Trainer(network, torch.rand(1, 2, 3, 8, 8), torch.rand(1, 2, 3, 32, 32))

    trainer._update()

    assert trainer.loss_sum > 0
    assert all(torch.equal(x, before[name]) for name, x in network.state_dict().items())


@pytest.mark.slow
def test_both_networks_are_trained_and_can_be_loaded(script, tmp_path):
    pack = draw_degraded_pack(tmp_path / "pack.safetensors")

    script.main([str(pack), str(tmp_path), "--minutes", "0.05", *SMALL])

    for name in ("vsrm-t", "vsrm-t-real"):
        path = tmp_path / f"{name}.safetensors"
        trained, bundled = (load_model(x, device="cpu").state_dict() for x in (path, name))
        assert all(x.isfinite().all() for x in trained.values())
        changed = {key for key, x in trained.items() if not torch.equal(x, bundled[key])}
        assert any(key.startswith("spynet.") for key in changed)
        assert any(not key.startswith("spynet.") for key in changed)
        stages, before = (
            json.loads(read_checkpoint(x).metadata["recipe"]) for x in (path, locate(name))
        )
        assert stages[: len(before)] == before
        assert stages[-1]["steps"] >= 1
        state = torch.load(tmp_path / f"{name}.state.pt", weights_only=True)
        assert state["weights"].keys() == bundled.keys()
        assert state["optimizer"]["state"]


def test_the_second_network_starts_from_the_new_first_one(script, tmp_path, monkeypatch):
    pack = draw_degraded_pack(tmp_path / "pack.safetensors")

    def add_one_at_first(network, batches, *, seconds, state):
        with torch.no_grad():
            for x in network.parameters():
                x += state.name == "vsrm-t.state.pt"
        return 1

    monkeypatch.setattr(script, "train", add_one_at_first)
    script.main([str(pack), str(tmp_path), *SMALL, "--photo-clips", "0"])

    new, old = tmp_path / "vsrm-t-real.safetensors", "vsrm-t-real"
    written, bundled = (load_model(x, device="cpu", dtype="fp32") for x in (new, old))
    bundled = dict(bundled.named_parameters())
    for name, x in written.named_parameters():
        torch.testing.assert_close(x, bundled[name] + 1)


def test_a_pack_without_lr_versions_is_refused_with_a_way_out(script, tmp_path):
    pack = draw_pack(tmp_path / "pack.safetensors", side=96)

    with pytest.raises(InputError, match="vsrm pack --degraded"):
        script.main([str(pack), str(tmp_path), *SMALL])
