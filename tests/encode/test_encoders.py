"""Encoders leave other programs their time, and give the same bytes in every process."""

import os
from pathlib import Path

import av
import pytest

from vsrm_cli.encode.encoders import keep_priority
from vsrm_cli.encode.options import EncodingOptions, plan_encoding


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_av1_leaves_the_scheduling_of_all_threads_as_it_was(tmp_path):
    container = av.open(str(tmp_path / "a.mkv"), "w")
    stream = container.add_stream("libsvtav1", 25, options={"preset": "12"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"

    with keep_priority():
        container.start_encoding()

    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    assert len(tasks) > 1
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}
    container.close()


@pytest.mark.parametrize(("capability", "is_limited"), [("AVX512", True), ("AVX2", False)])
def test_x264_does_not_use_what_depends_on_memory(monkeypatch, capability, is_limited):
    monkeypatch.setattr("vsrm_cli.encode.options.get_cpu_capability", lambda: capability)

    parameters = plan_encoding(EncodingOptions(codec="h264"), "yuv420p").options["x264-params"]

    assert ("asm=" in parameters, "AVX512" in parameters) == (is_limited, False)
