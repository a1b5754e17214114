"""Sums over paths, compared with those over every path one by one."""

import itertools

import numpy as np
import pytest

from vditrack.bundle.path_choice import PathChoice
from vditrack.points.path_choice import PathEvidence, Potentials, choose, sum_paths, weigh

ZERO = PathChoice(**dict.fromkeys(PathChoice.__struct_fields__, 0.0))


def list_paths(potentials: Potentials) -> list[tuple[tuple[int, ...], float]]:
    """Return all paths of the one point, and the logarithm of their weights."""
    states, steps, first = potentials.states[0], potentials.steps[0], int(potentials.first[0])
    frames, number = states.shape
    paths = []
    for path in itertools.product(range(number), repeat=frames - first):
        at = list(enumerate(path, first))
        total = sum(states[frame, state] for frame, state in at)
        total += sum(steps[t, a, b] for (t, a), (_, b) in itertools.pairwise(at))
        paths.append((path, float(total)))
    return paths


@pytest.mark.parametrize("first", [0, 2])
def test_probabilities_are_the_sums_over_all_paths(first):
    rng = np.random.default_rng(first)
    states, steps = rng.normal(size=(1, 5, 4)), rng.normal(size=(1, 4, 4, 4))
    potentials = Potentials(states, steps, np.array([first]))
    paths = list_paths(potentials)
    weights = np.exp([total for _, total in paths])
    found = sum_paths(potentials)
    assert found.log_sum[0] == pytest.approx(np.log(weights.sum()))
    of_states, of_steps = np.zeros((5, 4)), np.zeros((4, 4, 4))
    for (path, _), weight in zip(paths, weights / weights.sum(), strict=True):
        for frame, state in enumerate(path, first):
            of_states[frame, state] += weight
        for frame, step in enumerate(itertools.pairwise(path), first):
            of_steps[(frame, *step)] += weight
    np.testing.assert_allclose(found.states[0], of_states, atol=1e-12)
    np.testing.assert_allclose(found.steps[0], of_steps, atol=1e-12)


def evidence(similarity, distance, *, usable=None) -> PathEvidence:
    """Evidence for one point that was queried at its first place in frame 0.

    Args:
        similarity: [T, S] of the places, which are 20 pixels apart.
        distance: [T - 1, S, S] of each place from where flow leads.
        usable: [T, S], by default all.

    """
    similarity, distance = np.array(similarity, np.float32), np.array(distance, np.float32)
    frames, number = similarity.shape
    places = np.zeros((1, frames, number, 2), np.float32)
    places[0, :, :, 0] = 10 + 20 * np.arange(number)
    of_places = np.zeros((1, frames, number, 8), np.float32)
    of_places[0, :, :, 0] = similarity
    of_steps = np.zeros((1, frames - 1, number, number, 4), np.float32)
    of_steps[0, ..., 2] = np.log1p(distance)
    all_usable = np.ones((1, frames, number), np.bool_)
    return PathEvidence(
        places,
        all_usable if usable is None else np.array(usable)[None],
        of_places,
        of_steps,
        np.zeros(1, np.intp),
        np.ones(1, np.bool_),
    )


def weights(**changed: float) -> PathChoice:
    named = {"bias": -2.0, "similarity": 4.0, "step_off": -2.0, "lost": -3.0, "found": -3.0}
    return PathChoice(**dict.fromkeys(PathChoice.__struct_fields__, 0.0) | named | changed)


STAY = [[0, 20], [20, 0]]
CROSS = [[20, 0], [0, 20]]


def test_the_surer_of_flow_and_descriptors_decides():
    # Flow leads to the second place and on from there; descriptors know the first one.
    by_flow = [CROSS, STAY, STAY, STAY]
    unsure = [[1, 0], [0.6, 0.6], [0.6, 0.6], [0.6, 0.6], [0.6, 0.6]]
    sure = [[1, 0], [1.5, -0.5], [1.5, -0.5], [1.5, -0.5], [1.5, -0.5]]
    followed = choose(evidence(unsure, by_flow), weights())
    matched = choose(evidence(sure, by_flow), weights())
    assert followed.place[0].tolist() == [0, 1, 1, 1, 1]
    assert matched.place[0].tolist() == [0, 0, 0, 0, 0]
    assert (followed.confidence > 0.5).all()
    np.testing.assert_allclose(followed.points[0, 1:], [[30, 0]] * 4, atol=0.5)


def test_a_point_that_no_place_resembles_is_hidden_and_later_frames_lead_back_to_it():
    similarity = [[1, 0], [0.9, 0], [-1, -1], [-1, -1], [0.9, 0], [1, 0]]
    found = choose(evidence(similarity, [STAY] * 5), weights(lost=-1.0, found=-1.0))
    assert (found.confidence[0] >= 0.5).tolist() == [True, True, False, False, True, True]
    assert found.confidence[0, 0] == pytest.approx(1)


def test_places_that_are_not_usable_are_never_chosen():
    usable = [[True, True], [False, True], [True, True]]
    found = choose(evidence([[1, 0], [9, 0], [1, 0]], [STAY, STAY], usable=usable), weights())
    assert found.place[0, 1] == 1
    nowhere = [[True, True], [False, False], [True, True]]
    found = choose(evidence([[1, 0], [9, 9], [1, 0]], [STAY, STAY], usable=nowhere), weights())
    assert found.confidence[0, 1] < 1e-6
    assert np.isfinite(found.points).all()


def test_the_frame_of_a_query_is_certain_whatever_it_resembles():
    potentials = weigh(evidence([[-9, 9], [0, 0]], [STAY]), weights())
    posterior = sum_paths(potentials)
    assert posterior.states[0, 0, 0] == pytest.approx(1)


def test_weights_have_the_order_of_the_evidence():
    rng = np.random.default_rng(0)
    given = evidence(np.zeros((2, 2)), [STAY])
    given.of_places[:] = rng.normal(size=given.of_places.shape)
    given.of_steps[:] = rng.normal(size=given.of_steps.shape)
    names = PathChoice.__struct_fields__
    for name in names[1:9]:
        changed = weigh(given, PathChoice(**{**dict.fromkeys(names, 0.0), name: 2.0}))
        column = names.index(name) - 1
        np.testing.assert_allclose(
            changed.states[0, 1, :2], 2 * given.of_places[0, 1, :, column], rtol=1e-6
        )
    for name in names[10:14]:
        changed = weigh(given, PathChoice(**{**dict.fromkeys(names, 0.0), name: 2.0}))
        column = names.index(name) - 10
        np.testing.assert_allclose(
            changed.steps[0, 0, :2, :2], 2 * given.of_steps[0, 0, :, :, column], rtol=1e-6
        )
    assert not weigh(given, ZERO).steps.any()
