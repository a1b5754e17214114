"""Text of files that a terminal must not interpret."""

import shutil
from pathlib import Path

import msgspec
from rich.text import Text

import vditrack
import vditrack_export
from vditrack.bundle.folder import MANIFEST
from vditrack.cli.console import PlainConsole
from vditrack.input_checks.text import clean_text

NAME = "[red]mine[/nope] :smile: \x1b[31m\x9b2J\u202e"
SHOWN = "[red]mine[/nope] :smile: \ufffd[31m\ufffd2J\ufffd"


def test_inspect_shows_names_and_notes_as_they_are(tmp_path, tiny_bundle, run_vditrack):
    shutil.copytree(tiny_bundle.root, tmp_path / "bundle")
    path = tmp_path / "bundle" / MANIFEST
    manifest = msgspec.json.decode(path.read_bytes())
    manifest["name"] = manifest["source"]["card"] = NAME
    manifest["notes"] = "see [text] and [/b]"
    path.write_bytes(msgspec.json.encode(manifest))
    done = run_vditrack("inspect", "bundle", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(SHOWN) == 2
    assert "see [text] and [/b]" in done.stdout
    assert manifest["source"]["checkpoint_sha256"][:50] in done.stdout


def test_an_error_cannot_control_the_terminal(tmp_path, run_vditrack):
    done = run_vditrack("track", f"{NAME}.mp4", "--grid", "2", cwd=tmp_path)
    assert done.stderr.endswith(f"vditrack: {SHOWN}.mp4 is not a file.\n")


def test_styles_stay(monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    console = PlainConsole()
    with console.capture() as captured:
        console.print(Text(NAME), style="bold", highlight=False)
    assert captured.get() == f"\x1b[1m{SHOWN}\x1b[0m\n"
    assert clean_text("Größe 你好 📹") == "Größe 你好 📹"


def test_only_one_module_prints_lines_of_commands():
    """So that no command prints a name from a file as it is."""
    roots = [Path(vditrack.__file__).parent, Path(vditrack_export.__file__).parent]
    printing = {
        path.name
        for root in roots
        for path in root.rglob("*.py")
        if "typer.echo(" in path.read_text()
    }
    assert printing == {"console.py"}
