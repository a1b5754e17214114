"""The pip command that error messages give, for each way to install vditrack."""

import json
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from vditrack import errors
from vditrack.errors import install_command


def recorded(monkeypatch, tmp_path, source):
    """As if pip had installed vditrack into site-packages from a source."""
    monkeypatch.setattr(errors, "_CHECKOUT", tmp_path / "environment")
    text = None if source is None else json.dumps(source)
    requires = [
        "numpy>=1.26",
        'onnxruntime>=1.20; extra == "cpu"',
        "rosbags>=0.11; extra == 'bags'",
    ]
    distribution = SimpleNamespace(read_text={"direct_url.json": text}.get, requires=requires)
    monkeypatch.setattr(metadata, "distribution", lambda name: distribution)


def test_from_the_checkout_it_runs_from():
    root = Path(__file__).parents[2]
    assert install_command("bags") == f"pip install --editable '{root}[bags]'"
    assert install_command("export", "cpu") == f"pip install --editable '{root}[export,cpu]'"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ({"url": "file://{there}", "dir_info": {}}, "'{there}[bags]'"),
        ({"url": "file://{there}/with%20space", "dir_info": {}}, "'{there}/with space[bags]'"),
        ({"url": "file://{there}/x-1.whl", "archive_info": {}}, "'{there}/x-1.whl[bags]'"),
        (
            {
                "url": "https://example.org/vditrack.git",
                "vcs_info": {"vcs": "git", "commit_id": "4c0ffee", "requested_revision": "main"},
            },
            "'vditrack[bags] @ git+https://example.org/vditrack.git@4c0ffee'",
        ),
        (
            {"url": "file:///srv/git", "vcs_info": {"vcs": "git", "commit_id": "4c0ffee"}},
            "'vditrack[bags] @ git+file://localhost/srv/git@4c0ffee'",
        ),
        (
            {"url": "https://example.org/x-1.whl", "archive_info": {}},
            "'vditrack[bags] @ https://example.org/x-1.whl'",
        ),
        # What it was installed from is gone, or is an index.
        ({"url": "file://{there}/gone", "dir_info": {}}, "'rosbags>=0.11'"),
        (None, "'rosbags>=0.11'"),
    ],
)
def test_from_where_it_was_installed(monkeypatch, tmp_path, source, expected):
    there = tmp_path / "there"
    (there / "with space").mkdir(parents=True)
    (there / "x-1.whl").touch()
    if source is not None:
        source = {**source, "url": source["url"].replace("{there}", str(there))}
    recorded(monkeypatch, tmp_path, source)
    assert install_command("bags") == "pip install " + expected.replace("{there}", str(there))


def test_to_install_it_again(monkeypatch, tmp_path):
    recorded(monkeypatch, tmp_path, {"url": f"file://{tmp_path}", "dir_info": {}})
    command = install_command(options="--force-reinstall --no-deps")
    assert command == f"pip install --force-reinstall --no-deps {tmp_path}"


def test_without_metadata(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "_CHECKOUT", tmp_path)
    monkeypatch.setattr(metadata.Distribution, "discover", lambda **_: iter(()))
    assert install_command("bags") == "pip install 'PATH_OF_THE_CHECKOUT[bags]'"
