"""The self-test accepts models that work and refuses those that fail or give wrong results."""

import pytest

from doubles.failing_tracker import FailingTracker, out_of_memory, without
from doubles.propagating import write_propagating
from vditrack import Tracker
from vditrack.bundle.folder import load_bundle
from vditrack.errors import BackendError, InputError
from vditrack_ros.self_test import run_self_test


@pytest.mark.parametrize(
    ("change", "message"), [(out_of_memory, "out of memory"), (without("points"), "finite")]
)
def test_a_model_that_tracks_no_points_is_refused(change, message):
    tracker = Tracker.load(backend="cpu")
    run_self_test(tracker, "points")
    with pytest.raises(BackendError, match=message):
        run_self_test(FailingTracker(tracker, change), "points")


@pytest.mark.parametrize(
    ("change", "message"), [(out_of_memory, "out of memory"), (without("mask"), "not found again")]
)
def test_a_model_that_propagates_no_masks_is_refused(mask_bundle, change, message):
    tracker = Tracker(load_bundle(mask_bundle))
    run_self_test(tracker, "masks")
    with pytest.raises(BackendError, match=message):
        run_self_test(FailingTracker(tracker, change), "masks")


def test_a_mode_is_tested_by_what_it_needs(tmp_path):
    points_only = Tracker(write_propagating(tmp_path, None))
    run_self_test(points_only, "points")
    with pytest.raises(InputError, match="tracks points alone"):
        run_self_test(points_only, "both")
