"""Runs the doctor as ``python -m vditrack.doctor``."""

import sys

from vditrack.doctor.cli import main

raise SystemExit(main(sys.argv[1:]))
