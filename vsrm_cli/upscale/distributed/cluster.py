"""Workers on the machines of a Ray cluster: one for each GPU, or for as many CPUs as threads.

Ray runs in a separate driver process, see `ray_driver`. This process never imports Ray, does not
show its output, and can kill the driver at any time.
"""

import multiprocessing
import os
import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from vsrm_cli.checkpoints.loading import weights_checksum
from vsrm_cli.errors import InputError, OutputError, VsrmError, WeightsError
from vsrm_cli.upscale.distributed.ray_driver import (
    ClusterNode,
    StartRequest,
    Versions,
    find_versions,
    run_driver,
)
from vsrm_cli.upscale.distributed.segment_worker import (
    FinishedSegment,
    SegmentTask,
    SegmentWorker,
    WorkerSettings,
    clear_folder,
)
from vsrm_cli.upscale.distributed.workers import (
    WAKE_SECONDS,
    Worker,
    WorkerMessage,
    WorkerProcess,
    Workers,
    ignore_interrupts,
)
from vsrm_cli.upscale.journal import LOCK, JobIdentity, describe_files

# Timeouts in seconds. A reachable cluster answers at once, but importing Ray may be slow.
CONNECT_SECONDS = 15.0
IMPORT_SECONDS = 60.0
# A node starts a process for its first answer. If that takes longer, it waits for other jobs.
ANSWER_SECONDS = 60.0
PLACE_SECONDS = 45.0
# To disconnect.
END_SECONDS = 5.0

# Environment variables that processes on the nodes inherit, since they can change pixels.
_HANDED_DOWN = ("VSRM_KERNELS",)


@dataclass(frozen=True)
class NodeState:
    """What must be the same on a node as on this machine.

    Attributes:
        versions: See `find_versions`.
        files: The input.
        content: Its description, see `describe_files`.
        weights: Checksum of the network's weights.
    """

    versions: Versions
    files: tuple[Path, ...]
    content: JobIdentity
    weights: str

    @classmethod
    def of(cls, files: Sequence[Path], settings: WorkerSettings) -> Self:
        """The state on this machine."""
        paths = tuple(file.absolute() for file in files)
        return cls(find_versions()(), paths, _content(paths), _weights(settings))

    def check(self, settings: WorkerSettings) -> None:
        """Check that it is the same on the machine where this runs.

        Raises:
            VsrmError: If it is not.
        """
        check_versions(find_versions()(), self.versions, "It")
        folder = settings.folder
        if not (folder / LOCK).exists():
            raise OutputError(
                f"The folder {folder.parent} is not shared with it; name an output that has the "
                "same path on all nodes."
            )
        trial = folder / f"{uuid4().hex}.part"
        clear_folder(trial)
        trial.rmdir()
        try:
            content = _content(self.files)
        except OSError as error:
            raise InputError(
                f"It cannot open the input {error.filename} ({error.strerror}), which must have "
                "the same path on all nodes."
            ) from error
        if content != self.content:
            raise InputError(
                f"Its file {settings.src} is a different one; it must be the same on all nodes."
            )
        if _weights(settings) != self.weights:
            raise WeightsError(f"Its weights of {settings.options.model} are different.")


def _content(files: Sequence[Path]) -> JobIdentity:
    # A copy may have another modification time.
    return {name: value for name, value in describe_files(files).items() if "date" not in name}


def _weights(settings: WorkerSettings) -> str:
    return weights_checksum(settings.options.model, detail=settings.options.detail)


def check_versions(versions: Versions, mine: Versions, who: str) -> None:
    """Compare the versions of a node with those of this machine.

    Raises:
        VsrmError: If they differ.
    """
    if not versions:
        raise VsrmError(f"{who} does not answer; check it, or remove it from the cluster.")
    for package, version in mine.items():
        if versions.get(package) != version:
            raise VsrmError(
                f"{who} has {package} {versions.get(package) or '(none)'}, and this machine "
                f"{version}; install the same on all."
            )


def check_and_open(node_state: NodeState, settings: WorkerSettings, device: str) -> SegmentWorker:
    """Check a node, and open a worker on it."""
    node_state.check(settings)
    return SegmentWorker(settings, device)


class Cluster:
    """A Ray cluster. Use it in a ``with`` statement; leaving it ends all workers.

    Attributes:
        address: "auto", or the address of its head.
        nodes: Its nodes with CPUs or GPUs.
    """

    def __init__(self, address: str) -> None:
        """Set the address; `__enter__` connects."""
        self.address = address
        self.nodes: tuple[ClusterNode, ...] = ()
        self._keys = 0

    def __enter__(self) -> Self:
        """Connect, and query the nodes.

        Raises:
            VsrmError: If Ray is not installed, or the cluster cannot be reached.
        """
        if find_spec("ray") is None:
            raise VsrmError('--cluster needs Ray; install it with: pip install "vsrm[cluster]"')
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._driver = context.Process(target=run_driver, args=(self.address, there), daemon=True)
        with ignore_interrupts():
            self._driver.start()
        there.close()
        try:
            self._await("ray", IMPORT_SECONDS, "Ray could not be loaded")
            hint = "check the address, and that Ray also runs on this machine"
            self._await("connection", CONNECT_SECONDS, f"{self} cannot be reached; {hint}")
            message = self._await("nodes", ANSWER_SECONDS, f"{self} does not answer")
            self.nodes = message.content
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers, and disconnect."""
        self._end(END_SECONDS)

    def __str__(self) -> str:
        """Its name in messages."""
        where = "that this machine belongs to" if self.address == "auto" else f"at {self.address}"
        return f"The Ray cluster {where}"

    def device_kind(self, device: str) -> str:
        """The device type of its workers: "cuda" or "cpu".

        Args:
            device: One of these, or "auto" for GPUs if there are any.

        Raises:
            VsrmError: If it has no such device, or the versions on a node differ.
        """
        gpus = sum(node.gpus for node in self.nodes)
        if not self.nodes or (device == "cuda" and not gpus):
            raise VsrmError(f"{self} has no {'GPU' if self.nodes else 'node that can compute'}.")
        mine = find_versions()()
        kind = "cuda" if device != "cpu" and gpus else "cpu"
        for node in self.nodes:
            if kind == "cpu" or node.gpus:
                check_versions(node.versions, mine, f"The node {node.name}")
        return kind

    def devices(self, kind: str, *, threads: int) -> list[str]:
        """A name for each worker that the nodes have resources for.

        Raises:
            VsrmError: If there are none.
        """
        count = sum(node.gpus if kind == "cuda" else node.cpus // threads for node in self.nodes)
        if not count:
            raise VsrmError(
                f"{self} has no node with {threads} CPUs, one for each thread of the job; set "
                "OMP_NUM_THREADS to a smaller number on this machine."
            )
        return [kind] * count

    def start(
        self, open_worker: Callable[[str], Worker[Any, Any]], device: str, *, threads: int
    ) -> int:
        """Start a worker on any node with free resources, and return its number."""
        self._keys += 1
        variables = {"OMP_NUM_THREADS": str(threads)}
        variables |= {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
        is_gpu = device != "cpu"
        opener, cpus = pickle.dumps(open_worker), 0 if is_gpu else threads
        self._connection.send(
            (self._keys, StartRequest(opener, device, cpus, int(is_gpu), variables))
        )
        return self._keys

    def send(self, key: int, task: Any) -> None:
        """Send a task to a worker; None ends it.

        Raises:
            OSError: If the driver has died.
        """
        self._connection.send((key, None if task is None else pickle.dumps(task)))

    def receive(self, seconds: float) -> tuple[int, WorkerMessage] | None:
        """The number of a worker and its next message; None on timeout.

        Raises:
            VsrmError: If the connection was lost.
        """
        try:
            if not self._connection.poll(seconds):
                return None
            key, message = self._connection.recv()
        except (EOFError, OSError):
            raise VsrmError(f"{self} was lost; run the same command again to resume.") from None
        return key, pickle.loads(message) if isinstance(message, bytes) else message

    def _await(self, kind: str, seconds: float, failure: str) -> WorkerMessage:
        try:
            message = self._connection.recv() if self._connection.poll(seconds) else None
        except (EOFError, OSError):
            raise VsrmError(f"{failure} (Ray has ended its process).") from None
        if message is None:
            raise VsrmError(f"{failure} (no answer within {seconds:.0f} s).")
        message = message[1]
        assert isinstance(message, WorkerMessage)
        if message.kind == "death":
            raise VsrmError(f"{failure} ({message.content}).")
        assert message.kind == kind
        return message

    def _end(self, seconds: float) -> None:
        self._connection.close()
        self._driver.join(seconds)
        self._driver.kill()
        self._driver.join()


def make_node_workers(
    cluster: Cluster,
    kind: str,
    files: Sequence[Path],
    warn: Callable[[str], None],
    settings: WorkerSettings,
) -> Workers[SegmentTask, FinishedSegment]:
    """Make the workers that a cluster has resources for.

    Args:
        cluster: The cluster.
        kind: Of device, see `Cluster.device_kind`.
        files: The input.
        warn: Called with each failure that does not end the work.
        settings: For the workers.

    Raises:
        VsrmError: If there are no free resources.
    """
    return ClusterWorkers(
        partial(check_and_open, NodeState.of(files, settings), settings),
        cluster.devices(kind, threads=settings.threads),
        cluster=cluster,
        threads=settings.threads,
        warn=warn,
    )


class _NodeProcess(WorkerProcess[SegmentTask]):
    """A worker process on a node."""

    def __init__(self, device: str, start: Callable[[str], int], cluster: Cluster) -> None:
        super().__init__(device)
        self.is_placed = False
        self._kind, self._start_worker, self._cluster = device, start, cluster

    def start(self) -> None:
        self.device, self.is_placed = self._kind, False
        with suppress(OSError):  # `receive` notices that the driver has died
            self.key = self._start_worker(self._kind)

    def end(self) -> None:
        with suppress(OSError):
            self._cluster.send(self.key, None)

    def give(self, task: SegmentTask) -> None:
        self._cluster.send(self.key, task)


class ClusterWorkers(Workers[SegmentTask, FinishedSegment]):
    """Workers on the nodes of a cluster; see `Workers`."""

    def __init__(
        self,
        open_worker: Callable[[str], Worker[SegmentTask, FinishedSegment]],
        devices: Sequence[str],
        *,
        cluster: Cluster,
        threads: int,
        warn: Callable[[str], None],
    ) -> None:
        """As for `Workers`, with the number of threads of each."""
        super().__init__(open_worker, devices, warn=warn)
        self._cluster = cluster
        self._start_worker = partial(cluster.start, open_worker, threads=threads)

    def facts(self) -> list[Any]:
        """The facts of the workers, except those that get no resources in time.

        Raises:
            VsrmError: If one cannot be opened, or none gets resources.
        """
        facts = super().facts()
        if not facts:
            raise VsrmError(
                f"{self._cluster} had no free resources for a worker within {PLACE_SECONDS:.0f} s; "
                "wait until other jobs on it have ended."
            )
        if len(facts) < len(self._processes):
            self._warn(
                f"only {len(facts)} of {len(self._processes)} devices of the cluster are free; the "
                "others join when they are"
            )
        return facts

    def _new_process(self, device: str) -> WorkerProcess[SegmentTask]:
        return _NodeProcess(device, self._start_worker, self._cluster)

    def _receive(
        self, processes: Sequence[WorkerProcess[SegmentTask]]
    ) -> list[tuple[WorkerProcess[SegmentTask], WorkerMessage]]:
        by_key = {p.key: p for p in self._processes if isinstance(p, _NodeProcess)}
        message = self._cluster.receive(WAKE_SECONDS)
        if message is None or message[0] not in by_key:  # from a worker that was ended
            return []
        return [(by_key[message[0]], message[1])]

    def _is_awaited(self, process: WorkerProcess[SegmentTask]) -> bool:
        assert isinstance(process, _NodeProcess)
        return not process.is_ready and (process.is_placed or self._clock < PLACE_SECONDS)

    def _limit(self, process: WorkerProcess[SegmentTask]) -> float:
        assert isinstance(process, _NodeProcess)
        if process.is_placed:
            return super()._limit(process)
        # It waits for resources as long as others work; if all wait, only for a while.
        return float("inf") if any(p.is_ready for p in self._processes) else PLACE_SECONDS + 5

    def _note(self, process: WorkerProcess[SegmentTask], message: WorkerMessage) -> None:
        super()._note(process, message)
        if message.kind == "place":
            assert isinstance(process, _NodeProcess)
            process.is_placed = True
