"""Sessions: on ONNX Runtime's providers, and on engines with a double in the place of the GPU."""

import gc
import re
import sys
import threading

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx
from cuda.bindings import runtime
from onnx import TensorProto, helper

from doubles import cuda as cuda_double
from doubles.cuda import CudaDouble, library_double, write_engine
from doubles.passthrough import write_passthrough
from vditrack.errors import BackendError, install_command
from vditrack.inference import onnxruntime as backend
from vditrack.inference.cuda import Gpu
from vditrack.inference.onnxruntime import CUDA, TENSORRT, TENSORRT_RTX, OnnxRuntimeSession
from vditrack.inference.session import AbsentError
from vditrack.inference.tensorrt import EngineSession

AZURE = "AzureExecutionProvider"
"""The one provider beside the CPU's that ONNX Runtime's CPU wheel has; it leaves it all nodes."""


@pytest.fixture
def bundle(tmp_path):
    return write_passthrough(tmp_path / "bundle", frames=5, cached=True, temporal_stride=4)


@pytest.fixture
def cuda(monkeypatch):
    """Double: this machine has no GPU."""
    double = CudaDouble()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", double)
    return double


@pytest.fixture(params=["tensorrt", "tensorrt-rtx"])
def target(request, monkeypatch, cuda):
    """Each library, with doubles of its engines."""
    install(monkeypatch, request.param, library_double(cuda))
    return request.param


def install(monkeypatch, target, library):
    monkeypatch.setitem(sys.modules, target.replace("-", "_"), library)


def random_inputs(session, seed):
    draw = np.random.default_rng(seed)
    return {
        name: draw.integers(0, 200, tensor.shape).astype(tensor.dtype)
        for name, tensor in session.inputs.items()
    }


def check_equal(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        np.testing.assert_array_equal(found[name], array)


# --- engines -------------------------------------------------------------------------------------


def test_an_engine_gives_what_its_graph_gives(bundle, target, tmp_path):
    engine = EngineSession(write_engine(tmp_path / "encoder.engine", bundle.encoder), target)
    graph = OnnxRuntimeSession(bundle.encoder)
    assert (engine.inputs, engine.outputs) == (graph.inputs, graph.outputs)
    assert len(engine.inputs) == 3 and len(engine.outputs) == 3
    kept, states = [], (engine.new_state(), graph.new_state())
    for seed in range(3):
        inputs = {"frames": random_inputs(graph, seed)["frames"]}
        runs = zip((engine, graph), states, strict=True)
        kept.append([session.run(inputs, state) for session, state in runs])
    # What a run gave stays as it was when the next one runs.
    for found, expected in kept:
        check_equal(found, expected)


def test_runs_of_several_threads_follow_each_other(bundle, target, tmp_path):
    engine = EngineSession(write_engine(tmp_path / "features.engine", bundle.features), target)
    graph = OnnxRuntimeSession(bundle.features)
    inputs = [random_inputs(graph, seed) for seed in range(8)]
    found = [None] * len(inputs)

    def run(index):
        for _ in range(10):
            found[index] = engine.run(inputs[index])

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(inputs))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for given, taken in zip(found, inputs, strict=True):
        check_equal(given, graph.run(taken))


def test_memory_is_allocated_once_and_given_back(bundle, target, cuda, tmp_path):
    engine = EngineSession(write_engine(tmp_path / "encoder.engine", bundle.encoder), target)
    frames, latents = (engine.inputs["frames"].nbytes, engine.outputs["latents"].nbytes)
    # Only what crosses is pinned.
    assert sorted(len(block) for block in cuda.host.values()) == sorted([frames, latents])
    inputs, state = {"frames": random_inputs(engine, 0)["frames"]}, engine.new_state()
    engine.run(inputs, state)
    before = set(cuda.device), set(cuda.host)
    for _ in range(3):
        engine.run(inputs, state)
    assert (set(cuda.device), set(cuda.host)) == before
    del engine, state
    gc.collect()
    assert cuda.left == []


def test_tensorrt_is_launched_as_one_recorded_graph(bundle, monkeypatch, cuda, tmp_path):
    install(monkeypatch, "tensorrt", library_double(cuda))
    path = write_engine(tmp_path / "features.engine", bundle.features)
    engine, graph = EngineSession(path, "tensorrt"), OnnxRuntimeSession(bundle.features)
    for seed in range(3):
        inputs = random_inputs(engine, seed)
        check_equal(engine.run(inputs), graph.run(inputs))
    # Once before it is recorded: the first run does what cannot be.
    assert cuda.calls == ["execute", "launch", "launch"]


def test_what_cannot_be_recorded_is_executed(bundle, monkeypatch, cuda, tmp_path):
    cuda.records = False
    install(monkeypatch, "tensorrt", library_double(cuda))
    path = write_engine(tmp_path / "features.engine", bundle.features)
    engine, graph = EngineSession(path, "tensorrt"), OnnxRuntimeSession(bundle.features)
    for seed in range(3):
        inputs = random_inputs(engine, seed)
        check_equal(engine.run(inputs), graph.run(inputs))
    assert cuda.calls == ["execute"] * 3


def test_tensorrt_rtx_records_by_itself_and_keeps_what_it_compiled(
    bundle, monkeypatch, cuda, tmp_path
):
    engines = []
    install(monkeypatch, "tensorrt-rtx", library_double(cuda, engines=engines))
    path = write_engine(tmp_path / "build" / "encoder.engine", bundle.features)
    kept = tmp_path / "build" / "encoder.runtime_cache"
    EngineSession(path, "tensorrt-rtx", cache=kept)
    (config,) = engines[0].configs
    assert config.cuda_graph_strategy == tensorrt_rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    assert kept.read_bytes() == b"compiled"
    # A cache that it takes is not written again; one that it refuses is replaced.
    written = kept.stat().st_mtime_ns
    EngineSession(path, "tensorrt-rtx", cache=kept)
    assert kept.stat().st_mtime_ns == written
    kept.write_bytes(b"of another driver")
    EngineSession(path, "tensorrt-rtx", cache=kept)
    given = [engine.configs[0].compiled.given for engine in engines]
    assert given == [b"", b"compiled", b"of another driver"]
    assert kept.read_bytes() == b"compiled"
    # It goes with the build's folder, and nothing is left beside it.
    names = {"encoder.engine", "encoder.runtime_cache"}
    assert {entry.name for entry in path.parent.iterdir()} == names
    assert [entry.name for entry in path.parent.parent.glob("*build*")] == ["build"]


def test_a_version_compatible_engine_may_bring_its_runtime(bundle, monkeypatch, cuda, tmp_path):
    engines = []
    install(monkeypatch, "tensorrt", library_double(cuda, engines=engines))
    path = write_engine(tmp_path / "encoder.engine", bundle.encoder)
    EngineSession(path, "tensorrt")
    EngineSession(path, "tensorrt", host_code=True)
    assert [engine.host_code for engine in engines] == [False, True]


def test_stripped_weights_come_from_the_graph(bundle, monkeypatch, cuda, tmp_path):
    given = []
    install(monkeypatch, "tensorrt", library_double(cuda, refits=given))
    path = write_engine(tmp_path / "encoder.engine", bundle.encoder)
    EngineSession(path, "tensorrt", weights=bundle.encoder)
    assert given == [str(bundle.encoder), "refitted"]
    with pytest.raises(BackendError, match=r"does not accept the weights of .*features\.onnx"):
        EngineSession(path, "tensorrt", weights=bundle.features)


def test_out_of_memory_is_named(bundle, target, cuda, tmp_path):
    cuda.memory = 1000
    with pytest.raises(
        BackendError, match=r"cudaMalloc failed: out of GPU memory.* Close other programs"
    ):
        EngineSession(write_engine(tmp_path / "encoder.engine", bundle.encoder), target)
    gc.collect()
    assert cuda.left == []


def test_an_engine_that_takes_no_work_is_refused(bundle, monkeypatch, cuda, tmp_path):
    install(monkeypatch, "tensorrt", library_double(cuda, executes=False))
    path = write_engine(tmp_path / "features.engine", bundle.features)
    engine = EngineSession(path, "tensorrt")
    reason = r"features\.engine loads but fails to run: the library gives no reason"
    with pytest.raises(BackendError, match=reason):
        engine.run(random_inputs(engine, 0))


def test_an_address_that_is_refused_is_named(bundle, monkeypatch, cuda, tmp_path):
    install(monkeypatch, "tensorrt", library_double(cuda, accepts=False))
    path = write_engine(tmp_path / "features.engine", bundle.features)
    engine = EngineSession(path, "tensorrt")
    with pytest.raises(BackendError, match=r"tensor 'latents' takes no address"):
        engine.run(random_inputs(engine, 0))


def test_work_that_is_not_launched_is_noticed(bundle, target, cuda, tmp_path):
    path = write_engine(tmp_path / "features.engine", bundle.features)
    engine = EngineSession(path, target)
    cuda.last_error = "cudaErrorLaunchFailure"
    with pytest.raises(BackendError, match=r"cudaGetLastError failed: .*LaunchFailure"):
        engine.run(random_inputs(engine, 0))


def test_the_real_library_says_why_it_does_not_load(cuda, tmp_path):
    if not int(runtime.cudaGetDeviceCount()[0]):
        pytest.skip("this machine has a GPU, which the double hides")
    path = tmp_path / "encoder.engine"
    path.write_bytes(b"not an engine, though long enough for the header of one" * 10)
    # The library's stream reader looks for the driver.
    reason = r"TensorRT-RTX [\d.]+ does not load .*encoder\.engine: .*cuda driver"
    with pytest.raises(BackendError, match=reason):
        EngineSession(path, "tensorrt-rtx")


def test_without_a_driver_cuda_says_so():
    code, _ = runtime.cudaGetDeviceCount()
    if not int(code):
        pytest.skip("this machine has a GPU")
    with pytest.raises(BackendError, match=r"CUDA's cudaGetDeviceCount failed: .*driver"):
        Gpu()


@pytest.mark.parametrize(
    ("module", "target", "message"),
    [
        ("tensorrt", "tensorrt", "TensorRT is not installed"),
        ("tensorrt_rtx", "tensorrt-rtx", "TensorRT-RTX is not installed"),
        ("cuda.bindings.runtime", "tensorrt-rtx", "pip install cuda-bindings"),
    ],
)
def test_a_missing_library_is_named(monkeypatch, tmp_path, module, target, message):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AbsentError, match=message):
        EngineSession(tmp_path / "encoder.engine", target)


def test_the_doubles_have_nothing_that_the_libraries_lack():
    calls = {name for name in vars(CudaDouble) if name.startswith("cuda")}
    assert calls <= set(dir(runtime))
    assert set(cuda_double.CONTEXT) <= set(dir(tensorrt_rtx.IExecutionContext))
    assert set(cuda_double.ENGINE) <= set(dir(tensorrt_rtx.ICudaEngine))
    assert set(cuda_double.CONFIG) <= set(dir(tensorrt_rtx.IRuntimeConfig))
    assert {"read", "seek"} <= set(dir(tensorrt_rtx.IStreamReaderV2))
    assert {"serialize", "deserialize"} <= set(dir(tensorrt_rtx.IRuntimeCache))
    assert {"engine_host_code_allowed", "deserialize_cuda_engine"} <= set(dir(tensorrt_rtx.Runtime))
    assert "refit_from_file" in dir(tensorrt_rtx.OnnxParserRefitter)
    assert "refit_cuda_engine" in dir(tensorrt_rtx.Refitter)


# --- ONNX Runtime --------------------------------------------------------------------------------


def test_a_provider_beside_the_cpu_runs(bundle):
    graph = OnnxRuntimeSession(bundle.encoder)
    inputs = random_inputs(graph, 0)
    check_equal(OnnxRuntimeSession(bundle.encoder, AZURE).run(inputs), graph.run(inputs))


@pytest.mark.parametrize(
    ("provider", "remedy"),
    [
        (CUDA, rf"&& {re.escape(install_command('gpu'))}`"),
        (TENSORRT, rf"&& {re.escape(install_command('gpu'))}`"),
        (TENSORRT_RTX, "`pip install onnxruntime-ep-nv-tensorrt-rtx`"),
    ],
)
def test_a_provider_that_is_not_installed_is_named(bundle, provider, remedy):
    with pytest.raises(AbsentError, match=f"{provider}.* {remedy}"):
        OnnxRuntimeSession(bundle.encoder, provider)


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_silently_left_out_is_noticed(bundle, monkeypatch):
    # ONNX Runtime itself then takes the CPU, as its GPU wheel does without CUDA's libraries.
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    with pytest.raises(BackendError, match=f"chose CPUExec.* its {CUDA} did not"):
        OnnxRuntimeSession(bundle.encoder, CUDA)


def test_a_provider_that_raises_gives_its_reason(bundle, monkeypatch):
    def session(*args, **options):
        raise RuntimeError("CUDA failure 100: no CUDA-capable device is detected")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(BackendError, match=rf"encoder\.onnx on its {CUDA}: CUDA failure 100"):
        OnnxRuntimeSession(bundle.encoder, CUDA)


@pytest.mark.parametrize("provider", [CUDA, TENSORRT])
def test_a_gpu_is_chosen_by_its_number(bundle, monkeypatch, provider):
    given = []

    def session(*args, providers, **options):
        given.extend(providers)
        raise RuntimeError("CUDA failure 101: invalid device ordinal")

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [TENSORRT, CUDA])
    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(BackendError, match="invalid device ordinal"):
        OnnxRuntimeSession(bundle.encoder, provider, device=3)
    options = dict(given)
    assert [options[name]["device_id"] for name in dict.fromkeys([provider, CUDA])] == (
        ["3"] * len({provider, CUDA})
    )
    # The default search takes gigabytes and seconds at the first run.
    assert options[CUDA]["cudnn_conv_algo_search"] == "HEURISTIC"
    assert options[CUDA]["arena_extend_strategy"] == "kSameAsRequested"


def test_a_plugin_that_does_not_load_gives_its_reason(bundle, monkeypatch, tmp_path):
    # Double: the wheel, with a library that is none; ONNX Runtime's refusal is its own.
    library = tmp_path / "libonnxruntime_providers_nv_tensorrt_rtx.so"
    library.write_bytes(b"no library")
    (tmp_path / "onnxruntime_ep_nv_tensorrt_rtx.py").write_text(
        f"def get_library_path():\n    return {str(library)!r}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    backend._plugin_devices.cache_clear()
    with pytest.raises(BackendError, match=f"{TENSORRT_RTX} does not load: .*{library.name}"):
        OnnxRuntimeSession(bundle.encoder, TENSORRT_RTX)
    sys.modules.pop("onnxruntime_ep_nv_tensorrt_rtx")


def half_graph(folder, weight):
    """A graph y = x + weight in FP16."""
    value = helper.make_tensor_value_info
    node = helper.make_node("Add", ["x", "weight"], ["y"])
    sides = value("x", TensorProto.FLOAT16, [3]), value("y", TensorProto.FLOAT16, [3])
    weights = [onnx.numpy_helper.from_array(np.array([0, 0, weight], np.float16), "weight")]
    graph = helper.make_graph([node], "halves", [sides[0]], [sides[1]], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, folder / "halves.onnx")
    return OnnxRuntimeSession(folder / "halves.onnx")


@pytest.mark.parametrize("weight", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite_are_refused_at_every_run(tmp_path, weight):
    session = half_graph(tmp_path, weight)
    reason = r"halves\.onnx gives wrong results: 1 of the 3 values of its output 'y'"
    for _ in range(2):
        with pytest.raises(BackendError, match=reason):
            session.run({"x": np.zeros(3, np.float16)})


def test_the_largest_half_is_finite_and_its_double_is_not(tmp_path):
    session = half_graph(tmp_path, 65504)
    assert session.run({"x": np.zeros(3, np.float16)})["y"].tolist() == [0, 0, 65504]
    with pytest.raises(BackendError, match="FP16, numbers above 65504 overflow"):
        session.run({"x": np.full(3, 65504, np.float16)})


def test_an_engine_gives_no_numbers_that_are_not_finite(target, tmp_path):
    bundle = write_passthrough(tmp_path / "bundle", context=float("nan"))
    engine = EngineSession(write_engine(tmp_path / "features.engine", bundle.features), target)
    with pytest.raises(BackendError, match=r"features\.engine gives wrong results: .*BF16"):
        engine.run(random_inputs(engine, 0))


def test_a_run_that_fails_names_the_graph(bundle, target, tmp_path):
    graph = OnnxRuntimeSession(bundle.encoder)
    engine = EngineSession(write_engine(tmp_path / "encoder.engine", bundle.encoder), target)
    for session, name in ((graph, r"encoder\.onnx"), (engine, r"encoder\.engine")):
        inputs = random_inputs(session, 0)
        state = session.new_state()
        for wrong in ({}, {"frames": inputs["frames"].astype(np.float64)}):
            with pytest.raises(BackendError, match=f"{name} loads but fails to run: "):
                session.run(wrong, state)


def test_an_unknown_type_is_refused(tmp_path):
    value = helper.make_tensor_value_info
    node = helper.make_node("Identity", ["a"], ["b"])
    sides = value("a", TensorProto.DOUBLE, [2]), value("b", TensorProto.DOUBLE, [2])
    graph = helper.make_graph([node], "doubles", [sides[0]], [sides[1]])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "doubles.onnx")
    with pytest.raises(BackendError, match=r"tensor 'a' is tensor\(double\) \[2\]"):
        OnnxRuntimeSession(tmp_path / "doubles.onnx")
