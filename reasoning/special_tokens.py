"""Text that a tokenizer would read as a control token, made plain text again.

A person or a model may write `<|im_end|>`; inside a chat template it would end the
turn. Which texts are special only the tokenizer knows, so it is asked, and only when
a text looks like it; a zero-width space after the first character then splits the
token. What is shown to people stays unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable

# Every special token of the Llama, Qwen, Mistral, Gemma, DeepSeek and SmolLM families.
_LOOKS_SPECIAL = re.compile(r"<[^\s<>]{1,40}>|\[/?[A-Z_]{2,24}\]")
_SPLIT = "\u200b"

Ask = Callable[[Iterable[str]], Awaitable[frozenset[str]]]


async def as_plain_text(text: str, special_tokens: Ask) -> str:
    """The text with no special token in it, by the tokenizer's own word."""
    candidates = set(_LOOKS_SPECIAL.findall(text))
    for token in await special_tokens(candidates) if candidates else ():
        text = text.replace(token, token[0] + _SPLIT + token[1:])
    return text
