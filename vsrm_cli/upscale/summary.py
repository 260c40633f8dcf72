"""The summary of a finished job."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from vsrm_cli.encode.writer import FrameWriter
from vsrm_cli.inference.cuda_graphs import ReplayedNetwork
from vsrm_cli.inference.memory import PeakMemory
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.models.network import Network
from vsrm_cli.upscale.devices import DTYPE_NAMES
from vsrm_cli.upscale.options import UpscaleOptions
from vsrm_cli.upscale.plan import expected_frames
from vsrm_cli.upscale.resumable_reader import ResumableReader


@dataclass(frozen=True)
class InferenceSummary:
    """How the network ran; see `JobSummary` for the names."""

    model: str
    model_scale: int
    device: str
    dtype: str
    tile: int | None
    decoder: str
    equal: bool
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls, source: ResumableReader, network: Network, restorer: Restorer, memory: PeakMemory
    ) -> Self:
        """How a network ran in this process."""
        return cls(
            model=network.name,
            model_scale=network.scale,
            device=str(network.device),
            dtype=DTYPE_NAMES[network.dtype],
            tile=restorer.tile,
            decoder=source.decoder,
            equal=True,
            peak_memory_bytes=memory.read_bytes(),
            warnings=network_warnings(restorer),
        )


@dataclass(frozen=True)
class JobSummary:
    """The summary of a job; `as_dict` gives what `--json` prints.

    Attributes:
        input: The file read.
        output: The file written.
        frames_in: Frames decoded.
        frames_out: Frames written; always equal to `frames_in`.
        frames_resumed: Of these, those that an earlier call had finished.
        truncated: Whether the input was damaged or cut short, so that frames are missing.
        frames_resized: Frames of another size than the first one, which were scaled to it.
        frames_reshaped: Frames whose pixels have another shape than those of the first one.
        width: Of the output as players show it, in pixels.
        height: Likewise.
        model: Name of the network.
        model_scale: How many times it enlarges; the output was resampled from that.
        model_reason: Why it was selected; empty if the user chose it.
        detail: The mixture of its two weight files, 0 to 1; None if it has one.
        device: Where it ran; several are separated by commas.
        dtype: The precision: fp32, fp16 or bf16.
        decoder: "software", or FFmpeg's name of the hardware interface.
        encoder: FFmpeg's name of the encoder; "y4m" for a pipe.
        window: Frames that it saw together.
        tile: Side of a tile in pixels of the input; None for whole frames.
        equal: Whether all frames were computed on the same hardware with the same settings, so that
            they do not depend on which device computed them.
        elapsed_s: Seconds from call to return.
        fps: Frames per second over that time.
        kept: The streams that were copied, in words.
        dropped: What the output cannot hold of the input, and why.
        assumed: How colors were read that the input does not specify.
        peak_memory_bytes: During the job: on CUDA of all tensors, elsewhere of a process; None if
            the system does not report it (Windows).
        warnings: What the user should know, in sentences.
    """

    input: str
    output: str
    frames_in: int
    frames_out: int
    frames_resumed: int
    truncated: bool
    frames_resized: int
    frames_reshaped: int
    width: int
    height: int
    model: str
    model_scale: int
    model_reason: str
    detail: float | None
    device: str
    dtype: str
    decoder: str
    encoder: str
    window: int
    tile: int | None
    equal: bool
    elapsed_s: float
    fps: float
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    assumed: tuple[str, ...]
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]

    @classmethod
    def of(
        cls,
        source: ResumableReader,
        output: FrameWriter,
        options: UpscaleOptions,
        run: InferenceSummary,
        *,
        path: Path,
        model_reason: str,
        frames_resumed: int,
        seconds: float,
    ) -> Self:
        """Summarize a job by its input, its output and how the network ran."""
        shown = output.shown_shape
        return cls(
            input=str(source.path),
            output=str(path),
            frames_in=source.frames_read,
            frames_out=output.frames_written,
            frames_resumed=frames_resumed,
            truncated=source.truncated,
            frames_resized=source.faults.resized,
            frames_reshaped=source.faults.reshaped,
            width=shown.width,
            height=shown.height,
            model=run.model,
            model_scale=run.model_scale,
            model_reason=model_reason,
            detail=options.detail,
            device=run.device,
            dtype=run.dtype,
            decoder=run.decoder,
            encoder=output.plan.encoder,
            window=options.window,
            tile=run.tile,
            equal=run.equal,
            elapsed_s=round(seconds, 3),
            fps=round((output.frames_written - frames_resumed) / seconds, 3),
            kept=tuple(output.kept),
            dropped=tuple(output.dropped),
            assumed=source.info.assumed,
            peak_memory_bytes=run.peak_memory_bytes,
            warnings=(*run.warnings, *_warnings(source, options), *output.warnings),
        )

    def as_dict(self) -> dict[str, Any]:
        """All values by name, without the warnings."""
        facts = asdict(self)
        del facts["warnings"]
        return facts


def _warnings(source: ResumableReader, options: UpscaleOptions) -> tuple[str, ...]:
    warnings = []
    faults = source.faults
    if faults.resized:
        warnings.append(
            f"the frame size of {source.info.path} changes: "
            f"{faults.resized} frames were scaled to the size of the first one"
        )
    if faults.reshaped:
        warnings.append(
            f"the shape of the pixels of {source.info.path} changes on the way: "
            f"{faults.reshaped} frames are stretched or squeezed, because a file holds one "
            "aspect ratio; use --start and --end to make a file of each part"
        )
    if not source.truncated:
        return tuple(warnings)
    expected = expected_frames(source.info, options)
    of_about = "" if expected is None else f" of about {expected}"
    warnings.append(
        f"{source.info.path} is damaged or its end is missing ({faults.damaged} damaged "
        f"packets): {source.frames_read}{of_about} frames could be read, and all of them were kept"
    )
    return tuple(warnings)


def network_warnings(restorer: Restorer) -> tuple[str, ...]:
    """What slowed a network down, in sentences."""
    network = restorer.network
    if isinstance(network, ReplayedNetwork) and network.disabled_reason is not None:
        return (f"slower, without CUDA graphs: {network.disabled_reason}",)
    return ()
