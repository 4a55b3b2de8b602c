"""A model's weights: where they lie, whether they are there, and how they get there.

`present` is quick and needs no network; `fetch` returns at once where it says yes. A download grows
in `.partial-NAME` beside its final folder and is renamed when every file in it is verified, so that
a folder with a model's name is whole. A model in int8 is a folder of its own, `NAME-int8`, beside
the one it was made of, and is made once. Clients of the hubs are imported only when something must
be fetched.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING

from serving.bundles import BUNDLES, Bundle
from serving.quantise import BFLOAT16, INT8, int8_size, is_of_today, is_quantised
from serving.report import Report
from serving.weights_errors import Damaged, NotHere, UnknownModel, WeightsError
from serving.weights_files import (
    MANIFEST,
    ORIGIN,
    Entry,
    check_folder,
    damaged,
    disk_failures,
    entry_of,
    is_outdated,
    locked,
    read_manifest,
    unchanged,
    write_manifest,
    write_origin,
)

if TYPE_CHECKING:
    from serving.catalogue import Model

__all__ = ["SOURCES", "WeightsError", "fetch", "folder_of", "int8_bytes", "present", "verify"]

Make = Callable[[Path, Report], dict[str, Entry]]  # fills a folder, says what it put there
WAITING = "another process is fetching it; waiting for that one"
GB = 10**9
INT8_SHARE = 0.75  # of the original's size; the exact one is asked for once its tensors are known
SOURCES = {"modelscope": "ModelScope", "huggingface": "Hugging Face"}  # asked in this order


def folder_of(model: Model, root: Path, precision: str = BFLOAT16) -> Path:
    """Where the model's weights lie in that precision, or would lie once fetched.

    `precision` is `int8` or any other word, which means the weights as they are published. What is
    published in int8 already is the same for both.
    """
    original = model.folder or root / model.name.replace("/", "--")
    if precision != INT8 or model.precision == INT8 or is_quantised(original):
        return original
    beside = original.parent if os.access(original.parent, os.W_OK) else root
    return beside / f"{original.name}-{INT8}"


def present(model: Model, root: Path, precision: str = BFLOAT16) -> bool:
    """Whether the weights are there and whole in that precision: no network, no hashing."""
    folder = folder_of(model, root, precision)
    if _is_superseded(folder, folder_of(model, root)):
        return False
    return _whole(folder)


def _is_superseded(folder: Path, original: Path) -> bool:
    """Whether another int8 form would be made of the original, which is here, today."""
    if is_outdated(folder, original):
        return True
    return (folder / ORIGIN).is_file() and _whole(original) and not is_of_today(folder)


def int8_bytes(model: Model, root: Path) -> int | None:
    """The size of the model's folder in int8 beside its original, or None where there is none."""
    folder = folder_of(model, root, INT8)
    if folder == folder_of(model, root) or not _whole(folder):
        return None
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())


def _whole(folder: Path) -> bool:
    entries = read_manifest(folder)
    if entries is not None:
        return unchanged(folder, entries)
    try:
        check_folder(folder)
    except (WeightsError, OSError):
        return False
    return True


def fetch(
    model: Model, root: Path, source: str | None, report: Report, precision: str = BFLOAT16
) -> Path:
    """The folder with the model's weights in that precision, fetched and made first if need be.

    `precision` is as for folder_of. Raises WeightsError: Unfit, naming the layer, where int8 is
    asked for and vLLM's CPU build cannot run the model so.
    """
    if precision == INT8 and folder_of(model, root) != folder_of(model, root, INT8):
        return _fetch_int8(model, root, source, report)
    folder = folder_of(model, root)
    if model.folder is not None:
        with disk_failures(folder):
            check_folder(folder)
        return folder
    _ensure(folder, report, partial(_from_sources, model, source, BFLOAT16, 0.0))
    return folder


def _fetch_int8(model: Model, root: Path, source: str | None, report: Report) -> Path:
    """Out of the original where it is here or a hub has it; a bundle's file needs no original."""
    folder, original = folder_of(model, root, INT8), folder_of(model, root)
    if model.package is not None and not present(model, root):
        _ensure(folder, report, partial(_from_sources, model, source, INT8, 0.0))
        return _told_of_age(folder, report)
    if model.folder is None and not (present(model, root, INT8) and not original.exists()):
        _ensure(original, report, partial(_from_sources, model, source, BFLOAT16, INT8_SHARE))
    elif model.folder is not None:
        fetch(model, root, source, report)
    if is_quantised(original):
        report.say(f"{model.name} is published in a quantised form: served as it is")
        return original
    _ensure(folder, report, partial(_from_folder, original), original)
    return _told_of_age(folder, report)


def _told_of_age(folder: Path, report: Report) -> Path:
    """What an earlier version made, of what is no longer here, is not fetched again unasked."""
    if not is_of_today(folder):
        report.say(
            f"{folder.name} was made by an earlier version, and this one's is faster or more "
            f"exact. Delete {folder} and start again: it is fetched and made anew."
        )
    return folder


def _ensure(folder: Path, report: Report, make: Make, original: Path | None = None) -> None:
    """See that the folder is there and whole; by one process at a time."""

    def good() -> bool:
        return _whole(folder) and not (original and _is_superseded(folder, original))

    if good():
        return
    with disk_failures(folder.parent), ExitStack() as stack:
        folder.parent.mkdir(parents=True, exist_ok=True)
        lock = folder.parent / f".{folder.name}.lock"
        stack.enter_context(locked(lock, lambda: report.say(f"{folder.name}: {WAITING}")))
        if good():
            return
        superseded = original is not None and _is_superseded(folder, original)
        if superseded or not _still_good(folder, report):
            _fill(folder, make, report)


def _still_good(folder: Path, report: Report) -> bool:
    """Whether a fetched folder whose files were touched still holds what was fetched."""
    entries = read_manifest(folder)
    if entries is None:
        return False
    report.say(f"{folder.name}: its files were touched since they were fetched; comparing hashes")
    bad = _drop_damaged(folder, entries, report)
    if not bad:
        write_manifest(
            folder, {name: entry_of(folder / name, e.sha256) for name, e in entries.items()}
        )
    return not bad


def _drop_damaged(folder: Path, entries: dict[str, Entry], report: Report) -> list[str]:
    """Deletes the files that are not what was fetched; those and the ones that are gone."""
    bad = damaged(folder, entries)
    for name in bad:
        report.say(f"{folder.name}: {name} is damaged or gone and is fetched again")
        (folder / name).unlink(missing_ok=True)
    return bad


def verify(model: Model, root: Path, report: Report, precision: str = BFLOAT16) -> None:
    """Compares every file that is here with the hash that it was fetched or made with.

    One that is damaged is deleted, and no longer `present`; in a folder of the user's own it
    raises Damaged.
    """
    folder = folder_of(model, root, precision)
    entries = read_manifest(folder)
    if entries is None:
        if folder.is_dir():
            report.say(f"{folder.name}: no hashes came with it, so only its lengths are checked")
        return
    report.say(f"{folder.name}: comparing its files' hashes")
    if folder != model.folder:
        _drop_damaged(folder, entries, report)
    elif bad := damaged(folder, entries):
        raise Damaged(f"{folder / bad[0]} is not what was fetched.", "Fetch it again.")


def _fill(folder: Path, make: Make, report: Report) -> None:
    draft = folder.with_name(f".partial-{folder.name}")
    _reopen(folder, draft)
    draft.mkdir(exist_ok=True)
    entries = make(draft, report)
    _sweep(draft, entries)
    check_folder(draft)
    write_manifest(draft, entries)
    draft.rename(folder)
    report.say(f"{folder.name} is whole and verified")


def _reopen(folder: Path, draft: Path) -> None:
    """Make way for the download: what an earlier one left of the folder is used for it."""
    if not folder.exists():
        return
    if (folder / MANIFEST).exists():
        rmtree(draft, ignore_errors=True)
        folder.rename(draft)
        (draft / MANIFEST).unlink()
        return
    if any(folder.iterdir()):
        raise Damaged(
            f"{folder} holds files, but not a whole model, and they are not this program's.",
            "Move that folder away and run it again.",
        )
    folder.rmdir()


def _sweep(draft: Path, entries: dict[str, Entry]) -> None:
    for path in draft.iterdir():
        if path.is_dir() and not path.is_symlink():
            rmtree(path)
        elif path.name not in entries:
            path.unlink()


def _from_sources(
    model: Model, source: str | None, form: str, more: float, draft: Path, report: Report
) -> dict[str, Entry]:
    """Ask one source after the other, as far as the next one can cure what went wrong."""
    if model.package is not None:
        return _from_bundle(BUNDLES[model.package], source, form, draft, report)
    hubs = _hubs_of(model, source)
    for name, repo in hubs[:-1]:
        try:
            return _from_hub(name, repo, more, draft, report)
        except NotHere as error:
            report.say(f"{error.message} Trying {SOURCES[hubs[-1][0]]}.")
    try:
        return _from_hub(*hubs[-1], more, draft, report)
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


def _from_hub(source: str, repo: str, more: float, draft: Path, report: Report) -> dict[str, Entry]:
    from serving.hubs import open_hub
    from serving.weights_download import download

    hub = open_hub(source, repo)
    return download(hub, hub.listing(), draft, report, more)


def _from_bundle(
    bundle: Bundle, source: str | None, form: str, draft: Path, report: Report
) -> dict[str, Entry]:
    """The bundle's file, then what is made of it. The file is not kept."""
    from serving.conversion import check_packages, convert_apart
    from serving.sources import bytes_needed, fetch_file
    from serving.weights_download import check_space

    check_packages()
    check_space(draft, bytes_needed(bundle, form, draft))
    file = fetch_file(bundle, source, draft, report)
    report.say(f"converting it to {form} for vLLM")
    convert_apart(file, draft, form, bundle.size_as(form), report)
    file.unlink()
    return _made(draft)


def _from_folder(original: Path, draft: Path, report: Report) -> dict[str, Entry]:
    """The int8 form of a folder's model."""
    from serving.conversion import check_packages, convert_apart
    from serving.weights_download import check_space

    check_packages()
    size = int8_size(original)
    check_space(draft, size)
    report.say(f"making {original.name} int8 for this CPU, once: {size / GB:.2f} GB")
    write_origin(draft, original)
    convert_apart(original, draft, INT8, size, report)
    return _made(draft)


def _made(draft: Path) -> dict[str, Entry]:
    names = [path.name for path in draft.iterdir() if path.is_file()]
    kept = [name for name in names if name == ORIGIN or not name.startswith(".")]
    return {name: entry_of(draft / name) for name in kept}


def _with_close_names(error: UnknownModel, repo: str) -> UnknownModel:
    from serving.catalogue import load

    models = load().values()
    known = {i: m.name for m in models for i in (m.name, m.modelscope, m.huggingface) if i}
    names = {known[i] for i in get_close_matches(repo, known, n=3, cutoff=0.6)}
    names |= {known[i] for i in get_close_matches(repo.split("/")[-1].lower(), known, n=2)}
    meant = f" Did you mean {' or '.join(sorted(names))}?" if names else ""
    return UnknownModel(f"{error.message}{meant}", error.remedy)
