"""What a chain is asked: one value, from whoever asks to the event of its beginning."""

from dataclasses import replace

from history.request import RunRequest
from reasoning.events import Settings, Steer, Step, Turn
from reasoning.inquiry import Inquiry
from tests.scripted import Scripted, run

WHOLE = Inquiry(
    "Why?",
    "coat",
    Settings(max_steps=4, seed=3),
    "zh",
    (Step(1, "T", "C", "continue", 1.0, 9),),
    (Turn("Who?", "I.", "Because."),),
    Steer("again", "C2"),
    {"satori": "Think: $question"},
    "Be brief.",
)


def test_what_was_asked_is_told_by_the_event_of_its_beginning() -> None:
    assert Inquiry.of(WHOLE.started("model", at=1.0), WHOLE.steps) == WHOLE
    assert RunRequest.of(WHOLE.started("model", at=1.0)).most == 1


async def test_an_inquiry_that_names_neither_way_nor_language_gets_both() -> None:
    started, *_ = await run(Scripted("The answer."), "为什么？")
    assert (started.way, started.language) == ("json_steps", "zh")


def test_only_the_step_after_the_finished_ones_is_steered() -> None:
    assert [WHOLE.asked_of(number) for number in (1, 2, 3)] == [None, "again", None]
    assert [WHOLE.instead_of(number) for number in (1, 2, 3)] == [(), ("C2",), ()]
    assert replace(WHOLE, steer=Steer("doubt")).instead_of(2) == ()


def test_a_step_in_the_place_of_another_has_a_seed_of_its_own() -> None:
    assert WHOLE.seed(number=1) == 3
    assert WHOLE.seed(number=2) != replace(WHOLE, steer=Steer("again", "else")).seed(number=2)
