"""Accuracy of the bundled model and of baselines, by ``vditrack eval``.

Run: python benchmarks/accuracy.py DATA NAME [METHOD ...] [--json]

DATA is what ``vditrack eval`` takes; NAME is that of the result file.
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

import result_files

METHODS = ("ours", "klt", "dis", "patches", "still")


def score(data: str, methods: list[str]) -> dict[str, float]:
    """Return means and interval ends in percent, named METHOD METRIC [low|high].

    Differences from the first method are intervals, METHOD METRIC difference low|high.
    """
    options = [option for name in methods for option in ("--method", name)]
    command = [sys.executable, "-m", "vditrack", "eval", data, *options, "--json"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    summary = json.loads(done.stdout)
    figures = {"clips": float(summary["facts"]["clips"])}
    for method in summary["methods"]:
        for metric, estimate in method["metrics"].items():
            for end, key in (("", "mean"), (" low", "low"), (" high", "high")):
                if estimate[key] is not None:
                    figures[f"{method['name']} {metric}{end}"] = estimate[key]
        for metric, difference in method["differences"].items():
            for key in ("low", "high"):
                if difference[key] is not None:
                    figures[f"{method['name']} {metric} difference {key}"] = difference[key]
    return figures


def main() -> None:
    """Score the methods, print the figures, and write the result file with --json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("name")
    parser.add_argument("methods", nargs="*", default=METHODS)
    parser.add_argument("--json", action="store_true", help="write the result file")
    chosen = parser.parse_args()
    load = result_files.begin()
    figures = score(chosen.data, list(chosen.methods))
    for name, value in figures.items():
        print(f"{name:28s} {value:8.2f}")
    if chosen.json:
        command = f"python benchmarks/accuracy.py {Path(chosen.data).name} {chosen.name} --json"
        print(result_files.write(chosen.name, command, load, figures))


if __name__ == "__main__":
    main()
