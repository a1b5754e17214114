"""The graphs of small models of every card, built by TensorRT-RTX."""

import pytest

from doubles.build_matrix import BuildMatrix


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> BuildMatrix:
    """The builds of one test file, each graph once."""
    return BuildMatrix(tmp_path_factory.mktemp("matrix"))
