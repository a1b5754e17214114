"""Listing of recordings, and what identifies them."""

import os
from pathlib import Path

import msgspec
import pytest

from vditrack.annotation.failures import SourceError
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source, list_sources
from vditrack.annotation.specification import Specification
from vditrack.annotation.units import identify
from vditrack.errors import InputError

SETTINGS = Settings("b" * 64, "cpu", Specification(grid=2))


def touch(*paths: Path):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def listed(*arguments, root: Path):
    return [source.path.relative_to(root).as_posix() for source in list_sources(arguments)]


def test_a_folder_is_searched_for_videos_bags_and_folders_of_images(tmp_path):
    touch(
        *(tmp_path / name for name in ("b.mp4", "a.MKV", "notes.txt", ".hidden.mp4", "cover.jpg")),
        *(tmp_path / f"frames/{n}.png" for n in range(2)),
        tmp_path / "one_picture/1.png",
        tmp_path / "bag/metadata.yaml",
        tmp_path / "bag/bag_0.mcap",
        tmp_path / "loose/recording.db3",
        tmp_path / "mine/job.json",
        tmp_path / "mine/c.mp4",
        tmp_path / "mine/thumbnails/d.mp4",
        tmp_path / "results/thumbnails/1.jpg",
        tmp_path / "results/thumbnails/2.jpg",
        tmp_path / "results/mcap/a.mcap",
    )
    (tmp_path / "frames/again").symlink_to(tmp_path)
    for folder in (tmp_path, tmp_path / "results"):
        (folder / "job.json").write_bytes(msgspec.json.encode(SETTINGS))
    folders = ["bag", "frames", "loose/recording.db3", "mine/c.mp4", "mine/thumbnails/d.mp4"]
    assert listed(str(tmp_path), root=tmp_path) == ["a.MKV", "b.mp4", *folders]
    (tmp_path / "frames/too").symlink_to(tmp_path / "frames")
    found = listed(str(tmp_path / "**"), root=tmp_path)
    assert found == ["a.MKV", "b.mp4", *folders]
    found = listed(str(tmp_path / "*"), root=tmp_path)
    assert found == ["a.MKV", "b.mp4", *folders]
    with pytest.raises(InputError, match="matches no video, bag"):
        list_sources([str(tmp_path / "n*")])


def test_folders_that_cannot_be_read_are_listed(tmp_path, monkeypatch):
    touch(tmp_path / "a/1.mp4", tmp_path / "closed/2.mp4")
    scan = os.scandir

    def refuse(path):
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    assert listed(str(tmp_path), root=tmp_path) == ["a/1.mp4", "closed"]
    assert listed(str(tmp_path / "**/*.mp4"), root=tmp_path) == ["a/1.mp4", "closed"]
    assert listed(str(tmp_path / "closed"), root=tmp_path) == ["closed"]


def test_patterns_and_repeated_arguments_give_each_recording_once_in_order(tmp_path):
    touch(tmp_path / "y/2.mp4", tmp_path / "x/1.mp4", tmp_path / "x/3.avi", tmp_path / ".z/4.mp4")
    pattern = str(tmp_path / "**/*.mp4")
    found = listed(str(tmp_path / "y/2.mp4"), pattern, pattern, root=tmp_path)
    assert found == ["y/2.mp4", "x/1.mp4"]
    # Links are followed, but not in a circle.
    (tmp_path / "y/link").symlink_to(tmp_path / "x")
    (tmp_path / "x/circle").symlink_to(tmp_path)
    (tmp_path / "x/again").symlink_to(tmp_path / "x")
    found = ["x/1.mp4", "y/2.mp4", "y/link/1.mp4"]
    assert listed(pattern, root=tmp_path) == found
    assert listed(str(tmp_path / "**/x/*.mp4"), root=tmp_path) == found[:1]
    assert listed(str(tmp_path / "**/.z/*"), root=tmp_path) == [".z/4.mp4"]


def test_manifests_list_paths_topics_and_ranges(tmp_path):
    (tmp_path / "m.txt").write_text("a.mp4\n\n# a note\n/data/b.mp4\n")
    (tmp_path / "m.csv").write_text("path, topic , start, end\na, /cam , 1.5,2\n\nb,,,\n")
    (tmp_path / "m.jsonl").write_text('{"path": "a", "end": 3}\n{"path": "b", "topic": "/cam"}\n')
    assert list_sources([str(tmp_path / "m.txt")]) == [
        Source(tmp_path / "a.mp4"),
        Source(Path("/data/b.mp4")),
    ]
    assert list_sources([str(tmp_path / "m.csv")]) == [
        Source(tmp_path / "a", "/cam", 1.5, 2.0),
        Source(tmp_path / "b"),
    ]
    assert list_sources([str(tmp_path / "m.jsonl")]) == [
        Source(tmp_path / "a", end=3.0),
        Source(tmp_path / "b", "/cam"),
    ]


def test_names_in_manifests_are_kept_as_they_are(tmp_path):
    names = [" a.mp4", "b\x85.mp4", "c\u2028.mp4", "d\udcff.mp4"]
    (tmp_path / "m.txt").write_bytes(os.fsencode("\r\n".join(names)))
    assert list_sources([str(tmp_path / "m.txt")]) == [Source(tmp_path / name) for name in names]
    names = ["e\n.mp4", " f.mp4"]
    (tmp_path / "m.csv").write_text("path\n" + "".join(f'"{name}"\n' for name in names))
    assert list_sources([str(tmp_path / "m.csv")]) == [Source(tmp_path / name) for name in names]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "file,start\na,1\n", "line 1: the header has no column path"),
        ("m.csv", "path,strat\na,1\n", "line 1: the header has the column 'strat'"),
        ("m.csv", "path,start\na,1,2\n", "line 2: it has 3 values for 2 columns"),
        ("m.csv", "path,path\na,b\n", "line 1: the header has the column 'path'"),
        ("m.jsonl", '{"path": "a", "strat": 1}\n', "line 1: Object contains unknown field `strat`"),
        ("m.txt", "a\0b\n", "is not a path"),
        ("m.csv", "path,start\na,soon\n", "line 2: Expected `float`"),
        ("m.csv", "path,start,end\na,2,1\n", "line 2: 2 s to 1 s is not a time range"),
        ("m.jsonl", '{"path": "a"}\n{"start": 1}\n', "line 2: Object missing required field"),
        ("m.txt", "# nothing\n", "lists no recording"),
        ("*.mp4", None, "no file matches"),
        (".", None, "has no video, bag, data set or folder of images"),
    ],
)
def test_what_lists_nothing_is_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        list_sources([str(tmp_path / name)])


def test_the_identity_is_of_the_content_and_the_topics(tmp_path):
    touch(tmp_path / "a.mp4", tmp_path / "b.mp4", tmp_path / "c.mp4")
    (tmp_path / "c.mp4").write_bytes(b"other")
    a, b, c = (identify(Source(tmp_path / f"{x}.mp4"), print) for x in "abc")
    assert a.sha256 == b.sha256 != c.sha256
    assert a.status != b.status
    assert a.topics == (None,)


def test_a_file_that_grows_or_is_special_is_refused(tmp_path):
    growing = tmp_path / "growing.mp4"
    growing.write_bytes(bytes(1000))

    def grow(*_):
        with growing.open("ab") as file:
            file.write(bytes(1000))

    for path, kind, progress in (
        (growing, "changed", grow),
        (tmp_path / "absent.mp4", "absent", print),
        (tmp_path / "fifo.mp4", "refused", print),
    ):
        if path.name.startswith("fifo"):
            os.mkfifo(path)
        with pytest.raises(SourceError) as caught:
            identify(Source(path), progress)
        assert caught.value.kind == kind
