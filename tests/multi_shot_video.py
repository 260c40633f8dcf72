"""A video of several shots with audio and subtitles, and what a result of it contains."""

from fractions import Fraction
from itertools import accumulate

import av
import numpy as np
from clips import make_clip

# Each window gives 4 frames and each segment two windows: the first of them one frame more.
SMALL = {"window": 7, "overlap": 3, "segment_frames": 8}
# Three shots at a variable rate: the last frame of each is shown longer.
SHOTS = (15, 6, 24)


def draw_multi_shot_video(path):
    """Shots in colors that have nothing in common, with the streams that `make_clip` adds."""
    steps = [40 + 7 * (n % 5) for n in range(sum(SHOTS))]
    times = [0, *accumulate(steps)][:-1]
    other = make_clip(path.with_name("other.mkv"), sound="aac", subtitles="subrip")
    with av.open(str(other)) as source, av.open(str(path), "w") as container:
        video = container.add_stream("libx264", 25, options={"crf": "5"})
        video.width, video.height, video.pix_fmt = 48, 32, "yuv420p"
        video.time_base = video.codec_context.time_base = Fraction(1, 1000)
        kept = [s for s in source.streams if s.type != "video"]
        copies = {s.index: container.add_stream_from_template(s) for s in kept}
        shots = [shot for shot, length in enumerate(SHOTS) for _ in range(length)]
        for number, (shot, time_ms) in enumerate(zip(shots, times, strict=True)):
            drawn = np.full((32, 48, 3), 10 + number, np.uint8)
            drawn[:, :, shot] = 200
            drawn[number % 32, :, :] = 90
            frame = av.VideoFrame.from_ndarray(drawn, format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode())
        for packet in source.demux(kept):
            if packet.size:
                packet.stream = copies[packet.stream.index]
                container.mux(packet)
    return path


def decoded_contents(path):
    """Every decoded frame and its time, and the packets of all other streams."""
    with av.open(str(path)) as container:
        frames = [
            (frame.pts * frame.time_base, [bytes(plane) for plane in frame.planes])
            for frame in container.decode(video=0)
        ]
    with av.open(str(path)) as container:
        others = [s for s in container.streams if s.type != "video"]
        packets = sorted(
            (p.stream.index, p.pts * p.time_base, bytes(p))
            for p in container.demux(others)
            if p.size
        )
    return frames, packets
