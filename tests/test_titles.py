"""A step's title names it, whatever the model wrote, and what is shown of it only grows."""

from __future__ import annotations

import json
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.events import Delta, Event, Settings, Step
from reasoning.parsing import Draft, Reply, parse_reply, read_partial
from reasoning.titles import is_title, make_title
from tests.scripted import Scripted, pieces, run

NONE = [
    *("", " ", ",", "...", "**", "##", "——", "🙂"),
    *("Step 3", "step 3:", "**Step 3**", "STEP THREE", "Step 3.1", "Step 3 of 25", "Step 3/25"),
    *("The first step", "First step:", "the final step", "**Next step**"),
    *("3", "3.", "#3", "步骤 3", "步骤三：", "第 3 步", "第三步", "三、"),
]
TITLES = [
    *("Halve it", "Step 3: halve it", "Steps", "3 + 4", "3 apples", "x = 3", "One way", "Check"),
    *("第3步：减半", "步骤", "三角形的面积", "第一个数", "求和"),
]


@pytest.mark.parametrize("text", NONE)
def test_a_number_alone_is_no_title(text: str) -> None:
    assert not is_title(text)


@pytest.mark.parametrize("text", TITLES)
def test_words_are_a_title(text: str) -> None:
    assert is_title(text)


@pytest.mark.parametrize("text", ["Halve it", "halve it!", "**Halve  it**"])
def test_what_the_last_step_was_called_is_no_title(text: str) -> None:
    assert not is_title(text, "Halve it")
    assert is_title(text + " again", "Halve it")
    assert is_title("3 - 4", "3 + 4")


@pytest.mark.parametrize(
    ("title", "content", "told"),
    [
        ("Halve it", "Half of 8 is 4.", "Halve it"),
        (",", "Half of 8 is 4. Then we add.", "Half of 8 is 4"),
        ("Step 3", "Step 3. Half of 8 is 4.", "Half of 8 is 4"),
        ("Step 3: Halve it", "Half of 8 is 4.", "Halve it"),
        ("First step: Halve it", "Half of 8 is 4.", "Halve it"),
        ("The first step", "Half of 8 is 4.", "Half of 8 is 4"),
        ("After step 3: halve it", "Half of 8 is 4.", "After step 3: halve it"),
        ("第 3 步：减半", "8 的一半是 4。", "减半"),
        ("Step 3: Count", "Half of 8 is 4.", "Half of 8 is 4"),  # as the last step
        ("Count", "Count\n\nThere are 3.", "There are 3"),
        ("步骤3", "8 的一半是 4。再加 1。", "8 的一半是 4"),
        ("", "$$ x = 3 $$", ""),
        ("", "Step 1.\nStep 2.\nStep 3.\nThe sum is 6.", ""),
    ],
)
def test_in_the_place_of_no_title_stand_the_contents_first_words(
    title: str, content: str, told: str
) -> None:
    assert make_title(Draft(title, content), "Count", whole=True) == told


# -- while it is written

TEXT = st.sampled_from([*NONE, *TITLES]) | st.text("Step 3of,.第步三", max_size=16)
CONTENT = st.lists(
    st.sampled_from(["Half of 8", " is 4", ". ", "Step 3", "\n", "$x$ ", "三", "。", "**"]),
    min_size=1, max_size=12,
).map("".join)  # fmt: skip


def shown(drafts: list[Draft], last: str) -> list[str]:
    return [make_title(draft, last, whole=False) for draft in drafts]


def assert_grows(titles: list[str], final: str) -> None:
    """Each begins the next, and the title in the end."""
    for earlier, later in zip(titles, [*titles[1:], final], strict=True):
        assert later.startswith(earlier), (titles, final)


@given(TEXT, CONTENT, TEXT)
def test_a_title_in_json_only_grows(title: str, content: str, last: str) -> None:
    text = json.dumps({"title": title, "content": content, "next_action": "continue"})
    drafts = [read_partial(text[:end]) for end in range(len(text))]
    reply = parse_reply(text)
    if isinstance(reply, Reply):
        final = make_title(Draft(reply.title, reply.content), last, whole=True)
        assert_grows(shown(drafts, last), final)
        assert not final or is_title(final, last)


@given(st.sampled_from(NONE) | TEXT, TEXT)
def test_nothing_is_shown_of_a_title_that_turns_out_to_be_none(title: str, last: str) -> None:
    if not is_title(title, last):
        assert not any(shown([Draft(title[:end]) for end in range(len(title) + 1)], last))


def test_a_title_is_shown_as_soon_as_it_must_be_one() -> None:
    halves = [Draft(part) for part in ("H", "Hal", "Halve")]
    assert shown(halves, "Half of 8") == ["", "", "Halve"]
    assert shown(halves, "Count") == ["H", "Hal", "Halve"]
    numbered = [Draft(part) for part in ("St", "Step 3", "Step 3: H")]
    assert shown(numbered, "") == ["", "", "H"]


def test_a_formula_that_is_open_is_waited_for() -> None:
    content = "$$ x = 1\n\\text{Then so. } y = 2 $$ Half of it. More."
    drafts = [Draft(",", content[:end], titled=True) for end in range(len(content))]
    assert (
        {*shown(drafts, "")} == {"", make_title(drafts[-1], "", whole=True)} == {"", "Half of it"}
    )


# -- in a chain


def told(events: list[Event], number: int) -> tuple[str, str]:
    """What was shown of a step's title, and what it is in the end."""
    of_step = [event for event in events if isinstance(event, Delta) and event.number == number]
    (title,) = (e.title for e in events if isinstance(e, Step) and e.number == number)
    return "".join(event.text for event in of_step if event.part == "title"), title


def in_json(title: str, content: str, action: str) -> str:
    return json.dumps({"title": title, "content": content, "next_action": action})


@pytest.mark.parametrize("title", [",", "", "Step 2", "Halve it", "步骤 2"])
async def test_a_chain_shows_no_title_that_is_none(title: str) -> None:
    server = Scripted(
        in_json("Halve it", "We halve 8.", "continue"),
        in_json(title, "Half of 8 is 4. So it is even.", "continue"),
        in_json("Conclude", "It is 4.", "final_answer"),
        "4",
    )
    events = await run(server)
    assert told(events, 1) == ("Halve it", "Halve it")
    assert told(events, 2) == ("Half of 8 is 4", "Half of 8 is 4")


async def test_a_step_without_any_words_is_called_by_its_number() -> None:
    numbers = count(1)
    formula = Scripted(lambda request: in_json(",", f"$$ x = {next(numbers)} $$", "final_answer"))
    events = await run(formula, settings=Settings(min_steps=2))
    assert [told(events, number) for number in (1, 2)] == [("", "Step 1"), ("", "Step 2")]


async def test_a_cut_step_has_a_title_too() -> None:
    cut = '{"title": ",", "content": "Half of 8 is 4. So it'
    events = await run(Scripted(pieces(cut, "length")))
    (step,) = (event for event in events if isinstance(event, Step))
    assert (step.title, step.cut) == ("Half of 8 is 4", True)
