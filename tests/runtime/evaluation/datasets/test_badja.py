"""BADJA: joints and masks of animals."""

import itertools
import json

import numpy as np
import pytest

from doubles.datasets import put, remove, write_badja
from vditrack import InputError
from vditrack.evaluation.datasets.registry import open_dataset

JOINTS = [8, 9, 10, 12, 13, 14, 15, 18, 19, 20, 22, 23, 24, 25, 28, 31, 32, 33, 35, 36]


@pytest.mark.parametrize("extra", [False, True])
def test_badja(tmp_path, extra):
    write_badja(tmp_path, extra=extra, annotated=(1, 3, 5))
    dataset = open_dataset(str(tmp_path), "badja")
    assert dataset.length == 1
    clip = next(dataset.clips)
    assert clip.name == "bear"
    assert clip.frames.shape == (5, 6, 8, 3)
    np.testing.assert_allclose(clip.frames.mean(axis=(1, 2, 3)), [20, 40, 60, 80, 100], atol=1)
    assert clip.points.shape == (20, 5, 2)
    assert not clip.visible[:, [1, 3]].any()
    assert not clip.masks[[1, 3]].any()
    for t, n in itertools.product((0, 2, 4), range(20)):
        joint = JOINTS[n]
        x, y = joint / 8, joint / 10 + t + 1
        np.testing.assert_allclose(clip.points[n, t], [x, y], rtol=1e-6)
        assert clip.visible[n, t] == (joint % 3 > 0 and x < 8 and y < 6)
        # Red in the palette of DAVIS: objects 1 and 3.
        np.testing.assert_array_equal(clip.masks[t], np.arange(48).reshape(6, 8) % 2)
    assert clip.visible[:, 0].sum() > 8
    assert not clip.visible[JOINTS.index(31), 2]


def test_badja_leaves_out_extra_videos_that_are_not_there(tmp_path):
    write_badja(tmp_path, "bear")
    write_badja(tmp_path, "rs_dog", extra=True)
    write_badja(tmp_path, "tiger", extra=True)
    (tmp_path / "extra_videos/tiger").rename(tmp_path / "elsewhere")
    dataset = open_dataset(str(tmp_path), "badja")
    assert dataset.length == 2
    assert [clip.name for clip in dataset.clips] == ["bear", "rs_dog"]


def test_badja_needs_davis(tmp_path):
    write_badja(tmp_path, "bear")
    (tmp_path / "DAVIS").rename(tmp_path / "elsewhere")
    with pytest.raises(
        InputError, match=r"bear does not exist\. Unpack DAVIS-2017 .* into .*DAVIS"
    ):
        open_dataset(str(tmp_path), "badja")


def edited(**changes):
    def edit(root):
        path = root / "joint_annotations/bear.json"
        rows = json.loads(path.read_text())
        rows[1] |= changes
        path.write_text(json.dumps(rows))

    return edit


FULL = "Full-Resolution/bear"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (put("joint_annotations/bear.json", b"{}"), r"bear\.json is not an annotation file"),
        (put("joint_annotations/bear.json", b"[]"), r"bear\.json annotates no frame"),
        (put("joint_annotations/bear.json", b"\xff"), r"bear\.json is not an annotation file"),
        (edited(joints=[[0, 0]]), r"00005\.jpg: 1 joints and 37"),
        (edited(joints=[[0]] * 37), r"bear\.json is not an annotation file"),
        (edited(visibility=[True]), "37 joints and 1 "),
        (edited(image_path="DAVIS/first.jpg"), "not named after its frame number"),
        (edited(image_path="/etc/00005.jpg"), "outside the data set"),
        (edited(segmentation_path="../00005.png"), "outside the data set"),
        (remove(f"DAVIS/JPEGImages/{FULL}/00005.jpg"), r"JPEGImages.*00005\.jpg does not exist"),
        (remove(f"DAVIS/Annotations/{FULL}/00005.png"), r"Annotations.*00005\.png does not exist"),
        (put(f"DAVIS/Annotations/{FULL}/00005.png", b"x"), r"00005\.png is not a JPEG or PNG"),
        (remove("joint_annotations/bear.json"), "contains no annotations"),
    ],
)
def test_badja_that_is_damaged(tmp_path, damage, message):
    write_badja(tmp_path)
    damage(tmp_path)
    with pytest.raises(InputError, match=message):
        list(open_dataset(str(tmp_path), "badja").clips)
