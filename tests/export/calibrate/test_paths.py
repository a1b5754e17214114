"""The fit of the weights of paths: the gradient is exact, and planted weights are found."""

import msgspec
import numpy as np
import pytest

from vditrack.bundle.path_choice import PathChoice
from vditrack.points.path_choice import PathEvidence, choose, sum_paths, weigh
from vditrack_export.calibrate.paths import PathExample, fit_paths, label, measure_loss

PLANTED = PathChoice(
    bias=-1.0,
    similarity=2.0,
    distinction=1.0,
    near_correlation=0.5,
    wide_correlation=0.5,
    tracked=0.5,
    tracked_confidence=0.2,
    forward_error=-0.3,
    backward_error=-0.3,
    step=0.5,
    step_on=1.0,
    step_beside=0.5,
    step_off=-0.5,
    step_disagreement=-0.3,
    lost=-1.5,
    found=-1.0,
    hidden=0.5,
)
IMPOSSIBLE = -30.0


def draw_evidence(rng, points=40, frames=8, places=3) -> PathEvidence:
    shape = points, frames, places
    return PathEvidence(
        np.asarray(rng.uniform(0, 256, (*shape, 2)), np.float32),
        rng.random(shape) < 0.9,
        np.asarray(rng.normal(size=(*shape, 8)), np.float32),
        np.asarray(rng.normal(size=(points, frames - 1, places, places, 4)), np.float32),
        np.zeros(points, np.intp),
        np.zeros(points, np.bool_),
    )


def draw_path(evidence: PathEvidence, rng) -> np.ndarray:
    """Draw a path [N, T] of states for each point, as likely as the planted weights say."""
    posterior = sum_paths(weigh(evidence, PLANTED))
    count, frames, number = posterior.states.shape
    path = np.zeros((count, frames), np.intp)
    for point in range(count):
        path[point, 0] = rng.choice(number, p=_normalised(posterior.states[point, 0]))
        for frame in range(1, frames):
            row = posterior.steps[point, frame - 1, path[point, frame - 1]]
            path[point, frame] = rng.choice(number, p=_normalised(row))
    return path


def _normalised(weights):
    return weights / weights.sum()


@pytest.fixture(scope="module")
def examples() -> list[PathExample]:
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(6):
        evidence = draw_evidence(rng, points=150)
        path = draw_path(evidence, rng)
        truth = np.full((*path.shape, 4), IMPOSSIBLE)
        np.put_along_axis(truth, path[:, :, None], 0, axis=2)
        drawn.append(PathExample(evidence, truth))
    return drawn


def test_the_gradient_is_that_of_the_loss(examples):
    rng = np.random.default_rng(1)
    weights = rng.normal(size=17) * 0.3
    _, gradient = measure_loss(examples[:1], weights)
    for index, step in enumerate(np.eye(17) * 1e-5):
        ahead, behind = (measure_loss(examples[:1], weights + sign * step)[0] for sign in (1, -1))
        assert gradient[index] == pytest.approx((ahead - behind) / 2e-5, abs=1e-6)


def test_planted_weights_are_found(examples):
    found = np.array(msgspec.structs.astuple(fit_paths(examples)))
    planted = np.array(msgspec.structs.astuple(PLANTED))
    # Adding a constant to all steps between places, and taking it from those to and from hidden
    # states and the bias, changes no path's share but at its ends.
    assert np.abs(found - planted)[1:9].max() < 0.2
    assert np.abs(found - planted)[10:14].max() < 0.2
    assert measure_loss(examples, found)[0] < measure_loss(examples, planted)[0] + 1e-3


def test_fitted_weights_choose_true_paths_more_often_than_those_of_the_start(examples):
    fitted = fit_paths(examples[:4])
    zero = PathChoice(**dict.fromkeys(PathChoice.__struct_fields__, 0.0))

    def right(choice: PathChoice) -> float:
        shares = []
        for example in examples[4:]:
            true = example.truth.argmax(axis=2)
            visible = true < 3
            shares.append((choose(example.evidence, choice).place == true)[visible].mean())
        return float(np.mean(shares))

    assert right(fitted) > right(zero) + 0.2


def test_labels_of_visible_and_hidden_points():
    places = np.zeros((1, 3, 3, 2), np.float32)
    places[0, :, 0] = (10, 10)
    places[0, :, 1] = (11.2, 10)
    places[0, :, 2] = (40, 10)
    rng = np.random.default_rng(0)
    evidence = with_places(draw_evidence(rng, 1, 3, 3), places)
    truth = np.float32([[[10, 10], [10, 10], [47, 10]]])
    found = label(evidence, truth, np.array([[True, False, True]]))[0]
    # The exact place is right, one 1.2 pixels off is less likely by half a square, others are not.
    np.testing.assert_allclose(found[0], [0, -0.5, IMPOSSIBLE, IMPOSSIBLE], atol=1e-5)
    np.testing.assert_allclose(found[1], [IMPOSSIBLE] * 3 + [0])
    # Nothing is near the point: it may be called hidden, or be at the place that is not far off.
    np.testing.assert_allclose(found[2], [IMPOSSIBLE, IMPOSSIBLE, -0.5, 0])


def with_places(evidence: PathEvidence, places) -> PathEvidence:
    return PathEvidence(
        places,
        np.ones(places.shape[:3], np.bool_),
        evidence.of_places,
        evidence.of_steps,
        evidence.first,
        evidence.queried,
    )
