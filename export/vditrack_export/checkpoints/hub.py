"""Download of a checkpoint from the Hugging Face Hub: only the files that an export reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vditrack.errors import InputError, install_command
from vditrack_export.checkpoints.experts import MODEL_INDEX, ExpertName, choose_experts
from vditrack_export.checkpoints.hub_cache import find_snapshot
from vditrack_export.checkpoints.weight_choice import (
    DIFFUSERS,
    TRANSFORMERS,
    choose_weights,
    list_parts,
)

_HUB_ID = re.compile(r"(?P<model>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?", re.ASCII)
_SMALL = (".json", ".txt", ".model")
"""Ends of the names of files beside the weights."""


@dataclass(frozen=True)
class HubId:
    """A checkpoint on the Hugging Face Hub."""

    model: str
    """``ORG/NAME``."""
    revision: str | None
    """A branch, tag or commit; None for the branch main."""

    def __str__(self) -> str:
        """Return the text that `parse_hub_id` reads."""
        return self.model if self.revision is None else f"{self.model}@{self.revision}"


@dataclass(frozen=True)
class Parts:
    """What an export reads of a checkpoint."""

    denoiser: str | None
    """Folder of the transformer or UNet, if it is read."""
    encoder: str | None
    """Folder of the autoencoder, if it is read."""
    text_encoders: tuple[str, ...]
    """Suffixes of the folders of text encoders and tokenizers that give the empty prompt."""
    timesteps: tuple[float, ...]
    """Timesteps that are read, which choose among two transformers."""
    expert: ExpertName | None
    """The choice of the user among two transformers."""
    variant: str | None
    """The variant of weight files that is preferred."""

    @property
    def folders(self) -> tuple[str, ...]:
        """Folders that are read, of two transformers only the first."""
        text = (
            f"{kind}{end}" for end in self.text_encoders for kind in ("text_encoder", "tokenizer")
        )
        return (*filter(None, (self.denoiser, self.encoder)), *text)


def parse_hub_id(text: str) -> HubId | None:
    """Return the checkpoint that ``ORG/NAME`` or ``ORG/NAME@REVISION`` names, if it does."""
    match = _HUB_ID.fullmatch(text)
    return match and HubId(match["model"], match["revision"])


def download_line(hub_id: HubId, folders: Sequence[str]) -> str:
    """Return the command that downloads folders of a checkpoint on a machine with a network."""
    patterns = (MODEL_INDEX, *(f"{folder}/*" for folder in folders))
    includes = " ".join(f'--include "{pattern}"' for pattern in patterns)
    revision = f" --revision {hub_id.revision}" if hub_id.revision else ""
    name = hub_id.model.partition("/")[2]
    return f"hf download {hub_id.model}{revision} {includes} --local-dir {name}"


def download_checkpoint(hub_id: HubId, parts: Parts, report: Callable[[str], None]) -> Path:
    """Download what an export reads of a checkpoint into the cache of the Hub's own library.

    Without a network, the copy in the cache is taken if there is one.

    Args:
        hub_id: The checkpoint.
        parts: What is read.
        report: Called with what is done.

    Returns:
        The folder of the snapshot.

    Raises:
        InputError: There is no network, no such checkpoint, or no right to download it; the
            message has the command to download it elsewhere.

    """
    try:
        import huggingface_hub  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise InputError(
            f"the download of {hub_id} needs {error.name}, which is not installed. Run "
            f"`{install_command('export')}`, or on another machine `{_line(hub_id, parts)}`, and "
            "give the folder."
        ) from error
    try:
        info = huggingface_hub.HfApi().model_info(hub_id.model, revision=hub_id.revision)
    # The Hub's own errors and those of the HTTP library that its version uses share no base class.
    except Exception as error:
        cached = _find_cached(huggingface_hub, hub_id)
        if cached is None or _is_refused(error):
            raise _refusal(hub_id, parts, error) from error
        report(f"note: the Hugging Face Hub is not reached; {hub_id} is taken from {cached}")
        return cached

    def fetch(names: Sequence[str]) -> Path:
        folder = huggingface_hub.snapshot_download(
            hub_id.model, revision=hub_id.revision, allow_patterns=list(names)
        )
        return Path(folder)

    files = {file.rfilename for file in info.siblings or ()}
    report(f"downloading {hub_id} from the Hugging Face Hub")
    try:
        folders = list(parts.folders)
        if parts.denoiser is not None:
            index = fetch([MODEL_INDEX])
            experts = choose_experts(index, parts.denoiser, parts.timesteps, parts.expert)
            folders[:1] = sorted({expert.component for expert in experts})
        _check_folders(hub_id, files, folders)
        return fetch(_list_files(files, folders, parts.variant))
    except InputError:
        raise
    # As above.
    except Exception as error:
        raise _refusal(hub_id, parts, error) from error


def _check_folders(hub_id: HubId, files: set[str], folders: Sequence[str]) -> None:
    missing = [
        folder for folder in folders if not any(name.startswith(f"{folder}/") for name in files)
    ]
    if missing:
        raise InputError(
            f"{hub_id} on the Hugging Face Hub has no {', '.join(missing)}: it was not saved by "
            "diffusers. Take the checkpoint that the card names, or download single files and give "
            "them with --transformer, --vae and --text-encoder."
        )


def _list_files(files: set[str], folders: Sequence[str], variant: str | None) -> list[str]:
    """Return the names of the files that are read in folders."""
    names = [MODEL_INDEX]
    for folder in folders:
        inside = {name.partition("/")[2] for name in files if name.startswith(f"{folder}/")}
        names += [f"{folder}/{name}" for name in _list_needed(inside, variant)]
    return [name for name in names if name in files]


def _list_needed(names: set[str], variant: str | None) -> Iterator[str]:
    yield from (name for name in names if name.endswith(_SMALL) and ".index." not in name)
    for stems in (DIFFUSERS, TRANSFORMERS):
        chosen = choose_weights(names, stems, variant)
        if chosen is not None:
            yield chosen.name
            yield from list_parts(names, stems, chosen) if chosen.is_index else ()


def _line(hub_id: HubId, parts: Parts) -> str:
    return download_line(hub_id, parts.folders)


def _find_cached(huggingface_hub: Any, hub_id: HubId) -> Path | None:  # noqa: ANN401
    """Return the snapshot of a checkpoint in the cache of the Hub's library, if there is one."""
    cache = Path(huggingface_hub.constants.HF_HUB_CACHE)
    model = cache / f"models--{hub_id.model.replace('/', '--')}"
    snapshots = model / "snapshots"
    if not snapshots.is_dir():
        return None
    if hub_id.revision is None:
        return find_snapshot(model, hub_id.model)
    reference = model / "refs" / hub_id.revision
    commit = reference.read_text().strip() if reference.is_file() else hub_id.revision
    return snapshots / commit if (snapshots / commit).is_dir() else None


def _is_refused(error: Exception) -> bool:
    """Return whether the Hub answered that a checkpoint does not exist or is not given."""
    names = {base.__name__ for base in type(error).__mro__}
    return bool(names & {"RepositoryNotFoundError", "RevisionNotFoundError", "HFValidationError"})


def _refusal(hub_id: HubId, parts: Parts, error: Exception) -> InputError:
    names = [base.__name__ for base in type(error).__mro__]
    if "GatedRepoError" in names:
        reason = (
            f"{hub_id.model} is only given to those who accept its conditions. Accept them on its "
            "page at huggingface.co and run `hf auth login`, then run this again"
        )
    elif "RepositoryNotFoundError" in names or "HFValidationError" in names:
        reason = (
            f"there is no folder {hub_id}, and no such checkpoint on the Hugging Face Hub, or it "
            "is private: run `hf auth login` first"
        )
    elif "RevisionNotFoundError" in names:
        reason = f"{hub_id.model} has no revision {hub_id.revision}. Give a branch, tag or commit"
    else:
        text = " ".join(str(error).split()) or type(error).__name__
        reason = (
            f"{hub_id} is not a folder, and could not be downloaded from the Hugging Face Hub "
            f"({text[:200]}). On a machine with a network, run `{_line(hub_id, parts)}` and give "
            "the folder"
        )
    return InputError(f"{reason}.")
