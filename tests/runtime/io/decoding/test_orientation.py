"""Display matrices: every way in which a file can ask for its frames to be shown."""

import numpy as np
import pytest

from doubles.video_files import set_display_matrix, write_video_file
from vditrack.io.video import read_video

HEIGHT, WIDTH = 48, 64
UNITS = [(1, 0, 0, 1), (-1, 0, 0, 1), (1, 0, 0, -1), (-1, 0, 0, -1)]
TRANSPOSED = [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)]


@pytest.fixture(scope="module")
def picture() -> np.ndarray:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    return np.stack([200 * x / WIDTH, 200 * y / HEIGHT, np.full_like(x, 30)], 2).astype(np.uint8)


@pytest.fixture
def path(tmp_path, picture):
    return write_video_file(tmp_path / "v.mp4", picture[None].repeat(3, axis=0))


def shown(picture: np.ndarray, matrix) -> np.ndarray:
    """The picture by the standard: a pixel at (x, y) is shown at (ax + cy, bx + dy)."""
    a, b, c, d = matrix
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    column, row = a * x + c * y, b * x + d * y
    column, row = (np.floor(axis - axis.min() + 0.25).astype(int) for axis in (column, row))
    result = np.zeros((row.max() + 1, column.max() + 1, 3), np.uint8)
    result[row, column] = picture
    return result


@pytest.mark.parametrize("matrix", UNITS + TRANSPOSED)
def test_frames_are_shown_as_the_matrix_says(path, picture, matrix):
    set_display_matrix(path, matrix)
    video = read_video(path)
    expected = shown(picture, matrix)
    assert video.frames.shape[1:] == expected.shape
    assert np.abs(video.frames[0].astype(int) - expected).mean() < 4
    assert video.remarks == ()


@pytest.mark.parametrize(
    ("degrees", "size", "remark"),
    [
        (0.5, (HEIGHT, WIDTH), None),
        (30, (HEIGHT, WIDTH), "rotates by 30.0 degrees clockwise"),
        (60, (WIDTH, HEIGHT), "rotates by 60.0 degrees clockwise"),
        (-89.6, (WIDTH, HEIGHT), None),
    ],
)
def test_other_angles_are_rounded_to_quarter_turns_and_reported(path, degrees, size, remark):
    cosine, sine = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    set_display_matrix(path, (cosine, sine, -sine, cosine))
    video = read_video(path)
    assert video.frames.shape[1:3] == size
    assert (remark is None) == (video.remarks == ())
    assert remark is None or remark in video.remarks[0]


def test_a_scale_turns_nothing(path, picture):
    set_display_matrix(path, (2, 0, 0, 1))
    assert read_video(path).frames.shape[1:3] == (HEIGHT, WIDTH)


def test_a_matrix_that_maps_to_a_line_is_ignored_and_reported(path):
    set_display_matrix(path, (1, 1, 1, 1))
    video = read_video(path)
    assert video.frames.shape[1:3] == (HEIGHT, WIDTH)
    assert "not invertible" in video.remarks[0]
