"""A run exported: each form says what happened, and none of them does anything."""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from page.exports import (
    LARGEST_FILE,
    as_json,
    as_markdown,
    as_messages,
    file_name,
    read_trace,
    unescape_line,
)
from page.html_export import STYLE, as_html, to_html
from page.i18n import LANGUAGES, Words
from page.markdown import plain_line
from page.mathml import to_mathml
from reasoning.events import (
    Answer,
    Correction,
    Delta,
    Failed,
    Notice,
    Retry,
    Settings,
    Started,
    Step,
    Stopped,
    Trace,
    Turn,
)
from tests.examples import examples
from tests.processes import OUTPUT
from tests.test_page_markdown import PICTURES, TEXTS

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

WORDS = Words("en")
ROOT = Path(__file__).resolve().parent.parent
READER = MarkdownIt("commonmark", {"html": True}).enable("table")
JOINER = "\u2060"

STARTED = Started("How many?", "tiny_model", "coat", "en", 1_769_000_000.0)
STEPS = (
    Step(1, 'Read "it": 1.5 km (all)', "All but **9**.\n\n# Big", "continue", 1.23, 34),
    Step(2, "检查", r"So \( \frac{1}{2} \).", "reflect", 12.3, 0, 2, edited=True, asked="doubt"),
    Step(3, "", "half a sent", "explore", 0.5, 0, 3, cut=True),
)
TRACE = Trace(
    (
        STARTED,
        STEPS[0],
        Retry(2, 1, "repeat", "The reply repeats step 1."),
        STEPS[1],
        Correction(2, r"\frac{1}{2}", "204"),
        STEPS[2],
        Notice("context", "The context is nearly full."),
        Answer("There are **9**.\n\n# Why\n\nBecause.", 3.4, 56),
    )
)


def asked(question: str, *events: Step | Answer | Turn) -> Trace:
    """A run with this question; what else there is to it stays as short as can be."""
    turns = tuple(event for event in events if isinstance(event, Turn))
    rest = tuple(event for event in events if not isinstance(event, Turn))
    return Trace((replace(STARTED, question=question, history=turns), *rest))


def headings(text: str) -> list[tuple[str, str]]:
    """The outline of a Markdown text."""
    tokens = READER.parse(text)
    return [
        (token.tag, after.content)
        for token, after in pairwise(tokens)
        if token.type == "heading_open"
    ]


def read_as(text: str) -> str:
    """What a line or paragraph of Markdown says when it is rendered."""
    inlines = [token.children or [] for token in READER.parse(text) if token.type == "inline"]
    lines = [["\n" if one.type == "hardbreak" else one.content for one in line] for line in inlines]
    return "\n\n".join("".join(line) for line in lines)


# -- Markdown


def test_markdown_tells_the_run_from_the_question_to_the_total() -> None:
    assert as_markdown(TRACE, WORDS) == (
        """\
# How many?

tiny\\_model · COAT · 2026-01-21 12:53 UTC

## Steps

### 1. Read "it": 1.5 km (all)

*1.2 s · 34 tokens*

All but **9**.

##### Big

### 2. 检查

*Reflect · 12.3 s · 2 attempts · changed by the reader · asked to doubt the step before*

> Attempt 1 failed: The reply repeats step 1. Trying again.
>
> Corrected: $\\frac{1}{2}$, then 204

So $\\frac{1}{2}$.

### 3. Step 3

*Explore · 0.5 s · 3 attempts*

> This step was cut short: three attempts gave no whole one.

half a sent

> The context is nearly full.

## Answer

There are **9**.

##### Why

Because.

---

Thought for 17.4 s in 3 steps, 90 tokens, 5.2 tokens/s
"""
    )


def test_without_the_steps_nothing_is_said_of_them() -> None:
    for made in (as_markdown(TRACE, WORDS, steps=False), as_html(TRACE, WORDS, steps=False)):
        assert "There are" in made
        for word in ("All but", "half a sent", "repeats", "nearly full", "Corrected"):
            assert word not in made


@pytest.mark.parametrize("language", LANGUAGES)
def test_it_speaks_the_readers_language(language: str) -> None:
    words = Words(language)
    for made in (as_markdown(TRACE, words), as_html(TRACE, words)):
        assert words("answer") in made
        assert words("steps_head") in made
    assert f'<html lang="{language}">' in as_html(TRACE, words)


@examples(2)
@given(TEXTS, TEXTS)
@example("One\n===", "# One\n\nTwo\n---")
@example("```", "> # One")
@example("\\begin{align}word\\end{align}```", "$$word$$# ")
@example("$$# $$", "$$```$$")
@example("$$a\n===$$", "$$a\n# b$$")
def test_no_text_of_a_model_breaks_the_outline(content: str, answer: str) -> None:
    step = replace(STEPS[0], content=content)
    end = Answer(f"so\n\n{answer}", 1.0, 1)
    trace = asked("q", Turn("q", content), step, replace(step, number=2), end)
    ours = [one for one in headings(as_markdown(trace, WORDS)) if one[0] in ("h1", "h2", "h3")]
    assert [tag for tag, _ in ours] == ["h1", "h2", "h2", "h3", "h3", "h2"]


@examples(3)
@given(TEXTS)
@example("1. a")
@example("100) a")
@example("+ a - b = c")
@example("a\\(b\\) $5 \\$ :red[x] !")
def test_a_title_reads_as_it_was_written(text: str) -> None:
    for begin in ("", "### 1. ", "> "):
        before = READER.render(begin + plain_line(text)).replace(JOINER, "")
        assert READER.render(begin + unescape_line(plain_line(text))).replace(JOINER, "") == before


@examples(3)
@given(TEXTS)
@example("- a\n- b")
@example("1. a\n\n    code\n===")
@example("100) a\n+ b\n= c\n: d")
@example("<b>x</b> &amp; [a](b) ![c](d) *e* _f_ `g` ~~h~~ | i | #j")
def test_a_long_question_is_quoted_as_it_was_typed(text: str) -> None:
    question = "word " * 40 + "\n" + text + "\nend"
    made = as_markdown(asked(question), WORDS).split("\n\n", 1)[1].split("\n\ntiny")[0]
    assert all(line.startswith(">") for line in made.split("\n"))
    assert read_as(made).split() == question.replace("\0", "").split()
    assert [token.type for token in READER.parse(made) if token.level == 0] == [
        "blockquote_open",
        "blockquote_close",
    ]


def test_earlier_turns_are_told_with_their_reasoning_or_without() -> None:
    trace = asked("q2", Turn("q1", "a1", "r1"), Answer("a2", 1.0, 1))
    whole, short = as_markdown(trace, WORDS), as_markdown(trace, WORDS, steps=False)
    assert [part for part in whole.split("\n\n") if part in ("r1", "a1", "a2")] == [
        "r1",
        "a1",
        "a2",
    ]
    assert "> q1" in short
    assert "r1" not in short


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ((Stopped(1.0),), "Stopped."),
        ((Failed("busy", "It is busy.", "Wait.", 1.0),), "It is busy. Wait."),
        ((Answer("a", 1.0, 1, cut=True),), "length was used up"),
        ((), "no end yet"),
        ((Delta(1, "title", "Half"), Delta(1, "content", "a thought"), Stopped(1.0)), "a thought"),
        ((Delta(1, "answer", "Half an answer"), Stopped(1.0)), "Half an answer"),
        ((Retry(1, 1, "unreachable", "No server.", 2.0), Stopped(1.0)), "after 2.0 s"),
    ],
)
def test_a_run_without_a_whole_answer_says_so(events: tuple[Stopped, ...], said: str) -> None:
    trace = Trace((STARTED, *events))
    assert said in as_markdown(trace, WORDS)
    assert said in as_html(trace, WORDS)


# -- messages


def test_messages_are_what_openais_format_takes() -> None:
    trace = asked("q2", Turn("q1", "a1", "r1"), STEPS[0], Answer("a2", 1.0, 1))
    assert json.loads(as_messages(trace, steps=False)) == [
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "a2"},
    ]
    whole = json.loads(as_messages(trace))
    assert [one["role"] for one in whole] == ["user", "assistant"] * 2
    assert whole[1]["content"] == "r1\n\na1"
    assert whole[3]["content"] == (
        '**1. Read "it": 1.5 km (all)**\n\nAll but **9**.\n\n# Big\n\n---\n\na2'
    )


def test_no_message_is_empty() -> None:
    assert json.loads(as_messages(asked("q"))) == [{"role": "user", "content": "q"}]
    assert len(json.loads(as_messages(asked("q", STEPS[0])))) == 2


# -- JSON, and back


def test_what_was_exported_is_imported_unchanged() -> None:
    assert read_trace(as_json(TRACE)) == TRACE
    assert read_trace("\ufeff" + as_json(TRACE)) == TRACE
    assert "检查" in as_json(TRACE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "expected JSON"),
        ("not JSON", "expected JSON"),
        ("[]", "a JSON object"),
        ('{"version": 1, "events": [NaN]}', "number 1"),
        ('{"version": 9, "events": []}', "version 1, got 9"),
        ("[" * 100_000, "expected"),
        ('{"a":' * 100_000, "expected"),
        ("9" * 5_000, "expected"),
        ('{"version": 1, "events": ' + "[" * 900 + "]" * 900 + "}", "number 1"),
        (" " * (LARGEST_FILE + 1), "at most 20,000,000 characters"),
    ],
    ids=lambda text: text[:20],
)
def test_what_is_no_run_is_refused_in_one_line(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as refused:
        read_trace(text)
    assert said.lower() in str(refused.value).lower()


@given(st.text(max_size=60))
def test_any_text_is_a_run_or_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected"):
        read_trace(text)


def test_what_comes_in_can_be_taken_away_again_in_every_form() -> None:
    settings = Settings(max_steps=10**9, temperature=0.0)
    started = replace(STARTED, at=1e11, settings=settings, language="xx", way="dance", model="")
    odd = Trace((started, replace(STEPS[0], seconds=1e11, tokens=10**11), Answer("", 0.0, 0)))
    trace = read_trace(as_json(odd))
    for made in (as_markdown(trace, WORDS), as_html(trace, WORDS), as_messages(trace)):
        assert made.encode()


# -- the page to send

HARMLESS = re.compile(
    "html|head|meta|title|style|body|main|h[1-4]|p|div|section|label|input|details|summary|span"
    "|footer|a|strong|em|s|code|pre|ul|ol|li|blockquote|hr|br|table|thead|tbody|tr|th|td"
    "|math|m(row|i|n|o|s|text|space|frac|sqrt|root|style|padded|phantom|enclose|sub|sup|subsup"
    "|under|over|underover|table|tr|td)"
)
LOADING = ("src", "srcset", "style", "action", "formaction", "data", "id", "name")
OPEN = ("meta", "input", "br", "hr")


class Inert(HTMLParser):
    """Reads a page as a browser does and fails on whatever could act or load."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.standing: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert HARMLESS.fullmatch(tag), tag
        if tag not in OPEN:
            self.standing.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), name
            assert name not in ("src", "srcset", "style", "action", "formaction", "data", "id"), (
                name
            )
            if name == "href":
                assert urlsplit(value or "").scheme.lower() in ("http", "https", "mailto"), value

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in OPEN, tag  # to a browser all others stay open
        self.handle_starttag(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.standing.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_html(page: str) -> str:
    """The text of a page that is whole and can do nothing."""
    reader = Inert()
    reader.feed(page)
    reader.close()
    assert reader.standing == []
    return reader.text


ATTACKS = [
    "[x](), [y](<>)",
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<iframe srcdoc='<script>alert(1)</script>'>",
    "</p></div></details></main><script>alert(1)</script>",
    "</title></style><script>alert(1)</script>",
    "<style>*{display:none}</style><base href=http://e/><meta http-equiv=refresh content=0>",
    "<form action=http://e><input name=a></form>",
    "[a](javascript:alert(1)) [b](JAVASCRIPT:alert(1)) [c](java&#115;cript:alert(1))",
    "[a](data:text/html,x) [b](file:///etc/passwd) [c](//e/share) [d](\\\\\\\\e\\\\share)",
    "[a](x.html) [b](#c) [c](?d) [d](vbscript:x) [e]( http://e)",
    '[a](http://e/"onmouseover="alert(1)) <http://e/"onclick="x>',
    "<javascript:alert(1)> <http://e.org/>",
    "```<script>\n</code></pre><script>alert(1)</script>\n```",
    '``` " onload="alert(1)\n```',
    r"$\text{<script>alert(1)</script>}$ $\text{&#x3C;script&#x3E;}$ $\unicode{x3C}$",
    r"$\href{javascript:alert(1)}{x}$ $\style{position:fixed}{x}$ $\class{all}{x}$",
    r"$\text{</mtext></math><script>alert(1)</script>}$ $a</math><img src=x>$",
    r"$$" "\n" r"\def\a{\a\a}\a <img src=x onerror=alert(1)>" "\n$$",
    r"\(" + "{" * 500 + r"\)",
    "| <b>a</b> |\n|:--|\n| ![x](http://e/x.png) |",
    *PICTURES,
]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda text: text[:24])
def test_malicious_text_is_inert_wherever_it_stands(attack: str) -> None:
    step = replace(STEPS[0], title=attack, content=attack)
    started = replace(
        STARTED,
        question=attack + "\n" + "word " * 40,
        model=attack,
        way=attack,
        history=(Turn(attack, attack, attack),),
        prompts={attack: attack},
    )
    told = (
        Retry(1, 1, attack, attack),
        step,
        Notice(attack, attack),
        Correction(1, attack, attack),
    )
    for end in (Answer(attack, 1.0, 1), Failed(attack, attack, attack), Stopped()):
        read_html(as_html(Trace((started, *told, end)), WORDS))


@examples(3)
@given(TEXTS)
def test_any_text_makes_a_page_that_is_whole_and_can_do_nothing(text: str) -> None:
    step = replace(STEPS[0], title=text, content=text)
    page = as_html(asked(text, Turn(text, text), step, Answer(text, 1.0, 1)), WORDS)
    read_html(page)


def test_a_page_holds_the_words_of_the_run() -> None:
    text = read_html(as_html(TRACE, WORDS))
    for words in ("How many?", "tiny_model", 'Read "it": 1.5 km (all)', "检查", "half a sent"):
        assert words in text
    for words in ("There are", "Thought for 17.4 s in 3 steps", "Corrected: ", "nearly full"):
        assert words in text


@pytest.mark.parametrize(
    ("blocks", "html"),
    [
        ("# Big", "<h4>Big</h4>"),
        ("~~gone~~", "<p><s>gone</s></p>"),
        (r"costs \$5 and \$6", "<p>costs $5 and $6</p>"),
        (f"\\:{JOINER}smile:", "<p>:smile:</p>"),
        ("`$x$`", "<p><code>$x$</code></p>"),
        (r"$\foo$", r"<p><code>\foo</code></p>"),
        ("$$\n\\foo\n$$", "<pre><code>\\foo</code></pre>"),
        ("[a](http://e)", '<p><a href="http://e" rel="noopener noreferrer nofollow">a</a></p>'),
        ("| a |\n|--:|\n| 1 |", None),
    ],
)
def test_markdown_becomes_html(blocks: str, html: str | None) -> None:
    made = to_html([blocks], 4).strip()
    if html is None:
        assert '<th class="right">a</th>' in made
    else:
        assert made == html


def test_a_formula_in_a_list_stays_in_it() -> None:
    made = to_html(["1. one\n   $$\n   - b\n   $$\n2. two"], 4)
    assert made.count("<li>") == 2
    assert "<math" in made.split("</li>")[0]


# -- formulas


@pytest.mark.parametrize(
    "latex",
    [
        *(r"x^2", r"\frac{1}{2}", r"\boxed{5050}", r"\text{if } x>0", r"a\lt b", r"90^\circ"),
        *(r"\sqrt[3]{8}", r"\sum_{i=1}^{n} i", r"\int_0^\infty e^{-x}\,dx", r"\binom{n}{k}"),
        *(r"\begin{align}a&=b\\c&=d\end{align}", r"\begin{aligned}a&=b\end{aligned}"),
        *(r"\begin{cases}1&x>0\\0&\text{else}\end{cases}", r"\begin{gather*}a\\b\end{gather*}"),
        *(r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{equation}a=b\end{equation}"),
        *(r"\mathbb{R}", r"\mathbf{x}", r"\left(\frac{a}{b}\right)", r"\lfloor x\rfloor", "中文"),
        *(r"x \neq y \leq z", r"\therefore", r"50\%", r"1{,}000", r"f'(x)", r"\overline{AB}"),
        *(r"a \bmod b", r"\operatorname{lcm}(a,b)", r"\lim_{x\to 0} f", r"\underbrace{a}_{n}"),
    ],
)
def test_what_models_write_is_drawn(latex: str) -> None:
    for display in (False, True):
        drawn = to_mathml(latex, display)
        assert drawn is not None
        assert "\\" not in read_html(drawn)


@pytest.mark.parametrize(
    "latex",
    [
        *("", "x_", "{", r"\frac{1}", r"\foo x", r"\begin{align}a", r"\left(x", "x" * 2001),
        *(r"\def\a{\a\a}\a", r"\newcommand{\a}{b}\a", r"\text{\alpha}", "{" * 1500),
    ],
    ids=lambda latex: latex[:12],
)
def test_what_is_not_understood_is_not_drawn(latex: str) -> None:
    assert to_mathml(latex) is None


def test_a_dollar_in_a_formula_is_a_dollar() -> None:
    assert "$5" in read_html(to_mathml(r"\text{\text{\textdollar}5}") or "")


@examples(3)
@given(st.text(st.sampled_from(r"\{}[]^_&%$#'<>/ab1 " + "\x00\ud800"), max_size=40))
def test_any_formula_is_drawn_inert_or_not_at_all(latex: str) -> None:
    drawn = to_mathml(latex)
    assert drawn is None or read_html(drawn) is not None


# -- in a browser


def watched(view: Page) -> list[str]:
    """What a page asks for and says from now on."""
    happened: list[str] = []
    view.on("request", lambda request: happened.append(request.url))
    view.on("dialog", lambda dialog: happened.append(dialog.message))
    view.on("console", lambda message: happened.append(message.text))
    return happened


def test_a_browser_shows_the_page_and_asks_for_nothing(browser: Browser, tmp_path: Path) -> None:
    step = replace(STEPS[0], content="\n\n".join(ATTACKS))
    page = as_html(asked("q", step, Answer("\n\n".join(ATTACKS), 1.0, 1)), WORDS)
    file = tmp_path / "run.html"
    file.write_text(page, encoding="utf-8")
    for scheme in ("light", "dark"):
        context = browser.new_context(viewport={"width": 390, "height": 844}, color_scheme=scheme)
        view = context.new_page()
        happened = watched(view)
        view.goto(file.as_uri())
        assert happened == [file.as_uri()]
        assert view.evaluate("document.documentElement.scrollWidth") <= 390
        assert view.evaluate("document.querySelectorAll('math').length") > 0
        context.close()


def test_the_steps_fold_open_one_by_one_all_together_and_on_paper(
    browser: Browser, tmp_path: Path
) -> None:
    file = tmp_path / "run.html"
    file.write_text(as_html(TRACE, WORDS), encoding="utf-8")
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    view = context.new_page()
    view.goto(file.as_uri())
    first, last = view.get_by_text("All but"), view.get_by_text("half a sent")
    assert (first.is_visible(), last.is_visible()) == (False, False)
    view.get_by_text('Read "it"').click()
    assert (first.is_visible(), last.is_visible()) == (True, False)
    view.get_by_label("Show all steps").check()
    assert (first.is_visible(), last.is_visible()) == (True, True)
    view.get_by_label("Show all steps").uncheck()
    view.emulate_media(media="print")
    assert (first.is_visible(), last.is_visible()) == (True, True)
    OUTPUT.mkdir(exist_ok=True)
    view.screenshot(path=OUTPUT / "taken.png", full_page=True)
    context.close()


# -- names


@pytest.mark.parametrize(
    ("question", "name"),
    [
        ("How many R's are there?", "stepwise-How-many-R-s-are-there.md"),
        ("单词里有几个 r？", "stepwise-单词里有几个-r.md"),
        ("../../etc/passwd\0", "stepwise-etc-passwd.md"),
        ("CON", "stepwise-CON.md"),
        (" ?! ", "stepwise.md"),
        ("", "stepwise.md"),
        ("x" * 500, f"stepwise-{'x' * 60}.md"),
    ],
)
def test_a_file_is_named_by_its_question(question: str, name: str) -> None:
    assert file_name(question, "md") == name


@given(st.text(max_size=200))
def test_any_question_gives_a_name_that_every_file_system_takes(question: str) -> None:
    name = file_name(question, "html")
    assert re.fullmatch(r"stepwise[\w-]*\.html", name)
    assert len(name.encode()) <= 255


def test_the_page_that_is_sent_has_the_colours_of_the_page() -> None:
    """A style sheet takes no value from another file: it says what the theme says."""
    theme = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))[
        "theme"
    ]
    rules = re.findall(r":root \{[^}]*--text[^}]*\}", STYLE)
    assert len(rules) == 2
    for rule, scheme in zip(rules, ("light", "dark"), strict=True):
        names = {"back": "background", "soft": "secondaryBackground", "line": "border"}
        for name, told in {**names, "link": "link"}.items():
            assert f"--{name}: {theme[scheme][f'{told}Color']};" in rule
    backs = [theme[scheme]["backgroundColor"] for scheme in ("light", "dark")]
    sheet = (ROOT / "page" / "page.css").read_text(encoding="utf-8")
    assert f"background: light-dark({', '.join(backs)})" in sheet
