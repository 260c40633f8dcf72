"""The report of a run as an HTML page: losses, PSNR and images; and the TensorBoard writer."""

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from torch import Tensor

from vsrm_cli.report.html import (
    Table,
    heading,
    html_page,
    html_table,
    paragraph,
    side_by_side,
    slider,
)
from vsrm_cli.report.svg import line_plot
from vsrm_cli.training.validation import ShownCrop, Validation

# Points of a curve: more could not be distinguished.
POINTS = 200

Line = Mapping[str, float]


def report_page(
    title: str,
    lines: Sequence[Line],
    *,
    first: Validation | None,
    best: Validation | None,
    latest: Validation | None,
    crops: Sequence[ShownCrop],
    settings: Mapping[str, str],
) -> str:
    """A self-contained page about a run.

    Args:
        title: Name of the run.
        lines: Its metrics.
        first: The validation of the weights at the start.
        best: The validation of the weights that were kept.
        latest: The validation of the last weights.
        crops: The crops to show.
        settings: The settings of the run by name.
    """
    parts = [side_by_side(_plots(lines))]
    if first and best and latest:
        parts = [paragraph(text) for text in _findings(first, best, latest)] + parts
        is_better = best.step != first.step
        parts.append(heading("Before and after" if is_better else "Results of the network"))
        for crop, before, after in zip(crops, first.images, best.images, strict=True):
            parts.append(side_by_side(_sliders(crop, before if is_better else None, after)))
        parts.append(html_table(_clips_table(first, best, latest)))
    rows = tuple((name.replace("_", "-"), value) for name, value in settings.items())
    parts.append(html_table(Table("Settings", ("name", "value"), rows)))
    steps = f"{lines[-1]['step']} steps" if lines else "no step yet"
    return html_page(title, f"vsrm finetune, {steps}", parts)


def describe_result(first: Validation, best: Validation) -> str:
    """The result of a run in one sentence."""
    if best.step == first.step:
        return (
            f"No weights of this run did better than those it began with (validation loss "
            f"{first.loss:.5f}, PSNR-Y {first.psnr_y:.2f} dB): these are the ones that were kept."
        )
    loss, start = f"{best.loss:.5f}", f"{first.loss:.5f}"
    way = "stayed at" if loss == start else f"went from {start} to"
    return (
        f"The validation loss {way} {loss}, PSNR-Y went from "
        f"{first.psnr_y:.2f} to {best.psnr_y:.2f} dB (bicubic {best.bicubic:.2f}); the weights of "
        f"step {best.step} were kept."
    )


def _findings(first: Validation, best: Validation, latest: Validation) -> list[str]:
    said = [describe_result(first, best)]
    if first.step < best.step < latest.step:
        said.append(
            f"After that it did not get better: at step {latest.step} the validation loss was "
            f"{latest.loss:.5f}."
        )
    return said


def _plots(lines: Sequence[Line]) -> list[str]:
    """The plots; losses are in thousandths, so that labels stay short."""
    curves = [
        ("Loss on training clips", "loss", "loss, thousandths", 1000.0, False),
        ("Loss on validation clips", "val_loss", "loss, thousandths", 1000.0, False),
        ("PSNR-Y on validation clips", "val_psnr_y", "dB", 1.0, False),
        ("Learning rate", "lr", "rate, millionths", 1e6, True),
    ]
    drawn = []
    for title, name, label, factor, from_zero in curves:
        points = [(line["step"], factor * line[name]) for line in lines if name in line]
        if len(points) > 1:
            curve = {name: _thinned(points)}
            drawn.append(
                line_plot(title, curve, x_label="step", y_label=label, from_zero=from_zero)
            )
    return drawn


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of some neighbors."""
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _sliders(crop: ShownCrop, before: Tensor | None, kept: Tensor) -> list[str]:
    """Two sliders of a crop: before and after the training, bicubic and ground truth.

    Args:
        crop: The crop.
        before: By the weights at the start; None if these were kept.
        kept: By the weights that were kept.
    """
    where = f"{crop.clip}, frame {crop.frame}"
    shown = (
        (crop.bicubic, kept, ("bicubic", "network"))
        if before is None
        else (before, kept, ("before", "after")),
        (crop.bicubic, crop.hr, ("bicubic", "ground truth")),
    )
    return [
        slider(left.numpy(), right.numpy(), labels=labels, caption=f"{where}: {' | '.join(labels)}")
        for left, right, labels in shown
    ]


def _clips_table(first: Validation, best: Validation, latest: Validation) -> Table:
    headers = ["clip", "bicubic", "at the start", f"kept (step {best.step})", "gain"]
    columns = [first.scores, best.scores]
    if latest.step != best.step:
        headers.append(f"at the end (step {latest.step})")
        columns.append(latest.scores)
    rows = []
    for start, kept, *ends in zip(*columns, strict=True):
        gain = f"{kept.together - start.together:+.2f}"
        figures = [start.bicubic, start.together, kept.together]
        cells = [kept.clip, *(f"{x:.2f}" for x in figures), gain]
        rows.append((*cells, *(f"{end.together:.2f}" for end in ends)))
    return Table("PSNR-Y of the validation clips in dB", tuple(headers), tuple(rows))


FOLDER = "tensorboard"


class TensorBoardWriter:
    """Writes scalars and images for TensorBoard.

    Args:
        path: Folder of the run, in which ``tensorboard`` is created; None to write nothing.
    """

    def __init__(self, path: Path | None) -> None:
        """Open the folder, if TensorBoard is installed."""
        self._writer: Any = None
        if path is not None and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(path / FOLDER))

    def add_line(self, line: Mapping[str, float]) -> None:
        """Add the values of a line of the metrics."""
        if self._writer is not None:
            for name in line.keys() - {"step"}:
                self._writer.add_scalar(name, line[name], line["step"])

    def add_images(self, crops: Sequence[ShownCrop], validation: Validation) -> None:
        """Add the restored crops of a validation."""
        if self._writer is not None:
            for crop, image in zip(crops, validation.images, strict=True):
                self._writer.add_image(crop.clip, image, validation.step)

    def close(self) -> None:
        """Flush and close."""
        if self._writer is not None:
            self._writer.close()
