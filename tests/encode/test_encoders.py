"""An encoder that asks for real-time priority does not get it: other programs must go on."""

import os
from pathlib import Path

import av
import pytest

from vsrm_cli.encode.encoders import ordinary_priority


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="needs Linux")
def test_av1_leaves_the_scheduling_of_all_threads_as_it_was(tmp_path):
    container = av.open(str(tmp_path / "a.mkv"), "w")
    stream = container.add_stream("libsvtav1", 25, options={"preset": "12"})
    stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"

    with ordinary_priority():
        container.start_encoding()

    tasks = [int(task.name) for task in Path("/proc/self/task").iterdir()]
    assert len(tasks) > 1
    assert {os.sched_getscheduler(task) for task in tasks} == {os.SCHED_OTHER}
    container.close()
