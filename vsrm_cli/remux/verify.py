"""Verify a finished output before it is renamed.

The file is demuxed from disk. It must contain every frame at its time and every copied stream from
start to end, and the start of each stream must decode.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Stream

from vsrm_cli.errors import CheckFailed
from vsrm_cli.media.containers import open_container
from vsrm_cli.remux.metadata import is_cover
from vsrm_cli.remux.subtitles import is_gap

# Containers that round times, in seconds.
_ROUNDING = {"matroska": Fraction(1, 1000)}
# Codecs whose packets muxers or demuxers merge or split.
_REGROUPED = ("pcm_", "adpcm_", "eac3", "truehd", "mlp")
# The ends of audio streams may differ by this: some containers count encoder padding.
_PADDING_SECONDS = Fraction(1, 10)
# A decoder returns its first frame within this many packets.
_PACKETS_DECODED = 100


@dataclass(frozen=True, slots=True)
class ExpectedStream:
    """What the output must hold of one copied stream.

    Attributes:
        name: For messages.
        packets: Their number.
        begin: When the earliest begins, in seconds on the clock of the output.
        end: When the latest ends, by its duration.
        latest: When the latest begins; None if unknown.
        is_decodable: Whether the source could be decoded.
    """

    name: str
    packets: int
    begin: Fraction
    end: Fraction
    latest: Fraction | None = None
    is_decodable: bool = False


@dataclass(frozen=True, slots=True)
class ExpectedOutput:
    """What a finished file must hold.

    Attributes:
        times: When each frame of the main video is shown, in ticks of `clock`, increasing.
        clock: Length of a tick in seconds.
        last_duration: Ticks that the last frame is shown.
        streams: The other streams, by their index in the output.
        attachments: Number of attachments without cover art.
        covers: Number of cover images.
        chapters: Number of chapters.
    """

    times: Sequence[int]
    clock: Fraction
    last_duration: int
    streams: dict[int, ExpectedStream] = field(default_factory=dict)
    attachments: int = 0
    covers: int = 0
    chapters: int = 0


def verify_file(path: Path, expected: ExpectedOutput) -> None:
    """Check that a file holds what is expected.

    Args:
        path: A complete file; its main video is the first stream.
        expected: What it must hold.

    Raises:
        CheckFailed: If anything is missing, duplicated, or shown at another time.
    """
    with open_container(path) as container:
        tracks = _read_tracks(container)
        kind = container.format.name.split(",")[0]
        rounding = _ROUNDING.get(kind, Fraction(0))
        _compare_frames(tracks[0], expected, rounding=rounding)
        _decode_beginning(path, 0, "the video")
        if kind == "mov":  # other containers do not store the duration of a frame
            shown = tracks[0].durations[tracks[0].latest()] * tracks[0].clock
            _expect("seconds of the last frame", shown, expected.last_duration * expected.clock)
        # MP4 has no track for an audio stream without packets.
        missing, skipped = 1 + len(expected.streams) - _count_tracks(container), 0
        for index, stream in sorted(expected.streams.items()):
            if skipped < missing and not stream.packets:
                skipped += 1
            else:
                _compare_stream(tracks.get(index - skipped), stream, rounding=rounding)
                if stream.packets and stream.is_decodable:
                    _decode_beginning(path, index - skipped, stream.name)
        files = sum(s.type == "attachment" for s in container.streams)
        covers = sum(is_cover(s) for s in container.streams)
        _expect("attachments", files, expected.attachments)
        _expect("cover images", covers, expected.covers)
        _expect("chapters", len(container.chapters()), expected.chapters)


class _Track:
    """The times of all packets of one stream, in its ticks, in the order of the file."""

    def __init__(self, stream: Stream) -> None:
        self.codec = stream.codec_context.name
        self.clock = stream.time_base or Fraction(1)
        self.begins = array("q")
        self.durations = array("q")

    def latest(self) -> int:
        """The index of the packet that is shown last."""
        return max(range(len(self.begins)), key=self.begins.__getitem__)

    def end(self) -> Fraction:
        """When the latest packet ends, in seconds."""
        latest = self.latest()
        return (self.begins[latest] + self.durations[latest]) * self.clock


def _count_tracks(container: InputContainer) -> int:
    kinds = ("video", "audio", "subtitle")
    return sum(s.type in kinds and not is_cover(s) for s in container.streams)


def _read_tracks(container: InputContainer) -> dict[int, _Track]:
    # Data streams, such as a timecode track that a muxer adds for a tag, have no codec context.
    streams = [s for s in container.streams if s.codec_context is not None and not is_cover(s)]
    tracks = {stream.index: _Track(stream) for stream in streams}
    for packet in container.demux(streams):
        if not packet.size or is_gap(packet):
            continue
        track = tracks[packet.stream.index]
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None and packet.stream.index == 0:
            raise _failure("a frame has no time")
        if ticks is None:  # Matroska stores no negative times
            ticks = track.begins[-1] if track.begins else 0
        track.begins.append(ticks)
        track.durations.append(packet.duration or 0)
    return tracks


def _compare_frames(track: _Track, expected: ExpectedOutput, *, rounding: Fraction) -> None:
    _expect("frames", len(track.begins), len(expected.times))
    for ticks, due in zip(sorted(track.begins), expected.times, strict=True):
        time = due * expected.clock
        if abs(ticks * track.clock - time) > rounding / 2:
            raise _failure(_where("a frame", "is shown", ticks * track.clock, time))


def _compare_stream(track: _Track | None, stream: ExpectedStream, *, rounding: Fraction) -> None:
    if track is None or not track.begins:
        _expect(f"packets of {stream.name}", 0, stream.packets)
        return
    if track.codec.startswith(_REGROUPED):
        if track.end() < stream.end - _PADDING_SECONDS:
            raise _failure(_where(stream.name, "ends", track.end(), stream.end))
    else:
        _expect(f"packets of {stream.name}", len(track.begins), stream.packets)
        latest = max(track.begins) * track.clock
        expected = latest if stream.latest is None else stream.latest
        if abs(latest - expected) > max(rounding, track.clock):
            raise _failure(_where(f"the last packet of {stream.name}", "begins", latest, expected))
    begin = min(track.begins) * track.clock
    # Packets that prime a decoder may have negative times, which not every container stores.
    is_off = begin > 0 if stream.begin < 0 else abs(begin - stream.begin) > track.clock
    if is_off and abs(begin - stream.begin) > rounding:
        raise _failure(_where(stream.name, "begins", begin, stream.begin))


def _decode_beginning(path: Path, index: int, name: str) -> None:
    """Check that the first frame of a stream decodes."""
    with open_container(path) as container:
        stream = container.streams[index]
        for packet in islice(container.demux(stream), _PACKETS_DECODED):
            with suppress(av.FFmpegError):
                if packet.decode():
                    return
    raise _failure(f"{name} cannot be decoded")


def _where(what: str, does: str, found: Fraction, wanted: Fraction) -> str:
    return f"{what} {does} at {float(found):.6f} s, not at {float(wanted):.6f} s"


def _expect(what: str, found: int | Fraction, wanted: int | Fraction) -> None:
    if found != wanted:
        raise _failure(f"{found} {what} instead of {wanted}")


def _failure(finding: str) -> CheckFailed:
    return CheckFailed(
        f"The finished file failed its check ({finding}), so it was not kept; "
        "this is a bug in vsrm, please report it."
    )
