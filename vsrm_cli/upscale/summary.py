"""What a job did, told when it is done."""

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Run:
    """How the network ran; see `Summary` for the names."""

    model: str
    model_scale: int
    device: str
    dtype: str
    tile: int | None
    decoder: str
    equal: bool
    peak_memory_bytes: int | None
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Summary:
    """What the job did; `as_dict` gives what `--json` prints.

    Attributes:
        input: The file read.
        output: The file written.
        frames_in: Frames decoded.
        frames_out: Frames written; always equal to `frames_in`.
        frames_resumed: Of these, how many an earlier call had finished.
        truncated: Whether the input had damage or no end, so that frames are missing.
        width: Of the output, in pixels.
        height: Of the output, in pixels.
        model: Name of the network.
        model_scale: How many times it enlarges; the output was resampled from that.
        model_reason: Why it was taken; empty where the user chose.
        detail: Where between two weight files of it, 0 to 1; None where there is one.
        device: Where it ran; several with commas between them.
        dtype: The precision it ran in: fp32, fp16 or bf16.
        decoder: "software", or FFmpeg's name of the interface to the hardware that decoded.
        encoder: FFmpeg's name of the encoder; "y4m" for a pipe.
        window: Frames that it saw together.
        tile: Side of a tile in pixels of the input; None for whole frames.
        equal: Whether all frames were made on the same hardware with the same settings, so that
            they do not depend on which device made them.
        elapsed_s: Seconds from call to return.
        fps: Frames per second over that time.
        kept: The streams beside the picture that went along, in words.
        dropped: What of the input the output cannot hold, and why.
        assumed: What the input leaves open of its colors, and how they were read.
        peak_memory_bytes: Since the job began, on CUDA what the tensors took at most, elsewhere the
            largest size of a process; None where the system does not tell (Windows).
        warnings: What the user should know, in sentences.
    """

    input: str
    output: str
    frames_in: int
    frames_out: int
    frames_resumed: int
    truncated: bool
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

    def as_dict(self) -> dict[str, Any]:
        """Give the facts, without the warnings, under their names."""
        facts = asdict(self)
        del facts["warnings"]
        return facts
