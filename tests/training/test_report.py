"""The report says how a run went and what it achieved, in one file that needs no other."""

import sys
from types import ModuleType

import pytest
import torch
from browser import CHROMIUM
from scenes import smooth_picture, to_8_bits

from vsrm_cli.training import report
from vsrm_cli.training.report import POINTS, TensorBoardWriter, report_page
from vsrm_cli.training.validation import ClipScore, ShownCrop, Validation

SETTINGS = {"lr": "0.0002", "flow_frozen": "50", "data": "/videos/holidays"}


def validation(step, psnr, loss):
    scores = [ClipScore(f"clip {n}", 26.0 + n, psnr + n, None, loss) for n in range(2)]
    return Validation(step, scores, [picture(30.0 - step / 10)] * 2)


def picture(wavelength):
    return to_8_bits(smooth_picture(64, 64, wavelength=wavelength))


def line(step, loss=0.03, **validated):
    return {"step": step, "loss": loss, "lr": 1e-4, **validated}


def page(first, best, latest, lines=None):
    crops = [ShownCrop(f"clip {n}", 3, picture(10.0), picture(40.0)) for n in range(2)]
    lines = lines or [
        line(0, val_loss=first.loss, val_psnr_y=first.psnr_y),
        line(50),
        line(100, val_loss=latest.loss, val_psnr_y=latest.psnr_y),
    ]
    return report_page(
        "holidays",
        lines,
        first=first,
        best=best,
        latest=latest,
        crops=crops,
        settings=SETTINGS,
    )


def test_the_report_of_a_good_run_has_its_figures():
    best = validation(100, 28.0, 0.02)

    shown = page(validation(0, 27.0, 0.025), best, best)

    assert "The validation loss went from 0.02500 to 0.02000" in shown
    assert "PSNR-Y went from 27.50 to 28.50 dB (bicubic 26.50); the weights of step 100" in shown
    assert "After that" not in shown
    assert shown.count("<svg") == 4
    assert shown.count('class="slider"') == 4
    assert "<td>clip 1</td><td>27.00</td><td>28.00</td><td>29.00</td><td>+1.00</td>" in shown
    assert "<td>flow-frozen</td><td>50</td>" in shown


def test_the_report_says_if_the_best_step_was_not_the_last():
    shown = page(
        validation(0, 27.0, 0.025), validation(50, 28.0, 0.02), validation(100, 27.9, 0.021)
    )

    assert "the weights of step 50 were kept" in shown
    assert "at step 100 the validation loss was 0.02100" in shown
    assert "<th>at the end (step 100)</th>" in shown


def test_the_report_says_if_nothing_improved():
    first = validation(0, 27.0, 0.025)

    shown = page(first, first, validation(100, 26.0, 0.03))

    assert "No weights of this run did better than those it began with" in shown
    # Two equal images would show nothing.
    assert '<span class="right">after</span>' not in shown
    assert shown.count('<span class="right">network</span>') == 2


def test_without_validation_the_training_loss_is_shown():
    shown = report_page(
        "holidays",
        [line(0), line(10)],
        first=None,
        best=None,
        latest=None,
        crops=[],
        settings=SETTINGS,
    )

    assert "Loss on training clips" in shown
    assert "validation" not in shown


def test_a_run_without_steps_has_a_report():
    first = validation(0, 27.0, 0.025)

    shown = page(first, first, first, lines=[line(0, val_loss=0.025, val_psnr_y=27.5)])

    assert "<svg" not in shown
    assert "vsrm finetune, 0 steps" in shown


def test_plots_of_long_runs_have_few_points():
    best = validation(100, 28.0, 0.02)
    lines = [line(step, loss=0.03 + step % 2) for step in range(10 * POINTS)]

    shown = page(best, best, best, lines=lines)

    points = shown.split('<polyline points="')[1].split('"')[0].split()
    assert len(points) == POINTS


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium here")
def test_the_report_opens_on_a_phone_without_errors_and_requests(browser, tmp_path):
    best = validation(100, 28.0, 0.02)
    path = tmp_path / "report.html"
    path.write_text(page(validation(0, 27.0, 0.025), best, best), encoding="utf-8")

    browser.open(path, width=390, is_phone=True)

    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth === 64)")
    assert browser.console_errors == []
    assert {u for u in browser.requests if not u.startswith("data:")} == {path.as_uri()}
    assert torch.equal(best.images[0], best.images[1])


LINE = {"step": 7, "loss": 0.5, "lr": 0.1}
CROP = ShownCrop("waves", 3, *[torch.zeros(3, 8, 8, dtype=torch.uint8)] * 2)


class FakeSummaryWriter:
    """A stand-in for TensorBoard's SummaryWriter."""

    def __init__(self, folder):
        self.seen = [("folder", folder)]
        writers.append(self)

    def add_scalar(self, name, value, step):
        self.seen.append((name, value, step))

    def add_image(self, name, picture, step):
        self.seen.append((name, tuple(picture.shape), step))

    def close(self):
        self.seen.append("closed")


writers: list[FakeSummaryWriter] = []


@pytest.fixture
def tensorboard(monkeypatch):
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = FakeSummaryWriter
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(report, "find_spec", lambda _: object())
    writers.clear()


@pytest.mark.usefixtures("tensorboard")
def test_tensorboard_gets_scalars_and_images(tmp_path):
    writer = TensorBoardWriter(tmp_path)

    writer.add_line(LINE)
    writer.add_images([CROP], Validation(7, [], [torch.zeros(3, 8, 8)]))
    writer.close()

    ((folder, *seen),) = (fake.seen for fake in writers)
    assert folder == ("folder", str(tmp_path / "tensorboard"))
    assert sorted(seen[:2]) == [("loss", 0.5, 7), ("lr", 0.1, 7)]
    assert seen[2:] == [("waves", (3, 8, 8), 7), "closed"]


def test_without_tensorboard_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(report, "find_spec", lambda _: None)
    writer = TensorBoardWriter(tmp_path)

    writer.add_line(LINE)
    writer.close()

    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("tensorboard")
def test_a_process_without_a_folder_has_no_tensorboard_writer():
    TensorBoardWriter(None).add_line(LINE)

    assert writers == []
