"""What `export_graph` refuses to write."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vditrack.errors import VditrackError
from vditrack_export.pipeline.onnx_export import export_graph


def test_graphs_that_compute_with_uint8_are_refused(tmp_path: Path) -> None:
    """TensorRT-RTX cannot parse them: it has no Split of uint8, for example."""

    class Late(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            first, second = torch.split(frames, [1, 2])
            return first.float() + second.float()

    examples = {"frames": torch.zeros(3, 4, 4, 3, dtype=torch.uint8)}
    with pytest.raises(VditrackError, match=r"late\.onnx: Split takes uint8"):
        export_graph(Late(), examples, tmp_path / "late.onnx", outputs=["sum"])
