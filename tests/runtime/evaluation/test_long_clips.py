"""Clips whose frames are read when they are needed have the results of clips in memory."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from doubles.datasets import write_image, write_mask
from doubles.passthrough import write_passthrough
from doubles.propagating import write_propagating
from vditrack import Tracker
from vditrack.errors import InputError
from vditrack.evaluation import lazy_images
from vditrack.evaluation.datasets.registry import open_dataset
from vditrack.evaluation.lazy_images import LazyImages, gather_masks
from vditrack.evaluation.protocols import Davis, Heft, TapVid
from vditrack.evaluation.run import BASELINES, TrackerMethod, evaluate
from vditrack.synthetic.layers.textures import draw_pattern

OURS = ("offline", "causal")
# The frames of a clip, and the methods.
CASES = {
    "256": (TapVid(), 8, ("klt", "still")),
    "full": (TapVid(size="full"), 8, (*OURS, *BASELINES)),
    "heft": (Heft(), 27, ("klt", "still")),
    "davis": (Davis(), 4, (*OURS, *BASELINES)),
}


def write_pan(folder, length):
    """A clip of a picture that moves by (2, 1) pixels a frame."""
    picture = draw_pattern(np.random.default_rng(1), 140, 180)
    for t in range(length):
        frame = picture[40 - t : 104 - t, 60 - 2 * t : 156 - 2 * t]
        write_image(folder / f"frames/{t}.png", frame)
        mask = np.zeros((64, 96), np.uint8)
        mask[10 + t : 30 + t, 10 + 2 * t : 40 + 2 * t] = 1
        write_mask(folder / f"masks/{t}.png", mask)
    points = np.array([[20, 20], [30, 12], [40, 30]])[:, None] + np.arange(length)[:, None] * (2, 1)
    occluded = ~((points >= 0) & (points < (96, 64))).all(axis=2)
    occluded[1, :4] = True
    fractions = (points / (96, 64)).astype(np.float32)
    np.savez(folder / "tracks.npz", points=fractions, occluded=occluded)


@pytest.fixture(scope="module")
def methods(tmp_path_factory):
    """Our tracker in both modes, and the baselines."""
    tracker = Tracker(write_propagating(tmp_path_factory.mktemp("bundles") / "both"))
    modes = {mode: TrackerMethod(tracker, mode) for mode in OURS}
    return modes | {name: kind() for name, kind in BASELINES.items()}


@pytest.mark.parametrize("name", CASES)
def test_results_do_not_depend_on_where_frames_are(tmp_path, methods, name, monkeypatch):
    protocol, length, chosen = CASES[name]
    write_pan(tmp_path / "pan", length)
    found, kinds = [], []
    for kept in (1 << 28, 0):
        monkeypatch.setattr(lazy_images, "_KEPT_BYTES", kept)
        (clip,) = open_dataset(str(tmp_path), protocol.name, protocol.side).clips
        kinds.append(type(clip.frames))
        of_methods = {method: methods[method] for method in chosen}
        found.append(evaluate([clip], of_methods, protocol, lambda *_: None))
    assert kinds == [np.ndarray, LazyImages]
    in_memory, read = ([asdict(replace(one, seconds=0)) for one in results] for results in found)
    np.testing.assert_equal(read, in_memory)
    headline = {one.method: one.metrics[protocol.metrics[0]] for one in found[0]}
    assert headline["klt"] > 55 > headline["still"]


def test_a_causal_tracker_uses_no_frames_ahead(tmp_path):
    tracker = Tracker(write_passthrough(tmp_path, frames=5, cached=True, temporal_stride=4))
    picture = np.random.default_rng(0).integers(0, 255, (64, 96, 3), np.uint8)
    frames = np.stack([np.roll(picture, 2 * t, axis=1) for t in range(9)])
    queries = np.array([[0, 30.5, 30.5], [0, 50.5, 20.5]], np.float32)
    for mode, same in (("causal", True), ("offline", False)):
        method = TrackerMethod(tracker, mode)
        whole, begun = (method.track(seen, queries) for seen in (frames, frames[:6]))
        assert np.array_equal(whole.points[:, :6], begun.points) == same


def test_a_damaged_frame_of_a_long_clip_is_found_when_it_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(lazy_images, "_KEPT_BYTES", 0)
    for t in range(3):
        image = np.zeros((8, 8 + t // 2, 3), np.uint8)
        write_image(tmp_path / f"videos/a/frames/{t}.png", image)
    tracks = {"points": np.zeros((1, 3, 2), np.float32), "occluded": np.zeros((1, 3), bool)}
    np.savez(tmp_path / "videos/a/tracks.npz", **tracks)
    (clip,) = open_dataset(str(tmp_path / "videos"), "tapvid").clips
    assert clip.frames[1].shape == (8, 8, 3)
    with pytest.raises(InputError, match=r"2\.png is 9 x 8, but the first of its clip is 8 x 8"):
        clip.frames[2]


def test_images_are_read_when_they_are_indexed():
    read = []

    def load(number):
        read.append(number)
        return np.full((2, 3), number, np.uint8)

    images = LazyImages(load, 10, (2, 3))
    part = images[2:9:3]
    assert (images.shape, part.shape, len(part)) == ((10, 2, 3), (3, 2, 3), 3)
    assert not read
    assert [int(image[0, 0]) for image in part] == [2, 5, 8]
    assert int(part[-1][0, 0]) == int(images[8][0, 0]) == 8
    # The latest images are not read again.
    assert read == [2, 5, 8]
    np.testing.assert_array_equal(np.asarray(part)[:, 0, 0], [2, 5, 8])
    with pytest.raises(IndexError):
        part[3]


def test_compressed_masks_are_the_same():
    masks = np.random.default_rng(0).integers(0, 256, (4, 5, 7), np.uint8)
    frames = LazyImages(lambda _: np.zeros((5, 7, 3), np.uint8), 4, (5, 7, 3))
    gathered = gather_masks(iter(masks), frames)
    assert isinstance(gathered, LazyImages)
    np.testing.assert_array_equal(gathered, masks)
