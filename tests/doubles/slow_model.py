"""A model that takes as long as a test says."""

import threading

from vditrack import Tracker
from vditrack.errors import BackendError
from vditrack.inference.onnxruntime import open_session
from vditrack.inference.selection import Backend

WAIT = 60
"""Seconds that anything may take on a busy machine."""


class SlowModel:
    """Stand-in for a slow model: the real graphs, which run only when they are let."""

    def __init__(self, bundle, *, fails=()):
        self.let, self.fails, self.runs = threading.Semaphore(0), set(fails), 0
        self.tracker = Tracker(bundle, Backend("own", self.open))

    def open(self, graph):
        session = open_session(graph)
        if graph.name == "features.onnx":
            run = session.run

            def held(*given, **options):
                assert self.let.acquire(timeout=WAIT)
                self.runs += 1
                if self.runs in self.fails:
                    raise BackendError("the GPU fell off the bus")
                return run(*given, **options)

            session.run = held
        return session

    def live(self):
        live = self.tracker.live()
        # It takes as long as the test holds it, which no measurement of its work would tell.
        live._pace.keeps_up = lambda: False
        return live


def await_description(live):
    """Wait until the model is done with what it has begun."""
    live._job.done.exception(timeout=WAIT)
