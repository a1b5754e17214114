"""The benchmark for GPUs, here on the CPU at small size, and its parts' processes."""

import os
import time

import msgspec
import pytest
from typer.testing import CliRunner

import gpu
import result_files
from gpu import Settings, keep_figure, list_parts
from result_files import ResultFile
from timed_parts import NotPossibleError, Part, run_parts
from vditrack.inference.machine import Machine
from vditrack.inference.onnxruntime import CPU

NOTHING = dict.fromkeys(("tensorrt", "tensorrt_rtx", "architecture", "gpu", "driver", "cuda"))


def run_all(parts, seconds=60.0):
    """Figures in their order, and the lines of progress."""
    lines = []
    return [figure for _, figure in run_parts(parts, seconds, lines.append)], lines


def test_a_part_that_fails_leaves_its_figures_and_the_others(tmp_path):
    """Figures of a dictionary, an error, a crash and a part that takes too long."""
    figures, lines = run_all(
        [
            Part("works", 30, dict.items, ({"a ms": 1.5, "a note": "text"},)),
            Part("raises", 30, int, ("many",)),
            Part("crashes", 30, os.abort),
            Part("waits", 1, time.sleep, (60,)),
            Part("reads", 30, dict.items, ({"b ms": 2.0},)),
        ]
    )
    reasons = {name: value for name, value in figures if isinstance(value, str)}
    assert figures[:2] == [("a ms", 1.5), ("a note", "text")]
    assert reasons["raises"].startswith("failed: ValueError: invalid literal for int()")
    assert reasons["crashes"] == "failed: it crashed with SIGABRT"
    assert reasons["waits"] == "stopped: it took more than 1 s"
    assert figures[-1] == ("b ms", 2.0)
    assert lines[0] == "[1/5] works: at most 30 s; all done in at most 60 s"


def test_no_part_starts_after_the_time_is_over():
    late = Part("late", 30, dict.items, ({"b ms": 2.0},))
    figures, _ = run_all([Part("waits", 30, time.sleep, (60,)), late], seconds=1.0)
    assert [name for name, _ in figures] == ["waits", "late"]
    assert figures[1][1] == "skipped: the 1 s of all parts are over"


def test_the_limits_of_the_parts_are_ten_minutes_together(tmp_path):
    for small in (False, True):
        parts = list_parts(Settings(small, tmp_path))
        assert sum(part.seconds for part in parts) <= gpu.SECONDS == 600
        assert len({part.name for part in parts}) == len(parts)


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Figures and notes of all parts but the doctor's, at small size in this process."""
    pytest.importorskip("torch")
    from gpu_networks import make_card, write_graphs  # noqa: PLC0415

    settings = Settings(True, tmp_path_factory.mktemp("graphs"), seconds=0.01)
    figures, notes = {}, {}

    def keep(part):
        for name, value in part:
            keep_figure(name, value, figures, notes)

    keep(gpu.measure_providers(settings))
    keep(gpu.measure_rates(settings))
    keep(gpu.measure_torch(settings))
    # The encoder's graph is left out: its export takes as long as all else.
    next(write_graphs(make_card(small=True), settings.folder, half=False))
    keep(gpu.measure_provider(settings, CPU))
    return figures


@pytest.mark.slow
def test_every_network_is_measured_at_small_size(measured):
    cut, whole = "cut transformer, window", "whole transformer, window"
    step = "cached step, a new latent"
    ways = [f"torch eager: {name}" for name in (cut, step, whole, "VAE encoder, a new latent")]
    for way in (*ways, f"onnxruntime CPU: {cut}"):
        seconds = measured[f"{way} ms"] / 1000
        rate = measured[f"{way} TFLOP"] / seconds
        assert measured[f"{way} TFLOP/s"] == pytest.approx(rate)
        share = rate / measured["large product TFLOP/s"]
        assert measured[f"{way} % of large product"] == pytest.approx(100 * share)
    # Torch counts its run and the graph's module alike.
    assert measured[f"torch eager: {cut} TFLOP"] == measured[f"onnxruntime CPU: {cut} TFLOP"]
    assert measured[f"torch eager: {step} TFLOP"] < measured[f"torch eager: {cut} TFLOP"]
    assert measured[f"torch eager: {whole} TFLOP"] > measured[f"torch eager: {cut} TFLOP"]
    # Two latents of 4 x 8 x 12, and 24 cells of 24 channels.
    assert measured[f"onnxruntime CPU: {cut} MB to the GPU"] == pytest.approx(4e-6 * 2 * 4 * 96)
    assert measured[f"onnxruntime CPU: {cut} MB from the GPU"] > 0
    assert measured["provider CPU, encoder.onnx nodes %"] == 100


def test_parts_that_need_a_gpu_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "read_machine", lambda: Machine(**NOTHING, jetpack=None))
    with pytest.raises(NotPossibleError, match="no NVIDIA GPU"):
        next(gpu.measure_engines(Settings(False, tmp_path), "tensorrt"))
    with pytest.raises(NotPossibleError, match="graphs were not written"):
        next(gpu.measure_provider(Settings(True, tmp_path), CPU))


def test_the_result_file_is_written_as_figures_come(tmp_path, monkeypatch):
    """A machine with a GPU, whose name the file has; the second part never ends."""
    machine = Machine(**{**NOTHING, "gpu": "NVIDIA Orin (nvgpu)"}, jetpack="6.2")
    parts = [Part("works", 30, dict.items, ({"a ms": 1.5},)), Part("waits", 0.2, time.sleep, (9,))]
    monkeypatch.setattr(gpu, "read_machine", lambda: machine)
    monkeypatch.setattr(gpu, "list_parts", lambda _: parts)
    app = gpu.typer.Typer()
    app.command()(gpu.main)
    done = CliRunner().invoke(app, ["--json", "--folder", str(tmp_path)])
    assert done.exception is None, done.output
    (path,) = tmp_path.iterdir()
    assert path.name == "gpu--nvidia-orin-nvgpu.json"
    result = msgspec.json.decode(path.read_bytes(), type=ResultFile)
    assert path.name == result_files.file_name(result)
    assert result.figures == {"a ms": 1.5}
    assert result.notes == {"waits": "stopped: it took more than 0 s"}
