"""A smoke run of a backend: every graph runs once before the backend is used."""

import numpy as np

from vditrack.bundle.folder import ENCODER, ENCODER_START, FEATURES, Bundle
from vditrack.inference.session import OpenGraph, Session, find_state


def open_with_smoke_run(bundle: Bundle, open_graph: OpenGraph) -> OpenGraph:
    """Open every graph of a bundle and run it once on zeros.

    Args:
        bundle: A checked bundle.
        open_graph: Loads one of its graphs.

    Returns:
        A function that returns the sessions which passed.

    Raises:
        BackendError: A graph does not load, does not run, or returns numbers that are not finite.

    """
    names = (ENCODER, ENCODER_START, FEATURES)
    graphs = [bundle.root / name for name in names if name in bundle.manifest.files]
    sessions = {graph: open_graph(graph) for graph in graphs}
    for session in sessions.values():
        _run_once(session)
    return sessions.__getitem__


def _run_once(session: Session) -> None:
    state = find_state(session.inputs, session.outputs).specs
    zeros = {
        name: np.zeros(spec.shape, spec.dtype)
        for name, spec in session.inputs.items()
        if name not in state
    }
    session.run(zeros, session.new_state())
