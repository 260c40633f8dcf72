"""What a job is asked to do, and what it has opened for that."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vsrm_cli.checkpoints.download import Transfer
from vsrm_cli.encode.writer import SegmentedWriter
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.journal import Journal
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.pipeline import Progress
from vsrm_cli.upscale.plan import Plan
from vsrm_cli.upscale.source import Source

LoadedAs = tuple[str, str, str]  # checksum of the weights, device, precision


@dataclass(frozen=True)
class Order:
    """The arguments of `upscale_video`, except the options."""

    src: Path
    dst: Path
    confirm: Callable[[Plan], bool] | None
    report: Callable[[Progress], None] | None
    report_transfer: Callable[[Transfer], None] | None
    should_stop: Callable[[], bool]
    warn: Callable[[str], None]
    networks: dict[LoadedAs, Network]


@dataclass(frozen=True)
class Job:
    """A job whose input and output are open, and whose network is selected; see `resolve_model`."""

    order: Order
    options: UpscaleOptions
    model_reason: str
    source: Source
    output: SegmentedWriter
    journal: Journal
