"""The verb annotate on good and bad recordings, interrupted and run again."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import msgspec
import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest

from doubles.bags import images, write_bag
from doubles.video_files import moving_texture, write_video_file
from vditrack.annotation.failures import Failure, JobError
from vditrack.annotation.folders import LocalFolder
from vditrack.annotation.handling import Model, UnitHandler, digest_manifest
from vditrack.annotation.job import Job, run_job
from vditrack.annotation.job_tables import read_failed, write_failed
from vditrack.annotation.results import open_results
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import identify, list_units
from vditrack.annotation.worker_pool import Outcome
from vditrack.atomic_files.locks import locked_folder
from vditrack.bundle.folder import bundled_model
from vditrack.errors import InputError, VditrackError

CLIPS = ("0.mp4", "1.mp4", "2\udcff.mp4")
"""Names of videos; the last is not UTF-8."""
POINTS = ("--grid", 3, "--workers", 1, "--backend", "cpu")


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Three videos that differ."""
    folder = tmp_path_factory.mktemp("clips")
    frames = moving_texture(6)
    for n, name in enumerate(CLIPS):
        write_video_file(folder / "new.mp4", frames[n : n + 4])
        (folder / "new.mp4").rename(folder / name)
    return folder


@pytest.fixture(scope="module")
def mixture(clips, tmp_path_factory) -> Path:
    """A folder of good and bad recordings, with a manifest of all."""
    root = tmp_path_factory.mktemp("mixture")
    frames = moving_texture(2)
    video = (clips / "0.mp4").read_bytes()
    (root / "copy.mp4").write_bytes(video)
    (root / "cut.mp4").write_bytes(video[: len(video) // 2])
    (root / "empty.mp4").touch()
    (root / "text.mp4").write_text("this is no video")
    os.mkfifo(root / "fifo.mp4")
    (root / "frames").mkdir()
    for n, frame in enumerate(frames):
        _, png = cv2.imencode(".png", frame)
        (root / f"frames/{n}\udcff.png").write_bytes(png)
    write_bag(root / "bag", images(count=2), images("/right/image", count=2))
    (root / "broken_bag").mkdir()
    (root / "broken_bag/metadata.yaml").write_text("rosbag2_bagfile_information: 5")
    with av.open(str(root / "sound.mkv"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        silence = np.zeros((1, 800), np.int16)
        sound = av.AudioFrame.from_ndarray(silence, format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    names = ["absent.mp4", "fifo.mp4", "frames", "bag", "broken_bag", "sound.mkv"]
    names += ["copy.mp4", "cut.mp4", "empty.mp4", "text.mp4"]
    rows = [f"{name},,\n" for name in names] + ["copy.mp4,0.08,\n", "copy.mp4,60,\n"]
    (root / "all.csv").write_text("path,start,end\n" + "".join(rows))
    return root


def read_results(folder: Path) -> dict[str, bytes]:
    """The results that do not depend on the time of a run."""
    patterns = ("tracks/[!.]*", "thumbnails/[!.]*", "*.parquet")
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def job(clips, mixture, tmp_path_factory, spawn_vditrack):
    """A job that is done: its command, its folder and what it printed."""
    output = tmp_path_factory.mktemp("job") / "out"
    command = ("annotate", clips, mixture / "all.csv", "-o", output, *POINTS, "--json")
    return command, output, spawn_vditrack(*command)


def test_bad_recordings_are_listed_with_reasons_and_the_others_are_done(job):
    _, output, done = job
    assert done.returncode == 3, done.stderr
    summary = json.loads(done.stdout)
    failed = pq.read_table(output / "failed.parquet").to_pylist()
    found = [(Path(row["source"]).name, row["kind"], row["attempts"]) for row in failed]
    assert found == [
        ("absent.mp4", "absent", 2),
        ("fifo.mp4", "refused", 2),
        ("broken_bag", "refused", 2),
        ("sound.mkv", "refused", 2),
        ("cut.mp4", "refused", 2),
        ("empty.mp4", "refused", 2),
        ("text.mp4", "refused", 2),
        ("copy.mp4", "refused", 2),
    ]
    reasons = [row["reason"] for row in failed]
    parts = ("there is no", "it is a FIFO", "cannot be read as a rosbag2", "no video stream")
    for part, reason in zip((*parts, "", "no video", "no video", "60 s"), reasons, strict=True):
        assert part in reason
    recordings = pq.read_table(output / "recordings.parquet").to_pylist()
    names = [(Path(row["source"]).name, row["topic"], row["start"]) for row in recordings]
    assert names == [
        *((name.replace("\udcff", "\\udcff"), None, 0) for name in CLIPS),
        ("frames", None, 0),
        ("bag", "/cam/image_raw", 0),
        ("bag", "/right/image", 0),
        ("copy.mp4", None, 0),
        ("copy.mp4", None, 0.08),
    ]
    # The same content is annotated once.
    assert recordings[0]["file"] == recordings[6]["file"]
    assert summary["throughput"]["annotated"] == len(set(row["file"] for row in recordings)) == 7
    assert (summary["done"], summary["failed"], summary["recordings"]) == (8, 8, 16)
    assert summary["failures"] == {"absent": 1, "refused": 7}
    rows = pq.read_table(output / recordings[0]["file"], columns=["visible"])
    assert rows.num_rows == 9 * 4
    page = (output / "report.html").read_text()
    assert all(Path(row["source"]).name in page for row in failed)
    assert page.count("data:image/jpeg;base64,") == 16
    assert "by 1 worker<" in page


def test_the_same_command_does_only_what_is_missing(job, run_vditrack, clips):
    command, output, _ = job
    before = read_results(output)
    (damaged,) = output.glob("tracks/1-*")
    damaged.write_bytes(damaged.read_bytes()[:100])
    again = run_vditrack(*command)
    assert again.returncode == 3
    assert json.loads(again.stdout)["throughput"]["annotated"] == 1
    assert read_results(output) == before
    other = run_vditrack("annotate", clips, "-o", output, "--grid", 4, "--backend", "cpu")
    assert other.returncode == 2
    assert "results of other settings (specification" in other.stderr


def test_a_run_with_other_sources_keeps_the_rows_of_the_earlier_ones(
    job, clips, tmp_path, run_vditrack
):
    shutil.copytree(job[1], tmp_path / "out")
    table, failed = (tmp_path / f"out/{name}.parquet" for name in ("recordings", "failed"))
    rows, failures = pq.read_table(table).to_pylist(), read_failed(failed)
    # This video was damaged before.
    mended = msgspec.structs.replace(failures[0], id="0" * 32, source=str(clips / "1.mp4"))
    write_failed(failed, [*failures, mended])
    command = ("annotate", clips / "1.mp4", "-o", tmp_path / "out", *POINTS, "--json")
    done = run_vditrack(*command)
    assert done.returncode == 0
    assert json.loads(done.stdout)["recordings"] == 1
    first = rows.pop(1)
    assert pq.read_table(table).to_pylist() == [first, *rows]
    assert read_failed(failed) == failures
    # Without its row, a recording is listed by its file.
    table.unlink()
    run_vditrack(*command)
    names = {row["file"] for row in pq.read_table(table).to_pylist()}
    assert names == {row["file"] for row in (first, *rows)}


def test_formats_are_added_without_tracking_again(job, clips, tmp_path, run_vditrack):
    output = tmp_path / "out"
    shutil.copytree(job[1], output)
    (output / "hdf5/.vditrack-1").mkdir(parents=True)
    before = read_results(output)
    # A recording that was renamed keeps its files.
    shutil.copy(clips / "0.mp4", tmp_path / "renamed.mp4")
    formats = ("--format", "hdf5", "--format", "mcap")
    command = ("annotate", tmp_path / "renamed.mp4", "-o", output, *POINTS, *formats)
    added = run_vditrack(*command)
    assert "annotated 0 recordings" in added.stdout
    assert f"hdf5:    {output / 'hdf5'}" in added.stdout
    (tracks,) = output.glob("tracks/0-*")
    names = {f"hdf5/{tracks.stem}.hdf5", f"mcap/{tracks.stem}.mcap"}
    found = [path for one in ("hdf5", "mcap", "rerun") for path in output.glob(f"{one}/*")]
    assert {str(path.relative_to(output)) for path in found} == names
    after = read_results(output)
    assert all(after[name] == before[name] for name in before if "/" in name)
    stamps = [path.stat().st_mtime_ns for path in found]
    run_vditrack(*command)
    assert [path.stat().st_mtime_ns for path in found] == stamps


def start(*arguments) -> subprocess.Popen[str]:
    command = [str(Path(sys.executable).with_name("vditrack")), *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_for(condition) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def list_workers(job: subprocess.Popen[str]) -> list[psutil.Process]:
    children = psutil.Process(job.pid).children()
    children = [one for one in children if one.status() != psutil.STATUS_ZOMBIE]
    return [one for one in children if "resource_tracker" not in " ".join(one.cmdline())]


def test_a_worker_and_the_job_are_killed_and_the_rest_is_done_later(
    clips, job, tmp_path, run_vditrack
):
    output = tmp_path / "out"
    command = ("annotate", clips, "-o", output, *POINTS)
    killed = start(*command)
    wait_for(lambda: list(output.glob("tracks/0-*")))
    (worker,) = list_workers(killed)
    worker.kill()
    # The next one has to load the model first.
    wait_for(lambda: [one for one in list_workers(killed) if one != worker])
    workers = list_workers(killed)
    killed.kill()
    killed.communicate()
    _, alive = psutil.wait_procs(workers, 30)
    assert not alive
    kept = read_results(output)
    count = len(list(output.glob("tracks/*.parquet")))
    assert 0 < count < 3
    done = run_vditrack(*command, "--json")
    assert done.returncode == 0
    summary = json.loads(done.stdout)
    assert (summary["done"], summary["throughput"]["annotated"]) == (3, 3 - count)
    results = read_results(output)
    assert kept.items() <= results.items()
    undisturbed = read_results(job[1])
    tracks = [name for name in results if name.startswith("tracks/")]
    assert len(tracks) == 3
    assert all(results[name] == undisturbed[name] for name in tracks)
    assert not list(output.rglob(".vditrack-*"))


def test_a_job_that_is_stopped_says_what_is_left(clips, tmp_path):
    output = tmp_path / "out"
    stopped = start("annotate", clips, "-o", output, *POINTS)
    wait_for(lambda: list_workers(stopped))
    stopped.send_signal(signal.SIGTERM)
    _, errors = stopped.communicate()
    assert stopped.returncode == 143
    assert "stopped by SIGTERM" in errors
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["complete"], summary["unfinished"]) == (False, 3)
    assert not list(output.rglob(".vditrack-*"))


def test_a_result_that_cannot_be_written_ends_the_job(clips, tmp_path):
    settings = Settings(digest_manifest(bundled_model()), "cpu", Specification(grid=2))
    (tmp_path / "tracks").touch()
    handle = UnitHandler(Model(None, "cpu", 1), settings, LocalFolder(tmp_path))
    source = Source(clips / CLIPS[0])
    (unit,) = list_units(source, handle(source, print), settings)
    with pytest.raises(JobError, match=r"no result can be written in .*tracks is a file"):
        handle(unit, print)


def test_other_verbs_do_not_write_in_the_folder_meanwhile(tmp_path):
    root, settings = tmp_path / "out", Settings("b" * 64, "cpu", Specification(grid=2))
    refused = pytest.raises(InputError, match="another run writes in")
    with open_results(LocalFolder(root), settings), refused, locked_folder(root, root):
        pass
    with locked_folder(root, root), refused, open_results(LocalFolder(root), settings):
        pass


def test_results_that_other_machines_keep_to_themselves_end_the_job(clips, tmp_path):
    settings = Settings("b" * 64, "cpu", Specification(grid=2))

    class Elsewhere:
        """Workers of another machine, whose folder of results is their own."""

        workers, replaced = 1, 0

        def __init__(self, _open_handler):
            self.tasks = []

        def submit(self, task, **_):
            self.tasks.append(task)

        def outcomes(self):
            while self.tasks:
                task = self.tasks.pop()
                annotated = SimpleNamespace(tracked=True)
                done = identify(task, print) if isinstance(task, Source) else annotated
                yield Outcome(task, done, None)

        def close(self):
            pass

    source = Source(clips / CLIPS[0])
    # What cannot be written afterwards does not hide the reason.
    (tmp_path / "out/.sources.json/a").mkdir(parents=True)
    job = Job(
        [source], LocalFolder(tmp_path / "out"), Model(None, "cpu", 1), settings, Elsewhere, 1
    )
    with pytest.raises(VditrackError, match="that all machines of the cluster share"):
        run_job(job, print)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    assert (summary["done"], summary["unfinished"]) == (0, 1)


def test_tracks_whose_worker_was_lost_before_it_said_so_are_done(clips, tmp_path):
    settings = Settings(digest_manifest(bundled_model()), "cpu", Specification(grid=2))
    written = []

    class Forgetful:
        """A worker that runs each unit twice, as after a loss."""

        workers, replaced = 1, 0

        def __init__(self, open_handler):
            self.handle, self.tasks = open_handler(), []

        def submit(self, task, **_):
            self.tasks.append(task)

        def outcomes(self):
            while self.tasks:
                task = self.tasks.pop()
                first = self.handle(task, print_nothing)
                second = self.handle(task, print_nothing)
                written.append((first, second))
                yield Outcome(task, second, None)

        def close(self):
            pass

    def print_nothing(*_):
        pass

    output = tmp_path / "out"
    job = Job(
        [Source(clips / CLIPS[0])],
        LocalFolder(output),
        Model(None, "cpu", 1),
        settings,
        Forgetful,
        1,
    )
    summary = run_job(job, print_nothing)
    assert [second.tracked for _, second in written[1:]] == [False]
    assert (summary.done, summary.throughput.annotated) == (1, 1)
    assert pq.read_table(output / "recordings.parquet").num_rows == 1


@pytest.mark.parametrize("interrupted", [True, False])
def test_tracks_are_listed_though_a_format_of_them_is_not_written(interrupted, clips, tmp_path):
    settings = Settings(digest_manifest(bundled_model()), "cpu", Specification(grid=2))
    output, tried = tmp_path / "out", []

    class Failing:
        """A worker that ends, or ends the job, where a format cannot be written."""

        workers, replaced = 1, 0

        def __init__(self, open_handler):
            self.handle, self.tasks = open_handler(), []

        def submit(self, task, **_):
            self.tasks.append(task)

        def outcomes(self):
            while self.tasks:
                task = self.tasks.pop()
                tried.append(task)
                try:
                    yield Outcome(task, self.handle(task, lambda *_: None), None)
                except JobError as error:
                    if interrupted:
                        raise VditrackError(str(error)) from error
                    yield Outcome(task, None, Failure("crash", "the worker ended."))

        def close(self):
            pass

    def run(*formats, retry_failed=False):
        tried.clear()
        model, sources = Model(None, "cpu", 1), [Source(clips / CLIPS[0])]
        job = Job(sources, LocalFolder(output), model, settings, Failing, 0, retry_failed, formats)
        with suppress(VditrackError):
            run_job(job, lambda *_: None)
        summary = json.loads((output / "summary.json").read_text())
        failed = [(one.kind, one.formats) for one in read_failed(output / "failed.parquet")]
        units = sum(not isinstance(task, Source) for task in tried)
        assert pq.read_table(output / "recordings.parquet").num_rows == 1
        assert (output / "report.html").read_text().count("data:image/jpeg;base64,") == 2
        assert (summary["recordings"], summary["done"]) == (1, 1)
        assert summary["failed"] == len(failed)
        return failed, summary["complete"], summary["unfinished"], units

    run()
    (tracks,) = output.glob("tracks/*")
    tracks.unlink()
    (output / "hdf5").touch()
    lost = ([], False, 1, 1) if interrupted else ([("crash", ("hdf5",))], True, 0, 1)
    # The tracks are written by this run, then they are those of an earlier one.
    assert run("hdf5") == lost
    (output / "failed.parquet").unlink()
    assert run("hdf5") == lost
    # What failed is not tried again, but another format is.
    assert run("hdf5") == (lost if interrupted else (*lost[:3], 0))
    assert run("mcap") == ([], True, 0, 1)
    (output / "hdf5").unlink()
    assert run("hdf5", retry_failed=True) == ([], True, 0, 1)
    assert run() == ([], True, 0, 0)


def test_a_worker_with_another_bundle_ends_the_job():
    with pytest.raises(JobError, match="is another bundle than where the job was started"):
        Model(None, "cpu", 1).load("b" * 64)


def test_a_recording_is_not_the_folder_of_its_results(mixture, assert_refused):
    folder = mixture / "frames"
    message = "the results would become part of it"
    assert_refused("annotate", folder, "-o", folder, *POINTS, message=message, cwd=folder)
    assert sorted(path.name for path in folder.iterdir()) == ["0\udcff.png", "1\udcff.png"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.mp4", "--grid", 3], "there is no absent.mp4, nor any other"),
        (["*.mp4", "--grid", 3], "no file matches"),
        ([".", "--grid", 3], "has no video, bag, data set or folder of images"),
        (["."], "exactly one of --grid N"),
        ([".", "--grid", 3, "--bundle", "absent"], "has no video"),
        ([".", "--grid", 3, "--format", "csv"], "no format csv. Choose from hdf5, mcap, rerun"),
        ([".", "--grid", 3, "--num-gpus", 1], "need --engine ray"),
    ],
)
def test_wrong_use_is_refused(arguments, message, tmp_path, assert_refused):
    assert_refused("annotate", *arguments, "-o", "out", message=message, cwd=tmp_path)
