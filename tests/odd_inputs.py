"""Odd inputs, drawn at random of all that PyAV can write, and what a job makes of them.

Each seed is one input: container, codecs, pixel format, rates, layout, where the sound begins, a
clock that begins anywhere; some are damaged or cut. A job must end in a right result, or in one
sentence before its first frame. ``python tests/odd_inputs.py --first 0 --count 500`` tries many.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import sys
import tempfile
import traceback
from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from audio_video import audible_range
from stub_network import load_nearest

from vsrm_cli.errors import CheckFailed, VsrmError
from vsrm_cli.upscale import job
from vsrm_cli.upscale.job import upscale_video

CONTAINERS = {
    **{"mp4": "mp4", "mov": "mov", "matroska": "mkv", "webm": "webm", "avi": "avi", "flv": "flv"},
    **{"asf": "wmv", "mpegts": "ts", "mpeg": "mpg", "vob": "vob", "nut": "nut", "mxf": "mxf"},
    **{"ogg": "ogg", "3gp": "3gp", "f4v": "f4v", "ismv": "ismv", "wtv": "wtv", "gxf": "gxf"},
    **{"rm": "rm", "swf": "swf", "gif": "gif", "psp": "psp", "dvd": "dvd"},
}
HARDWARE = ("_nvenc", "_qsv", "_amf", "_v4l2m2m", "_vaapi", "_vulkan", "_mf", "_videotoolbox")
# x265 crashes on tiny pictures; the others are no pictures that anybody has.
LEFT_OUT = {"libx265", "hevc", "vnull", "wrapped_avframe", "anull", "alias_pix", "vbn", "av1"}
RATES = (8000, 11025, 16000, 22050, 24000, 32000, 44100, 48000, 96000)
LAYOUTS = ("mono", "stereo", "3.0", "quad", "5.1", "7.1")
FRAME_RATES = (10, 15, 24, Fraction(24000, 1001), 25, Fraction(30000, 1001), 30, 50, 60)
OUTPUTS = (
    *(("mp4", "h264"), ("mkv", "h264"), ("mov", "h264"), ("nut", "h264"), ("mkv", "ffv1")),
    *(("webm", "vp9"), ("mp4", "h264"), ("mkv", "h264")),
)
SIZE = (64, 48)
FRAMES = 24
# Matroska rounds picture and sound to milliseconds, once in the source and once in the output.
SYNC = 0.0025


class CannotDraw(Exception):
    """The muxers and encoders do not go together."""


def draw(seed, folder):
    """Write the input of a seed; give its path, its facts, and the output to make of it."""
    for attempt in itertools.count():
        dice = random.Random(f"{seed} {attempt}")
        facts = _choose(dice)
        path = folder / f"in.{CONTAINERS[facts['container']]}"
        try:
            _write(path, facts)
            if next(iter(_decoded(path)), None) is None:
                raise CannotDraw
        except (
            CannotDraw,
            av.FFmpegError,
            ValueError,
            TypeError,
            LookupError,
            OverflowError,
            OSError,
        ):
            continue
        if facts["damage"]:
            _damage(path, dice, facts["damage"])
        return path, facts


def _choose(dice):
    container = dice.choice(sorted(CONTAINERS))
    with av.open(os.devnull, "w", format=container) as output:
        held = output.supported_codecs
    names = {"video": [], "audio": []}
    for name in sorted(held & av.codecs_available - LEFT_OUT):
        try:
            kind = av.Codec(name, "w").type
        except av.codec.codec.UnknownCodecError:
            continue
        if kind in names and not name.endswith(HARDWARE):
            names[kind].append(name)
    video = dice.choice(names["video"] or [None])
    formats = [f.name for f in (av.Codec(video, "w").video_formats or ())] if video else []
    return {
        "container": container,
        "video": video,
        "format": dice.choice(formats or ["yuv420p"]),
        "frame rate": dice.choice(FRAME_RATES),
        "b-frames": dice.choice(("0", "0", "2", "3")),
        "sound": dice.choice([*(names["audio"] or [None]), None]),
        "rate": dice.choice(RATES),
        "layout": dice.choice(LAYOUTS[: dice.choice((2, 2, 6))]),
        "begins": dice.choice((0, 0, 0.044, 0.1, 0.3337, -0.2)),
        "clock": dice.choice((0, 0, 0, 1.4, 40000, 95442)),
        "damage": dice.choice(("", "", "", "flips", "cut")),
        "output": dice.choice(OUTPUTS),
    }


def _write(path, facts):
    if facts["video"] is None:
        raise CannotDraw
    if facts["container"] == "flv" and facts["rate"] not in (11025, 22050, 44100):
        raise CannotDraw  # it has no number for other rates, and its muxer does not say so
    rate = Fraction(facts["frame rate"])
    options = {"bf": facts["b-frames"], "g": "12", "strict": "-2"}
    with av.open(str(path), "w", format=facts["container"]) as output:
        video = output.add_stream(facts["video"], rate=rate, options=options)
        video.width, video.height = SIZE
        video.pix_fmt = facts["format"]
        packets = []
        sound = None
        if facts["sound"] is not None:
            layout, samples = facts["layout"], facts["rate"]
            sound = output.add_stream(
                facts["sound"], rate=samples, layout=layout, options={"strict": "-2"}
            )
            sound.bit_rate = 96000
        for index in range(FRAMES):
            image = np.full((SIZE[1], SIZE[0], 3), 40 + 6 * index, np.uint8)
            frame = av.VideoFrame.from_ndarray(image).reformat(format=facts["format"])
            frame.pts, frame.time_base = index, 1 / rate
            packets += video.encode(frame)
        packets += video.encode(None)
        if sound is not None:
            packets += _tone(sound, facts, FRAMES / rate)
        for packet in sorted(packets, key=lambda p: (p.dts or 0) * p.time_base):
            ticks = round(Fraction(facts["clock"]) / packet.time_base)
            if packet.pts is not None:
                packet.pts += ticks
            if packet.dts is not None:
                packet.dts += ticks
            output.mux(packet)


def _tone(sound, facts, seconds):
    rate, size = facts["rate"], sound.codec_context.frame_size or 1024
    total, first = round(rate * seconds), round(facts["begins"] * rate)
    channels = sound.codec_context.layout.nb_channels
    packets = []
    for begin in range(0, total, size):
        moments = np.arange(begin, min(begin + size, total)) / rate
        # Silence first, so that it is heard where the tone begins.
        wave = np.float32(0.5 * np.cos(2 * np.pi * 440 * moments) * (moments > 0.2))
        block = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(np.repeat(wave[None], channels, 0)),
            format="fltp",
            layout=facts["layout"],
        )
        block.sample_rate, block.pts, block.time_base = rate, first + begin, Fraction(1, rate)
        packets += sound.encode(block)
    return packets + sound.encode(None)


def _damage(path, dice, kind):
    data = bytearray(path.read_bytes())
    if kind == "cut":
        data = data[: dice.randrange(len(data) // 2, len(data))]
    else:
        for _ in range(dice.randrange(1, 20)):
            data[dice.randrange(len(data) // 8, len(data))] ^= 1 << dice.randrange(8)
    path.write_bytes(data)


def _decoded(path):
    with av.open(str(path), metadata_errors="replace") as container:
        for frame in container.decode(video=0):
            yield frame.pts, frame.time_base


def try_one(path, facts, folder):
    """Run the job on an input, and say what is wrong with its end; None if nothing is."""
    target = folder / f"out.{facts['output'][0]}"
    done = []
    try:
        summary = upscale_video(
            path,
            target,
            codec=facts["output"][1],
            window=7,
            overlap=3,
            segment_frames=8,
            hwaccel="off",
            report=lambda progress: done.append(progress.frames_done),
        )
    except CheckFailed as error:
        return f"proof: {error}"
    except VsrmError as error:
        facts["end"] = f"refused: {error}"
        return f"after {len(done)} frames: {error}" if done and not facts["damage"] else None
    except Exception:
        return traceback.format_exc()
    facts["end"] = "made"
    return _judge(path, target, facts, summary)


def _judge(path, target, facts, summary):
    times = sorted(float(pts * base) for pts, base in _decoded(target))
    if facts["damage"]:
        return None if len(times) == summary.frames_out else "frames do not decode"
    with av.open(str(path), metadata_errors="replace") as container:
        source = sum(1 for _ in container.decode(video=0))
    if len(times) != source:
        return f"{len(times)} of {source} frames"
    step = 1 / float(facts["frame rate"])
    steps = [b - a for a, b in itertools.pairwise(times)]
    if facts["container"] not in ("swf", "gif", "rm") and steps:  # these count coarsely
        # FFmpeg says of the first frame of an AVI that it is shown at zero, even if others begin
        # later.
        first = facts["container"] == "avi"
        odd = [s for s in steps[first:] if abs(s - step) > SYNC]
        if odd:
            return f"a frame of {odd[0]:.4f} s at {step:.4f} s a frame"
    return _judge_sound(path, target, facts, summary)


def _judge_sound(path, target, facts, summary):
    try:
        shown, begins, ends = audible_range(path)
    except (ValueError, av.FFmpegError, IndexError):
        return None  # there is none, or nobody hears it
    dropped = [part for part in summary.dropped if "sound" in part]
    with av.open(str(target)) as container:
        if not container.streams.audio:
            facts["end"] = f"made, {dropped}"
            return None if dropped else "the sound is gone without a word"
    if facts["container"] in ("rm", "wtv", "asf"):  # these give one time to several packets
        return None
    if facts["container"] == "avi":
        if facts["clock"]:
            return None
        shown = 0.0  # it counts the decoding of frames
    picture, first, last = audible_range(target)
    apart = (first - picture) - (begins - shown)
    tolerance = 0.06 if facts["output"][0] == "nut" else SYNC
    if abs(apart) > tolerance:
        return f"the sound is {apart:.4f} s late"
    facts["end"] = "made, sound compared"
    shorter = (ends - begins) - (last - first)
    return f"the sound is {shorter:.3f} s shorter" if shorter > 0.05 else None


def _work(seeds, results):
    job.load_model = load_nearest
    for seed in seeds:
        results.send((seed, {}, "begins"))
        with tempfile.TemporaryDirectory() as name:
            folder, facts = Path(name), {}
            try:
                path, facts = draw(seed, folder)
                results.send((seed, facts, "drawn"))
                fault = try_one(path, facts, folder)
            except Exception:
                fault = "of the test itself: " + traceback.format_exc()
        results.send((seed, facts, fault))


def try_many(seeds, *, seconds_each=60):
    """Try many seeds in a process of their own, which a crash or a hang does not end.

    Yields:
        Seed, facts and fault of each, as `try_one` gives them.
    """
    context = multiprocessing.get_context("spawn")
    waiting = list(seeds)
    while waiting:
        answers, results = context.Pipe(duplex=False)
        worker = context.Process(target=_work, args=(waiting, results), daemon=True)
        worker.start()
        results.close()
        known, limit = {}, 120
        while waiting:
            try:
                how = "hangs"
                seed, facts, fault = answers.recv() if answers.poll(limit) else (None, {}, how)
            except EOFError:
                worker.join()
                seed, how = None, f"died with {worker.exitcode}"
            limit = seconds_each
            if seed is None:
                worker.kill()
                # Some encoders end the process while the input is drawn: that is no fault of ours.
                yield waiting.pop(0), known, f"the process {how}" if known else None
                break
            known = facts
            if fault not in ("begins", "drawn"):
                waiting.remove(seed)
                yield seed, facts, fault
        worker.join(5)


def main():
    """Try seeds and print each fault."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=500)
    asked = parser.parse_args()
    faults, ends = 0, Counter()
    for seed, facts, fault in try_many(range(asked.first, asked.first + asked.count)):
        if fault:
            faults += 1
            sys.stdout.write(f"{seed}: {fault}\n    {facts}\n")
            sys.stdout.flush()
        ends[facts.get("end", "not drawn")[:40]] += 1
    sys.stdout.write(f"{faults} of {asked.count} inputs end wrongly; {ends.most_common()}\n")


if __name__ == "__main__":
    main()
