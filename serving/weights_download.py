"""One repository into one folder: space, order, resumption, hashes, progress.

The configuration is fetched first and alone, so that a locked door, a need for
foreign code or a missing shard shows before the gigabytes. The shards then come
a few at a time. What is whole in the folder already is not fetched again.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from shutil import copyfile, disk_usage

from serving.hubs import Hub
from serving.progress import Progress
from serving.report import Report
from serving.weights_errors import Damaged, NoSpace, UnknownModel
from serving.weights_files import Entry, entry_of, git_sha1_of, sha256_of
from serving.weights_listing import INDEX, File, Listing, check_config, check_shards, choose

GB = 10**9
AT_ONCE = 4  # as many as both hubs' own clients take


def download(
    hub: Hub, listing: Listing, folder: Path, report: Report, more: float = 0.0
) -> dict[str, Entry]:
    """Fetch what vLLM reads of the listing into `folder`; every file verified.

    `more` is the disk space that is needed afterwards, as a share of the listing's size.
    """
    files = choose(listing)
    total = sum(file.size for file in files)
    need = total - sum(_there(folder, file) for file in files)
    check_space(folder, need + int(total * more))
    report.say(
        f"fetching {listing.repo} from {hub.title}: {total / GB:.2f} GB into {folder.parent}"
    )
    progress = Progress(need, report)
    small = [file for file in files if not file.name.endswith(".safetensors")]
    entries = {file.name: fetch_file(hub, listing, file, folder, progress.add) for file in small}
    _check_small(listing.repo, folder, files)
    shards = [file for file in files if file.name.endswith(".safetensors")]
    return entries | _fetch_shards(hub, listing, shards, folder, progress)


def check_space(folder: Path, need: int) -> None:
    free = disk_usage(folder).free
    if need > free:
        raise NoSpace(
            f"It needs {need / GB:.2f} GB and {folder.parent} has {free / GB:.2f} GB free.",
            "Free some space, or set STEPWISE_MODELS to a folder on a larger disk.",
        )


def download_file(hub: Hub, file: File, folder: Path, report: Report) -> Entry:
    """Fetch one file, known by its size and hash, whatever else the repository holds."""
    listing = hub.listing()
    if all(one.name != file.name for one in listing.files):
        raise UnknownModel(
            f"{hub.title} has no {file.name} in {listing.repo}.", "Use another --source."
        )
    report.say(f"fetching {file.name} from {hub.title}: {file.size / GB:.2f} GB")
    progress = Progress(file.size, report)
    return fetch_file(hub, listing, file, folder, progress.add)


def _there(folder: Path, file: File) -> int:
    """How many of the file's bytes an earlier run left."""
    for path in (folder / file.name, _rest(folder, file)):
        with suppress(FileNotFoundError):
            return min(path.stat().st_size, file.size)
    return 0


def _rest(folder: Path, file: File) -> Path:
    return folder / f"{file.name}.incomplete"


def _check_small(repo: str, folder: Path, files: tuple[File, ...]) -> None:
    names = {file.name for file in files}
    for name in sorted({"config.json", "tokenizer_config.json"} & names):
        check_config(repo, name, _text(folder / name))
    if INDEX in names:
        check_shards(repo, _text(folder / INDEX), names)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


def fetch_file(
    hub: Hub, listing: Listing, file: File, folder: Path, count: Callable[[int], None]
) -> Entry:
    """The file, whole and verified, in `folder`."""
    target = folder / file.name
    if entry := _verified(target, file):
        return entry
    target.unlink(missing_ok=True)
    if _take_from_cache(hub, listing, file, target) and (entry := _verified(target, file)):
        count(file.size)
        return entry
    resumed = _rest(folder, file).exists()
    hub.transfer(listing, file, folder, count)
    entry = _verified(target, file)
    if entry is None and resumed:  # the rest of the earlier run may have been the bad part
        count(-file.size)
        target.unlink(missing_ok=True)
        hub.transfer(listing, file, folder, count)
        entry = _verified(target, file)
    if entry is None:
        target.unlink(missing_ok=True)
        raise Damaged(
            f"{file.name} of {listing.repo} came from {hub.title} with the wrong size or hash.",
            "Run it again; if it stays so, use another --source.",
        )
    return entry


def _verified(path: Path, file: File) -> Entry | None:
    if not path.is_file() or path.is_symlink() or path.stat().st_size != file.size:
        return None
    sha256 = sha256_of(path)
    if file.sha256 is not None and sha256 != file.sha256.lower():
        return None
    if file.git_sha1 is not None and git_sha1_of(path) != file.git_sha1:
        return None
    return entry_of(path, sha256)


def _take_from_cache(hub: Hub, listing: Listing, file: File, target: Path) -> bool:
    """Whether the user's own cache of that hub had the file: linked where it can be."""
    source = hub.cached(listing, file)
    if source is None or not source.is_file() or source.stat().st_size != file.size:
        return False
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without links
        copyfile(source, target)
    return True


def _fetch_shards(
    hub: Hub, listing: Listing, shards: list[File], folder: Path, progress: Progress
) -> dict[str, Entry]:
    """Several at once, in threads that an end of the program does not wait for."""
    waiting: SimpleQueue[File] = SimpleQueue()
    ended: SimpleQueue[tuple[str, Entry | BaseException]] = SimpleQueue()
    for shard in shards:
        waiting.put(shard)

    def work() -> None:
        with suppress(Empty):
            while True:
                file = waiting.get_nowait()
                try:
                    ended.put((file.name, fetch_file(hub, listing, file, folder, progress.add)))
                except BaseException as error:  # the main thread raises it
                    ended.put((file.name, error))
                    return

    for _ in range(min(AT_ONCE, len(shards))):
        threading.Thread(target=work, daemon=True).start()
    try:
        return dict(_entry(*ended.get()) for _ in shards)
    except BaseException:  # Ctrl-C too: the other threads end at their next piece
        progress.halt()
        raise


def _entry(name: str, outcome: Entry | BaseException) -> tuple[str, Entry]:
    if isinstance(outcome, BaseException):
        raise outcome
    return name, outcome
