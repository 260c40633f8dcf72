"""Quality of networks, bicubic and Lanczos against the ground truth.

Every clip is upscaled by each method, rounded to 8 bits, and compared frame by frame. Each network
is also measured with single frames: the difference shows what it gains from neighboring frames.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from vsrm_cli.checkpoints.catalog import find_detail_pair
from vsrm_cli.checkpoints.loading import load_model
from vsrm_cli.errors import InputError, UsageError, VsrmError
from vsrm_cli.evaluation.baselines import FILTERS, common_scale, list_methods
from vsrm_cli.evaluation.metrics import gradient_energy, psnr, sharpness, ssim
from vsrm_cli.evaluation.perceptual import (
    SMALLEST_LPIPS_SIDE,
    Measure,
    find_cvvdp,
    find_lpips,
    find_vmaf,
)
from vsrm_cli.evaluation.progress import MeasurementProgress
from vsrm_cli.evaluation.published import PublishedScore, published_scores
from vsrm_cli.evaluation.temporal import FLOW_MODEL, error_flicker, warping_errors
from vsrm_cli.evaluation.test_sets import (
    EvaluationClip,
    EvaluationProtocol,
    check_degradation,
    find_clips,
    read_clip,
    read_upscaled_clip,
)
from vsrm_cli.frame import SCALE, Pixels
from vsrm_cli.models.network import Network

# Size of a crop on the page, in pixels: large enough for context, small enough to see pixels.
CROP_WIDTH, CROP_HEIGHT = 160, 120


@dataclass(frozen=True)
class MethodScores:
    """The scores of one method, on one clip or as the mean over all.

    Attributes:
        method: bicubic, lanczos, a network, "<network>, frames alone", or another program.
        psnr: Mean over the measured frames, in dB; infinite if all are equal.
        ssim: Likewise, 0 to 1.
        warping: Error between neighbors along the flow of the ground truth, in thousandths of the
            squared range; None if not requested, or if the clip has one frame.
        lpips: Mean over the measured frames; None if it is not installed.
        vmaf: Of the clip; None if it is not installed.
        cvvdp: Likewise.
        sharpness: Amount of detail of the measured frames, correct or not, relative to the ground
            truth; infinite if that is flat.
        flicker: Change of the error from frame to frame, in gray levels; None if the clip has one
            frame.
        frame_psnr: Of each measured frame; empty in a mean.
        frame_ssim: Likewise.
    """

    method: str
    psnr: float
    ssim: float
    warping: float | None
    lpips: float | None
    vmaf: float | None
    cvvdp: float | None
    sharpness: float
    flicker: float | None
    frame_psnr: tuple[float, ...]
    frame_ssim: tuple[float, ...]


@dataclass(frozen=True)
class ClipScores:
    """All methods on one clip.

    Attributes:
        clip: Its name.
        frames: Number of frames.
        width: Of the HR frames.
        height: Of the HR frames.
        truth_warping: The warping error of the ground truth itself.
        methods: One for each method.
    """

    clip: str
    frames: int
    width: int
    height: int
    truth_warping: float | None
    methods: tuple[MethodScores, ...]


@dataclass(frozen=True)
class QualityResult:
    """The measurements of a folder of clips.

    Attributes:
        folder: The folder.
        test_set: Name of the recognized test set; empty if none.
        degradation: As in `vsrm_cli.evaluation.test_sets.make_lr_clip`.
        scale: How many times smaller the LR frames are.
        small_frames: Origin of the LR frames: "from the folder" or "made here".
        on: "y" or "rgb".
        crop: Pixels ignored at each edge.
        frames_that_count: The measured frames: "all" or "center".
        flow_network: Of the warping error; None if it was not measured.
        clips: The clips that could be measured.
        means: Over these clips, for each method.
        published: Published scores for this set.
        notes: For the user.
        problems: Why clips could not be measured.
    """

    folder: str
    test_set: str
    degradation: str
    scale: int
    small_frames: str
    on: str
    crop: int
    frames_that_count: str
    flow_network: str | None
    clips: tuple[ClipScores, ...]
    means: tuple[MethodScores, ...]
    published: tuple[PublishedScore, ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class GainCrop:
    """The crop of a clip where a network gains most over bicubic.

    Attributes:
        clip: Name of the clip.
        frame: Number of the frame, from 0.
        gain: Reduction of the mean squared error, in squared gray levels.
        images: The crop by each method, and of the "ground truth", (3, h, w) uint8.
    """

    clip: str
    frame: int
    gain: float
    images: dict[str, Pixels]


@dataclass(frozen=True)
class QualityOptions:
    """How to measure.

    Attributes:
        degradation: As in `vsrm_cli.evaluation.test_sets.make_lr_clip`.
        on: "y", "rgb", or "auto" for the rules of the test set.
        crop: Pixels ignored at each edge.
        window: Frames per window; None for whole clips.
        most_frames: Maximum number of frames of each clip; None for all.
        follows_time: Whether to measure the warping error.
        also: Results of other programs, by name, for
            `vsrm_cli.evaluation.test_sets.read_upscaled_clip`.
        detail: Of networks with two weight files; None for the file of the name.
    """

    degradation: str = "bi"
    on: str = "auto"
    crop: int = 0
    window: int | None = None
    most_frames: int | None = None
    follows_time: bool = True
    also: Mapping[str, Path] = field(default_factory=dict)
    detail: float | None = None


def measure_quality(
    folder: Path,
    models: Sequence[str],
    options: QualityOptions,
    *,
    dtype: str,
    device: torch.device,
    report: Callable[[str], None],
) -> tuple[QualityResult, list[GainCrop]]:
    """Upscale the clips of a folder by every method and compare them with the ground truth.

    Clips that cannot be measured are listed as problems.

    Args:
        folder: As `vsrm_cli.evaluation.test_sets` describes it.
        models: Names, or weight files.
        options: How to measure.
        dtype: "auto", "fp32", "fp16" or "bf16".
        device: Of the networks.
        report: Called with what is being measured.

    Returns:
        The scores, and a crop of each clip, those with the largest gain first.

    Raises:
        InputError: If the folder holds no clips.
        UsageError: If the degradation is unknown, the scales of networks differ, or another program
            has the name of a method.
        VsrmError: If a network cannot be loaded.
    """
    check_degradation(options.degradation)
    networks = _load_all(models, options.detail, device=device, dtype=dtype)
    scale = common_scale(networks)
    check_degradation(options.degradation, scale)
    found = find_clips(folder, options.degradation, scale=scale)
    methods = list_methods(networks, window=options.window)
    _check_others(options.also, methods)
    notes: list[str] = []
    scorer = _new_scorer(found.protocol, options, device=device, notes=notes)
    clips: list[ClipScores] = []
    crops: list[GainCrop] = []
    problems: list[str] = []
    steps = len(methods.keys() - FILTERS) + 1
    progress = MeasurementProgress(report, clips=len(found.clips), steps=steps)
    for files in found.clips:
        progress.next_clip(files.name)
        try:
            clip = read_clip(
                files, options.degradation, scale=scale, most_frames=options.most_frames
            )
            others = {
                name: read_upscaled_clip(name, path, clip, most_frames=options.most_frames)
                for name, path in options.also.items()
            }
            results = {}
            for name, enlarge in methods.items():
                if name not in FILTERS:  # they are fast
                    progress.next_step(name)
                results[name] = enlarge(clip.lr)
            results |= others
            progress.next_step("comparing")
            clips.append(scorer.score(clip, results))
        except VsrmError as error:
            problems.append(str(error))
            continue
        notes += [clip.note] if clip.note else []
        if networks:
            crops.append(choose_crop(clip, results, network=networks[0].name))
    quality = QualityResult(
        folder=str(folder),
        test_set=found.protocol.name,
        degradation=options.degradation,
        scale=scale,
        small_frames="from the folder" if found.has_lr else "made here",
        on="y" if scorer.on_luma else "rgb",
        crop=options.crop,
        frames_that_count="center" if found.protocol.center_only else "all",
        flow_network=scorer.flow.name if scorer.flow else None,
        clips=tuple(clips),
        means=_means(clips),
        # Papers report scale 4 only.
        published=tuple(published_scores(found.protocol.name, options.degradation))
        if scale == SCALE
        else (),
        notes=tuple(notes),
        problems=tuple(problems),
    )
    return quality, sorted(crops, key=lambda crop: crop.gain, reverse=True)


def _load_all(
    models: Sequence[str], detail: float | None, *, device: torch.device, dtype: str
) -> list[Network]:
    """Load networks under names that differ: paths distinguish weight files of one name."""
    models = list(dict.fromkeys(models))
    networks = [_load(model, detail, device=device, dtype=dtype) for model in models]
    names = [network.name for network in networks]
    for model, network in zip(models, networks, strict=True):
        if names.count(network.name) > 1:
            network.name = f"{network.name} ({model})"
    return networks


def _load(model: str, detail: float | None, *, device: torch.device, dtype: str) -> Network:
    """Load a network, with the detail if it belongs to a pair; its name says so."""
    if detail is None or find_detail_pair(model) is None:
        return load_model(model, device=str(device), dtype=dtype)
    network = load_model(model, device=str(device), dtype=dtype, detail=detail)
    network.name = f"{network.name}, detail {detail:g}"
    return network


def _check_others(others: Mapping[str, Path], methods: Mapping[str, object]) -> None:
    for name, path in others.items():
        if name in methods:
            raise UsageError(f'"{name}" is measured already; give the other program another name.')
        if not path.exists():
            raise InputError(f"{path} does not exist; check the spelling.")


def _new_scorer(
    protocol: EvaluationProtocol, options: QualityOptions, *, device: torch.device, notes: list[str]
) -> "_Scorer":
    """Prepare the metrics; unavailable ones are added to the notes."""
    # MPS devices have no float64.
    place = device if device.type == "cuda" else torch.device("cpu")
    found: list[Measure | None] = []
    for find in (find_lpips, find_cvvdp):
        try:
            found.append(find(place))
        except VsrmError as error:
            notes.append(str(error))
            found.append(None)
    return _Scorer(
        on_luma=protocol.on_luma if options.on == "auto" else options.on == "y",
        center_only=protocol.center_only,
        crop=options.crop,
        device=place,
        flow=load_model(FLOW_MODEL, device=str(device), dtype="fp32")
        if options.follows_time
        else None,
        lpips=found[0],
        cvvdp=found[1],
        vmaf=find_vmaf(),
    )


@dataclass(frozen=True)
class _Scorer:
    """Compares clips with the ground truth by the same rules."""

    on_luma: bool
    center_only: bool
    crop: int
    device: torch.device
    flow: Network | None
    lpips: Measure | None
    cvvdp: Measure | None
    vmaf: Measure | None

    def score(self, clip: EvaluationClip, results: dict[str, Tensor]) -> ClipScores:
        """Score the results of the methods for a clip."""
        warping: dict[str, float] = {}
        if self.flow is not None and len(clip.hr) > 1:
            warping = warping_errors(self.flow, clip.hr, {**results, "ground truth": clip.hr})
        return ClipScores(
            clip=clip.name,
            frames=len(clip.hr),
            width=clip.hr.shape[-1],
            height=clip.hr.shape[-2],
            truth_warping=warping.get("ground truth"),
            methods=tuple(
                self._score_method(name, result, clip.hr, warping.get(name))
                for name, result in results.items()
            ),
        )

    def _score_method(
        self, name: str, result: Tensor, hr: Tensor, warping: float | None
    ) -> MethodScores:
        counted = [len(hr) // 2] if self.center_only else range(len(hr))
        psnrs, ssims, energies = [], [], []
        for t in counted:
            pair = [x[t].to(self.device).float() / 255 for x in (result, hr)]
            psnrs.append(psnr(*pair, on_luma=self.on_luma, crop=self.crop))
            ssims.append(ssim(*pair, on_luma=self.on_luma, crop=self.crop))
            energies.append((gradient_energy(pair[0]), gradient_energy(pair[1])))
        return MethodScores(
            method=name,
            psnr=_mean(psnrs),
            ssim=_mean(ssims),
            warping=warping,
            lpips=self._lpips_mean(result, hr, counted),
            vmaf=self.vmaf(result, hr) if self.vmaf else None,
            cvvdp=self.cvvdp(result, hr) if self.cvvdp else None,
            sharpness=sharpness(energies),
            flicker=error_flicker(result, hr) if len(hr) > 1 else None,
            frame_psnr=tuple(psnrs),
            frame_ssim=tuple(ssims),
        )

    def _lpips_mean(self, result: Tensor, hr: Tensor, counted: Sequence[int]) -> float | None:
        if self.lpips is None or min(hr.shape[-2:]) < SMALLEST_LPIPS_SIDE:
            return None
        return _mean([self.lpips(result[t], hr[t]) for t in counted])


def _means(clips: Sequence[ClipScores]) -> tuple[MethodScores, ...]:
    """The mean of each method over the clips, each clip counting the same."""
    rows = []
    for same in zip(*(clip.methods for clip in clips), strict=True):
        rows.append(
            MethodScores(
                method=same[0].method,
                psnr=_mean([s.psnr for s in same]),
                ssim=_mean([s.ssim for s in same]),
                warping=_mean_of_known([s.warping for s in same]),
                lpips=_mean_of_known([s.lpips for s in same]),
                vmaf=_mean_of_known([s.vmaf for s in same]),
                cvvdp=_mean_of_known([s.cvvdp for s in same]),
                sharpness=_mean([s.sharpness for s in same]),
                flicker=_mean_of_known([s.flicker for s in same]),
                frame_psnr=(),
                frame_ssim=(),
            )
        )
    return tuple(rows)


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if math.inf not in values else math.inf


def _mean_of_known(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return _mean(known) if known else None


def choose_crop(clip: EvaluationClip, results: dict[str, Tensor], *, network: str) -> GainCrop:
    """Find where in the middle frame a network gains most over bicubic.

    Args:
        clip: The clip.
        results: The output of each method, uint8 and shaped like its HR frames.
        network: The name of one of them.
    """
    t = len(clip.hr) // 2
    truth = clip.hr[t].float()
    errors = [(results[name][t].float() - truth).square().mean(0) for name in ("bicubic", network)]
    height, width = min(CROP_HEIGHT, truth.shape[-2]), min(CROP_WIDTH, truth.shape[-1])
    top, left, gain = find_densest_box(errors[0] - errors[1], height=height, width=width)
    box = (slice(None), slice(top, top + height), slice(left, left + width))
    images = {name: result[t][box].numpy() for name, result in results.items()}
    return GainCrop(clip.name, t, gain, {**images, "ground truth": clip.hr[t][box].numpy()})


def find_densest_box(values: Tensor, *, height: int, width: int) -> tuple[int, int, float]:
    """Find the box with the largest mean of (H, W) values: top, left and that mean."""
    # By a summed-area table.
    corner = F.pad(values.double().cumsum(0).cumsum(1), (1, 0, 1, 0))
    across = corner[:, width:] - corner[:, :-width]
    means = (across[height:] - across[:-height]) / (height * width)
    top, left = divmod(int(means.argmax()), means.shape[-1])
    return top, left, float(means.max())
