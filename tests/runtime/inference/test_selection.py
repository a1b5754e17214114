"""Which backend is taken, what it falls back from, and what is said of it."""

import json
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import msgspec
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from doubles.builds import QUIET
from doubles.engines import HERE, VERSIONS, build, warnings
from doubles.passthrough import write_passthrough
from vditrack import Tracker
from vditrack.engine_builder import run
from vditrack.engine_builder.engine import BuiltEngine
from vditrack.engine_builder.listing import list_builds
from vditrack.engine_builder.options import BuildOptions
from vditrack.errors import BackendError, InputError
from vditrack.inference import engine_loading as builds
from vditrack.inference import selection
from vditrack.inference.engine_identity import load_identity
from vditrack.inference.onnxruntime import CUDA, open_session
from vditrack.inference.selection import Fallback, open_backend
from vditrack.io.video import write_video


@pytest.fixture
def bundle(tmp_path):
    return write_passthrough(tmp_path / "bundle")


@pytest.fixture
def proved_by_azure(monkeypatch):
    """Stand-in: the one provider beside the CPU's that is installed here, called by CUDA's name."""
    opener = partial(selection._open_provider, "cuda", "AzureExecutionProvider")
    monkeypatch.setitem(selection._OPENERS, "cuda", opener)


def tracks(tracker):
    frames = np.random.default_rng(0).integers(0, 255, (6, 64, 96, 3), np.uint8)
    return tracker.track(frames, [[0, 20, 30], [2, 50, 40]])


def test_a_machine_without_a_gpu_takes_the_cpu_and_warns_of_nothing(bundle, caplog):
    tracker = Tracker.load(bundle.root)
    assert tracker.backend.name == "cpu"
    tried = [name for name, _ in tracker.backend.fallbacks]
    assert tried == ["tensorrt", "tensorrt-rtx", "cuda", "cpu-int8"]
    reasons = dict(tracker.backend.fallbacks)
    assert f"Run `vditrack build {bundle.root} --target tensorrt`" in reasons["tensorrt"]
    assert f"here has no {CUDA}. Run" in reasons["cuda"]
    assert warnings(caplog) == []


def test_the_cpu_is_not_proved(bundle):
    assert open_backend(bundle).open_graph is open_session
    assert open_backend(bundle, "cpu") == selection.Backend("cpu", open_session)


def test_the_threads_of_the_cpu_are_chosen(bundle):
    (graph, *_) = bundle.root.glob("*.onnx")
    for name in ("auto", "cpu"):
        session = open_backend(bundle, name, threads=3).open_graph(graph)
        assert session.session.get_session_options().intra_op_num_threads == 3


def test_a_provider_that_runs_every_graph_is_taken_and_opened_once(
    bundle, proved_by_azure, monkeypatch
):
    opened = []
    real = onnxruntime.InferenceSession

    def session(path, *arguments, **options):
        opened.append(path)
        return real(path, *arguments, **options)

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    tracker = Tracker.load(bundle.root)
    assert tracker.backend.name == "cuda"
    assert [name for name, _ in tracker.backend.fallbacks] == ["tensorrt", "tensorrt-rtx"]
    assert opened == [str(bundle.encoder), str(bundle.features)]


def test_the_graph_of_the_first_frame_is_proved_too(tmp_path, proved_by_azure):
    bundle = write_passthrough(tmp_path, frames=5, cached=True, temporal_stride=4)
    open_graph = open_backend(bundle, "cuda").open_graph
    graphs = (bundle.encoder, bundle.encoder_start, bundle.features)
    assert len({id(open_graph(graph)) for graph in graphs}) == 3


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_silently_left_out_is_warned_of(bundle, monkeypatch, caplog):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    chosen = open_backend(bundle)
    assert chosen.name == "cpu"
    (warning,) = warnings(caplog)
    assert warning == f"backend cuda: {dict(chosen.fallbacks)['cuda']}"
    assert f"its {CUDA} did not start" in warning


def test_numbers_that_are_not_finite_prove_nothing(tmp_path, proved_by_azure):
    bundle = write_passthrough(tmp_path, context=float("nan"))
    chosen = open_backend(bundle)
    assert chosen.name == "cpu"
    assert "output 'descriptors' are NaN or infinite" in dict(chosen.fallbacks)["cuda"]
    # Nor is the CPU, of which there is no proof, allowed to give them.
    with pytest.raises(BackendError, match=r"features\.onnx gives wrong results: .*BF16 or FP32"):
        tracks(Tracker.load(bundle.root))


def test_a_graph_that_fails_to_run_proves_nothing(bundle, proved_by_azure):
    gather = helper.make_node("Gather", ["latents", "beyond"], ["descriptors"])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [gather],
        "features",
        [value("latents", TensorProto.FLOAT, [1, 3, 4, 8, 12])],
        [value("descriptors", TensorProto.FLOAT, [1, 3, 4, 8, 12])],
        [onnx.numpy_helper.from_array(np.array([99]), "beyond")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, bundle.features)
    reason = r"backend cuda: .*features\.onnx loads but fails to run: .*out of .*bounds"
    with pytest.raises(BackendError, match=reason):
        open_backend(bundle, "cuda")


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_an_engine_that_fits_runs_the_tracker(bundle, gpu, target):
    build(bundle, target)
    by_engine, by_cpu = Tracker.load(bundle.root), Tracker.load(bundle.root, "cpu")
    assert (by_engine.backend.name, by_cpu.backend.name) == (target, "cpu")
    for name in ("points", "visible", "confidence", "forward_backward_error"):
        found, expected = (getattr(tracks(each), name) for each in (by_engine, by_cpu))
        np.testing.assert_array_equal(found, expected)


def test_tensorrt_comes_before_tensorrt_rtx(bundle, gpu):
    for target in ("tensorrt-rtx", "tensorrt"):
        build(bundle, target)
    chosen = open_backend(bundle)
    assert (chosen.name, chosen.engine.version) == ("tensorrt", VERSIONS["tensorrt"])
    assert open_backend(bundle, "tensorrt-rtx").name == "tensorrt-rtx"


@pytest.mark.parametrize("target", ["tensorrt", "tensorrt-rtx"])
def test_a_build_is_known_by_its_identity(bundle, gpu, target):
    folder = build(bundle, target)
    folder.rename(folder.with_name("tensorrt-rtx-for-the-robot"))
    assert open_backend(bundle).name == target


def test_a_folder_that_is_no_build_is_named_if_no_build_fits(bundle, gpu):
    (bundle.root / "engines" / "tensorrt-rtx-1.7.1.116-sm86").mkdir(parents=True)
    with pytest.raises(BackendError, match=r"sm86: .*identity\.json cannot be read"):
        open_backend(bundle, "tensorrt-rtx")
    build(bundle, "tensorrt-rtx", architecture="sm86")
    assert open_backend(bundle, "tensorrt-rtx").name == "tensorrt-rtx"


def test_the_newest_build_that_fits_is_taken(bundle, gpu):
    folder = build(bundle, "tensorrt-rtx")
    folder.rename(folder.with_name("a"))
    newest = build(bundle, "tensorrt-rtx")
    assert open_backend(bundle).engine == load_identity(newest)


def test_a_reader_meets_the_old_build_or_the_new_one(bundle, gpu, monkeypatch):
    """While a build is replaced again and again."""
    monkeypatch.setattr(run, "read_machine", lambda: HERE)
    shapes = {"frames": ((1, 64, 96, 3),) * 3}

    def engine(_library, graph, *_):
        return BuiltEngine(str(graph).encode(), {"fp32": 1.0}, shapes, None)

    monkeypatch.setattr(run, "check_graph", lambda *_: None)
    monkeypatch.setattr(run, "build_engine", engine)
    options = BuildOptions("tensorrt-rtx", ("sm86",))
    folders = [run.build_bundle(bundle, options, QUIET)[0]]
    opened = []

    def replace_builds():
        for count in range(12):
            folders.append(run.build_bundle(bundle, options, QUIET)[0])
            while len(opened) <= count:
                time.sleep(0.001)

    with ThreadPoolExecutor(1) as thread:
        writing = thread.submit(replace_builds)
        try:
            while not writing.done():
                opened.append(open_backend(bundle, "tensorrt-rtx").name)
                assert all(build.identity is not None for build in list_builds(bundle))
                time.sleep(0.001)  # The writer waits for the reader's lock.
        finally:
            # The writer waits for no more.
            opened.extend([""] * 12)
        writing.result()
    assert len(set(folders)) == len(folders)
    assert list((bundle.root / "engines").iterdir()) == folders[-1:]


def test_among_builds_the_one_that_fits_is_taken(bundle, gpu, caplog):
    build(bundle, "tensorrt-rtx", version="1.6.0.1")
    build(bundle, "tensorrt-rtx")
    chosen = open_backend(bundle)
    assert chosen.name == "tensorrt-rtx"
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (
            {"version": "1.6.0.1"},
            r"built by TensorRT-RTX 1\.6\.0\.1; this machine has 1\.7\.1\.116",
        ),
        ({"architecture": "sm120"}, "built for SM120; this machine has SM86"),
    ],
)
def test_an_engine_that_does_not_fit_is_not_loaded(bundle, gpu, caplog, made, reason):
    folder = build(bundle, "tensorrt-rtx", **made)
    chosen = open_backend(bundle)
    assert (chosen.name, gpu.calls) == ("cpu", [])
    (warning,) = warnings(caplog)
    assert folder.name in warning and "vditrack build" in warning
    with pytest.raises(BackendError, match=rf"backend tensorrt-rtx: {folder.name}: .*{reason}"):
        open_backend(bundle, "tensorrt-rtx")


def test_a_truncated_engine_is_not_loaded(bundle, gpu):
    path = build(bundle, "tensorrt-rtx") / "features.engine"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(BackendError, match=r"features\.engine has [0-9]+ bytes instead of"):
        open_backend(bundle, "tensorrt-rtx")
    assert open_backend(bundle).name == "cpu"
    assert gpu.calls == []


def test_an_engine_that_gives_no_numbers_is_not_taken(tmp_path, gpu, caplog):
    bundle = write_passthrough(tmp_path / "bundle", context=float("nan"))
    build(bundle, "tensorrt-rtx")
    chosen = open_backend(bundle)
    assert chosen.name == "cpu"
    assert isinstance(chosen.fallbacks[1], Fallback)
    assert "gives wrong results" in chosen.fallbacks[1].reason
    assert len(warnings(caplog)) == 1


def test_engines_run_on_the_gpu_that_is_chosen(bundle, gpu):
    build(bundle, "tensorrt-rtx")
    gpu.devices = 2
    for device, current in ((None, 0), (1, 1), (0, 0)):
        chosen = open_backend(bundle, selection.name_backend("auto", device))
        assert (chosen.name, gpu.current) == ("tensorrt-rtx", current)


def test_a_gpu_that_is_absent_is_refused(bundle, gpu):
    build(bundle, "tensorrt-rtx")
    reason = r"there is no GPU 1: CUDA finds 1, counted from 0. Give another --device"
    with pytest.raises(BackendError, match=rf"backend tensorrt-rtx: .*{reason}"):
        open_backend(bundle, "tensorrt-rtx:1")
    # The CPU does not take its place.
    with pytest.raises(BackendError, match=rf"no backend runs .* on GPU 1\. .*{reason}"):
        open_backend(bundle, "auto:1")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("cpu:0", "the backend cpu runs on no GPU"),
        ("cpu-int8:1", "the backend cpu-int8 runs on no GPU"),
        ("auto:-1", "'-1' is no GPU: they are counted from 0"),
    ],
)
def test_a_gpu_that_a_backend_cannot_have_is_refused(bundle, name, reason):
    with pytest.raises(InputError, match=reason):
        open_backend(bundle, name)


def test_an_engine_without_a_driver_says_so(bundle, monkeypatch):
    # The machine's facts are made up; cuda-python's refusal is real.
    monkeypatch.setattr(builds, "read_machine", lambda device=0: HERE)
    build(bundle, "tensorrt-rtx")
    with pytest.raises(BackendError, match=r"CUDA's \w+ failed|does not load"):
        open_backend(bundle, "tensorrt-rtx")


def test_flags_of_a_build_are_heeded(bundle, gpu, monkeypatch):
    asked = []
    session = builds.EngineSession

    def recorded(path, target, **options):
        asked.append((path.name, options))
        return session(path, target)

    monkeypatch.setattr(builds, "EngineSession", recorded)
    build(bundle, "tensorrt", flags=("version_compatible", "strip_weights"))
    with pytest.raises(BackendError, match=r"brings code for the CPU.*--allow-host-code"):
        Tracker.load(bundle.root, "tensorrt")
    assert asked == []
    Tracker.load(bundle.root, "tensorrt", allow_host_code=True)
    wanted = [("encoder.engine", bundle.encoder), ("features.engine", bundle.features)]
    for (name, options), (engine, graph) in zip(asked, wanted, strict=True):
        assert name == engine
        assert options["host_code"] is True
        assert options["weights"] == graph


def test_an_unknown_name_is_refused(bundle):
    with pytest.raises(InputError, match=r"no backend 'gpu'\. Give one of auto, tensorrt,"):
        open_backend(bundle, "gpu")


def test_every_name_can_be_opened():
    names = set(msgspec.inspect.type_info(selection.BackendName).values)
    assert names == {"auto", "cpu", *selection._OPENERS}
    assert set(selection.ORDER) <= names


def test_the_command_line_takes_a_backend(tmp_path, run_vditrack):
    frames = np.random.default_rng(0).integers(0, 255, (3, 64, 96, 3), np.uint8)
    write_video(tmp_path / "clip.mp4", frames, np.arange(3) / 10)
    arguments = ("track", "clip.mp4", "--grid", "2")
    refused = run_vditrack(*arguments, "--backend", "cuda", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("vditrack: backend cuda: ")
    assert refused.stderr.count("\n") == 1
    assert f"no {CUDA}. Run `pip uninstall -y onnxruntime && pip install" in refused.stderr
    assert not (tmp_path / "clip_tracks").exists()
    others = (("eval", "synthetic:0"), ("inspect", "--verify"), ("calibrate", "bundle"))
    for verb in (arguments, ("bench",), *others):
        refused = run_vditrack(*verb, "--device", "99", cwd=tmp_path)
        assert refused.returncode == 2
        # Nothing was rendered or decoded before.
        assert refused.stderr.startswith("vditrack: --device 99: ")
    refused = run_vditrack("inspect", "--device", "0", cwd=tmp_path)
    assert "--device is for --verify" in refused.stderr
    refused = run_vditrack("bench", "--device", "-1", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.startswith("Usage:") and "--device" in refused.stderr
    done = run_vditrack(*arguments, "--backend", "cpu", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["backend"] == "cpu"
    assert done.stderr == ""


@pytest.mark.slow
def test_bench_and_demo_take_a_backend(tmp_path, run_vditrack):
    for verb in ("bench", "demo"):
        refused = run_vditrack(verb, "--backend", "tensorrt", "--json", cwd=tmp_path)
        assert refused.returncode == 2
        assert "has no engine for tensorrt" in refused.stderr


@pytest.mark.slow
def test_no_engine_is_imported_before_it_is_needed():
    code = """
import sys, vditrack.cli.app
print([name for name in ("onnxruntime", "tensorrt", "tensorrt_rtx", "cuda") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
