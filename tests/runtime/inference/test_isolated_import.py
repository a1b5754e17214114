"""A library that crashes when it is imported is a reason, and not the end of the process."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import onnxruntime
import pytest

from doubles.engines import build
from doubles.passthrough import write_passthrough
from vditrack import Tracker
from vditrack.engine_builder.library import import_library
from vditrack.errors import BackendError, EngineError
from vditrack.inference import engine_library, isolated_import
from vditrack.inference.isolated_import import find_plugin_crash, import_isolated
from vditrack.inference.machine import read_machine

CRASHES = {
    "import ctypes; ctypes.string_at(0)": "crashes with SIGSEGV",
    "import os; os.abort()": "crashes with SIGABRT",
    "import os; os._exit(3)": "ends the process with exit code 3",
    "raise SystemExit(0)": "ends the process with exit code 0",
    "raise RuntimeError('no licence')": "RuntimeError: no licence",
    "import absent_library": "No module named 'absent_library'",
}


@pytest.fixture
def tensorrt_that(monkeypatch, tmp_path):
    """Install a TensorRT whose import runs the code given."""

    def install(code):
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "tensorrt.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path / "site")
        monkeypatch.delitem(sys.modules, "tensorrt", raising=False)

    return install


@pytest.mark.parametrize("code", CRASHES)
def test_a_crash_is_a_reason(tensorrt_that, code):
    tensorrt_that(code)
    with pytest.raises(EngineError, match=CRASHES[code]):
        import_library("tensorrt")
    assert read_machine().tensorrt is None
    with pytest.raises(BackendError, match=CRASHES[code]):
        engine_library.import_library("tensorrt")


def test_a_bundle_with_engines_still_runs_on_the_cpu(tensorrt_that, tmp_path):
    tensorrt_that("import os; os.abort()")
    bundle = write_passthrough(tmp_path / "bundle")
    build(bundle, "tensorrt")
    tracker = Tracker.load(bundle.root)
    assert tracker.backend.name == "cpu"
    assert "crashes with SIGABRT" in dict(tracker.backend.fallbacks)["tensorrt"]


def test_a_library_is_tried_once_and_only_if_it_is_there(monkeypatch):
    isolated_import._find_crash.cache_clear()
    started = []
    run = subprocess.run

    def counted(command, **options):
        started.append(command)
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", counted)
    with pytest.raises(ModuleNotFoundError):
        import_isolated("absent_library")
    assert started == []
    assert find_spec("wave") is not None
    for _ in range(2):
        monkeypatch.delitem(sys.modules, "wave", raising=False)
        assert import_isolated("wave").Wave_read
    assert len(started) == 1
    import_isolated("wave")
    assert len(started) == 1


def test_a_plug_in_of_onnx_runtime_that_is_cut_short_is_a_reason(tmp_path):
    library = tmp_path / "library.so"
    library.write_bytes(b"no library")
    # ONNX Runtime itself says what is wrong with it.
    assert find_plugin_crash(str(library)) is None
    whole = Path(onnxruntime.__file__).parent / "capi" / "libonnxruntime_providers_shared.so"
    cut = tmp_path / "cut.so"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    assert find_plugin_crash(str(cut)) == "crashes with SIGBUS"
