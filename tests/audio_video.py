"""Videos with audio of any format, layout and start, and when their tone is audible."""

from fractions import Fraction

import av
import numpy as np
from clips import picture

from vsrm_cli.decode.video import VideoReader
from vsrm_cli.encode.options import EncodingOptions
from vsrm_cli.encode.video import VideoWriter
from vsrm_cli.encode.video_target import VideoTarget
from vsrm_cli.media.geometry import OutputShape

# From this level on, of 1, audio is audible.
AUDIBLE = 0.05


def make_av_clip(
    path,
    *,
    kind=None,
    frames=25,
    rate=25,
    codec="mpeg4",
    encoder=None,
    muxer=None,
    sound=("aac", 48000, "stereo"),
    begins=0.0,
    clock=0.0,
    seconds=None,
    tags=None,
):
    """Draw a video with a tone.

    ``sound`` is codec, sample rate and layout; ``begins`` is the start of the tone relative to
    the video and ``clock`` the start of the video, in seconds.
    """
    with av.open(str(path), "w", format=kind, container_options=muxer or {}) as output:
        output.metadata.update(tags or {})
        video = output.add_stream(codec, rate=rate, width=64, height=48, options=encoder or {})
        video.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        audio = output.add_stream(sound[0], rate=sound[1], layout=sound[2])
        audio.bit_rate = 96000
        packets = []
        for index in range(frames):
            drawn = av.VideoFrame.from_ndarray(picture(index, width=64, height=48))
            frame = drawn.reformat(format=video.pix_fmt)
            frame.pts, frame.time_base = index, 1 / Fraction(rate)
            packets += video.encode(frame)
        packets += video.encode(None)
        length = seconds or frames / float(rate)
        packets += _tone(audio, round(length * sound[1]), first=round(begins * sound[1]))
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base):
            ticks = round(Fraction(clock).limit_denominator(1000) / packet.time_base)
            packet.pts += ticks
            packet.dts += ticks
            output.mux(packet)
    return path


def _tone(audio, samples, *, first):
    channels = audio.codec_context.layout.nb_channels
    size = audio.codec_context.frame_size or 1024
    packets = []
    for begin in range(0, samples, size):
        time = np.arange(begin, min(begin + size, samples)) / audio.codec_context.sample_rate
        wave = np.float32(0.5 * np.cos(2 * np.pi * 440 * time))
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.repeat(wave[None], channels, 0)),
            format="fltp",
            layout=audio.codec_context.layout.name,
        )
        block.sample_rate = audio.codec_context.sample_rate
        block.pts, block.time_base = first + begin, Fraction(1, block.sample_rate)
        packets += audio.encode(block)
    return packets + audio.encode(None)


def rewrite(source, target, *, codec="h264", audio="copy", **part):
    """Write a video as a job would, with unchanged frames; returns the writer."""
    with VideoReader(source, **part) as reader:
        info = reader.info
        with VideoWriter(
            VideoTarget(
                target,
                source=info,
                shape=OutputShape(info.width, info.height, None),
                encoding=EncodingOptions(codec),
                audio=audio,
                **part,
            )
        ) as writer:
            for frame in reader:
                writer.write(frame)
    return writer


def audible_range(path, stream=0):
    """When the first frame is shown, and when the tone begins and ends, in seconds."""
    with av.open(str(path), metadata_errors="replace") as container:
        shown = min(f.pts * f.time_base for f in container.decode(video=0))
    loud, end = [], Fraction(0)
    with av.open(str(path), metadata_errors="replace") as container:
        for block in container.decode(audio=stream):
            values = block.to_ndarray()
            if not block.format.is_planar:
                values = values.reshape(-1, block.layout.nb_channels).T
            scale = 1.0 if values.dtype.kind == "f" else float(np.iinfo(values.dtype).max)
            (places,) = np.nonzero(np.abs(values).max(0) / scale > AUDIBLE)
            begin = end if block.pts is None else block.pts * block.time_base
            end = begin + Fraction(block.samples, block.sample_rate)
            if len(places):
                loud += [begin + Fraction(int(p), block.sample_rate) for p in places[[0, -1]]]
    return float(shown), float(min(loud)), float(max(loud))


def count_packets(path, kind="audio"):
    """The number of packets of a kind of stream."""
    with av.open(str(path), metadata_errors="replace") as container:
        streams = [s for s in container.streams if s.type == kind]
        return sum(1 for p in container.demux(streams) if p.size) if streams else 0
