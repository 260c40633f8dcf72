"""All streams but the picture, carried from one file to another packet by packet.

Nothing is decoded, so nothing is lost; only plain text is rewritten where the new container has
another format for it, and sound is encoded where it cannot be held and the user says so. Language,
title and disposition go along; times keep their distance to those of the video.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from math import lcm
from pathlib import Path
from typing import TYPE_CHECKING

import av
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import AttachmentStream, Discard, Stream
from av.subtitles.stream import SubtitleStream
from av.video.stream import VideoStream

from vsrm_cli.errors import OutputError
from vsrm_cli.media.clock_restarts import ContinuousClock
from vsrm_cli.media.containers import open_container, video_stream
from vsrm_cli.remux import metadata as extras
from vsrm_cli.remux.packet_times import PacketTimes
from vsrm_cli.remux.sound import SoundConverter
from vsrm_cli.remux.stream_mapping import (
    CONTAINERS,
    ROOMY,
    Audio,
    StreamPlan,
    plan_streams,
    supported_codecs,
)
from vsrm_cli.remux.subtitles import SubtitleConverter, is_gap
from vsrm_cli.remux.trial import add_copy, can_hold, read_samples
from vsrm_cli.remux.verify import Carried, Expected
from vsrm_cli.remux.wave_format import MUXER_OPTIONS, correct_names, has_wave_format

if TYPE_CHECKING:  # in PyAV 18 only the stubs have this name
    from av.container.core import Chapter

# Packets of different streams may lie this far out of order in a file.
_DISORDER = Fraction(5)
# Hidden sound makes a decoder ready for what is heard next: the last packet, and so many seconds.
_PRIMING = Fraction(1, 25)
# Where parts of a file were joined, sound may overlap a little.
_MOST_DISPLACED = Fraction(1, 5)
_FAULTS_IN_A_ROW = 1000
# What muxers and decoders say of damaged packets; a full disk is something else.
_DAMAGE = (av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError)


class CopiedStreams:
    """All streams of one file but the main video, on their way into another.

    Attributes:
        plans: What becomes of each, in the order of the source.
        chapters: Those of the output.
        tags: Those of the whole file that stay true.
        ticks_per_second: The least common multiple of the clocks of those that are copied, in
            the source and in MP4.
        muxer_options: What the muxer must be told for their sake.
    """

    def __init__(
        self,
        path: Path,
        *,
        suffix: str,
        first: Fraction | None,
        end: Fraction | None,
        shift: Fraction,
        audio: Audio = "copy",
    ) -> None:
        """Open the file.

        Args:
            path: The source.
            suffix: The end of the output's name, one of `CONTAINERS`.
            first: Leave out packets that begin earlier, in seconds on the clock of the source.
            end: Leave out packets that begin at this time or later, on the same clock.
            shift: Seconds to take off every time.
            audio: What is done with sound.

        Raises:
            InputError: If the file cannot be read.
        """
        self._path = path
        self._suffix = suffix
        self._first = first
        self._end = end
        self._shift = shift
        self._audio = audio
        self._container: InputContainer = open_container(path)
        self._samples = read_samples(path)
        self.plans = plan_streams(self._container, path, suffix, self._samples, audio)
        self.tags = extras.lasting(self._container.metadata)
        self._pictures = video_stream(self._container, path)
        self._picture_tags = extras.stream_tags(CONTAINERS[suffix], self._pictures.metadata)
        self._lost_timecode = self._drop_timecode()
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
        self._displaced: Counter[int] = Counter()
        self._converters: dict[int, SubtitleConverter] = {}
        self._sound_converters: dict[int, SoundConverter] = {}
        self._covers: list[Packet[Stream]] = []
        self._times = PacketTimes()
        self._clock = ContinuousClock(path)
        self._last_dts: dict[int, int] = {}
        self._pending: Packet[Stream] | None = None
        self.ticks_per_second = lcm(*map(_ticks_per_second, self._sources))
        renamed = [s for s in self._sources if has_wave_format(CONTAINERS[suffix], s)]
        self.muxer_options = MUXER_OPTIONS if renamed else {}
        self._wave_formats: list[bytes] = []

    def check(self, video_codec: str) -> None:
        """Make sure that no sound is lost that another container would keep.

        Raises:
            OutputError: If it is; names the stream and the container.
        """
        silenced = [p for p in self.plans if p.kind == "sound" and not p.is_kept]
        for suffix in ROOMY if silenced and self._audio != "none" else ():
            sounds = [s for s in self._container.streams if s.type == "audio"]
            if video_codec in supported_codecs(suffix) and all(
                can_hold(CONTAINERS[suffix], s, self._samples[s.index]) for s in sounds
            ):
                raise OutputError(
                    f"A {self._suffix} file cannot hold {silenced[0].name}; "
                    f"name the output {suffix}, or give --audio transcode or none."
                )

    def add_to(self, output: OutputContainer, video: Stream) -> None:
        """Announce the streams to the output, before its header is written.

        Args:
            output: Has no header yet.
            video: Its video stream, which gets the tags of that of the source.
        """
        output.metadata.update(self.tags)
        video.metadata.update(self._picture_tags)
        video.disposition = self._pictures.disposition
        for plan in self.plans:
            if plan.is_kept:
                self._add_stream(output, plan)
        output.set_chapters(self.chapters)
        for stream in self._container.streams:
            if stream.index not in self._targets:
                stream.discard = Discard.all
        can_jump = not self._clock.restarts and self._targets
        if can_jump and self._first is not None and self._first - _DISORDER > 0:
            try:
                self._container.seek(int((self._first - _DISORDER) * av.time_base))
            except av.FFmpegError:  # not every container can jump; then all is read
                self._container.seek(0)
        self._packets = _without_hidden(self._read())

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
        if self._lost_timecode is not None:
            dropped.append(self._lost_timecode)
        return dropped

    def expected(self, times: Sequence[int], clock: Fraction, last_duration: int) -> Expected:
        """What the output must hold when all is copied; the arguments are as in `Expected`."""
        kept = [plan.kind for plan in self.plans if plan.is_kept]
        return Expected(
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
        return (
            [
                f"{count} damaged packets of stream {index} were dropped"
                for index, count in self._damaged.items()
            ]
            + [
                f"the time of stream {index} goes back in the middle: {count} packets are later "
                "than they were, and may be out of step with the picture"
                for index, count in self._displaced.items()
                if count
            ]
            + [
                f"the color, place or overlap of {converter.lines_changed} lines of stream {index} "
                f"(subtitles) could not be kept in {converter.stream.codec_context.name}"
                for index, converter in self._converters.items()
                if converter.lines_changed
            ]
        )

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
                while self._sound_converters:
                    index, converter = self._sound_converters.popitem()
                    self._write(index, converter.finish(), output)
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

    def correct(self, path: Path) -> None:
        """Correct what the muxer could not be told, in the finished output.

        Raises:
            OSError: If it cannot be written.
        """
        if self._wave_formats:
            with path.open("r+b") as file:
                correct_names(file, self._wave_formats)

    def close(self) -> None:
        """Close the source."""
        self._container.close()

    def _drop_timecode(self) -> str | None:
        """Take the timecode out of the tags where it cannot stay; say why, in words."""
        timecode = extras.timecode_of(self._picture_tags, self.tags)
        if timecode is None:
            return None
        reason = "it is that of the beginning, which is cut off"
        if self._first is None:
            rate = self._pictures.average_rate or self._pictures.guessed_rate or Fraction(25)
            if extras.keeps_timecode(CONTAINERS[self._suffix], timecode, rate):
                return None
            reason = f"a {self._suffix} file cannot hold it at this frame rate; an .mkv may"
        self.tags = extras.without_timecode(self.tags)
        self._picture_tags = extras.without_timecode(self._picture_tags)
        return f"timecode {timecode}: {reason}"

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
        if plan.is_converted and isinstance(source, AudioStream):
            assert plan.becomes is not None
            sound = SoundConverter(source, output, plan.becomes)
            self._sound_converters[plan.index] = sound
            target = sound.stream
        elif plan.is_converted:
            assert isinstance(source, SubtitleStream)
            assert plan.becomes is not None
            converter = SubtitleConverter(source, output, plan.becomes)
            self._converters[plan.index] = converter
            target = converter.stream
        else:
            target = add_copy(output, source)
            if has_wave_format(CONTAINERS[self._suffix], source):
                self._wave_formats.append(target.codec_context.extradata or b"")
        target.metadata.update(extras.stream_tags(CONTAINERS[self._suffix], source.metadata))
        target.disposition = source.disposition
        self._targets[plan.index] = target
        sample = self._samples[plan.index]
        self._carried[target.index] = Carried(
            plan.name,
            0,
            Fraction(0),
            Fraction(0),
            is_decodable=bool(sample.sound or sample.pictures),
        )

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
                self._times.complete(packet)
                self._clock.move(packet)
                yield packet

    def _begin(self, packet: Packet[Stream]) -> Fraction:
        assert packet.pts is not None
        return packet.pts * packet.time_base

    def _copy(self, packet: Packet[Stream], output: OutputContainer) -> None:
        index = packet.stream.index
        converted = [packet]
        try:
            if index in self._sound_converters:
                converted = self._sound_converters[index].convert(packet)
            elif index in self._converters:
                converted = self._converters[index].convert(packet)
        except _DAMAGE:
            self._damaged[index] += 1
            return
        self._write(index, converted, output)

    def _write(
        self, index: int, packets: Sequence[Packet[Stream]], output: OutputContainer
    ) -> None:
        """Write packets of one stream of the source."""
        target = self._targets[index]
        for packet in packets:
            self._prepare(packet)
            if CONTAINERS[self._suffix] == "nut" and (packet.pts or 0) < 0:
                continue  # NUT knows no time before zero; only sound to prime a decoder lies there
            before = self._carried[target.index]
            self._note(target.index, packet)
            packet.stream = target
            try:
                output.mux(packet)
            except _DAMAGE:
                # What a muxer cannot read, a player could not play.
                self._carried[target.index] = before
                self._damaged[index] += 1

    def _note(self, index: int, packet: Packet[Stream]) -> None:
        begin = self._begin(packet)
        end = begin + (packet.duration or 0) * packet.time_base
        before = self._carried[index]
        is_text = packet.stream.type == "subtitle"
        self._carried[index] = replace(
            before,
            packets=before.packets + 1,
            begin=min(before.begin, begin) if before.packets else begin,
            end=max(before.end, end) if before.packets else end,
            # MP4 cuts subtitles that overlap in pieces.
            latest=None if is_text else max(before.latest or begin, begin),
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
            self._displaced[index] += (least - packet.dts) * packet.time_base > _MOST_DISPLACED
            packet.dts = least
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts


def _without_hidden(packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Leave out what the edit list of an MP4 file hides, but for what primes a decoder.

    Other containers know no edit list: what was cut away would be there again.
    """
    hidden: dict[int, deque[Packet[Stream]]] = {}
    for packet in packets:
        waiting = hidden.setdefault(packet.stream.index, deque())
        assert packet.pts is not None
        earliest = packet.pts - _PRIMING / packet.time_base
        while len(waiting) > 1 and (waiting[0].pts or 0) < earliest:
            waiting.popleft()
        if packet.is_discard:
            waiting.append(packet)
            continue
        yield from waiting
        waiting.clear()
        yield packet


def _ticks_per_second(stream: Stream) -> int:
    """In how many ticks all times of a stream are whole numbers; MP4 counts sound in samples."""
    clock = stream.time_base.denominator if stream.time_base else 1
    rate = stream.codec_context.sample_rate if isinstance(stream, AudioStream) else 1
    return lcm(clock, rate or 1)


def _rank(stream: Stream) -> int:
    """The place of a video stream among the video streams of its file."""
    return [s.index for s in stream.container.streams.video].index(stream.index)
