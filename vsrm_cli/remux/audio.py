"""Transcode audio that the output's container cannot hold to AAC or Opus.

Times are kept: gaps in the source become silence of the same length.
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

# The audio codec for each container, in FFmpeg's names.
_CODECS = {"mp4": "aac", "mov": "aac", "matroska": "opus", "webm": "opus", "nut": "aac"}
_ENCODERS = {"aac": "aac", "opus": "libopus"}
# Layouts that both encoders support, by number of channels; others are downmixed to stereo.
_LAYOUTS = {1: "mono", 2: "stereo", 3: "3.0", 4: "4.0", 5: "5.0", 6: "5.1", 8: "7.1"}
_USUAL_RATE = 48000
_BITS_PER_SECOND_AND_CHANNEL = 96_000


def audio_codec(container: str) -> str:
    """FFmpeg's name of the codec to which audio is transcoded for a container."""
    return _CODECS[container]


class AudioConverter:
    """Transcodes one audio stream.

    Attributes:
        stream: The output stream.
    """

    def __init__(self, source: AudioStream, output: OutputContainer, codec: str) -> None:
        """Add the stream to an output whose header is not written yet."""
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
        """Decode and encode a packet; the encoder may return its output later.

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
        """Flush the decoder, the filters and the encoder."""
        if self._graph is None:
            return []
        rest = [*self._source.decode(None), None]
        packets = [encoded for frame in rest for encoded in self._encode(frame)]
        return packets + self._assigned(self._encoder.encode(None))

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
            yield from self._assigned(self._encoder.encode(ready))

    def _assigned(self, packets: Sequence[Packet[Any]]) -> list[Packet[Stream]]:
        """Assign packets to the source stream, like copied ones."""
        for packet in packets:
            packet.time_base = self._encoder.time_base
            packet.stream = self._source
        return [*packets]

    def _new_graph(self, frame: AudioFrame) -> Graph:
        """Filters that fill gaps with silence and split audio into the encoder's frame size."""
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
