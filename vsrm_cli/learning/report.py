"""The report of a run as a page: how the losses fell, and what that looks like."""

from collections.abc import Mapping, Sequence

from vsrm_cli.learning.judge import Piece, Verdict
from vsrm_cli.page import (
    Table,
    heading,
    html_page,
    html_table,
    paragraph,
    side_by_side,
    slider,
    still,
)
from vsrm_cli.plot import line_plot

# Points of a curve: more could not be told apart.
POINTS = 200

Line = Mapping[str, float]


def report_page(
    title: str,
    lines: Sequence[Line],
    *,
    first: Verdict | None,
    best: Verdict | None,
    latest: Verdict | None,
    settings: Mapping[str, str],
) -> str:
    """A self-contained page about a run.

    Args:
        title: What the run is called.
        lines: Of its metrics.
        first: The validation of the weights at the start.
        best: That of the weights that are kept.
        latest: That of the last weights.
        settings: What decided what was computed, by name.
    """
    parts = [side_by_side(list(_plots(lines, first)))] if len(lines) > 1 else []
    if first and best and latest:
        parts = [paragraph(words) for words in _findings(first, best, latest)] + parts
        if best.step > first.step:
            parts.append(heading("Before and after"))
            parts.append(side_by_side([_slider(*pair) for pair in _pairs(first, best)]))
        parts.append(html_table(_clips_table(first, best, latest)))
    rows = tuple((name.replace("_", "-"), value) for name, value in settings.items())
    parts.append(html_table(Table("Settings", ("name", "value"), rows)))
    steps = f"{lines[-1]['step']} steps" if lines else "no step yet"
    return html_page(title, f"vsrm finetune, {steps}", parts)


def outcome(first: Verdict, best: Verdict) -> str:
    """What a run has come to, in a sentence."""
    if best.step == first.step:
        return (
            f"No weights of this run did better than those it began with (validation loss "
            f"{first.loss:.5f}, PSNR-Y {first.psnr_y:.2f} dB): these are the ones that were kept."
        )
    return (
        f"The validation loss fell from {first.loss:.5f} to {best.loss:.5f}, PSNR-Y went from "
        f"{first.psnr_y:.2f} to {best.psnr_y:.2f} dB (bicubic {best.bicubic:.2f}); the weights of "
        f"step {best.step} were kept."
    )


def _findings(first: Verdict, best: Verdict, latest: Verdict) -> list[str]:
    said = [outcome(first, best)]
    if first.step < best.step < latest.step:
        said.append(
            f"After that it did not get better: at step {latest.step} the validation loss was "
            f"{latest.loss:.5f}."
        )
    return said


def _plots(lines: Sequence[Line], first: Verdict | None) -> list[str]:
    trained = [(line["step"], line["loss"]) for line in lines]
    drawn = [
        line_plot(
            "Loss on training clips",
            {"loss": _thinned(trained)},
            x_label="step",
            y_label="loss",
            from_zero=False,
        )
    ]
    validated = [line for line in lines if "val_loss" in line]
    if first and len(validated) > 1:
        losses = [(line["step"], line["val_loss"]) for line in validated]
        psnrs = [(line["step"], line["val_psnr_y"]) for line in validated]
        level = [(psnrs[0][0], first.bicubic), (psnrs[-1][0], first.bicubic)]
        drawn.append(
            line_plot(
                "Loss on validation clips",
                {"loss": losses},
                x_label="step",
                y_label="loss",
                from_zero=False,
            )
        )
        drawn.append(
            line_plot(
                "PSNR-Y on validation clips",
                {"network": psnrs, "bicubic": level},
                x_label="step",
                y_label="dB",
                from_zero=False,
            )
        )
    rates = [(line["step"], line["lr"]) for line in lines]
    drawn.append(line_plot("Learning rate", {"rate": rates}, x_label="step", y_label="rate"))
    return drawn


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """At most `POINTS` points, each the mean of some neighbors."""
    size = -(-len(points) // POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [(group[-1][0], sum(value for _, value in group) / len(group)) for group in groups]


def _pairs(first: Verdict, best: Verdict) -> list[tuple[Piece, Piece]]:
    return list(zip(first.pieces, best.pieces, strict=True))


def _slider(before: Piece, after: Piece) -> str:
    """What the network made of a piece at the start and now, and below that the truth."""
    where = f"{after.clip}, frame {after.frame}"
    compared = slider(
        before.network.numpy(), after.network.numpy(), labels=("before", "after"), caption=where
    )
    truth = still(after.truth.numpy(), caption=f"{where}: the truth")
    plain = still(after.bicubic.numpy(), caption=f"{where}: bicubic")
    return f"<div>{compared}{side_by_side([plain, truth])}</div>"


def _clips_table(first: Verdict, best: Verdict, latest: Verdict) -> Table:
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
