"""Frames are upscaled in order: none is lost, repeated or moved in time."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import TINY, TINY_GSM, draw_randomly, make_network
from torch.nn import functional

from vsrm_cli.errors import CheckFailed, MemoryShortage
from vsrm_cli.frame import Frame
from vsrm_cli.inference.blending import to_pixels
from vsrm_cli.inference.memory import free_host_bytes, free_memory_bytes, is_memory_shortage
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.inference.tiling import choose_batch, choose_tile, smaller_tile

CPU = torch.device("cpu")


class Nearest:
    """Repeats every pixel; what it gives is known exactly."""

    scale = 4

    def __init__(self):
        self.shapes = []

    def __call__(self, clip):
        self.shapes.append(tuple(clip.shape))
        return self.enlarge(clip)

    def enlarge(self, clip):
        return clip.repeat_interleave(4, dim=-1).repeat_interleave(4, dim=-2)

    def memory_bytes(self, time, height, width):
        return 100 * time * height * width


class Blur(Nearest):
    """Looks one pixel around, so it sees the edge of a tile."""

    def enlarge(self, clip):
        blurred = functional.avg_pool2d(clip.flatten(0, 1), 3, stride=1, padding=1)
        return super().enlarge(blurred.unflatten(0, clip.shape[:2]))


class Remembering(Nearest):
    """Mixes every frame with those before it in its window, so each window shows in its frames."""

    def enlarge(self, clip):
        return super().enlarge(
            clip.cumsum(1) / torch.arange(1, clip.shape[1] + 1)[:, None, None, None]
        )


class Counting(Nearest):
    """Gives pictures of one grey, a tenth brighter at each call."""

    def enlarge(self, clip):
        return super().enlarge(torch.full_like(clip, len(self.shapes) / 10))


class Hungry(Nearest):
    """Has no memory for pictures above an area."""

    def __init__(self, area, error):
        super().__init__()
        self.area = area
        self.error = error

    def enlarge(self, clip):
        if len(clip) * clip.shape[-2] * clip.shape[-1] > self.area:
            raise self.error
        return super().enlarge(clip)


class Broken(Nearest):
    """Gives one value that is not finite, in the fourth frame."""

    def __init__(self, value):
        super().__init__()
        self.value = value

    def enlarge(self, clip):
        large = super().enlarge(clip.clone())
        large[0, 3, 1, 5, 6] = self.value
        return large


class Watching(Nearest):
    """Notes which frames it is shown together: their brightness, an integer of 255."""

    def __init__(self):
        super().__init__()
        self.clips = []

    def enlarge(self, clip):
        self.clips.append([round(255 * float(frame.mean())) for frame in clip[0]])
        return super().enlarge(clip)


def draw_frames(count, height=6, width=9, dtype=np.uint8):
    """Noise, so that no two frames or tiles are alike; times without any rhythm."""
    rng = np.random.default_rng(count)
    peak = np.iinfo(dtype).max
    return [
        Frame(
            pixels=rng.integers(0, peak, (3, height, width), dtype, endpoint=True),
            time=Fraction(i * i + 1, 1001),
            duration=Fraction(i, 7) if i % 2 else None,
        )
        for i in range(count)
    ]


def restorer(network, **changes):
    settings = {"window": 8, "overlap": 2, "tile": None, "device": CPU, "dtype": torch.float32}
    return Restorer(network, **(settings | changes))


def repeated(frame):
    return frame.pixels.repeat(4, axis=1).repeat(4, axis=2)


def assert_repeats(restored, frames):
    assert [(f.time, f.duration) for f in restored] == [(f.time, f.duration) for f in frames]
    for large, frame in zip(restored, frames, strict=True):
        assert large.pixels.dtype == frame.pixels.dtype
        np.testing.assert_array_equal(large.pixels, repeated(frame))


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (2, 1), (5, 0), (7, 3), (8, 4), (14, 4)])
def test_no_frame_is_lost_repeated_or_changed_for_any_length(window, overlap):
    for length in range(1, 41):
        frames = draw_frames(length)

        restored = list(restorer(Nearest(), window=window, overlap=overlap).restore(frames))

        assert_repeats(restored, frames)


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (2, 1), (5, 0), (7, 3), (8, 4), (14, 4)])
@pytest.mark.parametrize("length", [1, 13, 14, 15, 30])
def test_a_video_started_in_the_middle_gives_identical_frames(length, window, overlap):
    frames = draw_frames(length, height=1, width=2)
    whole = list(restorer(Remembering(), window=window, overlap=overlap).restore(frames))

    for begin in range(length):
        resumed = restorer(Remembering(), window=window, overlap=overlap)
        margin = frames[resumed.windows.margin_start(begin) :]
        rest = list(resumed.restore(margin, begin=begin))

        assert [frame.time for frame in rest] == [frame.time for frame in whole[begin:]]
        for late, early in zip(rest, whole[begin:], strict=True):
            np.testing.assert_array_equal(late.pixels, early.pixels)


def test_no_frame_is_lost_repeated_or_changed_in_tiles_of_any_length():
    for length in range(1, 41):
        frames = draw_frames(length, height=70, width=5)

        restored = list(restorer(Nearest(), window=7, overlap=3, tile=64).restore(frames))

        assert_repeats(restored, frames)


@pytest.mark.parametrize(("height", "width"), [(130, 101), (64, 65), (1, 200), (63, 64)])
def test_tiles_are_blended_to_frames_of_any_size(height, width):
    frames = draw_frames(3, height, width)

    restored = list(restorer(Nearest(), tile=64).restore(frames))

    assert_repeats(restored, frames)


@pytest.mark.parametrize("tile", [None, 64])
def test_high_bit_depth_images_keep_all_bits(tile):
    frames = draw_frames(11, height=66, width=7, dtype=np.uint16)

    restored = list(restorer(Nearest(), tile=tile).restore(frames))

    assert_repeats(restored, frames)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_stays_within_its_own_rounding(dtype):
    frames = draw_frames(9)

    restored = list(restorer(Nearest(), dtype=dtype).restore(frames))

    # bfloat16 keeps 8 significant bits: half a step near 255 is 0.5, before rounding.
    for large, frame in zip(restored, frames, strict=True):
        assert np.abs(large.pixels.astype(int) - repeated(frame)).max() <= 1


def test_fading_at_half_precision_adds_no_rounding_of_its_own():
    grey = np.full((3, 70, 80), 23456, np.uint16)
    frames = [Frame(grey, Fraction(i)) for i in range(12)]

    restored = list(restorer(Nearest(), tile=64, dtype=torch.float16).restore(frames))

    # Blended in float16, joins would differ from the rest by up to 16 levels.
    levels = np.stack([frame.pixels for frame in restored]).astype(int)
    assert np.ptp(levels) <= 1


def test_an_empty_stream_gives_an_empty_stream():
    assert list(restorer(Nearest()).restore([])) == []


def test_one_window_fades_into_the_next_in_a_straight_line():
    # Windows of 8 that share 4: a frame of context on each side of a ramp of 2.
    frames = draw_frames(20, height=1, width=1, dtype=np.uint16)

    restored = list(restorer(Counting(), window=8, overlap=4).restore(frames))

    tenths = [frame.pixels[0, 0, 0] / 6553.5 for frame in restored]
    third = 1 / 3
    expected = [1, 1, 1, 1, 1, 1 + third, 2 - third, 2, 2, 2 + third, 3 - third, 3, 3]
    assert tenths[: len(expected)] == pytest.approx(expected, abs=1e-4)
    assert max(np.diff(tenths)) == pytest.approx(third, abs=2e-4)


def test_one_tile_fades_into_the_next_in_a_straight_line():
    # Tiles of 64 that share 32: 8 pixels of context on each side of a ramp of 16, times four.
    frames = draw_frames(1, height=1, width=96, dtype=np.uint16)

    (restored,) = restorer(Counting(), tile=64).restore(frames)

    tenths = restored.pixels[0, 0] / 6553.5
    assert tenths[: 4 * 40] == pytest.approx(1, abs=1e-4)
    assert np.diff(tenths[4 * 40 - 1 : 4 * 56 + 1]) == pytest.approx(1 / 65, abs=2e-4)
    assert tenths[4 * 56 :] == pytest.approx(2, abs=1e-4)


def test_a_receptive_field_does_not_reach_the_edges_of_tiles():
    frames = draw_frames(3, height=130, width=101)

    whole = list(restorer(Blur()).restore(frames))
    tiled = list(restorer(Blur(), tile=64).restore(frames))

    for a, b in zip(whole, tiled, strict=True):
        np.testing.assert_array_equal(a.pixels, b.pixels)


def test_the_last_tile_starts_at_a_multiple_of_16_and_the_last_window_is_half_as_long_at_least():
    network = Nearest()

    list(restorer(network, tile=64).restore(draw_frames(9, height=20, width=70)))

    assert network.shapes == [(1, t, 3, 20, width) for t in (8, 4) for width in (64, 54)]


def test_tiles_of_two_widths_are_batches_of_their_own():
    network = Nearest()

    list(restorer(network, tile=64, batch=4).restore(draw_frames(2, height=20, width=140)))

    assert network.shapes == [(3, 2, 3, 20, 64), (1, 2, 3, 20, 60)]


def test_gradients_are_off_inside_the_network_and_untouched_outside():
    class Asking(Nearest):
        def enlarge(self, clip):
            assert torch.is_inference_mode_enabled()
            return super().enlarge(clip)

    for _ in restorer(Asking()).restore(draw_frames(9)):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(("window", "overlap"), [(1, 0), (6, 0), (8, 3), (8, 4)])
def test_frames_are_read_only_when_they_are_needed(window, overlap):
    frames = draw_frames(40, height=1, width=1)
    read = 0

    def count_reads():
        nonlocal read
        for frame in frames:
            read += 1
            yield frame

    restored = restorer(Nearest(), window=window, overlap=overlap).restore(count_reads())

    for given_out, _ in enumerate(restored):
        assert read - given_out <= window + 1


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("CUBLAS_STATUS_ALLOC_FAILED"),
    ],
    ids=["cuda", "mps", "cublas"],
)
def test_out_of_memory_reduces_the_tile_and_loses_nothing(error):
    network = Hungry(area=90 * 90, error=error)
    frames = draw_frames(15, height=100, width=200)
    job = restorer(network)

    restored = list(job.restore(frames))

    # Whole, then in tiles of 112, then of 64; the second window starts with 64 at once.
    assert_repeats(restored, frames)
    assert job.tile == 64
    assert [shape[-2:] for shape in network.shapes[:3]] == [(100, 200), (100, 112), (64, 64)]
    assert [shape[-2:] for shape in network.shapes].count((100, 112)) == 1


def test_out_of_memory_in_a_later_window_keeps_the_fade_from_the_previous_one():
    network = Hungry(area=70 * 70, error=torch.OutOfMemoryError("CUDA out of memory"))
    frames = draw_frames(15, height=20, width=100)
    job = restorer(network)
    stream = job.restore(frames)

    restored = [next(stream)]
    network.area = 64 * 20
    restored += stream

    assert_repeats(restored, frames)
    assert job.tile == 64


def test_out_of_memory_with_the_smallest_tile_is_reported():
    network = Hungry(area=1, error=torch.OutOfMemoryError("CUDA out of memory"))

    with pytest.raises(MemoryShortage, match=r"even for tiles of 64 pixels; .* smaller --window"):
        list(restorer(network).restore(draw_frames(3, height=100, width=100)))


def test_out_of_memory_on_a_real_cpu_is_recognized():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)

    assert is_memory_shortage(caught.value)


def test_any_other_error_of_the_network_is_raised():
    network = Hungry(area=1, error=RuntimeError("expected 64 channels"))

    with pytest.raises(RuntimeError, match="expected 64 channels"):
        list(restorer(network).restore(draw_frames(3)))


@pytest.mark.parametrize(
    ("tile", "longer_side", "expected"),
    [
        (None, 320, 160),
        (None, 65, 64),
        (512, 320, 160),
        (144, 1920, 80),
        (80, 1920, 64),
    ],
)
def test_the_next_tile_is_half_as_large(tile, longer_side, expected):
    assert smaller_tile(tile, longer_side=longer_side) == expected


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_nan_output_stops_the_job(value):
    frames = draw_frames(6)

    with pytest.raises(CheckFailed, match=r"frame at 0\.010 s is not finite; try --dtype fp32"):
        list(restorer(Broken(value)).restore(frames))


def test_values_are_clamped_and_rounded_to_the_nearest_level():
    values = torch.tensor([-0.2, 0.0, 0.4 / 255, 0.6 / 255, 0.5, 1.0, 1.7])

    assert to_pixels(values, np.dtype(np.uint8)).tolist() == [0, 0, 0, 1, 128, 255, 255]
    assert to_pixels(values, np.dtype(np.uint16)).tolist() == [0, 0, 103, 154, 32768, 65535, 65535]


@pytest.mark.parametrize(
    "changes",
    [{"tile": 63}, {"window": 0}, {"overlap": 5}, {"batch": 0}, {"batch": 2, "workers": 2}],
)
def test_settings_out_of_range_are_refused(changes):
    with pytest.raises(ValueError, match="got"):
        restorer(Nearest(), **changes)


def test_frames_that_fit_are_not_tiled():
    enough = 100 * 8 * 180 * 320 * 10 // 7 + 1

    tile = choose_tile(Nearest().memory_bytes, window=8, height=180, width=320, free_bytes=enough)

    assert tile is None


def test_the_tile_chosen_is_the_one_with_the_least_work_of_those_that_fit():
    # Everything but the whole picture fits. Two tiles of 176 and 32 shared pixels make 320, but
    # cut the height of 180 as well; two of 192 do not. Two of 304 read nearly all of it twice.
    nearly_enough = 100 * 8 * 180 * 320 * 10 // 7 - 10

    tile = choose_tile(
        Nearest().memory_bytes, window=8, height=180, width=320, free_bytes=nearly_enough
    )

    assert tile == 192


def test_on_two_cores_a_frame_is_split_unless_the_overlap_costs_too_much():
    plenty = {"window": 8, "free_bytes": 1 << 40, "at_once": 2}

    assert choose_tile(Nearest().memory_bytes, height=180, width=320, **plenty) == 192
    assert choose_tile(Nearest().memory_bytes, height=60, width=104, **plenty) is None


def test_tiles_restored_in_parallel_give_the_same_frame():
    frames = draw_frames(9, height=70, width=150)

    alone = list(restorer(Blur(), tile=64).restore(frames))
    side_by_side = list(restorer(Blur(), tile=64, workers=2).restore(frames))

    for one, other in zip(alone, side_by_side, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_tiles_in_one_batch_give_the_same_frame(batch):
    frames = draw_frames(9, height=70, width=180)
    network = Blur()

    alone = list(restorer(Blur(), tile=64).restore(frames))
    together = list(restorer(network, tile=64, batch=batch).restore(frames))

    assert max(shape[0] for shape in network.shapes) == batch
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


@pytest.mark.parametrize("batch", [2, 3, 4])
def test_windows_in_one_batch_fade_and_end_like_single_ones(batch):
    frames = draw_frames(41)  # seven windows, the last one shorter
    frames[30] = replace(frames[30], begins_shot=True)
    network = Remembering()

    alone = list(restorer(Remembering()).restore(frames))
    together = list(restorer(network, batch=batch).restore(frames))

    assert max(shape[0] for shape in network.shapes) == batch
    assert [frame.time for frame in together] == [frame.time for frame in frames]
    for one, other in zip(alone, together, strict=True):
        assert np.array_equal(one.pixels, other.pixels)


def test_no_more_than_a_batch_of_windows_is_read_ahead():
    read = []

    def frames():
        for frame in draw_frames(60):
            read.append(frame)
            yield frame

    restored = restorer(Nearest(), batch=2).restore(frames())
    next(restored)

    assert len(read) == 8 + 6 + 1  # two windows that share two frames, and one frame


@pytest.mark.parametrize("config", [TINY, TINY_GSM], ids=["vsrm", "gsm"])
def test_real_networks_restore_a_batch_as_they_restore_each_clip(config):
    network = make_network(config)
    clips = draw_randomly(3, 3, 3, 11, 14)

    with torch.inference_mode():
        together = network(clips)
        alone = torch.cat([network(clip[None]) for clip in clips])

    torch.testing.assert_close(together, alone, rtol=0, atol=1e-5)


def test_out_of_memory_reduces_the_batch_before_the_tile():
    frames = draw_frames(41, height=20, width=210)
    network = Hungry(area=2 * 20 * 210, error=torch.OutOfMemoryError("CUDA out of memory"))
    job = restorer(network, batch=4)

    restored = list(job.restore(frames))

    assert_repeats(restored, frames)
    assert (job.batch, job.tile) == (2, None)
    assert [shape[0] for shape in network.shapes] == [4, 2, 2, 2, 1]


def test_a_batch_holds_what_keeps_a_gpu_busy_and_fits_into_its_memory():
    def batch(height, width, free_bytes):
        sizes = {"window": 8, "height": height, "width": width, "free_bytes": free_bytes}
        return choose_batch(Nearest().memory_bytes, **sizes)

    assert batch(180, 320, 1 << 40) == 4
    assert batch(360, 320, 1 << 40) == 2
    assert batch(1080, 1920, 1 << 40) == 1
    assert batch(180, 320, 800 * 180 * 320 * 5) == 3  # of which seven tenths may be filled
    assert batch(180, 320, 1) == 1


def test_a_batch_left_open_is_chosen_with_the_first_window(monkeypatch):
    monkeypatch.setattr("vsrm_cli.inference.restorer.free_memory_bytes", lambda _: 1 << 40)
    frames = draw_frames(30)
    job = restorer(Nearest(), tile="auto", batch=None)

    restored = list(job.restore(frames))

    assert job.batch == 4
    assert_repeats(restored, frames)


def test_a_frame_without_a_fitting_tile_is_an_error_on_gpus_and_tried_on_cpus():
    little = {"window": 8, "height": 180, "width": 320, "free_bytes": 1000}

    with pytest.raises(MemoryShortage, match="8 frames of 320x180 pixels do not fit"):
        choose_tile(Nearest().memory_bytes, **little)
    assert choose_tile(Nearest().memory_bytes, **little, must_fit=False) == 64


def test_an_automatic_tile_is_chosen_with_the_first_window(monkeypatch):
    # Room for 8 frames of 64 x 64, and not for more.
    monkeypatch.setattr(
        "vsrm_cli.inference.restorer.free_memory_bytes", lambda _: 100 * 8 * 64 * 64 * 10 // 7
    )
    frames = draw_frames(9, height=70, width=80)
    job = restorer(Nearest(), tile="auto")

    restored = list(job.restore(frames))

    assert job.tile == 64
    assert_repeats(restored, frames)


def test_an_automatic_tile_that_was_too_large_is_not_chosen_again(monkeypatch):
    monkeypatch.setattr("vsrm_cli.inference.restorer.free_memory_bytes", lambda _: 1 << 40)
    network = Hungry(area=64 * 64, error=torch.OutOfMemoryError("CUDA out of memory"))
    frames = draw_frames(21, height=20, width=210)
    job = restorer(network, tile="auto")

    restored = list(job.restore(frames))

    assert_repeats(restored, frames)
    assert [shape[-1] for shape in network.shapes].count(210) == 1


def write_system_files(root, *, available_kib, limit, used, cached):
    group = root / "sys" / "fs" / "cgroup"
    group.mkdir(parents=True)
    (root / "proc").mkdir()
    (root / "proc" / "meminfo").write_text(
        f"MemTotal:  900000 kB\nMemAvailable:  {available_kib} kB\n"
    )
    (group / "memory.max").write_text(f"{limit}\n")
    (group / "memory.current").write_text(f"{used}\n")
    (group / "memory.stat").write_text(f"anon 1\ninactive_file {cached}\nactive_file 7\n")


@pytest.mark.parametrize(
    ("limit", "expected"), [("max", 500 * 1024), (300_000, 220_000), (90_000, 10_000), (5, 0)]
)
def test_a_lower_limit_of_the_container_applies(tmp_path, limit, expected):
    write_system_files(tmp_path, available_kib=500, limit=limit, used=100_000, cached=20_000)

    assert free_host_bytes(tmp_path) == expected


def test_this_machine_has_some_memory_but_not_a_pebibyte():
    assert 1 << 20 < free_memory_bytes(CPU) < 1 << 50


@settings(max_examples=60, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 13), min_size=1, max_size=6),
    window=st.integers(1, 9),
    data=st.data(),
)
def test_no_window_reaches_across_a_cut(lengths, window, data):
    overlap = data.draw(st.integers(0, window // 2))
    shots = [shot for shot, length in enumerate(lengths) for _ in range(length)]
    frames = [
        Frame(
            pixels=np.full((3, 4, 4), shot, np.uint8),
            time=Fraction(index),
            begins_shot=index > 0 and shot != shots[index - 1],
        )
        for index, shot in enumerate(shots)
    ]
    network = Watching()

    restored = list(restorer(network, window=window, overlap=overlap).restore(frames))

    assert [len(set(clip)) for clip in network.clips] == [1] * len(network.clips)
    assert [frame.time for frame in restored] == [frame.time for frame in frames]
    assert [frame.pixels[0, 0, 0] for frame in restored] == shots
    assert all(frame.pixels.min() == frame.pixels.max() for frame in restored)


def test_a_shot_is_restored_as_if_it_stood_alone():
    frames = draw_frames(30)
    frames[11] = replace(frames[11], begins_shot=True)

    together = list(restorer(Remembering()).restore(frames))
    first = list(restorer(Remembering()).restore(frames[:11]))
    second = list(restorer(Remembering()).restore(frames[11:]))

    for frame, expected in zip(together, first + second, strict=True):
        np.testing.assert_array_equal(frame.pixels, expected.pixels)


def test_a_video_started_in_the_middle_of_a_shot_has_the_next_cut_at_its_place():
    frames = draw_frames(40)
    frames[25] = replace(frames[25], begins_shot=True)
    whole = list(restorer(Remembering()).restore(frames))
    resumed = restorer(Remembering())
    margin = resumed.windows.margin_start(15)

    rest = list(resumed.restore(frames[margin:], begin=15))

    for frame, expected in zip(rest, whole[15:], strict=True):
        np.testing.assert_array_equal(frame.pixels, expected.pixels)
