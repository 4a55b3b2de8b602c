"""The step loop against a scripted server: each rule of it is a test."""

from contextlib import aclosing
from itertools import count

import pytest

from reasoning.capabilities import Capabilities
from reasoning.endpoint import Piece, Request, ServedModel
from reasoning.errors import (
    Busy,
    FormatRefused,
    KeyRefused,
    Refused,
    RequestError,
    TooLong,
    Unreachable,
)
from reasoning.events import (
    Answer,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Steer,
    Step,
    Trace,
)
from reasoning.fallback import Fallback
from reasoning.inquiry import AnswerForm, Inquiry
from reasoning.json_steps import CONCLUDE, DECIDE, GO_ON
from reasoning.parsing import step_grammar
from reasoning.retry import BUSY_PAUSE, BUSY_WAIT, MUTE_WAIT
from reasoning.think import think
from tests.scripted import MODEL, Scripted, Time, good, pieces, run
from tests.stub import step_text

DOWN = Unreachable("No server answers.", "Start one.")
FINAL = [good(1), good(2), good(3, "final_answer"), "The answer."]


def kinds(events: list[Event]) -> list[str]:
    return [type(e).__name__ for e in events if not isinstance(e, Delta)]


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def endless() -> Scripted:
    """Never concludes by itself: a new step each time, text when no schema is asked for."""
    numbers = count(1)
    return Scripted(lambda request: good(next(numbers)) if request.schema else "The answer.")


async def test_a_chain_is_started_stepped_and_answered() -> None:
    events = await run(Scripted(*FINAL))
    assert kinds(events) == ["Started", "Step", "Step", "Step", "Answer"]
    assert events[-1] == Answer("The answer.", 0.0, 2, 0.0)


async def test_every_event_of_a_step_comes_before_the_step() -> None:
    events = await run(Scripted(*FINAL))
    first = events.index(only(events, Step)[0])
    deltas = [e for e in events[:first] if isinstance(e, Delta)]
    assert "".join(d.text for d in deltas if d.part == "title") == "Title 1"
    assert "".join(d.text for d in deltas if d.part == "content") == "Work number 1 of the chain."
    assert {d.number for d in deltas} == {1}
    assert [d.part for d in deltas] == sorted((d.part for d in deltas), reverse=True)


async def test_a_chain_that_never_concludes_has_25_steps_and_then_one_answer() -> None:
    server = endless()
    events = await run(server, model=ServedModel("scripted", 10**6))
    assert [step.number for step in only(events, Step)] == list(range(1, 26))
    assert only(events, Step)[-1].action == "final_answer"
    assert len(server.requests) == 26


async def test_the_schema_is_the_controller() -> None:
    server = endless()
    settings = Settings(min_steps=3, max_steps=5)
    await run(server, settings=settings, model=ServedModel("scripted", 10**6))
    asked = [request.schema for request in server.requests]
    assert asked == [GO_ON, GO_ON, DECIDE, DECIDE, CONCLUDE, None]


async def test_the_minimum_of_steps_wins_over_a_model_that_concludes_at_once() -> None:
    numbers = count(1)
    server = Scripted(
        lambda request: good(next(numbers), "final_answer") if request.schema else "The answer."
    )
    events = await run(server, settings=Settings(min_steps=3))
    assert [step.action for step in only(events, Step)] == ["continue", "continue", "final_answer"]


async def test_by_itself_a_chain_ends_when_the_model_says_so() -> None:
    """A forced step is a filler: "End of the problem", after the answer."""
    events = await run(Scripted(good(1, "final_answer"), "The answer."))
    assert kinds(events) == ["Started", "Step", "Answer"]


async def test_the_answer_is_asked_for_in_free_text() -> None:
    server = Scripted(*FINAL)
    await run(server)
    assert server.requests[-1].format == "text"
    assert "not JSON" in server.requests[-1].messages[-1]["content"]


@pytest.mark.parametrize(
    "end", ['"content": "Eight."}', 'x": 1, "next_action": "final_answer", "content": "Eight."}']
)
async def test_an_answer_that_reads_in_two_ways_is_what_was_shown(end: str) -> None:
    """Else a stream would have to take back what it sent."""
    events = await run(Scripted(*FINAL[:-1], '{"content": "Seven.", ' + end))
    shown = "".join(delta.text for delta in only(events, Delta) if delta.part == "answer")
    assert events[-1].content == shown == "Seven."


async def test_an_answer_in_json_is_shown_as_its_content() -> None:
    events = await run(Scripted(*FINAL[:3], step_text("Answer", "It is 3.")))
    assert events[-1].content == "It is 3."
    assert "".join(d.text for d in only(events, Delta) if d.part == "answer") == "It is 3."


async def test_the_models_raw_text_goes_back_to_the_letter() -> None:
    odd = '{"title":"A",  "content":"\\u4e00 \\\\frac", "next_action":"continue"}'
    server = Scripted(odd, *FINAL[1:])
    await run(server)
    assert server.requests[1].messages[1] == {"role": "assistant", "content": odd}


async def test_each_request_begins_with_what_the_last_one_held() -> None:
    server = Scripted(*FINAL)
    await run(server)
    for earlier, later in zip(server.requests, server.requests[1:], strict=False):
        assert later.messages[0] == earlier.messages[0]
        said = "".join(turn["content"] for turn in earlier.messages[1:-1])
        assert later.messages[1]["content"].startswith(said)


async def test_user_and_assistant_take_turns() -> None:
    """Some chat templates (Gemma, Mistral) refuse anything else."""
    server = Scripted(*FINAL)
    await run(server)
    roles = [message["role"] for message in server.requests[-1].messages]
    assert roles == ["user", "assistant", "user"]


# -- a server that goes on from a message (vLLM)

VLLM = ServedModel("scripted", 8192, vllm=True)


async def test_the_chain_is_one_message_that_is_gone_on_with() -> None:
    server = Scripted(*FINAL)
    events = await run(server, model=VLLM)
    assert [request.go_on for request in server.requests] == [False, True, True, False]
    said = [request.messages[-1]["content"] for request in server.requests[1:3]]
    assert said == [FINAL[0] + "\n", "\n".join(FINAL[:2]) + "\n"]
    assert [request.schema for request in server.requests[:3]] == [DECIDE] * 3
    assert events[-1].content == "The answer."


async def test_what_every_step_begins_with_is_given_to_the_server_and_the_rest_held() -> None:
    server = Scripted(FINAL[0], "nonsense", *FINAL[1:])
    await run(server, model=VLLM, settings=Settings(min_steps=2))
    *steps, answer = server.requests
    assert {request.begun for request in steps} == {'{"title":"'}
    assert [request.grammar for request in steps[:1]] == [step_grammar("continue")]
    assert {request.grammar for request in steps[1:]} == {step_grammar("continue", "final_answer")}
    assert (answer.begun, answer.grammar) == ("", "")


@pytest.mark.parametrize("error", [Refused("No.", "r"), FormatRefused("No grammar.", "r")])
async def test_a_server_that_takes_no_beginning_is_asked_for_whole_steps(
    error: RequestError,
) -> None:
    server = Scripted(error, *FINAL)
    events = await run(server, model=VLLM)
    assert [notice.code for notice in only(events, Notice)] == ["no_going_on"]
    assert [bool(request.begun) for request in server.requests] == [True, *[False] * 4]
    assert {request.format for request in server.requests[:4]} == {"json_schema"}
    assert events[-1].content == "The answer."


async def test_the_answer_is_asked_for_in_a_turn_in_the_questions_own_form() -> None:
    """Under a heading of ours a small model forgets what the question wants of it."""
    server = Scripted(*FINAL)
    await run(server, model=VLLM)
    _, chain, asked = server.requests[-1].messages
    assert chain["content"].startswith("\n".join(FINAL[:3]))
    assert "in the form that the question asks for" in asked["content"]


async def test_another_attempt_and_a_doubt_are_asked_for_in_a_turn_of_ours() -> None:
    server = Scripted(FINAL[0], "nonsense", *FINAL[1:])
    done = only(await run(server, model=VLLM), Step)
    assert [request.go_on for request in server.requests] == [False, True, False, True, False]
    assert "could not be read" in server.requests[2].messages[-1]["content"]
    doubting = Scripted(good(4, "final_answer"), "The answer.")
    await run(doubting, model=VLLM, steps=done, steer=Steer("doubt"))
    assert [request.go_on for request in doubting.requests] == [False, False]


async def test_a_server_that_refuses_to_go_on_is_asked_in_turns_from_then_on() -> None:
    server = Scripted(FINAL[0], Refused("No.", "r"), *FINAL[1:])
    events = await run(server, model=VLLM)
    assert [notice.code for notice in only(events, Notice)] == ["no_going_on"]
    assert [request.go_on for request in server.requests] == [False, True, False, False, False]
    assert (events[-1].content, server.capabilities.goes_on) == ("The answer.", False)


async def test_another_refusal_is_not_taken_for_that() -> None:
    server = Scripted(*FINAL[:3], Refused("No top_p here.", "r"))
    events = await run(server, model=VLLM)
    assert [bool(request.begun) for request in server.requests] == [True, True, True, False]
    assert (events[-1].code, server.capabilities.goes_on) == ("refused", True)


async def test_an_answer_in_the_callers_form_is_asked_for_apart() -> None:
    server = Scripted(*FINAL[:3], "{}")
    await run(server, model=VLLM, answer_form=AnswerForm(format="json_object"))
    assert not server.requests[-1].go_on
    assert "JSON alone" in server.requests[-1].messages[-1]["content"]


# -- replies that cannot be used


async def test_three_attempts_each_differ() -> None:
    """At temperature 0 the same request would only fail the same way."""
    server = Scripted("nonsense", "nonsense", *FINAL)
    events = await run(server, settings=Settings(temperature=0.0))
    tried = server.requests[:3]
    assert len({r.temperature for r in tried}) == len({r.max_tokens for r in tried}) == 3
    assert "could not be read" in tried[1].messages[-1]["content"]
    assert [(r.number, r.attempt, r.cause) for r in only(events, Retry)] == [
        (1, 1, "not_json"),
        (1, 2, "not_json"),
    ]
    assert only(events, Step)[0].attempts == 3


async def test_a_cut_reply_is_no_step_and_gets_more_tokens() -> None:
    server = Scripted(pieces('{"title": "T", "content": "half', "length"), *FINAL)
    events = await run(server)
    assert only(events, Retry)[0].cause == "cut"
    assert server.requests[1].max_tokens > server.requests[0].max_tokens
    assert "shorter" in server.requests[1].messages[-1]["content"]


@pytest.mark.parametrize(
    ("said", "finish"), [("And so on again. " * 30, "length"), ("la", "repetition")]
)
async def test_a_reply_that_goes_round_gets_fewer_tokens(said: str, finish: str) -> None:
    """More would only be more of it; one that is cut in good order gets more."""
    rambling = pieces(f'{{"title": "T", "content": "{said}', finish)
    server = Scripted(rambling, rambling, *FINAL)
    events = await run(server)
    assert [retry.cause for retry in only(events, Retry)] == ["loop", "loop"]
    first, *others = (request.max_tokens for request in server.requests[:3])
    assert others == [first // 2, first // 2]
    assert "shorter" in server.requests[1].messages[-1]["content"]


async def test_after_the_third_attempt_what_was_readable_is_kept_as_cut_and_answered() -> None:
    cut = pieces('{"title": "T", "content": "half a step', "length")
    server = Scripted(good(1), cut, cut, cut, "The answer.")
    events = await run(server)
    last = only(events, Step)[-1]
    assert (last.number, last.content, last.cut) == (2, "half a step", True)
    assert isinstance(events[-1], Answer)
    assert server.requests[-1].messages[-2]["content"] == f"{good(1)}\nhalf a step"


async def test_nothing_readable_three_times_leads_to_the_answer_with_a_notice() -> None:
    events = await run(Scripted(good(1), "", "", "", "The answer."))
    assert kinds(events)[-3:] == ["Retry", "Notice", "Answer"]
    assert only(events, Notice)[0].code == "unreadable"


async def test_a_step_that_repeats_an_earlier_one_is_a_bad_reply() -> None:
    server = Scripted(good(1), good(1), *FINAL[1:])
    events = await run(server)
    assert only(events, Retry)[0].cause == "repeat"
    assert [step.content for step in only(events, Step)][1] == "Work number 2 of the chain."
    assert "repeats" in server.requests[2].messages[-1]["content"]


async def test_a_model_that_only_repeats_itself_is_asked_for_the_answer() -> None:
    server = Scripted(lambda request: good(1) if request.schema else "The answer.")
    events = await run(server)
    assert len(only(events, Step)) == 1
    assert [notice.code for notice in only(events, Notice)] == ["repeat"]
    assert isinstance(events[-1], Answer)


async def test_what_attempts_cost_that_gave_no_step_is_in_the_total() -> None:
    server = Scripted(lambda request: good(1) if request.schema else "The answer.")
    trace = Trace(tuple(await run(server)))
    assert trace.tokens == 4 * (len(good(1)) // 4) + len("The answer.") // 4


async def test_the_cost_of_failed_attempts_is_in_the_step() -> None:
    events = await run(Scripted("x" * 40, *FINAL))
    assert only(events, Step)[0].tokens == 10 + len(good(1)) // 4


async def test_an_empty_answer_is_asked_for_again_and_then_is_a_failure() -> None:
    events = await run(Scripted(*FINAL[:3], " ", "", "The answer."))
    assert isinstance(events[-1], Answer)
    events = await run(Scripted(*FINAL[:3], ""))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "empty"
    assert len(only(events, Step)) == 3


async def test_an_answer_whose_tokens_ended_is_marked_cut() -> None:
    events = await run(Scripted(*FINAL[:3], pieces("It is", "length")))
    assert events[-1].cut


async def test_a_refusal_is_shown_as_what_the_model_said() -> None:
    refusal = [Piece(refusal="I can't help with that."), Piece("", "stop")]
    events = await run(Scripted(refusal))
    assert isinstance(events[-1], Answer)
    assert events[-1].content == "I can't help with that."


# -- servers that fail


async def test_a_server_that_comes_back_is_forgiven() -> None:
    time = Time()
    events = await run(Scripted(DOWN, good(1), *FINAL[1:]), time=time)
    retry = only(events, Retry)[0]
    assert (retry.cause, retry.wait) == ("unreachable", time.slept[0])
    assert isinstance(events[-1], Answer)


async def test_a_transport_failure_costs_no_attempt_at_the_step() -> None:
    events = await run(Scripted(DOWN, DOWN, good(1), *FINAL[1:]))
    assert only(events, Step)[0].attempts == 1


async def test_failures_of_the_server_and_of_replies_are_one_count_of_each_step() -> None:
    """A reader is told of attempts 1, 2, 3 in a row, whatever each of them failed at."""
    first, *others, answer = FINAL
    lines = [DOWN, "nonsense", DOWN, first, DOWN, *others, DOWN, " ", DOWN, answer]
    events = await run(Scripted(*lines))
    assert [(retry.number, retry.attempt) for retry in only(events, Retry)] == [
        *((1, 1), (1, 2), (1, 3)),
        (2, 1),
        *((4, 1), (4, 2), (4, 3)),
    ]


async def test_the_answers_attempts_are_counted_from_one_after_a_step_that_was_given_up() -> None:
    events = await run(Scripted(good(1), "", DOWN, "", "", DOWN, "The answer."))
    assert [(retry.number, retry.attempt) for retry in only(events, Retry)] == [
        *((2, 1), (2, 2), (2, 3)),
        (2, 1),
    ]


async def test_a_server_that_is_started_again_is_waited_for_in_mid_chain() -> None:
    time = Time()
    server = Scripted(good(1), *[DOWN] * 10, *FINAL[1:])
    server.restart_wait = 60.0
    events = await run(server, time=time)
    assert isinstance(events[-1], Answer)
    assert len(only(events, Step)) == len(FINAL) - 1
    assert 30 < sum(time.slept) <= 60


async def test_a_server_that_is_not_started_again_after_all_is_a_failure() -> None:
    time = Time()
    server = Scripted(good(1), DOWN)
    server.restart_wait = 60.0
    assert (await run(server, time=time))[-1].code == "unreachable"
    assert 60 <= sum(time.slept) < 75


async def test_one_that_never_answered_is_not_waited_for() -> None:
    time = Time()
    server = Scripted(DOWN)
    server.restart_wait = 60.0
    assert (await run(server, time=time))[-1].code == "unreachable"
    assert sum(time.slept) < 5


async def test_a_dead_server_fails_within_five_seconds_and_keeps_the_steps() -> None:
    time = Time()
    server = Scripted(good(1), DOWN)
    events = await run(server, time=time)
    assert kinds(events) == ["Started", "Step", "Retry", "Retry", "Retry", "Failed"]
    assert events[-1].remedy == "Start one."
    assert len(server.requests) == 1 + 4
    assert sum(time.slept) < 5


async def test_waiting_is_not_thinking() -> None:
    time = Time()
    events = await run(Scripted(good(1), DOWN), time=time)
    trace = Trace(tuple(events))
    assert trace.seconds == pytest.approx(0)
    assert trace.waited == pytest.approx(sum(time.slept))


async def test_what_came_before_the_break_is_void() -> None:
    broken = [Piece('{"title": "Old'), DOWN]
    events = await run(Scripted(broken, *FINAL))
    assert only(events, Step)[0].title == "Title 1"
    after = events.index(only(events, Retry)[0])
    titles = [e.text for e in events[after:] if isinstance(e, Delta) and e.part == "title"]
    assert "".join(titles).startswith("Title 1")


async def test_a_busy_server_is_asked_again_when_it_says() -> None:
    time = Time()
    await run(Scripted(Busy("Busy.", "Later.", retry_after=7), *FINAL), time=time)
    (slept,) = time.slept
    assert 7 <= slept <= 7 * 1.25  # a little more, lest all come back at once


async def test_a_full_server_is_waited_for_longer_than_one_that_is_broken() -> None:
    time, busy = Time(), Busy("The server is busy (429).", "Try again later.")
    events = await run(Scripted(*[busy] * 20, *FINAL), time=time)
    assert kinds(events)[-1] == "Answer"
    assert len(only(events, Retry)) == len(time.slept) == 20
    assert max(time.slept) <= BUSY_PAUSE


@pytest.mark.parametrize(("named", "most"), [(5.0, BUSY_WAIT), (None, MUTE_WAIT)])
async def test_a_full_server_is_not_waited_for_for_ever(named: float | None, most: float) -> None:
    time, busy = Time(), Busy("The server is busy (429).", "Try again later.", named)
    events = await run(Scripted(busy), time=time)
    assert kinds(events)[-1] == "Failed"
    assert most <= sum(time.slept) <= most + BUSY_PAUSE


async def test_a_server_that_asks_for_minutes_is_not_waited_for() -> None:
    events = await run(Scripted(Busy("Busy.", "Later.", retry_after=200)))
    assert kinds(events) == ["Started", "Failed"]


@pytest.mark.parametrize("error", [KeyRefused("k", "r"), Refused("x", "r")])
async def test_a_request_error_is_never_retried(error: Exception) -> None:
    server = Scripted(error)
    server.capabilities.format = "text"
    events = await run(server)
    assert len(server.requests) == 1
    assert isinstance(events[-1], Failed)


# -- formats


async def test_a_refused_format_falls_to_the_next_and_the_server_remembers() -> None:
    refused = FormatRefused("no json_schema", "")
    server = Scripted(refused, *FINAL)
    events = await run(server)
    assert [r.format for r in server.requests[:3]] == ["json_schema", "json_object", "json_object"]
    assert only(events, Notice) == [Notice("format", "json_object")]
    assert server.capabilities.format == "json_object"


async def test_the_last_format_is_plain_text_read_tolerantly() -> None:
    refused = FormatRefused("no", "")
    fenced = f"Here it is:\n```json\n{good(1)}\n```"
    server = Scripted(refused, refused, fenced, *FINAL[1:])
    events = await run(server)
    assert server.capabilities.format == "text"
    assert only(events, Step)[0].title == "Title 1"


def test_a_chain_that_was_asked_earlier_raises_no_format_again() -> None:
    known = Capabilities()
    later, earlier = Fallback(known, goes_on=True), Fallback(known, goes_on=True)
    later.cure(FormatRefused("no", ""), Request(MODEL, (), 1, format="json_schema"))
    later.replied()
    earlier.replied()
    assert known.format == "json_object"


async def test_a_format_that_never_worked_is_not_remembered() -> None:
    server = Scripted(FormatRefused("no", ""), FormatRefused("no", ""), Refused("bad", "r"))
    await run(server)
    assert server.capabilities.format == "json_schema"


# -- the context


async def test_the_answer_is_asked_for_before_the_context_is_full() -> None:
    numbers, asked = count(1), count(2)

    def reply(request: Request) -> list[Piece]:
        text = good(next(numbers)) if request.schema else "The answer."
        return pieces(text, prompt_tokens=500 * next(asked))

    server = Scripted(reply)
    events = await run(server, model=ServedModel("scripted", 8192))
    assert only(events, Notice)[0].code == "context"
    assert isinstance(events[-1], Answer)
    assert 3 < len(only(events, Step)) < 25


@pytest.mark.parametrize("length", [512, 1024, 2048, 4096, 8192])
async def test_no_request_can_exceed_the_context_by_the_servers_own_count(length: int) -> None:
    numbers = count(1)
    prompts: list[int] = []

    def reply(request: Request) -> list[Piece]:
        prompts.append(sum(len(m["content"]) // 4 + 8 for m in request.messages))
        assert prompts[-1] + request.max_tokens <= length
        text = step_text("T", f"{next(numbers)} " + "word " * 100) if request.schema else "Answer."
        return pieces(text, prompt_tokens=prompts[-1])

    events = await run(Scripted(reply), model=ServedModel("scripted", length))
    assert isinstance(events[-1], Answer)


async def test_a_server_that_says_too_long_gets_the_answer_asked_for() -> None:
    server = Scripted(good(1), good(2), TooLong("too long", "r"), "The answer.")
    events = await run(server, model=ServedModel("scripted", None))
    assert [n.code for n in only(events, Notice)] == ["context"]
    assert isinstance(events[-1], Answer)


async def test_an_answer_that_does_not_fit_leaves_out_the_middle_steps() -> None:
    eight = [good(n) for n in range(1, 8)] + [good(8, "final_answer")]
    server = Scripted(*eight, TooLong("too long", "r"), "The answer.")
    events = await run(server, model=ServedModel("scripted", None))
    assert isinstance(events[-1], Answer)
    sent = [m["content"] for m in server.requests[-1].messages if m["role"] == "assistant"]
    assert sent == ["\n".join([good(1), good(2), good(7), good(8, "final_answer")])]


async def test_a_question_that_does_not_fit_at_all_says_so() -> None:
    events = await run(Scripted(TooLong("too long", "r")))
    assert isinstance(events[-1], Failed)
    assert events[-1].code == "too_long"


# -- questions


@pytest.mark.parametrize("question", ["", " \n", "\x00"])
async def test_an_empty_question_reaches_no_server(question: str) -> None:
    server = Scripted(*FINAL)
    events = await run(server, question)
    assert (kinds(events), server.requests) == (["Started", "Failed"], [])


async def test_a_question_that_is_too_long_reaches_no_server() -> None:
    server = Scripted(*FINAL)
    events = await run(server, "x" * 8001)
    assert (events[-1].code, server.requests) == ("question", [])


async def test_control_characters_and_lone_surrogates_do_not_reach_the_server() -> None:
    server = Scripted(*FINAL)
    await run(server, "a\x00b\ud800c\nd")
    assert server.requests[0].messages[0]["content"].startswith("ab\ufffdc\nd\n\n")


async def test_a_special_token_of_the_users_is_plain_text_to_the_model() -> None:
    server = Scripted(*FINAL, special=["<|im_end|>"])
    events = await run(server, "What is <|im_end|> in <b>?")
    asked = server.requests[0].messages[0]["content"]
    assert asked.startswith("What is <\u200b|im_end|> in <b>?\n\n")
    assert events[0].question == "What is <|im_end|> in <b>?"


async def test_a_special_token_that_the_model_spells_out_is_plain_text_when_sent_back() -> None:
    spelled = step_text("T", "Then <|im_end|> follows.")
    server = Scripted(spelled, *FINAL[1:], special=["<|im_end|>"])
    events = await run(server)
    assert "<\u200b|im_end|>" in server.requests[1].messages[1]["content"]
    assert only(events, Step)[0].content == "Then <|im_end|> follows."


@pytest.mark.parametrize(
    ("question", "language"),
    [("How many?", "en"), ("有几个苹果？", "zh"), ("りんごは何個？", "en")],
)
async def test_the_prompts_are_in_the_questions_language(question: str, language: str) -> None:
    server = Scripted(*FINAL)
    events = await run(server, question)
    assert isinstance(events[0], Started)
    assert events[0].language == language
    assert ("请逐步思考" in server.requests[0].messages[0]["content"]) == (language == "zh")


# -- stopping and going on


async def test_closing_the_events_closes_the_servers_stream() -> None:
    server = Scripted(*FINAL)
    async with aclosing(think(Inquiry("Why?"), endpoint=server, model=MODEL)) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
    assert (len(server.requests), server.closed) == (1, 1)


async def test_a_chain_goes_on_after_the_steps_it_is_given() -> None:
    done = only(await run(Scripted(*FINAL[:2], DOWN)), Step)
    server = Scripted(*FINAL[2:])
    events = await run(server, steps=done)
    assert [step.number for step in only(events, Step)] == [1, 2, 3]
    sent = [m["content"] for m in server.requests[0].messages if m["role"] == "assistant"]
    assert sent == ["\n".join(FINAL[:2])]


async def test_a_concluded_chain_that_goes_on_only_asks_for_the_answer() -> None:
    done = only(await run(Scripted(*FINAL)), Step)
    server = Scripted("The answer.")
    await run(server, steps=done)
    assert len(server.requests) == 1
    assert server.requests[0].schema is None
