"""Proof of a backend: only a run of every graph shows that it works here."""

from pathlib import Path

import numpy as np

from vditrack.bundle.folder import ENCODER, ENCODER_START, FEATURES, Bundle
from vditrack.errors import BackendError
from vditrack.inference.session import OpenGraph, Session


def proved(bundle: Bundle, open_graph: OpenGraph) -> OpenGraph:
    """Open every graph and run it once, on zeros.

    Returns:
        What gives the sessions that were proved.

    Raises:
        BackendError: a graph does not load, does not run, or gives numbers that are not finite.

    """
    names = (ENCODER, ENCODER_START, FEATURES)
    graphs = [bundle.root / name for name in names if name in bundle.manifest.files]
    sessions = {graph: open_graph(graph) for graph in graphs}
    for graph, session in sessions.items():
        _prove(graph, session)
    return sessions.__getitem__


def _prove(graph: Path, session: Session) -> None:
    zeros = {name: np.zeros(of.shape, of.dtype) for name, of in session.inputs.items()}
    try:
        outputs = session.run(zeros)
    except BackendError:
        raise
    # ONNX Runtime's and TensorRT's exceptions share no base class.
    except Exception as error:
        raise BackendError(f"it loads {graph}, and fails to run it: {error}") from error
    for name, output in outputs.items():
        if not np.isfinite(output).all():
            raise BackendError(
                f"it loads {graph}, and runs it wrongly: {name} of zeros is not finite. Export or "
                "build it in BF16 or FP32."
            )
