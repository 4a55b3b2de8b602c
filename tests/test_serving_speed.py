"""How fast a model is expected to write, and that it is measured once."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import serving.speed
from serving.catalogue import Model, load
from serving.cpu import Cpu
from serving.speed import Speed, bytes_read, expected_speed, known_speed, measure

CPU = Cpu(name="Some x86", cores=(0, 1))
SMALL = load()["qwen2.5-1.5b-instruct"]


def test_half_the_bytes_are_nearly_twice_the_tokens() -> None:
    speed = Speed(read=20e9, call=0.0)
    assert speed.tokens(2e9) == 2 * speed.tokens(4e9)
    assert Speed(read=20e9, call=1e-6).tokens(2e9) < speed.tokens(2e9)


def test_a_token_reads_half_of_it_in_int8() -> None:
    read = {name: bytes_read(SMALL, name) / 1e9 for name in ("int8", "bfloat16", "float32", "")}
    assert read == pytest.approx({"int8": 1.55, "bfloat16": 3.1, "float32": 6.2, "": 3.1})


def test_a_token_on_avx2_reaches_less_of_the_memorys_speed() -> None:
    speed = Speed(read=20e9, call=0.0)
    old = Cpu(features=frozenset({"avx2"}))
    new = Cpu(features=frozenset({"avx2", "avx512f"}))
    assert expected_speed(SMALL, "bfloat16", old, speed) == pytest.approx(20 * 0.38 / 3.1)
    assert expected_speed(SMALL, "bfloat16", new, speed) == pytest.approx(20 * 0.75 / 3.1)
    assert expected_speed(SMALL, "float32", old, speed) == pytest.approx(20 * 0.37 / 6.2)
    assert expected_speed(SMALL, "float32", new, speed) == pytest.approx(20 * 0.75 / 6.2)


def test_of_a_model_of_unknown_size_nothing_is_expected() -> None:
    assert expected_speed(Model("x/y", "y"), "bfloat16", CPU, Speed(20e9, 1e-6)) is None


def test_it_is_measured_once_for_a_processor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []

    def measured(threads: int) -> Speed:
        calls.append(threads)
        return Speed(20e9, 1e-6)

    monkeypatch.setattr("serving.speed.measure", measured)
    file = tmp_path / "state" / "speed.json"
    assert known_speed(CPU, file) == known_speed(CPU, file) == Speed(20e9, 1e-6)
    known_speed(Cpu(name="Another"), file)
    assert calls == [2, 1]
    assert len(json.loads(file.read_text())) == 2


@pytest.mark.parametrize("text", ["", "[]", "{", '{"Some x86, 2 threads": {"read": 0, "call": 1}}'])
def test_a_file_that_says_nothing_is_measured_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    monkeypatch.setattr("serving.speed.measure", lambda threads: Speed(20e9, 1e-6))
    file = tmp_path / "speed.json"
    file.write_text(text)
    assert known_speed(CPU, file) == Speed(20e9, 1e-6)


def test_threads_that_take_turns_read_no_faster_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine whose cores others use."""
    turns = iter((0.0, 1.0))

    def in_its_turn(ready: object, ends: list[float]) -> None:
        began = next(turns)
        ends.extend(began + number / 1000 for number in range(1000))

    monkeypatch.setattr(serving.speed, "_reader", in_its_turn)
    assert serving.speed._read_together(2) == pytest.approx(1000 * serving.speed.PIECE, rel=0.01)


def test_without_numpy_nothing_is_expected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(threads: int) -> Speed:
        raise ImportError("numpy")

    monkeypatch.setattr("serving.speed.measure", measured)
    assert known_speed(CPU, tmp_path / "speed.json") is None
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.speed.measure", lambda threads: Speed(20e9, 1e-6))
    (tmp_path / "state").touch()
    assert known_speed(CPU, tmp_path / "state" / "speed.json") == Speed(20e9, 1e-6)


def test_this_machine_reads_between_one_and_a_thousand_gigabytes_a_second() -> None:
    speed = measure(2)
    assert 1e9 < speed.read < 1e12
    assert 1e-8 < speed.call < 1e-3
