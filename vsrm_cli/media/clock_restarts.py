"""Clocks that begin again in the middle of a file, and one clock made of their parts.

Broadcasts, joined recordings and DVDs carry the clock of their sender, and that may jump at any
place: picture and sound then jump together. Between two jumps the times of all streams fit to
each other. So the pictures tell where the jumps are and how far they go, and each stream is moved
by as much, from its own jump on.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vsrm_cli.media.containers import allows_restarts, open_container, video_stream

# A step back of the pictures is a jump if it is longer than this, and a step forward if nothing
# else in the file fills it. FFmpeg takes the same limits.
_LEAST_STEP_BACK = Fraction(1, 10)
_LEAST_STEP_FORWARD = Fraction(10)
# A damaged time is followed by right ones: so many pictures must stay on the new clock.
_PICTURES_THAT_CONFIRM = 4
_RETURN = Fraction(1)
# Around a jump of the pictures, sound may jump so many bytes earlier or later in the file.
_DISORDER_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class Restart:
    """A place where the clock of a file begins again.

    Attributes:
        position: Of the first picture after it, in bytes from the beginning of the file.
        offset: Seconds to add to all times from there on, such that time goes on.
    """

    position: int
    offset: Fraction


def clock_restarts(path: Path) -> tuple[Restart, ...]:
    """Find where the clock of a file begins again; most files have no such place.

    The whole file is read, if its format allows such jumps, and remembered.

    Raises:
        InputError: If it cannot be read.
    """
    about = path.stat()
    return _restarts(path, about.st_size, about.st_mtime_ns)


class ContinuousClock:
    """Moves the packets of a file to one clock, stream by stream, in the order of the file.

    Attributes:
        restarts: Where the clock of the file begins again.
    """

    def __init__(self, path: Path) -> None:
        """Look for the jumps; raises as `clock_restarts` does."""
        self.restarts = clock_restarts(path)
        self._positions = [restart.position for restart in self.restarts]
        self._offsets = [Fraction(0), *(restart.offset for restart in self.restarts)]
        self._parts: dict[int, int] = {}
        self._ends: dict[int, Fraction] = {}
        self._delays: dict[int, int] = {}

    def move(self, packet: Packet[Stream]) -> None:
        """Move the times of a packet."""
        if not self.restarts:
            return
        self._correct_showing(packet)
        ticks = packet.dts if packet.dts is not None else packet.pts
        part = self._part_of(packet, ticks)
        offset = self._offsets[part]
        moved = round(offset / packet.time_base)
        self._parts[packet.stream.index] = part
        if ticks is not None:
            end = (ticks + (packet.duration or 0)) * packet.time_base + offset
            self._ends[packet.stream.index] = end
        if packet.pts is not None:
            packet.pts += moved
        if packet.dts is not None:
            packet.dts += moved

    def _correct_showing(self, packet: Packet[Stream]) -> None:
        """Correct what FFmpeg derives from the next packet, where that has the next clock."""
        if packet.pts is None or packet.dts is None:
            return
        if 0 <= (packet.pts - packet.dts) * packet.time_base <= _LEAST_STEP_FORWARD:
            self._delays[packet.stream.index] = packet.pts - packet.dts
        else:
            packet.pts = packet.dts + self._delays.get(packet.stream.index, 0)

    def _part_of(self, packet: Packet[Stream], ticks: int | None) -> int:
        """Which part of the file a packet belongs to."""
        index = packet.stream.index
        current = self._parts.get(index, 0)
        if packet.pos is None:
            return current
        here = max(current, bisect_right(self._positions, packet.pos))
        if packet.stream.type != "audio" or ticks is None or index not in self._ends:
            return here
        # Sound does not jump exactly where the pictures do. What continues it best is right.
        time = ticks * packet.time_base
        near = {part for part in range(current, here + 2) if self._is_near(part, packet.pos)}
        gaps = {part: time + self._offsets[part] - self._ends[index] for part in near | {here}}
        forward = {part: gap for part, gap in gaps.items() if gap >= -_LEAST_STEP_BACK}
        return min(forward, key=lambda part: abs(forward[part])) if forward else here

    def _is_near(self, part: int, position: int) -> bool:
        """Whether a place in the file is not far from a part."""
        if part >= len(self._offsets):
            return False
        begin = self._positions[part - 1] if part else 0
        end = self._positions[part] if part < len(self._positions) else position
        return begin - _DISORDER_BYTES <= position <= end + _DISORDER_BYTES


@lru_cache(maxsize=64)
def _restarts(path: Path, _size: int, _date: int) -> tuple[Restart, ...]:
    with open_container(path) as container:
        if not allows_restarts(container):
            return ()
        stream = video_stream(container, path)
        return tuple(_find(container, stream))


@dataclass(frozen=True, slots=True)
class _Picture:
    """The time of decoding of a picture, in ticks, and what was known before it."""

    ticks: int
    duration: int
    position: int
    reached: Fraction


def _find(container: InputContainer, stream: VideoStream) -> Iterator[Restart]:
    clock = stream.time_base or Fraction(1, 90000)
    rate = stream.average_rate or stream.guessed_rate or Fraction(25)
    usual = max(1, round(1 / rate / clock))
    offset = 0
    last: _Picture | None = None
    ahead: deque[_Picture] = deque()
    pictures = _pictures(container, stream)
    while picture := _next(pictures, ahead):
        if last is not None and _jumps(last, picture, ahead, clock):
            offset += last.ticks + (last.duration or usual) - picture.ticks
            yield Restart(picture.position, offset * clock)
            last = picture
        elif last is None or picture.ticks > last.ticks:
            last = picture


def _next(pictures: Iterator[_Picture], ahead: deque[_Picture]) -> _Picture | None:
    """The next picture; those that follow it are made known."""
    while len(ahead) <= _PICTURES_THAT_CONFIRM:
        picture = next(pictures, None)
        if picture is None:
            break
        ahead.append(picture)
    return ahead.popleft() if ahead else None


def _jumps(last: _Picture, picture: _Picture, ahead: deque[_Picture], clock: Fraction) -> bool:
    """Whether the clock begins again with a picture."""
    step = (picture.ticks - last.ticks) * clock
    filled = max(Fraction(0), picture.reached - last.ticks * clock)
    if -_LEAST_STEP_BACK <= step <= filled + _LEAST_STEP_FORWARD:
        return False
    return not any(0 < (later.ticks - last.ticks) * clock <= _RETURN for later in ahead)


def _pictures(container: InputContainer, stream: VideoStream) -> Iterator[_Picture]:
    """Read the times of all pictures, and how far other streams have come before each."""
    reached = Fraction(-(2**40))
    position = 0
    watched = [s for s in container.streams if s.type in ("audio", "video")]
    packets = container.demux(watched)
    faults = 0
    while faults <= 1000:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            faults += 1
            packets = container.demux(watched)
            continue
        if packet is None:
            return
        ticks = packet.dts if packet.dts is not None else packet.pts
        if not packet.size or ticks is None:
            continue
        if packet.stream is stream:
            if packet.pos is not None:  # several pictures of a DVD share a place
                position = packet.pos
            yield _Picture(ticks, packet.duration or 0, position, reached)
            reached = ticks * packet.time_base
        else:
            time = ticks * packet.time_base
            reached = max(reached, time if time <= reached + _LEAST_STEP_FORWARD else reached)
