"""How a run is drawn: what is sent and when, by a place that remembers all that it was told."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streamlit.elements.lib.mutable_status_container import StatusContainer

from page import run_view
from page.i18n import Words
from page.run_view import RunView, replay
from page.wording import total_line
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Event,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Step,
    Stopped,
    Trace,
)

WORDS = Words("en")
JSON = Started("q", "little-one", "json_steps", "en", 0.0, Settings(max_steps=9))
COAT = Started("q", "Satori", "coat", "en", 0.0)


@dataclass
class Sent:
    """Something that was sent to the page: what, its first argument, and how."""

    kind: str
    text: str
    how: dict[str, Any] = field(default_factory=dict)


class Place(StatusContainer):
    """A place on the page, and all places in it: it writes down what it is told to draw."""

    def __init__(self, sent: list[Sent], open: bool = False) -> None:
        self.sent, self.open = sent, open

    def _told(self, kind: str, text: str = "", **how: Any) -> Place:
        self.sent.append(Sent(kind, text, how))
        return Place(self.sent, how.get("expanded", False))

    def __getattribute__(self, name: str) -> Any:
        if name in ("sent", "open", "_told") or name.startswith("__"):
            return object.__getattribute__(self, name)
        if name == "update":
            return lambda **how: self._told("update", how["label"], **how)
        return lambda *given, **how: self._told(name, *given, **how)


@pytest.fixture(autouse=True)
def _no_component(monkeypatch: pytest.MonkeyPatch) -> None:
    def copy(place: Any, text: str, label: str, key: str, done: str) -> None:
        place._told("copy", text, key=key, label=label)

    monkeypatch.setattr(run_view, "copy_button", copy)


class Stage:
    """A view, and what it sent."""

    def __init__(self, **options: Any) -> None:
        self.sent: list[Sent] = []
        self.view = RunView(Place(self.sent), WORDS, **options)

    def play(self, *events: Event) -> list[Sent]:
        """What was sent for these events, painted once."""
        begin = len(self.sent)
        for event in events:
            self.view.add(event)
        self.view.render()
        return self.sent[begin:]

    def replay(self, *events: Event, answer: bool = True) -> list[Sent]:
        replay(self.view, Trace(events), answer)
        self.view.render_ending(Trace(events))
        return self.sent

    def all(self, kind: str) -> list[Sent]:
        return [sent for sent in self.sent if sent.kind == kind]

    def steps(self) -> list[Sent]:
        return [sent for sent in self.all("expander") if sent.how["type"] == "step"]

    def open(self) -> list[bool]:
        return [step.how["expanded"] for step in self.steps()]


def step(number: int, content: str = "", **given: Any) -> Step:
    values: dict[str, Any] = {"action": "continue", "seconds": 1.5, "tokens": 30} | given
    return Step(number, f"Title {number}", content or f"Content {number}.", **values)


def whole(count: int = 3) -> list[Event]:
    return [JSON, *(step(number) for number in range(1, count + 1))]


ANSWER = Answer("It is **4**.", 1.0, 10)


# -- folding


def test_the_step_being_written_is_open_and_folds_when_it_is_done() -> None:
    stage = Stage()
    stage.play(JSON, Delta(1, "title", "Title 1"), Delta(1, "content", "Con"))
    assert [sent.how["expanded"] for sent in stage.all("status")] == [True]
    stage.play(step(1))
    assert stage.open() == [False]


@pytest.mark.parametrize(("folding", "open"), [("all", True), ("folded", False)])
def test_all_steps_are_open_or_folded_where_that_is_chosen(folding: str, open: bool) -> None:
    live = Stage(folding=folding)
    live.play(JSON, Delta(1, "title", "Title 1"))
    live.play(step(1))
    assert live.all("status")[0].how["expanded"] is open
    assert live.open() == [open]
    again = Stage(folding=folding)
    again.replay(*whole(), ANSWER)
    assert again.open() == [open] * 3


def test_an_answered_run_is_folded_when_it_is_drawn_again() -> None:
    stage = Stage()
    stage.replay(*whole(), ANSWER)
    assert stage.open() == [False, False, False]


@pytest.mark.parametrize("end", [Stopped(), Failed("busy", "Busy.", "Wait.")])
def test_without_an_answer_the_last_step_stays_open(end: Event) -> None:
    stage = Stage()
    stage.replay(*whole(), end)
    assert stage.open() == [False, False, True]


def test_without_an_answer_the_unfinished_step_stays_open_and_says_so() -> None:
    stage = Stage()
    stage.replay(*whole(2), Delta(3, "title", "Half"), Delta(3, "content", "a ste"), Stopped())
    assert stage.open() == [False, False, True]
    assert "unfinished" in stage.steps()[-1].text
    assert not stage.all("status")


def test_a_label_is_sent_while_the_title_grows_and_once_when_the_step_is_done() -> None:
    stage = Stage()
    stage.play(JSON, Delta(1, "title", "Ti"))
    stage.play(Delta(1, "title", "tle 1"))
    for _ in range(5):
        stage.play(Delta(1, "content", "more "))
    stage.play(step(1))
    stage.play(Delta(2, "title", "Title 2"))
    stage.play(step(2))
    stage.play(Delta(3, "answer", "It is"), ANSWER)
    ones = [sent.text for sent in stage.sent if sent.text.startswith("**1**")]
    assert len(ones) == 3
    assert not any("1.5 s" in text for text in ones[:2])
    assert "1.5 s · 30 tokens" in ones[2]


# -- what is finished is sent while it stands open


def test_the_text_of_a_folded_step_is_not_sent() -> None:
    stage = Stage()
    stage.replay(*whole(), ANSWER)
    assert not any("Content" in sent.text for sent in stage.sent)
    stage = Stage(folding="all")
    stage.replay(*whole(), ANSWER)
    assert sum("Content" in sent.text for sent in stage.all("markdown")) == 3


def test_what_is_sent_for_a_token_does_not_grow_with_the_steps_before() -> None:
    def sent_for_one_more(finished: int) -> list[str]:
        stage = Stage()
        stage.play(*whole(finished), Delta(finished + 1, "content", "So we"))
        return [sent.kind for sent in stage.play(Delta(finished + 1, "content", " see"))]

    assert sent_for_one_more(2) == sent_for_one_more(24) == ["markdown"]


def test_text_without_a_place_is_seen_until_it_has_one() -> None:
    stage = Stage()
    seen = stage.play(JSON, Delta(1, "tentative", "Let us "), Delta(1, "tentative", "add:"))
    assert [one.text for one in seen if one.kind == "caption"][-1] == "Let us add:"
    placed = stage.play(Delta(1, "title", "Sum"))
    assert [one.kind for one in placed][-1] == "empty"
    assert not stage.steps()[1:]


def test_text_without_a_place_stays_where_a_run_was_stopped_at_it() -> None:
    stage = Stage()
    stage.replay(JSON, Delta(1, "tentative", "So, it is"), Stopped())
    assert "So, it is" in [one.text for one in stage.all("caption")]


def test_a_rendering_without_news_sends_nothing() -> None:
    stage = Stage()
    stage.play(*whole(), Retry(4, 1, "cut", "Cut."), Notice("context", "Full."))
    assert stage.play() == []
    stage.play(ANSWER)
    assert stage.play() == []


def test_the_tools_and_the_copy_of_an_open_step_are_drawn_once_at_its_foot() -> None:
    asked: list[int] = []
    stage = Stage(tools=lambda place, step: asked.append(step.number), folding="all")
    stage.play(JSON, Delta(1, "content", "Con"))
    assert asked == []
    stage.play(step(1))
    stage.play(Correction(1, "2", "3"))
    stage.play(step(2), ANSWER)
    assert asked == [1, 2]
    assert any("Corrected: 2, then 3" in line for line in captions(stage))
    copies = [(sent.text, sent.how["key"]) for sent in stage.all("copy")]
    assert copies == [
        ("Content 1.", "copy-1"),
        ("Content 2.", "copy-2"),
        ("It is **4**.", "copy-answer"),
    ]


def test_a_folded_step_that_is_corrected_says_so_in_its_label() -> None:
    stage = Stage()
    stage.play(COAT, Delta(1, "content", "Con"))
    stage.play(step(1))
    stage.play(Correction(1, "2", "3"))
    plain, marked = stage.steps()
    assert ("![" in plain.text, "![" in marked.text) == (False, True)
    assert plain.how["key"] != marked.how["key"]  # no key twice while the script runs


def test_two_views_on_one_page_share_no_key() -> None:
    one, other = Stage(folding="all"), Stage(key="run-left", folding="all")
    for stage in (one, other):
        stage.replay(COAT, step(1), step(2, action="reflect"), ANSWER)
    keys = [{sent.how["key"] for sent in stage.sent if "key" in sent.how} for stage in (one, other)]
    assert keys[0] >= {"run", "path", "step-1-0", "copy-1"}
    assert not keys[0] & keys[1]


# -- small things


def captions(stage: Stage) -> dict[str, str]:
    """What is said and explained, but for a folded step's."""
    return {sent.text: sent.how["help"] for sent in stage.all("caption") if sent.how.get("help")}


SMALL: list[tuple[list[Event], str]] = [
    ([Retry(1, 1, "cut", "The reply was cut."), step(1)], "Attempt 1 failed"),
    ([Retry(1, 1, "repeat", "It repeats step 1."), step(1)], "Attempt 1 failed"),
    ([Retry(1, 1, "busy", "Busy.", 2.0), step(1)], "Trying again after 2.0 s"),
    ([step(1, cut=True)], "cut off before its end"),
    ([step(1, cut=True, attempts=3)], "cut short: three attempts"),
    ([step(1), Correction(1, "192", "204")], "Corrected: 192, then 204"),
    ([step(1, edited=True)], "Changed by you"),
    ([step(1, asked="doubt")], "Asked to doubt"),
    ([step(1), Notice("unreadable", "x")], "Three attempts gave nothing"),
]


@pytest.mark.parametrize(("events", "said"), SMALL)
def test_every_small_thing_is_said_and_explained(events: list[Event], said: str) -> None:
    stage = Stage(folding="all")
    stage.replay(JSON, *events, ANSWER)
    ((line, about),) = captions(stage).items()
    assert said in line
    assert len(about) > 20
    assert about not in line


@pytest.mark.parametrize(("events", "said"), SMALL[:-1])
def test_a_folded_step_shows_its_small_things_as_marks_with_a_tooltip(
    events: list[Event], said: str
) -> None:
    folded, open = Stage(), Stage(folding="all")
    for stage in (folded, open):
        stage.replay(JSON, *events, ANSWER)
    (label,) = [sent.text for sent in folded.steps()]
    (about,) = captions(open).values()
    assert label.count("![") == 1
    assert about.replace('"', "'") in label


def test_a_plain_step_has_no_mark() -> None:
    stage = Stage()
    stage.replay(*whole(1), ANSWER)
    assert "![" not in stage.steps()[0].text
    assert captions(stage) == {}


# -- answers and endings


def test_an_answer_that_repeats_a_whole_step_shows_its_result_and_names_the_step() -> None:
    stage, last = Stage(folding="all"), step(2, "So it is $$ \\boxed{204} $$")
    answer = f"$$\\boxed{{204}}$$\n\n{last.content}"
    stage.replay(COAT, step(1), last, Answer(answer, 0.0, 3))
    shown = [sent.text for sent in stage.all("markdown")]
    assert sum("boxed" in text for text in shown) == 2  # in the step, and as the answer
    assert "As step 2 says." in captions(stage)
    assert stage.all("copy")[-1].text == answer


def test_an_answer_that_only_ends_like_a_step_is_shown_whole() -> None:
    stage = Stage()
    stage.replay(JSON, step(1, "4"), Answer("It is\n\n4", 1.0, 3))
    assert captions(stage) == {}
    assert [sent.text for sent in stage.all("markdown")][-2:] == ["It is", "4"]


def test_an_interrupted_run_says_so_and_what_to_do() -> None:
    stage = Stage()
    stage.replay(*whole(2), Delta(3, "title", "Half"))
    (said,) = stage.all("warning")
    assert "Interrupted" in said.text
    assert "Go on" in said.text
    assert stage.open() == [False, False, True]
    assert not stage.all("status")


@pytest.mark.parametrize(
    ("end", "kind"),
    [(Stopped(), "info"), (Failed("busy", "Busy.", "Wait."), "error"), (ANSWER, None)],
)
def test_only_a_run_without_an_end_was_interrupted(end: Event, kind: str | None) -> None:
    stage = Stage()
    stage.replay(*whole(1), end)
    assert not stage.all("warning")
    assert kind is None or len(stage.all(kind)) == 1


def test_a_replay_without_its_answer_shows_the_steps_alone() -> None:
    stage = Stage()
    stage.replay(*whole(), Delta(4, "answer", "It is"), ANSWER, answer=False)
    assert not any("It is" in sent.text for sent in stage.sent)
    assert len(stage.steps()) == 3


def test_a_way_that_is_known_no_more_is_shown_all_the_same() -> None:
    stage = Stage()
    stage.replay(Started("q", "old", "telepathy", "en", 0.0), step(1), ANSWER)
    assert stage.view.most == 0
    assert len(stage.steps()) == 1


def test_the_name_of_an_unknown_way_is_plain_text() -> None:
    """It may come with an imported file."""
    stage = Stage()
    stage.replay(Started("q", "old", "**bold** [away](http://x)", "en", 0.0), step(1), ANSWER)
    (made,) = [sent.text for sent in stage.all("caption") if sent.text.startswith("old")]
    assert "**bold**" not in made
    assert "[away](" not in made


def test_only_ways_that_are_bound_in_steps_say_how_many_there_may_be() -> None:
    assert (Stage().view.most, Stage().view.writing) == (0, 0)
    bound, free = Stage(), Stage()
    bound.play(JSON)
    free.play(COAT)
    assert (bound.view.most, free.view.most) == (9, 0)


def test_only_ways_that_name_actions_say_that_a_step_goes_on() -> None:
    for began, named in ((COAT, True), (JSON, False)):
        stage = Stage()
        stage.replay(began, step(1), ANSWER)
        assert ("Continue" in stage.steps()[0].text) is named


# -- any order of events, painted at any moment


def steps(number: int) -> st.SearchStrategy[list[Event]]:
    """All that may happen around one step: drafts that are void, and perhaps the step."""
    parts = st.sampled_from(["title", "content"])
    deltas = st.builds(Delta, st.just(number), parts, st.text(max_size=9))
    retries = st.builds(Retry, st.just(number), st.just(1), st.just("cut"), st.text(max_size=9))
    drafts: st.SearchStrategy[list[Event]] = st.lists(st.one_of(deltas, retries), max_size=4)
    return drafts.map(lambda drawn: [*drawn, step(number)])


def runs() -> st.SearchStrategy[list[Event]]:
    """Up to three steps, of which the last may be unfinished, and how it ended."""
    ends: list[list[Event]] = [
        [Delta(9, "answer", "It is"), ANSWER],
        [Stopped()],
        [Failed("busy", "Busy.", "Wait.")],
    ]
    all = st.tuples(steps(1), steps(2), steps(3)).map(lambda parts: list(chain(*parts)))
    begun = st.tuples(all, st.integers(0, 15)).map(lambda given: given[0][: given[1]])
    return st.tuples(begun, st.sampled_from(ends)).map(lambda given: [JSON, *given[0], *given[1]])


def looks(stage: Stage) -> dict[int, str]:
    """Each finished step's label; nothing stays as if it were being written."""
    pages = stage.view._steps.values()
    assert not any(page.draft and not page.finished for page in pages)
    return {page.number: page.finished[0] for page in pages if page.finished}


@given(runs(), st.sets(st.integers(0, 20)))
def test_a_run_looks_the_same_live_and_drawn_again(events: list[Event], moments: set[int]) -> None:
    """Whenever it was painted: the last labels are those of a replay, but for drafts that
    were seen and then dropped, which a replay has no reason to show."""
    live, again = Stage(), Stage()
    for index, event in enumerate(events):
        live.view.add(event)
        if index in moments:
            live.view.render()
    live.view.render()
    replay(again.view, Trace(tuple(events)))
    assert looks(again).items() <= looks(live).items()
    for number in looks(live).keys() - looks(again).keys():
        assert live.view._steps[number].dropped


# -- the total


def test_the_total_says_time_steps_tokens_and_speed_and_waiting_apart() -> None:
    trace = Trace((JSON, step(1), Retry(2, 1, "busy", "Busy.", 3.0), step(2), ANSWER))
    assert total_line(trace, WORDS) == (
        "Thought for 4.0 s in 2 steps, 70 tokens, 18 tokens/s · 3.0 s of waiting"
    )


def test_what_is_not_known_is_not_said_in_the_total() -> None:
    trace = Trace((JSON, step(1, tokens=0), Answer("4", 0.5, 0)))
    assert total_line(trace, WORDS) == "Thought for 2.0 s in 1 step"


def test_a_slow_model_is_not_said_to_write_nothing() -> None:
    trace = Trace((JSON, step(1, seconds=60.0, tokens=15), Answer("4", 0.0, 0)))
    assert "0.2 tokens/s" in total_line(trace, WORDS)
