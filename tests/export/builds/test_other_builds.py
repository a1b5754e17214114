"""Models with other encoders, and UNets, build as the table in the docs says."""

import pytest

from doubles.build_matrix import (
    WAN_AND_COGVIDEOX,
    BuildMatrix,
    list_rows,
    read_documented_rows,
)
from doubles.small_cards import SMALL_CARDS

pytestmark = pytest.mark.slow

OTHERS = [name for name in SMALL_CARDS if name not in WAN_AND_COGVIDEOX]


@pytest.mark.parametrize(("card", "stride"), list_rows(OTHERS))
def test_builds_are_those_of_the_table(card: str, stride: int, matrix: BuildMatrix) -> None:
    assert matrix.row(card, stride) == read_documented_rows()[card, stride]
