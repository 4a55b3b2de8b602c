"""What the reciter says in steps: in JSON, and in one voice.

What it is asked are the requests that the ways themselves make: each chain is thought once on
a script. So a prompt that changes, or the form of a chain, changes what the reciter learns.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from reasoning.budget import SHORT_STEP
from reasoning.endpoint import Request, ServedModel
from reasoning.events import Settings, Steer, Step, Turn
from reasoning.inquiry import AnswerForm, edit_step
from reasoning.json_steps import step_json as in_json
from reasoning.parsing import Reply
from tests.scripted import Scripted, run

SUM = "What is 2+2?"
SUM_STEPS = (
    ("Read it", "Two numbers are to be added: 2 and 2."),
    ("Add them", "$2 + 2 = 4$"),
    ("Take one away again", "$4 - 2 = 2$ holds."),
    ("Look back", "No other number is asked for."),
)
SUM_ANSWER = "The sum is **4**."
SUM_SAYS = (  # in one voice
    "1. Read it:\n   Two numbers are to be added: 2 and 2.\n\n"
    "2. Add them:\n   $2 + 2 = 4$\n\nTherefore, the sum is **4**."
)
APPLES = "Tom has 12 apples, eats 3 and buys 5 more. How many apples does he have?"
APPLES_STEPS = (
    ("Eat", "$12 - 3 = 9$ apples are left."),
    ("Buy", "With 5 more Tom has $9 + 5 = 14$."),
)
APPLES_EDIT = ("Eaten", "12 apples minus 3 apples are 9 apples.")
APPLES_AGAIN = ("Count on", "From 9 on: 10, 11, 12, 13, 14.")
APPLES_DOUBT = ("By another way", "He gains $5 - 3 = 2$ in all, and $12 + 2 = 14$.")
APPLES_ANSWER = "Tom has **14** apples."
MORE = "And if he eats 4 more?"
MORE_STEPS = (
    ("Take away", "$14 - 4 = 10$ apples are left."),
    ("Look back", "$10 + 4 = 14$ holds."),
)
MORE_ANSWER = "Tom has **10** apples."
FOURTEEN = "Tom has 14 apples."
SUM_SCHEMA = {
    "type": "object",
    "properties": {"sum": {"type": "integer"}, "even": {"type": "boolean"}},
    "required": ["sum", "even"],
    "additionalProperties": False,
}
SUM_OBJECT = '{"sum":4,"even":true}'

Pairs = Sequence[tuple[str, str]]  # titles and contents of steps
NO_STEP = Settings(budget=SHORT_STEP)
BRIEFLY: Any = {"instructions": "Be brief."}
VLLM = ServedModel("Reciter", 8192, vllm=True)


def asked() -> list[tuple[Request, str]]:
    """Requests and the replies to them; where two are alike, the first counts.

    So a chain that a grammar ends early says of its last step what the longest one says of it.
    """
    by_form: dict[str, Any] = {"answer_form": by_schema()}
    return [
        *chain(SUM, SUM_STEPS, SUM_ANSWER),
        *thought(SUM, [SUM_SAYS], way="cot"),
        *chain(APPLES, APPLES_STEPS, APPLES_ANSWER),
        *steered(Steer("edit"), APPLES_STEPS[1:]),
        *steered(Steer("again", APPLES_STEPS[1][1]), [APPLES_STEPS[1], APPLES_AGAIN]),
        *steered(Steer("doubt"), [APPLES_DOUBT]),
        *chain(MORE, MORE_STEPS, MORE_ANSWER, history=(Turn(APPLES, FOURTEEN),)),
        # chains that end early: by the grammar, and for want of tokens
        *chain(SUM, SUM_STEPS[:2], SUM_ANSWER),
        *chain(SUM, SUM_STEPS[:1], SUM_ANSWER),
        *chain(APPLES, APPLES_STEPS[:1], APPLES_ANSWER),
        *broken_off(2, SUM_ANSWER),
        *broken_off(1, SUM_ANSWER),
        *thought(SUM, [SUM_ANSWER], way="json_steps", settings=NO_STEP),
        *thought(APPLES, [APPLES_ANSWER], way="json_steps", settings=NO_STEP),
        # answers by a schema
        *chain(question=SUM, steps=SUM_STEPS[:1], answer=SUM_OBJECT, **by_form),
        *chain(question=SUM, steps=SUM_STEPS[:1], answer=SUM_OBJECT, **by_form, **BRIEFLY),
        *broken_off(2, SUM_OBJECT, answer_form=by_schema()),
        *thought(SUM, [SUM_OBJECT], way="direct", answer_form=by_schema(), **BRIEFLY),
    ]


def by_schema() -> AnswerForm:
    return AnswerForm(format="json_schema", schema=SUM_SCHEMA)


def said(steps: Pairs) -> list[str]:
    """The replies: all but the last step want another."""
    last = len(steps) - 1
    actions = ["final_answer" if at == last else "continue" for at in range(len(steps))]
    return [
        in_json(Reply(title, content, action))  # type: ignore[arg-type]
        for (title, content), action in zip(steps, actions, strict=True)
    ]


def chain(question: str, steps: Pairs, answer: str, **more: Any) -> list[tuple[Request, str]]:
    number = len(steps)
    bounds = Settings(min_steps=number, max_steps=number)
    return thought(question, [*said(steps), answer], way="json_steps", settings=bounds, **more)


def broken_off(number: int, answer: str, **more: Any) -> list[tuple[Request, str]]:
    """The last step that there is room for wants another."""
    bounds = Settings(min_steps=number, max_steps=number)
    replies = [*said(SUM_STEPS)[:number], answer]
    return thought(SUM, replies, way="json_steps", settings=bounds, **more)


def steered(steer: Steer, steps: Pairs) -> list[tuple[Request, str]]:
    """The second step is asked for in another way; what is taken is the last of these."""
    (title, content), first = APPLES_STEPS[0], said(APPLES_STEPS)[0]
    kept = Step(1, title, content, "continue", 1.0, 20, raw=first)
    if steer.how == "edit":
        kept = edit_step(kept, *APPLES_EDIT)
    replies = [said([one])[0] for one in steps]
    more = {"settings": Settings(min_steps=2, max_steps=2), "steps": [kept], "steer": steer}
    return thought(APPLES, [*replies, APPLES_ANSWER], way="json_steps", **more)


def thought(question: str, replies: list[str], **more: Any) -> list[tuple[Request, str]]:
    server = Scripted(*replies)
    with ThreadPoolExecutor(1) as apart:  # a test's own thread may have a loop that runs
        apart.submit(lambda: asyncio.run(run(server, question, model=VLLM, **more))).result()
    return list(zip(server.requests, replies, strict=True))
