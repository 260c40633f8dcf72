"""The process that speaks with Ray, and what it starts on the nodes of a cluster.

It has three threads or more: this one takes orders, and one for each worker passes on what that
says. Ray may hang, abort its process or print what it likes: nobody else is harmed.
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
from vsrm_cli.upscale.distributed.workers import Message, Worker, attempt, death_by, end_with_parent

# For what a node does not tell within this time, there is no waiting.
NODE_SECONDS = 45.0
# Of a node's id, where it needs one to be known from others.
_ID_CHARACTERS = 6
# What Ray puts before the model of a GPU.
_MODEL = "accelerator_type:"
# Of what Ray says of a failure.
_SHOWN_CHARACTERS = 200

Versions = dict[str, str | None]


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        name: Of its own among the nodes.
        cpus: How many it lends.
        gpus: Likewise.
        gpu_model: As Ray calls them; empty if it does not know.
        versions: Of what must be the same everywhere; empty if the node has not answered.
    """

    name: str
    cpus: int
    gpus: int
    gpu_model: str
    versions: Versions


@dataclass(frozen=True)
class Start:
    """The order to start a worker: how to open it, pickled, and what Ray is to set aside for it."""

    open_worker: bytes
    device: str
    cpus: int
    gpus: int
    variables: Mapping[str, str]


def find_versions() -> Callable[[], Versions]:
    """Give a function that tells versions.

    It is made here so that Ray sends it whole: a node may have no vsrm, or an old one.
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


def drive(address: str, connection: "Connection[Any, Any]") -> None:
    """Connect to a cluster, and do what comes through the connection until that ends.

    Orders are pairs of a worker's number and a `Start`, a pickled task, or None to end it. What
    workers say goes back as pairs of the number and the message, which is pickled once more: this
    process need not know what is in it, which takes torch. Under the number 0, it says itself that
    it has loaded Ray, has connected, and what nodes there are.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=end_with_parent, daemon=True).start()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    lock = threading.Lock()

    def say(key: int, message: Message | bytes) -> None:
        with lock:
            connection.send((key, message))

    try:
        import ray

        say(0, Message("ray", None))
        ray.init(
            address=address,
            namespace="vsrm",
            log_to_driver=False,
            logging_level=logging.ERROR,
            runtime_env={"working_dir": None},
        )
        say(0, Message("connection", None))
        names = _names(ray.nodes())
        say(0, Message("nodes", _look(names)))
    except (Exception, SystemExit) as error:
        say(0, Message("death", VsrmError(_in_a_line(error))))
        return
    workers: dict[int, _Relay] = {}
    while True:
        try:
            key, order = connection.recv()
        except (EOFError, OSError):
            break
        if isinstance(order, Start):
            workers[key] = _Relay(order, names, partial(say, key))
        elif order is None:
            workers.pop(key).end()
        else:
            workers[key].tasks.put(order)
    ray.shutdown()


def _names(nodes: list[dict[str, Any]]) -> dict[str, str]:
    """A name for each node, by its id: that of the machine, where no two have the same."""
    hosts = {node["NodeID"]: str(node["NodeManagerHostname"]) for node in nodes if node["Alive"]}
    count = Counter(hosts.values())
    return {
        id: host if count[host] == 1 else f"{host}-{id[:_ID_CHARACTERS]}"
        for id, host in hosts.items()
    }


def _look(names: Mapping[str, str]) -> tuple[Node, ...]:
    """Ask all nodes that can compute what they are."""
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
        Node(
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
    """A worker on some node, and a thread that passes on what it says.

    Attributes:
        tasks: What it is to do.
    """

    def __init__(
        self, start: Start, names: Mapping[str, str], say: Callable[[Message | bytes], None]
    ) -> None:
        import ray

        self.tasks: SimpleQueue[bytes | None] = SimpleQueue()
        self._start, self._names, self._say = start, names, say
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
            self._say(Message("place", f"{name} {self._start.device}"))
            self._pass_on(self._actor.open, self._start.open_worker, self._start.device)
            for task in iter(self.tasks.get, None):
                self._pass_on(self._actor.work, task)
        except OSError:  # nobody listens any more
            pass
        except Exception as error:
            self._say(Message("death", VsrmError(_in_a_line(error))))

    def _pass_on(self, method: Any, *arguments: Any) -> None:
        import ray

        for reference in method.options(num_returns="streaming").remote(*arguments):
            self._say(ray.get(reference))


class _Actor:
    """What runs on a node: a worker that is opened once and does one task after another."""

    def __init__(self) -> None:
        # All in one thread, as it would be without Ray.
        self._thread = ThreadPoolExecutor(1)

    def node(self) -> str:
        import ray

        return str(ray.get_runtime_context().get_node_id())

    def open(self, open_worker: bytes, device: str) -> Iterator[bytes]:
        def begin(say: Callable[[Message], None]) -> None:
            self._worker: Worker[Any, Any] = pickle.loads(open_worker)(device)
            say(Message("facts", self._worker.facts))

        yield from self._listen(begin)

    def work(self, task: bytes) -> Iterator[bytes]:
        yield from self._listen(lambda say: attempt(self._worker, pickle.loads(task), say))

    def _listen(self, act: Callable[[Callable[[Message], None]], None]) -> Iterator[bytes]:
        """What is said while something is done."""
        said: SimpleQueue[Message | None] = SimpleQueue()

        def do() -> None:
            try:
                act(said.put)
            except Exception as error:
                said.put(death_by(error))
            finally:
                said.put(None)

        self._thread.submit(do)
        while (message := said.get()) is not None:
            yield pickle.dumps(message)


def _in_a_line(error: BaseException) -> str:
    """What Ray says of a failure, short enough for a message."""
    cause = getattr(error, "cause", None)  # of an error in a node's process
    text = " ".join(f"{type(cause).__name__}: {cause}".split() if cause else str(error).split())
    if "node has died" in text or "node was terminated" in text:
        return "its node was lost"
    if type(error).__name__ in ("ActorDiedError", "WorkerCrashedError"):
        return "its process ended"
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."
