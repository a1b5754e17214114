"""Tracks of a bag are read one message after the other, in the order of their stamps."""

import numpy as np

from vditrack.io.rosbag.recordings import ImageMessages
from vditrack.io.rosbag.track_bags import write_tracks
from vditrack.io.rosbag.track_clouds import read_tracks, view_recorded
from vditrack.points.tracks import Tracks

SECOND = 10**9


def test_tracks_and_images_are_merged_by_their_stamps(tmp_path):
    # In the order of arrival; two messages have the stamp of one image.
    stamps = np.array([3, 1, 1, 2]) * SECOND
    messages = ImageMessages(stamps, np.arange(4), ("camera",) * 4, None, None)
    points = np.arange(8, dtype=np.float32).reshape(1, 4, 2)
    seen, one = np.ones((1, 4), bool), np.ones((1, 4), np.float32)
    tracks = Tracks(np.zeros((1, 3), np.float32), points, seen, one, one)
    pictures = [np.full((16, 16, 3), t, np.uint8) for t in range(4)]
    write_tracks(tmp_path / "tracks.mcap", messages, tracks, pictures)

    recorded = read_tracks(tmp_path / "tracks.mcap")
    assert recorded.stamps == (SECOND, 2 * SECOND, 3 * SECOND)
    # Of the two messages with one stamp, the last one counts.
    order = points[0, [2, 3, 0]]
    np.testing.assert_array_equal([each.points[0] for each in recorded.read()], order)

    images = np.array([2, 4]) * SECOND
    shown = list(view_recorded(recorded, iter(pictures[:2]), images))
    assert [frame.stamp // SECOND for frame in shown] == [1, 2, 3, 4]
    assert [frame.time for frame in shown] == [0, 1, 2, 3]
    assert [None if f.picture is None else int(f.picture.max()) for f in shown] == [
        *(None, 0, None, 1)
    ]
    found = [None if f.points is None else f.points.points[0].tolist() for f in shown]
    assert found == [*order.tolist(), None]
    assert [frame.stamp for frame in view_recorded(recorded)] == list(recorded.stamps)
