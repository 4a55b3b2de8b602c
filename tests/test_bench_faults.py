"""The promises of docs/reliability.md in short: how they are judged and told, a little of each."""

from __future__ import annotations

import pytest
from tokenizers import Tokenizer

from bench.faults import mistakes, replies, special_tokens
from bench.faults.__main__ import ON_REQUEST, ORDER, flags, promise_of
from bench.faults.chains import Speaking, _wrong_final, think_over
from bench.faults.generated import Written
from bench.faults.playing import STEPS, lost, step
from bench.faults.promise import Promise, Tally
from bench.faults.report import Kept, rows_of, table
from reasoning.events import Answer, Settings, Step
from reasoning.think import WAYS
from tests.payloads import HUNDRED
from tests.processes import ROOT

MODEL = replies.MODELS[0]


@pytest.mark.parametrize("way", WAYS)
async def test_made_up_replies_end_every_chain(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replies, "BATCH", 60)
    asked, tally = await replies._batch(7, way)
    assert asked >= 60
    assert (tally.failed, tally.broken) == (0, [])


async def test_the_cap_on_steps_is_exact() -> None:
    tally = Tally()
    await replies._caps(tally)
    assert (tally.tried, tally.broken) == (10, [])


async def test_no_beginning_of_a_real_reply_is_told_as_the_whole() -> None:
    asked, tally = await replies._prefixes(replies.real_replies()[0][:40])
    assert asked > 400
    assert tally.broken == []


async def test_a_cut_reply_that_is_told_as_a_whole_answer_is_found() -> None:
    written = Written("It is 4", "length")
    _, events, problems = await think_over([written], "direct", MODEL, Settings())
    assert (getattr(events[-1], "cut", None), problems) == (True, "")
    server = Speaking(written)
    assert not list(_wrong_final(Answer("It is 4", 1.0, 2, cut=True), server))
    assert list(_wrong_final(Answer("It is 4", 1.0, 2), server))


async def test_special_tokens_of_a_real_tokenizer_are_sent_as_plain_text() -> None:
    tokenizer = Tokenizer.from_file(str(ROOT / "tests" / "recited" / "tokenizer.json"))
    tokens, tally = special_tokens.added_tokens(tokenizer), Tally()
    await special_tokens._spelled_out("the reciter", tokenizer, tokens, tally)
    await special_tokens._sent("the reciter", tokenizer, tokens[:3], tally)
    assert tally.tried > 80
    assert tally.broken == []


def test_a_lost_and_a_doubled_step_are_found() -> None:
    steps = [Step(n, *step(n)[:2], "continue", 1.0, 9) for n in range(1, STEPS + 1)]
    assert lost(steps) == ""
    assert lost(steps[:3], whole=False) == ""
    assert lost(steps[:3])
    assert lost([*steps[:3], *steps[2:]])
    assert lost([steps[0], *steps[2:]])


def test_forty_mistakes_and_a_hundred_payloads() -> None:
    assert len({it.command + tuple(it.environment.items()) for it in mistakes.MISTAKES}) >= 40
    assert len(set(HUNDRED)) == 100


def kept(name: str, failed: int = 0) -> Kept:
    tally = Tally(10, failed, ["a try: it broke | so"] * failed, ["a figure"])
    return Kept(name, Promise(f"{name} holds", lambda effort, tally: None), tally, 1.2, "quick")


def test_rows_of_earlier_runs_stay_in_the_table() -> None:
    first = table([kept("replies", 1)], ORDER, "", "first")
    assert "* replies: a try: it broke" in first
    second = table([kept("mistakes")], ORDER, first, "second")
    assert list(rows_of(second)) == ["replies", "mistakes"]
    assert "| **replies**: replies holds | 10 | 9 | 1 | a figure | 1 | quick |" in second
    assert "\n    second\n" in second


@pytest.mark.parametrize("name", [*ORDER, *ON_REQUEST])
def test_every_promise_is_there_and_in_the_docs(name: str) -> None:
    assert promise_of(name).says
    assert name in (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")


def test_a_promise_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        flags().parse_args(["--only", "replies,peace"])
    assert end.value.code == 2
    assert "got peace" in capsys.readouterr().err


def test_a_try_that_did_not_hold_is_counted_and_told() -> None:
    tally = Tally()
    tally.note("one")
    tally.note("several", "lost", 3)
    assert (tally.tried, tally.failed, tally.broken) == (4, 3, ["several: lost"])
