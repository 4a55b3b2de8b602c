"""What a caller reads of a chain: the reasoning as it is written, then one answer. No network."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.render import (
    TRANSIENT,
    UNTHOUGHT,
    AnswerEnd,
    AnswerText,
    ChainFailed,
    ChainRenderer,
    ReasoningText,
    Remark,
    ReplyPart,
    VoteRenderer,
)
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Step,
)

FAILED = Failed("busy", "The server is busy (503).", "Try again later.")


def step(number: int, title: str, content: str) -> Step:
    return Step(number, title, content, "continue", 1.0, 10)


def told(*events: Event) -> list[ReplyPart]:
    renderer = ChainRenderer()
    return [part for event in events for part in renderer.render(event)]


def reasoning(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, ReasoningText))


def remarks(parts: list[ReplyPart]) -> list[Remark]:
    return [part for part in parts if isinstance(part, Remark)]


def content(parts: list[ReplyPart]) -> str:
    return "".join(part.text for part in parts if isinstance(part, AnswerText))


# -- steps


def test_each_step_is_headed_by_its_title() -> None:
    parts = told(
        Delta(1, "title", "Co"),
        Delta(1, "title", "unt"),
        Delta(1, "content", "One, "),
        Delta(1, "content", "two."),
        step(1, "Count", "One, two."),
        Delta(2, "title", "Sum"),
        Delta(2, "content", "Three."),
        step(2, "Sum", "Three."),
    )
    assert reasoning(parts) == "### 1. Count\n\nOne, two.\n\n### 2. Sum\n\nThree.\n\n"
    assert len(parts) > 6  # as it was written


def test_a_title_that_is_made_of_the_text_is_not_said_before_it() -> None:
    parts = told(
        Delta(1, "action", "reflect"),
        Delta(1, "content", "\nWait, "),
        Delta(1, "content", "that is "),
        Delta(1, "title", "Wait, that is wrong"),
        Delta(1, "content", "wrong."),
        step(1, "Wait, that is wrong", "Wait, that is wrong."),
    )
    assert reasoning(parts) == "### 1.\n\nWait, that is wrong.\n\n"
    assert parts[0] == ReasoningText("### 1.\n\nWait, ")
    whole = step(1, "Wait, that is wrong", "Wait, that is wrong.")
    assert reasoning(told(whole)) == reasoning(parts)


def test_a_step_that_nobody_streamed_is_told_whole() -> None:
    assert reasoning(told(step(3, "Sum", "Three."))) == "### 3. Sum\n\nThree.\n\n"
    parts = told(Delta(3, "content", " Thr"), step(3, "Sum", "Three."))
    assert reasoning(parts) == "### 3.\n\nThree.\n\n"


def test_what_is_said_before_the_first_heading_goes_out_at_once() -> None:
    lead = (Delta(1, "tentative", "Let us "), Delta(1, "tentative", "add:\n"))
    parts = told(*lead, Delta(1, "title", "Sum"), Delta(1, "content", "5."), step(1, "Sum", "5."))
    assert parts[0] == ReasoningText("Let us ")
    assert reasoning(parts) == "Let us add:\n\n\n### 1. Sum\n\n5.\n\n"


def test_what_turns_out_to_be_the_first_step_is_not_said_twice() -> None:
    begun = (Delta(1, "tentative", "Let us "), Delta(1, "action", "continue"))
    whole = step(1, "Let us add", "Let us add.")
    parts = told(*begun, Delta(1, "content", "Let us add."), whole, step(2, "Sum", "Five."))
    assert reasoning(parts) == "Let us add.\n\n### 2. Sum\n\nFive.\n\n"


def test_what_turns_out_to_be_the_answer_is_the_answer_too() -> None:
    parts = told(
        Delta(1, "tentative", "Par"), Delta(1, "answer", "Paris."), Answer("Paris.", 1.0, 9)
    )
    assert (reasoning(parts), content(parts)) == ("Par", "Paris.")


def test_what_a_retry_voids_before_the_first_step_stands_apart() -> None:
    retry = Retry(1, 1, "cut", "The reply was cut before its end.")
    parts = told(Delta(1, "tentative", "Let"), retry, Delta(1, "tentative", "Well"))
    assert reasoning(parts) == "Let\n\nWell"


def test_what_may_be_the_answer_behind_a_step_is_told_with_its_place() -> None:
    parts = told(step(1, "Sum", "Five."), Delta(2, "tentative", "So, 5."))
    assert reasoning(parts) == "### 1. Sum\n\nFive.\n\n"


@given(st.text("ab\n #*", max_size=8), st.text("ab\n #*", max_size=20), st.data())
def test_however_a_step_is_cut_into_pieces_it_reads_the_same(
    title: str, text: str, data: st.DataObject
) -> None:
    """The deltas of a step, in any slices, say what the finished step says, and no more."""
    whole = step(1, f"T{title}", f"c{text}.")
    slices = [Delta(1, "title", piece) for piece in sliced(whole.title, data)]
    slices += [Delta(1, "content", piece) for piece in sliced(whole.content, data)]
    assert reasoning(told(*slices, whole)) == reasoning(told(whole))


def sliced(text: str, data: st.DataObject) -> list[str]:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)))))
    ends = zip([0, *cuts], [*cuts, len(text)], strict=True)
    return [text[start:end] for start, end in ends if start < end]


def test_what_a_retry_voids_is_said_to_be_written_again() -> None:
    parts = told(
        Delta(1, "title", "Bad"),
        Delta(1, "content", "Non"),
        Retry(1, 1, "cut", "The reply was cut before its end."),
        Delta(1, "title", "Good"),
        Delta(1, "content", "Sense."),
        step(1, "Good", "Sense."),
    )
    assert reasoning(parts) == "### 1. Bad\n\nNon\n\n### 1. Good\n\nSense.\n\n"
    said = "Written anew: The reply was cut before its end."
    assert remarks(parts) == [Remark("again", said, 1)]


@pytest.mark.parametrize(
    ("cause", "detail", "said"),
    [
        ("unreachable", "No server answers at http://10.0.0.7/v1. Start one.", "does not answer"),
        ("fault", "The server failed. EngineCore died. Look at the server's log.", "failed"),
    ],
)
def test_a_retry_tells_nothing_of_the_servers_insides(cause: str, detail: str, said: str) -> None:
    parts = told(Delta(1, "title", "A"), Retry(1, 1, cause, detail))
    assert reasoning(parts) == "### 1. A\n\n"
    (remark,) = remarks(parts)
    assert remark.message == f"Written anew: The model server {said}."


def test_notices_and_corrections_are_remarks_and_no_words_of_the_model() -> None:
    parts = told(
        Notice("context", "The context is full."),
        Correction(2, "4", "5"),
        Notice("format", "json_object"),
    )
    assert [part.message for part in remarks(parts)] == [
        "The context is full.",
        "Corrected: 4 → 5",
        "The model server does not take the schema; the steps are asked for as json_object.",
    ]
    assert len(remarks(parts)) == len(parts)


def test_an_answer_without_a_thought_says_that_its_tokens_held_none() -> None:
    spent = Notice("budget", "The budget is nearly spent.")
    answered = [Delta(1, "answer", "42"), Answer("42", 1, 5)]
    codes = [part.code for part in remarks(told(spent, *answered))]
    assert codes == ["budget", "no_steps"]
    assert told(spent, *answered)[1] == UNTHOUGHT  # before the answer
    late = remarks(told(spent, step(1, "A", "a"), *answered))
    assert [part.code for part in late] == ["budget"]


# -- the answer


def test_the_answer_is_content_and_ends_with_a_reason() -> None:
    parts = told(Delta(4, "answer", "It is "), Delta(4, "answer", "42."), Answer("It is 42.", 1, 5))
    assert parts == [AnswerText("It is "), AnswerText("42."), AnswerEnd("stop", 5)]
    assert told(Answer("It is", 1, 5, cut=True)) == [AnswerText("It is"), AnswerEnd("length", 5)]


def test_white_space_that_was_sent_behind_the_answer_is_no_other_answer() -> None:
    assert content(told(Delta(1, "answer", "42.\n"), Answer("42.", 1, 5))) == "42.\n"


@given(st.text("ab", min_size=1), st.integers(0, 9), st.data())
def test_an_answer_that_begins_again_the_same_is_sent_once(
    text: str, sent: int, data: st.DataObject
) -> None:
    """After a break, what was sent is not repeated, however the second try is cut."""
    first = [Delta(1, "answer", text[:sent])] if text[:sent] else []
    again = [Delta(1, "answer", piece) for piece in sliced(text, data)]
    parts = told(*first, Retry(1, 1, "fault", "It broke."), *again, Answer(text, 1, 5))
    assert content(parts) == text
    assert isinstance(parts[-1], AnswerEnd)


def test_an_answer_that_begins_again_otherwise_is_never_mixed() -> None:
    renderer = ChainRenderer()
    sent = [*renderer.render(Delta(1, "answer", "It is 4"))]
    sent += renderer.render(Retry(1, 1, "fault", "It broke."))
    sent += renderer.render(Delta(1, "answer", "It "))
    with pytest.raises(ChainFailed) as caught:
        list(renderer.render(Delta(1, "answer", "was")))
    assert content(sent) == "It is 4"
    assert caught.value.failed.code == "changed"


def test_an_answer_that_turns_out_another_than_was_sent_is_never_mixed() -> None:
    with pytest.raises(ChainFailed):
        told(Delta(1, "answer", "It is 4"), Answer("Four.", 1, 5))


def test_a_chain_that_failed_has_no_answer() -> None:
    with pytest.raises(ChainFailed) as caught:
        told(step(1, "A", "a"), FAILED)
    assert caught.value.failed is FAILED


def test_a_budget_that_the_steps_used_up_ends_in_length() -> None:
    parts = told(step(1, "A", "a"), Failed("budget", "The tokens ran out.", "Allow more."))
    assert (content(parts), parts[-1]) == ("", AnswerEnd("length"))


# -- a vote


def vote(*chains: list[Event], format: str = "text", most: int = 0) -> list[ReplyPart]:
    """The chains told one after another, of at most `most`."""
    renderer = VoteRenderer(most or len(chains), format)  # type: ignore[arg-type]
    return [
        part
        for number, events in enumerate(chains)
        for event in events
        for part in renderer.render(number, event)
    ]


def chain(name: str, answer: str, tokens: int = 5) -> list[Event]:
    events: list[Event] = [Delta(1, "title", name), step(1, name, f"So {answer}.")]
    return [*events, Delta(2, "answer", answer), Answer(answer, 1, tokens)]


def test_the_answer_of_the_most_chains_is_given_once() -> None:
    parts = vote(chain("A", "It is 41."), chain("B", "It is 42.", 7), chain("C", "42"))
    assert content(parts) == "It is 42."
    assert parts[-1] == AnswerEnd("stop", 7)


def test_a_reader_is_told_of_each_chain_and_then_the_winners_steps() -> None:
    parts = vote(chain("A", "It is 41."), chain("B", "It is 42."), chain("C", "42"))
    assert [part.message for part in remarks(parts)] == [
        "Chain 1 of at most 3: 41",
        "Chain 2 of at most 3: 42",
        "Chain 3 of at most 3: 42",
        "2 of 3 chains agree on the answer of this one.",
    ]
    assert reasoning(parts) == "### 1. B\n\nSo It is 42..\n\n"


def test_three_that_agree_end_the_vote_and_nothing_follows() -> None:
    parts = vote(*(chain(name, "It is 42.") for name in "ABCD"), most=8)
    assert [part for part in parts if isinstance(part, AnswerEnd)] == [AnswerEnd("stop", 5)]
    said = [part.message for part in remarks(parts)]
    assert said[3:] == ["3 of 3 chains, of at most 8, agree on the answer of this one."]


def test_a_tie_goes_to_the_shorter_chains() -> None:
    parts = vote(chain("A", "It is 41.", 9), chain("B", "It is 42.", 5))
    assert content(parts) == "It is 42."


def test_chains_without_an_answer_do_not_vote() -> None:
    parts = vote([FAILED], [FAILED], chain("C", "It is 42."))
    assert content(parts) == "It is 42."
    assert remarks(parts)[0] == Remark("chain", "Chain 1 of at most 3: no answer (busy)")


def test_a_vote_in_which_nobody_answers_has_failed() -> None:
    with pytest.raises(ChainFailed) as caught:
        vote([FAILED], [Failed("fault", "It broke.", "")])
    assert caught.value.failed is FAILED


def test_a_vote_whose_budget_the_steps_used_up_ends_in_length() -> None:
    spent = Failed("budget", "The tokens ran out.", "Allow more.")
    assert vote([spent], [spent])[-1] == AnswerEnd("length")


def test_unclear_answers_are_outvoted_by_a_clear_one() -> None:
    long = "It depends on many things that nobody can know in advance and on some that one can."
    assert content(vote(chain("A", long), chain("B", long), chain("C", "42"))) == "42"
    assert content(vote(chain("A", long), chain("B", long))) == long


def test_json_answers_agree_when_they_say_the_same() -> None:
    answers = ['{"a": 1, "b": 2}', '{"a": 5, "b": 2}', '{"b":2,"a":5}', "{broken"]
    parts = vote(*(chain("A", answer) for answer in answers), format="json_object")
    assert json.loads(content(parts)) == {"a": 5, "b": 2}


def test_a_reader_of_the_whole_is_not_told_what_was_void() -> None:
    assert isinstance(Retry(1, 1, "cut", ""), TRANSIENT)
    assert not isinstance(step(1, "A", "a"), TRANSIENT)
