"""What the lines of a reply begin, and how it is cut at them into steps and the answer."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reasoning.conclusions import find_answer, strip_heading
from reasoning.headings import may_be_heading, parse_answer_heading, parse_heading
from reasoning.outline import OutlineSplitter
from reasoning.splitting import Conclusion, Cut, Opening

# -- headings

HEADINGS = [
    ("### Add them", "Add them"),
    ("# Add them #", "Add them"),
    ("###### **Add them**:", "Add them"),
    ("**Add them**", "Add them"),
    ("**Add them:**", "Add them"),
    ("2. **Add them**", "Add them"),
    ("Step 2: Add them", "Add them"),
    ("**Step 2: Add them**", "Add them"),
    ("### Step 2: Add them", "Add them"),
    ("步骤 2：Add them", "Add them"),
    ("第二步：Add them", "Add them"),
    ("第 2 步：Add them", "Add them"),
    ("### Step 2", ""),
    ("### ...", ""),
    ("###", ""),
    ("###Add them", None),
    ("Add them", None),
    ("2. Add them", None),
    ("**Add** them", None),
    ("Step by step we add", None),
    (f"**{'x' * 200}**", None),
]


@pytest.mark.parametrize(("line", "words"), HEADINGS)
def test_a_heading_is_told_from_any_other_line(line: str, words: str | None) -> None:
    assert parse_heading(line) == words


FRAGMENTS = st.sampled_from(
    ["\n", "\n\n", "### ", "#", "**", "*", "Step 2: ", "Step", "第2步：", "步骤", "Answer", ":",
     "答案", "```\n", "`", "1. ", "word ", "x" * 130, " ", "7", "### Answer\n", "**Answer: 7**\n",
     "### T\n\n", "\\boxed{7}", "\r\n", "\u2028", "1. Add:\n   7\n", "2. Add.\n", "   ", "2、",
     "\n\nFirst, ", "\nTherefore, ", "So", "Wait", "\\[", "\n\\]\n", "$$\n", "Answer: 7", "因此"]
)  # fmt: skip
TEXTS = st.lists(FRAGMENTS | st.text(max_size=3)).map("".join)


@given(TEXTS)
def test_whatever_begins_a_heading_may_become_one(text: str) -> None:
    line = text.lstrip().split("\n")[0].rstrip("\r")
    if parse_heading(line) is not None:
        assert all(may_be_heading(line[:end]) for end in range(len(line) + 1))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ("Answer", ""), ("The final answer", ""), ("Final Answer: 7", "7"), ("答案", ""),
        ("最终答案：7", "7"), ("Give the answer", ""), ("Conclusion", ""),
        ("Answer the question.", ""), ("Answer to the question: 7", "7"),
        ("Answer the first part", None), ("Add them", None), ("", None),
    ],
)  # fmt: skip
def test_a_heading_that_announces_the_answer_is_known(words: str, told: str | None) -> None:
    assert parse_answer_heading(words) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("So 7.\n\nAnswer: 7", "7"),
        ("So 7.\n**Answer:** 7 apples.\nAll of them.", "7 apples.\nAll of them."),
        ("**Final answer:** 7", "7"),
        ("所以是 7。\n答案：7", "7"),
        ("First.\n\nSo it is $\\boxed{7}$ apples.", "So it is $\\boxed{7}$ apples."),
        ("$\\boxed{3}$\n\n$\\boxed{7}$", "$\\boxed{7}$"),
        ("So it is 7.", ""),
    ],
)
def test_an_answer_is_read_from_its_line_or_its_box(text: str, told: str) -> None:
    assert find_answer(text) == told


@given(TEXTS)
def test_a_draft_of_an_answer_begins_the_answer(text: str) -> None:
    whole = strip_heading(text, True)
    drafts = [strip_heading(text[:end], False).lstrip() for end in range(len(text) + 1)]
    assert all(whole.lstrip().startswith(draft) for draft in drafts)


# -- cuts


def cuts(texts: list[str]) -> list[Cut | Conclusion]:
    """What a splitter makes of the texts, with what follows itself made one."""
    splitter, found = OutlineSplitter(), []
    for cut in [cut for text in texts for cut in splitter.feed(text)] + splitter.end():
        if isinstance(cut, str) and found and isinstance(found[-1], str):
            found[-1] += cut
        else:
            found.append(cut)
    return found


@given(TEXTS | st.text(), st.data())
def test_a_text_is_cut_the_same_however_it_comes(text: str, data: st.DataObject) -> None:
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    parts = [text[one:other] for one, other in pairwise([0, *at, len(text)])]
    assert cuts(parts) == cuts([text]) == cuts(list(text))


@given(TEXTS | st.text())
def test_the_steps_and_the_answer_are_the_text_to_the_letter(text: str) -> None:
    """But for headings that nothing follows."""
    found = cuts([text])
    said = "".join(cut if isinstance(cut, str) else cut.raw for cut in found)
    assert text.startswith(said)
    left = text[len(said) :].split("\n")
    assert all(parse_heading(line.strip()) is not None or not line.strip() for line in left)


def test_each_heading_begins_a_step_and_an_answers_the_answer() -> None:
    apples = (
        "### Count the apples\n\nAnn has 3 apples and Bob has 4.\n\n"
        "### Add them\n\nTogether they have $3 + 4 = 7$ apples.\n\n"
        "### Check\n\nTaking 4 from 7 leaves 3, as Ann has.\n\n"
        "### Answer\n\nThey have **7** apples."
    )
    found = cuts([apples])
    assert [cut.title for cut in found if isinstance(cut, Opening)] == [
        "Count the apples", "Add them", "Check",
    ]  # fmt: skip
    assert found[-2:] == [Conclusion("", "### Answer\n\n"[:-1]), "\nThey have **7** apples."]


def test_a_chapter_with_nothing_under_it_gives_way_to_the_next_heading() -> None:
    found = cuts(["Sure:\n\n## Solution\n\n### Add\n\nSeven.\n"])
    assert found == [Opening("continue", "Add", "Sure:\n\n## Solution\n\n### Add\n\n"), "Seven.\n"]


def test_steps_of_one_line_are_their_own_content() -> None:
    found = cuts(["Step 1: 3 + 4 is 7.\nStep 2: 7 + 1 is 8.\nAnswer: 8"])
    assert found == [
        Opening("continue", "3 + 4 is 7."),
        "Step 1: 3 + 4 is 7.\n",
        Opening("continue", "7 + 1 is 8."),
        "Step 2: 7 + 1 is 8.\n",
        Conclusion("", "Answer: "),
        "8",
    ]


def test_a_comment_in_code_is_no_heading() -> None:
    found = cuts(["### Run it\n\n```python\n# add\n\nx = 3 + 4\n```\n\n### Read it\n\n7"])
    assert [cut.title for cut in found if isinstance(cut, Opening)] == ["Run it", "Read it"]


def test_a_short_text_without_a_heading_is_the_answer_and_a_long_one_a_step() -> None:
    assert cuts(["It is 7."]) == [Conclusion(), "It is 7."]
    assert cuts(["word " * 60]) == [Opening("continue"), "word " * 60]


# -- the structures that models give a reply


def outline(text: str) -> list[tuple[str, str]]:
    """Each step's title, "" for none, and its text; the answer's is "=". Spaces around go."""
    parts: list[list[str]] = []
    for cut in cuts([text]):
        if isinstance(cut, str):
            parts[-1][1] += cut
        else:
            parts.append([cut.title if isinstance(cut, Opening) else "=", ""])
    return [(title, said.strip()) for title, said in parts]


SUM = """Let's solve this step by step:

1. First, we'll add 773 and 641:
   773 + 641 = 1414

2. **Subtract 782**
   1414 - 782 = 632

Therefore, the final answer is:
Answer: 632"""
TOYS = """To find how many toys they have, we need to follow these steps:

1. Identify the number of toys the kid has.
2. Subtract 5.

Step 1: The kid has 9 toys.

Step 2: The friend has 5 fewer:
\\[ 9 - 5 = 4 \\]

The total is \\(\\boxed{13}\\)."""
LEGS = """We need the number of legs of each animal.

First, calculate those of the deer:
\\[
3 \\times 4 = 12
\\]

Next, those of the crabs:
$$
2 \\times 10 = 20
$$

So the total is 32.

Wait, a crab has 10 legs, and that is what I took.

Thus, the total is:

32 legs."""


def test_items_with_something_under_them_are_steps_and_what_concludes_the_answer() -> None:
    assert outline(SUM) == [
        ("First, we'll add 773 and 641", "773 + 641 = 1414"),
        ("Subtract 782", "1414 - 782 = 632"),
        ("=", "632"),
    ]


def test_a_list_with_nothing_under_its_items_is_one_step() -> None:
    (plan, first, second) = outline(TOYS)
    assert plan[0] == ""
    assert plan[1].startswith("To find how many toys they have, we need to follow these steps:")
    assert plan[1].endswith("2. Subtract 5.")
    assert first == ("The kid has 9 toys.", "Step 1: The kid has 9 toys.")
    assert second[0] == "The friend has 5 fewer"


def test_paragraphs_that_begin_go_on_and_turn_are_steps() -> None:
    first, second, third, answer = outline(LEGS)
    assert first[1].startswith("First, calculate")
    assert second[1].endswith("So the total is 32.")  # more came after it
    assert third[1].startswith("Wait, a crab")
    assert answer == ("=", "Thus, the total is:\n\n32 legs.")


def test_a_list_under_a_heading_is_part_of_its_step() -> None:
    text = (
        "### Look\n\nAt it.\n\n"
        "### Count\n\n1. One.\n2. Two.\n\nNow, that is all.\n\n### Answer\n\n2"
    )
    assert outline(text) == [
        ("Look", "At it."), ("Count", "1. One.\n2. Two.\n\nNow, that is all."), ("=", "2"),
    ]  # fmt: skip
    found = cuts(["Sure:\n\n## Steps\n\n1. One.\n2. Two.\n"])
    assert found == [Opening("continue", "Steps", "Sure:\n\n## Steps\n\n"), "1. One.\n2. Two.\n"]


def test_a_heading_over_all_steps_is_none() -> None:
    text = "### Solution\n\n1. Add:\n   3 + 4\n2. Halve:\n   7 / 2\n\nHence 3.5"
    assert outline(text) == [("Add", "3 + 4"), ("Halve", "7 / 2"), ("=", "Hence 3.5")]


def test_an_item_that_says_more_than_a_title_begins_its_step() -> None:
    long = f"1. Add {'all of them ' * 12}up.\n\n2. Halve {'it ' * 30}:\n   3.5\n"
    assert [title for title, _ in outline(long)] == ["", ""]


def test_an_item_that_thinks_is_a_step_also_with_nothing_under_it() -> None:
    text = "1. There were 17 sheep.\n2. All but 9 ran. So 9 stayed.\n3. 9 = 9\n\nAnswer: 9"
    assert outline(text) == [
        ("", "1. There were 17 sheep."), ("", "2. All but 9 ran. So 9 stayed."), ("", "3. 9 = 9"),
        ("=", "9"),
    ]  # fmt: skip


def test_bold_words_at_the_beginning_of_an_item_name_its_step() -> None:
    text = "1. **Solve it**: 7 = 7 and all of that.\n2. **Read it:** It is so. It is 7.\n"
    assert [title for title, _ in outline(text)] == ["Solve it", "Read it"]


def test_nothing_is_cut_inside_code_or_a_formula() -> None:
    text = "Step 1: Run it\n```\n1. a\nTherefore b\nAnswer: c\n```\n\\[\n2. d\n\\]\nSo 7."
    assert outline(text) == [("Run it", text[len("Step 1: Run it\n") : -len("So 7.")].strip()),
                             ("=", "So 7.")]  # fmt: skip


def test_a_long_thought_without_structure_is_cut_at_a_paragraph() -> None:
    thought = "All of this is said at some length. " * 12
    assert outline(f"{thought}\n\n{thought}\n\nAnswer: 7") == [
        ("", thought.strip()), ("", thought.strip()), ("=", "7"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("首先，计算 3 + 4 = 7。\n\n因此，答案是 7。", "因此，答案是 7。"),
        ("1、相加：\n   3 + 4 = 7\n\n答案：7", "7"),
        ("Ann has 3.\n\nThe answer is 7.", "The answer is 7."),
        ("1. Add:\n   7\n\n**Answer:** 7", "7"),
        ("1. Add:\n   7\n\nAnswer: 7\n\nTherefore 7.", "7\n\nTherefore 7."),
    ],
)
def test_an_answer_is_told_in_many_words(text: str, told: str) -> None:
    *steps, answer = outline(text)
    assert steps
    assert answer == ("=", told)
