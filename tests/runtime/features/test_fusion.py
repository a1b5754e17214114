"""Fused features against the paper's formula, another interpolation, and the two parts alone."""

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from doubles.passthrough import write_passthrough
from doubles.propagating import PROPAGATION, write_propagating
from vditrack import InputError, Tracker
from vditrack.bundle.folder import Bundle, load_bundle
from vditrack.coordinates import Grid
from vditrack.features.clip_frames import ArrayFrames
from vditrack.features.extractor import FeatureExtractor
from vditrack.features.feature_map import FeatureMap
from vditrack.features.fusion import FusedFeatures, fuse
from vditrack.features.windows import causal_features, clip_features
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.selection import Backend


def a_map(seed: int, rows: int, columns: int, channels: int = 5) -> FeatureMap:
    descriptors = np.random.default_rng(seed).normal(size=(rows, columns, channels))
    return FeatureMap(Grid(rows, columns, 8), descriptors.astype(np.float32))


def weighted(bundle: Bundle, motion_weight: float, open_graph=open_session) -> FusedFeatures:
    settings = msgspec.structs.replace(PROPAGATION, motion_weight=motion_weight)
    return FusedFeatures(bundle, open_graph, settings)


def as_clip(frames: np.ndarray) -> ArrayFrames:
    return ArrayFrames(frames, np.arange(len(frames)) / 30)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Bundle:
    """Its motion is of windows of 9 frames on 8 x 12 cells, its appearance of one on 10 x 14."""
    folder = tmp_path_factory.mktemp("parts")
    motion = write_passthrough(folder / "motion", frames=9, cached=True, temporal_stride=4)
    single = write_passthrough(folder / "appearance", frames=1, rows=10, columns=14)
    return write_propagating(folder / "whole", motion=motion.root, appearance=single.root)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, (19, 60, 84, 3), np.uint8)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_products_are_weighted_cosines(weight):
    """Of λ x m beside (1 - λ) x a, of length 1 each: λ² cos m + (1 - λ)² cos a."""
    motion, appearance = a_map(0, 6, 9), a_map(1, 6, 9, channels=7)
    fused = fuse(motion, appearance, weight).reshape(54, -1)
    flat = [torch.from_numpy(part.descriptors).reshape(54, -1) for part in (motion, appearance)]
    of_motion, of_appearance = (
        torch.cosine_similarity(part[:, None], part[None], dim=2).numpy() for part in flat
    )
    expected = weight**2 * of_motion + (1 - weight) ** 2 * of_appearance
    np.testing.assert_allclose(fused @ fused.T, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(4, 5), (6, 9), (13, 8)])
def test_motion_is_resampled_to_the_grid_of_appearance(size):
    motion, appearance = a_map(2, *size), a_map(3, 6, 9)
    fused = fuse(motion, appearance, 1.0)
    planes = torch.from_numpy(motion.descriptors).permute(2, 0, 1)[None]
    there = torch.nn.functional.interpolate(planes, (6, 9), mode="bilinear", align_corners=False)
    expected = torch.nn.functional.normalize(there[0], dim=0).permute(1, 2, 0).numpy()
    np.testing.assert_allclose(fused, expected, atol=1e-5)


def test_a_cell_without_a_descriptor_stays_finite():
    nothing = FeatureMap(Grid(2, 3, 8), np.zeros((2, 3, 4), np.float32))
    assert not fuse(nothing, nothing, 0.5).any()


@pytest.mark.parametrize("count", [1, 2, 9, 10, 19])
def test_a_clip_has_the_features_of_both_parts_for_every_frame(bundle, frames, count):
    features = weighted(bundle, 0.4)
    assert (features.grid.rows, features.grid.columns) == (10, 14)
    fused = list(features.clip(as_clip(frames[:count])))
    assert len(fused) == count
    parts = (
        clip_features(FeatureExtractor(part), frames[:count])
        for part in (bundle.motion, bundle.appearance)
    )
    for found, motion, appearance in zip(fused, *parts, strict=True):
        np.testing.assert_array_equal(found.descriptors, fuse(motion, appearance, 0.4))


def test_a_window_is_causal(bundle, frames):
    window = weighted(bundle, 0.4).window()
    parts = (
        causal_features(FeatureExtractor(part), frames)
        for part in (bundle.motion, bundle.appearance)
    )
    motion = None
    for frame, moved, appearance in zip(frames, *parts, strict=True):
        # Motion has a map in every fourth frame; the newest stands in for it in the others.
        motion = moved or motion
        np.testing.assert_array_equal(window.push(frame).descriptors, fuse(motion, appearance, 0.4))


@pytest.mark.parametrize(("weight", "part"), [(0.0, "appearance"), (1.0, "motion")])
def test_a_part_without_weight_is_not_even_loaded(bundle, frames, weight, part):
    opened: list[Path] = []
    features = weighted(bundle, weight, lambda graph: opened.append(graph) or open_session(graph))
    assert not opened
    both = FeatureExtractor(bundle.motion), FeatureExtractor(bundle.appearance)
    for found, *maps in zip(
        features.clip(as_clip(frames[:5])),
        *(clip_features(one, frames[:5]) for one in both),
        strict=True,
    ):
        np.testing.assert_array_equal(found.descriptors, fuse(*maps, weight))
    window = features.window()
    for frame, *maps in zip(
        frames[:5], *(causal_features(one, frames[:5]) for one in both), strict=True
    ):
        found = window.push(frame)
        if maps[part == "appearance"] is None:
            assert found is None
            continue
        given = [one or FeatureMap(features.grid, np.zeros((10, 14, 3))) for one in maps]
        np.testing.assert_array_equal(found.descriptors, fuse(*given, weight))
    assert {graph.parent.name for graph in opened} == {part}


def test_points_alone_do_not_pay_for_masks(bundle, frames):
    opened: list[Path] = []
    backend = Backend("own", lambda graph: opened.append(graph) or open_session(graph))
    tracker = Tracker(bundle, backend)
    tracker.track(frames[:2], np.float32([[0, 30, 30]]))
    assert {graph.parent for graph in opened} == {bundle.root}


def test_graphs_within_a_bundle_are_found_by_a_loaded_tracker(bundle, frames):
    mask = np.zeros((60, 84), np.uint8)
    mask[20:40, 20:40] = 1
    own = Tracker(bundle).propagate(frames[:3], mask)
    for backend in ("auto", "cpu"):
        loaded = Tracker.load(bundle.root, backend).propagate(frames[:3], mask)
        np.testing.assert_array_equal(loaded, own)


def test_a_bundle_of_points_alone_is_refused_by_its_name(tmp_path):
    plain = write_propagating(tmp_path / "plain", settings=None)
    with pytest.raises(InputError, match=r"bundle tiny .*plain\) tracks points alone"):
        FusedFeatures(plain)
    with pytest.raises(InputError, match="exported with --masks"):
        Tracker(load_bundle(plain.root), propagation=PROPAGATION).mask_stream()
