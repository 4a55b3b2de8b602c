"""A search finds what holds its words, whichever way it takes, and nothing that was deleted."""

from __future__ import annotations

import contextlib
import itertools
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from history import index
from history.request import Link
from history.rows import name_of, sought
from history.store import KEPT_DELETED, LONGEST_SEARCH, Store, StoreError
from history.tables import TEXTS
from reasoning.events import Answer
from tests.postgres import Postgres, postgres
from tests.test_history_store import (
    ANSWER,
    STARTED,
    STEP,
    Clock,
    ask,
    count,
    filled,
    ids,
    make_second_version,
    step,
)

OWNERS = map("owner-{}".format, itertools.count())  # one for each example, in one history


@pytest.fixture(scope="module")
def postgresql() -> Iterator[Postgres]:
    with postgres() as server:
        yield server


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path_factory.mktemp('shared') / 'history.db'}"
    running: Postgres = request.getfixturevalue("postgresql")
    return running.url()


@pytest.fixture
def url(shared: str, request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if shared.startswith("sqlite"):
        return f"sqlite:///{tmp_path / 'history.db'}"
    running: Postgres = request.getfixturevalue("postgresql")
    return running.url()


@pytest.fixture(scope="module")
def store(shared: str) -> Iterator[Store]:
    it = Store(shared)
    yield it
    it.close()


@pytest.fixture(params=["index", "newest first", "no index"])
def way(request: pytest.FixtureRequest, store: Store) -> Iterator[None]:
    """The ways that a search may take, each forced upon it."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "newest first":
            patch.setattr(index, "FEW", 0)
            patch.setattr(index, "NEWEST", (1, 1))
            patch.setattr(index, "SEEN", -1)  # no word is rare
        if request.param == "no index":
            patch.setattr(index, "has_index", lambda connection: False)
        yield


# -- what is found

LETTERS = st.sampled_from("abAß高斯銀Ａ\"'%_\\/*?:^-\x01\x7f\ufffe😀\u0301")
WORDS = st.text(LETTERS, min_size=1, max_size=4)
SAID = st.lists(st.one_of(WORDS, st.sampled_from([" ", "\n", "　"])), max_size=12).map("".join)


# Of conversations with whatever names, questions and answers, those are found of which each word
# of the search is a part of a text, as Python sees it, in the order of the list.
@pytest.mark.usefixtures("way")
@settings(max_examples=30)  # each of some ten transactions
@given(
    st.lists(st.tuples(SAID, SAID, st.one_of(st.none(), SAID)), min_size=1, max_size=4),
    st.lists(WORDS, min_size=1, max_size=3).map(" ".join),
    st.integers(0, 2),
)
def test_a_search_finds_what_python_finds(
    store: Store, said: list[tuple[str, str, str | None]], search: str, offset: int
) -> None:
    owner, expected = next(OWNERS), []
    words = sought(search).split()
    for number, (question, answer, name) in enumerate(said):
        id = f"{owner}-{number}"
        ask(store, id, question, [STARTED, Answer(answer, 1.0, 1)], owner=owner, at=float(number))
        if name is not None:
            store.rename(id, name, owner)
        named = name_of(name or "") or name_of(question)
        texts = [*map(sought, (question, answer, named))]
        if all(any(word in one for one in texts) for word in words):
            expected.insert(0, id)
    assert [it.id for it in store.threads(owner, search, 2, offset)] == expected[offset:][:2]
    assert ids(store, search, owner) == expected


@pytest.mark.usefixtures("way")
def test_words_may_be_in_different_texts_of_a_conversation(store: Store) -> None:
    owner = next(OWNERS)
    ask(store, f"{owner}-1", "strawberry", [step(1, "blueberry")], owner=owner)
    ask(store, f"{owner}-2", "strawberry", owner=owner)
    ask(store, f"{owner}-3", "blueberry", link=Link(f"{owner}-2"), owner=owner)
    ask(store, f"{owner}-4", "blueberry", owner=owner)
    assert set(ids(store, "strawberry blueberry", owner)) == {f"{owner}-1", f"{owner}-2"}


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("search", ["abcdefgh" * 25, " ".join("abcdefgh" * 12), "\ufdfa" * 200])
def test_the_longest_search_is_as_good_as_another(store: Store, search: str) -> None:
    owner = next(OWNERS)
    ask(store, owner, search, owner=owner)
    ask(store, f"{owner}-other", search[: LONGEST_SEARCH // 2 - 20].upper() or "a", owner=owner)
    assert owner in ids(store, search, owner)


def test_postgresql_reads_its_index_once_before_it_has_statistics(
    postgresql: Postgres,
) -> None:
    """Else it reads it for each conversation: in 2,500 a search took six seconds."""
    store = Store(postgresql.url())
    with store._database.reading() as connection:
        hold = index._may_hold(connection, ["abc", "xyz"])
        query = str(hold.compile(connection, compile_kwargs={"literal_binds": True}))
        sql = f"EXPLAIN SELECT id FROM stepwise_threads WHERE {query}"
        plan = "\n".join(row[0] for row in connection.exec_driver_sql(sql.replace("%", "%%")))
    store.close()
    assert "InitPlan" in plan
    assert "SubPlan" not in plan
    assert "Join" not in plan


@pytest.mark.usefixtures("way")
def test_a_name_that_was_cut_is_found_by_its_end(store: Store) -> None:
    """Its last letter lost the accent that it has in the question."""
    owner, question = next(OWNERS), "x" * 199 + "e\u0301"
    ask(store, owner, question, owner=owner)
    assert ids(store, "xe", owner) == ids(store, "xé", owner) == [owner]
    store.rename(owner, "Another", owner)
    assert (ids(store, "xe", owner), ids(store, "xé", owner)) == ([], [owner])


def test_a_name_is_searched_where_it_was_given_last(store: Store) -> None:
    owner = next(OWNERS)
    ask(store, owner, "Why?", owner=owner)
    for name in ("First", "Second"):
        store.rename(owner, name, owner)
        store.rename(owner, "Stolen", "nobody")
    found = {word: ids(store, word, owner) for word in ("first", "second", "stolen", "why")}
    assert found == {"first": [], "second": [owner], "stolen": [], "why": [owner]}


# -- what is gone


def test_what_is_gone_for_good_is_in_no_part_of_the_file(tmp_path: Path) -> None:
    file, clock = tmp_path / "history.db", Clock()
    it = Store(f"sqlite:///{file}", clock)
    ask(it, "gone", "A zebra?", [STARTED, step(1, "\u9f98\u9f98\u9f98"), Answer("qqq", 1.0, 1)])
    it.close()  # and it is in a part of the index of its own
    it = Store(f"sqlite:///{file}", clock)
    ask(it, "kept", "A horse?", [STARTED, STEP, ANSWER])
    it.delete("gone")
    it.close()
    secrets = [word.encode() for word in ("zeb", "zebra", "\u9f98\u9f98\u9f98", "qqq")]
    assert all(secret in file.read_bytes() for secret in secrets)
    clock.now += KEPT_DELETED + 1
    it = Store(f"sqlite:///{file}", clock)
    assert (ids(it), ids(it, "zebra"), ids(it, "horse")) == (["kept"], [], ["kept"])
    it.close()
    left = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(secret in left for secret in secrets)


# -- an index that is not there, or not as it should be


def without_fts5(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index, "_has_fts5", lambda connection: False)


def test_without_fts5_a_search_is_slow_and_finds_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And where there is one later, the index is made of what was written meanwhile, too."""
    url = f"sqlite:///{tmp_path / 'history.db'}"
    ask(first := Store(url), "one", "One berry?")
    first.close()
    without_fts5(monkeypatch)
    ask(second := Store(url), "two", "Two berries?", at=2.0)
    assert ids(second, "berr") == ["two", "one"]
    second.close()
    monkeypatch.undo()
    third = Store(url)
    with third._database.reading() as connection:
        assert index.has_index(connection)
    assert (ids(third, "berr"), ids(third, "wo")) == (["two", "one"], ["two"])
    third.close()


def test_a_damaged_index_costs_no_run(tmp_path: Path) -> None:
    file = tmp_path / "history.db"
    filled(file)
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE stepwise_search_data SET block = x'ffffffff' WHERE id > 10")
    connection.close()
    it = Store(f"sqlite:///{file}")
    for _ in range(2):  # who meets the damage is told, and may try again
        with contextlib.suppress(StoreError):
            ids(it, "long")
    assert it.set_aside is not None
    assert (it.count_threads(""), len(ids(it, "long 49"))) == (50, 1)
    it.close()


@pytest.mark.parametrize("version", [2, 3])
def test_what_is_read_of_a_damaged_file_is_found(tmp_path: Path, version: int) -> None:
    """Texts that have no numbers yet get some, and the index is made of them all."""
    old, new = tmp_path / "old.db", tmp_path / "new.db"
    it = Store(f"sqlite:///{old}")
    for id, question in (("one", "Strawberry?"), ("two", "Cherry?")):
        ask(it, id, question, [STARTED, step(1, "blueberry"), ANSWER])
    it.close()
    if version == 2:
        make_second_version(f"sqlite:///{old}")
    it = Store(f"sqlite:///{new}")
    assert it._database._salvage(old, new) == 2
    assert (ids(it, "blueberry cherry"), ids(it, "strawberry ue")) == (["two"], ["one"])
    it.delete("two")
    ask(it, "three", "Cherry?", [STARTED, step(1, "blueberry"), ANSWER])
    assert ids(it, "blue cherry") == ["three"]
    it.close()


# -- an older history


def test_a_history_of_the_second_version_keeps_its_texts(url: str) -> None:
    older = Store(url)
    ask(older, "one", "Strawberry?", [STARTED, step(1, "高斯"), ANSWER])
    ask(older, "two", "Cherry?", [STARTED, step(1, "blueberry"), ANSWER], at=2.0)
    older.rename("one", "Fruit")
    older.close()
    make_second_version(url)
    for _ in range(2):
        newer = Store(url)
        assert count(newer, TEXTS) == 8
        for search, found in (
            ("高斯 fruit", ["one"]),
            ("berry", ["two", "one"]),
            ("cher", ["two"]),
        ):
            assert ids(newer, search) == found
        newer.close()
    newer = Store(url)
    newer.rename("one", "Gauss")
    assert (ids(newer, "fruit"), ids(newer, "gauss straw")) == ([], ["one"])
    newer.close()
