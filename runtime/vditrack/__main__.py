"""The command ``vditrack``, also as ``python -m vditrack``."""

import sys

from vditrack.doctor.cli import main as examine


def main() -> None:
    """Run the command line; the doctor alone where the rest of it does not load."""
    if sys.argv[1:2] == ["doctor"]:
        raise SystemExit(examine(sys.argv[2:]))
    try:
        from vditrack.cli.app import main as run  # noqa: PLC0415
    except ImportError as error:
        reason = " ".join(str(error).split())
        print(f"vditrack: {reason}. `vditrack doctor` says how to fix it.", file=sys.stderr)
        raise SystemExit(2) from error
    run()


if __name__ == "__main__":
    main()
