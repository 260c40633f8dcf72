"""The times that a file leaves out of its packets, filled in."""

from __future__ import annotations

from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream


class PacketTimes:
    """Completes the packets of all streams of one file, in the order of the file."""

    def __init__(self) -> None:
        """Begin with the first packet."""
        self._next: dict[int, int] = {}
        self._latest: dict[int, int] = {}
        self._told: dict[int, int | None] = {}

    def complete(self, packet: Packet[Stream]) -> None:
        """Give a packet the times of showing and decoding and the duration that it lacks.

        A packet without a time, or of sound with the time of the one before it, follows that
        one: some files give one time to a group of packets. One of sound without a duration lasts
        as long as its codec says, or as long as the one before it. MP4 plays the last packet of a
        track for its duration.
        """
        index = packet.stream.index
        is_sound = isinstance(packet.stream, AudioStream)
        told = packet.dts if packet.pts is None else packet.pts
        if is_sound and told is not None and told == self._told.get(index):
            packet.pts = packet.dts = None
        self._told[index] = told
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is None:
            packet.pts = self._next.get(index, 0)
        if packet.dts is None:
            packet.dts = packet.pts
        if is_sound and not packet.duration:
            packet.duration = self._usual_duration(packet)
        self._latest[index] = packet.dts
        self._next[index] = packet.dts + (packet.duration or 1)

    def _usual_duration(self, packet: Packet[Stream]) -> int:
        assert isinstance(packet.stream, AudioStream)
        context = packet.stream.codec_context
        if context.frame_size and context.sample_rate:
            return round(context.frame_size / (context.sample_rate * packet.time_base))
        assert packet.dts is not None
        return max(0, packet.dts - self._latest.get(packet.stream.index, packet.dts))
