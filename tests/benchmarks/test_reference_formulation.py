"""Our matching and consistency against the paper's formulation, rendered plainly."""

import msgspec
import numpy as np
import pytest

from heft_settings import HEFT_MATCHING
from moving_features import translated_maps, wave_field
from reference_formulation import (
    PublicFormulation,
    ReferenceFormulation,
    stretched,
    track_clip,
)
from vditrack.bundle.configuration import LiveTracking
from vditrack.coordinates import Grid
from vditrack.features.feature_map import FeatureMap
from vditrack.points.match_tracker import MatchTracker

FRAMES, GRID = 8, Grid(10, 14, 16)
SETTINGS = msgspec.structs.replace(HEFT_MATCHING, horizon=FRAMES - 1)


@pytest.mark.slow
def test_positions_and_visibility_equal_the_plain_formulation():
    rng = np.random.default_rng(5)
    offsets = np.cumsum(rng.normal(0, 6, (FRAMES, 2)), axis=0)
    field = wave_field(channels=48, seed=6, shortest=64)
    maps = translated_maps(field, offsets, GRID.rows, GRID.columns, GRID.stride)
    maps += rng.normal(0, 0.2, maps.shape).astype(np.float32)
    # Some frames show nothing of the field in a corner, so that points are lost there.
    maps[3:6, :5, :6] = rng.normal(0, 1, maps[3:6, :5, :6].shape)
    # Beyond the outermost cell centres a map is constant, so the best pixel there is a tie.
    inner = np.array([GRID.width, GRID.height]) - 2 * GRID.stride
    points = (rng.random((40, 2)) * inner + GRID.stride).astype(np.float32)

    trail, visible = ReferenceFormulation(maps, GRID.stride, SETTINGS).track(points)
    alive = MatchTracker(GRID, SETTINGS, LiveTracking())
    picture = np.zeros((GRID.height, GRID.width, 3), np.uint8)
    alive.advance(FeatureMap(GRID, maps[0]), picture)
    alive.add(np.arange(len(points)), points)
    positions, seen = [alive.points], [alive.visible]
    for descriptors in maps[1:]:
        alive.advance(FeatureMap(GRID, descriptors), picture)
        positions.append(alive.points)
        seen.append(alive.visible)

    distance = np.linalg.norm(np.stack(positions, axis=1) - trail, axis=2)
    assert (distance <= 0.5).mean() >= 0.99
    assert (np.stack(seen, axis=1) == visible).mean() >= 0.99
    assert 0.05 < 1 - visible.mean() < 0.6


def test_chunks_of_the_plain_formulation_carry_what_is_known():
    """One chunk is the formulation alone; a later one starts from the end of the one before."""
    rng = np.random.default_rng(7)
    field = wave_field(channels=16, seed=8, shortest=64)
    offsets = np.cumsum(rng.normal(0, 4, (FRAMES, 2)), axis=0)
    maps = translated_maps(field, offsets, GRID.rows, GRID.columns, GRID.stride)
    points = np.float32([[60, 50], [120, 90], [90, 70], [150, 60], [100, 110], [80, 90]])
    whole, seen = PublicFormulation(maps, GRID.stride, SETTINGS).track(points)
    queries = np.column_stack([np.zeros(6), points]).astype(np.float32)
    in_one, seen_in_one = track_clip([maps], GRID.stride, SETTINGS, queries)
    np.testing.assert_array_equal(in_one, whole)
    np.testing.assert_array_equal(seen_in_one, seen)

    # A point of the second chunk is one of its stretched maps, which begin with frame 3.
    queries[:, 0] = 5
    late, seen_late = track_clip([maps[:4], maps[4:]], GRID.stride, SETTINGS, queries)
    cut_off, _ = PublicFormulation(stretched(maps[4:])[2:], GRID.stride, SETTINGS).track(points)
    np.testing.assert_array_equal(late[:, 5:], cut_off)
    np.testing.assert_array_equal(late[:, :5], np.repeat(points[:, None], 5, axis=1))
    assert not seen_late[:, :5].any()


def test_stretched_maps_are_linear_in_time():
    """Three maps read at -0.125, 0.625, 1.375 and 2.125, clamped to 0 and 2."""
    maps = np.float32([[[[0]]], [[[10]]], [[[30]]]])
    np.testing.assert_allclose(stretched(maps).ravel(), [0, 6.25, 17.5, 30], rtol=1e-6)
