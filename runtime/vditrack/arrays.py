"""Array types for annotations. Shapes are documented where they are used."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, overload

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]
Indices = NDArray[np.intp]

Image = NDArray[np.uint8]
"""uint8 [h, w] or [h, w, C]: a picture of any size and number of channels."""
Frame = NDArray[np.uint8]
"""uint8 [H, W, 3], RGB."""
FrameClip = NDArray[np.uint8]
"""uint8 [T, H, W, 3], RGB."""
Grey = NDArray[np.uint8]
"""uint8 [H, W] grey levels."""
Mask = NDArray[np.uint8]
"""uint8 [H, W]: the index of the object at each pixel, 0 for the background."""
MaskClip = NDArray[np.uint8]
"""uint8 [T, H, W]: a mask for each frame."""
Masks = Mask | Mapping[int, Mask]
"""The mask of frame 0, or masks by the index of their frame."""


class ImageSequence(Protocol):
    """T images of one size, indexed like an array uint8 [T, H, W, ...], which is such a sequence.

    They need not be in memory: an image may be read from a file when it is indexed.
    """

    @property
    def shape(self) -> tuple[Any, ...]:
        """(T, H, W, ...)."""

    def __len__(self) -> int:
        """Return the number of images."""

    def __iter__(self) -> Iterator[Any]:
        """Yield the images, uint8 [H, W, ...]."""

    @overload
    def __getitem__(self, key: int, /) -> Any: ...  # noqa: ANN401
    @overload
    def __getitem__(self, key: slice, /) -> "ImageSequence": ...
