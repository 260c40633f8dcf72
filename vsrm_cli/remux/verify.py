"""The last look at a finished file: does it hold what it was promised to hold?

The file is read again from the disk, packet by packet. Every frame must be there at its time, and
every stream that was copied, from its beginning to its end. The beginning of each stream is
decoded too. A file that fails does not get its name.
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

# These round every time to milliseconds.
_ROUNDING = {"matroska": Fraction(1, 1000)}
# Muxers or demuxers make one packet of several of these, or several of one.
_REGROUPED = ("pcm_", "adpcm_", "eac3", "truehd", "mlp")
# What the ends of sounds may differ by: padding of an encoder that one container counts.
_PADDING_SECONDS = Fraction(1, 10)
# Within so many packets, a decoder gives its first frame.
_PACKETS_DECODED = 100


@dataclass(frozen=True, slots=True)
class Carried:
    """What must be there of one stream that was copied.

    Attributes:
        name: What to call it in a message.
        packets: How many there are.
        begin: When the earliest begins, in seconds on the clock of the output.
        end: When the latest ends, as far as its packets say.
        latest: When the latest begins; None if nobody knows.
        is_decodable: Whether the source could be decoded.
    """

    name: str
    packets: int
    begin: Fraction
    end: Fraction
    latest: Fraction | None = None
    is_decodable: bool = False


@dataclass(frozen=True, slots=True)
class Expected:
    """What a finished file must hold.

    Attributes:
        times: When each frame of the main video is shown, in ticks of `clock`, rising.
        clock: Length of a tick in seconds.
        last_duration: Ticks that the last frame is shown.
        carried: The streams beside the main video, by their number in the output.
        attachments: How many files are attached, cover pictures not counted.
        covers: How many cover pictures there are.
        chapters: How many chapters there are.
    """

    times: Sequence[int]
    clock: Fraction
    last_duration: int
    carried: dict[int, Carried] = field(default_factory=dict)
    attachments: int = 0
    covers: int = 0
    chapters: int = 0


def verify_file(path: Path, expected: Expected) -> None:
    """Make sure that a file holds what it must.

    Args:
        path: A complete file; its main video is the first stream.
        expected: What it must hold.

    Raises:
        CheckFailed: If anything is missing, is there twice, or is shown at another time.
    """
    with open_container(path) as container:
        tracks = _read_tracks(container)
        kind = container.format.name.split(",")[0]
        rounding = _ROUNDING.get(kind, Fraction(0))
        _compare_frames(tracks[0], expected, rounding=rounding)
        _decode_beginning(path, 0, "the video")
        if kind == "mov":  # the others do not say how long a frame is shown
            shown = tracks[0].durations[tracks[0].latest()] * tracks[0].clock
            _expect("seconds of the last frame", shown, expected.last_duration * expected.clock)
        # MP4 makes no track of sound that has no packets.
        missing, skipped = 1 + len(expected.carried) - _count_tracks(container), 0
        for index, carried in sorted(expected.carried.items()):
            if skipped < missing and not carried.packets:
                skipped += 1
            else:
                _compare_stream(tracks.get(index - skipped), carried, rounding=rounding)
                if carried.packets and carried.is_decodable:
                    _decode_beginning(path, index - skipped, carried.name)
        files = sum(stream.type == "attachment" for stream in container.streams)
        covers = sum(is_cover(stream) for stream in container.streams)
        _expect("attachments", files, expected.attachments)
        _expect("cover pictures", covers, expected.covers)
        _expect("chapters", len(container.chapters()), expected.chapters)


class _Track:
    """The times of all packets of one stream, in its ticks, in the order of the file."""

    def __init__(self, stream: Stream) -> None:
        self.codec = stream.codec_context.name
        self.clock = stream.time_base or Fraction(1)
        self.begins = array("q")
        self.durations = array("q")

    def latest(self) -> int:
        """The place of the packet that is shown last."""
        return max(range(len(self.begins)), key=self.begins.__getitem__)

    def end(self) -> Fraction:
        """When the latest packet ends, in seconds."""
        latest = self.latest()
        return (self.begins[latest] + self.durations[latest]) * self.clock


def _count_tracks(container: InputContainer) -> int:
    kinds = ("video", "audio", "subtitle")
    return sum(s.type in kinds and not is_cover(s) for s in container.streams)


def _read_tracks(container: InputContainer) -> dict[int, _Track]:
    # Data streams, such as the timecode that a muxer makes of a tag, have no codec context.
    watched = [s for s in container.streams if s.codec_context is not None and not is_cover(s)]
    tracks = {stream.index: _Track(stream) for stream in watched}
    for packet in container.demux(watched):
        if not packet.size or is_gap(packet):
            continue
        track = tracks[packet.stream.index]
        ticks = packet.pts if packet.pts is not None else packet.dts
        if ticks is None and packet.stream.index == 0:
            raise _failure("a frame has no time")
        if ticks is None:  # Matroska gives none to what lies before zero
            ticks = track.begins[-1] if track.begins else 0
        track.begins.append(ticks)
        track.durations.append(packet.duration or 0)
    return tracks


def _compare_frames(track: _Track, expected: Expected, *, rounding: Fraction) -> None:
    _expect("frames", len(track.begins), len(expected.times))
    for ticks, due in zip(sorted(track.begins), expected.times, strict=True):
        time = due * expected.clock
        if abs(ticks * track.clock - time) > rounding / 2:
            raise _failure(_where("a frame", "is shown", ticks * track.clock, time))


def _compare_stream(track: _Track | None, carried: Carried, *, rounding: Fraction) -> None:
    if track is None or not track.begins:
        _expect(f"packets of {carried.name}", 0, carried.packets)
        return
    if track.codec.startswith(_REGROUPED):
        if track.end() < carried.end - _PADDING_SECONDS:
            raise _failure(_where(carried.name, "ends", track.end(), carried.end))
    else:
        _expect(f"packets of {carried.name}", len(track.begins), carried.packets)
        latest = max(track.begins) * track.clock
        wanted = latest if carried.latest is None else carried.latest
        if abs(latest - wanted) > max(rounding, track.clock):
            raise _failure(_where(f"the last packet of {carried.name}", "begins", latest, wanted))
    begin = min(track.begins) * track.clock
    # What primes a decoder may lie before zero; not every container says how far.
    is_off = begin > 0 if carried.begin < 0 else abs(begin - carried.begin) > track.clock
    if is_off and abs(begin - carried.begin) > rounding:
        raise _failure(_where(carried.name, "begins", begin, carried.begin))


def _decode_beginning(path: Path, index: int, name: str) -> None:
    """Make sure that a stream decodes, as far as its first frame tells."""
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
        f"The finished file does not hold what it must ({finding}), so it was not kept; "
        "this is a bug in vsrm, please report it."
    )
