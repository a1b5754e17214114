"""Opening a data set by its name, and protocols that fit it."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest

from doubles.datasets import tapvid_clip, write_badja, write_davis, write_pickle, write_videos
from vditrack import InputError
from vditrack.evaluation.datasets.registry import default_protocol, open_dataset
from vditrack.synthetic.layers.lookalikes import render_lookalikes

REAL = Path(__file__).parents[5] / "shared/data/davis32_dev"


def test_a_relative_folder_has_a_name(tmp_path, monkeypatch):
    write_videos(tmp_path / "own")
    monkeypatch.chdir(tmp_path / "own")
    assert open_dataset(".", "tapvid").name == "own"


@pytest.mark.parametrize(
    ("make", "protocol", "advice"),
    [
        (lambda root: write_pickle(root / "a.pkl", [tapvid_clip()]), "davis", "tapvid or heft"),
        (lambda root: write_davis(root, ["goat"]), "tapvid", "davis"),
        (write_badja, "tapvid", "badja"),
        (write_badja, "davis", "badja"),
    ],
)
def test_the_protocol_has_to_fit(tmp_path, make, protocol, advice):
    make(tmp_path)
    with pytest.raises(InputError, match=f"cannot use. Use --protocol {advice}"):
        open_dataset(str(tmp_path), protocol)


@pytest.mark.parametrize("made", ["", "a/notes", ".hidden/frames"])
def test_a_folder_of_nothing(tmp_path, made):
    (tmp_path / made).mkdir(parents=True, exist_ok=True)
    with pytest.raises(InputError, match="contains no known data"):
        open_dataset(str(tmp_path), "tapvid")


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"absent does not exist"):
        open_dataset(str(tmp_path / "absent"), "tapvid")


@pytest.mark.parametrize(
    ("kind", "module", "function"),
    [
        ("synthetic", "layers.suite", "render_suite"),
        ("deformed", "layers.deformed", "render_deformed"),
        ("leaving", "layers.leaving", "render_leaving"),
        ("long", "layers.long_clips", "render_long"),
        ("tabletop", "tabletop.clips", "render_tabletop"),
    ],
)
def test_rendered_clips(monkeypatch, kind, module, function):
    """The renderers get the seed. They are tested elsewhere."""
    fake = types.SimpleNamespace(COUNT=3, **{function: lambda seed: iter([seed])})
    monkeypatch.setitem(sys.modules, f"vditrack.synthetic.{module}", fake)
    monkeypatch.setattr(f"vditrack.synthetic.{module}", fake, raising=False)
    dataset = open_dataset(f"{kind}:17", "tapvid")
    assert (dataset.name, dataset.length, list(dataset.clips)) == (f"{kind}:17", 3, [17])


@pytest.mark.parametrize("source", ["synthetic:", "synthetic:x", "synthetic:-1", "tabletop:1.5"])
def test_seeds_are_whole_numbers(source):
    with pytest.raises(InputError, match="is not a seed"):
        open_dataset(source, "tapvid")


@pytest.mark.parametrize("kind", ["lookalikes", "different"])
def test_rendered_masks(kind):
    dataset = open_dataset(f"{kind}:3", "davis")
    assert (dataset.name, dataset.length) == (f"{kind}:3", 30)
    expected = next(render_lookalikes(3, different=kind == "different"))
    np.testing.assert_array_equal(next(dataset.clips).frames, expected.frames)
    assert default_protocol(f"{kind}:3") == "davis"
    with pytest.raises(InputError, match="is not a seed"):
        open_dataset(f"{kind}:x", "davis")
    with pytest.raises(InputError, match=f"{kind}:3 is masks without tracks.*--protocol davis"):
        open_dataset(f"{kind}:3", "badja")


@pytest.mark.parametrize("kind", ["deformed", "leaving", "long"])
@pytest.mark.parametrize("protocol", ["davis", "badja"])
def test_clips_without_masks(kind, protocol):
    with pytest.raises(InputError, match=r"tracks without masks.*--protocol tapvid or heft"):
        open_dataset(f"{kind}:1", protocol)


@pytest.mark.parametrize(
    "source",
    ["synthetic:0", "deformed:0", "leaving:0", "long:0", "tabletop:0", "lookalikes", "a/davis"],
)
def test_others_are_for_points(source):
    assert default_protocol(source) == "tapvid"


@pytest.mark.skipif(not REAL.is_dir(), reason="the data are not here")
@pytest.mark.parametrize("protocol", ["tapvid", "davis"])
def test_real_clips(protocol):
    dataset = open_dataset(str(REAL), protocol)
    assert dataset.length == 15
    clip = next(dataset.clips)
    assert clip.name == "bike-packing"
    assert clip.frames.shape == (32, 480, 910, 3)
    if protocol == "davis":
        assert np.unique(clip.masks[0]).tolist() == [0, 1, 2]
        return
    seen = clip.points[clip.visible]
    assert len(seen) > 100
    assert (seen >= 0).all()
    assert (seen <= (910, 480)).all()
