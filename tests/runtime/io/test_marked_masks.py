"""Masks as users draw and save them, whose true pixels are known."""

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image
from skimage.data import astronaut

from vditrack import InputError
from vditrack.io.marked_masks import read_marked_mask
from vditrack.io.mask_png import read_mask
from vditrack.io.overlay import make_object_colours

HEIGHT, WIDTH = 120, 160
ROWS, COLUMNS = np.mgrid[:HEIGHT, :WIDTH]


def disc(index: int, x: int, y: int, radius: float) -> np.ndarray:
    inside = (COLUMNS - x) ** 2 + (ROWS - y) ** 2 <= radius**2
    return np.where(inside, np.uint8(index), np.uint8(0))


def soft_disc(level: int, x: int, y: int, radius: float, width: float = 2) -> np.ndarray:
    """A disc whose edge falls over ``width`` pixels, to half its level at ``radius``."""
    distance = np.hypot(COLUMNS - x, ROWS - y)
    return np.rint(level * np.clip(0.5 + (radius - distance) / width, 0, 1)).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return cv2.imdecode(data, cv2.IMREAD_UNCHANGED)


@pytest.fixture
def read(tmp_path):
    def save_and_read(image, mode=None, known=None):
        path = tmp_path / "mask.png"
        if not isinstance(image, Image.Image):
            image = Image.fromarray(image, mode)
        image.save(path)
        return read_marked_mask(path, {} if known is None else known)

    return save_and_read


TWO = disc(1, 40, 60, 25) + disc(2, 110, 60, 30)
HARD = disc(255, 80, 60, 40)


@pytest.mark.parametrize(
    "mask",
    [
        TWO,
        HARD,
        disc(85, 30, 60, 20) + disc(170, 80, 60, 20) + disc(255, 130, 60, 20),
        # An object labelled 255 that touches no other is no void.
        disc(1, 40, 60, 25) + disc(255, 110, 60, 30),
        # 48 objects of one size, and a partition without background.
        (1 + ROWS // 20 * 8 + COLUMNS // 20).astype(np.uint8) * (ROWS % 20 > 4),
        (1 + ROWS // 20 * 8 + COLUMNS // 20).astype(np.uint8),
        # A rope of 2 pixels that a person holds, with either index.
        np.where(abs(ROWS - 20) < 2, 1, disc(2, 80, 60, 40)).astype(np.uint8),
        np.where(abs(ROWS - 20) < 2, 2, disc(1, 80, 60, 40)).astype(np.uint8),
    ],
)
def test_indices_are_kept_as_they_are(mask, read):
    grey, palette = Image.fromarray(mask), Image.fromarray(mask, "P")
    palette.putpalette(make_object_colours().ravel().tolist())
    for image in (grey, palette, palette.convert("RGB"), palette.convert("RGBA")):
        found = read(image)
        np.testing.assert_array_equal(found.mask, mask)
        assert found.remarks == ()


@pytest.mark.parametrize(
    ("image", "levels"),
    [
        (soft_disc(255, 80, 60, 40.5), 255),
        (soft_disc(255, 80, 60, 40.5, width=12), 255),
        (soft_disc(128, 80, 60, 40.5), 128),
        (soft_disc(255, 80, 60, 8.5), 255),
        (jpeg(HARD, 50), 255),
        (jpeg(HARD, 90), 255),
        (jpeg(HARD, 100), 255),
    ],
)
def test_smooth_or_compressed_edges_are_one_object(image, levels, read):
    assert len(np.unique(image)) > 3
    found = read(image)
    radius = 8.5 if image[60, 100] == 0 else 40.5
    distance = np.hypot(COLUMNS - 80, ROWS - 60)
    assert set(np.unique(found.mask)) == {0, levels}
    assert (found.mask > 0)[distance < radius - 2].all()
    assert not (found.mask > 0)[distance > radius + 2].any()
    assert len(found.remarks) == 1
    # The same edges as colours, opacity, a palette and 16 bits.
    red = np.dstack([image, 0 * image, 0 * image])
    clear = np.dstack([np.full((HEIGHT, WIDTH, 3), 255, np.uint8), image])
    quantised = Image.fromarray(image).convert("RGB").quantize(256)
    for other in (Image.fromarray(red), Image.fromarray(clear), quantised):
        np.testing.assert_array_equal(read(other).mask > 0, found.mask > 0)
    np.testing.assert_array_equal(read(image.astype(np.uint16) * 257).mask, found.mask)


@pytest.mark.parametrize(
    "image",
    [
        soft_disc(100, 40, 60, 25) + soft_disc(200, 110, 60, 30),
        np.maximum(soft_disc(255, 80, 60, 20), soft_disc(128, 80, 60, 40)),
        jpeg(100 * TWO, 80),
        np.dstack([soft_disc(255, 40, 60, 25), 0 * TWO, soft_disc(255, 110, 60, 30)]),
    ],
)
def test_several_objects_with_smooth_edges_are_refused(image, read):
    with pytest.raises(InputError, match=r"smooth edges.*give a file for each object"):
        read(image)


def test_a_picture_is_refused(read):
    picture = astronaut()[:HEIGHT, :WIDTH]
    for image in (picture, picture[..., 0]):
        with pytest.raises(InputError, match="a picture"):
            read(image)


def test_tiny_indices_and_rings_are_given_to_their_neighbours(read):
    mask = TWO.copy()
    mask[5:7, 5:7], mask[60, 108:112], mask[100, 20] = 3, 7, 3
    found = read(mask)
    np.testing.assert_array_equal(found.mask, TWO)
    assert "indices 3, 7, of 9 pixels" in found.remarks[0]
    ring = np.where(disc(1, 80, 60, 40) > 0, 5, disc(3, 80, 60, 41.5)).astype(np.uint8)
    found = read(ring)
    assert set(np.unique(found.mask)) == {0, 5}
    assert (found.mask[disc(1, 80, 60, 40) > 0] == 5).all()
    assert not found.mask[disc(1, 80, 60, 41.5) == 0].any()
    with pytest.raises(InputError, match="no object of 3 x 3 pixels"):
        read(np.where(mask % 4 == 3, mask, 0).astype(np.uint8))


def test_void_around_objects_is_background(read):
    edge = (disc(1, 40, 60, 28) > 0) & (disc(1, 40, 60, 22) == 0)
    found = read(np.where(edge, 255, TWO).astype(np.uint8))
    np.testing.assert_array_equal(found.mask, np.where(edge, 0, TWO))
    assert f"its {edge.sum()} pixels are background" in found.remarks[0]


def test_colours_and_large_numbers_are_numbered_alike_in_all_files(read):
    colours = np.array([(0, 0, 0), (255, 0, 0), (0, 0, 255), (255, 255, 0)], np.uint8)
    known = {}
    first = read(colours[TWO], known=known)
    assert first.labels == {"#0000ff": 1, "#ff0000": 2}
    np.testing.assert_array_equal(first.mask, np.array([0, 2, 1])[TWO])
    second = read(colours[TWO + (TWO > 0)], known=known)
    assert second.labels == {"#0000ff": 1, "#ffff00": 3}
    np.testing.assert_array_equal(second.mask, np.array([0, 1, 3])[TWO])
    instances = read(np.where(TWO, 26000 + TWO.astype(int), 0).astype(np.uint16))
    assert instances.labels == {"26001": 1, "26002": 2}
    np.testing.assert_array_equal(instances.mask, TWO)
    np.testing.assert_array_equal(read(TWO.astype(np.uint16)).mask, TWO)


def test_opacity_marks_an_object_or_clears_pixels(read):
    white = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for image, mode in (
        (np.dstack([white, HARD]), "LA"),
        (np.dstack([HARD, HARD]), "LA"),
        (np.dstack([0 * white] * 3 + [HARD]), "RGBA"),
    ):
        np.testing.assert_array_equal(read(image, mode).mask, HARD)


def test_grey_levels_of_few_bits_are_indices(tmp_path):
    def chunk(name: bytes, data: bytes) -> bytes:
        check = zlib.crc32(name + data)
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", check)

    mask = (TWO % 4)[:, ::2]
    packed = (mask[:, ::2] << 4) + mask[:, 1::2]
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", mask.shape[1], mask.shape[0], 4, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    (tmp_path / "mask.png").write_bytes(content)
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)
