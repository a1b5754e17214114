"""One module reads JSON and TOML from outside, so that its limits hold everywhere."""

import re
from pathlib import Path

import vditrack
import vditrack_ros

DECODERS = re.compile(r"msgspec\.(json|toml)\.decode\(|\bjson\.loads?\(|\btomllib\b|\btomli\b")
OWN_DATA = {
    "doctor/child.py",
    "inference/isolated_import.py",
    "errors.py",
}
"""Modules that decode what this program, or pip, has written on this machine."""


def test_only_one_module_of_the_runtime_decodes_files_from_outside():
    found = {
        path.relative_to(root).as_posix()
        for root in (Path(vditrack.__file__).parent, Path(vditrack_ros.__file__).parent)
        for path in root.rglob("*.py")
        if DECODERS.search(path.read_text())
    }
    assert found == {"input_checks/files.py", *OWN_DATA}
