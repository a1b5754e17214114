"""Motion read of where appearance goes, against pictures whose motion is known."""

import msgspec
import numpy as np
import pytest

from doubles.propagating import DISPLACEMENT
from vditrack import Tracker
from vditrack.coordinates import Grid
from vditrack.evaluation.metrics.masks import mask_scores
from vditrack.features.cell_motion import MotionWindow, estimate_clip_motion, estimate_velocities
from vditrack.features.feature_map import FeatureMap
from vditrack.synthetic.layers.lookalikes import render_lookalikes

SETTINGS = msgspec.structs.replace(
    DISPLACEMENT, frames=2, temperature=0.02, deviation=1.0, slack=1.0
)
ROWS, COLUMNS, CHANNELS = 14, 18, 24


def unit(values: np.ndarray) -> np.ndarray:
    return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float32)


@pytest.fixture
def surface() -> np.ndarray:
    """Descriptors of a plane larger than the picture, no two cells of it alike."""
    values = np.random.default_rng(0).normal(size=(ROWS + 20, COLUMNS + 20, CHANNELS))
    return unit(values)


def seen(surface: np.ndarray, right: int, down: int) -> np.ndarray:
    """See the picture after the surface has moved by so many cells."""
    return surface[10 - down : 10 - down + ROWS, 10 - right : 10 - right + COLUMNS]


def feature_map(descriptors: np.ndarray) -> FeatureMap:
    return FeatureMap(Grid(ROWS, COLUMNS, 8), descriptors)


@pytest.mark.parametrize("velocity", [(0, 0), (1, 0), (-1, 1), (0, -2)])
@pytest.mark.parametrize("times", [(-1,), (1,), (-2, -1, 1, 2)])
def test_the_velocity_is_that_of_the_surface(surface, velocity, times):
    others = {t: seen(surface, velocity[0] * t, velocity[1] * t) for t in times}
    found = estimate_velocities(seen(surface, 0, 0), others, SETTINGS)
    # What leaves the picture is found nowhere.
    inner = found[4:-4, 4:-4]
    np.testing.assert_allclose(inner, np.broadcast_to(velocity, inner.shape), atol=1e-3)


def test_velocity_is_the_mean_over_all_places_of_one_softmax(surface):
    """The definition, cell by cell."""
    frame, others = seen(surface, 0, 0), {-1: seen(surface, 1, 0), 2: seen(surface, 1, -1)}
    found = estimate_velocities(frame, others, SETTINGS)
    for row, column in ((0, 0), (3, 17), (7, 9), (13, 5)):
        places, cosines = [], []
        for later, other in others.items():
            for i, j in np.ndindex(ROWS, COLUMNS):
                if np.hypot(i - row, j - column) <= SETTINGS.reach * abs(later):
                    places.append(((j - column) / later, (i - row) / later))
                    cosines.append(float(frame[row, column] @ other[i, j]))
        weights = np.exp(np.array(cosines) / SETTINGS.temperature)
        expected = weights @ np.array(places) / weights.sum()
        np.testing.assert_allclose(found[row, column], expected, atol=1e-4)


def test_velocities_have_a_gain(surface):
    others, half = {1: seen(surface, 1, 0)}, msgspec.structs.replace(SETTINGS, gain=0.5)
    whole = estimate_velocities(seen(surface, 0, 0), others, SETTINGS)
    np.testing.assert_allclose(
        estimate_velocities(seen(surface, 0, 0), others, half), whole / 2, atol=1e-6
    )


def test_a_frame_in_which_a_cell_is_covered_says_little(surface):
    rng = np.random.default_rng(1)
    covered = unit(rng.normal(size=(ROWS, COLUMNS, CHANNELS)))
    others = {-1: covered, 1: seen(surface, 1, 0)}
    found = estimate_velocities(seen(surface, 0, 0), others, SETTINGS)
    np.testing.assert_allclose(found[4:-4, 4:-4, 0], 1, atol=1e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 9])
def test_each_frame_of_a_clip_is_told_by_those_around_it(surface, count):
    maps = [feature_map(seen(surface, t % 3, 0)) for t in range(count)]
    moving = list(estimate_clip_motion(iter(maps), SETTINGS))
    assert [one.appearance for one in moving] == maps
    for t, one in enumerate(moving):
        around = {
            other - t: maps[other].descriptors
            for other in range(max(t - 2, 0), min(t + 3, count))
            if other != t
        }
        if around:
            velocity = estimate_velocities(maps[t].descriptors, around, SETTINGS)
            np.testing.assert_allclose(one.velocity, velocity, atol=1e-6)
        else:
            assert one.velocity is None


def test_a_stream_looks_back_alone(surface):
    window = MotionWindow(SETTINGS)
    maps = [feature_map(3 * seen(surface, t, 0)) for t in range(4)]
    first, *later = [window.push(image).velocity for image in maps]
    # What was seen once is neither at rest nor moving.
    assert first is None
    for velocity in later:
        inner = velocity[4:-4, 4:-4]
        np.testing.assert_allclose(inner, np.broadcast_to([1.0, 0.0], inner.shape), atol=1e-3)


@pytest.fixture(scope="module")
def crossing():
    """Objects that look the same and pass through one another."""
    return next(render_lookalikes(1))


@pytest.mark.slow
def test_a_stream_of_the_bundled_model_is_its_causal_clip(crossing):
    tracker, frames = Tracker.load(), crossing.frames[:4]
    expected = tracker.propagate(frames, crossing.masks[0], mode="causal")
    stream = tracker.mask_stream()
    for t, frame in enumerate(frames):
        update = stream.push(frame, t)
        if t == 0:
            stream.add_masks(crossing.masks[0])
        else:
            np.testing.assert_array_equal(update.mask, expected[t])


@pytest.mark.slow
def test_motion_tells_objects_apart_that_appearance_confuses(crossing):
    tracker = Tracker.load()
    alone = msgspec.structs.replace(tracker.propagation, motion_weight=0)
    both, appearance = (
        mask_scores(crossing.masks, one.propagate(crossing.frames, crossing.masks[0]))
        for one in (tracker, Tracker.load(propagation=alone))
    )
    assert both.region > appearance.region + 10
