"""Workers of a Ray cluster, or of Ray on this machine, in place of processes of this one.

Each worker is an actor that runs the tasks in a process of its own, with the watchdog of
`WorkerPool`. Ray places the actors and says when one is lost. A new one is then started, and what
the lost one did is done by another.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator
from concurrent import futures
from typing import Any, NamedTuple, TypeAlias

from vditrack.annotation.failures import Failure
from vditrack.annotation.summary import count_things
from vditrack.annotation.worker_pool import Limits, OpenHandler, Outcome, WorkerPool
from vditrack.errors import InputError, VditrackError, install_command

_Future: TypeAlias = "futures.Future[Any]"
_POLL = 1.0
"""Seconds between two looks at the tasks that wait for an actor."""
_LOSSES = 5
"""How often a task may lose its actor. More often, it is taken to be the cause."""
_CONNECT = 10.0
"""Seconds."""
_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""Begin of a connection of HTTP/2, which gRPC uses: the preface and empty settings (RFC 9113)."""
_SETTINGS = 4
"""Type of the frame that a server of HTTP/2 sends first, in its fourth byte."""
_OBJECT_STORE = 100_000_000
"""Bytes of shared memory of a Ray that is started here; nothing large passes through it."""


class Resources(NamedTuple):
    """What a worker is given, as Ray counts it."""

    num_cpus: float
    num_gpus: float | None
    """None: one if the cluster has any."""
    memory_bytes: float | None
    """Largest resident memory, which is reserved; None: the share of the machine's memory that
    the worker has of its CPUs or GPUs, without a reservation."""


class RayPool:
    """Runs tasks in actors; has the methods of `WorkerPool`."""

    def __init__(
        self,
        open_handler: OpenHandler,
        workers: int | None,
        stall_seconds: float,
        resources: Resources,
        address: str | None = None,
    ) -> None:
        """Connect to a cluster, or start Ray on this machine.

        Args:
            open_handler: Returns what runs the tasks; pickled for each worker.
            workers: Number of workers; None for as many as the cluster has room for.
            stall_seconds: See `Limits`.
            resources: Of each worker.
            address: Of the cluster, as `ray.init` takes it; None for ``RAY_ADDRESS``, and without
                it for this machine.

        Raises:
            InputError: Ray is not installed, or the cluster has no room for a worker.
            VditrackError: The cluster cannot be reached.

        """
        self._ray = _import_ray()
        self._own = not self._ray.is_initialized()
        wanted = (workers or 1) * resources.num_cpus
        address = address or os.environ.get("RAY_ADDRESS") or "local"
        if self._own:
            _connect(self._ray, address, wanted)
        try:
            if resources.num_gpus is None:
                has_gpus = self._ray.cluster_resources().get("GPU", 0) >= 1
                resources = resources._replace(num_gpus=float(has_gpus))
            self.workers = workers or self._count_places(resources)
        except BaseException:
            self._disconnect()
            raise
        self._actor_class = self._ray.remote(_Actor).options(
            num_cpus=resources.num_cpus, num_gpus=resources.num_gpus, memory=resources.memory_bytes
        )
        self._arguments = (open_handler, stall_seconds, resources, os.getcwd())  # noqa: PTH109 - a text
        self._waiting: deque[Any] = deque()
        self._idle: list[Any] = []
        self._starting: dict[_Future, Any] = {}
        """Actors by what `_Actor.begin` will return."""
        self._running: dict[_Future, tuple[Any, Any]] = {}
        """Actors and their tasks by what `_Actor.run` will return."""
        self._losses: Counter[Any] = Counter()
        self._failed_starts = 0
        self.replaced = 0
        """Number of workers that ended, were killed or lost, and were replaced."""

    def submit(self, task: Any, *, first: bool = False) -> None:  # noqa: ANN401
        """Add a task, which is pickled, behind those that wait, or before them."""
        if first:
            self._waiting.appendleft(task)
        else:
            self._waiting.append(task)

    def outcomes(self) -> Iterator[Outcome]:
        """Yield the outcome of each task until none is left; tasks may be added meanwhile.

        Raises:
            VditrackError: No task can be done, such as without the model.

        """
        while self._waiting or self._running:
            self._assign()
            # `ray.wait` would turn a signal that ends this process into an error of its own.
            ended, _ = futures.wait(
                [*self._running, *self._starting], _POLL, futures.FIRST_COMPLETED
            )
            for future in ended:
                if future in self._starting:
                    self._take_start(future)
                else:
                    outcome = self._take_outcome(future)
                    if outcome is not None:
                        yield outcome

    def close(self) -> None:
        """Kill all workers; tasks that run are dropped."""
        busy = [actor for actor, _ in self._running.values()]
        for actor in (*self._idle, *self._starting.values(), *busy):
            self._ray.kill(actor)
        for known in (self._idle, self._starting, self._running):
            known.clear()
        self._disconnect()

    def _assign(self) -> None:
        """Give waiting tasks to idle actors, and ask for actors as long as tasks wait."""
        while self._waiting and self._idle:
            actor, task = self._idle.pop(), self._waiting.popleft()
            self._running[actor.run.remote(task).future()] = actor, task
        while len(self._starting) < min(len(self._waiting), self.workers - len(self._running)):
            actor = self._actor_class.remote(*self._arguments)
            # An actor without a place gets no task, which another may do meanwhile.
            self._starting[actor.begin.remote().future()] = actor

    def _take_start(self, future: _Future) -> None:
        actor = self._starting.pop(future)
        try:
            self._get(future, actor)
        except self._ray.exceptions.RayError as error:
            self._drop(actor)
            self._failed_starts += 1
            if self._failed_starts > _LOSSES or getattr(error, "actor_init_failed", False):
                raise VditrackError(f"no worker can start on Ray: {_shorten(error)}") from error
            return
        self._failed_starts = 0
        self._idle.append(actor)

    def _take_outcome(self, future: _Future) -> Outcome | None:
        """Return how a task ended; None if its actor was lost and it waits again."""
        actor, task = self._running.pop(future)
        try:
            (_, result, failure), replaced = self._get(future, actor)
        except self._ray.exceptions.RayError as error:
            self._drop(actor)
            self._losses[task] += 1
            if self._losses[task] < _LOSSES:
                self._waiting.appendleft(task)
                return None
            times = count_things(self._losses.pop(task), "time")
            reason = f"its Ray worker was lost {times}: {_shorten(error)}"
            return Outcome(task, None, Failure("crash", reason))
        self.replaced += replaced
        self._idle.append(actor)
        return Outcome(task, result, failure)

    def _get(self, future: _Future, actor: Any) -> Any:  # noqa: ANN401
        """Return what an actor returned.

        Raises:
            RayError: The actor was lost.
            VditrackError: The actor raised it; it is killed.

        """
        try:
            return future.result()
        except self._ray.exceptions.RayTaskError as error:
            if not isinstance(error.cause, VditrackError):
                raise
            self._ray.kill(actor)
            raise error.cause from None

    def _drop(self, actor: Any) -> None:  # noqa: ANN401
        # It may only be out of reach, and must not go on beside the one that replaces it.
        self._ray.kill(actor)
        self.replaced += 1

    def _count_places(self, resources: Resources) -> int:
        """Return how many workers the cluster has room for.

        Raises:
            InputError: It has room for none.

        """
        wanted = _list_wanted(resources)
        count = sum(
            int(min(node["Resources"].get(name, 0) // amount for name, amount in wanted.items()))
            for node in self._ray.nodes()
            if node["Alive"]
        )
        if not count:
            size = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items())
            raise InputError(
                f"no machine of the Ray cluster has what a worker needs ({size}). Lower "
                "--num-cpus, --num-gpus or --memory, or give --workers if machines will be added."
            )
        return count

    def _disconnect(self) -> None:
        if self._own:
            self._ray.shutdown()


class _Actor:
    """Runs tasks in a process of its own, on any machine of the cluster."""

    def __init__(
        self, open_handler: OpenHandler, stall_seconds: float, resources: Resources, folder: str
    ) -> None:
        limits = Limits(stall_seconds, resources.memory_bytes or _share_memory(resources))
        self._folder = folder
        self._pool = WorkerPool(open_handler, 1, limits)

    def begin(self) -> None:
        """Enter the folder of the command, to which relative paths belong.

        Raises:
            VditrackError: This machine does not have it.

        """
        try:
            os.chdir(self._folder)
        except OSError as error:
            raise VditrackError(
                f"{socket.gethostname()} has no folder {self._folder}, in which this command runs. "
                "Run it in a folder that all machines of the cluster have."
            ) from error

    def run(self, task: Any) -> tuple[Outcome, int]:  # noqa: ANN401
        """Run a task; return its outcome and the number of processes that were replaced.

        Raises:
            VditrackError: No task can be done, such as without the model.

        """
        before = self._pool.replaced
        self._pool.submit(task)
        (outcome,) = self._pool.outcomes()
        return outcome, self._pool.replaced - before


def _list_wanted(resources: Resources) -> dict[str, float]:
    """Return the amounts that are reserved for a worker, by Ray's names."""
    num_cpus, num_gpus, memory = resources
    amounts = {"CPU": num_cpus, "GPU": num_gpus or 0, "memory": memory or 0}
    return {name: amount for name, amount in amounts.items() if amount}


def _share_memory(resources: Resources) -> float:
    """Return the memory of this machine that Ray gives to a worker with its CPUs or GPUs, bytes."""
    ray = _import_ray()
    own = ray.get_runtime_context().get_node_id()
    has = next(node["Resources"] for node in ray.nodes() if node["NodeID"] == own)
    shares = [amount / has[name] for name, amount in _list_wanted(resources).items() if name in has]
    return float(has["memory"]) * max(shares, default=1.0)


def _import_ray() -> Any:  # noqa: ANN401
    # Ray reads it when it is imported.
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"Ray cannot be imported ({error}). Run `{install_command('annotate', 'ray')}`, or use "
            "--engine local."
        ) from error
    return ray


def _connect(ray: Any, address: str, num_cpus: float) -> None:  # noqa: ANN401
    """Connect to a cluster, or start Ray on this machine with at least so many CPUs.

    Raises:
        VditrackError: There is no cluster, or it has other versions of Ray or Python.

    """
    here: dict[str, Any] = {}
    _check_reachable(address)
    if address == "local":
        here = {
            "num_cpus": max(len(os.sched_getaffinity(0)), round(num_cpus)),
            "include_dashboard": False,
            "object_store_memory": _OBJECT_STORE,
        }
    # Ray replaces it by its own.
    stop = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **here)
    except (ray.exceptions.RayError, OSError, RuntimeError, ValueError) as error:
        raise VditrackError(f"no Ray cluster at {address}: {_shorten(error)}") from error
    finally:
        signal.signal(signal.SIGTERM, stop)


def _check_reachable(address: str) -> None:
    """Check that a service that speaks gRPC is at HOST:PORT, for which Ray waits for minutes.

    Raises:
        VditrackError: There is none.

    """
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), _CONNECT) as connection:
            # With TLS, Ray itself has to find out.
            if os.environ.get("RAY_USE_TLS", "0") == "0":
                _greet(connection)
    except (OSError, OverflowError) as error:
        raise VditrackError(
            f"no Ray cluster at {address}: {error}. Give the address that `ray start --head` "
            "printed."
        ) from error


def _greet(connection: socket.socket) -> None:
    """Check that the other end speaks HTTP/2.

    Raises:
        OSError: It does not.

    """
    connection.sendall(_HELLO)
    with connection.makefile("rb") as file:
        answer = file.read(9)
    if len(answer) < 9 or answer[3] != _SETTINGS:
        raise ConnectionError("another service listens there")


def _shorten(error: Exception) -> str:
    """Return the first line of a message."""
    lines = str(error).strip().split("\n")
    return lines[0].strip().rstrip(".") + "."
