"""Result files follow their schema, and pages quote what is in them."""

import re

import msgspec
import pytest

import result_files
from result_files import PAGES, RESULTS, ROOT, ResultFile, fill_in, read_all
from vditrack.bench.result import Machine

FILES = sorted(RESULTS.glob("*"))
MACHINE = Machine(
    cpu="A CPU (R) @ 2.1GHz",
    cores=2,
    cpu_limit=None,
    memory_gib=24.0,
    system="Linux",
    governor=None,
    gpus=(),
)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_result_file_follows_the_schema(path):
    result = msgspec.json.decode(path.read_bytes(), type=ResultFile)
    assert path.name == result_files.file_name(result)
    (script,) = re.findall(r"python (benchmarks/\w+\.py) ", result.command)
    assert (ROOT / script).is_file()
    assert "--json" in result.command
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", result.date)
    assert result.figures


def test_each_quoted_figure_is_that_of_its_result_file():
    results = read_all()
    quoted = 0
    for page in PAGES:
        text = page.read_text()
        assert fill_in(text, results) == text, f"{page}: run python benchmarks/result_files.py"
        quoted += text.count("<!-- / -->")
    assert quoted >= 20


def test_the_tables_of_benchmarks_with_result_files_are_quotes():
    """A figure typed into such a table would not be refreshed."""
    page = (ROOT / "docs/benchmarks.md").read_text()
    sections = re.split(r"^## ", page, flags=re.MULTILINE)
    for name in ("matching", "propagation"):
        (section,) = [each for each in sections if f"benchmarks/{name}.py`" in each.split("\n")[0]]
        rows = [line for line in section.splitlines() if re.match(r"\| \w.*\d", line)]
        assert rows
        for row in rows:
            assert re.search(r"\d", re.sub(r"<!-- .*?<!-- / -->", "", row)) is None, row


def test_a_figure_is_written_and_quoted(tmp_path, monkeypatch):
    monkeypatch.setattr(result_files, "RESULTS", tmp_path)
    monkeypatch.setattr(result_files, "read_machine", lambda: MACHINE)
    figures = {"faster": 275.6, "a AJ": 50.0, "a AJ low": 40.04, "a AJ high": 60.0}
    path = result_files.write("made", "python benchmarks/made.py", 0.1, figures)
    assert path.name == "made--a-cpu-r-2-1ghz-2-cores.json"
    text = "<!-- made:faster:.0f -->478<!-- / --> x, <!-- made:a AJ:interval -->?<!-- / -->"
    filled = fill_in(text, read_all())
    assert ">276<" in filled
    assert ">50.0 [40.0, 60.0]<" in filled
    worse = figures | {"a AJ difference low": -9.0, "a AJ difference high": -1.0}
    result_files.write("made", "python benchmarks/made.py", 0.1, worse)
    assert ">50.0 [40.0, 60.0], worse<" in fill_in(text, read_all())
    for unknown in ("<!-- made:slower:.0f -->1<!-- / -->", "<!-- none:faster:.0f -->1<!-- / -->"):
        with pytest.raises(KeyError):
            fill_in(unknown, read_all())


def test_a_field_that_the_schema_lacks_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(result_files, "RESULTS", tmp_path)
    path = result_files.write("made", "python benchmarks/made.py", 0.1, {"faster": 2.0})
    path.write_text(path.read_text().replace('"figures"', '"numbers"'))
    with pytest.raises(msgspec.ValidationError):
        read_all()
