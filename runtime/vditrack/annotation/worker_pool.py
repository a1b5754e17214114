"""Worker processes that run one task each at a time, and are killed if they hang or grow.

A worker has a pipe of its own and shares no lock with others, so that any of them can be killed at
any time. If the parent ends, so do its workers.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import connection
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from vditrack.annotation.failures import Failure, JobError, SourceError
from vditrack.annotation.scratch import make_scratch
from vditrack.atomic_files import remove_scratch_folders
from vditrack.errors import InputError, VditrackError, install_command

Progress = Callable[[int, int | None], None]
Handler = Callable[[Any, Progress], Any]
"""Runs a task in a worker, calls back with (steps done, steps in all), returns its result."""
OpenHandler = Callable[[], Handler]
"""Called once in each worker."""

_POLL = 0.2
"""Seconds between two looks at the workers."""
_BEAT = 0.2
"""Seconds between two reports of progress."""
_START = 120.0
"""Seconds that a new worker may take until it is ready, if `Limits.stall_seconds` is less."""
_TAIL = 4096
"""Bytes at the end of a worker's log that are searched for the reason of its end."""
_LOG = "errors"
"""File of what a worker writes on stderr."""


class Limits(NamedTuple):
    """When a worker is killed."""

    stall_seconds: float
    """Longest time without progress of its task."""
    memory_bytes: float
    """Largest resident memory."""


class Outcome(NamedTuple):
    """The end of a task."""

    task: Any
    result: Any
    """What the handler returned; None if it failed."""
    failure: Failure | None


class WorkerPool:
    """Runs tasks in worker processes; `outcomes` yields how each of them ended."""

    def __init__(self, open_handler: OpenHandler, workers: int, limits: Limits) -> None:
        """Start no worker yet.

        Args:
            open_handler: Returns what runs the tasks; pickled for each worker.
            workers: Number of processes.
            limits: When a worker is killed.

        Raises:
            InputError: psutil, which measures memory, is not installed.

        """
        self._psutil = _import_psutil()
        self._open_handler, self.workers, self._limits = open_handler, workers, limits
        self._waiting: deque[Any] = deque()
        self._workers: list[_Worker] = []
        self._scratch, self._lock = make_scratch()
        self.replaced = 0
        """Number of workers that ended or were killed, and were replaced."""

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
        while self._waiting or any(worker.busy for worker in self._workers):
            self._assign()
            connection.wait([worker.pipe for worker in self._workers], _POLL)
            for worker in list(self._workers):
                outcome = self._look_at(worker)
                if outcome is not None:
                    yield outcome

    def close(self) -> None:
        """Kill all workers; tasks that run are dropped."""
        for worker in self._workers:
            worker.kill()
        self._workers.clear()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None
            shutil.rmtree(self._scratch, ignore_errors=True)

    def _assign(self) -> None:
        """Give waiting tasks to idle workers, and start workers as long as tasks wait."""
        idle = [worker for worker in self._workers if not worker.busy]
        while self._waiting and (idle or len(self._workers) < self.workers):
            worker = idle.pop() if idle else self._start()
            # An idle worker may have been killed; then the task is another one's.
            with suppress(OSError):
                worker.run(self._waiting[0])
                self._waiting.popleft()
                continue
            self._remove(worker)

    def _start(self) -> _Worker:
        folder = self._scratch / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        worker = _Worker(self._open_handler, folder)
        self._workers.append(worker)
        return worker

    def _look_at(self, worker: _Worker) -> Outcome | None:
        """Read what a worker reports; replace it if it has ended or exceeds a limit."""
        alive = worker.read()
        done = worker.take_outcome()
        if done is not None:
            return done
        failure = self._find_fault(worker) if alive else Failure("crash", worker.explain_end())
        if failure is None:
            return None
        busy, task = worker.busy, worker.task
        self._remove(worker)
        return Outcome(task, None, failure) if busy else None

    def _find_fault(self, worker: _Worker) -> Failure | None:
        """Return which limit a worker exceeds, if any."""
        if not worker.busy:
            return None
        longest, largest = self._limits
        if not worker.ready:
            longest = max(longest, _START)
        if time.monotonic() - worker.last_progress > longest:
            return Failure("hang", f"there was no progress for {longest:g} s; killed.")
        if self._read_memory(worker) > largest:
            size = f"{largest / 1e9:.3g} GB"
            return Failure("memory", f"the worker's memory exceeded the limit of {size}; killed.")
        return None

    def _read_memory(self, worker: _Worker) -> int:
        try:
            return int(self._psutil.Process(worker.process.pid).memory_info().rss)
        except self._psutil.Error:
            # It has just ended; the pipe will say so.
            return 0

    def _remove(self, worker: _Worker) -> None:
        worker.kill()
        self._workers.remove(worker)
        self.replaced += 1


class _Worker:
    """A process and the task that it runs."""

    def __init__(self, open_handler: OpenHandler, scratch: Path) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        self.process = context.Process(
            target=_serve,
            args=(other, open_handler, scratch),
            name="vditrack annotate",
            daemon=True,
        )
        self.process.start()
        # The pipe then ends with the worker.
        other.close()
        self.busy = self.ready = False
        self.task: Any = None
        self.last_progress = time.monotonic()
        """Seconds of the monotonic clock."""
        self._scratch = scratch
        self._outcome: Outcome | None = None

    def run(self, task: object) -> None:
        """Send a task.

        Raises:
            OSError: The process has ended.

        """
        self.pipe.send(task)
        self.task, self.busy, self.last_progress = task, True, time.monotonic()

    def read(self) -> bool:
        """Read all messages; return False if the process has ended.

        Raises:
            VditrackError: No task can be done.

        """
        try:
            while self.busy and self.pipe.poll():
                kind, content = self.pipe.recv()
                self.last_progress, self.ready = time.monotonic(), True
                if kind == "job":
                    raise VditrackError(content)
                if kind != "progress":
                    self.busy = False
                    result, failure = (content, None) if kind == "done" else (None, content)
                    self._outcome = Outcome(self.task, result, failure)
        except (EOFError, OSError):
            return False
        return self.process.is_alive() or self.pipe.poll()

    def take_outcome(self) -> Outcome | None:
        """Return the outcome of a task that has just ended."""
        outcome, self._outcome = self._outcome, None
        return outcome

    def explain_end(self) -> str:
        """Return why the process ended, as sentences."""
        self.process.join()
        code = self.process.exitcode or 0
        how = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
        lines = (self._scratch / _LOG).read_bytes()[-_TAIL:].decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "")
        return f"the worker ended with {how}{': ' if last else ''}{last.rstrip('.')}."

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.process.join()
        self.pipe.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _serve(pipe: connection.Connection, open_handler: OpenHandler, scratch: Path) -> None:
    """Run tasks in this process until the parent closes the pipe."""
    # Ctrl-C reaches all processes of a terminal; the parent then ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _write_errors_to(scratch / _LOG)
    # Such as the files of a bag that are decompressed: they go with this process.
    tempfile.tempdir = str(scratch)
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    handle = open_handler()
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send(("progress", (0, None)))
        while True:
            task = pipe.recv()
            pipe.send(_run(handle, task, _Heart(pipe)))


def _run(handle: Handler, task: object, progress: Progress) -> tuple[str, Any]:
    """Run a task, and return the message about its end.

    Errors that are not expected end the process, whose log then has the reason.
    """
    try:
        return "done", handle(task, progress)
    except JobError as error:
        return "job", str(error)
    except SourceError as error:
        return "failed", Failure(error.kind, str(error))
    except VditrackError as error:
        return "failed", Failure("refused", str(error))
    except MemoryError as error:
        return "failed", Failure("memory", f"the memory is too small. {error}".strip())
    except (BrokenPipeError, ConnectionResetError):
        # The parent has ended.
        raise
    except (OSError, ValueError, cv2.error) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        return "failed", Failure("error", reason)


class _Heart:
    """Sends progress to the parent, at most every `_BEAT` seconds."""

    def __init__(self, pipe: connection.Connection) -> None:
        self._pipe, self._last = pipe, 0.0

    def __call__(self, done: int, total: int | None) -> None:
        now = time.monotonic()
        if now - self._last >= _BEAT:
            self._last = now
            self._pipe.send(("progress", (done, total)))


def _write_errors_to(log: Path) -> None:
    """Redirect what this process and its libraries write on stderr to a file."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    faulthandler.enable(file=2)


def _end_with_parent() -> None:
    """Wait for the end of the parent, and end this process, whatever it does."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        remove_scratch_folders()
        os._exit(1)


def _import_psutil() -> Any:  # noqa: ANN401
    try:
        import psutil  # noqa: PLC0415
    except ImportError as error:
        raise InputError(
            f"psutil, which measures memory, cannot be imported ({error}). "
            f"Run `{install_command('annotate')}`."
        ) from error
    return psutil
