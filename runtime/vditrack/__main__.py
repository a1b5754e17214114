"""Entry point of ``vditrack`` and ``python -m vditrack``."""

import sys

from vditrack.cli.stop_signals import exit_on_signals
from vditrack.doctor.cli import main as run_doctor
from vditrack.input_checks.text import clean_line


def main() -> None:
    """Run the command line. The doctor runs even where the other verbs do not load."""
    if sys.argv[1:2] == ["doctor"]:
        with exit_on_signals():
            raise SystemExit(run_doctor(sys.argv[2:]))
    try:
        from vditrack.cli.app import main as run_command  # noqa: PLC0415
    except ImportError as error:
        print(
            f"vditrack: {clean_line(str(error))}. `vditrack doctor` says how to fix it.",
            file=sys.stderr,
        )
        raise SystemExit(2) from error
    run_command()


if __name__ == "__main__":
    main()
