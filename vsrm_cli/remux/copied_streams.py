"""Copy all streams except the main video from one file to another, packet by packet.

Nothing is re-encoded, with two exceptions: text subtitles are converted to the format of the
output's container, and audio that the container cannot hold is transcoded on request. Language,
title and disposition are copied; all streams stay in sync with the video.
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
from vsrm_cli.frame import FALLBACK_RATE
from vsrm_cli.media.clock_restarts import ContinuousClock
from vsrm_cli.media.containers import open_container, read_packets, video_stream
from vsrm_cli.remux import metadata
from vsrm_cli.remux.audio import AudioConverter
from vsrm_cli.remux.packet_times import PacketTimes
from vsrm_cli.remux.stream_mapping import (
    ALTERNATIVES,
    CONTAINERS,
    Audio,
    StreamPlan,
    plan_streams,
)
from vsrm_cli.remux.subtitles import SubtitleConverter, is_gap
from vsrm_cli.remux.trial import add_copy, can_hold, read_samples
from vsrm_cli.remux.verify import ExpectedOutput, ExpectedStream
from vsrm_cli.remux.wave_format import (
    MUXER_OPTIONS,
    correct_codec_ids,
    has_wave_format,
    supported_codecs,
)

if TYPE_CHECKING:  # in PyAV 18 only the stubs have this name
    from av.container.core import Chapter

# Packets of different streams may be this far out of order in a file, in seconds.
_DISORDER = Fraction(5)
# Packets before the start of an edit that prime the decoder: the last one, and this many seconds.
_PRIMING = Fraction(1, 25)
# Where parts of a file were joined, audio may overlap by this many seconds.
_MAX_DISPLACEMENT = Fraction(1, 5)
# Errors of muxers and decoders for damaged packets, unlike those of a full disk.
_DAMAGE = (av.InvalidDataError, av.ArgumentError, av.PatchWelcomeError)


class CopiedStreams:
    """Copies all streams of a file except the main video.

    Attributes:
        plans: What happens to each stream, in the order of the source.
        chapters: Of the output.
        tags: Global metadata of the output.
        ticks_per_second: The least common multiple of the time bases of the copied streams, in the
            source and in MP4.
        muxer_options: Options that the muxer needs for these streams.
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
            suffix: Of the output's file name, one of `CONTAINERS`.
            first: Skip packets that start earlier, in seconds on the clock of the source.
            end: Skip packets that start at this time or later, on the same clock.
            shift: Seconds to subtract from every time.
            audio: Whether audio is copied, transcoded or dropped.

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
        self.tags = metadata.tags_to_copy(self._container.metadata)
        self._video = video_stream(self._container, path)
        self._video_tags = metadata.stream_tags(CONTAINERS[suffix], self._video.metadata)
        self._dropped_timecode = self._drop_timecode()
        self.chapters: list[Chapter] = metadata.shift_chapters(
            self._container.chapters(), first=first, end=end, shift=shift
        )
        if CONTAINERS[suffix] in ("mp4", "mov"):
            self.chapters = metadata.adapt_chapters_to_mp4(self.chapters)
        self._sources: list[Stream] = [
            self._container.streams[plan.index] for plan in self.plans if plan.is_copied
        ]
        self._targets: dict[int, Stream] = {}
        self._expected: dict[int, ExpectedStream] = {}
        self._damaged: Counter[int] = Counter()
        self._displaced: Counter[int] = Counter()
        self._converters: dict[int, SubtitleConverter] = {}
        self._audio_converters: dict[int, AudioConverter] = {}
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
        """Check that no audio is dropped that another container can hold.

        Raises:
            OutputError: If it is; names the stream and the container.
        """
        dropped = [p for p in self.plans if p.kind == "audio" and not p.is_kept]
        for suffix in ALTERNATIVES if dropped and self._audio != "none" else ():
            streams = [s for s in self._container.streams if s.type == "audio"]
            container = CONTAINERS[suffix]
            if video_codec in supported_codecs(container) and all(
                can_hold(container, s, self._samples[s.index]) for s in streams
            ):
                raise OutputError(
                    f"A {self._suffix} file cannot hold {dropped[0].name}; "
                    f"name the output {suffix}, or give --audio transcode or none."
                )

    def add_to(self, output: OutputContainer, video: Stream) -> None:
        """Add the streams to the output.

        Args:
            output: Its header is not written yet.
            video: Its video stream, which gets the metadata of the source's.
        """
        output.metadata.update(self.tags)
        video.metadata.update(self._video_tags)
        video.disposition = self._video.disposition
        for plan in self.plans:
            if plan.is_kept:
                self._add_stream(output, plan)
        output.set_chapters(self.chapters)
        for stream in self._container.streams:
            if stream.index not in self._targets:
                stream.discard = Discard.all
        can_seek = not self._clock.restarts and self._targets
        if can_seek and self._first is not None and self._first - _DISORDER > 0:
            try:
                self._container.seek(int((self._first - _DISORDER) * av.time_base))
            except av.FFmpegError:  # this container cannot seek, so it is read from the start
                self._container.seek(0)
        self._packets = _without_hidden(self._read())

    @property
    def kept(self) -> list[str]:
        """Describe the copied and converted streams."""
        return [str(plan) for plan in self.plans if plan.is_kept]

    @property
    def dropped(self) -> list[str]:
        """Describe what the output cannot hold, and why."""
        dropped = [str(plan) for plan in self.plans if not plan.is_kept]
        tags = metadata.find_lost_tags(CONTAINERS[self._suffix], self.tags)
        if tags:
            dropped.append(
                f"tags {', '.join(tags)}: a {self._suffix} file cannot hold them; an .mkv may"
            )
        if self._dropped_timecode is not None:
            dropped.append(self._dropped_timecode)
        return dropped

    def expected(self, times: Sequence[int], clock: Fraction, last_duration: int) -> ExpectedOutput:
        """What the complete output must hold; the arguments are as in `ExpectedOutput`."""
        kept = [plan.kind for plan in self.plans if plan.is_kept]
        return ExpectedOutput(
            times,
            clock,
            last_duration,
            # How much of a damaged stream a muxer has used is unknown.
            streams={} if self._damaged else self._expected,
            attachments=kept.count("attachment"),
            covers=kept.count("cover art"),
            chapters=len(self.chapters),
        )

    @property
    def warnings(self) -> list[str]:
        """What was lost while copying, in sentences."""
        return (
            [
                f"{count} damaged packets of stream {index} were dropped"
                for index, count in self._damaged.items()
            ]
            + [
                f"timestamps of stream {index} jump back: {count} packets were moved to later "
                "times and may be out of sync with the video"
                for index, count in self._displaced.items()
                if count
            ]
            + [
                f"the color, position or overlap of {converter.lines_changed} lines of stream "
                f"{index} (subtitles) could not be kept in {converter.stream.codec_context.name}"
                for index, converter in self._converters.items()
                if converter.lines_changed
            ]
        )

    def copy_until(self, time: Fraction | None, output: OutputContainer) -> None:
        """Copy packets up to a time on the clock of the source; None copies the rest."""
        while self._covers:
            output.mux(self._covers.pop())
        if time is None and self._end is not None:
            time = self._end + _DISORDER
        while True:
            packet = self._pending or next(self._packets, None)
            self._pending = None
            if packet is None:
                while self._audio_converters:
                    index, converter = self._audio_converters.popitem()
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
        """Correct stream headers in the finished output that the muxer cannot write.

        Raises:
            OSError: If it cannot be written.
        """
        if self._wave_formats:
            with path.open("r+b") as file:
                correct_codec_ids(file, self._wave_formats)

    def close(self) -> None:
        """Close the source."""
        self._container.close()

    def _drop_timecode(self) -> str | None:
        """Remove a timecode that cannot be kept from the tags; return the reason."""
        timecode = metadata.timecode_of(self._video_tags, self.tags)
        if timecode is None:
            return None
        reason = "it is the timecode of the first frame, which is cut off"
        if self._first is None:
            rate = self._video.average_rate or self._video.guessed_rate or FALLBACK_RATE
            if metadata.keeps_timecode(CONTAINERS[self._suffix], timecode, rate):
                return None
            reason = f"a {self._suffix} file cannot hold it at this frame rate; an .mkv may"
        self.tags = metadata.remove_timecode(self.tags)
        self._video_tags = metadata.remove_timecode(self._video_tags)
        return f"timecode {timecode}: {reason}"

    def _add_stream(self, output: OutputContainer, plan: StreamPlan) -> None:
        source = self._container.streams[plan.index]
        if isinstance(source, AttachmentStream):
            metadata.add_attachment(output, source)
            return
        if plan.kind == "cover art":
            assert isinstance(source, VideoStream)
            with open_container(self._path) as container:
                image = metadata.read_cover(container, container.streams.video[_rank(source)])
            packet = metadata.add_cover(output, source, image)
            self._covers += [packet] if packet is not None else []
            return
        if plan.is_converted and isinstance(source, AudioStream):
            assert plan.becomes is not None
            audio = AudioConverter(source, output, plan.becomes)
            self._audio_converters[plan.index] = audio
            target = audio.stream
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
        target.metadata.update(metadata.stream_tags(CONTAINERS[self._suffix], source.metadata))
        target.disposition = source.disposition
        self._targets[plan.index] = target
        sample = self._samples[plan.index]
        self._expected[target.index] = ExpectedStream(
            plan.name,
            0,
            Fraction(0),
            Fraction(0),
            is_decodable=bool(sample.audio or sample.frames),
        )

    def _read(self) -> Iterator[Packet[Stream]]:
        """Read the packets of the copied streams, skipping what cannot be read."""
        if not self._sources:
            return
        for packet in read_packets(self._container, self._sources):
            if packet is None or not packet.size or packet.is_corrupt or is_gap(packet):
                continue
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
            if index in self._audio_converters:
                converted = self._audio_converters[index].convert(packet)
            elif index in self._converters:
                converted = self._converters[index].convert(packet)
        except _DAMAGE:
            self._damaged[index] += 1
            return
        self._write(index, converted, output)

    def _write(
        self, index: int, packets: Sequence[Packet[Stream]], output: OutputContainer
    ) -> None:
        """Write packets of one source stream."""
        target = self._targets[index]
        for packet in packets:
            self._prepare(packet)
            if CONTAINERS[self._suffix] == "nut" and (packet.pts or 0) < 0:
                continue  # NUT has no negative times; only packets that prime a decoder have them
            before = self._expected[target.index]
            self._expect(target.index, packet)
            packet.stream = target
            try:
                output.mux(packet)
            except _DAMAGE:
                self._expected[target.index] = before
                self._damaged[index] += 1

    def _expect(self, index: int, packet: Packet[Stream]) -> None:
        begin = self._begin(packet)
        end = begin + (packet.duration or 0) * packet.time_base
        before = self._expected[index]
        is_text = packet.stream.type == "subtitle"
        self._expected[index] = replace(
            before,
            packets=before.packets + 1,
            begin=min(before.begin, begin) if before.packets else begin,
            end=max(before.end, end) if before.packets else end,
            # MP4 splits overlapping subtitles.
            latest=None if is_text else max(before.latest or begin, begin),
        )

    def _prepare(self, packet: Packet[Stream]) -> None:
        assert packet.pts is not None
        assert packet.dts is not None
        ticks = round(self._shift / packet.time_base)
        packet.pts -= ticks
        packet.dts = min(packet.dts - ticks, packet.pts)
        index = packet.stream.index
        # Muxers need increasing dts, which a damaged file may not have. In subtitles they may be
        # equal: several lines are often shown at once.
        least = self._last_dts.get(index, packet.dts - 1) + (packet.stream.type != "subtitle")
        if packet.dts < least:
            self._displaced[index] += (least - packet.dts) * packet.time_base > _MAX_DISPLACEMENT
            packet.dts = least
            packet.pts = max(packet.pts, packet.dts)
        self._last_dts[index] = packet.dts


def _without_hidden(packets: Iterator[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Drop packets that the edit list of an MP4 file hides, except those that prime a decoder.

    Other containers have no edit lists and would show the hidden packets.
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
    """Ticks per second in which all times of a stream are integers; MP4 counts audio in samples."""
    clock = stream.time_base.denominator if stream.time_base else 1
    rate = stream.codec_context.sample_rate if isinstance(stream, AudioStream) else 1
    return lcm(clock, rate or 1)


def _rank(stream: Stream) -> int:
    """The index of a video stream among the video streams of its file."""
    return [s.index for s in stream.container.streams.video].index(stream.index)
