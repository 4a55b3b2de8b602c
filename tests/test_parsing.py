"""What a model writes, read: strictly first, tolerantly where it must be."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from xgrammar import GrammarCompiler, GrammarMatcher, TokenizerInfo

from reasoning.json_steps import step_json
from reasoning.parsing import (
    BEGUN,
    MAX_CONTENT,
    MAX_TITLE,
    BadReply,
    Draft,
    Reply,
    mend_latex,
    parse_answer,
    parse_reply,
    read_partial,
    step_grammar,
    step_schema,
)
from tests.json_cases import json_cases

GOOD = '{"title": "T", "content": "C", "next_action": "continue"}'
STEP = Reply("T", "C", "continue")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (GOOD, STEP),
        (f"```json\n{GOOD}\n```", STEP),
        (f"Sure! Here is the step:\n{GOOD}\nI hope this helps.", STEP),
        (f"The set {{1, 2}} first.\n{GOOD}", STEP),
        (GOOD + '{"title": "U", "content": "D", "next_action": "continue"}', STEP),
        (f"[{GOOD}]", STEP),
        ('{"step": 1}' + GOOD, STEP),
        ('{"content": "C"}', Reply("", "C", "continue")),
        ('{"title": 3, "content": 42, "next_action": "continue"}', Reply("3", "42", "continue")),
        (
            '{"title": "T", "content": {"a": [1]}, "next_action": ""}',
            Reply("T", '{"a": [1]}', "continue"),
        ),
        ('{"title": "a\\nb  c", "content": "C"}', Reply("a b c", "C", "continue")),
        ('{"title": "T", "content": "C", "content": "D"}', STEP),  # as it was shown
        ('{"title": "T", "content": "C", "next_action": ["final_answer"]}', STEP),
        ('{"title": "T", "content": "C", "next_action": "whatever"}', STEP),
        ('{"title": "T", "content": "x\\ud800y"}', Reply("T", "x\ufffdy", "continue")),
        ('{"title": "T", "content": "line\nline"}', Reply("T", "line\nline", "continue")),
        # cut at its end though the model was done: repaired once, if the action is there
        ('{"title": "T", "content": "C", "next_action": "continue"', STEP),
        ("{'title': 'T', 'content': 'C', 'next_action': 'continue'}", STEP),
    ],
)
def test_a_step_is_found_however_it_is_wrapped(text: str, expected: Reply) -> None:
    assert parse_reply(text) == expected


@pytest.mark.parametrize(
    "word", ["final_answer", "Final Answer", " FINAL-ANSWER ", "finish", "done"]
)
def test_final_answer_is_final_however_it_is_spelled(word: str) -> None:
    reply = parse_reply(json.dumps({"title": "T", "content": "C", "next_action": word}))
    assert reply == Reply("T", "C", "final_answer")


@pytest.mark.parametrize(
    ("text", "finish_reason", "cause"),
    [
        ("", "stop", "empty"),
        (" \n\t", "stop", "empty"),
        ('"x"', "stop", "not_json"),
        ("[1]", "stop", "not_json"),
        ("null", "stop", "not_json"),
        ("I think it is 3.", "stop", "not_json"),
        ('{"title": "T"}', "stop", "no_content"),
        ('{"title": "T", "content": null}', "stop", "no_content"),
        ('{"title": "T", "content": " "}', "stop", "no_content"),
        ('{"title": "T", "content": "half', "length", "cut"),
        ('{"title": "T", "content": "a a a a', "repetition", "loop"),
        ("[" * 100_000, "stop", "not_json"),
        ('{"a":' * 100_000, "stop", "not_json"),
        ("{" * 100_000, "stop", "not_json"),
        ('{"next_action" ' * 10_000, "stop", "not_json"),  # where a repairer would take minutes
        ('{"next_action"' + '["' * 50_000, "stop", "not_json"),
    ],
)
def test_a_reply_that_is_no_step_says_why(text: str, finish_reason: str, cause: str) -> None:
    reply = parse_reply(text, finish_reason)
    assert isinstance(reply, BadReply)
    assert reply.cause == cause


def test_a_whole_step_counts_even_when_the_tokens_ended_with_it() -> None:
    assert parse_reply(GOOD, "length") == STEP


def test_what_was_readable_of_a_cut_reply_is_kept() -> None:
    reply = parse_reply('{"title": "T", "content": "half a sent', "length")
    assert isinstance(reply, BadReply)
    assert reply.draft == Draft("T", "half a sent", titled=True)


def test_a_reply_of_free_text_is_kept_as_readable() -> None:
    reply = parse_reply("It is 3, because 1 + 2 = 3.")
    assert isinstance(reply, BadReply)
    assert reply.draft.content == "It is 3, because 1 + 2 = 3."


def test_a_huge_reply_is_capped() -> None:
    reply = parse_reply(json.dumps({"title": "t" * 10**4, "content": "c" * 10**6}))
    assert isinstance(reply, Reply)
    assert (len(reply.title), len(reply.content)) == (MAX_TITLE, MAX_CONTENT)
    answer = json.dumps({"title": "T", "content": "c" * 10**6})
    assert len(read_partial(answer).content) == len(parse_answer(answer)) == MAX_CONTENT


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ('{"title": "Ti', Draft("Ti")),
        ('{"title": "T", "con', Draft("T")),
        ('{"title": "T", "content": "', Draft("T", titled=True)),
        ('{"title": null, "content": "C', Draft("", "C", titled=True)),
        ('{"title": 3, "content": "C', Draft("", "C")),
        ('{"content": "C", "next', Draft("", "C")),
        ('{"content": "C", "title": "Ti', Draft("Ti", "C")),
    ],
)
def test_a_draft_says_whether_its_title_is_whole(text: str, draft: Draft) -> None:
    assert read_partial(text) == draft


@given(st.text())
def test_any_text_is_a_reply_or_a_bad_reply_never_another_error(text: str) -> None:
    assert isinstance(parse_reply(text), Reply | BadReply)
    assert isinstance(read_partial(text), Draft)
    assert isinstance(parse_answer(text), str)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
FIELDS = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("title", "content", "next_action"), JSON)
)


@given(JSON | FIELDS, st.sampled_from(["stop", "length", "repetition", None]))
def test_any_json_is_a_reply_or_a_bad_reply(values: object, finish_reason: str | None) -> None:
    reply = parse_reply(json.dumps(values), finish_reason)
    assert isinstance(reply, Reply | BadReply)
    if isinstance(reply, Reply):
        reply.content.encode()  # no lone surrogate is left
        assert reply.action in ("continue", "final_answer")


TEXT = st.text(st.characters(codec="utf-8"), max_size=60) | st.sampled_from(
    ["\\frac{1}{2}", "a\nneq b", "x\n\nlast", "\U0001f600 emoji", 'quote " and \\ slash', "第一步"]
)


@given(TEXT, TEXT, st.booleans())
def test_every_prefix_of_a_good_reply_is_a_draft_never_a_wrong_final(
    title: str, content: str, ascii_only: bool
) -> None:
    """Fed a character at a time, drafts only grow, and begin what the whole reply says."""
    text = json.dumps(
        {"title": title, "content": content, "next_action": "final_answer"}, ensure_ascii=ascii_only
    )
    whole = parse_reply(text)
    shown = Draft()
    for end in range(len(text)):
        draft = read_partial(text[:end])
        assert draft.title.startswith(shown.title)
        assert draft.content.startswith(shown.content)
        assert not isinstance(parse_reply(text[:end], "length"), Reply)
        shown = draft
    if isinstance(whole, Reply):
        assert whole.title.startswith(shown.title)
        assert whole.content.startswith(shown.content)


ANSWERED = '{"title": "T", "content": "It is 4. So it is.", "next_action": "final_answer"}'


@given(
    st.integers(1, len(ANSWERED)),
    st.integers(0, len(ANSWERED)),
    st.sampled_from(["", '"', "{", "x"]),
)
def test_an_answer_that_breaks_off_and_begins_anew_takes_nothing_back(
    end: int, start: int, between: str
) -> None:
    """What was readable of it before stays, though what follows can be repaired otherwise."""
    text, shown = ANSWERED[:end] + between + ANSWERED[start:], ""
    for size in range(len(text)):
        content = read_partial(text[:size]).content
        assert content.startswith(shown)
        shown = content
    assert parse_answer(text).startswith(shown)


@pytest.mark.parametrize(
    ("content", "mended"),
    [
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"\binom{n}{k}", r"\binom{n}{k}"),
        (r"\rho + \rangle", r"\rho + \rangle"),
        (r"2 \times 3, \text{cm}, \theta", r"2 \times 3, \text{cm}, \theta"),
        (r"a \neq b, \nabla f, \notin", r"a \neq b, \nabla f, \notin"),
    ],
)
def test_latex_with_one_backslash_survives_json(content: str, mended: str) -> None:
    reply = parse_reply('{"title": "T", "content": "' + content + '"}')
    assert isinstance(reply, Reply)
    assert reply.content == mended


def test_newlines_and_tabs_that_are_meant_stay() -> None:
    text = "First.\nnext line\n\nnot this\n\nnew\r\n\tindented\ttabbed\n\ttotal = 3"
    assert mend_latex(text) == text


@given(st.text(st.characters(codec="utf-8")))
def test_what_is_read_holds_nothing_that_governs_a_terminal(text: str) -> None:
    """Only line feeds and tabs, and no U+202E: half drawn, or whole, or an answer."""
    odd = f"\x1b[2J\x00\x07\x9b1m\u202eevil\u2066 {text}"
    values = {"title": odd, "content": [odd], "next_action": "continue"}
    for whole in (json.dumps(values), json.dumps({**values, "content": odd}, ensure_ascii=False)):
        reply, draft = parse_reply(whole), read_partial(whole)
        assert isinstance(reply, Reply)
        said = reply.title + reply.content + draft.title + draft.content + parse_answer(whole)
        assert not [
            it for it in said if it in "\r\u202e\u2066" or (ord(it) < 32 and it not in "\n\t")
        ]
        assert "[2J" in reply.title
        assert "\x9b" not in said


def test_a_content_of_nothing_but_control_characters_is_none() -> None:
    reply = parse_reply('{"title": "T", "content": "\\u001b\\u202e", "next_action": "continue"}')
    assert isinstance(reply, BadReply)
    assert reply.cause == "no_content"


# What JSONTestSuite has not, and parsers trip over all the same.
MORE_CASES = {
    "braces": "{" * 100_000,
    "objects": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "a surrogate": '{"\ud800":0}',
    "a word joiner": "\u2060[]",
    "form feeds": "\x0c[]",
    "an action that begins": '{"content":"C","next_action":fin',
}


@pytest.mark.parametrize(
    "around", ["{}", "```json\n{}\n```", 'Well: {{"content": {}, "title": "T"']
)
def test_what_parsers_trip_over_is_a_value_and_never_final(around: str) -> None:
    for name, text in {**json_cases(), **MORE_CASES}.items():
        whole = around.replace("{}", text, 1).replace("{{", "{")
        for finish_reason in ("stop", "length"):
            reply = parse_reply(whole, finish_reason)
            assert isinstance(reply, Reply | BadReply), name
            assert not isinstance(reply, Reply) or reply.action == "continue", name
        assert isinstance(read_partial(whole), Draft), name
        assert isinstance(parse_answer(whole), str), name


def test_the_schema_lists_the_keys_in_the_order_they_are_shown() -> None:
    schema = step_schema("continue")
    assert list(schema["properties"]) == ["title", "content", "next_action"]
    assert schema["properties"]["next_action"]["enum"] == ["continue"]
    assert "maxLength" not in json.dumps(schema)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("It is **3**.", "It is **3**."),
        (GOOD, "C"),
        (f"```json\n{GOOD}\n```", "C"),
        ('{"title": "T", "content": "half', "half"),
        ('{"answer": "3", "why": "1 + 2"}', "3\n\n1 + 2"),
        ("```python\nprint(3)\n```", "```python\nprint(3)\n```"),
        ("```js", ""),
        ("```json\n", ""),
        ("```\n{ ", ""),
        ("{1, 2} is the set.", "{1, 2} is the set."),
        ("```python\n{1: 2}\n```", "```python\n{1: 2}\n```"),
        ("```js\n{ let x }", "```js\n{ let x }"),
    ],
)
def test_an_answer_is_shown_as_text_also_when_it_comes_as_json(text: str, answer: str) -> None:
    assert parse_answer(text) == answer


@pytest.mark.parametrize(
    "text", [f"```json\n{GOOD}\n```", f"```\n{GOOD}", GOOD, "```py\n{1: 2}\n```", "{2, 3}", "{ }"]
)
def test_what_is_shown_of_an_answer_is_never_taken_back(text: str) -> None:
    """A character at a time, also where a fence comes before the object."""
    drafts = [parse_answer(text[:end]) for end in range(len(text) + 1)]
    assert all(drafts[-1].startswith(draft) for draft in drafts)


# -- the grammar of what follows a step's beginning, as vLLM holds a model to it

BYTES = TokenizerInfo([bytes([byte]) for byte in range(256)], stop_token_ids=[0])
GRAMMAR = GrammarCompiler(BYTES).compile_grammar(step_grammar("continue", "final_answer"))


def is_held_to(text: str) -> bool:
    matcher = GrammarMatcher(GRAMMAR, terminate_without_stop_token=True)
    return matcher.accept_string(text) and matcher.is_terminated()


@given(st.text(st.characters(codec="utf-8")), st.text(st.characters(codec="utf-8")))
def test_the_grammar_takes_what_every_step_goes_on_with(title: str, content: str) -> None:
    text = step_json(Reply(title, content, "continue"))
    assert text.startswith(BEGUN)
    assert is_held_to(text.removeprefix(BEGUN))


@pytest.mark.parametrize(
    "rest",
    [
        'T", "content":"C","next_action":"continue"}',
        'T","content":"C","next_action":"stop"}',
        'T","content":"C"}',
        'a\nb","content":"C","next_action":"continue"}',
        'a\\qb","content":"C","next_action":"continue"}',
        'T","content":"C","next_action":"continue"},',
    ],
)
def test_the_grammar_takes_nothing_else(rest: str) -> None:
    assert not is_held_to(rest)
    assert is_held_to('T","content":"C","next_action":"final_answer"}')
