"""Signals that end a command: scratch files are removed first, also during a long computation."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from vditrack.atomic_files import remove_scratch_folders

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
"""Not every system has all of them."""
_GRACE = 2.0
"""Seconds.

Python handles a signal when the call that runs has returned, which may take minutes in a library;
service managers and containers kill a process after 10 s.
"""


class StoppedError(SystemExit):
    """A signal ends the command; the exit code is that of a shell."""

    def __init__(self, number: int) -> None:
        """Take the number of the signal."""
        super().__init__(128 + number)
        self.name = signal.Signals(number).name


@contextmanager
def exit_on_signals() -> Iterator[None]:
    """Let a signal end the command as an exception, so that scratch files are removed.

    If the main thread does not react in time, a second thread removes them and ends the process.
    An interrupt (SIGINT) raises KeyboardInterrupt.
    """
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    # nohup lets a command ignore SIGHUP.
    ignored = (signal.SIG_IGN, None)
    handlers = {n: signal.getsignal(n) for n in numbers if signal.getsignal(n) not in ignored}
    reacted = threading.Event()

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        reacted.set()
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        # A second signal must not interrupt the removal of scratch files.
        for other in handlers:
            signal.signal(other, signal.SIG_IGN)
        raise StoppedError(number)

    with _watch_signals(frozenset(handlers), reacted):
        try:
            for number in handlers:
                signal.signal(number, stop)
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextmanager
def _watch_signals(numbers: frozenset[int], reacted: threading.Event) -> Iterator[None]:
    """Run a thread that ends the process if a signal comes and the main thread does not react."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)

    def watch() -> None:
        while content := os.read(reading, 1):
            if content[0] in numbers and not reacted.wait(_GRACE):
                remove_scratch_folders()
                print(f"vditrack: stopped by {signal.Signals(content[0]).name}.", file=sys.stderr)
                os._exit(128 + content[0])

    watcher = threading.Thread(target=watch, name="stop signals", daemon=True)
    # Python writes the number of each signal to it at once, whatever the main thread does.
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    watcher.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)
        watcher.join()
        os.close(reading)
