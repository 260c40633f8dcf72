"""The catalog of networks that can be selected by name."""

from dataclasses import dataclass
from functools import partial

from vsrm_cli.checkpoints.download import RemoteFile
from vsrm_cli.errors import UsageError
from vsrm_cli.models.gsmamba import GSMConfig
from vsrm_cli.models.presets import GSM_FULL, VSRM_ABLATION, VSRM_FULL, VSRM_T, VSRM_T_X2
from vsrm_cli.models.vsrm import VSRMConfig
from vsrm_cli.models.vsrm_compact import CompactConfig


@dataclass(frozen=True)
class ModelEntry:
    """A network that can be selected by name.

    Attributes:
        name: As an option value.
        network: The family name in its weight files.
        config: Of the network.
        scale: Ratio of output to input size.
        parameters: Number of trainable parameters.
        about: A short description.
        trained_on: Training data; None if there are no weights.
        degradation: The footage for which it was trained.
        licence: Of the weights.
        quality: Measured or published quality, with its unit.
        quality_source: Source of that figure.
        file: Name of the bundled weight file.
        remote: The weight file to download.
        how_to_get: What to do if there is neither.
    """

    name: str
    network: str
    config: VSRMConfig | CompactConfig | GSMConfig
    scale: int
    parameters: int
    about: str
    trained_on: str | None
    degradation: str | None
    licence: str | None
    quality: str
    quality_source: str
    file: str | None = None
    remote: RemoteFile | None = None
    how_to_get: str | None = None


# The best network for each kind of footage (see weights/README.md).
FOR_CLEAN, FOR_COMPRESSED = "vsrm-t", "vsrm-t-sharp"
# Fine-tuning for compressed footage starts from its soft one.
START_FOR_COMPRESSED = "vsrm-t-real"
# The same for scale 2; there is none for compressed footage.
FOR_CLEAN_X2 = "vsrm-t-x2"

# The networks of this project, and those of the VSRM paper.
_OURS = partial(
    ModelEntry,
    network="vsrm-compact",
    trained_on="free photos and videos, by this project; weights/README.md lists them",
    licence="MIT",
    quality_source="weights/README.md",
)
_UNPUBLISHED = partial(
    ModelEntry,
    network="vsrm",
    scale=4,
    trained_on=None,
    degradation=None,
    licence=None,
    quality_source="arXiv 2506.22762",
    how_to_get="Train it (docs/training.md) and give the path of the file that you get, or use one "
    "with weights, such as 'vsrm-t'.",
)

MODELS = {
    entry.name: entry
    for entry in (
        _OURS(
            name="vsrm-t",
            config=VSRM_T,
            scale=4,
            parameters=924_092,
            about="a compact VSRM for CPUs; the default for clean footage",
            degradation="clean footage, shrunk by antialiased bicubic interpolation",
            quality="28.47 dB PSNR-Y on 11 clips, bicubic 25.77",
            file="vsrm-t.safetensors",
        ),
        _OURS(
            name="vsrm-t-real",
            config=VSRM_T,
            scale=4,
            parameters=924_092,
            about="the same network for compressed and noisy footage, close to what it shows",
            degradation="footage that was blurred, noisy, compressed (H.264, HEVC), or none of it",
            quality="24.89 dB PSNR-Y on 11 clips compressed by H.264 at crf 28, bicubic 24.34",
            file="vsrm-t-real.safetensors",
        ),
        _OURS(
            name="vsrm-t-sharp",
            config=VSRM_T,
            scale=4,
            parameters=924_092,
            about="vsrm-t-real fine-tuned for sharpness; the default for such footage (--detail)",
            degradation="footage that was blurred, noisy, compressed, or none of it",
            quality="LPIPS 0.386 and 24.09 dB PSNR-Y on 11 clips compressed by H.264 at crf 28",
            file="vsrm-t-sharp.safetensors",
        ),
        _OURS(
            name="vsrm-t-x2",
            config=VSRM_T_X2,
            scale=2,
            parameters=964_060,
            about="vsrm-t for two times, at about a quarter of its time",
            degradation="clean footage, shrunk by antialiased bicubic interpolation",
            quality="31.41 dB PSNR-Y on 11 clips shrunk by two, bicubic 29.69",
            file="vsrm-t-x2.safetensors",
        ),
        ModelEntry(
            name="gsm",
            network="gsm",
            config=GSM_FULL,
            scale=4,
            parameters=10_455_919,
            about="Gather-Scatter Mamba with its authors' weights; needs a GPU",
            trained_on="REDS, by its authors",
            degradation="clean footage, shrunk by bicubic interpolation",
            licence="MIT",
            quality="its paper measures on REDS4, Vimeo-90K and Vid4; not repeated here",
            quality_source="arXiv 2510.00862",
            remote=RemoteFile(
                name="gsm",
                url=(
                    "https://raw.githubusercontent.com/Ko-Lani/GSMamba/"
                    "2e4a88c577a549dcf9606b36c559098b8719ec34/pretrained/gsmamba_reds_x4.pth"
                ),
                # Its commit says "about 84 MB"; two state dicts of this size have 87.8 million
                # bytes, or 83.8 MiB. The checksum holds the exact length.
                size=88_000_000,
                is_size_exact=False,
                checksum="git:81a5e5a58de914ea786abfa26add6f08d372a381",
            ),
        ),
        _UNPUBLISHED(
            name="vsrm",
            config=VSRM_FULL,
            parameters=17_147_375,
            about="the network of the VSRM paper",
            quality="33.11 dB PSNR on REDS4 by its authors' weights, which are not public",
        ),
        _UNPUBLISHED(
            name="vsrm-ablation",
            config=VSRM_ABLATION,
            parameters=8_613_135,
            about="the smaller network of the VSRM paper's ablations",
            quality="31.09 dB PSNR on REDS4 by its authors' weights, which are not public",
        ),
    )
}


@dataclass(frozen=True)
class DetailPair:
    """Two weight files of one network that `--detail` interpolates.

    One is fine-tuned from the other, so interpolated weights work as well.

    Attributes:
        soft: The name with the higher PSNR; detail 0.
        sharp: The name with the sharper frames; detail 1.
    """

    soft: str
    sharp: str


PAIRS: tuple[DetailPair, ...] = (DetailPair("vsrm-t-real", "vsrm-t-sharp"),)


def find_detail_pair(name: str) -> DetailPair | None:
    """The pair that a name belongs to, or None."""
    return next((pair for pair in PAIRS if name in (pair.soft, pair.sharp)), None)


def resolve_detail(name: str, detail: float | None) -> float | None:
    """Resolve the detail of a network.

    Args:
        name: Of the network.
        detail: The option, 0 to 1; None if it is not given.

    Returns:
        0 to 1; None if the network belongs to no pair.

    Raises:
        UsageError: If a detail is given for a network without a pair.
    """
    pair = find_detail_pair(name)
    if pair is None:
        if detail is None:
            return None
        others = " or ".join(f"--model {pair.soft}" for pair in PAIRS)
        hint = f"; give it with {others}" if others else ""
        raise UsageError(f'"{name}" has no second weight file for --detail{hint}.')
    return float(name == pair.sharp) if detail is None else detail


def interpolation_shares(name: str, detail: float | None) -> tuple[tuple[str, float], ...]:
    """The names whose weights are interpolated, and the share of each.

    Args:
        name: Of the network.
        detail: 0 to 1; None for the name alone.

    Raises:
        UsageError: If there is a detail and the name belongs to no pair.
    """
    pair = None if resolve_detail(name, detail) is None else find_detail_pair(name)
    if detail is None or pair is None:
        return ((name, 1.0),)
    shares = ((pair.soft, 1 - detail), (pair.sharp, detail))
    return tuple((part, share) for part, share in shares if share)
