"""Sound that the output's container cannot hold, encoded anew: as AAC, or as Opus.

Times are those of the source: where it has gaps, there is silence of the same length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import av
from av.audio.codeccontext import AudioCodecContext
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Stream

# What each container is given, by FFmpeg's names.
_CODECS = {"mp4": "aac", "mov": "aac", "matroska": "opus", "webm": "opus", "nut": "aac"}
_ENCODERS = {"aac": "aac", "opus": "libopus"}
# Layouts that both encoders have, by the number of channels; others are mixed down to stereo.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_USUAL_RATE = 48000
_BITS_PER_SECOND_AND_CHANNEL = 96_000


def sound_codec(container: str) -> str:
    """FFmpeg's name of the format into which sound is encoded for a container."""
    return _CODECS[container]


class SoundConverter:
    """Encodes one sound stream in another format.

    Attributes:
        stream: The stream of the output that the packets go to.
    """

    def __init__(self, source: AudioStream, output: OutputContainer, codec: str) -> None:
        """Announce the new stream to an output that has no header yet."""
        self._source = source
        context = source.codec_context
        rates = av.Codec(_ENCODERS[codec], "w").audio_rates or []
        rate = context.sample_rate if context.sample_rate in rates else _USUAL_RATE
        layout = _LAYOUTS.get(context.layout.nb_channels, "stereo")
        stream = output.add_stream(
            _ENCODERS[codec], rate=_USUAL_RATE if codec == "opus" else rate, layout=layout
        )
        assert isinstance(stream, AudioStream)
        self._encoder: AudioCodecContext = stream.codec_context
        self._encoder.bit_rate = _BITS_PER_SECOND_AND_CHANNEL * self._encoder.layout.nb_channels
        self.stream: Stream = stream
        self._graph: Graph | None = None

    def convert(self, packet: Packet[Stream]) -> list[Packet[Stream]]:
        """Encode what a packet decodes to; the encoder keeps some of it until later.

        Raises:
            FFmpegError: If the packet is damaged.
        """
        return [
            encoded
            for frame in packet.decode()
            if isinstance(frame, AudioFrame)
            for encoded in self._encode(frame)
        ]

    def finish(self) -> list[Packet[Stream]]:
        """Encode what is left at the end."""
        if self._graph is None:
            return []
        rest = [*self._source.decode(None), None]
        packets = [encoded for frame in rest for encoded in self._encode(frame)]
        return packets + self._named(self._encoder.encode(None))

    def _encode(self, frame: AudioFrame | None) -> Iterator[Packet[Stream]]:
        if self._graph is None:
            assert frame is not None
            self._graph = self._new_graph(frame)
        self._graph.push(frame)
        while True:
            try:
                ready = self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return
            assert isinstance(ready, AudioFrame)
            yield from self._named(self._encoder.encode(ready))

    def _named(self, packets: Sequence[Packet[Any]]) -> list[Packet[Stream]]:
        """Say of packets that they are of the source, as those that are copied do."""
        for packet in packets:
            packet.time_base = self._encoder.time_base
            packet.stream = self._source
        return [*packets]

    def _new_graph(self, frame: AudioFrame) -> Graph:
        """Filters that fill gaps with silence and cut the sound into the encoder's frames."""
        encoder = self._encoder
        graph = Graph()
        filters = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format,
                layout=frame.layout,
                time_base=frame.time_base or self._source.time_base,
            ),
            graph.add("aresample", f"{encoder.sample_rate}:async=1"),
            graph.add(
                "aformat",
                f"sample_fmts={encoder.format.name}:channel_layouts={encoder.layout.name}",
            ),
            graph.add("asetnsamples", f"n={encoder.frame_size or 1024}:p=0"),
            graph.add("abuffersink"),
        ]
        graph.link_nodes(*filters).configure()
        return graph
