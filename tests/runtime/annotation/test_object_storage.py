"""Recordings and results in object storage: a real server of S3, jobs that are killed, failures."""

import errno
import json
import logging
import subprocess
import sys
import time
from collections import deque
from dataclasses import replace
from pathlib import Path

import cv2
import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from moto.server import ThreadedMotoServer

from doubles.bags import images, write_bag
from doubles.video_files import moving_texture, write_video_file
from vditrack.annotation import copies
from vditrack.annotation.copies import Copies
from vditrack.annotation.failures import Failure, JobError, SourceError
from vditrack.annotation.folders import LocalFolder, open_folder
from vditrack.annotation.handling import Model, UnitHandler, digest_manifest
from vditrack.annotation.job import Job, run_job
from vditrack.annotation.job_tables import read_failed
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source, list_sources
from vditrack.annotation.specification import Specification
from vditrack.annotation.storage import AccessError, parse_address, upload
from vditrack.annotation.units import identify, list_units
from vditrack.annotation.worker_pool import Outcome
from vditrack.bundle.folder import bundled_model
from vditrack.errors import InputError

CAMERA = "observation.images.front"
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE7", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI"}
POINTS = ("--grid", 3, "--workers", 1, "--backend", "cpu", "--json")
CLIPS = ("a.mp4", "b.mp4", "c.mp4")


class Requests(logging.Handler):
    """What the server was asked, such as ``GET /data/key``."""

    def __init__(self):
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record):
        self.lines.append(record.getMessage())

    def count(self, request) -> int:
        return sum(request in line for line in self.lines)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    """Recordings of all kinds, and files that are none."""
    root = tmp_path_factory.mktemp("recordings")
    frames = moving_texture(6)
    for n, name in enumerate(CLIPS):
        write_video_file(root / name, frames[n : n + 3])
    (root / "notes.txt").write_text("a.mp4\nframes\n")
    (root / "some.csv").write_text("path,start,episode\na.mp4,0.02,\nset,,1\nabsent.mp4,,\n")
    (root / ".hidden").mkdir()
    (root / ".hidden/a.mp4").write_bytes(b"")
    (root / "frames").mkdir()
    for n in range(2):
        cv2.imwrite(str(root / f"frames/{n}.png"), frames[n])
    write_bag(root / "bag", images(count=2), images("/right/image", count=2))
    write_set(root / "set", frames)
    settings = Settings("b" * 64, "cpu", Specification(grid=2))
    (root / "results/thumbnails").mkdir(parents=True)
    (root / "results/job.json").write_bytes(json.dumps(as_dict(settings)).encode())
    for n in range(2):
        (root / f"results/thumbnails/{n}.jpg").write_bytes(b"")
    return root


def as_dict(settings):
    return {
        "bundle_sha256": settings.bundle_sha256,
        "backend": settings.backend,
        "specification": {"grid": settings.specification.grid},
    }


def write_set(root, frames) -> None:
    """Write a LeRobot data set of two episodes, each in a video, with one table of both."""
    info = {
        "codebase_version": "v3.0",
        "fps": 25,
        "features": {CAMERA: {"dtype": "video", "shape": [96, 128, 3]}},
        "data_path": "data/{chunk_index}-{file_index}.parquet",
        "video_path": "videos/{video_key}/{chunk_index}-{file_index}.mp4",
    }
    for path in ("meta/episodes/chunk-000", "data", f"videos/{CAMERA}"):
        (root / path).mkdir(parents=True)
    episodes, rows = [], []
    for n, length in enumerate((4, 2)):
        video = {"chunk_index": 0, "file_index": n, "from_timestamp": 0.0}
        table = {"data/chunk_index": 0, "data/file_index": 0}
        named = {f"videos/{CAMERA}/{key}": value for key, value in video.items()}
        episodes.append({"episode_index": n, "length": length, **table, **named})
        rows += [{"episode_index": n, "frame_index": t, "timestamp": t / 25} for t in range(length)]
        write_video_file(root / f"videos/{CAMERA}/0-{n}.mp4", frames[4 * n :][:length])
    (root / "meta/info.json").write_text(json.dumps(info))
    pq.write_table(pa.Table.from_pylist(episodes), root / "meta/episodes/chunk-000/0.parquet")
    pq.write_table(pa.Table.from_pylist(rows), root / "data/0-0.parquet")


@pytest.fixture(scope="module")
def server(recordings):
    """A server of S3 with the recordings in ``data/in``, and what it was asked."""
    requests, log = Requests(), logging.getLogger("werkzeug")
    log.addHandler(requests)
    log.setLevel(logging.INFO)
    log.propagate = False
    moto = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    with pytest.MonkeyPatch.context() as patch:
        host, port = moto.get_host_and_port()
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        patch.setenv("NO_PROXY", host)
        for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3"):
            patch.delenv(name, raising=False)
        patch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        for name, value in SECRETS.items():
            patch.setenv(name, value)
        forget_storages()
        files, _ = fsspec.url_to_fs("s3://data")
        files.mkdir("data")
        files.put(f"{recordings}/", "data/in/", recursive=True)
        yield requests
        forget_storages()
    moto.stop()
    log.removeHandler(requests)
    log.propagate = True


@pytest.fixture
def files(server):
    """The file system of the server."""
    return fsspec.url_to_fs("s3://data")[0]


def forget_storages() -> None:
    """Let the next use of a storage read the environment."""
    fsspec.get_filesystem_class("s3").clear_instance_cache()


def read_all(files, folder) -> dict[str, bytes]:
    files.invalidate_cache()
    return {name: files.cat_file(name) for name in files.find(folder)}


def ignore(*_) -> None:
    pass


class Here:
    """A worker in this process."""

    workers, replaced = 1, 0

    def __init__(self, open_handler):
        self.handle, self.tasks = open_handler(), deque()

    def submit(self, task, first=False):
        if first:
            self.tasks.appendleft(task)
        else:
            self.tasks.append(task)

    def run(self, task):
        return Outcome(task, self.handle(task, ignore), None)

    def outcomes(self):
        while self.tasks:
            yield self.run(self.tasks.popleft())

    def close(self):
        pass


def test_a_job_is_killed_and_does_the_rest_later_with_the_same_bytes(
    server, files, recordings, run_vditrack
):
    command = ["annotate", *(f"s3://data/in/{name}" for name in CLIPS), "-o", "s3://data/out"]
    executable = str(Path(sys.executable).with_name("vditrack"))
    killed = subprocess.Popen(
        [executable, *map(str, (*command, *POINTS))], stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    end = time.monotonic() + 120
    while not server.count("PUT /data/out/tracks/a-"):
        assert killed.poll() is None
        assert time.monotonic() < end
        time.sleep(0.02)
    killed.kill()
    killed.communicate()
    kept = {name: data for name, data in read_all(files, "data/out").items() if "/tracks/" in name}
    assert 0 < len(kept) < 3
    for name in kept:
        assert pq.read_table(name, filesystem=files).num_rows == 27
    server.lines.clear()
    settings = Settings(digest_manifest(bundled_model()), "cpu", Specification(grid=3))
    sources = list_sources(command[1:4])
    output = open_folder("s3://data/out")
    summary = run_job(Job(sources, output, Model(None, "cpu", 1), settings, Here, 1), ignore)
    assert (summary.done, summary.throughput.annotated) == (3, 3 - len(kept))
    results = read_all(files, "data/out")
    assert kept.items() <= results.items()
    # It is copied once, to be identified and tracked.
    assert server.count("GET /data/in/c.mp4 ") == 1
    # With its tracks, a recording is done.
    written = [line.split("PUT /data/out/")[1] for line in server.lines if "PUT /data/out/" in line]
    assert [name.split("/")[0] for name in written if "/c-" in name] == ["thumbnails", "tracks"]
    server.lines.clear()
    done = run_vditrack(*command, *POINTS)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["throughput"]["annotated"] == 0
    assert not server.count("GET /data/in/") + server.count("PUT /data/out/t")
    timed = {"data/out/summary.json", "data/out/report.html"}
    after = read_all(files, "data/out")
    assert after.keys() == results.keys()
    assert {name for name in after if after[name] != results[name]} <= timed
    # A recording has the same id as on a disk.
    for name in CLIPS:
        source = Source(recordings / name)
        (unit,) = list_units(source, identify(source, ignore), settings)
        assert f"data/out/tracks/{unit.name}.parquet" in after
    secrets = [text.encode() for text in (*SECRETS.values(), "127.0.0.1")]
    for text in (*after.values(), *(one.encode() for one in (done.stdout, done.stderr))):
        assert not [secret for secret in secrets if secret in text]


@pytest.mark.parametrize("arguments", [[""], ["/*"], ["/**/*.mp4", "/frames"], ["/some.csv"]])
def test_recordings_are_those_of_the_same_folder_on_a_disk(server, recordings, arguments):
    def describe(source, root):
        place = source.place.removeprefix(str(root)).lstrip("/")
        return place, source.topic, source.start, source.end, source.episode

    here = list_sources([f"{recordings}{one}" for one in arguments])
    there = list_sources([f"s3://data/in{one}" for one in arguments])
    assert len(here) > 2
    assert [describe(one, "s3://data/in") for one in there] == [
        describe(one, recordings) for one in here
    ]
    for source in there:
        known = source.remote.version is not None
        assert known == (recordings / describe(source, "s3://data/in")[0]).exists()


def test_a_copy_has_the_same_identity_and_one_at_a_time_is_kept(
    server, files, recordings, tmp_path, monkeypatch
):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    held = Copies()
    here, there = (list_sources([str(one)]) for one in (recordings, "s3://data/in"))
    server.lines.clear()
    for local, remote in zip(here, there, strict=True):
        expected = identify(local, ignore)
        with held.hold(remote, "", ignore) as (copy, version):
            found = identify(copy, ignore)
        assert (found.sha256, found.topics) == (expected.sha256, expected.topics)
        assert version == remote.remote.version is not None
        (kept,) = tmp_path.glob("*/data/in/*")
        assert kept.name == remote.place.split("/")[4]
        assert len(list(kept.glob("videos/*/*"))) == (remote.episode is not None)
    # Both episodes are in one table.
    assert server.count("GET /data/in/set/data/0-0.parquet ") == 1
    refused = pytest.raises(InputError, match=r"^s3://data/in/set is bad\.$")
    with refused, held.hold(remote, version, ignore) as (copy, _):
        raise InputError(f"{copy.path} is bad.")
    assert not list(tmp_path.iterdir())


def test_a_mask_is_found_from_the_address_of_its_recording(server, files, recordings):
    cv2.imwrite(str(recordings / "mask.png"), moving_texture(1)[0])
    files.put_file(str(recordings / "mask.png"), "data/masks/a.png")
    specification = Specification(grid=2, mask="../masks/{stem}.png")
    settings = Settings("b" * 64, "cpu", specification)
    (source,) = list_sources(["s3://data/in/a.mp4"])
    held = Copies(specification.mask)
    with held.hold(source, "", ignore) as (copy, _):
        identity = identify(copy, ignore)
        (unit,), (again,) = (list_units(one, identity, settings) for one in (source, copy))
        assert unit.id == again.id
        assert (copy.path.parent / "../masks/a.png").is_file()
    held.remove()
    assert unit.mask_sha256 is not None


def test_a_storage_that_does_not_answer_is_a_failure_of_its_own_kind(
    server, recordings, tmp_path, monkeypatch
):
    settings = Settings("b" * 64, "cpu", Specification(grid=2))

    class Offline(Here):
        """A worker without a network."""

        def run(self, task):
            with monkeypatch.context() as patch, pytest.raises(SourceError) as caught:
                patch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
                patch.setenv("AWS_MAX_ATTEMPTS", "1")
                forget_storages()
                super().run(task)
            forget_storages()
            return Outcome(task, None, Failure(caught.value.kind, str(caught.value)))

    output = tmp_path / "out"
    sources = list_sources(["s3://data/in/a.mp4"])
    job = Job(sources, LocalFolder(output), Model(None, "cpu", 1), settings, Offline, 1)
    assert run_job(job, ignore).failures == {"network": 1}
    (failed,) = read_failed(output / "failed.parquet")
    assert (failed.source, failed.attempts) == ("s3://data/in/a.mp4", 2)
    assert failed.reason.startswith("the storage of s3://data/in/a.mp4 does not answer (Endpoint")
    assert "127.0.0.1" not in failed.reason


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["s3://absent/in", "-o", "out"], "there is no s3://absent/in: The specified bucket does"),
        (["s3://data/in/a.mp4", "-o", "s3://absent/out"], "there is no s3://absent/out: The spec"),
        (["s3://data/none", "-o", "out"], "there is no s3://data/none, nor any other recording"),
        (["s3://data/in/*.avi", "-o", "out"], "no file matches s3://data/in/*.avi"),
        (["s3://key:secret@data/in", "-o", "out"], "an address has a password"),
        (["s3:///", "-o", "out"], "names no bucket"),
        (["tracks://data/in", "-o", "out"], "there is no storage tracks://"),
        (["gs://data/in", "-o", "out"], "[annotate,gcs]"),
        (["s3://data/in/frames", "-o", "s3://data/in/frames"], "would become part of it"),
        (["s3://data/in/set", "-o", "out", "--lerobot", "copy"], "--lerobot writes a copy of"),
    ],
)
def test_wrong_use_is_refused(arguments, message, server, tmp_path, assert_refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    assert_refused("annotate", *arguments, *POINTS, message=message, cwd=tmp_path)


def test_a_machine_without_credentials_ends_the_job(server, monkeypatch, tmp_path):
    (source,) = list_sources(["s3://data/in/a.mp4"])
    settings = Settings("b" * 64, "cpu", Specification(grid=2))
    handle = UnitHandler(Model(None, "cpu", 1), settings, open_folder("s3://data/other"))
    with monkeypatch.context() as patch:
        for name in SECRETS:
            patch.delenv(name)
        patch.setenv("HOME", str(tmp_path))
        forget_storages()
        with pytest.raises(AccessError, match=r"has no valid credentials for s3://data/in/a\.mp4"):
            list_sources(["s3://data/in/a.mp4"])
        with pytest.raises(JobError, match="has no valid credentials"):
            handle(source, ignore)
    forget_storages()


def test_a_result_that_is_refused_is_no_fault_of_a_recording(server, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"absent/file cannot be written: there is no") as caught:
        upload(tmp_path / "file", parse_address("s3://absent/file"))
    assert not isinstance(caught.value, SourceError)


def test_a_full_disk_is_named(server, monkeypatch, tmp_path):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(copies, "download", fail)
    (source,) = list_sources(["s3://data/in/a.mp4"])
    refused = pytest.raises(SourceError, match=f"no room in {tmp_path} for a copy of s3://data/in")
    with refused, Copies().hold(source, "", ignore):
        pass
    assert not list(tmp_path.iterdir())


def test_an_object_that_was_written_again_is_read_again(server, files):
    files.pipe_file("data/new.mp4", b"1")
    (first,) = list_sources(["s3://data/new.mp4"])
    files.pipe_file("data/new.mp4", b"2")
    (second,) = list_sources(["s3://data/new.mp4"])
    assert first == second
    assert first.remote.version != second.remote.version
    held = Copies()
    with (
        pytest.raises(SourceError, match="changed"),
        held.hold(second, first.remote.version, ignore),
    ):
        pass
    with held.hold(replace(second), second.remote.version, ignore) as (copy, _):
        assert copy.path.read_bytes() == b"2"
    held.remove()
