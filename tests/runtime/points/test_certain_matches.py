"""Points that descriptors alone place, and the comparison of templates with a whole frame."""

import cv2
import msgspec
import numpy as np
import pytest

from doubles.manifest import MATCHING
from doubles.moving_texture import GRID, SETTINGS, places, texture
from vditrack.bundle.redetection import CertainMatches
from vditrack.features.feature_map import FeatureMap
from vditrack.points.descriptor_matching import compare_with_all, refine_best
from vditrack.points.flow_tracker import FlowTracker

CERTAIN = CertainMatches(min_distinction=0.02, min_margin=0.05)


def test_templates_are_compared_with_each_cell():
    """The plain form looks at one cell after the other."""
    rng = np.random.default_rng(3)
    target = FeatureMap(GRID, rng.normal(size=(GRID.rows, GRID.columns, 6)).astype(np.float32))
    templates = rng.normal(size=(5, 6)).astype(np.float32)
    points = np.float32([[4, 4], [100, 70], [188, 140], [60, 20], [12, 130]])
    found = compare_with_all(templates, target, points, 20.0)
    for row, template in enumerate(templates):
        cosines, centres = [], []
        for i in range(GRID.rows):
            for j in range(GRID.columns):
                cell = target.descriptors[i, j]
                lengths = np.linalg.norm(cell) * np.linalg.norm(template)
                cosines.append(cell @ template / lengths)
                centres.append(((j + 0.5) * 8, (i + 0.5) * 8))
        best = int(np.argmax(cosines))
        np.testing.assert_array_equal(found.best[row], centres[best])
        assert found.similarity[row] == pytest.approx(cosines[best], abs=1e-5)
        for centre, value in (
            (centres[best], found.similarity[row] - found.margin[row]),
            (points[row], found.rival[row]),
        ):
            far = np.linalg.norm(np.array(centres) - centre, axis=1) > 20
            assert value == pytest.approx(np.array(cosines)[far].max(), abs=1e-5)
    refined = refine_best(found, np.array([1, 3]), target, MATCHING)
    assert (np.linalg.norm(refined.points - found.best[[1, 3]], axis=1) < 3 * GRID.stride).all()


def tracked(frames, maps, point, *, certain):
    """Return the places and visibilities of one point of the first frame."""
    flow_tracking = msgspec.structs.replace(SETTINGS.flow_tracking, certain=certain)
    tracker = FlowTracker(GRID, SETTINGS, flow_tracking)
    found = []
    for number, (frame, features) in enumerate(zip(frames, maps, strict=True)):
        tracker.advance(features, frame)
        if number == 0:
            tracker.add(np.arange(1), np.float32([point]))
        found.append((tracker.points[0], bool(tracker.visible[0])))
    return found


def turned_away():
    """A surface that moves 40 pixels and changes its grey levels, and keeps its descriptors."""
    before = texture(places((0, 0)))
    after = cv2.GaussianBlur(255 - texture(places((40, 8))), (0, 0), 3)
    cells = np.random.default_rng(1).normal(size=(GRID.rows, GRID.columns, 32))
    cells = cv2.GaussianBlur(cells.astype(np.float32), (0, 0), 1)
    moved = np.roll(cells, (1, 5), axis=(0, 1))
    maps = [FeatureMap(GRID, each.copy()) for each in (cells, cells, moved)]
    return [before, before, after], maps


def test_a_descriptor_like_no_other_places_a_point_whose_patch_has_changed():
    frames, maps = turned_away()
    alone = tracked(frames, maps, (80, 70), certain=None)[-1]
    assert np.linalg.norm(alone[0] - (120, 78)) > 10
    place, _ = tracked(frames, maps, (80, 70), certain=CERTAIN)[-1]
    assert np.linalg.norm(place - (120, 78)) < 4


def test_a_match_that_was_there_before_is_that_of_a_rival():
    """The same descriptors were already there while the point was seen elsewhere."""
    frames, maps = turned_away()
    point = maps[0].sample(np.float32([[80, 70]]), 3.0)[0]
    i, j = (78 // 8), (120 // 8)
    for features in maps:
        features.descriptors[i - 1 : i + 2, j - 1 : j + 2] = point
    place, _ = tracked(frames, maps, (80, 70), certain=CERTAIN)[-1]
    assert np.linalg.norm(place - (120, 78)) > 10


def test_a_point_that_left_the_frame_is_not_found_in_it():
    """It leaves across an edge; its descriptor then appears far from there."""
    offsets = [(12 * t, 0) for t in range(7)]
    frames = [texture(places(offset)) for offset in offsets]
    cells = turned_away()[1][0].descriptors
    wide = np.concatenate([cells, -cells[:, ::-1]], axis=1)
    steps = [round(x / GRID.stride) for x, _ in offsets]
    shown = [wide[:, 20 - step : 20 - step + GRID.columns] for step in steps]
    maps = [FeatureMap(GRID, each.copy()) for each in shown]
    own = maps[0].sample(np.float32([[150, 70]]), 3.0)[0]
    maps[-1].descriptors[4, 4] = own
    found = tracked(frames, maps, (150, 70), certain=CERTAIN)
    assert [visible for _, visible in found[:3]] == [True] * 3
    place, visible = found[-1]
    assert not visible
    assert np.linalg.norm(place - (36, 36)) > 100
