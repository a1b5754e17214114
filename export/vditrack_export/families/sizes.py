"""Types of the numbers in cards that count what a model has."""

from typing import Annotated

from msgspec import Meta

Positive = Annotated[int, Meta(gt=0)]
"""Without the upper limit of a bundle's integers: a vocabulary has 256,384 entries."""
