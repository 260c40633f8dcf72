"""Validation scores a network on whole frames, beside bicubic and beside itself frame by frame."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import add_lr_frames, smooth_picture, to_8_bits
from torch import nn
from torch.nn import functional
from torch.nn import functional as F

from vsrm_cli.data.degradations import shrink_bicubic
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.recipe import FINETUNING, TrainingStage
from vsrm_cli.training.validation import (
    CLIPS_SHOWN,
    SIDE_SHOWN,
    ClipScore,
    Validator,
    validate,
)


class Bicubic(nn.Module):
    """Upscales each frame by bicubic, as Pillow does."""

    def forward(self, clip):
        frames = functional.interpolate(
            clip.flatten(0, 1), scale_factor=4, mode="bicubic", antialias=True, align_corners=False
        )
        return frames.unflatten(0, clip.shape[:2])


class Remembering(Bicubic):
    """Darkens every frame but the first of a clip."""

    def forward(self, clip):
        large = super().forward(clip)
        large[:, 1:] *= 0.9
        return large


def sharp_clip(*, frames=3, height=32, width=48):
    return to_8_bits(
        torch.stack(
            [
                smooth_picture(height, width, shift=(2.0 * t, 1.0 * t), wavelength=7.0)
                for t in range(frames)
            ]
        )
    )


def drawn_pairs(**size):
    return add_lr_frames({"drawn": sharp_clip(**size)})


def pillow_psnr(clip):
    """Mean PSNR-Y of Pillow's bicubic, down and up again."""
    values = []
    for frame in clip:
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        lr = picture.resize((frame.shape[2] // 4, frame.shape[1] // 4), Image.Resampling.BICUBIC)
        large = np.array(lr.resize(picture.size, Image.Resampling.BICUBIC))
        values.append(psnr_y(torch.from_numpy(large).permute(2, 0, 1) / 255, frame / 255))
    return sum(values) / len(values)


def test_a_bicubic_network_scores_like_the_bicubic_baseline():
    (score,) = validate(Bicubic(), drawn_pairs())

    psnr, loss = score.bicubic, score.loss
    assert score == ClipScore("drawn", psnr, together=psnr, alone=psnr, loss=loss)
    assert 15 < score.bicubic < 60


def test_the_bicubic_baseline_agrees_with_pillow():
    clip = sharp_clip()

    (score,) = validate(Bicubic(), add_lr_frames({"drawn": clip}))

    # Pillow rounds to 8 bits after each direction.
    assert score.bicubic == pytest.approx(pillow_psnr(clip), abs=0.05)


def test_the_alone_score_restores_each_frame_without_its_neighbors():
    (score,) = validate(Remembering(), drawn_pairs())

    assert score.alone == score.bicubic
    assert score.together < score.bicubic - 0.5


def test_the_score_of_a_clip_is_the_mean_psnr_of_its_frames():
    clip = sharp_clip()

    (score,) = validate(Remembering(), add_lr_frames({"drawn": clip}))

    hr = clip / 255
    restored = Remembering()(shrink_bicubic(hr)[None])[0]
    values = [psnr_y(a, b) for a, b in zip(restored, hr, strict=True)]
    assert score.together == pytest.approx(sum(values) / 3)


def test_each_clip_has_a_score_with_its_name_in_order():
    clips = {"second": sharp_clip(), "first": sharp_clip(frames=1, height=16, width=20)}

    scores = validate(Bicubic(), add_lr_frames(clips))

    assert [score.clip for score in scores] == ["second", "first"]


def test_the_alone_score_is_optional():
    (score,) = validate(Bicubic(), drawn_pairs(), alone=False)

    assert score.alone is None


@pytest.mark.parametrize("is_training", [True, False])
def test_validation_keeps_the_network_in_train_or_eval_mode(is_training):
    network = Bicubic().train(is_training)

    validate(network, drawn_pairs(frames=1))

    assert network.training == is_training


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_the_validation_loss_is_the_training_loss(weight):
    clip = sharp_clip()

    (score,) = validate(Bicubic(), add_lr_frames({"drawn": clip}), frequency_weight=weight)

    hr = clip / 255
    restored = Bicubic()(shrink_bicubic(hr)[None])[0]
    assert score.loss == restoration_loss(restored, hr, frequency_weight=weight).item()


def test_bicubic_and_restored_frames_are_passed_on():
    shown = []
    clip = sharp_clip()

    validate(Bicubic(), add_lr_frames({"drawn": clip}), show=lambda *frames: shown.append(frames))

    ((name, bicubic, restored),) = shown
    assert name == "drawn"
    assert bicubic.shape == restored.shape == clip.shape


class Brighter(nn.Module):
    """Bicubic, and brighter than that by a factor."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, clip):
        large = F.interpolate(clip.flatten(0, 1), scale_factor=4, mode="bicubic")
        return self.factor * large.unflatten(0, clip.shape[:2])


def clips(count=2, side=48):
    frames = [smooth_picture(side, side, shift=(2.0 * t, 0.0), wavelength=9.0) for t in range(3)]
    return add_lr_frames({f"clip {n}": to_8_bits(torch.stack(frames)) for n in range(count)})


def test_the_validation_with_the_lowest_loss_is_the_best():
    validator = Validator(clips(), FINETUNING)

    improved = [
        validator.validate(Brighter(factor), step) for step, factor in enumerate((0.8, 0.95, 0.9))
    ]

    assert improved == [True, True, False]
    assert (validator.first.step, validator.best.step, validator.latest.step) == (0, 1, 2)
    assert validator.best.psnr_y > validator.latest.psnr_y > validator.first.psnr_y
    assert validator.best.bicubic == validator.first.bicubic


def test_a_loss_not_below_the_first_is_no_improvement():
    validator = Validator(clips(), FINETUNING)

    validator.validate(Brighter(1.0), 0)

    assert not validator.validate(Brighter(1.0), 1)
    assert not validator.validate(Brighter(1.1), 2)
    assert validator.best.step == 0


def test_weights_with_a_nan_loss_are_never_the_best():
    validator = Validator(clips(), FINETUNING)

    validator.validate(Brighter(1.0), 0)

    assert not validator.validate(Brighter(float("nan")), 1)
    assert validator.crops


def test_the_latest_weights_of_the_flow_stage_are_kept():
    validator = Validator(clips(), replace(FINETUNING, stage=TrainingStage.FLOW))

    validator.validate(Brighter(1.0), 0)

    assert validator.validate(Brighter(0.9), 1)


@pytest.mark.parametrize(("side", "shown"), [(48, 48), (240, SIDE_SHOWN)])
def test_the_most_detailed_crop_of_some_clips_is_kept_for_the_report(side, shown):
    pairs = clips(2 * CLIPS_SHOWN, side=side)
    lr, _ = pairs["clip 0"]
    for _, hr in pairs.values():
        hr[:, :, : side // 2] = 128  # no detail in the upper half
    validator = Validator(pairs, FINETUNING)

    validator.validate(Brighter(1.0), 0)

    shown_clips = [f"clip {2 * n}" for n in range(CLIPS_SHOWN)]
    assert [piece.clip for piece in validator.crops] == shown_clips
    piece, picture = validator.crops[0], validator.first.images[0]
    assert piece.frame == 1
    assert piece.hr.shape == piece.bicubic.shape == picture.shape == (3, shown, shown)
    assert (piece.hr[:, -20:] != 128).any()
    assert lr.shape[-1] == side // 4


def test_a_restored_validator_has_the_earlier_validations(tmp_path):
    former, later = (Validator(clips(), FINETUNING) for _ in range(2))
    former.validate(Brighter(1.0), 0)
    former.validate(Brighter(0.9), 5)
    torch.save(former.state_dict(), tmp_path / "state.pt")

    later.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))

    assert (later.first.step, later.best.step, later.latest.step) == (0, 0, 5)
    assert later.first.scores == former.first.scores
    assert torch.equal(later.best.images[0], former.best.images[0])
    assert torch.equal(later.crops[1].hr, former.crops[1].hr)
    assert not later.validate(Brighter(0.9), 6)
