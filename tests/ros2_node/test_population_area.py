"""The part of the image in which points of the population are put."""

import numpy as np
import pytest
from sensor_msgs.msg import Image

from vditrack.errors import InputError
from vditrack_ros.points.population import choose_grid_points
from vditrack_ros.points.population_area import (
    PopulationArea,
    describe_excess,
    read_population_mask,
)

SIZE = (120, 160)
WHOLE = (0.0, 0.0, 1.0, 1.0)
NOBODY = np.zeros((0, 2), np.float32)


def test_a_region_in_shares_and_in_pixels():
    area = PopulationArea()
    assert area.build(SIZE, WHOLE) is None
    assert area.build(SIZE, (0.0, 0.0, 160.0, 120.0)) is None
    for region in ((0.5, 0.25, 0.25, 0.5), (80.0, 30.0, 40.0, 60.0)):
        allowed = area.build(SIZE, region)
        expected = np.zeros(SIZE, bool)
        expected[30:90, 80:120] = True
        np.testing.assert_array_equal(allowed > 0, expected)
    # What is beyond the image does not count.
    assert np.count_nonzero(area.build(SIZE, (150.0, 0.0, 640.0, 480.0))) == 10 * 120
    assert not area.build(SIZE, (640.0, 0.0, 640.0, 480.0)).any()


def test_a_region_beyond_the_image():
    for region in (WHOLE, (0.5, 0.25, 0.25, 0.5), (0.0, 0.0, 160.0, 120.0)):
        assert not describe_excess(SIZE, region)
    text = describe_excess(SIZE, (0.0, 0.0, 900.0, 60.0))
    assert "region [0, 0, 900, 60] reaches beyond the image, 160 x 120 pixels" in text
    assert "only the part inside is used" in text
    assert "no points are put anywhere" in describe_excess(SIZE, (640.0, 0.0, 640.0, 480.0))


def test_a_mask_of_another_size_is_scaled():
    area = PopulationArea()
    area.set_mask(np.repeat([[0, 7]], 2, axis=0).astype(np.uint8))
    allowed = area.build(SIZE, (0.0, 0.5, 1.0, 0.5))
    assert not allowed[:, :80].any() and not allowed[:60].any()
    assert (allowed[60:, 80:] > 0).all()


@pytest.mark.parametrize("count", [1, 16, 64])
def test_the_grid_fills_the_area(count):
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    ring = np.hypot(x - 80, y - 60)
    allowed = ((ring > 25) & (ring < 50)).astype(np.uint8)
    points = choose_grid_points(SIZE, count, count, NOBODY, allowed)
    assert len(np.unique(points, axis=0)) == count
    column, row = points.astype(int).T
    assert allowed[row, column].all()
    assert len(choose_grid_points(SIZE, 4, 4, NOBODY, np.zeros(SIZE, np.uint8))) == 0
    assert len(choose_grid_points(SIZE, 64, 64, points[:1], allowed)) >= 63


def test_messages_that_are_no_mask():
    def message(encoding="mono8", height=2, width=3, step=4, data=bytes(8)):
        return Image(encoding=encoding, height=height, width=width, step=step, data=data)

    assert read_population_mask(message(data=bytes(range(8)))).tolist() == [[0, 1, 2], [4, 5, 6]]
    for broken, reason in (
        (message("rgb8"), "encoding 'rgb8'"),
        (message(height=0), "no pixels"),
        (message(data=bytes(5)), "truncated"),
    ):
        with pytest.raises(InputError, match=reason):
            read_population_mask(broken)
