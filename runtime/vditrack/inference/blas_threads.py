"""A limit on the threads of matrix products."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock

from threadpoolctl import ThreadpoolController

# Finding the libraries takes milliseconds, so that it is done once.
_CONTROLLER = ThreadpoolController()


class _SingleThread:
    """Limits BLAS to one thread while any thread of the process is in a block of `limit`."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._blocks = 0
        self._limiter: AbstractContextManager[object] | None = None

    @contextmanager
    def limit(self) -> Iterator[None]:
        with self._lock:
            self._blocks += 1
            if self._blocks == 1:
                self._limiter = _CONTROLLER.limit(limits=1, user_api="blas")
                self._limiter.__enter__()
        try:
            yield
        finally:
            with self._lock:
                self._blocks -= 1
                if self._blocks == 0 and self._limiter is not None:
                    self._limiter.__exit__(None, None, None)


_SINGLE_THREAD = _SingleThread()


def limit_blas_threads() -> AbstractContextManager[None]:
    """Return a context in which BLAS uses one thread.

    The matrix products of tracking are small: a second thread takes longer to wake than it saves,
    and spins on a core that the inference engine needs next. The limit is one of the process: it
    ends when the last block ends that any thread is in.
    """
    return _SINGLE_THREAD.limit()
