"""The report in the terminal, as JSON, and as a page that loads nothing else."""

import base64
import io
import json
import re
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest
from rich.console import Console

from vditrack.errors import InputError
from vditrack.evaluation.metrics.results import Curve, Result, Share
from vditrack.evaluation.report import plots, report
from vditrack.evaluation.report.summary import summarise

NAN = float("nan")
HOSTILE = "<script>alert(1)</script>"
FACTS = {"data": "simulated & small", "protocol": "tapvid"}
LEVELS = {"ours": 60.0, "klt": 40.0, "[bold]dis": 60.5, "a/long/path/to/$\\bad$": 30.0}
TITLES = {
    "δ within k px": ("1", "2", "4", "8", "16"),
    "J&F by part of the clip": tuple(f"{n}0-{n + 1}0%" for n in range(10)),
}


def curve(bins, rng):
    totals = rng.integers(1, 3000, len(bins)).astype(float)
    totals[-1] = 0
    return Curve(bins, np.round(totals * rng.uniform(0.2, 0.9)), totals)


@pytest.fixture(scope="module")
def results():
    """Four methods, eight clips; the second metric is not defined on the first clip.

    Points are found again in the first three clips only.
    """
    rng = np.random.default_rng(0)
    hardness = rng.normal(0, 8, 8)
    picture = np.full((20, 60, 3), (200, 30, 10), np.uint8)
    return [
        Result(
            clip=HOSTILE if n == 0 else f"clip {n}",
            method=method,
            metrics={"AJ": level + hard + rng.normal(0, 2), "OA": NAN if n == 0 else 80 + hard},
            events={"found again": Share(int(level / 10) + n, 10 * n + 10)} if n < 3 else {},
            curves={title: curve(bins, rng) for title, bins in TITLES.items()},
            frames=50,
            seconds=2.0,
            picture=picture if n == 0 else None,
        )
        for method, level in LEVELS.items()
        for n, hard in enumerate(hardness)
    ]


@pytest.fixture(scope="module")
def summary(results):
    return summarise(results, "ours")


@pytest.fixture(scope="module")
def page(summary, results, tmp_path_factory):
    path = tmp_path_factory.mktemp("report") / "report.html"
    report.write_html(path, summary, results, FACTS)
    return path.read_text(encoding="utf-8")


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system="standard")
    console.print(table)
    return console.file.getvalue()


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def interval(mean):
    return f"[{mean.low:.1f}, {mean.high:.1f}]"


def words(text):
    """Return a text without line breaks."""
    return " ".join(plain(text).split())


def test_table_shows_means_intervals_and_verdicts(summary):
    text = plain(printed(report.format_table(summary, FACTS), 160))
    for method in summary.methods[:3]:
        mean = method.means["AJ"]
        assert f"{mean.mean:.1f} {interval(mean)}" in text
    difference = summary.methods[1].differences["AJ"]
    assert f"{difference.estimate.mean:+.1f} worse" in text
    assert "no clear difference" in text
    assert "of 7 clips" in text
    # 6 + 7 + 8 of 10 + 20 + 30.
    assert f"35.0 {interval(summary.reference.means['found again'])}" in text
    assert "60 events in 3 clips" in text
    assert "95% confidence interval" in words(text)
    assert "25.0" in text
    assert "simulated & small" in text
    assert "[bold]dis" in text


def test_best_mean_of_a_metric_is_bold(summary):
    text = printed(report.format_table(summary, FACTS), 160)
    best = max(method.means["AJ"].mean for method in summary.methods)
    bold = re.findall(r"\x1b\[1m(\d+\.\d)", text)
    assert f"{best:.1f}" in bold
    assert f"{summary.methods[1].means['AJ'].mean:.1f}" not in bold


def test_the_smallest_rate_of_faults_is_bold():
    results = [
        Result(f"{n}", method, {"AJ": 50.0}, {"visible outside": share}, {}, 50, 0.1, None)
        for method, share in (("ours", Share(3, 40)), ("klt", Share(1, 40)), ("dis", Share(0, 0)))
        for n in range(7)
    ]
    summary = summarise(results, "ours")
    text = printed(report.format_table(summary, {}), 160)
    assert re.findall(r"\x1b\[1m(\d+\.\d)", text) == ["50.0", "50.0", "50.0", "2.5"]
    assert "Smaller is better: visible outside." in words(text)


def test_three_metrics_and_two_kinds_of_event_fit_into_eighty_columns():
    names = ("AJ", "δ", "OA")
    values = np.random.default_rng(1).uniform(20, 80, 12)
    events = {
        "found again": Share(20, 30),
        "identity kept": Share(13, 28),
        "visible outside": Share(7109, 20000),
    }
    results = [
        Result(f"{n}", method, dict.fromkeys(names, value + shift), events, {}, 50, 0.1, None)
        for method, shift in (("ours", 0.0), ("patches", -9.0))
        for n, value in enumerate(values.tolist())
    ]
    text = plain(printed(report.format_table(summarise(results, "ours"), {}), 80))
    assert len(re.findall(r"\d\d\.\d \[\d\d\.\d, \d\d\.\d\]", text)) == 2 * (3 + 3)
    assert text.count("360 events in 12 clips") == text.count("336 events in 12 clips") == 2


def test_json_holds_everything(summary, results):
    written = json.loads(json.dumps(report.summary_json(summary, results, FACTS), allow_nan=False))
    assert written["facts"] == FACTS
    assert (written["reference"], written["metrics"]) == ("ours", ["AJ", "OA"])
    assert written["events"] == ["found again"]
    ours, klt, *_ = written["methods"]
    assert ours["differences"] == {}
    assert ours["metrics"]["OA"]["clips"] == 7
    estimate = summary.methods[1].differences["AJ"].estimate
    assert klt["differences"]["AJ"] == {
        "mean": estimate.mean,
        "low": estimate.low,
        "high": estimate.high,
        "clips": 8,
        "count": 8,
        "verdict": "worse",
    }
    found = klt["metrics"]["found again"]
    assert (found["mean"], found["clips"], found["count"]) == (25, 3, 60)
    assert klt["frames_per_second"] == 25
    for title, bins in TITLES.items():
        own = [result.curves[title] for result in results if result.method == "klt"]
        assert klt["curves"][title] == {
            "bins": list(bins),
            "hits": np.sum([curve.hits for curve in own], axis=0).tolist(),
            "totals": np.sum([curve.totals for curve in own], axis=0).tolist(),
            # The last bin is empty.
            "low": [*summary.methods[1].intervals[title][:-1, 0], None],
            "high": [*summary.methods[1].intervals[title][:-1, 1], None],
        }
    assert len(written["clips"]) == len(results)
    first = written["clips"][0]
    assert first["metrics"] == {"AJ": results[0].metrics["AJ"], "OA": None}
    assert first["events"] == {"found again": {"hits": 6, "total": 10}}
    assert written["clips"][3]["events"] == {}
    assert (first["clip"], first["method"], first["frames"]) == (HOSTILE, "ours", 50)


class Page(HTMLParser):
    """The tags, links and text that a browser would see."""

    VOID = frozenset({"meta", "img", "br", "link", "input", "hr", "base"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.links, self.names, self.text, self.open = [], [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.handle_startendtag(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        given = dict(attributes)
        self.tags.append(tag)
        linking = ("src", "href", "xlink:href", "srcset", "data", "action", "poster", "background")
        self.links += [given[name] for name in linking if name in given]
        self.names += [given["id"]] if "id" in given else []

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_page_loads_nothing_from_elsewhere(page):
    seen = Page(page)
    assert seen.open == []
    assert any(link.startswith("data:image/jpeg") for link in seen.links)
    assert [link for link in seen.links if not link.startswith(("data:", "#"))] == []
    assert not set(seen.tags) & {"script", "link", "iframe", "object", "embed", "base"}
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    # Addresses are left in names of XML namespaces alone.
    assert set(re.findall(r'(\S+)="https?:', page)) <= {"xmlns", "xmlns:xlink"}
    assert page.count("http") == len(re.findall(r'xmlns(?::xlink)?="http', page))


def test_names_in_the_page_are_there_once_and_found(page):
    seen = Page(page)
    assert len(set(seen.names)) == len(seen.names)
    wanted = set(re.findall(r"url\(#([^)]*)\)", page))
    wanted |= {link[1:] for link in seen.links if link.startswith("#")}
    assert wanted <= set(seen.names)


def test_page_shows_all_methods_metrics_clips_and_curves(page, summary):
    text = " ".join(Page(page).text)
    metrics = ("AJ", "OA", "found again", "60 events in 3 clips")
    for shown in (*LEVELS, *metrics, *TITLES, *FACTS.values(), HOSTILE, "clip 7", "reference"):
        assert shown in text
    for method in summary.methods:
        for mean in method.means.values():
            assert interval(mean) in text
    plots = len(summary.metrics) + len(summary.events) + len(TITLES)
    assert Page(page).tags.count("svg") == plots


def test_a_name_is_no_markup(page):
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_pictures_keep_their_colours(page):
    encoded = re.search(r"data:image/jpeg;base64,([^\"]+)", page).group(1)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(encoded), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape == (20, 60, 3)
    np.testing.assert_allclose(picture[10, 30], (10, 30, 200), atol=4)


def test_clips_go_from_the_references_worst_to_its_best(page, results):
    own = {result.clip: result.metrics["AJ"] for result in results if result.method == "ours"}
    text = "".join(Page(page).text)
    table = text[text.rindex("AJ by clip") :]
    places = [table.index(clip) for clip in sorted(own, key=own.get)]
    assert places == sorted(places)


def test_curves_are_drawn_where_their_points_are(summary):
    """Points of the first curve, by the heights of the axis's own marks."""
    svg = plots.curve_plot("δ within k px", summary.methods)
    line = re.search(r'<path d="([^"]*)"[^>]*stroke: #0072b2; stroke-width: 1.5', svg).group(1)
    heights = [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", line)]
    percent = summary.reference.curves["δ within k px"].percent[:4]
    slope = np.polyfit(percent, heights, 1)
    assert len(heights) == 4, "the last bin is empty"
    np.testing.assert_allclose(np.polyval(slope, percent), heights, atol=0.01)
    assert slope[0] < 0


def test_a_band_reaches_from_the_lower_to_the_upper_end_of_each_interval(summary):
    svg = plots.curve_plot("δ within k px", summary.methods)
    line = re.search(r'<path d="([^"]*)"[^>]*stroke: #0072b2; stroke-width: 1.5', svg).group(1)
    name, down = re.search(
        r'<use xlink:href="#(\w+)" x="0" y="(\S+)" style="fill: #0072b2; fill-opacity', svg
    ).groups()
    band = re.search(rf'<path id="{name}" d="([^"]*)"', svg).group(1)
    drawn, outline = (
        np.array(re.findall(r"[ML] (\S+) (\S+)", path), float) for path in (line, band)
    )
    outline[:, 1] += float(down)
    percent = summary.reference.curves["δ within k px"].percent[:4]
    intervals = summary.reference.intervals["δ within k px"][:4]
    assert (intervals[:, 0] < percent).all() and (percent < intervals[:, 1]).all()
    slope = np.polyfit(percent, drawn[:, 1], 1)
    for (x, _), ends in zip(drawn, intervals, strict=True):
        heights = outline[np.abs(outline[:, 0] - x) < 0.01, 1]
        found = (heights.max(), heights.min())
        np.testing.assert_allclose(found, np.polyval(slope, ends), atol=0.01)


def test_the_ideal_is_a_dotted_line():
    totals = np.full(3, 10.0)
    share = {"c": Curve(("1", "2", "3"), np.array([1.0, 5.0, 9.0]), totals, (20.0, 60.0, 80.0))}
    events = [Result("only", "ours", {"AJ": 50.0}, {}, share, 10, 1.0, None)]
    svg = plots.curve_plot("c", summarise(events, "ours").methods)
    dotted = r'<path d="([^"]*)"[^>]*stroke-dasharray: 1.5,2.475[^>]*stroke: currentColor'
    (line,) = re.findall(dotted, svg)
    drawn = re.search(r'<path d="([^"]*)"[^>]*stroke: #0072b2; stroke-width: 1.5', svg).group(1)
    own, ideal = (
        [float(y) for _, y in re.findall(r"[ML] (\S+) (\S+)", path)] for path in (drawn, line)
    )
    slope = np.polyfit([10, 50, 90], own, 1)
    np.testing.assert_allclose(np.polyval(slope, [20, 60, 80]), ideal, atol=0.01)


def test_same_input_same_bytes(page, summary, results, tmp_path):
    report.write_html(tmp_path / "again.html", summary, results, FACTS)
    assert (tmp_path / "again.html").read_text(encoding="utf-8") == page
    assert [path.name for path in tmp_path.iterdir()] == ["again.html"]


def test_one_clip_of_one_method(tmp_path):
    alone = [Result("only", "ours", {"PCK 0.2": 40.0, "PCK 3 px": NAN}, {}, {}, 10, 0.0, None)]
    summary = summarise(alone, "ours")
    text = words(printed(report.format_table(summary, {}), 80))
    assert "One clip gives no interval." in text
    assert "nan" not in text
    report.write_html(tmp_path / "report.html", summary, alone, {})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "One clip gives no interval." in page
    assert not re.search(r"\bnan\b", page, re.IGNORECASE)
    json.dumps(report.summary_json(summary, alone, {}), allow_nan=False)


def test_marks_of_direction_in_names_do_not_turn_the_page_around(tmp_path):
    """Neither in the page nor in its plots, or in the values of a run."""
    name = "bundle\u202e$x\x9b"
    results = [
        Result(f"{clip}\u2066", name, {"AJ": 40.0 + clip}, {}, {}, 10, 1.0, None)
        for clip in range(3)
    ]
    summary = summarise(results, name)
    report.write_html(tmp_path / "report.html", summary, results, {"data": "set\u202e"})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not set("\u202e\u2066\x9b") & set(page)
    assert "bundle\ufffd$x\ufffd" in page


@pytest.mark.parametrize(
    "heights", [[0, 0, 0], [100, 100, 100], [10, 50, 90], [97, 98, 99], [40, 41, 42, 43, 90]]
)
def test_names_beside_curves_are_apart_and_inside(heights):
    spread = plots.space_apart(heights)
    assert min(np.diff(spread)) >= 8 - 1e-9
    assert max(spread) <= 100
    if min(np.diff(heights)) >= 8:
        assert spread == heights


def test_folder_that_cannot_be_written(summary, results, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        report.write_html(tmp_path / "file" / "report.html", summary, results, FACTS)
