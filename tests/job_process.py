"""Jobs in processes of their own, which tests may kill or starve.

A server process loads everything once; each job is a copy of it, started in milliseconds.
"""

import faulthandler
import multiprocessing
import os
import resource
import signal
import sys
import time
from functools import cache
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

from stub_network import NearestNeighbor

from vsrm_cli.cli import app as cli
from vsrm_cli.upscale import job as upscale


class Slow(NearestNeighbor):
    """Needs a little time for each window."""

    seconds = 0.0

    def forward(self, clip):
        time.sleep(self.seconds)
        return super().forward(clip)


@cache
def processes():
    """The context that starts job processes."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["pytest", "stub_network", "vsrm_cli.cli.app", "vsrm_cli.upscale.job"]
    )
    # The server of Python 3.11 does not learn where this process looks for modules.
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path)):
        forkserver.ensure_running()
    return context


def start(*words, seconds_per_window=0.0, largest_file=None, log=os.devnull):
    """Start `vsrm upscale` with these arguments and a stub network.

    ``largest_file`` is in bytes; ``log`` gets what the program prints.
    """
    arguments = (list(map(str, words)), seconds_per_window, largest_file, str(log))
    job = processes().Process(target=_run, args=arguments)
    job.log = str(log)
    job.start()
    return job


def end(job, *, within=180):
    """Wait for a job and give its exit code; one that hangs is killed and fails the test.

    The failure shows what the job has printed, and where each of its threads is. Jobs take
    seconds; the limit is that of a busy machine.
    """
    job.join(within)
    if job.exitcode is None:
        os.kill(job.pid, signal.SIGUSR1)
        job.join(1)
        job.kill()
        printed = "" if job.log == os.devnull else Path(job.log).read_text()
        raise AssertionError(f"the job did not end within {within} seconds\n{printed}")
    return job.exitcode


def peak_kibibytes(*words):
    """The peak memory of a job, including what it shares with the server."""
    receiver, sender = processes().Pipe(duplex=False)
    job = processes().Process(target=_measure, args=(list(map(str, words)), sender))
    job.log = os.devnull
    job.start()
    peak = receiver.recv()
    assert end(job) == 0
    return peak


def _run(words, seconds_per_window, largest_file, log):
    with Path(log).open("a") as file:
        os.dup2(file.fileno(), 2)
    faulthandler.register(signal.SIGUSR1)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, resource.RLIM_INFINITY))
    network = Slow().eval()
    network.seconds = seconds_per_window
    upscale.load_model = lambda *_, **__: network
    sys.exit(cli.run(["upscale", *words]))


def _measure(words, sender):
    try:
        _run(words, 0.0, None, os.devnull)
    finally:
        sender.send(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
