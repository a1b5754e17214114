"""Devices of the user: files that are taken, and files that are refused with a reason."""

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from vditrack.errors import InputError
from vditrack_export.plan.cli import plan
from vditrack_export.plan.devices import all_devices, find_device

BOARD = """
[my-board]
title = "My board"
default = "fp16"
tflops = { fp16 = 20.0, fp32 = 2.5 }
bandwidth = 100
memory = 8
source = "Its data sheet."
"""


def run(*arguments: str):
    app = typer.Typer()
    app.command()(plan)
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "120"})


def written(folder: Path, text: str) -> str:
    path = folder / "devices.toml"
    path.write_text(text)
    return str(path)


def refusal(*arguments: str) -> str:
    result = run("tiny", *arguments)
    assert isinstance(result.exception, InputError), result.output
    return str(result.exception)


def test_a_device_of_ones_own(tmp_path):
    file = written(tmp_path, BOARD)
    for chosen in ((), ("--device", "my-board")):
        result = run("tiny", "--device-file", file, "--json", *chosen)
        assert result.exception is None, result.output
        printed = json.loads(result.stdout)
        assert printed["device"]["title"] == "My board"
        assert printed["precision"] == {"encoder": "fp16", "features": "fp16"}
    encoder = printed["bundle"]["engines"]["encoder"]
    assert encoder["seconds"] == pytest.approx(
        2 * max(encoder["operations"] / 20e12, encoder["moved_bytes"] / 100e9)
    )
    # Devices that are known stay, with their sources; one of the file replaces its namesake.
    text = run("--device", "list", "--device-file", file).stdout
    assert "My board" in text and "Its data sheet." in text and "NVIDIA Ada GPU" in text
    assert "My board" not in run("--device", "list").stdout
    changed = written(tmp_path, BOARD.replace("my-board", "thor"))
    assert find_device("thor", Path(changed)).title == "My board"
    assert set(all_devices(Path(changed))) == set(all_devices())


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("memory = 8\n", "", "device my-board: Object missing required field `memory`"),
        ("memory = 8", "memory = -8", "device my-board: Expected `float` > 0"),
        ("memory = 8", "memory = inf", "device my-board: memory is not finite"),
        ("memory = 8", 'memory = "8 GB"', "Expected `float`, got `str` - at `$.memory`"),
        ("memory = 8", "momory = 8", "momory"),
        ("fp32 = 2.5", "tf32 = 2.5", "tf32"),
        ('default = "fp16"', 'default = "bf16"', "default is bf16, and tflops has no such rate"),
        ('default = "fp16"', 'default = "int8"', "Invalid enum value 'int8'"),
        ("memory = 8", "memory = 8\nlink = 16", "link and host_bandwidth belong together"),
        ("[my-board]\n", "", "title stands outside of any device"),
        (BOARD, "", "has no device"),
        ("[my-board]", "[my-board", "devices.toml: "),
    ],
)
def test_a_device_that_is_not_described(old, new, complaint, tmp_path):
    assert old in BOARD
    message = refusal("--device-file", written(tmp_path, BOARD.replace(old, new)))
    assert complaint in message
    assert "devices.toml" in message and "\n" not in message


def test_a_file_that_is_none(tmp_path):
    assert "cannot be read: No such file" in refusal("--device-file", str(tmp_path / "none.toml"))
    os.mkfifo(tmp_path / "pipe.toml")
    assert "a FIFO" in refusal("--device-file", str(tmp_path / "pipe.toml"))
    two = written(tmp_path, BOARD + BOARD.replace("my-board", "other"))
    assert "several devices. Give --device: my-board, other" in refusal("--device-file", two)
    assert "there are: orin-nx" in refusal("--device-file", two, "--device", "third")


def test_a_precision_that_the_device_lacks(tmp_path):
    file = written(tmp_path, BOARD)
    complaint = refusal("--device-file", file, "--precision", "bf16")
    assert "My board does not compute in bf16, only in fp16, fp32" in complaint
    turing = BOARD.replace("fp16 = 20.0, ", "").replace('"fp16"', '"fp32"')
    complaint = refusal("--device-file", written(tmp_path, turing), "--encoder-precision", "fp16")
    assert "does not compute in fp16, only in fp32" in complaint
