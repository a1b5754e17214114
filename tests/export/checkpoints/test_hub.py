"""Names on the Hugging Face Hub, and its cache.

The Hub is a local server of its API, as no test may need a network; ``huggingface_hub``, which
asks it and writes the cache, is the real one.
"""

import shutil
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import torch

from doubles.hub_server import COMMIT, HubServer, serve_hub
from doubles.pipelines import make_transformer
from vditrack.errors import InputError
from vditrack_export.card import Card, load_card
from vditrack_export.checkpoints.hub import download_line, parse_hub_id
from vditrack_export.checkpoints.sources import Lora, Weights
from vditrack_export.pipeline.checkpoint import load_checkpoint
from vditrack_export.pipeline.locate import locate_checkpoint, make_parts

MODEL = "org/small-wan"
NAME = "diffusion_pytorch_model"


@pytest.fixture
def hub(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A Hub with one model, and an empty cache."""
    torch.manual_seed(1)
    fp16, folder = make_transformer("wan").half(), checkpoint / "transformer"
    # Saved into the same folder, diffusers would delete the parts of the plain weights.
    fp16.save_pretrained(tmp_path / "fp16", variant="fp16", max_shard_size="50KB")
    fp16.save_pretrained(tmp_path / "bin", safe_serialization=False)
    for path in (*(tmp_path / "fp16").glob(f"{NAME}*"), tmp_path / "bin" / f"{NAME}.bin"):
        path.rename(folder / path.name)
    fp16.save_pretrained(checkpoint / "image_encoder")
    (checkpoint / "model_index.json").write_text('{"_class_name": "WanPipeline"}')
    (checkpoint / "README.md").write_text("# Small")
    with serve_hub(MODEL, checkpoint) as server:
        monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)
        monkeypatch.setattr(
            "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
            server.address + "/{repo_id}/resolve/{revision}/{filename}",
        )
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.chdir(tmp_path)
        yield server


def locate(card: Card, name: str, notes: list[str] | None = None, **options: Any) -> Weights:
    weights = Weights(Path(name), **options)
    notes = [] if notes is None else notes
    return locate_checkpoint(card, [card.feature.timestep], weights, notes.append)


def test_a_missing_lora_is_reported_before_a_download(hub: HubServer, card: Card) -> None:
    notes: list[str] = []
    with pytest.raises(InputError, match=r"there is no LoRA at none.safetensors"):
        locate(card, MODEL, notes, loras=(Lora(Path("none.safetensors")),))
    assert not notes


def test_only_what_is_read_is_downloaded(hub: HubServer, card: Card) -> None:
    located = locate(card, MODEL)
    plain = {name for name in hub.files() if name.startswith("transformer/") and "fp16" not in name}
    read = {
        "model_index.json",
        *(name for name in plain if not name.endswith(".bin")),
        "vae/config.json",
        "vae/diffusion_pytorch_model.safetensors",
        *(name for name in hub.files() if name.startswith(("text_encoder/", "tokenizer/"))),
    }
    assert set(hub.downloads) == read
    assert located.folder is not None
    assert located.folder.parts[-3:] == (f"models--{MODEL.replace('/', '--')}", "snapshots", COMMIT)
    assert load_checkpoint(card, located).transformer is not None
    before = len(hub.downloads)
    assert locate(card, MODEL) == located
    assert len(hub.downloads) == before


def test_a_variant_and_a_stored_prompt_need_less(
    hub: HubServer, card: Card, tmp_path: Path
) -> None:
    prompt = tmp_path / "prompt.safetensors"
    prompt.touch()
    located = locate(card, f"{MODEL}@{COMMIT}", variant="fp16", prompt=prompt)
    names = {name for name in hub.downloads if not name.startswith("vae/")}
    fp16 = {name for name in hub.files() if "fp16" in name}
    assert names == {"model_index.json", "transformer/config.json", *fp16}
    assert "fp16" in load_checkpoint(card, located).notes[0]


def test_a_folder_of_that_name_wins(hub: HubServer, card: Card, tmp_path: Path) -> None:
    shutil.copytree(hub.folder, tmp_path / MODEL)
    assert locate(card, MODEL).folder == Path(MODEL)
    assert hub.downloads == []


def test_the_cache_is_found_by_all_its_folders(hub: HubServer, card: Card) -> None:
    snapshot = locate(card, MODEL).folder
    assert snapshot is not None
    whole = load_checkpoint(card, Weights(snapshot))
    model = snapshot.parent.parent
    for folder in (snapshot, model, model.parent):
        located = locate(card, str(folder))
        assert located.folder == snapshot
        assert load_checkpoint(card, located).sha256 == whole.sha256
    # Two snapshots, and none of the branch main.
    other = shutil.copytree(snapshot, snapshot.parent / ("f" * 40), symlinks=True)
    assert locate(card, str(model)).folder == snapshot
    (model / "refs" / "main").unlink()
    with pytest.raises(InputError, match=rf"several snapshots .* {other}"):
        locate(card, str(model))
    shutil.copytree(model, model.parent / "models--other--model", symlinks=True)
    with pytest.raises(InputError, match=r"cache of the Hugging Face Hub without random numbers"):
        locate(card, str(model.parent))


def test_a_link_of_the_cache_leads_only_to_its_blobs(hub: HubServer, card: Card) -> None:
    located = locate(card, MODEL)
    assert located.folder is not None
    config = located.folder / "vae" / "config.json"
    shutil.copy(config.resolve(), located.folder.parent.parent / "config.json")
    config.unlink()
    config.symlink_to("../../../config.json")
    with pytest.raises(InputError, match="outside of the checkpoint"):
        load_checkpoint(card, located)


def test_without_a_network_the_cache_or_the_command(
    hub: HubServer, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nobody listens there.
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError) as refused:
        locate(card, f"{MODEL}@v1")
    folders = "transformer", "vae", "text_encoder", "tokenizer"
    includes = " ".join(f'--include "{folder}/*"' for folder in folders)
    line = (
        f'`hf download {MODEL} --revision v1 --include "model_index.json" {includes} '
        "--local-dir small-wan`"
    )
    assert line in str(refused.value)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    snapshot = locate(card, MODEL).folder
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    notes: list[str] = []
    assert locate(card, MODEL, notes).folder == snapshot
    assert "is not reached" in notes[0]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("org/other", "no such checkpoint on the Hugging Face Hub"),
        (f"{MODEL}@none", "has no revision none"),
        ("org/a..b", "no such checkpoint"),
        ("wan", "no checkpoint folder at wan"),
        ("a/b/c", "no checkpoint folder at a/b/c"),
    ],
)
def test_what_the_hub_does_not_have(hub: HubServer, card: Card, name: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        locate(card, name)
    assert hub.downloads == []


def test_a_checkpoint_in_another_format_is_told_before_the_download(
    hub: HubServer, card: Card
) -> None:
    (hub.folder / "vae").rename(hub.folder / "autoencoder")
    with pytest.raises(InputError, match=r"has no vae: it was not saved by diffusers"):
        locate(card, MODEL)
    assert hub.downloads == ["model_index.json"]
    located = locate(card, MODEL, vae=Path("vae.safetensors"), text_encoder=Path("text"))
    assert list_content(located) == {"transformer", "model_index.json"}


def list_content(located: Weights) -> set[str]:
    """Return the names of what lies in a located folder."""
    assert located.folder is not None
    return {path.name for path in located.folder.iterdir()}


def test_the_page_has_the_command_of_each_card() -> None:
    page = (Path(__file__).parents[3] / "docs" / "backbones.md").read_text()
    for path in resources.files("vditrack.models").iterdir():
        if not path.name.endswith(".toml"):
            continue
        card = load_card(str(path))
        hub_id = parse_hub_id(card.checkpoint)
        if hub_id is not None:
            folders = make_parts(card, [], Weights(Path("x"))).folders
            assert f"    {download_line(hub_id, folders)}\n" in page


def test_without_the_library_the_remedy_is_told(
    hub: HubServer, card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(InputError, match=r"needs huggingface_hub, .*pip install .*hf download"):
        locate(card, MODEL)
