"""Videos drawn by code, for the tests of media and of everything above it.

The brightness of a frame is its number, so that frames out of order, lost or repeated show in
the pixels and not only in the count.
"""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.stream import Disposition

MP4_CLOCK = Fraction(1, 12800)
CONSTANT = tuple(range(0, 24 * 512, 512))  # 25 frames per second, in ticks of MP4_CLOCK
VARIABLE = (0, 512, 700, 1900, 1913, 4000, 4512, 5024, 9000, 9014, 11111, 12345, 13000, 20000)
WIDTH, HEIGHT = 48, 32


def picture(index, *, width=WIDTH, height=HEIGHT):
    """RGB, (H, W, 3), uint8: mean brightness tells the index, a gradient gives texture."""
    frame = np.full((height, width, 3), 20 + 8 * (index % 25), np.uint8)
    frame[:, :, 0] += (np.arange(width) % 16).astype(np.uint8)
    return frame


def index_of(pixels):
    """The number that ``picture`` drew into RGB pixels, (3, H, W)."""
    unit = 257 if pixels.dtype == np.uint16 else 1
    return round((float(pixels[2].mean()) / unit - 20) / 8)


def make_clip(
    path: Path,
    *,
    times=CONSTANT,
    clock=MP4_CLOCK,
    size=(WIDTH, HEIGHT),
    codec="libx264",
    pixel_format="yuv420p",
    encoder=None,
    container=None,
    sound=None,
    sound_seconds=1,
    subtitles=None,
    prepare=None,
):
    """Draw a video.

    ``times`` are ticks of ``clock``; ``encoder`` and ``container`` are options;
    ``sound`` and ``subtitles`` name codecs; ``prepare`` is called with the video stream.
    """
    width, height = size
    options = dict(container or {})
    if path.suffix in (".mp4", ".mov"):  # their usual clock would round where streams begin
        options["movie_timescale"] = str(clock.denominator)
    with av.open(str(path), "w", container_options=options) as output:
        output.metadata["title"] = "A drawn film"
        video = output.add_stream(
            codec,
            rate=25,
            width=width,
            height=height,
            pix_fmt=pixel_format,
            time_base=clock,
            options={"g": "10", **(encoder or {})} if codec != "ffv1" else (encoder or {}),
        )
        if prepare is not None:
            prepare(video)
        audio = _add_sound(output, sound) if sound else None
        text = _add_subtitles(output, subtitles) if subtitles else None
        output.start_encoding()
        if audio is not None:
            _write_sound(output, audio, seconds=sound_seconds)
        if text is not None:
            _write_subtitles(output, text, subtitles)
        for index, ticks in enumerate(times):
            drawn = av.VideoFrame.from_ndarray(picture(index, width=width, height=height))
            frame = drawn.reformat(format=pixel_format)
            frame.pts, frame.time_base = ticks, clock
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
    return path


def seconds(times, clock=MP4_CLOCK):
    """Ticks as exact seconds."""
    return [ticks * clock for ticks in times]


def packets(path, kind):
    """Time and bytes of every packet of the sound ("audio") or the subtitles ("subtitle")."""
    found = {}
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        for packet in container.demux(streams) if streams else ():
            data = bytes(packet)
            if data and not (data[:2] == b"\0\0" and kind == "subtitle"):  # MP4's gaps
                time = packet.pts * packet.time_base
                found.setdefault(packet.stream.index, []).append((time, data))
    return [found[index] for index in sorted(found)]


def _add_sound(output, codec):
    audio = output.add_stream(codec, rate=48000, layout="mono")
    audio.metadata.update(language="deu", title="A tone")
    audio.disposition = Disposition.default | Disposition.original
    return audio


def _write_sound(output, audio, *, seconds):
    name = audio.format.name
    scale, kind = {"s16": (2**14, np.int16), "s16p": (2**14, np.int16)}.get(name, (0.5, np.float32))
    for block in range(int(seconds * 48000 / 1024)):
        time = np.arange(block * 1024, (block + 1) * 1024) / 48000
        wave = (np.sin(2 * np.pi * 440 * time) * scale).astype(kind)[None]
        frame = av.AudioFrame.from_ndarray(wave, format=name, layout="mono")
        frame.sample_rate, frame.pts = 48000, block * 1024
        frame.time_base = Fraction(1, 48000)
        output.mux(audio.encode(frame))
    output.mux(audio.encode(None))


def _add_subtitles(output, codec):
    text = output.add_mux_stream(codec, time_base=Fraction(1, 1000))
    text.metadata.update(language="spa", title="Words")
    text.disposition = Disposition.forced
    return text


def _write_subtitles(output, text, codec):
    for line, begin in enumerate((100, 400, 700)):
        words = f"line {line}".encode()
        if codec == "mov_text":
            words = len(words).to_bytes(2, "big") + words
        packet = av.Packet(words)
        packet.pts = packet.dts = begin
        packet.duration = 200
        packet.time_base = Fraction(1, 1000)
        packet.stream = text
        output.mux(packet)
