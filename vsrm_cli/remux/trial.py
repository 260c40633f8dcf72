"""What a container can hold, found by trying: a short file in memory, written and read again.

Lists of codecs are wrong too often. Some muxers refuse a stream only when the file is closed, and
some write what nobody can decode. So the first packets of a stream are written with its real
parameters, read again, and decoded.
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
    correct_names,
    has_wave_format,
)

# Enough packets of a stream to see whether they come back, ...
_PACKETS = 12
# ... and the part of a file that is searched for them, in bytes of packets.
_MOST_BYTES = 256 << 20
# One or two channels need no list of their places: they are played the same way everywhere.
_USUAL_LAYOUTS = {1: "mono", 2: "stereo"}
# The share of the decoded source that must come back. Some containers leave out the sound that
# primes a decoder.
_LEAST_SHARE = 0.25
# Sound is compared by its loudest moment, of so many samples. Its error may have this share of
# the energy: two decoders round in two ways, where a container does not tell MP2 from MP3.
_COMPARED_SAMPLES = 32
_LARGEST_ERROR = 1e-3
_MOST_SAMPLES = 100_000
# What muxers and decoders say of what they do not take.
_REFUSALS = (av.FFmpegError, ValueError, OverflowError)


@dataclass(slots=True)
class Sample:
    """The first packets of a stream.

    Attributes:
        packets: As they are in the file, with all their times.
        sound: What they decode to, in pieces of (samples, channels), from -1 to 1.
        sample_rate: Of that, per second.
        pictures: How many pictures they decode to.
        is_damaged: Whether packets between them did not decode. Decoders that make up noise (AAC)
            then make up other noise.
    """

    packets: list[Packet[Stream]] = field(default_factory=list)
    sound: list[NDArray[np.float32]] = field(default_factory=list)
    sample_rate: int = 0
    pictures: int = 0
    is_damaged: bool = False


def read_samples(path: Path) -> dict[int, Sample]:
    """Read the first packets of each stream of a file, by its number; there may be none.

    Raises:
        InputError: If the file cannot be read.
    """
    with open_container(path) as container:
        return _read_samples(container)


def can_hold(container: str, stream: Stream, sample: Sample) -> bool:
    """Try whether a container takes a copy of a stream, and gives it back such that it decodes.

    Args:
        container: FFmpeg's name.
        stream: What would be copied.
        sample: Its first packets. Without any, only the header of the container is tried.
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
            correct_names(file, [target.codec_context.extradata or b""])
        file.seek(0)
        with av.open(file, "r", metadata_errors="replace") as again:
            found = _read_samples(again)[again.streams[0].index]
    except (*_REFUSALS, IndexError):
        return False
    return _is_whole(found, sample)


def add_copy(output: OutputContainer, stream: Stream) -> Stream:
    """Announce a copy of a stream to an output that has no header yet."""
    if has_wave_format(output.format.name, stream):
        assert isinstance(stream, AudioStream)
        return add_by_wave_format(output, stream)
    target = output.add_stream_from_template(stream, opaque=True)
    if isinstance(target, AudioStream):
        # Old containers count channels and do not say where each belongs; MP4 must know.
        channels = target.codec_context.layout.nb_channels
        if target.codec_context.layout.name == f"{channels} channels":
            target.codec_context.layout = _USUAL_LAYOUTS.get(channels, target.codec_context.layout)
    return target


def _options(container: str) -> dict[str, str]:
    return MUXER_OPTIONS if container == "matroska" else {}


def _is_whole(found: Sample, sample: Sample) -> bool:
    """Whether what was read again is what was written."""
    if sample.sound and sample.is_damaged:
        return bool(found.sound)
    if sample.sound:
        return found.sample_rate == sample.sample_rate and _sounds_alike(
            np.concatenate(found.sound) if found.sound else None, np.concatenate(sample.sound)
        )
    if sample.pictures:
        return found.pictures >= _LEAST_SHARE * sample.pictures
    return len(found.packets) == len(sample.packets)  # subtitles; or nobody can decode it


def _sounds_alike(found: NDArray[np.float32] | None, wanted: NDArray[np.float32]) -> bool:
    """Whether the loudest moment of the later half of a sound is in another sound, too."""
    if found is None or found.shape[1] != wanted.shape[1]:
        return False
    if len(found) < max(_LEAST_SHARE * len(wanted), 2 * _COMPARED_SAMPLES):
        return len(wanted) < 2 * _COMPARED_SAMPLES
    half = len(found) // 2
    moment = half + int(np.abs(found[half:-_COMPARED_SAMPLES]).max(1).argmax())
    # Damaged sound of floats may be huge: its squares fit into twice the bits only.
    samples = wanted.astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(samples, _COMPARED_SAMPLES, axis=0)
    loudest = found[moment : moment + _COMPARED_SAMPLES].T.astype(np.float64)
    errors = ((windows - loudest) ** 2).sum((1, 2))
    return bool(errors.min() <= _LARGEST_ERROR * (loudest**2).sum() + 1e-9)


def _copies(packets: list[Packet[Stream]]) -> Iterator[Packet[Stream]]:
    """New packets of the same content, that begin at zero."""
    first = min((packet.dts or 0 for packet in packets), default=0)
    latest = -1
    for packet in packets:
        copy: Packet[Stream] = Packet(bytes(packet))
        copy.dts = latest = max(latest + 1, (packet.dts or 0) - first)
        copy.pts = max(copy.dts, (packet.pts or 0) - first)
        copy.duration, copy.time_base = packet.duration, packet.time_base
        copy.is_keyframe = packet.is_keyframe
        yield copy


def _read_samples(container: InputContainer) -> dict[int, Sample]:
    samples = {stream.index: Sample() for stream in container.streams}
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
            if (not missing and len(samples) > 1) or read_bytes > _MOST_BYTES:
                break
    except av.FFmpegError:
        pass  # what lies before the fault is enough
    for stream in container.streams:
        if samples[stream.index].packets:
            _decode(stream, None, samples[stream.index])
    return samples


def _decode(stream: Stream, packet: Packet[Stream] | None, sample: Sample) -> bool:
    """Add what a packet decodes to, or without a packet what the decoder still holds.

    Returns:
        Whether the packet is sound, as far as anybody can tell.
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
            sample.pictures += 1
        elif isinstance(frame, AudioFrame) and sum(map(len, sample.sound)) < _MOST_SAMPLES:
            sample.sample_rate = frame.sample_rate
            sample.sound.append(_as_float(frame))
    return True


def _as_float(frame: AudioFrame) -> NDArray[np.float32]:
    if frame.format.name.startswith("s64"):  # PyAV has no arrays of it
        (frame,) = av.AudioResampler(format="flt").resample(frame)
    values = frame.to_ndarray()
    values = values.T if frame.format.is_planar else values.reshape(-1, frame.layout.nb_channels)
    if values.dtype.kind == "f":
        largest = np.finfo(np.float32).max  # infinite samples, and no numbers at all, are damage
        return np.nan_to_num(values).clip(-largest, largest).astype(np.float32)
    full_scale = 2.0 ** (8 * values.itemsize - 1)
    zero = full_scale if values.dtype == np.uint8 else 0.0
    return ((values.astype(np.float64) - zero) / full_scale).astype(np.float32)
