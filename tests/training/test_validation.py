"""Scores compare a network with bicubic and with itself without time, on whole frames."""

import numpy as np
import pytest
import torch
from PIL import Image
from scenes import smooth_picture, to_8_bits
from torch import nn
from torch.nn import functional

from vsrm_cli.data.degradations import shrink_4x
from vsrm_cli.evaluation.metrics import psnr_y
from vsrm_cli.training.losses import restoration_loss
from vsrm_cli.training.validation import Score, validate, with_small_twins


class Bicubic(nn.Module):
    """Enlarges each frame as Pillow does."""

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


def drawn(**size):
    return with_small_twins({"drawn": sharp_clip(**size)})


def pillow_psnr(clip):
    """Mean PSNR-Y of Pillow's bicubic, down and up again."""
    values = []
    for frame in clip:
        picture = Image.fromarray(frame.permute(1, 2, 0).numpy())
        small = picture.resize((frame.shape[2] // 4, frame.shape[1] // 4), Image.Resampling.BICUBIC)
        large = np.array(small.resize(picture.size, Image.Resampling.BICUBIC))
        values.append(psnr_y(torch.from_numpy(large).permute(2, 0, 1) / 255, frame / 255))
    return sum(values) / len(values)


def test_bicubic_as_a_network_scores_as_bicubic_together_and_alone():
    (score,) = validate(Bicubic(), drawn())

    psnr, loss = score.bicubic, score.loss
    assert score == Score("drawn", psnr, together=psnr, alone=psnr, loss=loss)
    assert 15 < score.bicubic < 60


def test_the_bicubic_score_is_that_of_pillow():
    clip = sharp_clip()

    (score,) = validate(Bicubic(), with_small_twins({"drawn": clip}))

    # Pillow rounds to 8 bits after each direction.
    assert score.bicubic == pytest.approx(pillow_psnr(clip), abs=0.05)


def test_alone_each_frame_is_a_first_frame():
    (score,) = validate(Remembering(), drawn())

    assert score.alone == score.bicubic
    assert score.together < score.bicubic - 0.5


def test_the_score_is_the_mean_over_the_frames():
    clip = sharp_clip()

    (score,) = validate(Remembering(), with_small_twins({"drawn": clip}))

    sharp = clip / 255
    restored = Remembering()(shrink_4x(sharp)[None])[0]
    values = [psnr_y(a, b) for a, b in zip(restored, sharp, strict=True)]
    assert score.together == pytest.approx(sum(values) / 3)


def test_every_clip_has_a_score_by_its_name_and_in_its_order():
    clips = {"second": sharp_clip(), "first": sharp_clip(frames=1, height=16, width=20)}

    scores = validate(Bicubic(), with_small_twins(clips))

    assert [score.clip for score in scores] == ["second", "first"]


def test_frames_alone_are_left_out_where_nobody_asks():
    (score,) = validate(Bicubic(), drawn(), alone=False)

    assert score.alone is None


@pytest.mark.parametrize("is_training", [True, False])
def test_the_mode_of_the_network_is_left_as_it_is(is_training):
    network = Bicubic().train(is_training)

    validate(network, drawn(frames=1))

    assert network.training == is_training


@pytest.mark.parametrize("weight", [0.0, 0.02])
def test_the_loss_is_the_one_that_training_minimizes(weight):
    clip = sharp_clip()

    (score,) = validate(Bicubic(), with_small_twins({"drawn": clip}), frequency_weight=weight)

    sharp = clip / 255
    restored = Bicubic()(shrink_4x(sharp)[None])[0]
    assert score.loss == restoration_loss(restored, sharp, frequency_weight=weight).item()


def test_plain_enlargement_and_result_are_shown():
    shown = []
    clip = sharp_clip()

    validate(
        Bicubic(), with_small_twins({"drawn": clip}), show=lambda *pictures: shown.append(pictures)
    )

    ((name, plain, restored),) = shown
    assert name == "drawn"
    assert plain.shape == restored.shape == clip.shape
