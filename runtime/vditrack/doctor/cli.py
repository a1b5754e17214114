"""Verb ``doctor``, on the standard library alone."""

import argparse
import json
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from vditrack.doctor.examination import run_checks
from vditrack.doctor.finding import Finding
from vditrack.doctor.report import check_report, write_report
from vditrack.errors import VditrackError
from vditrack.input_checks.text import clean_line, clean_text

_NAME_WIDTH, _INDENT = 28, 8


def main(arguments: Sequence[str]) -> int:
    """Check this machine and print the findings.

    Args:
        arguments: Command-line arguments after ``doctor``.

    Returns:
        The exit code: 0 if nothing is broken, 1 if something is, 2 for an error of the user.

    """
    options = _parse(arguments)
    try:
        return _run(options.report, as_json=options.json)
    except VditrackError as error:
        print(f"vditrack: {clean_line(str(error))}", file=sys.stderr)
        return 2


def _run(report: Path | None, *, as_json: bool) -> int:
    if report is not None:
        check_report(report)
    found = list(run_checks() if as_json else _print_each(run_checks()))
    broken = [finding.name for finding in found if finding.state == "broken"]
    if as_json:
        print(json.dumps({"broken": broken, "findings": [asdict(finding) for finding in found]}))
    else:
        missing = sum(finding.state == "missing" for finding in found)
        works = len(found) - len(broken) - missing
        print(f"\n{works} work, {missing} are missing but optional, {len(broken)} are broken.")
    if report is not None:
        write_report(report, found)
        print(f"written: {report}", file=sys.stderr)
    return 1 if broken else 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="vditrack doctor",
        description="Check what works on this machine, and say how to fix the rest.",
        epilog="The exit code is 0 if nothing is broken and 1 if something is. Where the command "
        "line does not load, run `python -m vditrack.doctor`.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FILE.zip",
        help="write an archive for a bug report; it holds no secrets, names or home folders",
    )
    return parser.parse_args(arguments)


def _print_each(found: Iterable[Finding]) -> Iterable[Finding]:
    """Print and yield each finding as soon as it is known."""
    for finding in found:
        found_line = clean_text(finding.found)
        print(f"{finding.state:{_INDENT}} {finding.name:{_NAME_WIDTH}} {found_line}")
        if finding.remedy is not None:
            remedy = clean_text(f"-> {finding.remedy}")
            print(textwrap.indent(remedy, " " * (_INDENT + 1)), flush=True)
        yield finding
