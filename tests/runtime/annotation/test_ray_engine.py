"""The engine ray on the real Ray: workers and jobs that are killed, and equal bytes."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import ray

from doubles.pool_tasks import open_handler
from doubles.video_files import moving_texture, write_video_file
from vditrack.annotation import ray_pool
from vditrack.annotation.ray_pool import RayPool, Resources
from vditrack.errors import InputError, VditrackError

SMALL = Resources(num_cpus=1, num_gpus=None, memory_bytes=1e9)


@pytest.fixture(scope="module")
def cluster():
    """The address of Ray on this machine, with two CPUs."""
    with pytest.MonkeyPatch.context() as patch:
        # Its workers import the handlers of these tests.
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        before = signal.getsignal(signal.SIGTERM)
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            object_store_memory=100_000_000,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
        signal.signal(signal.SIGTERM, before)
        yield ray.get_runtime_context().gcs_address
        ray.shutdown()


@pytest.fixture
def make_pool(cluster):
    pools = []

    def make(workers=None, stall_seconds=60, resources=SMALL):
        pools.append(RayPool(open_handler, workers, stall_seconds, resources))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def run(pool, *tasks):
    for task in tasks:
        pool.submit(task)
    return {outcome.task: outcome for outcome in pool.outcomes()}


def list_actors() -> list[psutil.Process]:
    """The processes of Ray on this machine that are workers of a job."""
    found = []
    for process in psutil.Process().children(recursive=True):
        # They may end meanwhile.
        with suppress(psutil.Error):
            if "".join(process.cmdline()).startswith("ray::_Actor"):
                found.append(process)
    return found


def start(*arguments) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("vditrack")), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_tasks_that_fail_or_lose_their_worker_leave_the_others_alone(make_pool, monkeypatch):
    monkeypatch.setattr(ray_pool, "_LOSSES", 1)
    pool = make_pool()
    # As many as there are CPUs.
    assert pool.workers == 2
    found = run(pool, "refuse", "kill", "kill worker", ("double", 1))
    assert found["double", 1].result == 2
    assert found["refuse"].failure == ("absent", "there is no such file.")
    assert found["kill"].failure == ("crash", "the worker ended with SIGKILL.")
    kind, reason = found["kill worker"].failure
    assert (kind, reason.split(":")[0]) == ("crash", "its Ray worker was lost 1 time")
    assert pool.replaced == 2
    with pytest.raises(VditrackError, match=r"^the model is damaged\.$") as held:
        run(pool, "lack")
    pool.close()
    # Also while the traceback holds the actor.
    wait_for(lambda: not list_actors())
    del held


def test_a_cluster_without_room_for_a_worker_is_refused(make_pool):
    with pytest.raises(InputError, match=r"needs \(CPU 3, memory 1e\+09\)\. Lower --num-cpus"):
        make_pool(resources=SMALL._replace(num_cpus=3))


def test_a_machine_without_the_folder_of_the_command_is_refused(tmp_path):
    actor = ray_pool._Actor(open_handler, 60, SMALL, str(tmp_path / "absent"))
    with pytest.raises(VditrackError, match=r"has no folder .*absent, in which this command runs"):
        actor.begin()


def test_an_address_without_a_cluster_is_refused():
    with pytest.raises(VditrackError, match=r"no Ray cluster at localhost:1: .*Connection refused"):
        ray_pool._connect(ray, "localhost:1", 1)
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"

        def answer():
            client, _ = other.accept()
            with client:
                client.recv(100)
                client.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        with pytest.raises(VditrackError, match=f"{address}: another service listens there"):
            ray_pool._connect(ray, address, 1)
        thread.join()


def test_the_command_that_installs_ray_is_given(monkeypatch, tmp_path, assert_refused):
    monkeypatch.setitem(sys.modules, "ray", None)
    (tmp_path / "0.mp4").touch()
    command = ("annotate", "0.mp4", "-o", "out", "--grid", 2, "--engine", "ray")
    assert_refused(*command, message="[annotate,ray]", cwd=tmp_path)


def test_a_worker_and_the_job_are_killed_and_the_rest_is_done_later(
    cluster, tmp_path, run_vditrack
):
    clips, output = tmp_path / "clips", tmp_path / "out"
    clips.mkdir()
    frames = moving_texture(5)
    for n in range(3):
        write_video_file(clips / f"{n}.mp4", frames[n : n + 3])
    (clips / "text.mp4").write_text("this is no video")
    common = ("annotate", clips, "--grid", 3, "--backend", "cpu", "--json")
    command = (*common, "-o", output, "--engine", "ray", "--address", cluster)
    wait_for(lambda: not list_actors())
    killed = start(*command, "--workers", 1)
    wait_for(lambda: list(output.glob("tracks/0-*")))
    (worker,) = list_actors()
    worker.kill()
    # The process that it started ends with it.
    wait_for(lambda: len(list(output.glob("tracks/*.parquet"))) > 1)
    killed.kill()
    killed.communicate()
    wait_for(lambda: not list_actors())
    kept = {path: path.stat().st_mtime_ns for path in output.glob("tracks/*.parquet")}
    done = run_vditrack(*command)
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["failures"]) == (3, {"refused": 1})
    assert summary["throughput"]["annotated"] == 3 - len(kept)
    assert summary["throughput"]["workers"] == 2
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    assert not list(output.rglob(".vditrack-*"))
    local = tmp_path / "local"
    assert run_vditrack(*common, "-o", local, "--workers", 1).returncode == 3
    for path in (*local.rglob("*.parquet"), *local.rglob("*.jpg")):
        assert (output / path.relative_to(local)).read_bytes() == path.read_bytes(), path
    # Found here, and nowhere else.
    assert len(list(output.rglob("*.parquet"))) == 5
