"""What `export_graph` refuses to write, and how it applies the rewrite rules of ONNX Script."""

from contextlib import nullcontext
from pathlib import Path

import onnx
import pytest
import torch
from onnxscript.rewriter.pattern import SimplePatternMatcher
from torch import Tensor, nn

from vditrack.errors import VditrackError
from vditrack_export.pipeline import onnx_export
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


def test_rules_are_matched_only_at_nodes_of_their_operator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph is the same; a rule with two outputs would visit all nodes at every node."""

    class Halves(nn.Module):
        def forward(self, frames: Tensor) -> Tensor:
            first, second = frames[:, :2], frames[:, 2:]
            return (first.reshape(3, 8).reshape(6, 4) * 1.0 + 0.0) @ second.reshape(4, 6)

    matched, match = [], SimplePatternMatcher.match

    def record(self, model, graph, node, **options):
        result = match(self, model, graph, node, **options)
        matched.append((self.pattern.output_nodes[0].op_type, node.op_type, bool(result)))
        return result

    def export(name: str) -> onnx.ModelProto:
        examples = {"frames": torch.rand(3, 4, 4)}
        export_graph(Halves(), examples, tmp_path / name, outputs=["product"])
        return onnx.load(tmp_path / name)

    monkeypatch.setattr(SimplePatternMatcher, "match", record)
    graph = export("some.onnx")
    assert all(rule == operator for rule, operator, _ in matched)
    assert ("Slice", "Slice", True) in matched
    applied = [each for each in matched if each[2]]
    matched.clear()
    monkeypatch.setattr(onnx_export, "_match_by_operator", nullcontext)
    assert export("every.onnx") == graph
    assert [each for each in matched if each[2]] == applied
    assert any(rule != operator for rule, operator, _ in matched)
