"""Sound and subtitles: carried from one file to another packet by packet, as they are.

Nothing is decoded, so nothing is lost. Language, title and disposition go along; times keep
their distance to those of the video.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from io import BytesIO
from math import lcm
from pathlib import Path

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Discard, Stream

from vsrm_cli.errors import OutputError
from vsrm_cli.media.probe import open_container, video_stream

# The containers that keep times and colors, by the end of the file's name.
CONTAINERS = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "matroska",
    ".webm": "webm",
}

# Packets of different streams may lie this far out of order in a file.
_DISORDER = Fraction(5)
_FAULTS_IN_A_ROW = 1000
# Facts about the old file and its encoder that are not true of the new one.
_STALE = (
    *("major_brand", "minor_version", "compatible_brands", "encoder", "vendor_id"),
    *("duration", "bps", "number_of_", "_statistics"),
)


@cache
def supported_codecs(suffix: str) -> set[str]:
    """Names of all codecs that the container of this file name ending can hold."""
    with av.open(f"name{suffix}", "w", format=CONTAINERS[suffix]) as container:
        return container.supported_codecs


class CopiedStreams:
    """All sound and subtitle streams of one file, on their way into another.

    Attributes:
        ticks_per_second: The least common multiple of the streams' clocks.
    """

    def __init__(
        self,
        path: Path,
        *,
        first: Fraction | None,
        end: Fraction | None,
        shift: Fraction,
    ) -> None:
        """Open the file.

        Args:
            path: The source.
            first: Leave out packets that begin earlier, in seconds on the clock of the source.
            end: Leave out packets that begin at this time or later, on the same clock.
            shift: Seconds to take off every time.

        Raises:
            InputError: If the file cannot be read.
        """
        self._path = path
        self._first = first
        self._end = end
        self._shift = shift
        self._container: InputContainer = open_container(path)
        self._sources: list[Stream] = [
            s for s in self._container.streams if s.type in ("audio", "subtitle")
        ]
        self._targets: dict[int, Stream] = {}
        self._next_ticks: dict[int, int] = {}
        self._last_dts: dict[int, int] = {}
        self._pending: Packet[Stream] | None = None
        clocks = [s.time_base for s in self._sources if s.time_base]
        self.ticks_per_second = lcm(*(clock.denominator for clock in clocks))

    def check(self, suffix: str, video_codec: str) -> None:
        """Make sure that a container can hold every stream.

        Raises:
            OutputError: If it cannot; names the stream and a container that can.
        """
        for stream in self._sources:
            if stream.codec_context is None:
                raise OutputError(
                    f"Stream {stream.index} ({stream.type}) has a format that cannot be copied; "
                    "remove it from the input with another program first."
                )
            if not _can_hold(suffix, stream):
                raise OutputError(
                    f"A {suffix} file cannot hold {_describe(stream)}; {self._advice(video_codec)}."
                )

    def add_to(self, output: OutputContainer, video: Stream) -> None:
        """Announce the streams to the output, before its header is written.

        Args:
            output: Has no header yet.
            video: Its video stream, which gets the tags of that of the source.
        """
        output.metadata.update(_lasting(self._container.metadata))
        pictures = video_stream(self._container, self._path)
        video.metadata.update(_lasting(pictures.metadata))
        video.disposition = pictures.disposition
        for source in self._sources:
            target = output.add_stream_from_template(source)
            target.metadata.update(_lasting(source.metadata))
            target.disposition = source.disposition
            self._targets[source.index] = target
        for stream in self._container.streams:
            if stream.index not in self._targets:
                stream.discard = Discard.all
        if self._targets and self._first is not None and self._first - _DISORDER > 0:
            try:
                self._container.seek(int((self._first - _DISORDER) * av.time_base))
            except av.FFmpegError:  # not every container can jump; then all is read
                self._container.seek(0)
        self._packets = self._read()

    def copy_until(self, time: Fraction | None, output: OutputContainer) -> None:
        """Copy all packets up to a time on the clock of the source; None stands for the rest."""
        if time is None and self._end is not None:
            time = self._end + _DISORDER
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = None
            if packet is None:
                return
            begin = self._begin(packet)
            if time is not None and begin > time:
                self._pending = packet
                return
            if self._first is not None and begin < self._first:
                continue
            if self._end is not None and begin >= self._end:
                continue
            self._prepare(packet)
            output.mux(packet)

    def close(self) -> None:
        """Close the source."""
        self._container.close()

    def _read(self) -> Iterator[Packet[Stream]]:
        """Read the packets of the copied streams, past what cannot be read."""
        if not self._sources:
            return
        faults = 0
        packets = self._container.demux(self._sources)
        while faults <= _FAULTS_IN_A_ROW:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                faults += 1
                packets = self._container.demux(self._sources)
                continue
            if packet is None:
                return
            faults = 0
            if packet.size and not packet.is_corrupt and not _is_gap(packet):
                self._complete(packet)
                yield packet

    def _complete(self, packet: Packet[Stream]) -> None:
        """Fill in the times that a file left out."""
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is None:
            packet.pts = self._next_ticks.get(packet.stream.index, 0)
        if packet.dts is None:
            packet.dts = packet.pts
        self._next_ticks[packet.stream.index] = packet.dts + (packet.duration or 1)

    def _begin(self, packet: Packet[Stream]) -> Fraction:
        assert packet.pts is not None
        return packet.pts * packet.time_base

    def _prepare(self, packet: Packet[Stream]) -> None:
        assert packet.pts is not None
        assert packet.dts is not None
        ticks = round(self._shift / packet.time_base)
        packet.pts -= ticks
        packet.dts = min(packet.dts - ticks, packet.pts)
        index = packet.stream.index
        if packet.dts <= self._last_dts.get(index, packet.dts - 1):
            # Muxers refuse a step back in time; a file that takes one is damaged there.
            packet.dts = self._last_dts[index] + 1
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts
        packet.stream = self._targets[index]

    def _advice(self, video_codec: str) -> str:
        """Say which container can hold everything."""
        for suffix in (".mkv", ".mp4", ".mov"):
            holds_sources = all(_can_hold(suffix, stream) for stream in self._sources)
            if holds_sources and video_codec in supported_codecs(suffix):
                return f"name the output {suffix} instead"
        return "no container holds all streams, remove some with another program first"


def _can_hold(suffix: str, stream: Stream) -> bool:
    """Whether a container takes a copy of a stream: asked of its muxer, by a trial in memory.

    The muxers' own lists say yes too often, to FLAC in MOV for one.
    """
    if stream.codec_context is None:
        return False
    with av.open(BytesIO(), "w", format=CONTAINERS[suffix]) as trial:
        try:
            trial.add_stream_from_template(stream)
            trial.start_encoding()
        except (av.FFmpegError, ValueError):
            return False
    return True


def _describe(stream: Stream) -> str:
    kind = "sound" if stream.type == "audio" else "subtitles"
    language = f", {stream.language}" if stream.language else ""
    return f"stream {stream.index} ({kind}, {stream.codec_context.name}{language})"


def _is_gap(packet: Packet[Stream]) -> bool:
    """Whether a packet is an empty MP4 subtitle; muxers put their own between the others."""
    return packet.stream.codec_context.name == "mov_text" and bytes(packet)[:2] == b"\0\0"


def _lasting(metadata: dict[str, str]) -> dict[str, str]:
    """The metadata that stay true when a video is encoded anew."""
    lasting = {k: v for k, v in metadata.items() if not k.lower().startswith(_STALE)}
    # FFmpeg writes the title of an MP4 stream from "title", and reads it as "name".
    if "name" in lasting:
        lasting.setdefault("title", lasting.pop("name"))
    return lasting
