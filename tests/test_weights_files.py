"""A folder on the disk: when it counts as whole; and how far a transfer is."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from serving import weights
from serving.catalogue import Model
from serving.progress import Progress
from serving.report import Report
from serving.weights_download import check_space
from serving.weights_errors import Damaged, NoSpace, Unfit, Unprepared
from serving.weights_files import check_folder, disk_failures, entry_of, write_manifest
from tests.hub import model_files, safetensors

SHARD = "model-00001-of-00002.safetensors"


def a_model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in model_files(1000).items():
        if "/" not in name:
            (folder / name).write_bytes(data)
    return folder


def test_a_model_put_there_by_hand_is_present(tmp_path: Path) -> None:
    model = Model(name="org/tiny", served_name="tiny")
    assert not weights.present(model, tmp_path)
    a_model(tmp_path / "org--tiny")
    assert weights.present(model, tmp_path)
    assert weights.folder_of(model, tmp_path) == tmp_path / "org--tiny"


def fetched(folder: Path) -> Path:
    """A folder with the hashes of its files, of which one has lost a bit since, unnoticed."""
    a_model(folder)
    write_manifest(folder, {file.name: entry_of(file) for file in folder.iterdir()})
    stamp, data = (folder / SHARD).stat(), bytearray((folder / SHARD).read_bytes())
    data[-1] ^= 1
    (folder / SHARD).write_bytes(data)
    os.utime(folder / SHARD, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    return folder


def test_a_bit_that_rotted_in_silence_is_found_where_hashes_are_asked_for(tmp_path: Path) -> None:
    model, out = Model(name="org/tiny", served_name="tiny"), io.StringIO()
    fetched(tmp_path / "org--tiny")
    assert weights.present(model, tmp_path)
    weights.verify(model, tmp_path, Report(out))
    assert not weights.present(model, tmp_path)  # so that it is fetched, or missed
    assert f"{SHARD} is damaged or gone" in out.getvalue()


def test_in_a_folder_of_the_users_own_it_is_named_and_left(tmp_path: Path) -> None:
    folder = fetched(tmp_path / "own")
    model = Model(name="own", served_name="own", folder=folder)
    with pytest.raises(Damaged, match=SHARD):
        weights.verify(model, tmp_path, Report(io.StringIO()))
    assert (folder / SHARD).exists()


def test_where_no_hashes_are_known_that_is_said(tmp_path: Path) -> None:
    out = io.StringIO()
    a_model(tmp_path / "org--tiny")
    weights.verify(Model(name="org/tiny", served_name="tiny"), tmp_path, Report(out))
    assert "no hashes came with it" in out.getvalue()
    weights.verify(Model(name="not/here", served_name="x"), tmp_path, Report(out))


def test_a_given_folder_is_where_the_weights_lie(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "own")
    model = Model(name="own", served_name="own", folder=folder)
    assert weights.folder_of(model, tmp_path / "models") == folder
    assert weights.present(model, tmp_path / "models")


def test_a_file_changed_since_it_was_verified_makes_the_model_absent(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "tiny")
    write_manifest(folder, {SHARD: entry_of(folder / SHARD)})
    model = Model(name="tiny", served_name="tiny")
    assert weights.present(model, tmp_path)
    (folder / SHARD).write_bytes(safetensors(1000, 3))
    assert not weights.present(model, tmp_path)


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    (a_model(tmp_path) / SHARD).unlink()
    with pytest.raises(Unfit, match=SHARD):
        check_folder(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 40, 500, -1])
def test_a_truncated_shard_is_named(tmp_path: Path, keep: int) -> None:
    shard = a_model(tmp_path) / SHARD
    shard.write_bytes(shard.read_bytes()[:keep])
    with pytest.raises(Damaged, match=SHARD):
        check_folder(tmp_path)


def test_pickles_in_a_folder_are_not_served(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(Unfit, match="no safetensors"):
        check_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "expected"), [(errno.ENOSPC, NoSpace), (errno.EACCES, Unprepared)]
)
def test_the_disk_s_failures_say_what_to_do(
    tmp_path: Path, number: int, expected: type[Exception]
) -> None:
    with pytest.raises(expected), disk_failures(tmp_path):
        raise OSError(number, "no")


def test_space_is_compared_before_the_first_byte(tmp_path: Path) -> None:
    check_space(tmp_path, 1)
    with pytest.raises(NoSpace, match=r"needs 1000000000\.00 GB"):
        check_space(tmp_path, 10**18)


def test_progress_is_shown_at_most_every_five_seconds_in_a_file() -> None:
    now = 0.0
    out = io.StringIO()
    progress = Progress(2_000_000_000, Report(out), lambda: now)
    for _ in range(10):
        now += 1
        progress.add(100_000_000)
    assert out.getvalue().splitlines() == [
        "[#####---------------] 0.50 of 2.00 GB, 100.0 MB/s, 15 s left",
        "[##########----------] 1.00 of 2.00 GB, 100.0 MB/s, 10 s left",
    ]


def test_what_was_there_already_counts_for_the_bar_and_not_for_the_speed() -> None:
    now = 0.0
    out = io.StringIO()
    progress = Progress(2_000_000_000, Report(out), lambda: now, begun=1_000_000_000)
    for _ in range(2):
        now += 10
        progress.add(100_000_000)
    assert out.getvalue().splitlines() == [
        "[###########---------] 1.10 of 2.00 GB",
        "[############--------] 1.20 of 2.00 GB, 10.0 MB/s, 80 s left",
    ]
