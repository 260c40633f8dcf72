"""The driver process, which uses Ray, and the actors that it starts on the nodes of a cluster.

The main thread receives requests, and a thread for each worker forwards its messages. If Ray hangs,
aborts its process or prints, no other process is affected.
"""

import logging
import os
import pickle
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from vsrm_cli.errors import VsrmError
from vsrm_cli.upscale.distributed.workers import (
    Worker,
    WorkerMessage,
    death_message,
    end_with_parent,
    run_task,
)

# Timeout of a query to a node.
NODE_SECONDS = 45.0
# Characters of a node's id in its name, if its host name is not unique.
_ID_CHARACTERS = 6
# The prefix of GPU models in Ray.
_MODEL = "accelerator_type:"
# Length of error messages of Ray.
_SHOWN_CHARACTERS = 200

Versions = dict[str, str | None]


@dataclass(frozen=True)
class ClusterNode:
    """A machine of a cluster.

    Attributes:
        name: Unique among the nodes.
        cpus: Number of CPUs.
        gpus: Number of GPUs.
        gpu_model: Name in Ray; empty if unknown.
        versions: Of packages that must be the same on all nodes; empty if it has not answered.
    """

    name: str
    cpus: int
    gpus: int
    gpu_model: str
    versions: Versions


@dataclass(frozen=True)
class StartRequest:
    """The request to start a worker: its pickled opener, and the resources to reserve."""

    open_worker: bytes
    device: str
    cpus: int
    gpus: int
    variables: Mapping[str, str]


def find_versions() -> Callable[[], Versions]:
    """Make a function that returns versions.

    Ray pickles a nested function by value, so that it works on nodes without vsrm or with another
    version.
    """

    def versions() -> Versions:
        import platform
        from importlib.metadata import PackageNotFoundError, version

        def version_of(package: str) -> str | None:
            try:
                return version(package)
            except PackageNotFoundError:
                return None

        try:
            from vsrm_cli import __version__ as vsrm
        except ImportError:
            vsrm = ""
        return {
            "Python": ".".join(platform.python_version_tuple()[:2]),
            "Ray": version_of("ray"),
            "vsrm": vsrm,
            "PyTorch": version_of("torch"),
            "PyAV": version_of("av"),
        }

    return versions


def run_driver(address: str, connection: "Connection[Any, Any]") -> None:
    """Connect to a cluster, and execute requests from the connection until it closes.

    Requests are pairs of a worker's number and a `StartRequest`, a pickled task, or None to end it.
    Messages of workers are returned as pairs of the number and the pickled message: unpickling it
    here would need torch. Messages with number 0 are from the driver: Ray is loaded, it is
    connected, and the nodes.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    lock = threading.Lock()

    def send(key: int, message: WorkerMessage | bytes) -> None:
        with lock:
            connection.send((key, message))

    try:
        import ray

        send(0, WorkerMessage("ray", None))
        ray.init(
            address=address,
            namespace="vsrm",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": None},
        )
        send(0, WorkerMessage("connection", None))
        names = _names(ray.nodes())
        send(0, WorkerMessage("nodes", _query_nodes(names)))
    except (Exception, SystemExit) as error:
        send(0, WorkerMessage("death", VsrmError(_in_a_line(error))))
        return
    workers: dict[int, _Relay] = {}
    while True:
        try:
            key, request = connection.recv()
        except (EOFError, OSError):
            break
        if isinstance(request, StartRequest):
            workers[key] = _Relay(request, names, partial(send, key))
        elif request is None:
            workers.pop(key).end()
        else:
            workers[key].tasks.put(request)
    ray.shutdown()


def _names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """A unique name for each node, by its id: the host name if it is unique."""
    hosts = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in nodes if node["Alive"]}
    count = Counter(hosts.values())
    return {
        id: host if count[host] == 1 else f"{host}-{id[:_ID_CHARACTERS]}"
        for id, host in hosts.items()
    }


def _query_nodes(names: Mapping[str, str]) -> tuple[ClusterNode, ...]:
    """Query all nodes with CPUs or GPUs."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    lent = {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["NodeID"] in names}
    lent = {id: what for id, what in lent.items() if what.get("CPU") or what.get("GPU")}
    ask = ray.remote(num_cpus=0, max_retries=0)(find_versions())
    answers = {
        id: ask.options(scheduling_strategy=NodeAffinitySchedulingStrategy(id, soft=False)).remote()
        for id in lent
    }
    if answers:
        ray.wait(list(answers.values()), num_returns=len(answers), timeout=NODE_SECONDS)
    return tuple(
        ClusterNode(
            name=names[id],
            cpus=int(what.get("CPU", 0)),
            gpus=int(what.get("GPU", 0)),
            gpu_model=", ".join(name[len(_MODEL) :] for name in what if name.startswith(_MODEL)),
            versions=_answer(answers[id]),
        )
        for id, what in lent.items()
    )


def _answer(reference: Any) -> Versions:
    import ray

    try:
        versions: Versions = ray.get(reference, timeout=0)
    except ray.exceptions.RayError:
        return {}
    return versions


class _Relay:
    """A worker on a node, and a thread that forwards its messages.

    Attributes:
        tasks: Queue of its tasks.
    """

    def __init__(
        self,
        start: StartRequest,
        names: Mapping[str, str],
        send: Callable[[WorkerMessage | bytes], None],
    ) -> None:
        import ray

        self.tasks: SimpleQueue[bytes | None] = SimpleQueue()
        self._start, self._names, self._send = start, names, send
        self._actor: Any = (
            ray.remote(_Actor)
            .options(
                num_cpus=start.cpus,
                num_gpus=start.gpus,
                max_restarts=0,
                scheduling_strategy="SPREAD",
                runtime_env={"env_vars": dict(start.variables)},
            )
            .remote()
        )
        threading.Thread(target=self._work, daemon=True).start()

    def end(self) -> None:
        import ray

        self.tasks.put(None)
        ray.kill(self._actor)

    def _work(self) -> None:
        import ray

        try:
            node = ray.get(self._actor.node.remote())
            name = self._names.get(node, node[:_ID_CHARACTERS])
            self._send(WorkerMessage("place", f"{name} {self._start.device}"))
            self._pass_on(self._actor.open, self._start.open_worker, self._start.device)
            for task in iter(self.tasks.get, None):
                self._pass_on(self._actor.work, task)
        except OSError:  # the connection is closed
            pass
        except Exception as error:
            self._send(WorkerMessage("death", VsrmError(_in_a_line(error))))

    def _pass_on(self, method: Any, *arguments: Any) -> None:
        import ray

        for reference in method.options(num_returns="streaming").remote(*arguments):
            self._send(ray.get(reference))


class _Actor:
    """Runs on a node: a worker that is opened once and does one task after another."""

    def __init__(self) -> None:
        # All in one thread, as without Ray.
        self._thread = ThreadPoolExecutor(1)

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def open(self, open_worker: bytes, device: str) -> Iterator[bytes]:
        def begin(send: Callable[[WorkerMessage], None]) -> None:
            self._worker: Worker[Any, Any] = pickle.loads(open_worker)(device)
            send(WorkerMessage("facts", self._worker.facts))

        yield from self._listen(begin)

    def work(self, task: bytes) -> Iterator[bytes]:
        yield from self._listen(lambda send: run_task(self._worker, pickle.loads(task), send))

    def _listen(self, act: Callable[[Callable[[WorkerMessage], None]], None]) -> Iterator[bytes]:
        """Yield the messages of a call."""
        said: SimpleQueue[WorkerMessage | None] = SimpleQueue()

        def do() -> None:
            try:
                act(said.put)
            except Exception as error:
                said.put(death_message(error))
            finally:
                said.put(None)

        self._thread.submit(do)
        while (message := said.get()) is not None:
            yield pickle.dumps(message)


def _in_a_line(error: BaseException) -> str:
    """An error of Ray as one short line."""
    cause = getattr(error, "cause", None)  # of an error in a node's process
    text = " ".join(f"{type(cause).__name__}: {cause}".split() if cause else str(error).split())
    if "node has died" in text or "node was terminated" in text:
        return "its node was lost"
    if type(error).__name__ in ("ActorDiedError", "WorkerCrashedError"):
        return "its process ended"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
