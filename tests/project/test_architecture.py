"""Limits on sizes and imports that keep the code easy to enter (see CONTRIBUTING.md)."""

import ast
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from vditrack.cli.app import build_app

ROOT = Path(__file__).parents[2]
UNITS = ("runtime", "export", "ros2_node", "benchmarks")
MODULES = [path for unit in UNITS for path in sorted((ROOT / unit).rglob("*.py"))]
Function = ast.FunctionDef | ast.AsyncFunctionDef


def verbs() -> set[tuple[str, str]]:
    """Functions that are command-line verbs, each as its file and name."""
    callbacks = [command.callback for command in build_app().registered_commands]
    callbacks += [entry.load() for entry in metadata.entry_points(group="vditrack.commands")]
    return {(verb.__code__.co_filename, verb.__name__) for verb in callbacks if verb is not None}


def functions() -> Iterator[tuple[Path, Function]]:
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, Function):
                yield path, node


def location(path: Path, function: Function) -> str:
    return f"{path.relative_to(ROOT)} {function.name}"


def parameter_count(function: Function) -> int:
    arguments = function.args
    named = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return len(named) + (arguments.vararg is not None) + (arguments.kwarg is not None)


def test_modules_have_at_most_400_lines():
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in MODULES}
    assert not {name: n for name, n in lengths.items() if n > 400}


def test_functions_have_at_most_60_lines():
    """The signature of a verb lists its options and help texts; only its body counts."""
    exempt = verbs()
    too_long = {}
    for path, function in functions():
        is_verb = (str(path), function.name) in exempt
        first = function.body[0].lineno if is_verb else function.lineno
        length = function.end_lineno - first + 1
        if length > 60:
            too_long[location(path, function)] = length
    assert not too_long


def test_functions_have_at_most_8_parameters():
    exempt = verbs()
    counts = {
        location(path, function): parameter_count(function)
        for path, function in functions()
        if (str(path), function.name) not in exempt
    }
    assert not {name: n for name, n in counts.items() if n > 8}


def test_the_top_of_the_runtime_has_at_most_26_entries():
    top = ROOT / "runtime" / "vditrack"
    entries = [path.name for path in top.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 26, sorted(entries)


def imported_names(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {part for alias in node.names for part in alias.name.split(".")}
        elif isinstance(node, ast.ImportFrom):
            names |= {alias.name for alias in node.names}
            names |= set((node.module or "").split("."))
    return names


def test_no_test_imports_a_test_module():
    importers = {
        str(path.relative_to(ROOT)): found
        for path in sorted((ROOT / "tests").rglob("*.py"))
        if (found := {name for name in imported_names(path) if name.startswith("test_")})
    }
    assert not importers
