"""What each part of a network adds is measured by leaving it out, and by nothing else."""

import pytest
import torch
from networks import make_network
from scenes import draw_folder

from vsrm_cli.errors import InputError
from vsrm_cli.evaluation import ablation
from vsrm_cli.evaluation.ablation import measure_ablation


@pytest.fixture
def network(monkeypatch):
    network = make_network().requires_grad_(False)
    monkeypatch.setattr(ablation, "load_model", lambda *_, **__: network)
    return network


def measured(folder, **options):
    rows = measure_ablation(
        folder,
        ["tiny"],
        **{"degradation": "bi", "most_frames": None, **options},
        dtype="auto",
        device=torch.device("cpu"),
        report=lambda _: None,
    )
    return {row.part: row for row in rows}


def test_each_way_of_running_a_network_gets_its_quality_and_time(network, tmp_path):
    draw_folder(tmp_path / "waves", frames=3)

    rows = measured(tmp_path)

    assert list(rows) == [
        "whole",
        "windows of 5 frames",
        "frames one at a time",
        "without propagation",
        "without refined flow",
        "without flow refined on the first pass",
    ]
    assert all(row.ms_per_frame > 0 for row in rows.values())
    # A clip of three frames fits into a window of five.
    assert rows["windows of 5 frames"].psnr == rows["whole"].psnr
    assert rows["without propagation"].psnr != rows["whole"].psnr


def test_an_ablated_part_is_restored_afterwards(network):
    clip = torch.rand(1, 3, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    before = network(clip)

    for run in network.ablations().values():
        run(clip)

    assert torch.equal(network(clip), before)


def test_a_folder_without_clips_is_refused(network, tmp_path):
    with pytest.raises(InputError):
        measured(tmp_path)
