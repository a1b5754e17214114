"""The verb `eval` as a user runs it, on files in the published layouts."""

import json
import pickle
import subprocess
from functools import partial
from html.parser import HTMLParser
from pathlib import Path

import cv2
import numpy as np
import pytest

from vditrack.synthetic.layers.textures import draw_pattern

pytestmark = pytest.mark.slow

DAVIS32 = Path(__file__).parents[4] / "shared" / "data" / "davis32_dev"


@pytest.fixture
def evaluate(run_vditrack):
    return partial(run_vditrack, "eval")


def scores(done: subprocess.CompletedProcess[str], method: str) -> dict[str, float]:
    assert done.returncode == 0, done.stderr
    of_method = next(m for m in json.loads(done.stdout)["methods"] if m["name"] == method)
    return {name: metric["mean"] for name, metric in of_method["metrics"].items()}


@pytest.fixture
def videos(tmp_path) -> Path:
    """Three videos, each a picture that moves by (2, 1) pixels a frame, with tracks and masks."""
    for number in range(3):
        folder = tmp_path / "videos" / f"pan-{number}"
        (folder / "frames").mkdir(parents=True)
        (folder / "masks").mkdir()
        picture = draw_pattern(np.random.default_rng(number), 160, 200)
        starts = np.array([[40, 30], [70, 60]])
        points = starts[:, None] + np.arange(8)[:, None] * (2, 1)
        for t in range(8):
            frame = picture[40 - t : 136 - t, 60 - 2 * t : 188 - 2 * t, ::-1]
            cv2.imwrite(str(folder / "frames" / f"{t:05d}.png"), frame)
            mask = np.zeros((96, 128), np.uint8)
            mask[20 + t : 50 + t, 30 + 2 * t : 60 + 2 * t] = 1
            cv2.imwrite(str(folder / "masks" / f"{t:05d}.png"), mask)
        fractions = (points / (128, 96)).astype(np.float32)
        np.savez(folder / "tracks.npz", points=fractions, occluded=np.zeros((2, 8), bool))
    return tmp_path / "videos"


def test_methods_side_by_side(videos, tmp_path, evaluate):
    done = evaluate(
        "videos", "--method", "klt", "--method", "still", "-o", "out.html", "--json", cwd=tmp_path
    )
    assert scores(done, "klt")["AJ"] > 90
    # After t frames the truth is at (4 t, 2.7 t) on the raster: within 8 px once, within 16 thrice.
    assert scores(done, "still")["δ"] == pytest.approx(100 * (1 + 3) / 7 / 5)
    page = (tmp_path / "out.html").read_text()
    assert "pan-0" in page
    assert not external_references(page)
    shown = evaluate("videos", "--method", "klt", "--clips", "1", cwd=tmp_path)
    assert "protocol tapvid" in " ".join(shown.stdout.split())
    assert "klt" in shown.stdout


def external_references(page: str) -> list[str]:
    """What a browser would fetch to show a page."""
    found = []

    class Links(HTMLParser):
        def handle_starttag(self, tag, attributes):
            for name, value in attributes:
                if name in ("src", "href", "xlink:href", "srcset", "data", "action"):
                    found.append(value)

    Links().feed(page)
    inside = ("#", "data:")
    return [link for link in found if not link.startswith(inside)]


def test_masks_and_other_protocols(videos, tmp_path, evaluate):
    methods = ("--method", "klt", "--method", "dis", "--method", "still")
    done = evaluate("videos", "--protocol", "davis", *methods, "--json", cwd=tmp_path)
    flows = min(scores(done, "klt")["J&F"], scores(done, "dis")["J&F"])
    assert flows > 90 > scores(done, "still")["J&F"]
    assert list(scores(done, "dis")) == ["J&F", "J", "F"]
    strided = evaluate("videos", "--query", "strided", "--method", "klt", "--json", cwd=tmp_path)
    assert scores(strided, "klt")["AJ"] > 90


def test_look_alikes_are_for_masks(tmp_path, evaluate):
    methods = ("--method", "klt", "--method", "still", "--clips", "2", "--json")
    done = evaluate("lookalikes:0", *methods, cwd=tmp_path)
    assert json.loads(done.stdout)["facts"]["protocol"] == "davis"
    assert list(scores(done, "klt")) == ["J&F", "J", "F", "identities kept"]
    assert scores(done, "klt")["J&F"] > 50 > scores(done, "still")["J&F"]
    assert scores(done, "still")["identities kept"] == 0
    assert [clip["clip"] for clip in json.loads(done.stdout)["clips"][:2]] == [
        "straight-00",
        "arcs-01",
    ]


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, marker: Path):
        self.marker = marker

    def __reduce__(self):
        return (Path.write_text, (self.marker, "run"))


def clip_pickle(**changes) -> dict:
    clip = {
        "video": np.zeros((4, 32, 32, 3), np.uint8),
        "points": np.full((2, 4, 2), 0.5, np.float32),
        "occluded": np.zeros((2, 4), bool),
    }
    return {"made": {**clip, **changes}}


def test_a_whole_pickle_is_read(tmp_path, evaluate):
    (tmp_path / "made.pkl").write_bytes(pickle.dumps(clip_pickle()))
    done = evaluate("made.pkl", "--method", "still", "--json", cwd=tmp_path)
    assert scores(done, "still") == {"AJ": 100, "δ": 100, "OA": 100, "AJ_RD": None}
    assert json.loads(done.stdout)["facts"]["mode"] == "offline"
    done = evaluate("made.pkl", "--method", "still", "--causal", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["facts"]["mode"] == "causal"


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, evaluate):
    marker = tmp_path / "marker"
    content = pickle.dumps(clip_pickle(video=Payload(marker)))
    (tmp_path / "hostile.pkl").write_bytes(content)
    refused = evaluate("hostile.pkl", cwd=tmp_path)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert "hostile.pkl" in line
    assert "refused" in line
    assert not marker.exists()
    # The payload is a live one.
    pickle.loads(content)
    assert marker.exists()


MISTAKES = {
    "truncated.pkl": (["truncated.pkl"], "truncated.pkl is damaged"),
    "points": (["points.pkl"], "points.pkl"),
    "occluded": (["occluded.pkl"], "occluded.pkl"),
    "nothing there": (["absent"], "absent does not exist"),
    "seed": (["synthetic:x"], "'x' is not a seed"),
    "method": (["videos", "--method", "magic"], "no method 'magic'"),
    "size": (["videos", "--protocol", "davis", "--size", "256"], "its own queries and size"),
    "causal": (["videos", "--causal", "--query", "strided"], "no causal tracker knows"),
    "no tracks": (
        ["lookalikes:0", "--protocol", "tapvid", "--method", "klt"],
        "masks without tracks",
    ),
    "seed of look-alikes": (["different:-1", "--method", "still"], "'-1' is not a seed"),
    "too short": (["videos", "--protocol", "heft", "--method", "klt"], "8 frames"),
    "a folder": (["videos", "-o", "videos"], "videos is a folder"),
    "layout": (
        ["points.pkl", "--protocol", "davis", "--method", "dis"],
        "protocol davis cannot use",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(videos, tmp_path, mistake, assert_refused):
    arguments, message = MISTAKES[mistake]
    (tmp_path / "truncated.pkl").write_bytes(pickle.dumps(clip_pickle())[:-700])
    wrong = np.zeros((2, 3, 2), np.float32)
    (tmp_path / "points.pkl").write_bytes(pickle.dumps(clip_pickle(points=wrong)))
    wrong = np.zeros((5, 4), bool)
    (tmp_path / "occluded.pkl").write_bytes(pickle.dumps(clip_pickle(occluded=wrong)))
    assert_refused("eval", "-o", "out.html", *arguments, message=message, cwd=tmp_path)


@pytest.mark.skipif(not DAVIS32.is_dir(), reason="needs the annotated clips, which are not ours")
@pytest.mark.parametrize(
    ("size", "published"), [("256", (49.4, 61.4, 76.4)), ("full", (55.0, 67.1, 71.2))]
)
def test_klt_has_its_known_figures(tmp_path, size, published, evaluate):
    done = evaluate(DAVIS32, "--method", "klt", "--size", size, "--json", cwd=tmp_path)
    found = scores(done, "klt")
    np.testing.assert_allclose([found[name] for name in ("AJ", "δ", "OA")], published, atol=0.5)


def test_the_synthetic_set(tmp_path, evaluate):
    # One clip of each kind; tests of the suite hold that there are three.
    options = ("--method", "ours", "--method", "klt", "--method", "still", "--clips", "5")
    done = evaluate("synthetic:0", *options, "-o", "out.html", "--json", cwd=tmp_path)
    assert (
        min(scores(done, "ours")["AJ"], scores(done, "klt")["AJ"]) > 2 * scores(done, "still")["AJ"]
    )
    events = ["found again", "visible outside", "identity kept"]
    assert list(scores(done, "ours")) == ["AJ", "δ", "OA", "AJ_RD", *events]
    # What Lucas-Kanade loses it never finds again.
    assert scores(done, "klt")["found again"] < 10
    page = (tmp_path / "out.html").read_text()
    assert "found again" in page
    assert "identity kept" in page
    assert {clip["clip"][:-3] for clip in json.loads(done.stdout)["clips"]} == {
        "drift",
        "occlusion",
        "leaving",
        "blur-and-light",
        "lookalikes",
    }
    crossing = [c for c in json.loads(done.stdout)["clips"] if "identity kept" in c["events"]]
    assert {clip["clip"][:-3] for clip in crossing} == {"lookalikes"}
    assert not external_references(page)
