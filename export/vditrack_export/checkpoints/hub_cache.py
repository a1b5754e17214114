"""Folders of the cache in which ``huggingface_hub`` keeps what it downloads."""

from pathlib import Path

from vditrack.errors import InputError

_MODEL = "models--"


def find_snapshot(path: Path, hub_id: str) -> Path:
    """Return the folder of a checkpoint that lies in a cache of the Hugging Face Hub.

    Args:
        path: Folder that a user names: the cache, the folder of a model in it, a snapshot, or any
            other folder.
        hub_id: Name of the checkpoint on the Hub, ``ORG/NAME``, to choose among several models.

    Returns:
        The folder of the files; `path` itself if it is not a folder of a cache.

    Raises:
        InputError: There is no snapshot, or it is not clear which one to take.

    """
    models = _list_models(path) or _list_models(path / "hub")
    if models:
        wanted = _MODEL + hub_id.replace("/", "--")
        by_name = {model.name: model for model in models}
        if wanted not in by_name and len(models) > 1:
            raise InputError(
                f"{path} is a cache of the Hugging Face Hub without {hub_id}. Give the folder of "
                f"one of its models: {', '.join(sorted(by_name))}."
            )
        path = by_name.get(wanted, models[0])
    if not (path / "snapshots").is_dir() or (path / "config.json").exists():
        return path
    snapshots = {folder.name: folder for folder in _list_folders(path / "snapshots")}
    main = _read_ref(path / "refs" / "main")
    if main in snapshots:
        return snapshots[main]
    if len(snapshots) == 1:
        return next(iter(snapshots.values()))
    if not snapshots:
        raise InputError(f"{path / 'snapshots'} is empty: nothing was downloaded yet.")
    raise InputError(
        f"{path} has several snapshots and none of them is that of the branch main. Give one of: "
        f"{', '.join(str(snapshots[name]) for name in sorted(snapshots))}."
    )


def _list_models(path: Path) -> list[Path]:
    return [folder for folder in _list_folders(path) if folder.name.startswith(_MODEL)]


def _list_folders(path: Path) -> list[Path]:
    try:
        return sorted(entry for entry in path.iterdir() if entry.is_dir())
    except OSError:
        return []


def _read_ref(path: Path) -> str | None:
    try:
        if not path.is_file():
            return None
        with path.open(encoding="ascii", errors="replace") as file:
            return file.read(100).strip()
    except OSError:
        return None
