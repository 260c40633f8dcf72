"""All streams but the picture, carried from one file to another packet by packet.

Nothing is decoded, so nothing is lost; only plain text is rewritten where the new container has
another format for it. Language, title and disposition go along; times keep their distance to
those of the video.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from vsrm_cli.errors import OutputError
from vsrm_cli.media.probe import open_container, video_stream
from vsrm_cli.remux import metadata as extras
from vsrm_cli.remux.stream_mapping import (
    CONTAINERS,
    ROOMY,
    StreamPlan,
    can_hold,
    plan_streams,
    supported_codecs,
)
from vsrm_cli.remux.subtitles import SubtitleConverter, is_gap
from vsrm_cli.remux.verify import Carried, Promise

if TYPE_CHECKING:  # in PyAV 18 only the stubs have this name
    from av.container.core import Chapter

# Packets of different streams may lie this far out of order in a file.
_DISORDER = Fraction(5)
_FAULTS_IN_A_ROW = 1000
# What muxers and decoders say of damaged packets; a full disk is something else.
_DAMAGE = (av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError)


class CopiedStreams:
    """All streams of one file but the main video, on their way into another.

    Attributes:
        plans: What becomes of each, in the order of the source.
        chapters: Those of the output.
        tags: Those of the whole file that stay true.
        ticks_per_second: The least common multiple of the clocks of those that are copied.
    """

    def __init__(
        self,
        path: Path,
        *,
        suffix: str,
        first: Fraction | None,
        end: Fraction | None,
        shift: Fraction,
    ) -> None:
        """Open the file.

        Args:
            path: The source.
            suffix: The end of the output's name, one of `CONTAINERS`.
            first: Leave out packets that begin earlier, in seconds on the clock of the source.
            end: Leave out packets that begin at this time or later, on the same clock.
            shift: Seconds to take off every time.

        Raises:
            InputError: If the file cannot be read.
        """
        self._path = path
        self._suffix = suffix
        self._first = first
        self._end = end
        self._shift = shift
        self._container: InputContainer = open_container(path)
        self.plans = plan_streams(self._container, path, suffix)
        self.tags = extras.lasting(self._container.metadata)
        self.chapters: list[Chapter] = extras.shifted_chapters(
            self._container.chapters(), first=first, end=end, shift=shift
        )
        if CONTAINERS[suffix] in ("mp4", "mov"):
            self.chapters = extras.led_in(self.chapters)
        self._sources: list[Stream] = [
            self._container.streams[plan.index] for plan in self.plans if plan.is_copied
        ]
        self._targets: dict[int, Stream] = {}
        self._carried: dict[int, Carried] = {}
        self._damaged: Counter[int] = Counter()
        self._converters: dict[int, SubtitleConverter] = {}
        self._covers: list[Packet[Stream]] = []
        self._next_ticks: dict[int, int] = {}
        self._last_dts: dict[int, int] = {}
        self._pending: Packet[Stream] | None = None
        clocks = [s.time_base for s in self._sources if s.time_base]
        self.ticks_per_second = lcm(*(clock.denominator for clock in clocks))

    def check(self, video_codec: str) -> None:
        """Make sure that no sound is lost that another container would keep.

        Raises:
            OutputError: If it is; names the stream and the container.
        """
        silenced = [p for p in self.plans if p.kind == "sound" and not p.is_kept]
        for suffix in ROOMY if silenced else ():
            sounds = [s for s in self._container.streams if s.type == "audio"]
            if all(can_hold(suffix, s) for s in sounds) and video_codec in supported_codecs(suffix):
                raise OutputError(
                    f"A {self._suffix} file cannot hold {silenced[0].name}; "
                    f"name the output {suffix} instead."
                )

    def add_to(self, output: OutputContainer, video: Stream) -> None:
        """Announce the streams to the output, before its header is written.

        Args:
            output: Has no header yet.
            video: Its video stream, which gets the tags of that of the source.
        """
        output.metadata.update(self.tags)
        pictures = video_stream(self._container, self._path)
        container = CONTAINERS[self._suffix]
        video.metadata.update(extras.stream_tags(container, pictures.metadata))
        video.disposition = pictures.disposition
        for plan in self.plans:
            if plan.is_kept:
                self._add_stream(output, plan)
        output.set_chapters(self.chapters)
        for stream in self._container.streams:
            if stream.index not in self._targets:
                stream.discard = Discard.all
        if self._targets and self._first is not None and self._first - _DISORDER > 0:
            try:
                self._container.seek(int((self._first - _DISORDER) * av.time_base))
            except av.FFmpegError:  # not every container can jump; then all is read
                self._container.seek(0)
        self._packets = self._read()

    @property
    def kept(self) -> list[str]:
        """What goes along, in words."""
        return [str(plan) for plan in self.plans if plan.is_kept]

    @property
    def dropped(self) -> list[str]:
        """What the output cannot hold, and why, in words."""
        dropped = [str(plan) for plan in self.plans if not plan.is_kept]
        tags = extras.lost_tags(CONTAINERS[self._suffix], self.tags)
        if tags:
            dropped.append(
                f"tags {', '.join(tags)}: a {self._suffix} file cannot hold them; an .mkv may"
            )
        return dropped

    def promise(self, times: Sequence[int], clock: Fraction, last_duration: int) -> Promise:
        """What the output must hold when all is copied; the arguments are as in `Promise`."""
        kept = [plan.kind for plan in self.plans if plan.is_kept]
        return Promise(
            times,
            clock,
            last_duration,
            # Of damaged streams nobody knows how much a muxer has made use of.
            carried={} if self._damaged else self._carried,
            attachments=kept.count("attachment"),
            covers=kept.count("cover picture"),
            chapters=len(self.chapters),
        )

    @property
    def warnings(self) -> list[str]:
        """What was lost on the way, in sentences."""
        return [
            f"{count} damaged packets of stream {index} were left out"
            for index, count in self._damaged.items()
        ] + [
            f"the color, place or overlap of {converter.lines_changed} lines of stream {index} "
            f"(subtitles) could not be kept in {converter.stream.codec_context.name}"
            for index, converter in self._converters.items()
            if converter.lines_changed
        ]

    def copy_until(self, time: Fraction | None, output: OutputContainer) -> None:
        """Copy all packets up to a time on the clock of the source; None stands for the rest."""
        while self._covers:
            output.mux(self._covers.pop())
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
            self._copy(packet, output)

    def close(self) -> None:
        """Close the source."""
        self._container.close()

    def _add_stream(self, output: OutputContainer, plan: StreamPlan) -> None:
        source = self._container.streams[plan.index]
        if isinstance(source, AttachmentStream):
            extras.add_attachment(output, source)
            return
        if plan.kind == "cover picture":
            assert isinstance(source, VideoStream)
            with open_container(self._path) as container:
                picture = extras.read_cover(container, container.streams.video[_rank(source)])
            packet = extras.add_cover(output, source, picture)
            self._covers += [packet] if packet is not None else []
            return
        if plan.is_converted:
            assert isinstance(source, SubtitleStream)
            assert plan.becomes is not None
            converter = SubtitleConverter(source, output, plan.becomes)
            self._converters[plan.index] = converter
            target = converter.stream
        else:
            target = output.add_stream_from_template(source, opaque=True)
        target.metadata.update(extras.stream_tags(CONTAINERS[self._suffix], source.metadata))
        target.disposition = source.disposition
        self._targets[plan.index] = target
        self._carried[target.index] = Carried(plan.name, 0, Fraction(0), Fraction(0))

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
            if packet.size and not packet.is_corrupt and not is_gap(packet):
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

    def _copy(self, packet: Packet[Stream], output: OutputContainer) -> None:
        index = packet.stream.index
        converter = self._converters.get(index)
        try:
            converted = packet if converter is None else converter.convert(packet)
        except _DAMAGE:
            self._damaged[index] += 1
            return
        if converted is None:
            return
        self._prepare(converted)
        if CONTAINERS[self._suffix] == "nut" and (converted.pts or 0) < 0:
            return  # NUT knows no time before zero; only sound that primes its decoder lies there
        target = self._targets[index]
        before = self._carried[target.index]
        self._note(target.index, converted)
        converted.stream = target
        try:
            output.mux(converted)
        except _DAMAGE:
            # What a muxer cannot read, a player could not play.
            self._carried[target.index] = before
            self._damaged[index] += 1

    def _note(self, index: int, packet: Packet[Stream]) -> None:
        begin = self._begin(packet)
        end = begin + (packet.duration or 0) * packet.time_base
        before = self._carried[index]
        self._carried[index] = replace(
            before,
            packets=before.packets + 1,
            begin=min(before.begin, begin) if before.packets else begin,
            end=max(before.end, end) if before.packets else end,
        )

    def _prepare(self, packet: Packet[Stream]) -> None:
        assert packet.pts is not None
        assert packet.dts is not None
        ticks = round(self._shift / packet.time_base)
        packet.pts -= ticks
        packet.dts = min(packet.dts - ticks, packet.pts)
        index = packet.stream.index
        # Muxers refuse a step back in time; a file that takes one is damaged there. Subtitles
        # may stand still: several lines are often shown at once.
        least = self._last_dts.get(index, packet.dts - 1) + (packet.stream.type != "subtitle")
        if packet.dts < least:
            packet.dts = least
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts


def _rank(stream: Stream) -> int:
    """The place of a video stream among the video streams of its file."""
    return [s.index for s in stream.container.streams.video].index(stream.index)
