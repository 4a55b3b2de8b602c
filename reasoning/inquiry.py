"""What a chain is asked: the question, how it is to be thought about, and what came before.

One value from a click or a call to the way of thinking. It holds the texts as they were given;
think.py makes them fit to be sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self
from zlib import crc32

from reasoning.capabilities import Format
from reasoning.events import Settings, Started, Steer, Steering, Step, Turn
from reasoning.parsing import clean_text, one_line


@dataclass(frozen=True, slots=True)
class AnswerForm:
    """What the final answer must look like; the steps are not touched by it.

    `stop` ends the answer before any of these texts. `schema` is a JSON Schema, given
    with the format "json_schema" alone. Raises ValueError where the two do not agree.
    """

    stop: tuple[str, ...] = ()
    format: Format = "text"
    schema: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if (self.format == "json_schema") != (self.schema is not None):
            raise ValueError(f"expected a schema with json_schema alone, got {self.format}")


@dataclass(frozen=True, slots=True)
class Inquiry:
    """A question and all that goes with it.

    `way` is a key of think.WAYS, an empty `language` the question's own. `steps` are finished
    ones to go on after: the model is asked for the next, or for what `steer` says. `history`
    are the conversation's earlier turns, oldest first. `prompts` are texts in the place of
    ours, by name; `instructions` is the caller's own system prompt, which stands behind ours.
    """

    question: str
    way: str = ""
    settings: Settings = field(default_factory=Settings)
    language: str = ""
    steps: tuple[Step, ...] = ()
    history: tuple[Turn, ...] = ()
    steer: Steer | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    instructions: str = ""
    answer_form: AnswerForm = AnswerForm()

    @classmethod
    def of(cls, started: Started, steps: tuple[Step, ...] = ()) -> Self:
        """What must have been asked for a run to begin so."""
        return cls(
            question=started.question,
            way=started.way,
            settings=started.settings,
            language=started.language,
            steps=steps,
            history=started.history,
            steer=started.steer,
            prompts=started.prompts,
            instructions=started.instructions,
        )

    def started(self, model: str, at: float) -> Started:
        """The event of a chain that begins with it."""
        return Started(
            question=self.question,
            model=model,
            way=self.way,
            language=self.language,
            at=at,
            settings=self.settings,
            history=self.history,
            steer=self.steer,
            prompts=dict(self.prompts),
            instructions=self.instructions,
        )

    def asked_of(self, number: int) -> Steering | None:
        """What the reader asked of step `number`: it is the first after the finished ones."""
        return self.steer.how if self.steer and number == len(self.steps) + 1 else None

    def instead_of(self, number: int) -> tuple[str, ...]:
        """What step `number` may not say again, where it is to replace a step that did."""
        if self.steer and self.asked_of(number) == "again":
            return (self.steer.instead_of,)
        return ()

    def seed(self, tried: int = 0, number: int = 0) -> int | None:
        """A request's seed. Without one in the settings only another attempt has its own.

        One at a step that is asked for again depends on what it is to replace.
        """
        for replaced in self.instead_of(number):
            tried += 1 + crc32(replaced.encode("utf-8", "replace")) % 10**6
        if self.settings.seed is None:
            return tried or None
        return self.settings.seed + tried


def edit_step(step: Step, title: str, content: str) -> Step:
    """The step with a reader's words, whole and not final: the chain goes on after it.

    `raw` becomes the content alone, with the white space that stood around the model's text.
    """
    title, content = one_line(clean_text(title)) or step.title, clean_text(content)
    action = "continue" if step.action == "final_answer" else step.action
    raw = _around(step.raw, content)
    return replace(
        step, title=title, content=content, action=action, raw=raw, edited=True, cut=False
    )


def _around(raw: str, content: str) -> str:
    start = raw[: len(raw) - len(raw.lstrip())]
    end = raw[len(raw.rstrip()) :] if raw.strip() else ""
    return start + content + end
