"""How the runs of a conversation hang together: follow-ups, branches, chains asked together."""

from __future__ import annotations

from history.entries import Entry
from history.request import Link
from history.tree import branches, find, follow_ups, path, root, together


def entry(id: str, **link: object) -> Entry:
    it = Link(thread="t", **link)  # type: ignore[arg-type]
    return Entry(id, id, "m", "json_steps", it, 0.0, 0.0, "answered", 1.0, 0.0, 1, 1, "a", "")


FIRST = entry("first")
EDITED = entry("edited", origin="first", parts=2, how="edit")
DOUBTED = entry("doubted", origin="edited", parts=3, how="doubt")
NEXT = entry("next", after="first")
NEXT_AGAIN = entry("next-again", after="first", origin="next", parts=1, how="again")
LAST = entry("last", after="next-again")
ALL = (FIRST, EDITED, DOUBTED, NEXT, NEXT_AGAIN, LAST)


def ids(entries: list[Entry]) -> list[str]:
    return [one.id for one in entries]


def test_a_branch_of_a_branch_belongs_to_the_first() -> None:
    assert root(ALL, DOUBTED) == FIRST
    for one in (FIRST, EDITED, DOUBTED):
        assert ids(branches(ALL, one)) == ["first", "edited", "doubted"]


def test_branches_of_one_question_are_none_of_another() -> None:
    assert ids(branches(ALL, LAST)) == ["last"]
    assert ids(branches(ALL, NEXT)) == ["next", "next-again"]


def test_the_path_goes_by_the_branch_that_was_followed_up() -> None:
    assert ids(path(ALL, LAST)) == ["first", "next-again", "last"]
    assert ids(path(ALL, FIRST)) == ["first"]


def test_a_branch_without_a_word_of_it_follows_what_its_root_followed() -> None:
    later = entry("later", origin="next", parts=1, how="again")
    assert ids(path((*ALL, later), later)) == ["first", "later"]


def test_what_follows_a_run_up_is_named_once() -> None:
    other = entry("chain-2", after="first", group="next")
    assert ids(follow_ups((*ALL, other), FIRST)) == ["next"]
    assert follow_ups(ALL, LAST) == []


def test_runs_asked_together_find_each_other() -> None:
    group = (entry("a"), entry("b", group="a"), entry("c", group="a"), entry("d"))
    for one in group[:3]:
        assert ids(together(group, one)) == ["a", "b", "c"]
    assert ids(together(group, group[3])) == ["d"]


def test_a_link_to_a_run_that_is_gone_leads_nowhere() -> None:
    orphan = entry("orphan", after="gone", origin="gone")
    assert find((orphan,), "gone") is None
    assert ids(path((orphan,), orphan)) == ["orphan"]
    assert root((orphan,), orphan) == orphan


def test_a_circle_of_links_ends() -> None:
    one = entry("one", after="other", origin="other")
    other = entry("other", after="one", origin="one")
    assert root((one, other), one) in (one, other)
    assert ids(path((one, other), one)) == ["other", "one"]
