"""The best weights are those that restore the validation clips best, the first ones among them."""

from dataclasses import replace

import pytest
import torch
from scenes import smooth_picture, to_8_bits
from torch import nn
from torch.nn import functional as F

from vsrm_cli.training.recipe import FINETUNING, Stage
from vsrm_cli.training.validation import CLIPS_SHOWN, SIDE_SHOWN, Judge, with_small_twins


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
    return with_small_twins({f"clip {n}": to_8_bits(torch.stack(frames)) for n in range(count)})


def test_the_smallest_loss_is_the_best_whenever_it_was():
    judge = Judge(clips(), FINETUNING)

    news = [judge.look(Brighter(factor), step) for step, factor in enumerate((0.8, 0.95, 0.9))]

    assert news == [True, True, False]
    assert (judge.first.step, judge.best.step, judge.latest.step) == (0, 1, 2)
    assert judge.best.psnr_y > judge.latest.psnr_y > judge.first.psnr_y
    assert judge.best.bicubic == judge.first.bicubic


def test_what_is_not_better_than_the_start_is_not_kept():
    judge = Judge(clips(), FINETUNING)

    judge.look(Brighter(1.0), 0)

    assert not judge.look(Brighter(1.0), 1)
    assert not judge.look(Brighter(1.1), 2)
    assert judge.best.step == 0


def test_weights_that_give_no_numbers_are_never_the_best():
    judge = Judge(clips(), FINETUNING)

    judge.look(Brighter(1.0), 0)

    assert not judge.look(Brighter(float("nan")), 1)
    assert judge.pieces


def test_what_shows_in_no_picture_is_kept_as_it_comes():
    judge = Judge(clips(), replace(FINETUNING, stage=Stage.FLOW))

    judge.look(Brighter(1.0), 0)

    assert judge.look(Brighter(0.9), 1)


@pytest.mark.parametrize(("side", "shown"), [(48, 48), (240, SIDE_SHOWN)])
def test_of_some_clips_the_most_detailed_piece_is_kept_to_look_at(side, shown):
    pairs = clips(2 * CLIPS_SHOWN, side=side)
    small, _ = pairs["clip 0"]
    for _, sharp in pairs.values():
        sharp[:, :, : side // 2] = 128  # nothing to see in the upper half
    judge = Judge(pairs, FINETUNING)

    judge.look(Brighter(1.0), 0)

    shown_clips = [f"clip {2 * n}" for n in range(CLIPS_SHOWN)]
    assert [piece.clip for piece in judge.pieces] == shown_clips
    piece, picture = judge.pieces[0], judge.first.pictures[0]
    assert piece.frame == 1
    assert piece.truth.shape == piece.bicubic.shape == picture.shape == (3, shown, shown)
    assert (piece.truth[:, -20:] != 128).any()
    assert small.shape[-1] == side // 4


def test_a_restored_judge_remembers(tmp_path):
    former, later = (Judge(clips(), FINETUNING) for _ in range(2))
    former.look(Brighter(1.0), 0)
    former.look(Brighter(0.9), 5)
    torch.save(former.state(), tmp_path / "state.pt")

    later.restore(torch.load(tmp_path / "state.pt", weights_only=True))

    assert (later.first.step, later.best.step, later.latest.step) == (0, 0, 5)
    assert later.first.scores == former.first.scores
    assert torch.equal(later.best.pictures[0], former.best.pictures[0])
    assert torch.equal(later.pieces[1].truth, former.pieces[1].truth)
    assert not later.look(Brighter(0.9), 6)
