"""Fixtures of all tests: the command line, and the bundled model."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from vditrack.bundle.folder import Bundle, bundled_model, load_bundle

if TYPE_CHECKING:
    from doubles.pipelines import ExportedPipelines

Completed = subprocess.CompletedProcess[str]

# Time says how busy the machine is: it is neither a limit of an example nor of drawing one.
settings.register_profile("vditrack", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("vditrack")

# A shell lets what it runs in the background ignore an interrupt or a hang-up, and all that this
# starts too. Tests send both to what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def tiny_bundle() -> Bundle:
    """The bundled model."""
    return load_bundle(bundled_model())


@pytest.fixture(scope="session")
def exported_pipelines(tmp_path_factory: pytest.TempPathFactory) -> "ExportedPipelines":
    """Bundles of small random diffusers pipelines, each exported once by all workers together."""
    from doubles.pipelines import ExportedPipelines  # noqa: PLC0415

    own = tmp_path_factory.getbasetemp()
    # The folder above that of a worker of pytest-xdist is the session's.
    shared = own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    return ExportedPipelines(shared / "pipelines")


@pytest.fixture(scope="session")
def spawn_vditrack() -> Callable[..., Completed]:
    """Run ``vditrack ARGUMENTS`` in a process of its own, in the folder ``cwd``."""

    def spawn(*arguments: object, cwd: Path | None = None) -> Completed:
        command = [str(Path(sys.executable).with_name("vditrack")), *map(str, arguments)]
        return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)

    return spawn


@pytest.fixture
def run_vditrack(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Completed]:
    """Run ``vditrack ARGUMENTS`` in this process, in the folder ``cwd``.

    It takes the way of the installed command, and saves the second that a new process needs to
    import. An error that the command line does not handle ends the test.
    """

    def run(*arguments: object, cwd: Path | None = None) -> Completed:
        from vditrack.__main__ import main  # noqa: PLC0415

        command = ["vditrack", *map(str, arguments)]
        stdout, stderr = StringIO(), StringIO()
        before = Path.cwd()
        with monkeypatch.context() as patch, redirect_stdout(stdout), redirect_stderr(stderr):
            patch.setattr(sys, "argv", command)
            os.chdir(cwd or before)
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else int(end.code is not None)
            finally:
                os.chdir(before)
        return Completed(command, code, stdout.getvalue(), stderr.getvalue())

    return run


@pytest.fixture
def assert_refused(run_vditrack: Callable[..., Completed]) -> Callable[..., None]:
    """Check that a command exits with 2 and one line that has a message, and leaves no file."""

    def check(*arguments: object, message: str, cwd: Path) -> None:
        before = sorted(cwd.rglob("*"))
        done = run_vditrack(*arguments, cwd=cwd)
        assert done.returncode == 2, done.stderr
        lines = [line for line in done.stderr.splitlines() if line.startswith("vditrack:")]
        assert len(lines) == 1
        assert message in lines[0]
        assert "Traceback" not in done.stderr
        assert sorted(cwd.rglob("*")) == before

    return check
