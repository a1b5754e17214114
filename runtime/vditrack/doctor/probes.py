"""Probes of libraries, each run in a process of its own by `vditrack.doctor.child`.

A probe takes and returns what JSON can hold. Its errors become findings.
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

Result = dict[str, Any]

CPU = "CPUExecutionProvider"
PLUG_IN = "onnxruntime_ep_"
"""Prefix of modules that bring an execution provider of their own."""
STEP, LENGTH = 2, 8
"""Motion of the clip in pixels per frame, and its length in frames."""


def version(module: str, wheel: str) -> Result:
    """Import a module and return its version, from the module or the metadata of its wheel."""
    loaded = import_module(module)
    return {"version": getattr(loaded, "__version__", None) or metadata.version(wheel)}


def providers() -> Result:
    """List the providers that ONNX Runtime offers, its provider libraries, and plug-ins."""
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


def provider(name: str) -> Result:
    """Multiply two matrices on a provider that ONNX Runtime offers."""
    import onnxruntime  # noqa: PLC0415

    # The CUDA libraries may be in wheels, where the loader does not look.
    preload = getattr(onnxruntime, "preload_dlls", None)
    if preload is not None:
        preload()
    return _check_product(name, lambda options: {"sess_options": options, "providers": [name]})


def plug_in(module: str) -> Result:
    """Multiply two matrices on the provider of a plug-in wheel."""
    import onnxruntime  # noqa: PLC0415

    wheel = import_module(module)
    name = wheel.get_ep_name()
    onnxruntime.register_execution_provider_library(name, wheel.get_library_path())
    devices = [device for device in onnxruntime.get_ep_devices() if device.ep_name == name]
    if not devices:
        return {"devices": 0}

    def add_device(options: Any) -> Result:  # noqa: ANN401 - ONNX Runtime ships no types
        options.add_provider_for_devices(devices[:1], {})
        return {"sess_options": options}

    return _check_product(name, add_device)


def _check_product(name: str, session_arguments: Callable[[Any], Result]) -> Result:
    """Multiply two matrices on a provider and compare with NumPy.

    Args:
        name: Name of the provider.
        session_arguments: Returns the arguments of the session that choose the provider, from its
            options.

    Raises:
        RuntimeError: ONNX Runtime used another provider, or the product is wrong.

    """
    import numpy as np  # noqa: PLC0415
    import onnxruntime  # noqa: PLC0415

    from vditrack.doctor.product import SIDE, encode_product_graph  # noqa: PLC0415

    options = onnxruntime.SessionOptions()
    if name != CPU:
        # Otherwise ONNX Runtime silently falls back to the CPU.
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
    session = onnxruntime.InferenceSession(
        encode_product_graph(), **session_arguments(options), enable_fallback=0
    )
    used = session.get_providers()
    if name not in used:
        raise RuntimeError(f"ONNX Runtime used {', '.join(used)} instead, without an error")
    # Products of small integers are exact in every precision.
    x = np.random.default_rng(0).integers(-2, 3, (SIDE, SIDE)).astype(np.float32)
    (y,) = session.run(None, {"x": x})
    if not np.array_equal(y, x @ x):
        raise RuntimeError("its product of two matrices is wrong")
    return {"devices": 1}


def machine() -> Result:
    """Query the first GPU, the driver and JetPack."""
    from vditrack.inference.machine import read_machine  # noqa: PLC0415

    # None stops the import of TensorRT, which may crash and has its own probe.
    sys.modules.update(dict.fromkeys(("tensorrt", "tensorrt_rtx")))  # type: ignore[arg-type]
    return asdict(read_machine())


def cuda_runtime() -> Result:
    """Load the CUDA runtime library and query its version (1000 major + 10 minor)."""
    library, place = _load_library("libcudart.so.13", "libcudart.so.12")
    number = ctypes.c_int()
    if error := library.cudaRuntimeGetVersion(ctypes.byref(number)):
        raise RuntimeError(f"cudaRuntimeGetVersion fails with error {error}")
    return {"version": f"{number.value // 1000}.{number.value % 1000 // 10}", "place": place}


def cudnn() -> Result:
    """Load cuDNN 9 and query its version (10000 major + 100 minor + patch)."""
    library, place = _load_library("libcudnn.so.9")
    library.cudnnGetVersion.restype = ctypes.c_size_t
    number = library.cudnnGetVersion()
    parts = (number // 10000, number % 10000 // 100, number % 100)
    return {"version": ".".join(map(str, parts)), "place": place}


def _load_library(*names: str) -> tuple[ctypes.CDLL, str]:
    """Load the first library that exists, where the loader looks or in NVIDIA's wheels.

    Returns:
        The library and its path.

    Raises:
        FileNotFoundError: None of the libraries exists.
        OSError: A library exists and does not load.

    """
    wheels = [Path(folder) for folder in (*site.getsitepackages(), site.getusersitepackages())]
    for name in names:
        for place in (name, *(path for at in wheels for path in at.glob(f"nvidia/*/lib/{name}"))):
            try:
                return ctypes.CDLL(str(place)), str(place)
            except OSError as error:
                # Continue only if the library does not exist; a damaged one is an error.
                if "No such file" not in str(error):
                    raise
    raise FileNotFoundError(f"{' or '.join(names)} is not there")


def tensorrt(module: str) -> Result:
    """Import TensorRT or TensorRT-RTX, which loads its library, and create a builder."""
    library: Any = import_module(module)
    result: Result = {"version": library.__version__, "builds": False}
    # The builder of TensorRT needs a GPU, that of TensorRT-RTX does not.
    if module == "tensorrt_rtx" or _cuda_driver_starts():
        library.Builder(library.Logger(library.Logger.ERROR))
        result["builds"] = True
    return result


def _cuda_driver_starts() -> bool:
    try:
        return bool(ctypes.CDLL("libcuda.so.1").cuInit(0) == 0)
    except OSError:
        return False


def ros() -> Result:
    """Import rclpy and load the RMW implementation."""
    rclpy_utilities: Any = import_module("rclpy.utilities")
    return {"rmw": rclpy_utilities.get_rmw_implementation_identifier()}


def model() -> Result:
    """Check every file of the bundled model against its digest."""
    from vditrack.bundle.folder import bundled_model, load_bundle  # noqa: PLC0415

    manifest = load_bundle(bundled_model()).manifest
    return {"name": manifest.name, "files": len(manifest.files)}


def track() -> Result:
    """Track a point through a clip that moves by a known number of pixels per frame."""
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
