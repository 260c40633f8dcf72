"""Several machines give the frames of one, whatever happens to them.

The clusters are Ray's own for tests: each node is some processes on this machine. It has as many
CPUs as this process has threads, so one worker, and a GPU that is none.
"""

import json
import os
import re
import subprocess
import sys
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pool_workers
import pytest
import torch
from multi_shot_video import SHOTS, SMALL, decoded_contents
from networks import make_network
from stub_network import names_in
from typer.testing import CliRunner

from vsrm_cli.checkpoints.loading import save_weights
from vsrm_cli.cli.app import app
from vsrm_cli.errors import CheckFailed, InputError, OutputError, UsageError, VsrmError
from vsrm_cli.upscale.distributed.cluster import Cluster, NodeState, check_versions
from vsrm_cli.upscale.distributed.ray_driver import ClusterNode, find_versions
from vsrm_cli.upscale.distributed.segment_worker import WorkerSettings
from vsrm_cli.upscale.job import upscale_video
from vsrm_cli.upscale.options import UpscaleOptions

needs_ray = pytest.mark.skipif(not find_spec("ray"), reason="there is no Ray for this platform")
# Of a cluster that works, a node that is lost is noticed in three seconds, not in fifteen.
QUICK = {
    "RAY_health_check_initial_delay_ms": "0",
    "RAY_health_check_period_ms": "500",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    # Otherwise they give way to everything else on this machine, and wait for minutes.
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
}
TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def ray_cluster():
    """A head that does no work, and three nodes; a test that loses one adds another."""
    from ray.cluster_utils import Cluster as RayCluster

    with pytest.MonkeyPatch.context() as patch:
        for name, value in QUICK.items():
            patch.setenv(name, value)
        # Where the nodes find the workers of these tests.
        patch.setenv("PYTHONPATH", os.pathsep.join([str(TESTS), str(TESTS / "models")]))
        cluster = RayCluster(initialize_head=True, head_node_args={"num_cpus": 0})
        for _ in range(3):
            add_node(cluster)
        yield cluster
        cluster.shutdown()


def add_node(cluster):
    return cluster.add_node(num_cpus=torch.get_num_threads(), num_gpus=1)


def start_over(example, output, cluster, **options):
    settings = SMALL | {"model": example / "tiny.safetensors", "device": "cpu"} | options
    return upscale_video(example / "small.mkv", output, cluster=cluster.address, **settings)


@pytest.mark.slow
@needs_ray
def test_three_nodes_give_the_frames_and_streams_of_one_machine(
    example, tmp_path, ray_cluster, capfd
):
    seen = []

    summary = start_over(example, tmp_path / "large.mkv", ray_cluster, report=seen.append)

    assert decoded_contents(tmp_path / "large.mkv") == decoded_contents(example / "whole.mkv")
    assert (summary.frames_out, summary.device) == (sum(SHOTS), "cpu,cpu,cpu")
    assert summary.equal
    shares = seen[-1].shares
    assert len(shares) == len({node for node, _ in shares}) == 3
    assert seen[-1].frames_done == sum(frames for _, frames in shares) == sum(SHOTS)
    assert names_in(tmp_path) == ["large.mkv"]
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
@needs_ray
def test_a_node_that_is_lost_gives_its_segment_back(example, tmp_path, ray_cluster):
    node, warnings = ray_cluster.worker_nodes.copy().pop(), []

    def lose_once(progress):
        if any(frames for _, frames in progress.shares) and node in ray_cluster.worker_nodes:
            ray_cluster.remove_node(node, allow_graceful=False)

    try:
        start_over(example, tmp_path / "large.mkv", ray_cluster, report=lose_once, segment_frames=4)
        upscale_video(
            example / "small.mkv",
            tmp_path / "whole.mkv",
            **SMALL | {"model": example / "tiny.safetensors", "device": "cpu", "segment_frames": 4},
            warn=warnings.append,
        )
    finally:
        add_node(ray_cluster)

    assert decoded_contents(tmp_path / "large.mkv") == decoded_contents(tmp_path / "whole.mkv")
    assert names_in(tmp_path) == ["large.mkv", "whole.mkv"]


@pytest.mark.slow
@needs_ray
def test_a_segment_that_always_fails_ends_the_job_with_one_sentence(example, tmp_path, ray_cluster):
    network = make_network()
    with torch.no_grad():
        for weight in network.parameters():
            weight.mul_(1e20)
    save_weights(network, tmp_path / "broken.safetensors", {})

    with pytest.raises(CheckFailed, match=r"the segment of frames \d+ to \d+ failed 3 times: "):
        start_over(
            example, tmp_path / "large.mkv", ray_cluster, model=tmp_path / "broken.safetensors"
        )

    assert not (tmp_path / "large.mkv").exists()


@pytest.mark.slow
@needs_ray
@pytest.mark.skipif(sys.platform == "win32", reason="these faults are made by Linux's means")
@pytest.mark.parametrize("is_full_everywhere", [False, True])
def test_a_full_disk_on_a_node_is_reported_and_nothing_is_lost(
    example, tmp_path, ray_cluster, monkeypatch, is_full_everywhere
):
    """Other nodes make the segment, or it fails three times: that depends on who is free."""
    import full_disk_worker

    output, warnings, error = tmp_path / "large.mkv", [], ""
    with monkeypatch.context() as patch:
        opener = partial(full_disk_worker.open_worker, is_full_everywhere)
        patch.setattr("vsrm_cli.upscale.distributed.cluster.check_and_open", opener)
        try:
            start_over(example, output, ray_cluster, warn=warnings.append)
        except OutputError as failure:
            error = str(failure)
    assert output.exists() == (not error)
    assert error or not is_full_everywhere
    if error:
        assert re.search("^the segment of frames .* failed 3 times: .*disk.*$", error)
        start_over(example, output, ray_cluster)

    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")
    assert any("disk" in words and words.endswith("retrying") for words in warnings)
    assert names_in(tmp_path) == ["full", "large.mkv"]


@pytest.mark.slow
@needs_ray
def test_a_killed_cluster_job_can_be_resumed_on_one_machine(example, tmp_path, ray_cluster):
    import job_process

    output, entries = tmp_path / "large.mkv", tmp_path / ".large.mkv.vsrm" / "segments.jsonl"
    words = [example / "small.mkv", "-o", output, "--model", example / "tiny.safetensors"]
    words += ["--device", "cpu", "--cluster", ray_cluster.address]
    words += ["--window", 7, "--overlap", 3, "--segment-frames", 8]

    job = job_process.start(*words)
    until = time.monotonic() + 120
    while not (entries.exists() and entries.stat().st_size) and time.monotonic() < until:
        time.sleep(0.02)
    job.kill()
    job.join()
    settings = SMALL | {"model": example / "tiny.safetensors", "device": "cpu"}
    summary = upscale_video(example / "small.mkv", output, **settings)

    assert summary.frames_resumed > 0
    assert decoded_contents(output) == decoded_contents(example / "whole.mkv")
    assert names_in(tmp_path) == ["large.mkv"]


@pytest.mark.slow
@needs_ray
def test_the_command_prints_only_its_own_messages(example, tmp_path, ray_cluster):
    words = ["upscale", example / "small.mkv", "-o", tmp_path / "large.mkv", "--device", "cpu"]
    words += [
        "--model",
        example / "tiny.safetensors",
        "--cluster",
        ray_cluster.address,
        "--json",
    ]
    words += ["--window", 7, "--overlap", 3, "--segment-frames", 8, "--quiet"]

    done = subprocess.run(
        [sys.executable, "-m", "vsrm_cli", *map(str, words)], capture_output=True, timeout=120
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["frames_out"] == sum(SHOTS)


@pytest.mark.slow
@needs_ray
def test_a_node_that_cannot_be_used_is_named_before_the_work(example, tmp_path, ray_cluster):
    """The GPUs of these nodes are none."""
    with pytest.raises(VsrmError, match=r"^\S+ cuda cannot be used: .*(CUDA|cuda)"):
        start_over(example, tmp_path / "large.mkv", ray_cluster, device="auto")

    assert names_in(tmp_path) == []


@pytest.mark.slow
@needs_ray
def test_a_dead_or_failed_process_on_a_node_is_noticed(tmp_path, ray_cluster):
    said = []
    with Cluster(ray_cluster.address) as cluster:
        for open_worker in (
            pool_workers.Squaring,
            pool_workers.Failing,
            partial(pool_workers.Dying, str(tmp_path)),
        ):
            key = cluster.start(open_worker, "cpu", threads=torch.get_num_threads())
            until = time.monotonic() + 60
            message = None
            while time.monotonic() < until:
                heard = cluster.receive(1)
                if heard is None or heard[0] != key:
                    continue
                message = heard[1]
                if message.kind == "facts":
                    cluster.send(key, 3)
                elif message.kind in ("result", "failure", "death"):
                    break
            said.append((message.kind, str(message.content)))
            cluster.send(key, None)

    assert said == [
        ("result", "9"),
        ("failure", "3 is no good."),
        ("death", "its process ended"),
    ]


@pytest.mark.slow
@needs_ray
def test_the_doctor_lists_the_nodes(ray_cluster):
    result = CliRunner().invoke(app, ["doctor", "--cluster", ray_cluster.address, "--json"])

    assert result.exit_code == 0, result.output
    findings = json.loads(result.stdout)
    assert [finding["state"] for finding in findings] == ["good"] * 3
    assert all("1 GPUs" in f["detail"] and "PyAV" in f["detail"] for f in findings)


@pytest.mark.slow
@needs_ray
@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379"])
def test_an_unreachable_cluster_is_reported_quickly(example, tmp_path, address):
    began = time.monotonic()

    with pytest.raises(VsrmError, match=rf"^The Ray cluster at {address} cannot be reached; "):
        start_over(example, tmp_path / "large.mkv", SimpleNamespace(address=address))

    assert time.monotonic() - began < 40  # with loading Ray
    assert names_in(tmp_path) == []


def test_without_ray_the_extra_is_named(example, tmp_path, monkeypatch):
    monkeypatch.setattr("vsrm_cli.upscale.distributed.cluster.find_spec", lambda _: None)

    with pytest.raises(VsrmError, match=r'pip install "vsrm\[cluster\]"'):
        start_over(example, tmp_path / "large.mkv", SimpleNamespace(address="auto"))


def test_ray_is_not_imported_here():
    code = "import sys, vsrm_cli.upscale.job; sys.exit('ray' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("address", ["", "somewhere", "ray://10.0.0.1:10001", "a b:1"])
def test_an_invalid_address_is_refused(address):
    with pytest.raises(UsageError, match=r"must be auto, or an address such as 10\.0\.0\.1:6379"):
        UpscaleOptions.read(cluster=address)


@pytest.mark.parametrize("device", ["cuda:0", "cuda:all", "cpu,cpu", "mps"])
def test_devices_of_this_machine_are_refused_with_a_cluster(device):
    with pytest.raises(UsageError, match="With --cluster, the device must be auto, cuda, cpu"):
        UpscaleOptions.read(cluster="auto", device=device)


def test_a_plan_and_a_pipe_are_for_one_machine(example, tmp_path):
    with pytest.raises(UsageError, match="without --cluster"):
        upscale_video(
            example / "small.mkv", tmp_path / "x.mkv", cluster="auto", confirm=lambda _: False
        )
    with pytest.raises(UsageError, match="pipe runs on one device of this machine"):
        upscale_video(example / "small.mkv", "-", cluster="auto")


def a_cluster(*nodes):
    cluster = Cluster("10.0.0.1:6379")
    cluster.nodes = nodes
    return cluster


def a_node(*, cpus=8, gpus=0, **versions):
    return ClusterNode("tiger", cpus, gpus, "", find_versions()() | versions)


def test_each_gpu_of_a_node_has_a_worker():
    cluster = a_cluster(a_node(gpus=2), a_node(), a_node(gpus=1))

    assert cluster.device_kind("auto") == cluster.device_kind("cuda") == "cuda"
    assert cluster.devices("cuda", threads=8) == ["cuda"] * 3
    assert cluster.device_kind("cpu") == "cpu"


def test_a_cpu_worker_reserves_as_many_cpus_as_the_job_has_threads():
    cluster = a_cluster(a_node(cpus=8), a_node(cpus=3))

    assert cluster.device_kind("auto") == "cpu"
    assert cluster.devices("cpu", threads=3) == ["cpu"] * 3
    with pytest.raises(VsrmError, match=r"no node with 9 CPUs, .* OMP_NUM_THREADS"):
        cluster.devices("cpu", threads=9)


def test_a_cluster_without_the_requested_device_is_reported():
    with pytest.raises(VsrmError, match="has no GPU"):
        a_cluster(a_node()).device_kind("cuda")
    with pytest.raises(VsrmError, match="has no node that can compute"):
        a_cluster().device_kind("auto")


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ({"PyAV": "17.0.0"}, r"^The node tiger has PyAV 17\.0\.0, and this machine "),
        ({"vsrm": ""}, r"^The node tiger has vsrm \(none\), and this machine "),
    ],
)
def test_a_node_with_another_version_is_named(versions, words):
    with pytest.raises(VsrmError, match=words):
        a_cluster(a_node(), a_node(**versions)).device_kind("cpu")
    assert a_cluster(a_node(gpus=1), a_node(**versions)).device_kind("auto") == "cuda"


def test_a_silent_node_is_named_in_the_error():
    with pytest.raises(VsrmError, match=r"^The node tiger does not answer; "):
        check_versions({}, find_versions()(), "The node tiger")


@pytest.fixture
def node_state(example, tmp_path):
    """What this machine sees of a job, and the settings of that."""
    folder = tmp_path / ".large.mkv.vsrm"
    folder.mkdir()
    (folder / "lock").touch()
    clip = tmp_path / "small.mkv"
    clip.write_bytes((example / "small.mkv").read_bytes())
    weights = tmp_path / "tiny.safetensors"
    weights.write_bytes((example / "tiny.safetensors").read_bytes())
    options = UpscaleOptions.read(model=weights)
    settings = WorkerSettings(clip, tmp_path / "large.mkv", options, None, 1, folder, "mp4")
    return NodeState.of([clip], settings), settings


def test_a_node_with_the_same_files_is_used_and_trial_files_are_removed(node_state):
    seen, settings = node_state
    os.utime(settings.src, (1, 1))  # a copy

    seen.check(settings)

    assert names_in(settings.folder) == ["lock"]


@pytest.mark.parametrize(
    ("harm", "error", "words"),
    [
        (lambda s: s.src.unlink(), InputError, "cannot open the input .*small.mkv"),
        (lambda s: s.src.write_bytes(b"another"), InputError, "small.mkv is a different one"),
        (lambda s: (s.folder / "lock").unlink(), OutputError, "is not shared with it"),
        (
            lambda s: save_weights(make_network(), s.options.model, {"a": "b"}),
            VsrmError,
            "are different",
        ),
    ],
    ids=["no-input", "another-input", "no-folder", "other-weights"],
)
def test_a_node_with_different_files_is_refused(node_state, harm, error, words):
    seen, settings = node_state
    harm(settings)

    with pytest.raises(error, match=words):
        seen.check(settings)


def test_a_folder_that_a_node_cannot_write_is_refused(node_state, monkeypatch):
    """As a folder that is mounted read-only there; root may write anywhere else."""
    seen, settings = node_state

    def refuse(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", refuse)

    with pytest.raises(OutputError, match=r"No segment can be written into .*Read-only"):
        seen.check(settings)
