"""What a hub says a repository holds, and which of it is fit to fetch.

Pure: a listing goes in, the files to fetch come out, or an Unfit that names the
file and the reason. Nothing is written before the whole listing has passed.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from serving.weights_errors import Unfit

# vLLM reads these from a model's top folder. Everything else is left on the hub:
# the original checkpoint in original/, *.pth, ONNX, GGUF, pictures, code.
READ = (".safetensors", ".json", ".jinja", ".model", ".tiktoken", ".txt")
LICENCES = ("LICENSE", "LICENCE", "NOTICE", "USE_POLICY")
PICKLES = (".bin", ".pth", ".pt", ".ckpt", ".pkl")
INDEX = "model.safetensors.index.json"
LONGEST_NAME = 200  # bytes of one part; file systems take 255, and a suffix is added
BAD_CHARACTERS = re.compile(r"[\x00-\x1f\x7f\\\ud800-\udfff]")
DRIVE = re.compile(r"[A-Za-z]:")
BY_HAND = "Choose another model, or fetch it yourself and serve its folder."


@dataclass(frozen=True, slots=True)
class File:
    """A file as its hub lists it. One of the two hashes is known, or neither."""

    name: str
    size: int
    sha256: str | None = None
    git_sha1: str | None = None
    kind: str = "file"  # or "symlink"


@dataclass(frozen=True, slots=True)
class Listing:
    """A repository at one revision."""

    repo: str
    revision: str
    files: tuple[File, ...]


def choose(listing: Listing) -> tuple[File, ...]:
    """The files vLLM reads, configuration first. Raises Unfit for a repository unfit to serve."""
    for file in listing.files:
        _check_name(listing.repo, file)
    names = {file.name for file in listing.files}
    chosen = [file for file in listing.files if _read_by_vllm(file.name, names)]
    _check_kind(listing.repo, names, {file.name for file in chosen})
    return tuple(sorted(chosen, key=lambda file: (file.name != "config.json", file.size)))


def _check_name(repo: str, file: File) -> None:
    parts = file.name.split("/")
    if DRIVE.match(file.name) or BAD_CHARACTERS.search(file.name):
        reason = "holds a drive letter, a backslash or a control character"
    elif file.name.startswith("/") or ".." in parts or "." in parts or "" in parts:
        reason = "leads out of the model's folder"
    elif any(len(part.encode()) > LONGEST_NAME for part in parts):
        reason = "is too long"
    elif file.kind != "file":
        reason = f"is a {file.kind}"
    else:
        return
    raise Unfit(
        f"{repo} lists a file {file.name!r} that {reason}; nothing was fetched.",
        "Do not trust this repository; choose another model.",
    )


def _read_by_vllm(name: str, names: set[str]) -> bool:
    if "/" in name or name.startswith("."):
        return False
    if name.startswith("consolidated") and any(n.startswith("model") for n in _tensors(names)):
        return False  # the same weights a second time, in the makers' own format
    if name.endswith(".index.json"):
        return name == INDEX
    return name.endswith(READ) or name.startswith(LICENCES)


def _tensors(names: set[str]) -> list[str]:
    return [name for name in names if name.endswith(".safetensors")]


def _check_kind(repo: str, names: set[str], chosen: set[str]) -> None:
    if not _tensors(chosen):
        raise Unfit(f"{repo} {_without_tensors(names)}.", BY_HAND)
    if "config.json" not in chosen:
        raise Unfit(f"{repo} has no config.json, so vLLM cannot tell what model it is.", BY_HAND)


def _without_tensors(names: set[str]) -> str:
    if any(name.endswith(PICKLES) for name in names):
        return "has its weights as pickle files only, which run code when they are read"
    if any(name.endswith(".gguf") for name in names):
        return "has its weights as GGUF only, which vLLM does not read"
    return "holds no safetensors weights"


def check_config(repo: str, name: str, text: str) -> None:
    """Refuse a configuration that has its repository's own Python run."""
    config = _object(repo, name, text)
    if config.get("auto_map"):
        raise Unfit(
            f"{repo} needs its own Python code ({name} has an auto_map), which is not run here.",
            "Choose another model; or fetch it yourself, read its code, and serve its folder with "
            "-- --trust-remote-code",
        )


def shards_of(repo: str, text: str) -> frozenset[str]:
    """The files an index names. Raises Unfit where one leads out of the folder."""
    table = _object(repo, INDEX, text).get("weight_map")
    if not isinstance(table, dict) or not all(isinstance(v, str) for v in table.values()):
        raise Unfit(f"{repo}: {INDEX} names no shards.", BY_HAND)
    for name in table.values():
        if "/" in name or "\\" in name or name.startswith("."):
            raise Unfit(f"{repo}: {INDEX} names the shard {name!r} outside its folder.", BY_HAND)
    return frozenset(table.values())


def check_shards(repo: str, text: str, there: set[str]) -> None:
    missing = sorted(shards_of(repo, text) - there)
    if missing:
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        raise Unfit(f"{repo} lacks {missing[0]}{more}, which {INDEX} names.", BY_HAND)


def _object(repo: str, name: str, text: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise Unfit(f"{repo}: {name} is not JSON ({error}).", BY_HAND) from None
    if not isinstance(value, dict):
        raise Unfit(f"{repo}: expected {name} to hold an object, got another value.", BY_HAND)
    return value
