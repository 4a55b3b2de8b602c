"""Steering a chain after its finished steps: each way, each wish, against a scripted server."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.endpoint import Piece, Request, ServedModel
from reasoning.errors import Unreachable
from reasoning.events import Answer, Delta, Event, Failed, Notice, Retry, Settings, Steer, Step
from reasoning.inquiry import edit_step
from reasoning.json_steps import CONCLUDE, DECIDE, step_json
from reasoning.parsing import Reply
from reasoning.task import WARMER
from reasoning.think import VOTE, WAYS, vary_settings
from tests.scripted import Scripted, good, run
from tests.stub import step_text

SATORI = ServedModel("Satori-7B-Round2", 4096, vllm=True)
FINAL = [good(1), good(2), good(3, "final_answer"), "The answer."]
BOXED = (
    "<|continue|>Write it down: $x = 3$.\n"
    "<|continue|>So the answer is: $$ \\boxed{192} $$\n"
    "<|reflect|>Let's reassess: $$ \\boxed{204} $$"
)


def only(events: list[Event], kind: type) -> list:
    return [event for event in events if isinstance(event, kind)]


async def steps_of(*lines: str, **more: object) -> tuple[Step, ...]:
    return tuple(only(await run(Scripted(*lines), **more), Step))  # type: ignore[arg-type]


def endless(start: int = 10) -> Scripted:
    """A new step each time, text when no schema is asked for."""
    numbers = count(start)
    return Scripted(lambda request: good(next(numbers)) if request.schema else "The answer.")


def roles(request: Request) -> list[str]:
    return [message["role"] for message in request.messages]


# -- a step that a reader changed


@given(st.text(), st.text(min_size=1))
def test_an_edited_json_step_reads_as_the_reader_wrote_it(title: str, content: str) -> None:
    step = edit_step(Step(1, "Old", "old", "continue", 1.0, 9, raw=good(1)), title, content)
    told = json.loads(step_json(Reply(step.title, step.content, "continue")))
    assert (told["title"], told["content"]) == (step.title, step.content)
    assert step.edited
    assert step.title


def test_an_edited_text_step_keeps_the_space_around_it() -> None:
    step = Step(2, "So", "So 192.", "reflect", 1.0, 9, raw="So 192.\n")
    assert edit_step(step, "So", "So 204.").raw == "So 204.\n"
    assert edit_step(step, "So", "So 204.").action == "reflect"


def test_an_edited_final_or_cut_step_is_whole_and_goes_on() -> None:
    cut = Step(2, "T", "half", "final_answer", 1.0, 9, cut=True)
    step = edit_step(cut, "T", "whole")
    assert (step.action, step.cut, step.raw) == ("continue", False, "whole")


def test_no_control_character_of_a_reader_reaches_the_model() -> None:
    step = edit_step(Step(1, "T", "C", "continue", 1.0, 9, raw="C"), "a\x00b", "c\x1bd\ud800")
    assert (step.title, step.content, step.raw) == ("ab", "cd\ufffd", "cd\ufffd")


# -- JSON steps


async def test_after_an_edit_the_model_reads_the_readers_words_and_goes_on() -> None:
    first, second, _ = await steps_of(*FINAL)
    server = Scripted(good(3, "final_answer"), "The answer.")
    kept = (first, edit_step(second, "Mine", "What I say."))
    events = await run(server, steps=kept, steer=Steer("edit"))
    lines = server.requests[0].messages[-2]["content"].splitlines()
    assert json.loads(lines[-1])["content"] == "What I say."
    assert [step.edited for step in only(events, Step)] == [False, True, False]
    assert isinstance(events[-1], Answer)


async def test_a_final_step_that_was_edited_is_gone_on_from() -> None:
    first, second, third = await steps_of(*FINAL)
    server = Scripted(good(4, "final_answer"), "The answer.")
    events = await run(server, steps=(first, second, edit_step(third, "T", "Not yet.")))
    assert len(only(events, Step)) == 4


async def test_after_an_edit_of_the_last_possible_step_comes_the_answer() -> None:
    steps = await steps_of(*FINAL)
    server = endless()
    kept = (*steps[:2], edit_step(steps[2], "T", "Changed."))
    await run(server, steps=kept, steer=Steer("edit"), settings=Settings(max_steps=3))
    assert [request.schema for request in server.requests] == [None]


async def test_another_step_is_sampled_warmer_and_with_a_seed_of_its_own() -> None:
    steps = await steps_of(*FINAL)
    server = endless()
    cold = Settings(temperature=0.0, max_steps=4)
    await run(server, steps=steps[:1], steer=Steer("again", steps[1].content), settings=cold)
    again, after = server.requests[:2]
    assert again.temperature == WARMER[1]
    assert again.seed
    assert (after.temperature, after.seed) == (0.0, None)


async def test_a_step_asked_for_once_more_gets_yet_another_seed() -> None:
    seeds = set()
    for said in ("one", "two", "three"):
        server = endless()
        await run(server, steer=Steer("again", said), settings=Settings(max_steps=3, min_steps=3))
        seeds.add(server.requests[0].seed)
    assert len(seeds) == 3


async def test_a_step_that_repeats_the_one_it_is_to_replace_is_refused() -> None:
    steps = await steps_of(*FINAL)
    server = Scripted(good(2), good(7), good(8, "final_answer"), "The answer.")
    events = await run(server, steps=steps[:1], steer=Steer("again", steps[1].content))
    retry = only(events, Retry)[0]
    assert (retry.number, retry.cause) == (2, "repeat")
    assert "replace" in retry.detail
    assert only(events, Step)[1].content == "Work number 7 of the chain."
    assert len({request.seed for request in server.requests[:2]}) == 2


async def test_the_replaced_text_may_come_again_in_a_later_step() -> None:
    steps = await steps_of(*FINAL)
    server = Scripted(good(7), good(2, "final_answer"), "The answer.")
    events = await run(server, steps=steps[:1], steer=Steer("again", steps[1].content))
    assert only(events, Retry) == []


async def test_the_first_step_can_be_thought_again_and_turns_still_alternate() -> None:
    server = Scripted(lambda request: good(1) if request.schema else "The answer.")
    said = "Work number 1 of the chain."
    events = await run(server, steer=Steer("again", said))
    assert [notice.code for notice in only(events, Notice)] == ["repeat"]
    assert isinstance(events[-1], Answer)
    assert all(roles(request) == ["user"] for request in server.requests)


async def test_doubt_asks_for_another_method_in_the_place_of_the_next_step() -> None:
    steps = await steps_of(*FINAL)
    server = endless()
    events = await run(server, steps=steps[:2], steer=Steer("doubt"))
    asked = server.requests[0].messages[-1]["content"]
    assert "doubt step 2" in asked
    assert "Write step 3" in asked
    new = only(events, Step)[2:]
    assert [step.asked for step in new][:2] == ["doubt", ""]
    assert "doubt" not in server.requests[1].messages[-1]["content"]


async def test_a_concluded_chain_that_is_doubted_has_at_least_one_more_step() -> None:
    steps = await steps_of(*FINAL)
    server = Scripted(good(4, "final_answer"), "The answer.")
    events = await run(server, steps=steps, steer=Steer("doubt"))
    assert [step.number for step in only(events, Step)] == [1, 2, 3, 4]
    assert server.requests[0].schema == DECIDE


async def test_a_doubt_after_the_last_possible_step_is_one_step_and_then_the_answer() -> None:
    steps = await steps_of(*FINAL)
    server = endless()
    bounded = Settings(max_steps=3)
    events = await run(server, steps=steps, steer=Steer("doubt"), settings=bounded)
    assert [request.schema for request in server.requests] == [CONCLUDE, None]
    assert len(only(events, Step)) == 4


async def test_a_doubt_is_told_once_and_what_it_brought_is_a_step_like_others() -> None:
    steps = await steps_of(*FINAL)
    server = endless()
    bounded = Settings(max_steps=6)
    events = await run(server, steps=steps[:2], steer=Steer("doubt"), settings=bounded)
    for earlier, later in zip(server.requests, server.requests[1:], strict=False):
        assert later.messages[1]["content"].startswith(earlier.messages[1]["content"])
    assert ["doubt" in one.messages[-1]["content"] for one in server.requests[:2]] == [True, False]
    resumed = endless()
    await run(resumed, steps=only(events, Step)[:4], settings=bounded)
    assert resumed.requests[0].messages == server.requests[2].messages


async def test_answer_now_asks_for_no_more_steps() -> None:
    steps = await steps_of(*FINAL)
    server = Scripted("The answer.")
    events = await run(server, steps=steps[:1], steer=Steer("answer"))
    assert [request.schema for request in server.requests] == [None]
    assert roles(server.requests[0]) == ["user", "assistant", "user"]
    assert len(only(events, Step)) == 1
    assert isinstance(events[-1], Answer)


class Counting(Scripted):
    """Counts a token for each six characters, where the core's own bound says two."""

    async def count(self, text: str) -> int | None:
        return len(text) // 6


async def test_a_long_chain_is_steered_as_long_as_it_fits_by_the_servers_own_count() -> None:
    long = [
        Step(n, "T", f"{n} " + "word " * 500, "continue", 1.0, 9, raw=f"{n} " + "word " * 500)
        for n in range(1, 10)
    ]
    ends = (good(10, "final_answer"), "The answer.")
    for server, steps in ((Counting(*ends), 10), (Scripted(*ends[1:]), 9)):
        events = await run(server, steps=long, steer=Steer("doubt"))
        assert len(only(events, Step)) == steps


@given(st.integers(1, 4), st.sampled_from(["edit", "again", "doubt", "answer"]))
async def test_a_steered_request_begins_as_the_chain_did_up_to_what_was_steered(
    kept: int, how: str
) -> None:
    """So its first token comes as fast as after a normal step: the server has all of it cached."""
    before = endless(1)
    whole = only(await run(before, settings=Settings(max_steps=5)), Step)
    steps = whole[:kept]
    if how == "edit":
        steps[-1] = edit_step(steps[-1], "Mine", "What I say.")
    server = endless()
    steer = Steer(how, whole[kept].content)  # type: ignore[arg-type]
    await run(server, steps=steps, steer=steer, settings=Settings(max_steps=5))
    asked, said = server.requests[0].messages[:2]
    same = "\n".join(good(n) for n in range(1, kept + (how != "edit")))
    assert asked == before.requests[-1].messages[0]
    assert said["content"].startswith(same)
    assert before.requests[-1].messages[1]["content"].startswith(same)


# -- Satori's way


async def coat(server: Scripted, **more: object) -> list[Event]:
    return await run(server, "How long?", **{"model": SATORI, "way": "coat", **more})  # type: ignore[arg-type]


async def satori_steps() -> tuple[Step, ...]:
    return tuple(only(await coat(Scripted(BOXED)), Step))


async def test_an_edited_satori_step_stands_in_the_transcript_as_plain_text() -> None:
    first, second, _ = await satori_steps()
    server = Scripted("<|continue|>So $$ \\boxed{7} $$", special=["<|im_end|>"])
    mine = edit_step(second, "So", "So it is 7, <|im_end|> I say.")
    events = await coat(server, steps=(first, mine), steer=Steer("edit"))
    end = "$x = 3$.\n<|continue|>So it is 7, <\u200b|im_end|> I say.\n"
    assert server.requests[0].prompt.endswith(end)
    assert events[-1].content.startswith("$$\\boxed{7}$$")


async def test_a_doubted_satori_chain_goes_on_with_a_reflection() -> None:
    steps = await satori_steps()
    server = Scripted("Is it so? $$ \\boxed{204} $$<|continue|>Yes.")
    events = await coat(server, steps=steps[:2], steer=Steer("doubt"))
    assert server.requests[0].prompt.endswith("\\boxed{192} $$\n<|reflect|>")
    new = only(events, Step)[2:]
    assert [(step.number, step.action, step.asked) for step in new] == [
        (3, "reflect", "doubt"),
        (4, "continue", ""),
    ]
    assert Delta(3, "action", "reflect") in events
    assert only(events, Notice) == []


async def test_a_doubt_that_breaks_off_is_opened_again_but_no_later_step_is() -> None:
    steps = (await satori_steps())[:2]
    gone = Unreachable("Gone.", "Start it.")
    server = Scripted([Piece("Is it"), gone], "Is it so? It is.<|continue|>Yes.")
    events = await coat(server, steps=steps, steer=Steer("doubt"))
    assert [request.prompt[-11:] for request in server.requests] == ["<|reflect|>"] * 2
    assert [step.content for step in only(events, Step)][2:] == ["Is it so? It is.", "Yes."]
    server = Scripted([Piece("It is.<|continue|>And"), gone], "<|continue|>Yes.")
    events = await coat(server, steps=steps, steer=Steer("doubt"))
    assert server.requests[1].prompt.endswith("<|reflect|>It is.")
    assert [step.asked for step in only(events, Step)][2:] == ["doubt", ""]


async def test_another_satori_step_is_sampled_and_not_greedy() -> None:
    steps = await satori_steps()
    server = Scripted(BOXED)
    await coat(server, steps=steps[:1], steer=Steer("again", steps[1].content))
    assert server.requests[0].temperature >= 0.7
    assert server.requests[0].seed


async def test_a_satori_chain_that_is_to_answer_names_its_box_at_once() -> None:
    steps = await satori_steps()
    server = Scripted("7} $$")
    events = await coat(server, steps=steps[:1], steer=Steer("answer"))
    assert server.requests[0].prompt.endswith("the final answer is: $$ \\boxed{")
    assert events[-1].content == "$$\\boxed{7}$$"
    assert len(only(events, Step)) == 1


async def test_a_cut_satori_chain_that_is_doubted_goes_on() -> None:
    steps = (await satori_steps())[:2]
    cut = (steps[0], replace(steps[1], cut=True))
    server = Scripted("Is it so? $$ \\boxed{204} $$")
    events = await coat(server, steps=cut, steer=Steer("doubt"))
    assert len(only(events, Step)) == 3


# -- models that think by themselves, and the plain answer


@pytest.mark.parametrize("how", ["edit", "answer"])
async def test_a_native_thought_that_is_steered_is_given_back_for_its_answer(how: str) -> None:
    steps = await steps_of("<think>First this.\n\nWait, no.</think>So.", way="native")
    server = Scripted("The answer.")
    kept = (steps[0], edit_step(steps[1], "Wait", "Wait, it is seven."))
    events = await run(server, way="native", steps=kept, steer=Steer(how))  # type: ignore[arg-type]
    assert "it is seven" in server.requests[0].messages[0]["content"]
    assert not server.requests[0].think
    assert events[-1].content == "The answer."


@pytest.mark.parametrize(
    ("way", "how"), [(way, how) for way in WAYS for how in ("edit", "again", "doubt", "answer")]
)
async def test_what_a_way_cannot_do_is_refused_before_any_request(way: str, how: str) -> None:
    steps = await steps_of(*FINAL)
    server = Scripted("<|continue|>$$ \\boxed{1} $$")
    events = await run(server, way=way, steps=steps, steer=Steer(how))  # type: ignore[arg-type]
    refused = isinstance(events[-1], Failed) and events[-1].code == "steer"
    assert refused == (how not in WAYS[way].steers)
    assert bool(server.requests) != refused


@pytest.mark.parametrize("how", ["edit", "doubt", "answer"])
async def test_what_needs_a_step_says_so_where_there_is_none(how: str) -> None:
    server = Scripted("The answer.")
    events = await run(server, steer=Steer(how))  # type: ignore[arg-type]
    assert (events[-1].code, server.requests) == ("steer", [])


# -- what a page asks a way


async def test_a_way_tells_whether_the_answer_is_next() -> None:
    last = (await steps_of(*FINAL))[-1]
    on, cut = replace(last, action="continue"), replace(last, action="continue", cut=True)
    concludes = {way: [WAYS[way].concludes([step]) for step in (on, last, cut)] for way in WAYS}
    assert concludes == {
        "json_steps": [False, True, True],
        "cot": [False, True, True],
        "coat": [False, False, True],
        "native": [True, True, True],
        "direct": [False, False, False],
    }
    assert not any(way.concludes([]) for way in WAYS.values())


async def test_where_a_way_says_that_it_concludes_no_step_follows() -> None:
    for way in ("json_steps", "cot", "coat", "native"):
        step = Step(1, "T", "C", "final_answer", 1.0, 9, cut=True, raw="C")
        assert WAYS[way].concludes([step])
        server = Scripted("7} $$")
        events = await run(server, way=way, model=SATORI, steps=[step])
        assert only(events, Step) == [step]


# -- seeds


@pytest.mark.parametrize("way", list(WAYS))
async def test_every_request_of_a_seeded_chain_carries_a_seed_and_no_other_does(way: str) -> None:
    lines = BOXED if way == "coat" else "<think>Hm.</think>So." if way == "native" else None
    for settings in (Settings(seed=7), Settings()):
        server = Scripted(lines) if lines else Scripted(*FINAL)
        await run(server, way=way, settings=settings)
        seeds = {request.seed for request in server.requests}
        assert seeds == {settings.seed}


async def test_another_attempt_has_another_seed() -> None:
    server = Scripted("nonsense", *FINAL)
    await run(server, settings=Settings(seed=7))
    assert [request.seed for request in server.requests[:3]] == [7, 8, 7]


async def test_a_satori_chain_is_greedy_unless_it_is_one_of_several() -> None:
    server = Scripted(BOXED)
    await coat(server, settings=Settings(temperature=0.9))
    await coat(server, settings=Settings(temperature=0.9, seed=1))
    assert [request.temperature for request in server.requests] == [0.0, 0.9]


@given(st.integers(1, 16), st.floats(0, 2), st.none() | st.integers(0, 2**31))
def test_several_chains_differ_in_their_seeds_and_are_warm(
    chains: int, temperature: float, seed: int | None
) -> None:
    settings = vary_settings(Settings(temperature=temperature, seed=seed), chains)
    assert len({one.seed for one in settings}) == len(settings) == chains
    assert all(one.temperature == max(VOTE, temperature) for one in settings)
    if seed is not None:
        assert settings == vary_settings(Settings(temperature=temperature, seed=seed), chains)


async def test_a_json_step_that_spells_a_special_token_after_an_edit_is_plain_text() -> None:
    first, *_ = await steps_of(step_text("T", "One."), *FINAL[1:])
    server = Scripted(*FINAL[1:], special=["<|im_end|>"])
    await run(server, steps=[edit_step(first, "T", "End <|im_end|> it.")], steer=Steer("edit"))
    assert "<\u200b|im_end|>" in server.requests[0].messages[1]["content"]
