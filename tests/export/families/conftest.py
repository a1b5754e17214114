"""Small random models of every family, made once."""

from functools import cache

import pytest

from doubles.small_families import SmallFamily, transformer_shapes

# Causal families have no graph of whole windows; their steps are in `test_steps`.
FAMILIES = {
    family: [None, *SmallFamily(family).variants]
    for family, shape in transformer_shapes().items()
    if "window" in shape.attentions
}
VARIANTS = [(family, variant) for family, names in FAMILIES.items() for variant in names]

small_family = cache(SmallFamily)


@pytest.fixture(scope="session", params=VARIANTS, ids=lambda pair: "-".join(filter(None, pair)))
def variant(request: pytest.FixtureRequest) -> SmallFamily:
    """Each variant of each family."""
    return small_family(*request.param)


@pytest.fixture(scope="session", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> SmallFamily:
    """The first model of each family."""
    return small_family(request.param)
