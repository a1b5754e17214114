"""The libraries that run engines, and what an engine file holds."""

from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from vditrack.bundle.manifest import FileRecord
from vditrack.errors import BackendError
from vditrack.inference.engine_identity import TITLES, Target
from vditrack.inference.engine_reader import EngineFile, make_reader
from vditrack.inference.isolated_import import import_isolated
from vditrack.inference.session import AbsentError, TensorSpec
from vditrack.inference.trt_log import collecting_logger
from vditrack.input_checks.files import open_regular_file

_MODULES: dict[Target, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
_DTYPES: dict[str, np.dtype[Any]] = {
    "UINT8": np.dtype(np.uint8),
    "INT32": np.dtype(np.int32),
    "FLOAT": np.dtype(np.float32),
    "HALF": np.dtype(np.float16),
}


def import_library(target: Target) -> ModuleType:
    """Return the module of a library.

    Raises:
        AbsentError: It is not installed.
        BackendError: It does not load.

    """
    try:
        return import_isolated(_MODULES[target])
    except ModuleNotFoundError as error:
        raise AbsentError(f"{TITLES[target]} is not installed ({error}).") from error
    except ImportError as error:
        raise BackendError(
            f"{TITLES[target]} does not load ({error}). `vditrack doctor` shows what to install."
        ) from error


def deserialise(
    library: ModuleType, path: Path, target: Target, record: FileRecord | None, *, host_code: bool
) -> Any:  # noqa: ANN401 - it ships no types
    """Return the engine in a file, which is read piece by piece.

    Args:
        library: The module of the library.
        path: Path of the engine.
        target: The library that built it.
        record: Size and digest that the file has to have; None if they are not known.
        host_code: Whether the engine contains its own runtime, as version compatible ones do.

    Raises:
        BackendError: The file cannot be read, or the library refuses it.
        EngineError: The file was altered since its build was checked.

    """
    log = collecting_logger(library)
    log.errors.clear()
    runtime = library.Runtime(log)
    runtime.engine_host_code_allowed = host_code
    engine = None
    try:
        with open_regular_file(path, follow_links=False) as content:
            reader = make_reader(library, EngineFile(path, content, record))
            engine = runtime.deserialize_cuda_engine(reader)
            if reader.failures:
                raise reader.failures[0]
    except OSError as error:
        raise BackendError(f"{path} cannot be read: {error.strerror or error}.") from error
    # What the library's binding raises.
    except RuntimeError as error:
        log.errors.append(str(error))
    if engine is None:
        raise BackendError(
            f"{TITLES[target]} {library.__version__} does not load {path}: "
            f"{format_errors(log.errors)}."
        )
    return engine


def refit(library: ModuleType, engine: Any, path: Path, weights: Path) -> None:  # noqa: ANN401
    """Give an engine without weights those of the ONNX file that it was built from.

    Raises:
        BackendError: They do not fit.

    """
    log = collecting_logger(library)
    refitter = library.Refitter(engine, log)
    parser = library.OnnxParserRefitter(refitter, log)
    if not (parser.refit_from_file(str(weights)) and refitter.refit_cuda_engine()):
        raise BackendError(
            f"{path} does not accept the weights of {weights}: {format_errors(log.errors)}."
        )


def format_errors(errors: list[str]) -> str:
    """Return the errors that a library logged, as one text."""
    return "; ".join(errors) or "the library gives no reason"


def read_tensors(
    library: ModuleType,
    engine: Any,  # noqa: ANN401
    path: Path,
) -> dict[str, tuple[TensorSpec, bool]]:
    """Return inputs and outputs by name, each with whether it is an input."""
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    enters = library.TensorIOMode.INPUT
    return {
        name: (_tensor(engine, path, name), engine.get_tensor_mode(name) == enters)
        for name in names
    }


def _tensor(engine: Any, path: Path, name: str) -> TensorSpec:  # noqa: ANN401
    shape, kind = tuple(engine.get_tensor_shape(name)), engine.get_tensor_dtype(name).name
    if kind not in _DTYPES or min(shape, default=0) < 0:
        raise BackendError(
            f"{path}: tensor {name!r} is {kind} {shape}; static shapes of uint8, int32, "
            "float32 or float16 are needed. Build the engine again."
        )
    return TensorSpec(shape, _DTYPES[kind])
