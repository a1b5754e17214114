"""The specification of points, and the choice of queries and tracks by it."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from vditrack.annotation.points import (
    choose_queries,
    explain_lack,
    keep_points,
    measure_spread,
    select_points,
)
from vditrack.annotation.specification import Specification, override_fields, read_specification
from vditrack.errors import InputError
from vditrack.points.ragged_tracks import list_rows
from vditrack.points.tracks import Tracks

FRAME = np.zeros((90, 160, 3), np.uint8)
CLIP = (FRAME, 50)


def make_tracks(points, visible=None) -> Tracks:
    points = np.asarray(points, np.float32)
    shape = points.shape[:2]
    queries = np.concatenate([np.zeros((len(points), 1)), points[:, 0]], axis=1)
    visible = np.ones(shape, bool) if visible is None else visible
    floats = np.full(shape, 0.9, np.float32)
    return Tracks(queries.astype(np.float32), points, visible, floats, floats)


def test_fields_come_from_the_file_and_options_take_precedence(tmp_path):
    path = tmp_path / "spec.toml"
    path.write_text('random = 100\nseed = 3\ncoordinates = "normalized"\n')
    read = override_fields(read_specification(path), {"grid": None, "seed": 4})
    assert read == Specification(random=100, seed=4, coordinates="normalized")
    assert override_fields(read, {"grid": 5}) == Specification(
        grid=5, seed=4, coordinates="normalized"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "exactly one of"),
        ("grid = 5\nrandom = 3", "exactly one of"),
        ("grid = 0", r"Expected `int` >= 1 - at `\$.grid`"),
        ("girds = 5", "unknown field `girds`"),
        ("queries = [[0, 1]]", "of length 3"),
        ("queries = []", "of length >= 1"),
        ("grid = ", "is not a specification"),
    ],
)
def test_a_specification_that_is_not_valid_is_refused(tmp_path, text, message):
    path = tmp_path / "spec.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        override_fields(read_specification(path), {})


def test_a_grid_lies_on_the_first_frame():
    queries = choose_queries(Specification(grid=2), *CLIP, "0")
    assert_allclose(queries, [[0, 40, 22.5], [0, 120, 22.5], [0, 40, 67.5], [0, 120, 67.5]])


def test_features_are_the_corners_of_the_first_frame():
    frame = FRAME.copy()
    frame[20:40, 30:60] = 255
    found = choose_queries(Specification(features=40), frame, 50, "0")
    assert_array_equal(found[:, 0], 0)
    corners = [[30, 20], [30, 40], [60, 20], [60, 40]]
    assert_allclose(sorted(found[:, 1:].tolist()), corners, atol=1)
    assert choose_queries(Specification(features=4), FRAME, 50, "0").shape == (0, 3)


def test_a_lack_of_points_is_explained():
    assert explain_lack(4, 2) == ()
    assert "no corners" in explain_lack(0, 0)[0]
    assert "min_spread" in explain_lack(4, 0)[0]


def test_random_points_depend_on_the_unit_and_the_seed_alone():
    one = choose_queries(Specification(random=500), *CLIP, "a1")
    assert_array_equal(one, choose_queries(Specification(random=500), *CLIP, "a1"))
    for other in (
        choose_queries(Specification(random=500), *CLIP, "a2"),
        choose_queries(Specification(random=500, seed=1), *CLIP, "a1"),
    ):
        assert (one != other).any()
    assert one.dtype == np.float32
    assert set(one[:, 0]) == set(range(50))
    assert (one[:, 1:] >= 0).all()
    assert (one[:, 1:] < [160, 90]).all()


def test_queries_are_in_the_unit_of_the_specification():
    given = ((3, 0.5, 0.25),)
    normalized = Specification(queries=given, coordinates="normalized")
    assert_allclose(choose_queries(normalized, *CLIP, "0"), [[3, 80, 22.5]])
    assert_allclose(choose_queries(Specification(queries=given), *CLIP, "0"), given)


def test_points_that_move_least_are_left_out():
    still, far, near = [[9, 9], [9, 9]], [[0, 0], [80, 0]], [[0, 0], [0, 9]]
    tracks = make_tracks([still, far, near, far])
    assert_allclose(measure_spread(tracks, (90, 160)), [0, 0.25, 0.05, 0.25])
    hidden = np.array([[True, True], [True, False], [True, True], [True, True]])
    assert_allclose(measure_spread(make_tracks(tracks.points, hidden), (90, 160))[1], 0)

    def select(tracks, **fields):
        specification = Specification(**fields)
        kept = select_points(specification, tracks, (90, 160))
        return keep_points(specification, tracks, kept, 2)

    assert_array_equal(select(tracks, grid=2, min_spread=0.05).points, tracks.points[1:])
    assert_array_equal(select(tracks, grid=2, pad_to=2).points, tracks.points[[1, 3]])
    ragged = list_rows(tracks, 0, 2)
    assert_allclose(measure_spread(ragged, (90, 160)), measure_spread(tracks, (90, 160)))
    kept = select(ragged, features=2, min_spread=0.05)
    assert_array_equal(kept.points, ragged.points[[1, 2, 3, 5, 6, 7]])
    # With a number of points that is given, a rectangle is made of it.
    assert_array_equal(select(ragged, features=2, pad_to=2).points, tracks.points[[1, 3]])
