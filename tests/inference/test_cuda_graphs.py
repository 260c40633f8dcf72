"""Repeated shapes are recorded as CUDA graphs, and replayed if the result is the same."""

import pytest
import torch

from vsrm_cli.inference.cuda_graphs import CALLS_BEFORE, MAX_KEPT, ReplayedNetwork, record_on_cuda


class Doubling:
    """A network that counts its calls."""

    scale = 4

    def __init__(self, error=None):
        self.calls = 0
        self.error = error

    def __call__(self, clip):
        self.calls += 1
        if self.error is not None:
            raise self.error
        return 2 * clip

    def memory_bytes(self, time, height, width):
        return time * height * width


class Recorder:
    """Stands in for CUDA graphs: notes the shapes, and replays without the network."""

    def __init__(self, *, differs_by=0.0, error=None):
        self.shapes = []
        self.differs_by, self.error = differs_by, error

    def __call__(self, network, clip):
        if self.error is not None:
            raise self.error
        self.shapes.append(tuple(clip.shape))
        return lambda clip: 2 * clip + self.differs_by


def clip_of(width):
    return torch.rand(1, 2, 3, 4, width, generator=torch.Generator().manual_seed(width))


def call(replayed, width, times):
    for _ in range(times):
        clip = clip_of(width)
        torch.testing.assert_close(replayed(clip), 2 * clip, rtol=0, atol=1e-3)


def test_a_short_job_records_nothing():
    recorder = Recorder()

    call(ReplayedNetwork(Doubling(), record=recorder), 5, times=CALLS_BEFORE - 1)

    assert recorder.shapes == []


def test_a_repeated_shape_is_recorded_once_and_replayed():
    network, recorder = Doubling(), Recorder()

    call(ReplayedNetwork(network, record=recorder), 5, times=20)

    assert recorder.shapes == [(1, 2, 3, 4, 5)]
    assert network.calls == CALLS_BEFORE


def test_a_rare_shape_is_computed_without_a_graph():
    network, recorder = Doubling(), Recorder()
    replayed = ReplayedNetwork(network, record=recorder)

    call(replayed, 5, times=10)
    call(replayed, 6, times=1)
    call(replayed, 5, times=10)

    assert recorder.shapes == [(1, 2, 3, 4, 5)]
    assert network.calls == CALLS_BEFORE + 1


def test_graphs_are_kept_within_the_memory_estimate():
    recorder = Recorder()
    replayed = ReplayedNetwork(Doubling(), record=recorder)

    for width in range(5, 10):
        call(replayed, width, times=CALLS_BEFORE + 1)

    assert len(recorder.shapes) == MAX_KEPT


@pytest.mark.parametrize("difference", [0.01, float("nan")])
def test_a_replay_with_a_different_result_is_never_used(difference):
    network, recorder = Doubling(), Recorder(differs_by=difference)
    replayed = ReplayedNetwork(network, record=recorder)

    call(replayed, 5, times=10)
    call(replayed, 6, times=10)

    assert network.calls == 20
    assert len(recorder.shapes) == 1
    assert replayed.disabled_reason.startswith("a replay differed by")


def test_work_that_cannot_be_recorded_is_computed_without_a_graph():
    network = Doubling()
    error = RuntimeError("operation not permitted when stream is capturing\nCompile with ...")
    replayed = ReplayedNetwork(network, record=Recorder(error=error))

    call(replayed, 5, times=10)

    assert network.calls == 10
    assert replayed.disabled_reason == "operation not permitted when stream is capturing"


def test_any_other_error_while_recording_is_raised():
    replayed = ReplayedNetwork(Doubling(), record=Recorder(error=ValueError("a bug")))

    with pytest.raises(ValueError, match="a bug"):
        call(replayed, 5, times=10)


def test_out_of_memory_drops_recorded_graphs_and_is_raised():
    network = Doubling()
    replayed = ReplayedNetwork(network, record=Recorder())
    call(replayed, 5, times=10)
    network.error = torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        replayed(clip_of(6))
    network.error = None
    call(replayed, 5, times=3)

    assert network.calls == CALLS_BEFORE + 1 + 3
    assert replayed.disabled_reason == "the memory is too small for recordings"


def test_a_replayed_network_has_the_scale_and_memory_estimate_of_its_network():
    replayed = ReplayedNetwork(Doubling(), record=Recorder())

    assert replayed.scale == 4
    assert replayed.memory_bytes(2, 3, 5) == 30


@pytest.mark.gpu
def test_a_cuda_graph_gives_the_result_of_the_network():
    layer = torch.nn.Conv2d(3, 3, 3, padding=1).cuda()
    clips = [torch.rand(2, 3, 8, 9, device="cuda") for _ in range(3)]

    with torch.inference_mode():
        layer(clips[0])
        replay = record_on_cuda(layer, clips[0])
        for clip in clips:
            torch.testing.assert_close(replay(clip), layer(clip))


@pytest.mark.skipif(torch.cuda.is_available(), reason="graphs can be recorded")
def test_without_graph_support_everything_is_computed():
    network = Doubling()
    replayed = ReplayedNetwork(network)

    call(replayed, 5, times=10)

    assert network.calls == 10
    assert replayed.disabled_reason is not None
