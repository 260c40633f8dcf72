"""What a job is asked to do, and what it has opened for that."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vsrm_cli.checkpoints.download import DownloadProgress
from vsrm_cli.encode.writer import SegmentedWriter
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import Progress
from vsrm_cli.upscale.plan import JobPlan
from vsrm_cli.upscale.resumable_reader import ResumableReader

LoadedAs = tuple[str, str, str]  # checksum of the weights, device, precision


@dataclass(frozen=True)
class Request:
    """The arguments of `upscale_video`, except the options."""

    src: Path
    dst: Path
    confirm: Callable[[JobPlan], bool] | None
    report: Callable[[Progress], None] | None
    report_transfer: Callable[[DownloadProgress], None] | None
    should_stop: Callable[[], bool]
    warn: Callable[[str], None]
    networks: dict[LoadedAs, Network]


@dataclass(frozen=True)
class Job:
    """A job whose input and output are open, and whose network is selected; see `resolve_model`."""

    request: Request
    options: UpscaleOptions
    model_reason: str
    source: ResumableReader
    output: SegmentedWriter
    journal: Journal
