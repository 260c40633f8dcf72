"""Fill in missing packet times and durations."""

from __future__ import annotations

from av.audio.stream import AudioStream
from av.packet import Packet
from av.stream import Stream


class PacketTimes:
    """Completes the packets of all streams of one file, in the order of the file."""

    def __init__(self) -> None:
        """Start before the first packet."""
        self._next: dict[int, int] = {}
        self._latest: dict[int, int] = {}
        self._stored: dict[int, int | None] = {}

    def complete(self, packet: Packet[Stream]) -> None:
        """Set the missing pts, dts and duration of a packet.

        A packet without a time, or an audio packet with the time of the previous one, follows that
        one: some files store one time for a group of packets. The duration of an audio packet comes
        from its codec or from the previous packet. MP4 needs it: the last packet of a track is
        played for its duration.
        """
        index = packet.stream.index
        is_audio = isinstance(packet.stream, AudioStream)
        stored = packet.dts if packet.pts is None else packet.pts
        if is_audio and stored is not None and stored == self._stored.get(index):
            packet.pts = packet.dts = None
        self._stored[index] = stored
        if packet.pts is None:
            packet.pts = packet.dts
        if packet.pts is None:
            packet.pts = self._next.get(index, 0)
        if packet.dts is None:
            packet.dts = packet.pts
        if is_audio and not packet.duration:
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
