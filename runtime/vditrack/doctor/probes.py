"""The questions, each run in a process of its own (`vditrack.doctor.child`).

A probe takes and returns what JSON holds, and raises whatever goes wrong.
"""

import ctypes
import site
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from importlib import import_module, metadata
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

Told = dict[str, Any]

CPU = "CPUExecutionProvider"
PLUG_IN = "onnxruntime_ep_"
"""What the names of the modules begin with that bring a provider of their own."""
STEP, LENGTH = 2, 8
"""The clip of the real track: pixels from frame to frame, and frames."""


def version(module: str, wheel: str) -> Told:
    """Import a module; some say their version only in the metadata of their wheel."""
    loaded = import_module(module)
    return {"version": getattr(loaded, "__version__", None) or metadata.version(wheel)}


def providers() -> Told:
    """Name the providers ONNX Runtime offers, the provider libraries beside it, and plug-ins."""
    import onnxruntime  # noqa: PLC0415

    folder = Path(onnxruntime.__file__).parent / "capi"
    libraries = sorted(path.name for path in folder.glob("libonnxruntime_providers_*.so"))
    plug_ins = [found.name for found in iter_modules() if found.name.startswith(PLUG_IN)]
    return {
        "version": onnxruntime.__version__,
        "offered": onnxruntime.get_available_providers(),
        "libraries": [name for name in libraries if "_shared" not in name],
        "plug_ins": plug_ins,
    }


def provider(name: str) -> Told:
    """Multiply two matrices on a provider that ONNX Runtime offers."""
    import onnxruntime  # noqa: PLC0415

    # CUDA's libraries may lie in wheels, where the loader does not look.
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()
    return _prove(name, lambda options: {"sess_options": options, "providers": [name]})


def plug_in(module: str) -> Told:
    """Multiply two matrices on the provider of a plug-in wheel."""
    import onnxruntime  # noqa: PLC0415

    wheel = import_module(module)
    name = wheel.get_ep_name()
    onnxruntime.register_execution_provider_library(name, wheel.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        return {"devices": 0}

    def on_its_device(options: Any) -> Told:  # noqa: ANN401 - ONNX Runtime ships no types
        options.add_provider_for_devices(devices[:1], {})
        return {"sess_options": options}

    return _prove(name, on_its_device)


def _prove(name: str, ask_for: Callable[[Any], Told]) -> Told:
    """Run the product; ``ask_for`` names the provider in the session's arguments."""
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    from vditrack.doctor.product import SIDE, product_graph  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    if name != CPU:
        # Else ONNX Runtime runs on the CPU what the provider does not take, and says nothing.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(product_graph(), **ask_for(options), enable_fallback=0)
    used = session.get_providers()
    if name not in used:
        raise RuntimeError(f"ONNX Runtime took {', '.join(used)} in its place, without an error")
    # Small whole numbers: their product is exact in every format a provider may compute in.
    x = np.random.default_rng(0).integers(-2, 3, (SIDE, SIDE)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    if not np.array_equal(y, x @ x):
        raise RuntimeError("its product of two matrices is wrong")
    return {"devices": 1}


def machine() -> Told:
    """Ask for the first GPU, the driver and JetPack."""
    from vditrack.inference.machine import read_machine  # noqa: PLC0415

    # A TensorRT that crashes has its own line, and must not spoil this one: None stops its import.
    sys.modules.update(dict.fromkeys(("tensorrt", "tensorrt_rtx")))  # type: ignore[arg-type]
    return asdict(read_machine())


def cuda_runtime() -> Told:
    """Load CUDA's runtime library and ask for its version, 1000 major + 10 minor."""
    library, place = _loaded("libcudart.so.13", "libcudart.so.12")
    number = ctypes.c_int()
    if error := library.cudaRuntimeGetVersion(ctypes.byref(number)):
        raise RuntimeError(f"cudaRuntimeGetVersion fails with error {error}")
    return {"version": f"{number.value // 1000}.{number.value % 1000 // 10}", "place": place}


def cudnn() -> Told:
    """Load cuDNN 9 and ask for its version, 10000 major + 100 minor + patch."""
    library, place = _loaded("libcudnn.so.9")
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = library.cudnnGetVersion()
    parts = (number // 10000, number % 10000 // 100, number % 100)
    return {"version": ".".join(map(str, parts)), "place": place}


def _loaded(*names: str) -> tuple[ctypes.CDLL, str]:
    """Load the first of the libraries there is: where the loader looks, or in NVIDIA's wheels."""
    wheels = [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    for name in names:
        for place in (name, *(path for at in wheels for path in at.glob(f"nvidia/*/lib/{name}"))):
            try:
                return ctypes.CDLL(str(place)), str(place)
            except OSError as error:
                # A library that is not there is looked for elsewhere; a damaged one is named.
                if "No such file" not in str(error):
                    raise
    raise FileNotFoundError(f"{' or '.join(names)} is not there")


def tensorrt(module: str) -> Told:
    """Import TensorRT or TensorRT-RTX, which loads its library, and make a builder."""
    library: Any = import_module(module)
    told: Told = {"version": library.__version__, "builds": False}
    # TensorRT's builder needs a GPU and TensorRT-RTX's does not.
    if module == "tensorrt_rtx" or _driver_starts():
        library.Builder(library.Logger(library.Logger.ERROR))
        told["builds"] = True
    return told


def _driver_starts() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def ros() -> Told:
    """Import rclpy and load the RMW."""
    rclpy_utilities: Any = import_module("rclpy.utilities")
    return {"rmw": rclpy_utilities.get_rmw_implementation_identifier()}


def model() -> Told:
    """Check every file of the bundled model against its digest."""
    from vditrack.bundle.folder import bundled_model, load_bundle  # noqa: PLC0415

    manifest = load_bundle(bundled_model()).manifest
    return {"name": manifest.name, "files": len(manifest.files)}


def track() -> Told:
    """Follow a point through a picture that moves, by a known number of pixels a frame."""
    import numpy as np  # noqa: PLC0415

    from vditrack.tracker import Tracker  # noqa: PLC0415

    blocks = np.random.default_rng(0).integers(0, 256, (15, 20, 3), np.uint8)
    picture = np.kron(blocks, np.ones((8, 8, 1), np.uint8))
    frames = np.stack([np.roll(picture, STEP * t, axis=1) for t in range(LENGTH)])
    began = time.perf_counter()
    tracker = Tracker.load()
    tracks = tracker.track(frames, [[0, 70, 60]])
    truth = np.array([[70 + STEP * t, 60] for t in range(LENGTH)])
    distance = np.linalg.norm(tracks.points[0] - truth, axis=1)
    return {
        "pixels": float(distance.max()),
        "seen": int(tracks.visible.sum()),
        "seconds": time.perf_counter() - began,
        "backend": tracker.backend.name,
        "fallbacks": [f"{tried.name}: {tried.reason}" for tried in tracker.backend.fallbacks],
    }
