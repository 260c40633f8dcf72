"""Find out what a container can hold by writing and reading a short file in memory.

Lists of supported codecs are often wrong: some muxers fail only when the file is closed, and some
write streams that cannot be decoded. So the first packets of a stream are muxed with its real
parameters, demuxed and decoded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy.typing import NDArray

from vsrm_cli.media.containers import open_container
from vsrm_cli.remux.packet_times import PacketTimes
from vsrm_cli.remux.subtitles import is_gap
from vsrm_cli.remux.wave_format import (
    MUXER_OPTIONS,
    add_by_wave_format,
    correct_codec_ids,
    has_wave_format,
)

# Packets of each stream in a trial file, ...
_PACKETS = 12
# ... and how much of a file is searched for them, in bytes of packets.
_MAX_BYTES = 256 << 20
# The default layouts of one and two channels.
_DEFAULT_LAYOUTS = {1: "mono", 2: "stereo"}
# The fraction of the decoded source that must be in the trial file. Some containers drop the audio
# that primes a decoder.
_MIN_FRACTION = 0.25
# Audio is compared at its loudest, over this many samples. The error may have this fraction of the
# energy: if a container does not distinguish MP2 from MP3, two decoders round differently.
_COMPARED_SAMPLES = 32
_MAX_ERROR = 1e-3
_MAX_SAMPLES = 100_000
# Errors of muxers and decoders for unsupported streams.
_REFUSALS = (av.FFmpegError, ValueError, OverflowError)


@dataclass(slots=True)
class StreamSample:
    """The first packets of a stream.

    Attributes:
        packets: As they are in the file, with complete times.
        audio: Decoded, in arrays of (samples, channels), -1 to 1.
        sample_rate: Of the audio, in Hz.
        frames: Number of decoded video frames.
        is_damaged: Whether packets between them did not decode. Decoders that generate noise (AAC)
            then generate different noise.
    """

    packets: list[Packet[Stream]] = field(default_factory=list)
    audio: list[NDArray[np.float32]] = field(default_factory=list)
    sample_rate: int = 0
    frames: int = 0
    is_damaged: bool = False


def read_samples(path: Path) -> dict[int, StreamSample]:
    """Read the first packets of each stream of a file, by index; there may be none.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_container(path) as container:
        return _read_samples(container)


def can_hold(container: str, stream: Stream, sample: StreamSample) -> bool:
    """Whether a container can hold a copy of a stream that decodes, found by a trial file.

    Args:
        container: FFmpeg's name.
        stream: The stream to copy.
        sample: Its first packets. Without any, only a header is written.
    """
    file = BytesIO()
    try:
        with av.open(file, "w", format=container, container_options=_options(container)) as trial:
            target = add_copy(trial, stream)
            trial.start_encoding()
            for packet in _copies(sample.packets):
                packet.stream = target
                trial.mux(packet)
        if not sample.packets:
            return True
        if has_wave_format(container, stream):
            correct_codec_ids(file, [target.codec_context.extradata or b""])
        file.seek(0)
        with av.open(file, "r", metadata_errors="replace") as again:
            found = _read_samples(again)[again.streams[0].index]
    except (*_REFUSALS, IndexError):
        return False
    return _is_whole(found, sample)


def add_copy(output: OutputContainer, stream: Stream) -> Stream:
    """Add a copy of a stream to an output whose header is not written yet."""
    if has_wave_format(output.format.name, stream):
        assert isinstance(stream, AudioStream)
        return add_by_wave_format(output, stream)
    target = output.add_stream_from_template(stream, opaque=True)
    if isinstance(target, AudioStream):
        # Old containers store only the number of channels; MP4 needs their layout.
        channels = target.codec_context.layout.nb_channels
        if target.codec_context.layout.name == f"{channels} channels":
            target.codec_context.layout = _DEFAULT_LAYOUTS.get(
                channels, target.codec_context.layout
            )
    return target


def _options(container: str) -> dict[str, str]:
    return MUXER_OPTIONS if container == "matroska" else {}


def _is_whole(found: StreamSample, sample: StreamSample) -> bool:
    """Whether the trial file contains what was written."""
    if sample.audio and sample.is_damaged:
        return bool(found.audio)
    if sample.audio:
        return found.sample_rate == sample.sample_rate and _is_same_audio(
            np.concatenate(found.audio) if found.audio else None, np.concatenate(sample.audio)
        )
    if sample.frames:
        return found.frames >= _MIN_FRACTION * sample.frames
    return len(found.packets) == len(sample.packets)  # subtitles, or there is no decoder


def _is_same_audio(found: NDArray[np.float32] | None, wanted: NDArray[np.float32]) -> bool:
    """Whether the loudest samples in the second half of ``found`` are in ``wanted``, too."""
    if found is None or found.shape[1] != wanted.shape[1]:
        return False
    if len(found) < max(_MIN_FRACTION * len(wanted), 2 * _COMPARED_SAMPLES):
        return len(wanted) < 2 * _COMPARED_SAMPLES
    half = len(found) // 2
    moment = half + int(np.abs(found[half:-_COMPARED_SAMPLES]).max(1).argmax())
    # Damaged float audio may be huge: its squares need float64.
    samples = wanted.astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _COMPARED_SAMPLES, axis=0)
    loudest = found[moment : moment + _COMPARED_SAMPLES].T.astype(np.float64)
    errors = ((windows - loudest) ** 2).sum((1, 2))
    return bool(errors.min() <= _MAX_ERROR * (loudest**2).sum() + 1e-9)


def _copies(packets: list[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """Copies of packets, with times from zero."""
    first = min((packet.dts or 0 for packet in packets), default=0)
    latest = -1
    for packet in packets:
        copy: Packet[Stream] = Packet(bytes(packet))
        copy.dts = latest = max(latest + 1, (packet.dts or 0) - first)
        copy.pts = max(copy.dts, (packet.pts or 0) - first)
        copy.duration, copy.time_base = packet.duration, packet.time_base
        copy.is_keyframe = packet.is_keyframe
        yield copy


def _read_samples(container: InputContainer) -> dict[int, StreamSample]:
    samples = {stream.index: StreamSample() for stream in container.streams}
    times = PacketTimes()
    missing = {s.index for s in container.streams if s.type == "audio"}
    read_bytes = 0
    try:
        for packet in container.demux():
            stream, sample = packet.stream, samples[packet.stream.index]
            read_bytes += packet.size
            if packet.size and len(sample.packets) < _PACKETS and not is_gap(packet):
                times.complete(packet)
                if _decode(stream, packet, sample):
                    sample.packets.append(packet)
                else:
                    sample.is_damaged = True
            if len(sample.packets) == _PACKETS:
                missing.discard(stream.index)
            if (not missing and len(samples) > 1) or read_bytes > _MAX_BYTES:
                break
    except av.FFmpegError:
        pass  # the packets before the fault are enough
    for stream in container.streams:
        if samples[stream.index].packets:
            _decode(stream, None, samples[stream.index])
    return samples


def _decode(stream: Stream, packet: Packet[Stream] | None, sample: StreamSample) -> bool:
    """Decode a packet into a sample; None flushes the decoder.

    Returns:
        False if the packet is damaged; True if it is not, or if there is no decoder.
    """
    if not isinstance(stream, AudioStream | VideoStream):
        return True
    try:
        frames = stream.decode(packet)
    except av.FFmpegError:
        return False
    except ValueError:  # there is no decoder
        return True
    for frame in frames:
        if isinstance(frame, VideoFrame):
            sample.frames += 1
        elif isinstance(frame, AudioFrame) and sum(map(len, sample.audio)) < _MAX_SAMPLES:
            sample.sample_rate = frame.sample_rate
            sample.audio.append(_as_float(frame))
    return True


def _as_float(frame: AudioFrame) -> NDArray[np.float32]:
    if frame.format.name.startswith("s64"):  # PyAV cannot convert it to an array
        (frame,) = av.AudioResampler(format="flt").resample(frame)
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        largest = np.finfo(np.float32).max  # infinity and NaN are damage
        return np.nan_to_num(values).clip(-largest, largest).astype(np.float32)
    full_scale = 2.0 ** (8 * values.itemsize - 1)
    zero = full_scale if values.dtype == np.uint8 else 0.0
    return ((values.astype(np.float64) - zero) / full_scale).astype(np.float32)
