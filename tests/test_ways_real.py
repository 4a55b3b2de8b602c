"""Every way of thinking on a real vLLM, with a model whose every word is known."""

from __future__ import annotations

import asyncio
import json
import re
import urllib.request
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Any

import pytest

from reasoning.boxes import find_boxes
from reasoning.detection import detect_way
from reasoning.endpoint import Endpoint, Piece, Request
from reasoning.events import Answer, Correction, Delta, Event, Notice, Steer, Step, Trace, Turn
from reasoning.inquiry import Inquiry
from reasoning.think import think
from serving.catalogue import ROOT, load
from tests import reciter as known
from tests.real_servers import Server, finished, running

TEMPLATE = ROOT / "serving" / "templates" / "satori.jinja"
TOKEN = re.compile(r"<\|\w+\|>|</?think>")


class Counting(Endpoint):
    """The real server, and what it said of each reply: its last count of tokens."""

    def __init__(self, base_url: str) -> None:
        super().__init__(base_url)
        self.requests: list[Request] = []
        self.tokens: list[int] = []

    async def chat(self, request: Request) -> AsyncGenerator[Piece, None]:
        request = self.changed(request)
        self.requests.append(request)
        self.tokens.append(0)
        async with aclosing(super().chat(request)) as pieces:
            async for piece in pieces:
                self.tokens[-1] = piece.completion_tokens or self.tokens[-1]
                yield piece

    def changed(self, request: Request) -> Request:
        return request


class Hiding(Counting):
    """Asks as a client does that leaves skip_special_tokens at the server's default."""

    def changed(self, request: Request) -> Request:
        return replace(request, special_tokens=False)


class Unparsed(Counting):
    """Chat by /v1/completions, which no reasoning parser reads: the tags stay in the text."""

    opening = ""

    def changed(self, request: Request) -> Request:
        question = request.messages[0]["content"]
        prompt = known.chat_prompt(question, request.think) + self.opening
        return replace(request, prompt=prompt, messages=())


class Opened(Unparsed):
    """With a template that opens the thought itself, as DeepSeek-R1's: the reply only closes it."""

    opening = "<think>\n"


class Endless(Counting):
    """Asks for what never ends by itself."""

    def changed(self, request: Request) -> Request:
        return replace(request, prompt=known.satori_prompt(known.ENDLESS), messages=())


@pytest.fixture
async def endpoint(reciter: Server) -> AsyncIterator[Counting]:
    endpoint = Counting(reciter.base_url)
    yield endpoint
    await endpoint.close()


@dataclass(frozen=True, slots=True)
class Chain:
    """What a question came to, and the server's count of tokens for each reply."""

    events: list[Event]
    tokens: list[int]

    @property
    def steps(self) -> tuple[Step, ...]:
        return Trace(tuple(self.events)).steps


class Chains:
    """What a plain question comes to, asked once for all who look at it: at temperature 0 the
    model says the same each time.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.asked: dict[tuple[str, str], Chain] = {}

    async def __call__(self, question: str, way: str) -> Chain:
        if (question, way) not in self.asked:
            endpoint = Counting(self.base_url)
            events = await collect(endpoint, question, way)
            await endpoint.close()
            self.asked[question, way] = Chain(events, endpoint.tokens)
        return self.asked[question, way]


@pytest.fixture(scope="module")
def chains(reciter: Server) -> Chains:
    return Chains(reciter.base_url)


async def collect(endpoint: Endpoint, question: str, way: str, **more: Any) -> list[Event]:
    model = await endpoint.model()
    inquiry = Inquiry(question, way, **more)
    thinking = think(inquiry, endpoint=endpoint, model=model)
    async with aclosing(thinking) as events:
        return [event async for event in events]


def only(events: list[Event], kind: type) -> list[Any]:
    return [event for event in events if isinstance(event, kind)]


def shown(events: list[Event]) -> str:
    """All that a reader gets to see; `raw` goes back to the model alone."""
    steps = [step.title + step.content for step in only(events, Step)]
    answers = [answer.content for answer in only(events, Answer)]
    return "\n".join([delta.text for delta in only(events, Delta)] + steps + answers)


def step_texts(transcript: str) -> list[str]:
    """The steps of a transcript, up to the first token that ends it."""
    transcript = re.split(r"<\|im_end\|>|<\|endoftext\|>", transcript)[0]
    return [text.strip() for text in TOKEN.split(transcript)[1:]]


# -- Satori's way


async def test_a_satori_chain_comes_in_its_steps_to_the_letter(chains: Chains) -> None:
    events = (await chains(known.AYA, "coat")).events
    steps = only(events, Step)
    assert [step.content for step in steps] == step_texts(known.AYA_SAYS)
    actions = ["continue", "continue", "continue", "reflect", "explore", "continue"]
    assert [step.action for step in steps] == actions
    assert [step.number for step in steps] == [1, 2, 3, 4, 5, 6]
    assert not any(step.cut for step in steps)
    assert only(events, Notice) == []


async def test_a_title_is_the_first_words_and_what_reads_as_words(chains: Chains) -> None:
    titles = [step.title for step in (await chains(known.AYA, "coat")).steps]
    assert titles == [
        "First, we determine the time Aya spends walking",
        "A second equation follows",
        "After simplifying, the answer is",
        "Let's reassess my previous conclusion",
        "Let's switch to a new solution",
        "This gives s = 2.5 and t = 24",
    ]


async def test_the_last_box_is_the_answer_and_the_earlier_one_corrected(
    chains: Chains,
) -> None:
    events = (await chains(known.AYA, "coat")).events
    assert only(events, Correction) == [Correction(6, "192", "204")]
    assert events[-1].content == f"$$\\boxed{{204}}$$\n\n{step_texts(known.AYA_SAYS)[-1]}"  # type: ignore[union-attr]


async def test_braces_nest_in_a_box(chains: Chains) -> None:
    answer = (await chains(known.HALF, "coat")).events[-1]
    assert isinstance(answer, Answer)
    assert answer.content.startswith("$$\\boxed{\\frac{1}{2}}$$")


async def test_either_end_token_ends_the_chain(endpoint: Counting, chains: Chains) -> None:
    """The model would read on after <|endoftext|>, which its config does not call an end."""
    chain = await chains(known.HALF, "coat")
    assert [step.content for step in chain.steps] == step_texts(known.HALF_SAYS)
    assert "999" not in shown(chain.events)
    until = await endpoint.count(known.HALF_SAYS.split("<|endoftext|>")[0])
    assert until is not None
    assert chain.tokens[0] <= until + 1  # the server has stopped, not the reader alone


async def test_without_the_stop_tokens_the_model_reads_on(endpoint: Counting) -> None:
    """What the test above would see if the stops were not sent."""
    model = await endpoint.model()
    request = Request(model, (), 400, prompt=known.satori_prompt(known.HALF), special_tokens=True)
    text = "".join([piece.text async for piece in endpoint.chat(request)])
    assert text.endswith("Another problem begins here. $$ \\boxed{999} $$")


async def test_the_tokens_of_the_steps_are_the_servers_count(
    endpoint: Counting, chains: Chains
) -> None:
    chain = await chains(known.AYA, "coat")
    assert Trace(tuple(chain.events)).tokens == sum(chain.tokens) > 0
    for step in chain.steps:
        counted = await endpoint.count(step.raw)
        assert counted is not None
        # the server holds back as much text as its longest stop string, and has counted it
        assert abs(step.tokens - counted) <= len("<|endoftext|>")


async def test_a_step_streams_before_it_is_whole(chains: Chains) -> None:
    events = (await chains(known.AYA, "coat")).events
    for step in only(events, Step):
        before = events[: events.index(step)]
        mine = [e for e in before if isinstance(e, Delta) and e.number == step.number]
        assert mine[0] == Delta(step.number, "action", step.action)
        text = [delta.text for delta in mine if delta.part == "content"]
        assert len(text) > 5
        assert "".join(text).strip() == step.content
        assert "".join(delta.text for delta in mine if delta.part == "title") == step.title


@pytest.mark.parametrize("question", [known.AYA, known.HALF, known.ENDLESS, known.LOOP])
async def test_no_token_is_ever_shown(chains: Chains, question: str) -> None:
    assert not TOKEN.search(shown((await chains(question, "coat")).events))


async def test_what_looks_like_a_token_but_is_none_is_shown(chains: Chains) -> None:
    assert "Here $|s| < 9$ and $t < 240$" in shown((await chains(known.AYA, "coat")).events)


# -- where the server hides the tokens


async def test_hidden_tokens_glue_the_steps_and_it_is_said_once(reciter: Server) -> None:
    endpoint = Hiding(reciter.base_url)
    events = await collect(endpoint, known.AYA, "coat")
    await endpoint.close()
    assert [notice.code for notice in only(events, Notice)] == ["no_tokens"]
    steps = only(events, Step)
    assert [step.content for step in steps] != step_texts(known.AYA_SAYS)
    assert "= 9 $$$$ s = 3 $$" in steps[0].content


async def test_with_the_tokens_the_same_steps_are_not_glued(chains: Chains) -> None:
    events = (await chains(known.AYA, "coat")).events
    assert "$$$$" not in "\n".join(step.content for step in only(events, Step))


# -- chains that do not end


async def test_a_chain_is_cut_where_the_context_ends_with_the_box_so_far(
    endpoint: Counting,
    chains: Chains,
) -> None:
    chain = await chains(known.ENDLESS, "coat")
    steps, answer = chain.steps, chain.events[-1]
    assert isinstance(answer, Answer)
    assert answer.cut
    assert steps[-1].cut
    assert not any(step.cut for step in steps[:-1])
    assert len(steps) > 25
    assert find_boxes(answer.content)[0] == "3"
    prompt = await endpoint.count(known.satori_prompt(known.ENDLESS))
    assert prompt is not None
    assert known.CONTEXT - 32 < prompt + sum(chain.tokens) <= known.CONTEXT


async def test_a_cut_chain_concludes_when_it_is_asked_to(
    endpoint: Counting, chains: Chains
) -> None:
    cut = (await chains(known.ENDLESS, "coat")).steps
    events = await collect(endpoint, known.ENDLESS, "coat", steps=cut)
    assert only(events, Step) == list(cut)
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert (answer.content, answer.cut) == ("$$\\boxed{\\infty}$$", False)
    assert answer.tokens == endpoint.tokens[-1]


async def test_a_chain_that_goes_in_circles_is_cut_long_before_the_context_ends(
    chains: Chains,
) -> None:
    chain = await chains(known.LOOP, "coat")
    assert chain.events[-1].cut  # type: ignore[union-attr]
    assert [notice.code for notice in only(chain.events, Notice)] == ["no_box"]
    assert sum(chain.tokens) < known.CONTEXT / 4


async def test_finished_steps_are_gone_on_from(endpoint: Counting, chains: Chains) -> None:
    whole = (await chains(known.AYA, "coat")).steps
    events = await collect(endpoint, known.AYA, "coat", steps=whole[:3])
    assert [(s.number, s.action, s.content) for s in only(events, Step)] == [
        (s.number, s.action, s.content) for s in whole
    ]
    assert only(events, Correction) == [Correction(6, "192", "204")]


async def test_a_doubted_chain_goes_on_with_a_reflection_to_the_letter(
    endpoint: Counting,
    chains: Chains,
) -> None:
    """The model is given <|reflect|> and recites what it knows to come after it."""
    whole = (await chains(known.AYA, "coat")).steps
    events = await collect(endpoint, known.AYA, "coat", steps=whole[:3], steer=Steer("doubt"))
    assert endpoint.requests[-1].prompt.endswith("\\boxed{192} $$\n<|reflect|>")
    steps = only(events, Step)
    assert [(s.number, s.action, s.content) for s in steps] == [
        (s.number, s.action, s.content) for s in whole
    ]
    assert [step.asked for step in steps] == ["", "", "", "doubt", "", ""]


async def test_a_chain_that_is_to_answer_names_its_box_at_once(
    endpoint: Counting, chains: Chains
) -> None:
    whole = (await chains(known.ENDLESS, "coat")).steps
    events = await collect(endpoint, known.ENDLESS, "coat", steps=whole[:2], steer=Steer("answer"))
    assert only(events, Step) == list(whole[:2])
    assert events[-1].content == "$$\\boxed{\\infty}$$"  # type: ignore[union-attr]


async def test_another_step_is_sampled_with_a_seed(endpoint: Counting, chains: Chains) -> None:
    """This model can say one thing only, so it says it again: what is sent differs."""
    whole = (await chains(known.AYA, "coat")).steps
    again = Steer("again", whole[3].content)
    events = await collect(endpoint, known.AYA, "coat", steps=whole[:3], steer=again)
    assert endpoint.requests[-1].temperature > 0
    assert endpoint.requests[-1].seed
    assert isinstance(events[-1], Answer)


async def test_an_earlier_question_of_the_conversation_stands_before_this_one(
    endpoint: Counting,
) -> None:
    turn = Turn(known.HALF, "$$\\boxed{\\frac{1}{2}}$$")
    await collect(endpoint, known.AYA, "coat", history=(turn,))
    before = known.satori_prompt(known.HALF) + turn.answer + "<|im_end|>\n"
    assert endpoint.requests[-1].prompt == before + known.satori_prompt(known.AYA)
    model = await endpoint.model()
    messages = [*known_turns(turn), card_turn(known.AYA)]
    chat = post(
        f"{endpoint.base_url.removesuffix('/v1')}/tokenize",
        {"model": model.name, "messages": messages, "chat_template": TEMPLATE.read_text()},
    )
    assert chat["count"] == await endpoint.count(endpoint.requests[-1].prompt)


def known_turns(turn: Turn) -> list[dict[str, str]]:
    return [card_turn(turn.question), {"role": "assistant", "content": turn.answer}]


# -- stopping


@pytest.mark.alone
@pytest.mark.parametrize("way", ["coat", "native", "direct"])
async def test_a_stop_ends_the_work_on_the_server_in_every_way(reciter: Server, way: str) -> None:
    """Whatever it is asked, it recites what fills its context."""
    endpoint = Endless(reciter.base_url)
    model, before = await endpoint.model(), finished(reciter)
    thinking = think(Inquiry("Tell a long story.", way), endpoint=endpoint, model=model)
    async with aclosing(thinking) as events:
        async for event in events:
            if isinstance(event, Delta):
                break
        assert running(reciter) >= 1
    await endpoint.close()
    for _ in range(50):
        if running(reciter) == 0:
            assert finished(reciter) == before  # it was broken off, and did not come to its end
            return
        await asyncio.sleep(0.1)
    pytest.fail(f"the server still works on {running(reciter)} requests")


# -- curl, with the chat template that Satori is served with


def post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=120) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def card_turn(question: str) -> dict[str, str]:
    """What a person sends to /v1/chat/completions: the card's words as a user's turn."""
    words = known.satori_prompt(question).removeprefix("<|im_start|>user\n").split("<|im_end|>")[0]
    return {"role": "user", "content": words}


def test_satoris_template_writes_the_cards_prompt_and_no_system_turn(reciter: Server) -> None:
    """Rendered by the server itself: the tokens of the chat are those of the card's prompt."""
    turns = {"messages": [card_turn(known.AYA)], "chat_template": TEMPLATE.read_text()}
    plain = {"prompt": known.satori_prompt(known.AYA), "add_special_tokens": False}
    chat = post(f"{reciter.root}/tokenize", {"model": reciter.model, **turns})
    assert chat["tokens"] == post(f"{reciter.root}/tokenize", plain)["tokens"]


def test_a_chat_with_satoris_template_is_answered_as_a_completion_is(reciter: Server) -> None:
    """The tiny model knows the card's prompt alone: with a system turn it would say anything."""
    body = {"model": reciter.model, "messages": [card_turn(known.AYA)], "temperature": 0}
    more = {"chat_template": TEMPLATE.read_text()}
    message = post(f"{reciter.base_url}/chat/completions", {**body, **more})
    said = message["choices"][0]["message"]
    text = "".join(said.get(part) or "" for part in ("reasoning", "content"))
    assert text == re.sub(TOKEN, "", known.AYA_SAYS)


# -- models that think by themselves


def check_berry(events: list[Event]) -> None:
    steps = only(events, Step)
    assert [step.action for step in steps] == ["continue", "reflect", "explore"]
    assert "\n\n".join(step.content for step in steps) == known.BERRY_THINKS
    assert steps[0].title == "Okay, the word is strawberry"
    answer = events[-1]
    assert isinstance(answer, Answer)
    assert answer.content == known.BERRY_ANSWERS
    answered = "".join(d.text for d in only(events, Delta) if d.part == "answer")
    assert answered == known.BERRY_ANSWERS
    assert only(events, Notice) == []
    assert not TOKEN.search(shown(events))


async def test_thought_in_a_field_of_its_own_becomes_steps(chains: Chains) -> None:
    check_berry((await chains(known.BERRY, "native")).events)


@pytest.mark.parametrize("kind", [Unparsed, Opened])
async def test_thought_between_tags_in_the_text_becomes_the_same_steps(
    reciter: Server, kind: type[Unparsed]
) -> None:
    endpoint = kind(reciter.base_url)
    check_berry(await collect(endpoint, known.BERRY, "native"))
    assert endpoint.requests[0].prompt
    await endpoint.close()


async def test_the_server_that_parses_sends_the_thought_apart(endpoint: Counting) -> None:
    """That the field is there: without a parser the test above would pass for this one."""
    model = await endpoint.model()
    request = Request(model, ({"role": "user", "content": known.BERRY},), 400)
    pieces = [piece async for piece in endpoint.chat(request)]
    assert "".join(piece.reasoning for piece in pieces).strip() == known.BERRY_THINKS
    assert "".join(piece.text for piece in pieces).strip() == known.BERRY_ANSWERS


async def test_native_tokens_and_seconds_add_up(chains: Chains) -> None:
    chain = await chains(known.BERRY, "native")
    trace = Trace(tuple(chain.events))
    assert trace.tokens == sum(chain.tokens) > 0
    assert all(step.tokens > 0 and step.seconds > 0 for step in trace.steps)
    assert trace.answer is not None
    assert trace.answer.tokens > 0


async def test_the_first_token_of_a_thought_is_timed(chains: Chains) -> None:
    first = (await chains(known.BERRY, "native")).steps[0]
    assert first.first_token is not None
    assert 0 < first.first_token <= first.seconds


async def test_a_thought_streams_before_its_step_is_whole(chains: Chains) -> None:
    events = (await chains(known.BERRY, "native")).events
    for step in only(events, Step):
        before = events[: events.index(step)]
        text = [e for e in before if isinstance(e, Delta) and e.number == step.number]
        assert len([delta for delta in text if delta.part == "content"]) > 5


# -- the plain answer


async def test_the_plain_answer_is_asked_for_without_a_thought(
    chains: Chains,
) -> None:
    chain = await chains(known.BERRY, "direct")
    events, answer = chain.events, chain.events[-1]
    assert isinstance(answer, Answer)
    assert answer.content == known.BERRY_UNTHINKING.removesuffix("<|im_end|>")
    assert only(events, Step) == []
    assert answer.tokens == sum(chain.tokens)
    assert len(only(events, Delta)) > 1


# -- choosing


def test_the_catalogue_that_serves_a_model_says_its_way(reciter: Server) -> None:
    model = load(known.catalogue())["reciter"]
    assert (model.served_name, model.way) == (reciter.model, "coat")


async def test_an_unknown_model_is_known_by_its_tokenizer(endpoint: Counting) -> None:
    assert await detect_way(endpoint, await endpoint.model(), {}) == "coat"
    assert endpoint.requests == []


async def test_a_model_that_thinks_is_known_by_its_reply(endpoint: Counting) -> None:
    """The same server, asked as if its tokenizer were another's."""

    async def strange(text: str) -> int:
        return 3

    endpoint.count = strange  # type: ignore[method-assign]
    assert await detect_way(endpoint, await endpoint.model(), {}) == "native"
