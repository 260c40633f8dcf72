"""Progress is reported within a window, which takes minutes on a slow machine."""

import time
from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from vsrm_cli.frame import Frame
from vsrm_cli.inference import window_progress
from vsrm_cli.inference.restorer import Restorer
from vsrm_cli.models.presets import VSRM_T
from vsrm_cli.models.vsrm_compact import VSRMCompact


@pytest.fixture(autouse=True)
def every_call(monkeypatch):
    monkeypatch.setattr(window_progress, "SECONDS_BETWEEN_REPORTS", 0.0)


class Paced(nn.Module):
    """Repeats pixels, frame by frame; each frame is visited twice."""

    scale = 4

    def __init__(self):
        super().__init__()
        self.visit = nn.Identity()

    def paced(self):
        return [(self.visit, 0.5)]

    def memory_bytes(self, time, height, width):
        return 1

    def forward(self, clip):
        frames = [self.visit(frame) for _ in range(2) for frame in clip.unbind(1)]
        small = torch.stack(frames[: clip.shape[1]], dim=1)
        return small.repeat_interleave(4, -1).repeat_interleave(4, -2)


def frames(count, size=64):
    pixels = np.zeros((3, size, size), np.uint8)
    return [Frame(pixels, Fraction(n, 25), Fraction(1, 25), n == 0) for n in range(count)]


def restorer(network, *, window=8, tile=None, workers=1):
    return Restorer(
        network,
        window=window,
        overlap=2,
        tile=tile,
        device=torch.device("cpu"),
        dtype=torch.float32,
        workers=workers,
    )


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("tile", [None, 64])
def test_progress_increases_to_the_frames_of_a_window(workers, tile):
    reports = []
    job = restorer(Paced(), tile=tile, workers=workers)
    job.watch(reports.append)

    (*_, _last) = job.restore(frames(8, size=100))

    assert reports == sorted(reports)
    assert reports[-1] == 8
    assert len(reports) >= 2


def test_a_single_tile_is_reported_frame_by_frame():
    reports = []
    job = restorer(Paced())
    job.watch(reports.append)

    list(job.restore(frames(8)))

    assert reports[:4] == [0.5, 1.0, 1.5, 2.0]


def test_a_finished_job_gets_no_progress_of_the_next_one():
    network, reports = Paced(), []
    job = restorer(network)
    job.watch(reports.append)
    list(job.restore(frames(8)))
    heard = len(reports)

    list(restorer(network).restore(frames(8)))

    assert len(reports) == heard


def test_a_tile_in_a_thread_of_its_own_is_reported_by_the_caller(monkeypatch):
    class Slow(Paced):
        def forward(self, clip):
            time.sleep(0.02)
            return super().forward(clip)

    reports, callers = [], set()
    job = restorer(Slow(), tile=64, workers=2)
    job.watch(
        lambda done: (reports.append(done), callers.add(window_progress.threading.get_ident()))
    )

    list(job.restore(frames(8, size=100)))

    assert callers == {window_progress.threading.get_ident()}
    assert len(reports) > 2


def test_the_calls_of_the_compact_network_add_up_to_its_frames():
    network = VSRMCompact(VSRM_T).eval()
    shares = []
    for module, share in network.paced():
        module.register_forward_hook(lambda *_, share=share: shares.append(share))

    with torch.inference_mode():
        network(torch.rand(1, 3, 3, 16, 16))

    assert sum(shares) == pytest.approx(3)
