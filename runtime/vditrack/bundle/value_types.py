"""Types of the numbers in a bundle's manifest, with their limits."""

from typing import Annotated

from msgspec import Meta

Count = Annotated[int, Meta(ge=0, le=10_000)]
"""Frames, steps, neighbours or cells."""
Positive = Annotated[int, Meta(gt=0, le=10_000)]
Side = Annotated[int, Meta(gt=0, le=65_536)]
"""Pixels or channels."""
Few = Annotated[int, Meta(gt=0, le=100)]
"""Radii, and sides of windows and grids: memory grows with their square."""
Levels = Annotated[int, Meta(ge=0, le=16)]
"""Halvings of a picture."""
PositiveReal = Annotated[float, Meta(gt=0)]
NonNegative = Annotated[float, Meta(ge=0)]
Share = Annotated[float, Meta(ge=0, le=1)]
Cosine = Annotated[float, Meta(ge=-1, lt=1)]
