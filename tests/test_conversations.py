"""Earlier turns of a conversation and a reader's own prompts, in each way of thinking."""

from __future__ import annotations

from itertools import count

import pytest

from reasoning.endpoint import Piece, Request, ServedModel
from reasoning.errors import BadPrompt, TooLong
from reasoning.events import Answer, Event, Failed, Notice, Started, Step, Turn
from reasoning.prompts import FOLDER, LANGUAGES, MAX_PROMPT, check_prompt, prompt_text
from reasoning.think import WAYS
from tests.scripted import Scripted, good, pieces, run
from tests.stub import step_text

FINAL = [good(1), good(2), good(3, "final_answer"), "The answer."]
TALK = (Turn("Who was first?", "Ann was."), Turn("And then?", "Bob.", reasoning="Ann, then Bob."))
SATORI = ServedModel("Satori-7B-Round2", 4096, vllm=True)
SAYS = {"coat": "<|continue|>$$ \\boxed{3} $$", "native": "<think>Hm.</think>So.", "direct": "So."}


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


def contents(request: Request) -> list[str]:
    return [message["content"] for message in request.messages]


# -- earlier turns


async def test_earlier_turns_stand_before_the_question() -> None:
    alone, talking = Scripted(*FINAL), Scripted(*FINAL)
    await run(alone, "Why?")
    events = await run(talking, "Why?", history=TALK)
    first = talking.requests[0]
    assert [m["role"] for m in first.messages] == [*["user", "assistant"] * 2, "user"]
    assert contents(first)[:2] == ["Who was first?", "Ann was."]
    assert contents(first)[-1:] == contents(alone.requests[0])
    assert events[0].history == TALK


async def test_reasoning_that_is_sent_too_stands_before_its_answer() -> None:
    server = Scripted(*FINAL)
    await run(server, history=TALK)
    assert contents(server.requests[0])[3] == "Ann, then Bob.\n\nBob."


async def test_each_request_of_a_conversation_begins_with_the_last_ones_messages() -> None:
    server = Scripted(*FINAL)
    await run(server, history=TALK)
    for earlier, later in zip(server.requests, server.requests[1:], strict=False):
        assert later.messages[:5] == earlier.messages[:5]
        assert contents(later)[5].startswith(contents(earlier)[-2] if earlier.messages[5:] else "")


@pytest.mark.parametrize("way", ["native", "direct"])
async def test_the_other_chat_ways_get_the_turns_as_turns(way: str) -> None:
    server = Scripted(SAYS[way])
    await run(server, "Why?", way=way, history=TALK)
    expected = ["Who was first?", "Ann was.", "And then?", "Ann, then Bob.\n\nBob.", "Why?"]
    assert contents(server.requests[0]) == expected


async def test_a_thought_that_is_concluded_still_knows_the_conversation() -> None:
    step = Step(1, "T", "So far.", "continue", 1.0, 9)
    server = Scripted("So.")
    await run(server, "Why?", way="native", history=TALK, steps=[step])
    assert contents(server.requests[0])[:2] == ["Who was first?", "Ann was."]


async def test_satori_reads_the_turns_in_the_form_it_was_trained_with() -> None:
    server = Scripted(SAYS["coat"])
    await run(server, "Why?", way="coat", model=SATORI, history=TALK[:1])
    alone = Scripted(SAYS["coat"])
    await run(alone, "Why?", way="coat", model=SATORI)
    asked = alone.requests[0].prompt
    before = asked.replace("Why?", "Who was first?") + "Ann was.<|im_end|>\n"
    assert server.requests[0].prompt == before + asked


@pytest.mark.parametrize("way", list(WAYS))
async def test_no_special_token_of_a_turn_reaches_a_model(way: str) -> None:
    server = Scripted(*([SAYS[way]] if way in SAYS else FINAL), special=["<|im_start|>"])
    turn = Turn("What is <|im_start|>?", "A <|im_start|>.\x00\ud800", "Think <|im_start|>.")
    await run(server, "Why?", way=way, model=SATORI, history=[turn])
    sent = server.requests[0].prompt + "".join(contents(server.requests[0]))
    assert sent.count("<\u200b|im_start|>") == 3
    assert "A <\u200b|im_start|>.\ufffd" in sent


@pytest.mark.parametrize("way", list(WAYS))
async def test_the_oldest_turns_are_left_out_where_they_do_not_fit_and_it_is_said(way: str) -> None:
    long = tuple(Turn(f"Question {n}?", "word " * 300) for n in range(20))
    server = Scripted(*([SAYS[way]] if way in SAYS else FINAL))
    events = await run(server, "Why?", way=way, model=SATORI, history=long)
    assert "history" in [notice.code for notice in only(events, Notice)]
    sent = server.requests[0].prompt + "".join(contents(server.requests[0]))
    assert "Question 19?" in sent
    assert "Question 0?" not in sent
    assert isinstance(events[-1], Answer)


@pytest.mark.parametrize("length", [2048, 4096, 8192])
async def test_a_conversation_leaves_room_for_a_thought(length: int) -> None:
    """However long it is: steps come, and by the server's own count nothing overruns."""
    numbers = count(1)

    def reply(request: Request) -> list[Piece]:
        used = sum(len(text) // 4 + 8 for text in contents(request))
        assert used + request.max_tokens <= length
        text = step_text("T", f"{next(numbers)} is a number.") if request.schema else "Answer."
        return pieces(text, prompt_tokens=used)

    long = tuple(Turn(f"Question {n}?", "word " * 40) for n in range(99))
    model = ServedModel("scripted", length)
    events = await run(Scripted(reply), model=model, history=long)
    assert len(only(events, Step)) >= 3
    assert isinstance(events[-1], Answer)


async def test_turns_that_a_server_finds_too_long_are_forgotten_before_any_step() -> None:
    server = Scripted(TooLong("too long", "r"), *FINAL)
    events = await run(server, model=ServedModel("scripted", None), history=TALK)
    assert [notice.code for notice in only(events, Notice)] == ["history"]
    assert [m["role"] for m in server.requests[1].messages] == ["user"]
    assert isinstance(events[-1], Answer)


async def test_forgetting_steps_in_the_middle_spares_the_question() -> None:
    eight = [good(n) for n in range(1, 8)] + [good(8, "final_answer")]
    long = TooLong("too long", "r")
    server = Scripted(*eight, long, long, "The answer.")
    await run(server, "Why?", model=ServedModel("scripted", None), history=TALK)
    assert contents(server.requests[-1])[0].startswith("Why?\n\n")
    assert contents(server.requests[-1])[1].startswith(good(1))


# -- a reader's prompts


def named() -> list[tuple[str, str]]:
    return [
        (language, name) for way in WAYS.values() for name in way.prompts for language in LANGUAGES
    ]


@pytest.mark.parametrize(("language", "name"), named())
def test_each_prompt_that_a_way_sends_can_be_read_and_stands_as_it_is(
    language: str, name: str
) -> None:
    check_prompt(language, name, prompt_text(language, name))


def test_every_prompt_file_is_sent_by_a_way_and_is_there_in_each_language() -> None:
    sent = {name for way in WAYS.values() for name in way.prompts}
    assert {path.stem for path in FOLDER.rglob("*.md")} == sent
    for language in LANGUAGES:
        assert {path.stem for path in (FOLDER / language).iterdir()} == sent - {"satori"}


async def test_a_readers_prompt_stands_in_the_place_of_ours() -> None:
    server = Scripted(*FINAL)
    prompts = {"step": "$question Be brief, $$5 each.", "next": "Step $number!"}
    events = await run(server, prompts=prompts)
    assert contents(server.requests[0])[0] == "Why? Be brief, $5 each."
    assert contents(server.requests[1])[-1] == "Step 2!"
    assert isinstance(events[0], Started)
    assert events[0].prompts == prompts


async def test_a_readers_prompt_for_satori_is_sent_with_its_tokens() -> None:
    mine = "<|im_start|>user\n$question<|im_end|>\n<|im_start|>assistant\n"
    server = Scripted(SAYS["coat"], special=["<|im_end|>"])
    await run(server, "Why?", way="coat", model=SATORI, prompts={"satori": mine})
    assert server.requests[0].prompt == mine.replace("$question", "Why?")


@pytest.mark.parametrize(
    ("way", "name", "text", "said"),
    [
        ("json_steps", "next", "Step $nubmer.", "$nubmer"),
        ("json_steps", "answer", "It costs $5.", "$$"),
        ("json_steps", "step", " \n", "empty"),
        ("json_steps", "doubt", "x" * (MAX_PROMPT + 1), "characters"),
        ("coat", "satori", "<|im_start|>user\nSolve it.", "$question"),
    ],
)
async def test_a_prompt_that_cannot_be_filled_in_is_named_before_any_request(
    way: str, name: str, text: str, said: str
) -> None:
    server = Scripted("So.")
    events = await run(server, way=way, model=SATORI, prompts={name: text})
    end = events[-1]
    assert isinstance(end, Failed)
    assert (end.code, server.requests) == ("prompt", [])
    assert f'"{name}"' in end.message
    assert said in end.message + end.remedy


def test_a_variable_of_another_prompt_is_not_filled_in() -> None:
    with pytest.raises(BadPrompt, match="max_steps"):
        check_prompt("en", "answer", "After $max_steps steps, answer.")


async def test_a_prompt_that_the_way_does_not_send_does_no_harm() -> None:
    events = await run(Scripted("So."), way="direct", prompts={"next": "Step $nubmer."})
    assert isinstance(events[-1], Answer)


async def test_a_language_that_has_no_prompts_is_the_questions() -> None:
    events = await run(Scripted(*FINAL), "有几个苹果？", language="../..")
    assert events[0].language == "zh"
