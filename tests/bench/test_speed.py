"""Networks are timed fairly, and sizes that do not fit are reported."""

from dataclasses import replace

import pytest
import torch
from networks import TINY_VSRM
from stub_network import NearestNeighbor, load_nearest

from vsrm_cli.bench import speed
from vsrm_cli.checkpoints.catalog import MODELS
from vsrm_cli.errors import UsageError, VsrmError


@pytest.fixture(autouse=True)
def network(monkeypatch):
    monkeypatch.setattr(speed, "load_model", load_nearest)


def measure(**changes):
    wishes = {"dtypes": ["auto"], "sizes": ["180p"], "window": 2, "report": lambda _: None}
    return speed.measure_speed(["any"], device=torch.device("cpu"), **{**wishes, **changes})


def test_a_row_says_what_was_timed_and_how_long_it_took():
    (row,) = measure()

    assert (row.model, row.dtype, row.size) == ("nearest", "fp32", "180p")
    assert (row.width, row.height, row.frames, row.parameters) == (320, 180, 2, 1)
    assert 0 < row.ms_lowest <= row.ms_per_frame <= row.ms_highest
    assert row.fps == pytest.approx(1000 / row.ms_per_frame)
    assert row.runs >= 3
    assert row.problem is None


def test_every_precision_and_size_has_a_row_and_is_announced():
    told = []

    rows = measure(dtypes=["fp32", "auto"], sizes=["180p", "270p"], report=told.append)

    assert [row.size for row in rows] == ["180p", "270p"] * 2
    assert told[1] == "timing nearest in fp32 on 2 frames of 270p"


def test_a_size_that_does_not_fit_into_memory_is_reported_and_others_are_timed(monkeypatch):
    def needs(self, time, height, width):
        return 2**50 if height > 200 else 2**20

    monkeypatch.setattr(NearestNeighbor, "memory_bytes", needs)

    small, large = measure(sizes=["180p", "270p"])

    assert small.problem is None
    assert large.problem.startswith("not enough memory: needs 1048576.0 GiB, ")
    assert large.ms_per_frame is large.fps is None


def test_an_unexpected_out_of_memory_is_reported(monkeypatch):
    def forward(self, clip):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(NearestNeighbor, "forward", forward)
    monkeypatch.setattr(speed, "count_flops", lambda *_: 0)

    (row,) = measure()

    assert row.problem.startswith("not enough memory")


def test_the_first_run_does_not_count(monkeypatch):
    calls = []
    monkeypatch.setattr(speed, "MOST_RUNS", 4)

    times = speed.time_runs(lambda: calls.append(None), torch.device("cpu"))

    assert (len(times), len(calls)) == (4, 5)


@pytest.mark.parametrize(
    ("runs", "seconds", "goes_on"),
    [(0, 0, True), (1, 19, True), (1, 21, False), (2, 6, True), (3, 4, True), (3, 6, False)],
)
def test_slow_runs_are_repeated_less(runs, seconds, goes_on):
    assert speed._has_time_for_another(runs, seconds) is goes_on


def test_the_largest_tile_is_the_largest_that_fits_by_the_estimate():
    network = NearestNeighbor()
    needed = network.memory_bytes(2, 640, 640) * 100 // 70

    assert speed.find_largest_tile(network, window=2, free_bytes=needed + 100) == 640
    assert speed.find_largest_tile(network, window=2, free_bytes=needed - 100) == 624
    assert speed.find_largest_tile(network, window=2, free_bytes=1000) is None


def test_an_unknown_size_is_wrong_usage():
    with pytest.raises(UsageError, match='180p, 270p, 360p, 480p, 540p, not "1080p"'):
        measure(sizes=["1080p"])


@pytest.mark.parametrize(("has_amx", "dtype"), [(False, "fp32"), (True, "bf16")])
def test_a_network_without_weights_is_timed_untrained(monkeypatch, has_amx, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": has_amx})
    tiny = replace(MODELS["vsrm"], config=TINY_VSRM)
    monkeypatch.setitem(speed.MODELS, "vsrm", tiny)
    monkeypatch.setitem(speed.SIZES, "180p", (32, 24))

    (row,) = speed.measure_speed(
        ["vsrm"],
        dtypes=["auto"],
        sizes=["180p"],
        device=torch.device("cpu"),
        window=1,
        report=lambda _: None,
    )

    assert (row.model, row.dtype, row.problem) == ("vsrm (untrained)", dtype, None)
    assert row.macs_per_frame > 0


def test_an_unknown_precision_is_wrong_usage():
    with pytest.raises(UsageError, match='not "int8"'):
        measure(dtypes=["int8"])


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_without_a_gpu_requesting_one_is_an_error():
    with pytest.raises(VsrmError, match="no CUDA device here"):
        speed.choose_device(gpu=True)

    assert speed.choose_device(gpu=None).type == "cpu"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_work_is_timed_and_not_only_its_start():
    x = torch.rand(4096, 4096, device="cuda")

    one, ten = (
        min(speed.time_runs(lambda k=k: [x @ x for _ in range(k)], torch.device("cuda")))
        for k in (1, 10)
    )

    assert ten > 5 * one
