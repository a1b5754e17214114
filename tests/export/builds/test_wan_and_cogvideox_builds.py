"""Models with the autoencoders of Wan and CogVideoX build as the table in the docs says."""

import pytest

from doubles.build_matrix import (
    CARDS,
    WAN_AND_COGVIDEOX,
    BuildMatrix,
    list_rows,
    read_documented_rows,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("card", "stride"), list_rows(WAN_AND_COGVIDEOX))
def test_builds_are_those_of_the_table(card: str, stride: int, matrix: BuildMatrix) -> None:
    assert matrix.row(card, stride) == read_documented_rows()[card, stride]


def test_the_table_has_every_card_and_stride() -> None:
    assert list(read_documented_rows()) == list_rows(CARDS)
