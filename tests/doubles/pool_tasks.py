"""A handler of worker processes: its tasks succeed, fail, grow, stop or end."""

import os
import signal
import tempfile
import time

from vditrack.annotation.failures import JobError, SourceError


def open_handler():
    return handle


def handle(task, progress):
    name, *arguments = task if isinstance(task, tuple) else (task,)
    return TASKS[name](progress, *arguments)


def _double(_progress, number):
    return 2 * number


def _tell_process(_progress):
    return os.getpid()


def _leave_file(_progress):
    return tempfile.mkstemp()[1]


def _refuse(_progress):
    raise SourceError("absent", "there is no such file.")


def _break(_progress):
    raise ZeroDivisionError("a fault of the program")


def _stop(progress):
    progress(1, 2)
    os.kill(os.getpid(), signal.SIGSTOP)


def _beat(progress, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        progress(1, None)
        time.sleep(0.05)
    return "beaten"


def _grow(progress):
    held = []
    while True:
        held.append(bytearray(os.urandom(1 << 20) * 32))
        progress(len(held), None)
        time.sleep(0.02)


def _kill(_progress):
    os.kill(os.getpid(), signal.SIGKILL)


def _kill_worker(_progress):
    """End the Ray worker that started this process, and with it this process."""
    os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(60)


def _lack_model(_progress):
    raise JobError("the model is damaged.")


TASKS = {
    "double": _double,
    "process": _tell_process,
    "leave": _leave_file,
    "refuse": _refuse,
    "break": _break,
    "stop": _stop,
    "beat": _beat,
    "grow": _grow,
    "kill": _kill,
    "kill worker": _kill_worker,
    "lack": _lack_model,
}
