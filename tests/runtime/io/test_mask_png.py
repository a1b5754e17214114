"""Mask files, compared with Pillow as another reader and writer."""

import numpy as np
import pytest
from PIL import Image

from vditrack import InputError
from vditrack.io.mask_png import read_mask, write_mask
from vditrack.io.overlay import make_object_colours

# As devkits print them: the colours of the PASCAL VOC colour map, which DAVIS uses.
DAVIS = {0: (0, 0, 0), 1: (128, 0, 0), 2: (0, 128, 0), 3: (128, 128, 0), 4: (0, 0, 128)}
DAVIS |= {8: (64, 0, 0), 15: (192, 128, 128), 20: (0, 64, 128), 255: (224, 224, 192)}


def labelled(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (37, 51), np.uint8)


def test_a_mask_is_read_as_pillow_wrote_it(tmp_path):
    mask = labelled()
    path = tmp_path / "mask.png"
    Image.fromarray(mask).save(path)
    np.testing.assert_array_equal(read_mask(path), mask)
    palette = np.random.default_rng(1).integers(0, 256, 768, np.uint8).tolist()
    coloured = Image.fromarray(mask, "P")
    coloured.putpalette(palette)
    coloured.save(path)
    np.testing.assert_array_equal(read_mask(path), mask)
    for bits in (1, 2, 4):
        few = mask % 2**bits
        coloured = Image.fromarray(few, "P")
        coloured.putpalette(palette[: 3 * 2**bits])
        coloured.save(path, bits=bits, transparency=0)
        np.testing.assert_array_equal(read_mask(path), few)
    Image.fromarray(mask > 99).save(path)
    np.testing.assert_array_equal(read_mask(path), np.where(mask > 99, 255, 0))


def test_a_written_mask_has_the_colours_of_davis(tmp_path):
    mask = labelled()
    write_mask(tmp_path / "mask.png", mask)
    image = Image.open(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.array(image), mask)
    colours = np.array(image.convert("RGB"))
    for index, colour in DAVIS.items():
        assert (colours[mask == index] == colour).all()
        assert tuple(make_object_colours()[index]) == colour
    assert len(np.unique(make_object_colours(), axis=0)) == 256
    np.testing.assert_array_equal(read_mask(tmp_path / "mask.png"), mask)


def test_an_image_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(InputError, match="Is a directory"):
        read_mask(tmp_path)
