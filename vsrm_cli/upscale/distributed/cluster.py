"""Workers on the machines of a Ray cluster: one for each GPU, or for as many CPUs as threads.

Ray lives in a process of its own, the driver, which `ray_driver` describes. What Ray prints does
not reach this one, which may end it whatever it does, and never imports it.
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
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from vsrm_cli.checkpoints.loading import weights_checksum
from vsrm_cli.errors import InputError, OutputError, VsrmError, WeightsError
from vsrm_cli.upscale.distributed.ray_driver import Node, Start, Versions, drive, find_versions
from vsrm_cli.upscale.distributed.segment_worker import (
    FinishedSegment,
    SegmentTask,
    SegmentWorker,
    Settings,
    make_empty,
)
from vsrm_cli.upscale.distributed.workers import (
    WAKE_SECONDS,
    Message,
    Worker,
    WorkerProcess,
    Workers,
    without_interrupts,
)
from vsrm_cli.upscale.journal import LOCK, Choices, describe_files

# A cluster that can be reached answers at once; importing Ray takes its time on a slow disk.
CONNECT_SECONDS = 15.0
IMPORT_SECONDS = 60.0
# A node starts a process for its first answer. What takes longer waits for somebody else's work.
ANSWER_SECONDS = 60.0
PLACE_SECONDS = 45.0
# To say good-bye.
END_SECONDS = 5.0

# Of what is set on this machine, the nodes' processes must know it: it can change pixels.
_HANDED_DOWN = ("VSRM_KERNELS",)


@dataclass(frozen=True)
class Sight:
    """What a node must see as this machine does.

    Attributes:
        versions: See `find_versions`.
        files: The input.
        content: By what it is known, see `describe_files`.
        weights: Checksum of the network's.
    """

    versions: Versions
    files: tuple[Path, ...]
    content: Choices
    weights: str

    @classmethod
    def of(cls, files: Sequence[Path], settings: Settings) -> Self:
        """What this machine sees."""
        paths = tuple(file.absolute() for file in files)
        return cls(find_versions()(), paths, _content(paths), _weights(settings))

    def check(self, settings: Settings) -> None:
        """Make sure that the machine on which this runs sees the same.

        Raises:
            VsrmError: If it does not; says what.
        """
        check_versions(find_versions()(), self.versions, "It")
        folder = settings.folder
        if not (folder / LOCK).exists():
            raise OutputError(
                f"The folder {folder.parent} is not shared with it; name an output that all nodes "
                "see under the same path."
            )
        trial = folder / f"{uuid4().hex}.part"
        make_empty(trial)
        trial.rmdir()
        try:
            content = _content(self.files)
        except OSError as error:
            raise InputError(
                f"It does not see the input {error.filename} ({error.strerror}); all nodes must "
                "see it under the same path."
            ) from error
        if content != self.content:
            raise InputError(
                f"It sees another file as {settings.src}; all nodes must see the same one."
            )
        if _weights(settings) != self.weights:
            raise WeightsError(f"It has other weights as {settings.options.model}.")


def _content(files: Sequence[Path]) -> Choices:
    # A copy may have another date.
    return {name: told for name, told in describe_files(files).items() if "date" not in name}


def _weights(settings: Settings) -> str:
    return weights_checksum(settings.options.model, detail=settings.options.detail)


def check_versions(versions: Versions, mine: Versions, who: str) -> None:
    """Compare the versions of a node with those of this machine.

    Raises:
        VsrmError: If they differ; says in what.
    """
    if not versions:
        raise VsrmError(f"{who} does not answer; see that it is well, or take it from the cluster.")
    for package, version in mine.items():
        if versions.get(package) != version:
            raise VsrmError(
                f"{who} has {package} {versions.get(package) or '(none)'}, and this machine "
                f"{version}; install the same on all."
            )


def open_checked(sight: Sight, settings: Settings, device: str) -> SegmentWorker:
    """Open a worker on a node that sees what it must; raises as both do."""
    sight.check(settings)
    return SegmentWorker(settings, device)


class Cluster:
    """A Ray cluster. Use it in a ``with`` statement; leaving it ends whatever it does for us.

    Attributes:
        address: "auto", or where its head listens.
        nodes: Its machines that can compute.
    """

    def __init__(self, address: str) -> None:
        """Name a cluster; nothing is done yet."""
        self.address = address
        self.nodes: tuple[Node, ...] = ()
        self._keys = 0

    def __enter__(self) -> Self:
        """Connect to it, and ask its nodes what they are.

        Raises:
            VsrmError: If Ray is not installed, or the cluster cannot be reached.
        """
        if find_spec("ray") is None:
            raise VsrmError('--cluster needs Ray; install it with: pip install "vsrm[cluster]"')
        context = multiprocessing.get_context("spawn")
        self._connection, there = context.Pipe()
        self._driver = context.Process(target=drive, args=(self.address, there), daemon=True)
        with without_interrupts():
            self._driver.start()
        there.close()
        try:
            self._await("ray", IMPORT_SECONDS, "Ray could not be loaded")
            hint = "check the address, and that Ray runs on this machine, too"
            self._await("connection", CONNECT_SECONDS, f"{self} cannot be reached; {hint}")
            message = self._await("nodes", ANSWER_SECONDS, f"{self} does not answer")
            self.nodes = message.content
        except BaseException:
            self._end(0)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End all workers, and leave the cluster."""
        self._end(END_SECONDS)

    def __str__(self) -> str:
        """Name it in messages."""
        where = "that this machine belongs to" if self.address == "auto" else f"at {self.address}"
        return f"The Ray cluster {where}"

    def kind_of(self, device: str) -> str:
        """On which kind of device its workers compute: "cuda" or "cpu".

        Args:
            device: One of these, or "auto" for GPUs where it has some.

        Raises:
            VsrmError: If it has none of that kind, or a node has another vsrm than this machine.
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
        """A name for each worker that has room.

        Raises:
            VsrmError: If there is no room for a single one.
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
        """Start a worker, wherever there is room; the number by which it is known is returned."""
        self._keys += 1
        variables = {"OMP_NUM_THREADS": str(threads)}
        variables |= {name: os.environ[name] for name in _HANDED_DOWN if name in os.environ}
        is_gpu = device != "cpu"
        opener, cpus = pickle.dumps(open_worker), 0 if is_gpu else threads
        self._connection.send((self._keys, Start(opener, device, cpus, int(is_gpu), variables)))
        return self._keys

    def send(self, key: int, task: Any) -> None:
        """Give a worker a task, or end it with None.

        Raises:
            OSError: If the driver has died.
        """
        self._connection.send((key, None if task is None else pickle.dumps(task)))

    def hear(self, seconds: float) -> tuple[int, Message] | None:
        """What a worker says next, and its number; None if that takes longer.

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

    def _await(self, kind: str, seconds: float, failure: str) -> Message:
        try:
            heard = self._connection.recv() if self._connection.poll(seconds) else None
        except (EOFError, OSError):
            raise VsrmError(f"{failure} (Ray has ended its process).") from None
        if heard is None:
            raise VsrmError(f"{failure} (no answer within {seconds:.0f} s).")
        message = heard[1]
        assert isinstance(message, Message)
        if message.kind == "death":
            raise VsrmError(f"{failure} ({message.content}).")
        assert message.kind == kind
        return message

    def _end(self, seconds: float) -> None:
        self._connection.close()
        self._driver.join(seconds)
        self._driver.kill()
        self._driver.join()


def hire_nodes(
    cluster: Cluster,
    kind: str,
    files: Sequence[Path],
    warn: Callable[[str], None],
    settings: Settings,
) -> Workers[SegmentTask, FinishedSegment]:
    """The workers that a cluster has room for.

    Args:
        cluster: The cluster.
        kind: Of device, see `Cluster.kind_of`.
        files: The input.
        warn: Called with each failure that does not end the work.
        settings: What the workers are told.

    Raises:
        VsrmError: If there is room for none.
    """
    return ClusterWorkers(
        partial(open_checked, Sight.of(files, settings), settings),
        cluster.devices(kind, threads=settings.threads),
        cluster=cluster,
        threads=settings.threads,
        warn=warn,
    )


class _NodeProcess(WorkerProcess[SegmentTask]):
    """A worker's process on some node."""

    def __init__(self, device: str, start: Callable[[str], int], cluster: Cluster) -> None:
        super().__init__(device)
        self.is_placed = False
        self._kind, self._start_worker, self._cluster = device, start, cluster

    def start(self) -> None:
        self.device, self.is_placed = self._kind, False
        with suppress(OSError):  # that the driver has died is seen where it is listened to
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
        """Name what is to be started: as for `Workers`, and how many threads each has."""
        super().__init__(open_worker, devices, warn=warn)
        self._cluster = cluster
        self._start_worker = partial(cluster.start, open_worker, threads=threads)

    def facts(self) -> list[Any]:
        """What the workers say of themselves; those that find no room for long are left out.

        Raises:
            VsrmError: If one cannot be opened, or there is room for none.
        """
        facts = super().facts()
        if not facts:
            raise VsrmError(
                f"{self._cluster} had no room for a worker within {PLACE_SECONDS:.0f} s; wait "
                "until other jobs on it have ended."
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
    ) -> list[tuple[WorkerProcess[SegmentTask], Message]]:
        by_key = {p.key: p for p in self._processes if isinstance(p, _NodeProcess)}
        heard = self._cluster.hear(WAKE_SECONDS)
        if heard is None or heard[0] not in by_key:  # of one that was ended
            return []
        return [(by_key[heard[0]], heard[1])]

    def _is_awaited(self, process: WorkerProcess[SegmentTask]) -> bool:
        assert isinstance(process, _NodeProcess)
        return not process.is_ready and (process.is_placed or self._clock < PLACE_SECONDS)

    def _limit(self, process: WorkerProcess[SegmentTask]) -> float:
        assert isinstance(process, _NodeProcess)
        if process.is_placed:
            return super()._limit(process)
        # It waits for room: for as long as others work, and a little while where all wait.
        return float("inf") if any(p.is_ready for p in self._processes) else PLACE_SECONDS + 5

    def _note(self, process: WorkerProcess[SegmentTask], message: Message) -> None:
        super()._note(process, message)
        if message.kind == "place":
            assert isinstance(process, _NodeProcess)
            process.is_placed = True
