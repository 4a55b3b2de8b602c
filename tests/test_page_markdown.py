"""A model's Markdown becomes Markdown that Streamlit renders right and that loads nothing."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from page.markdown import TITLE_LENGTH, plain_line, safe_block, safe_blocks, split_blocks
from tests.examples import examples

READER = MarkdownIt("commonmark", {"html": True}).enable("table")
ARROW, JOINER, HAIR = "\u2197", "\u2060", "\u200a"


def whole(text: str) -> str:
    return "\n\n".join(safe_blocks(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # mathematics
        (r"a \(x^2\) b", "a $x^2$ b"),
        (r"$x$ and $y$", "$x$ and $y$"),
        (r"\[ x = 1 \]", "$$\nx = 1\n$$"),
        ("$$x = 1$$", "$$\nx = 1\n$$"),
        ("$$\nx\n= 1\n$$", "$$\nx\n= 1\n$$"),
        ("so \\[ x \\] holds", "so \n$$\nx\n$$\nholds"),
        ("\\[\nx\n\n+ 1\n= 2\n\\]", "$$\nx\n+ 1\n= 2\n$$"),
        ("1. Do\n   \\[ x \\]\n2. End", "1. Do\n   $$\n   x\n   $$\n2. End"),
        ("> so \\[ x \\]", "> so \n> $$\n> x\n> $$"),
        ("\\begin{align}\na&=b\n\\end{align}", "$$\n\\begin{align}\na&=b\n\\end{align}\n$$"),
        ("\\(a\nb\\)", "$a b$"),
        (r"\(a\)\(b\)", f"$a${JOINER}$b$"),
        (r"\(a\)2", f"$a${JOINER}2"),
        ("$n$th and $2x$-axis", "$n$th and $2x$-axis"),
        (r"$\text{\$5}$", r"$\text{\text{\textdollar}5}$"),
        ("$a<b$ and \\[ c<d \\]", "$a\\lt b$ and \n$$\nc\\lt d\n$$"),
        (r"a matrix \\[2pt] b", r"a matrix \\[2pt] b"),
        ("| a | b |\n|---|---|\n| \\[x\\] | \\(y\\) |", "| a | b |\n|---|---|\n| $x$ | $y$ |"),
        ("# On \\[x\\]", "##### On $x$"),
        (r"it is \boxed{0.05} dollars", r"it is $\boxed{0.05}$ dollars"),
        (r"\boxed{\text{a^{b}}}", r"$\boxed{\text{a^{b}}}$"),
        (r"\boxed{x, `\boxed{1}`", r"\boxed{x, `\boxed{1}`"),
        # mathematics without dollars
        (
            r"is \frac{9 \text{ km}}{2} = 4.5 \text{ km}. It",
            r"is $\frac{9 \text{ km}}{2} = 4.5 \text{ km}$. It",
        ),
        (r"\text{v} = \sqrt{2} \approx 1.4, so", r"$\text{v} = \sqrt{2} \approx 1.4$, so"),
        (r"3 \times 4 = 12 apples", r"3 $\times 4 = 12$ apples"),
        (r"half \frac{1}{2} a day", r"half $\frac{1}{2}$ a day"),
        (r"C:\times\text\new", r"C:\times\text\new"),
        (r"\frac{1}{2", r"\frac{1}{2"),
        (r"`\frac{1}{2}`", r"`\frac{1}{2}`"),
        # money
        ("costs $5 and $6", r"costs \$5 and \$6"),
        ("costs $5, so $x$ is 5", r"costs \$5, so $x$ is 5"),
        ("US$5 (or 6$)", r"US\$5 (or 6\$)"),
        ("$5 for one, 6$ for two", r"\$5 for one, 6\$ for two"),
        ("from $5-$6 to $10/$20", r"from \$5-\$6 to \$10/\$20"),
        ("**$5** and **$6**", r"**\$5** and **\$6**"),
        ("$HOME/$PATH", r"\$HOME/\$PATH"),
        ("价格是$5到$6", r"价格是\$5到\$6"),
        ("| a |\n|---|\n| $5 |\n| $6 |", "| a |\n|---|\n| \\$5 |\n| \\$6 |"),
        # what is not finished
        (r"so \( x", r"so \\\( x"),
        (r"so \[ x", r"so \\\[ x"),
        ("so $$ x", r"so \$\$ x"),
        ("so $x", r"so \$x"),
        ("```py\nx = 1", "```py\nx = 1\n```"),
        ("- a\n  ```\n  x", "- a\n  ```\n  x\n  ```"),
        ("Here:\n-", "Here:\n\\-"),
        # code is untouched
        ("```\n$x$ \\(y\\) ![a](b) :red[c] <b>\n```", "```\n$x$ \\(y\\) ![a](b) :red[c] <b>\n```"),
        ("~~~\n\\[ x \\]\n~~~", "~~~\n\\[ x \\]\n~~~"),
        ("use `$x$` or `vec![1]`", "use `$x$` or `vec![1]`"),
        ("`` a`![b](c) ``", "`` a`![b](c) ``"),
        ("use `$$` or `$$`", "use `$$` or `$$`"),
        # pictures
        ("![cat](http://e/c.png)", f"{ARROW} [cat](http://e/c.png)"),
        ("![](http://e/c.png)", f"{ARROW} [image](http://e/c.png)"),
        ("![cat][1]", f"{ARROW} [cat][1]"),
        ("!![a](http://b)", "!\u2197 [a](http://b)"),
        ("[a](data:text/html,b)", "[a\\](data\\:text/html,b)"),
        ("[a](data&colon;b)", "[a\\](data&colon;b)"),
        ("[a]( <vbscript:b>)", "[a\\]( \\<vbscript\\:b>)"),
        ("f[x](y) and [a](HTTPS://b) and [c](#d)", "f[x\\](y) and [a](HTTPS://b) and [c](#d)"),
        ("vec![1] here", r"vec\![1] here"),
        ("[1]: http://e/c.png", r"[1]\: http://e/c.png"),
        # HTML, directives, emoji
        ("<b>x</b>", r"\<b>x\</b>"),
        ("a < b", r"a \< b"),
        ("<https://e.org/a_b>", "<https://e.org/a_b>"),
        (":red[x]", r"\:red[x]"),
        ("colour:red", r"colour\:red"),
        (":::note", r"\:\:\:note"),
        (":smile:", f"\\:{JOINER}smile:"),
        (":material/home:", f"\\:{JOINER}material/home:"),
        ("at 12:30:45", "at 12:30:45"),
        ("https://e.org:80/a:b~c*d", "https://e.org:80/a:b~c*d"),
        # headings, lists, tables, emphasis
        ("# One\n\n###### Six", "##### One\n\n###### Six"),
        ("One\n===", "##### One"),
        ("- a\n- b\n\n1. c", "- a\n- b\n\n1. c"),
        ("| a | b |\n|:--|--:|\n| 1 | 2 |", "| a | b |\n|:--|--:|\n| 1 | 2 |"),
        ("2*3*4 and 5~10, 20~30", r"2\*3\*4 and 5\~10, 20\~30"),
        ("~~gone~~ **bold** *soft*", "~~gone~~ **bold** *soft*"),
        ("**结论:**因此", f"**结论:**{HAIR}因此"),
        ("是**“好”**的", f"是{HAIR}**“好”**{HAIR}的"),
        (r"\* \# \$5", r"\* \# \$5"),
        ("a\x00b\x1b[0m\u2028c", "ab[0mc"),
    ],
)
def test_text_becomes(text: str, expected: str) -> None:
    assert whole(text) == expected


def images(text: str) -> int:
    tokens = READER.parse(text)
    return sum(child.type == "image" for token in tokens for child in token.children or ())


def html(text: str) -> int:
    kinds = ("html_block", "html_inline")
    tokens = READER.parse(text)
    inner = [child for token in tokens for child in token.children or ()]
    return sum(token.type in kinds for token in [*tokens, *inner])


PICTURES = [
    "![a](http://e/x.png)",
    "![a](<http://e/x y.png> 'title')",
    "![a][r]\n\n[r]: http://e/x.png",
    "![r][]\n\n[r]: http://e/x.png",
    "![r]\n\n[r]: http://e/x.png",
    "[x]:\n![a](http://e/x.png)",
    "[x\ny]: /u\n\n![x\ny]",
    "[![badge](http://e/x.png)](http://e)",
    "![a [b] ![c](http://e/y.png)](http://e/x.png)",
    "\\![a](http://e/x.png)",
    "\\\\![a](http://e/x.png)",
    "- a `\n- ![x](http://e/x.png) ` b",
    "| a ` | ![x](http://e/x.png) ` |\n|---|---|\n| 1 | 2 |",
    "$`$ ![x](http://e/x.png) `",
    "$$ ![x](http://e/x.png)\n\n$$ ` $$ ![y](http://e/y.png) `",
    "\\( ` \\) ![x](http://e/x.png) `",
    "```\na\n```\n![x](http://e/x.png)",
    "> ```\n![x](http://e/x.png)",
    "    code\n![x](http://e/x.png)",
    "<div>\n![x](http://e/x.png)\n</div>\n\n![y](http://e/y.png)",
    "http://e/![x](http://e/x.png)",
    "# ![x](http://e/x.png)",
    "![x](http://e/x.png)\n===",
    "\\[ a \\] ![x](http://e/x.png)",
    "`\n<!-- -->\n![x](http://e/x.png)`",
    "|![x](http://e/x.png)|\n|-|\n|![y](http://e/y.png)|",
]


@pytest.mark.parametrize("text", PICTURES)
def test_no_form_of_a_picture_survives(text: str) -> None:
    assert not images(whole(text))
    assert not any(images(block) for block in safe_blocks(text))


PIECES = st.sampled_from(
    [
        *("word", "x1", "5", "结论", "\u00e9", " ", " ", "\n", "\n\n", "    ", "  \n", "\t"),
        *("`", "``", "```", "```py\n", "~~~", "~", "$", "$$", "\\", "\\(", "\\)", "\\[", "\\]"),
        *("\\frac{", "}{", "}", "\\text{a}", "\\times ", " = "),
        *("![", "!", "[", "]", "](", "(", ")", "][", "]:", ": ", "<", ">", "<b>", "</b>", "<!--"),
        *("http://e/x.png", "![a](http://e/x.png)", "[r]: http://e/x.png", "![r]", "<http://e>"),
        *(
            "# ",
            "## ",
            "===",
            "---",
            "- ",
            "* ",
            "1. ",
            "> ",
            "| ",
            "|\n",
            "|---|---|\n",
            "**",
            "*",
        ),
        *(
            "|---|---|\n",
            ":red[",
            ":smile:",
            ":material/home:",
            ":::",
            "\\begin{align}",
            "\\end{align}",
        ),
        *("\\$", "\\`", "\\!", "_", "\x00", "\r\n", "\u2028", "\ue000", "\ue0010\ue001"),
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map("".join)


@examples(4)
@given(TEXTS)
@example("[x\ny]: /u\n\n![x\ny]")
@example("word```py\n<!--```")
def test_whatever_is_written_no_picture_and_no_html_is_left(text: str) -> None:
    for made in (whole(text), *safe_blocks(text)):
        assert not images(made), made
        assert not html(made), made


@examples(4)
@given(TEXTS)
@example("\\[word\\]5 and \\[x1\\]\\(word\\)")
def test_no_word_is_lost_and_their_order_stays(text: str) -> None:
    kept = iter(re.findall(r"[^\W_]+", whole(text)))
    for word in re.findall(r"[^\W_]+", re.sub("[\x00\u2028\ue000-\ue002]", "", text)):
        assert word in kept, (word, whole(text))


@examples(3)
@given(st.text(max_size=300))
def test_any_text_is_taken(text: str) -> None:
    assert not images(whole(text))
    assert "\n" not in plain_line(text)


REPLY = """The word is **strawberry**: it costs $5 or $6.

1. Count \\( r \\):
   \\[
   n
   = 3
   \\]
2. Check

```python
print("$x$")

# done
```

$$
- a

+ b
$$

| a | b |
|---|---|
| $x$ | 2 |

## End

So ![r](http://e/r.png) is **3**."""


def test_text_that_grows_changes_its_last_block_only() -> None:
    for end in range(len(REPLY)):
        settled = split_blocks(REPLY[:end])[:-1]
        assert split_blocks(REPLY)[: len(settled)] == settled, REPLY[:end]


def test_every_state_of_growing_text_is_safe() -> None:
    for end in range(len(REPLY)):
        made = whole(REPLY[:end])
        assert not images(made)
        assert made.count("```") % 2 == 0, made


def test_making_safe_again_changes_no_formula_and_no_code() -> None:
    made = whole("$x$ and `$y$`\n\n$$\nz\n$$")
    assert whole(made) == made


@pytest.mark.parametrize(
    "text",
    [
        *("`" * 30_000, "` `` " * 8_000, "\\[" * 20_000, "$" * 30_000, "$a " * 15_000),
        *("![" * 20_000, "\\begin{align}" * 2_000, "[" * 20_000, "**" * 10_000, "> " * 2_000),
        *("\\frac{" * 8_000, "\\text{a}" * 5_000, "\\times " * 5_000),
    ],
    ids=lambda text: text[:8],
)
def test_hostile_text_is_read_in_seconds(text: str) -> None:
    began = time.monotonic()
    whole(text)
    assert time.monotonic() - began < 20


def test_a_title_is_one_short_line_of_plain_text() -> None:
    hostile = (
        "# **a**\n![x](http://e/x.png) <img src=x> `c` $x$ :smile: :red[y] [l](http://e)\n" * 200
    )
    made = plain_line(hostile)
    assert "\n" not in made
    assert not images(made)
    assert not html(made)
    [paragraph] = [token for token in READER.parse(made) if token.type == "inline"]
    shown = "".join(child.content for child in paragraph.children or ())
    assert shown.replace(JOINER, "").startswith("# **a** ![x](http://e/x.png) <img src=x> `c` $x$")
    assert len(shown.replace(JOINER, "")) <= TITLE_LENGTH + 1


@pytest.mark.parametrize("text", ["1. First", "- First", "+ First", "> First", "=== First"])
def test_a_title_is_no_list_and_no_quote(text: str) -> None:
    assert READER.parse(plain_line(text))[0].type == "paragraph_open"


def test_safe_is_the_same_for_the_same_block() -> None:
    assert safe_block("a \\(x\\)") == safe_block("a \\(x\\)") == "a $x$"
