"""Parts of a benchmark that each run in a process of their own, for a limited time.

A part yields its figures as it measures them. A part that fails, crashes or takes too long keeps
those that it gave; the reason is reported, and the next part runs.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory

from vditrack.errors import VditrackError
from vditrack.inference.session import AbsentError

Figure = tuple[str, float | str]
"""The name and the value of what was measured; text is a note."""
_SHORTEST = 5.0
"""Seconds without which a part is not started."""


class NotPossibleError(Exception):
    """A part cannot run on this machine; the message gives the reason."""


@dataclass(frozen=True)
class Part:
    """One part of a benchmark."""

    name: str
    seconds: float
    """The longest time that it may take."""
    measure: Callable[..., Iterator[Figure]]
    """A function that a new process can import."""
    arguments: tuple[object, ...] = ()


def run_parts(
    parts: list[Part], seconds: float, report: Callable[[str], None]
) -> Iterator[tuple[Part, Figure]]:
    """Run parts one after another, and yield every figure as soon as it is measured.

    The last figure of a part that is not complete is the reason, a note with the part's name.

    Args:
        parts: The parts, the most important first.
        seconds: The longest time of all together.
        report: Called with lines that show the progress.

    """
    ends = time.monotonic() + seconds
    for number, part in enumerate(parts, start=1):
        left = ends - time.monotonic()
        limit = min(part.seconds, left)
        rest = sum(other.seconds for other in parts[number - 1 :])
        report(
            f"[{number}/{len(parts)}] {part.name}: at most {limit:.0f} s; "
            f"all done in at most {min(rest, left):.0f} s"
        )
        if left < min(_SHORTEST, part.seconds):
            reason: str | None = f"skipped: the {seconds:.0f} s of all parts are over"
        else:
            reason = yield from _run_part(part, limit)
        if reason is not None:
            yield part, (part.name, reason)


def _run_part(part: Part, seconds: float) -> Iterator[tuple[Part, Figure]]:
    """Yield the figures of a part; return the reason if it is not complete, else None."""
    context = multiprocessing.get_context("spawn")
    with TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(
            target=_send_figures, args=(sender, log, part.measure, part.arguments)
        )
        ends = time.monotonic() + seconds
        process.start()
        sender.close()
        try:
            while True:
                left = max(0.0, ends - time.monotonic())
                if not receiver.poll(left):
                    return f"stopped: it took more than {seconds:.0f} s"
                try:
                    ended, value = receiver.recv()
                except EOFError:
                    # The process is ending; its exit code tells how.
                    process.join(left)
                    return _explain_exit(process.exitcode, log)
                if ended:
                    return value
                yield part, value
        finally:
            _end(process)


def _send_figures(
    sender: Connection,
    log: Path,
    measure: Callable[..., Iterator[Figure]],
    arguments: tuple[object, ...],
) -> None:
    """Measure in this process, whose output goes to a file; any other error ends it."""
    # A group of its own, so that processes which libraries start end with it.
    os.setsid()
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    reason = None
    try:
        for figure in measure(*arguments):
            sender.send((False, figure))
    except (NotPossibleError, AbsentError) as error:
        reason = f"skipped: {error}"
    except ModuleNotFoundError as error:
        reason = f"skipped: {error.name} is not installed"
    except VditrackError as error:
        reason = f"failed: {error}"
    sender.send((True, reason))


def _explain_exit(code: int | None, log: Path) -> str:
    """Return why a process ended before its part did: the signal, or the last line it wrote."""
    if code is not None and code < 0:
        return f"failed: it crashed with {signal.Signals(-code).name}"
    lines = log.read_text(errors="replace").strip().splitlines() if log.exists() else []
    return f"failed: {' '.join((lines or [f'exit code {code}'])[-1].split())}"


def _end(process: multiprocessing.process.BaseProcess) -> None:
    """End a process and those that it started."""
    if process.pid is not None:
        # Before the process has its own group, there is none to end.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
    process.join()


def print_line(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True, file=sys.stderr)
