"""A model's folder on this disk: whole or not, and the list that says so.

Standard library only, no network. A folder that was fetched holds a manifest,
`.stepwise.json`: each file's size, hash, and its time stamp when the hash was
last compared. A file whose size and time stamp are still those is not read
again; one that changed is hashed again before it is served. A folder without
one (put there by hand) is judged by its index and its shards' own lengths.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from serving.weights_errors import Damaged, NoSpace, Unfit, Unprepared
from serving.weights_listing import BY_HAND, INDEX, check_shards

MANIFEST = ".stepwise.json"
ORIGIN = ".origin.json"  # in a folder that was made of another: what that one held
HEADER_BYTES = 8  # a safetensors file begins with the length of its header
HEADER_LIMIT = 100_000_000  # safetensors' own


@dataclass(frozen=True, slots=True)
class Entry:
    """A file as it was when its hash was last compared."""

    size: int
    sha256: str
    mtime_ns: int


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def git_sha1_of(path: Path) -> str:
    """The name git gives the file's content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def entry_of(path: Path, sha256: str | None = None) -> Entry:
    with path.open("rb") as file:
        os.fsync(file.fileno())  # what the manifest says is to be true after a power cut too
        stat = os.fstat(file.fileno())
    return Entry(stat.st_size, sha256 or sha256_of(path), stat.st_mtime_ns)


def write_manifest(folder: Path, entries: dict[str, Entry]) -> None:
    text = json.dumps({name: asdict(entry) for name, entry in sorted(entries.items())}, indent=1)
    draft = folder / (MANIFEST + ".new")
    draft.write_text(text + "\n")
    draft.replace(folder / MANIFEST)


def read_manifest(folder: Path) -> dict[str, Entry] | None:
    """The manifest, or None where there is none that can be read."""
    try:
        values = json.loads((folder / MANIFEST).read_text())
        return {name: Entry(**value) for name, value in values.items()} or None
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def unchanged(folder: Path, entries: dict[str, Entry]) -> bool:
    """Whether every file is there with the size and time stamp it was verified with."""
    return all(_same(folder / name, entry) for name, entry in entries.items())


def _same(path: Path, entry: Entry) -> bool:
    try:
        stat = path.stat()
    except OSError:
        return False
    return (stat.st_size, stat.st_mtime_ns) == (entry.size, entry.mtime_ns)


def write_origin(folder: Path, original: Path) -> None:
    (folder / ORIGIN).write_text(json.dumps(_stamps(original)), encoding="utf-8")


def is_outdated(folder: Path, original: Path) -> bool:
    """Whether the original is another than the one the folder was made of."""
    try:
        made_of = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    now = _stamps(original)
    return bool(now) and now != made_of


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Sizes and time stamps of a model's own files."""
    stats = {path.name: path.stat() for path in sorted(folder.glob("*.safetensors"))}
    return {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()}


def damaged(folder: Path, entries: dict[str, Entry]) -> list[str]:
    """The names of files that are gone or are no longer what was fetched. Reads every byte."""
    return [name for name, entry in entries.items() if not _intact(folder / name, entry)]


def _intact(path: Path, entry: Entry) -> bool:
    try:
        return path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
    except OSError:
        return False


def check_folder(folder: Path) -> None:
    """Raises Unfit or Damaged, naming the file, where vLLM could not serve the folder whole."""
    here = str(folder)
    if not (folder / "config.json").is_file():
        raise Unfit(f"{here} holds no config.json.", "Give the model's own folder.")
    shards = sorted(folder.glob("*.safetensors"))
    if not shards:
        raise Unfit(f"{here} holds no safetensors weights, the only kind served here.", BY_HAND)
    index = folder / INDEX
    if index.is_file():
        text = index.read_text(encoding="utf-8", errors="replace")
        check_shards(here, text, {shard.name for shard in shards})
    for shard in shards:
        _check_length(shard)


def _check_length(shard: Path) -> None:
    """A safetensors file says in its header how long it is: a cut one is found unread."""
    start, tensors = read_header(shard)
    size = shard.stat().st_size
    due = start + max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
    if size != due:
        raise Damaged(f"{shard} has {size} bytes where {due} are due.", "Fetch it again.")


def read_header(shard: Path) -> tuple[int, dict[str, Any]]:
    """Where a safetensors file's data begin, and its tensors by name: dtype, shape, data_offsets.

    Raises Damaged.
    """
    with shard.open("rb") as file:
        length = int.from_bytes(file.read(HEADER_BYTES), "little")
        text = file.read(length) if length <= HEADER_LIMIT else b""
    try:
        tensors = {k: v for k, v in json.loads(text).items() if k != "__metadata__"}
        for tensor in tensors.values():
            _ = (str(tensor["dtype"]), list(tensor["shape"]), int(tensor["data_offsets"][1]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        raise Damaged(f"{shard} is not a whole safetensors file.", "Fetch it again.") from None
    return HEADER_BYTES + length, tensors


@contextmanager
def locked(path: Path, wait: Callable[[], None]) -> Iterator[None]:
    """Hold the lock; call `wait` first where another process holds it."""
    import fcntl  # not on Windows, where --list is to answer all the same

    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            wait()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def disk_failures(root: Path) -> Iterator[None]:
    """The disk's own failures, as errors that say what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise NoSpace(
                f"The disk filled up while fetching into {root}.",
                "Free some space and run it again: it goes on where it stopped.",
            ) from None
        raise Unprepared(
            f"{error.filename or root} cannot be used ({error.strerror or error}).",
            "Set STEPWISE_MODELS to a folder you may write to.",
        ) from None
