"""Timestamp discontinuities: find them, and shift packets onto one continuous clock.

Timestamps of broadcasts, joined recordings and DVDs come from the sender's clock, which can restart
anywhere. Video and audio then jump together, and between two jumps all streams are in sync. The
jumps are found in the video stream; every stream is shifted by the same offset.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path

from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from vsrm_cli.frame import FALLBACK_RATE
from vsrm_cli.media.containers import allows_restarts, open_container, read_packets, video_stream

# The video clock restarts if it steps back by more than this, or forward by more than this with no
# other stream in between. FFmpeg uses the same limits (seconds).
_MIN_STEP_BACK = Fraction(1, 10)
_MIN_STEP_FORWARD = Fraction(10)
# A single wrong timestamp is no restart: this many frames must stay on the new clock.
_FRAMES_TO_CONFIRM = 4
_RETURN = Fraction(1)
# Audio may restart this many bytes before or after the video.
_DISORDER_BYTES = 2 << 20


@dataclass(frozen=True, slots=True)
class ClockRestart:
    """A place where the clock of a file begins again.

    Attributes:
        position: Of the first frame after it, in bytes from the beginning of the file.
        offset: Seconds to add to all later times to make the clock continuous.
    """

    position: int
    offset: Fraction


def clock_restarts(path: Path) -> tuple[ClockRestart, ...]:
    """Find where the clock of a file begins again; most files have no such place.

    If the format allows restarts, the whole file is read. The result is cached.

    Raises:
        InputError: If it cannot be read.
    """
    about = path.stat()
    return _restarts(path, about.st_size, about.st_mtime_ns)


class ContinuousClock:
    """Shifts the packets of a file, in file order, onto one continuous clock.

    Attributes:
        restarts: Where the clock of the file begins again.
    """

    def __init__(self, path: Path) -> None:
        """Find the restarts; raises as `clock_restarts` does."""
        self.restarts = clock_restarts(path)
        self._positions = [restart.position for restart in self.restarts]
        self._offsets = [Fraction(0), *(restart.offset for restart in self.restarts)]
        self._part_by_stream: dict[int, int] = {}
        self._end_by_stream: dict[int, Fraction] = {}
        self._delay_by_stream: dict[int, int] = {}

    def move(self, packet: Packet[Stream]) -> None:
        """Shift the timestamps of a packet."""
        if not self.restarts:
            return
        self._correct_pts(packet)
        ticks = packet.dts if packet.dts is not None else packet.pts
        part = self._part_of(packet, ticks)
        offset = self._offsets[part]
        moved = round(offset / packet.time_base)
        self._part_by_stream[packet.stream.index] = part
        if ticks is not None:
            end = (ticks + (packet.duration or 0)) * packet.time_base + offset
            self._end_by_stream[packet.stream.index] = end
        if packet.pts is not None:
            packet.pts += moved
        if packet.dts is not None:
            packet.dts += moved

    def _correct_pts(self, packet: Packet[Stream]) -> None:
        """Correct a pts that FFmpeg derived from the next packet, if that is after a restart."""
        if packet.pts is None or packet.dts is None:
            return
        if 0 <= (packet.pts - packet.dts) * packet.time_base <= _MIN_STEP_FORWARD:
            self._delay_by_stream[packet.stream.index] = packet.pts - packet.dts
        else:
            packet.pts = packet.dts + self._delay_by_stream.get(packet.stream.index, 0)

    def _part_of(self, packet: Packet[Stream], ticks: int | None) -> int:
        """Which part of the file a packet belongs to."""
        index = packet.stream.index
        current = self._part_by_stream.get(index, 0)
        if packet.pos is None:
            return current
        by_position = max(current, bisect_right(self._positions, packet.pos))
        if packet.stream.type != "audio" or ticks is None or index not in self._end_by_stream:
            return by_position
        # Audio does not restart exactly where video does; the offset with the smallest gap wins.
        time = ticks * packet.time_base
        near = {part for part in range(current, by_position + 2) if self._is_near(part, packet.pos)}
        end = self._end_by_stream[index]
        gaps = {part: time + self._offsets[part] - end for part in near | {by_position}}
        forward = {part: gap for part, gap in gaps.items() if gap >= -_MIN_STEP_BACK}
        return min(forward, key=lambda part: abs(forward[part])) if forward else by_position

    def _is_near(self, part: int, position: int) -> bool:
        """Whether a byte position is inside a part or close to it."""
        if part >= len(self._offsets):
            return False
        begin = self._positions[part - 1] if part else 0
        end = self._positions[part] if part < len(self._positions) else position
        return begin - _DISORDER_BYTES <= position <= end + _DISORDER_BYTES


@lru_cache(maxsize=64)
def _restarts(path: Path, _size: int, _date: int) -> tuple[ClockRestart, ...]:
    with open_container(path) as container:
        if not allows_restarts(container):
            return ()
        stream = video_stream(container, path)
        return tuple(_find_restarts(container, stream))


@dataclass(frozen=True, slots=True)
class _FrameTime:
    """Decoding time of a frame, in ticks, and how far all streams had come before it."""

    ticks: int
    duration: int
    position: int
    reached: Fraction


def _find_restarts(container: InputContainer, stream: VideoStream) -> Iterator[ClockRestart]:
    clock = stream.time_base or Fraction(1, 90000)
    rate = stream.average_rate or stream.guessed_rate or FALLBACK_RATE
    usual = max(1, round(1 / rate / clock))
    offset = 0
    last: _FrameTime | None = None
    ahead: deque[_FrameTime] = deque()
    frames = _frame_times(container, stream)
    while frame := _next_frame(frames, ahead):
        if last is not None and _jumps(last, frame, ahead, clock):
            offset += last.ticks + (last.duration or usual) - frame.ticks
            yield ClockRestart(frame.position, offset * clock)
            last = frame
        elif last is None or frame.ticks > last.ticks:
            last = frame


def _next_frame(frames: Iterator[_FrameTime], ahead: deque[_FrameTime]) -> _FrameTime | None:
    """Take the next frame, and fill ``ahead`` with the frames after it."""
    while len(ahead) <= _FRAMES_TO_CONFIRM:
        frame = next(frames, None)
        if frame is None:
            break
        ahead.append(frame)
    return ahead.popleft() if ahead else None


def _jumps(last: _FrameTime, frame: _FrameTime, ahead: deque[_FrameTime], clock: Fraction) -> bool:
    """Whether the clock restarts at a frame."""
    step = (frame.ticks - last.ticks) * clock
    filled = max(Fraction(0), frame.reached - last.ticks * clock)
    if -_MIN_STEP_BACK <= step <= filled + _MIN_STEP_FORWARD:
        return False
    return not any(0 < (later.ticks - last.ticks) * clock <= _RETURN for later in ahead)


def _frame_times(container: InputContainer, stream: VideoStream) -> Iterator[_FrameTime]:
    """Read the times of all frames, and how far other streams have come before each."""
    reached = Fraction(-(2**40))
    position = 0
    timed = [s for s in container.streams if s.type in ("audio", "video")]
    for packet in read_packets(container, timed):
        if packet is None or not packet.size:
            continue
        ticks = packet.dts if packet.dts is not None else packet.pts
        if ticks is None:
            continue
        if packet.stream is stream:
            if packet.pos is not None:  # in a DVD's file, frames share a position
                position = packet.pos
            yield _FrameTime(ticks, packet.duration or 0, position, reached)
            reached = ticks * packet.time_base
        else:
            time = ticks * packet.time_base
            reached = max(reached, time if time <= reached + _MIN_STEP_FORWARD else reached)
