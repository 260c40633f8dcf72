"""A video file that is to be written: its options are checked, and nothing is open yet."""

from __future__ import annotations

from fractions import Fraction
from math import lcm
from pathlib import Path

import av

from vsrm_cli.encode.options import (
    EncodingOptions,
    check_limits,
    choose_codec,
    find_lost_metadata,
    plan_encoding,
)
from vsrm_cli.encode.video_track import MAX_TICKS_PER_SECOND, VideoTrack
from vsrm_cli.errors import OutputError
from vsrm_cli.files import check_output_path, temporary_path
from vsrm_cli.media.geometry import OutputShape
from vsrm_cli.media.probe import VideoInfo
from vsrm_cli.remux.copied_streams import CopiedStreams
from vsrm_cli.remux.metadata import muxer_options
from vsrm_cli.remux.stream_mapping import CONTAINERS, Audio, check_container_name
from vsrm_cli.remux.wave_format import supported_codecs


class VideoTarget:
    """A video file that is to be written.

    Attributes:
        path: The file.
        part: Where it grows until it is complete.
        container: FFmpeg's name of its container.
        plan: How its video is encoded.
        track: Its video, as it is encoded.
        shown_shape: The displayed size of its frames: containers but .nut store the rotation.
        lost: What the encoding cannot hold of the source, and why, in words.
    """

    def __init__(
        self,
        path: Path,
        *,
        source: VideoInfo,
        shape: OutputShape,
        encoding: EncodingOptions,
        start: Fraction | None = None,
        end: Fraction | None = None,
        overwrite: bool = False,
        folder: Path | None = None,
        audio: Audio = "copy",
    ) -> None:
        """Check everything that can be checked without opening the file.

        Args:
            path: The output; its ending chooses the container.
            source: The video that the frames come from, whose sound and subtitles are copied.
            shape: Of the frames of the output.
            encoding: The codec and its settings.
            start: Seconds after the first frame of the source at which the output begins; all times
                are shifted by as much.
            end: Seconds after the first frame of the source at which the output ends.
            overwrite: Replace an existing file, when the new one is complete.
            folder: Where the file grows; by default that of the file.
            audio: How the sound of the source is handled.

        Raises:
            UsageError: If a setting of the encoding can never work.
            OutputError: If the output cannot be written with these options.
        """
        size = (shape.width, shape.height)
        suffix = path.suffix.lower()
        encoding = choose_codec(encoding, path.suffix, bits=source.bits, size=size)
        self.plan = plan_encoding(encoding, source.pixel_format, hdr=source.hdr)
        check_container_name(path)
        check_output_path(path, inputs=[source.path], overwrite=overwrite)
        self.path = path
        self.part = temporary_path(path, folder)
        self.container = CONTAINERS[suffix]
        # Outputs begin near zero; all streams are shifted alike.
        shift = (start or Fraction(0)) + source.origin
        self.track = VideoTrack(source, shape, self.plan, suffix=suffix, shift=shift)
        check_limits(self.plan, size=size, time_base=self.track.time_base)
        self.shown_shape = self.track.shape
        if suffix != ".nut":
            self.shown_shape = self.shown_shape.upright(source)
        self.lost = find_lost_metadata(source, self.plan, shape.sample_aspect_ratio)
        if source.display_matrix is not None and suffix == ".nut":
            self.lost.append("the rotation: a .nut file cannot hold it; an .mkv may")
        able = [
            end for end, name in CONTAINERS.items() if self.plan.encoder in supported_codecs(name)
        ]
        if suffix not in able:
            way_out = f"use {', '.join(able)}, or " if able else ""
            raise OutputError(
                f"A {suffix} file cannot hold {encoding.codec} video here; {way_out}choose another "
                "--codec."
            )
        self._source = source
        self._range = (start, end)
        self._audio = audio

    def open_copies(self) -> CopiedStreams:
        """Open the source, to copy its other streams.

        Raises:
            OutputError: If audio is dropped that another container can hold.
        """
        start, end = self._range
        copies = CopiedStreams(
            self._source.path,
            suffix=self.path.suffix.lower(),
            first=None if not start else self._source.start + start,
            end=None if end is None else self._source.start + end,
            shift=self.track.shift,
            audio=self._audio,
        )
        try:
            copies.check(self.plan.encoder)
        except BaseException:
            copies.close()
            raise
        return copies

    def muxer_options(self, copies: CopiedStreams) -> dict[str, str]:
        """The options of the container."""
        if self.track.is_mp4:
            # The start of streams is in ticks of one clock, whose usual 1000 would round.
            clock = self.track.time_base.denominator
            ticks = lcm(clock, copies.ticks_per_second)
            if ticks > MAX_TICKS_PER_SECOND:  # then as fine as it can be
                ticks = MAX_TICKS_PER_SECOND - MAX_TICKS_PER_SECOND % clock
            options = muxer_options(self.container, copies.tags)
            # With the index at the front, browsers play the file while it loads.
            flags = "+".join(filter(None, ("faststart", options.get("movflags"))))
            return options | {"movie_timescale": str(ticks), "movflags": flags}
        # "default" flags stay as they were, and sound that begins a little early, to prime its
        # decoder, does not move all streams.
        options = {"default_mode": "passthrough", "avoid_negative_ts": "disabled"}
        return options | copies.muxer_options

    def failure(self, error: Exception) -> OutputError:
        """The error for a fault of the disk or the encoder."""
        advice = "make sure that the disk is not full"
        if isinstance(error, (av.InvalidDataError, av.ArgumentError)):
            advice = "a copied stream may be damaged; try another container"
        elif isinstance(error, (MemoryError, av.ExternalError)):
            advice = "the encoder may lack memory, close other programs or try another --codec"
        return OutputError(f"{self.path} could not be written ({error_text(error)}); {advice}.")


def error_text(error: Exception) -> str:
    """The message of an error of the system or of FFmpeg."""
    return getattr(error, "strerror", None) or str(error)
