"""The summary and the report page of a job."""

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

from vditrack.annotation.annotate import LIFE_SECONDS, measure_tracks
from vditrack.annotation.failures import Failure
from vditrack.annotation.handling import Annotated
from vditrack.annotation.job_tables import Failed, Recorded, describe_failure
from vditrack.annotation.report import write_report
from vditrack.annotation.settings import Settings
from vditrack.annotation.sources import Source
from vditrack.annotation.specification import Specification
from vditrack.annotation.summary import Run, summarize
from vditrack.points.tracks import Tracks

SETTINGS = Settings("b" * 64, "cpu", Specification(grid=2))


class Page(HTMLParser):
    """The texts and the tags of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.texts, self.tags, self.links = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]

    def handle_data(self, data):
        self.texts += [data.strip()] if data.strip() else []


def test_lives_are_counted_by_time_and_by_share():
    """Points that are visible for 0, 4, 5 and all of 21 frames at 10 Hz."""
    visible = np.arange(21) < np.array([0, 4, 5, 21])[:, None]
    unknown = np.zeros(visible.shape, np.float32)
    points = np.zeros((*visible.shape, 2), np.float32)
    tracks = Tracks(np.zeros((4, 3), np.float32), points, visible, unknown, unknown)
    measures = measure_tracks(tracks, 3 + np.arange(21) / 10, 4)
    assert measures.life_seconds == (2, 1, 0, 1, 0, 0, 0, 0, 0)
    assert measures.life == (1, 1, 1, 0, 0, 0, 0, 0, 0, 1)
    assert len(measures.life_seconds) == len(LIFE_SECONDS) + 1
    # A picture has no duration.
    still = Tracks(tracks.queries, points[:, :1], visible[:, :1], unknown[:, :1], unknown[:, :1])
    assert measure_tracks(still, np.zeros(1), 4).life_seconds[0] == 4


def test_the_page_has_all_figures_and_loads_nothing(tmp_path, annotation):
    made, record = annotation(Specification(grid=2))
    recorded = [Recorded(Source(Path(f"{name}.mp4")), name, record) for name in ("a", "<b>")]
    parts = (("ds", "front", 1.0, 2.5, 7), ("ds", None, 3.0, None, None))
    recorded += [Recorded(Source(Path(path), *part), "c", record) for path, *part in parts]
    failures = [
        describe_failure(Source(Path(name)), None, Failed(Failure("hang", "no progress."), 2, left))
        for name, left in (("bad.mp4", ()), ("a.mp4", ("hdf5", "rerun")))
    ]
    run = Run(
        complete=False,
        sources=4,
        recordings=4,
        unfinished=1,
        workers=2,
        workers_replaced=1,
        annotated=[Annotated(record, 1.0)],
        seconds=2.0,
    )
    summary = summarize(SETTINGS, recorded, failures, run)
    assert summary.recordings == 4
    assert sum(summary.life_seconds) == sum(summary.life) == 12
    path = tmp_path / "report.html"
    write_report(path, summary, recorded, failures, lambda _: made.thumbnail)
    page = Page(path.read_text())
    assert "script" not in page.tags
    assert "b" not in page.tags
    assert len(page.links) == 8
    assert all(link.startswith("data:image/jpeg;base64,") for link in page.links)
    text = "\n".join(page.texts)
    for part in (
        "The run was interrupted: 1 recording not finished.",
        "a grid of 2 x 2 points, in pixels",
        "2 hang",
        "bad.mp4\nhang\nno progress.\n2",
        "a.mp4\nhang\nno progress. Its tracks are done; missing: hdf5, rerun.\n2",
        "< 0.5 s\n12",
        "90-100%\n",
        "> 300 s\n0",
        "1 in 2.0 s, 1,800.0 an hour",
        "2.5 by 2 workers",
        "<b>.mp4",
        "ds front, episode 7, 1 s to 2.5 s\n",
        "ds, from 3 s\n",
    ):
        assert part in text


def test_a_job_without_recordings_has_a_page(tmp_path):
    run = Run(
        complete=True,
        sources=0,
        recordings=0,
        unfinished=0,
        workers=1,
        workers_replaced=0,
        annotated=[],
        seconds=0.0,
    )
    summary = summarize(SETTINGS, [], [], run)
    write_report(tmp_path / "report.html", summary, [], [], lambda _: None)
    assert "Most doubtful" not in (tmp_path / "report.html").read_text()
