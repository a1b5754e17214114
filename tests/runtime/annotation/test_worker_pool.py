"""Worker processes that fail in every way, without harm to the other tasks."""

import multiprocessing
import os
import signal
import tempfile
from pathlib import Path

import pytest

from doubles.pool_tasks import open_handler
from vditrack.annotation.worker_pool import Limits, WorkerPool
from vditrack.errors import VditrackError

GENEROUS = Limits(stall_seconds=60, memory_bytes=8e9)


@pytest.fixture
def make_pool():
    pools = []

    def make(workers=1, limits=GENEROUS):
        pools.append(WorkerPool(open_handler, workers, limits))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()
    assert not multiprocessing.active_children()


def run(pool, *tasks):
    for task in tasks:
        pool.submit(task)
    return {outcome.task: outcome for outcome in pool.outcomes()}


def test_tasks_that_fail_leave_the_others_alone(make_pool):
    pool = make_pool()
    tasks = ["refuse", ("double", 1), "break", "kill", ("double", 2)]
    found = run(pool, *tasks)
    assert list(found) == tasks
    assert [found["double", n].result for n in (1, 2)] == [2, 4]
    assert found["refuse"].failure == ("absent", "there is no such file.")
    assert found["break"].failure.kind == "crash"
    assert "ZeroDivisionError: a fault of the program" in found["break"].failure.reason
    killed = ("crash", "the worker ended with SIGKILL.")
    assert found["kill"].failure == killed
    # An error that is expected does not cost the worker.
    assert pool.replaced == 2
    idle = run(pool, "process")["process"].result
    os.kill(idle, signal.SIGKILL)
    # Its end may be noticed only when it has a task.
    assert run(pool, ("double", 3))["double", 3].failure in (None, killed)
    assert run(pool, ("double", 4))["double", 4].result == 8
    assert pool.replaced == 3


def test_what_workers_leave_is_removed(make_pool, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    killed, other = tmp_path / "vditrack-annotate-killed", tmp_path / "vditrack-view"
    killed.mkdir()
    other.mkdir()
    living = make_pool()
    file = Path(run(living, "leave")["leave"].result)
    assert file.is_relative_to(tmp_path)
    make_pool().close()
    assert file.exists()
    assert not killed.exists()
    living.close()
    assert list(tmp_path.iterdir()) == [other]


def test_workers_that_hang_or_grow_are_killed(make_pool):
    pool = make_pool(limits=Limits(1.0, 4e8))
    found = run(pool, ("beat", 1.5), "stop", "grow", ("double", 1))
    assert found["beat", 1.5].result == "beaten"
    assert found["stop"].failure == ("hang", "there was no progress for 1 s; killed.")
    assert found["grow"].failure.kind == "memory"
    assert "limit of 0.4 GB" in found["grow"].failure.reason
    assert found["double", 1].result == 2


def test_a_model_that_does_not_load_ends_the_job(make_pool):
    with pytest.raises(VditrackError, match=r"the model is damaged\."):
        run(make_pool(), "lack", ("double", 1))
