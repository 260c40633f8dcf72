"""The names a user may ask for, and what each of them is."""

from dataclasses import dataclass

from vsrm_cli.checkpoints.download import RemoteFile
from vsrm_cli.models.gsmamba import GSMConfig
from vsrm_cli.models.presets import GSM_FULL, GSM_T, VSRM_ABLATION, VSRM_FULL, VSRM_T
from vsrm_cli.models.vsrm import VSRMConfig


@dataclass(frozen=True)
class ModelEntry:
    """A network that a user may ask for by name.

    Attributes:
        name: What the user types.
        network: The kind of network, as its weight files name it.
        config: Size of the network.
        scale: How many times larger the sides of its frames become.
        parameters: Trainable numbers.
        about: What it is, in one clause.
        trained_on: The material, or None where there are no weights.
        degradation: The footage for which it was trained.
        licence: Of the weights.
        quality: What was measured or published, with its unit.
        quality_source: Where that stands.
        file: The weight file in the box, by its name.
        remote: The weight file in the network.
        how_to_get: What to do where there are neither.
    """

    name: str
    network: str
    config: VSRMConfig | GSMConfig
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


_TRAIN_IT = (
    "Train it (README, Training) and give the path of the file that you get, or use one with "
    "weights, such as 'vsrm-t'."
)

# The one that measured best on each kind of footage (weights/README.md).
FOR_CLEAN, FOR_COMPRESSED = "vsrm-t", "vsrm-t-real"

MODELS = {
    entry.name: entry
    for entry in (
        ModelEntry(
            name="vsrm-t",
            network="vsrm",
            config=VSRM_T,
            scale=4,
            parameters=829_872,
            about="VSRM's modules, narrow enough for a CPU; what clean footage gets",
            trained_on="free photos and videos, by this project; weights/README.md lists them",
            degradation="clean footage, shrunk by antialiased bicubic interpolation",
            licence="MIT",
            quality="27.61 dB PSNR-Y on 11 clips, bicubic 25.77",
            quality_source="weights/README.md",
            file="vsrm-t.safetensors",
        ),
        ModelEntry(
            name="vsrm-t-real",
            network="vsrm",
            config=VSRM_T,
            scale=4,
            parameters=829_872,
            about="the same network for compressed and noisy footage; what such footage gets",
            trained_on="free photos and videos, by this project; weights/README.md lists them",
            degradation="footage that was blurred, noisy, compressed (H.264, HEVC), or none of it",
            licence="MIT",
            quality="24.70 dB PSNR-Y on 11 clips behind H.264 at crf 28, bicubic 24.34",
            quality_source="weights/README.md",
            file="vsrm-t-real.safetensors",
        ),
        ModelEntry(
            name="gsm-t",
            network="gsm",
            config=GSM_T,
            scale=4,
            parameters=910_760,
            about="Gather-Scatter Mamba's modules, narrow enough for a CPU",
            trained_on="free photos and videos, by this project; weights/README.md lists them",
            degradation="clean footage, shrunk by antialiased bicubic interpolation",
            licence="MIT",
            quality="27.61 dB PSNR-Y on 11 clips, bicubic 25.77",
            quality_source="weights/README.md",
            file="gsm-t.safetensors",
        ),
        ModelEntry(
            name="gsm",
            network="gsm",
            config=GSM_FULL,
            scale=4,
            parameters=10_455_919,
            about="Gather-Scatter Mamba with its authors' weights; wants a GPU",
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
        ModelEntry(
            name="vsrm",
            network="vsrm",
            config=VSRM_FULL,
            scale=4,
            parameters=17_147_375,
            about="the network of the VSRM paper",
            trained_on=None,
            degradation=None,
            licence=None,
            quality="33.11 dB PSNR on REDS4 by its authors' weights, which are not public",
            quality_source="arXiv 2506.22762",
            how_to_get=_TRAIN_IT,
        ),
        ModelEntry(
            name="vsrm-ablation",
            network="vsrm",
            config=VSRM_ABLATION,
            scale=4,
            parameters=8_613_135,
            about="the smaller network of the VSRM paper's ablations",
            trained_on=None,
            degradation=None,
            licence=None,
            quality="31.09 dB PSNR on REDS4 by its authors' weights, which are not public",
            quality_source="arXiv 2506.22762",
            how_to_get=_TRAIN_IT,
        ),
    )
}
