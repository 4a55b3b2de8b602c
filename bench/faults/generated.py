r"""What a model might write, made up by chance: whole replies of each way, and damaged ones.

A seed gives the same replies again. Each becomes pieces as a server's events become them, so that
what chunks.py takes out (control characters, lone surrogates) is out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from reasoning.chunks import Piece, read_chunk
from reasoning.errors import Busy, ServerFault, Silent, StepwiseError, Unreachable
from tests.stub import step_text

LONGEST = 4000  # characters of a reply; longer ones cost time and say nothing new
REASONS = ("stop",) * 6 + ("length",) * 3 + ("repetition", "content_filter", "tool_calls")
SIZES = (1, 3, 16, 64, LONGEST)  # characters of a piece
TRAPS = (
    *("{", "}", "[", "]", '"', "\\", "\\u", "\\ud800", "\ud800", ",", ":", "null", "NaN", "1e999"),
    *(
        "\x1b[2J",
        "\x00",
        "\u202e",
        "\ufeff",
        "\u2028",
        "😀",
        "第一步",
        "答案：",
        "\t",
        "\r\n",
        "\n\n",
    ),
    *("```", "```json\n", "$$", "$", "\\[", "\\]", "\\boxed{", "\\boxed{7}", "\\frac{1}{2}", "**"),
    *("<think>", "</think>", "</thi", "<|im_end|>", "<|endoftext|>", "<|continue|>", "<|reflect|>"),
    *("<|explore|>", "<|ex", "### ", "###### ", "#", "Step 1: ", "Step ", "1. ", "2) ", "- ", "> "),
    *("### Answer\n\n", "Answer: ", "Final Answer", "Therefore, ", "So ", "First, ", "Wait, "),
    *(
        '"next_action": "final_answer"',
        '"content": null',
        '"title": "',
        "final_answer",
        "word " * 99,
    ),
    *("<script>alert(1)</script>", "![x](https://evil.example/x.png)", "|a|b|\n|-|-|\n", "[" * 300),
)
WORDS = ("the", "sum", "of", "two", "apples", "is", "seven", "so", "we", "add", "them", "again")


@dataclass(frozen=True, slots=True)
class Written:
    """A reply and why its server ended it; `fault` in the place of its end, where one breaks it."""

    text: str
    finish_reason: str = "stop"
    thought: str = ""  # told apart, in a field of its own
    refusal: str = ""
    fault: StepwiseError | None = None
    size: int = LONGEST
    counted: bool = True  # whether the server counts tokens with each piece

    @property
    def is_cut(self) -> bool:
        return self.finish_reason in ("length", "repetition")

    def pieces(self) -> list[Any]:
        """As tests.scripted says them."""
        told = [_event(reasoning=part) for part in _parts(self.thought, self.size)]
        told += [_event(content=part) for part in _parts(self.text, self.size)]
        if self.refusal:
            told.append(_event(refusal=self.refusal))
        if self.counted:
            for number, event in enumerate(told, 1):
                event["usage"] = {"prompt_tokens": 50, "completion_tokens": 4 * number}
        read: list[Any] = [read_chunk(event) for event in told]
        if self.fault is not None:
            return [*read, self.fault]
        last = {"choices": [{"delta": {}, "finish_reason": self.finish_reason}]}
        return [*read, read_chunk(last), Piece("", None, 50, 4 * len(told) + 1)]


def _event(**delta: str) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]}


def _parts(text: str, size: int) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


class Writer:
    """Makes replies up, for one way of thinking."""

    def __init__(self, random: Random, way: str, cases: Sequence[str]) -> None:
        self._random, self._way, self._cases = random, way, cases

    def replies(self) -> list[Written]:
        """What is said in a chain, in this order; the last for ever."""
        return [self._reply(number) for number in range(1, self._random.randint(2, 7))]

    def _reply(self, number: int) -> Written:
        chance = self._random.random
        text = self._damaged(self._whole(number)) if chance() < 0.6 else self._whole(number)
        return Written(
            text[:LONGEST],
            self._random.choice(REASONS),
            self._sentences(9) if chance() < 0.1 else "",
            self._words() if chance() < 0.02 else "",
            self._fault() if chance() < 0.05 else None,
            self._random.choice(SIZES),
            chance() < 0.7,
        )

    def _fault(self) -> StepwiseError:
        kind = self._random.choice((Unreachable, Busy, ServerFault, Silent))
        return kind("It broke.", "Try again.")

    # -- whole

    def _whole(self, number: int) -> str:
        if self._random.random() < 0.1:
            return self._random.choice(("", " \n", self._words(), self._random.choice(self._cases)))
        wholes = {"json_steps": self._json_step, "cot": self._headed, "coat": self._coat}
        if self._way in wholes:
            return str(wholes[self._way](number))
        thought = f"<think>\n{self._sentences(6)}\n</think>\n\n" if self._way == "native" else ""
        return f"{thought}{self._sentences(3)}"

    def _json_step(self, number: int) -> str:
        if self._random.random() < 0.1:  # any JSON in the place of any value
            keys = ("title", "content", "next_action", "more")
            return json.dumps({key: self._json(3) for key in keys if self._random.random() < 0.8})
        action = self._random.choice(("continue", "continue", "final_answer", "Final Answer", "x"))
        text = step_text(f"{number} {self._words()}", self._sentences(4), action)
        wraps = ("{}", "{}", "{}", "```json\n{}\n```", "Sure:\n{}\nThere.", "[{}]", "{}{}")
        return self._random.choice(wraps).replace("{}", text)

    def _headed(self, number: int) -> str:
        heads = ("### {}", "**{}**", "Step {}: add", "{}. Add", "{}. **Add**: so", "", "## Step {}")
        steps = [
            self._random.choice(heads).replace("{}", f"{number}{at} {self._words()}")
            + f"\n\n{self._sentences(3)}"
            for at in range(self._random.randint(1, 5))
        ]
        ends = (
            "### Answer\n\n7",
            "Answer: 7",
            "Therefore, it is 7.",
            "$\\boxed{7}$",
            "",
            "**Answer: 7**",
        )
        return "\n\n".join([*steps, self._random.choice(ends)])

    def _coat(self, number: int) -> str:
        actions = ("<|continue|>", "<|reflect|>", "<|explore|>", "")
        steps = [
            self._random.choice(actions) + self._sentences(3)
            for _ in range(self._random.randint(1, 6))
        ]
        ends = ("\\boxed{7}", "\\boxed{\\frac{1}{2}}", "\\boxed{", "7}$$", "<|im_end|>", "")
        return "\n\n".join(steps) + self._random.choice(ends)

    def _words(self) -> str:
        return " ".join(self._random.choices(WORDS, k=self._random.randint(1, 8)))

    def _sentences(self, most: int) -> str:
        many = range(self._random.randint(1, most))
        gaps = (" ", " ", "\n", "\n\n")
        return "".join(f"{self._words()}.{self._random.choice(gaps)}" for _ in many)

    def _json(self, depth: int) -> Any:
        leaves = (None, True, 0, -1.5, 1e308, "", self._words(), self._random.choice(TRAPS))
        if depth == 0 or self._random.random() < 0.5:
            return self._random.choice(leaves)
        values = [self._json(depth - 1) for _ in range(self._random.randint(0, 3))]
        return values if self._random.random() < 0.5 else {str(n): v for n, v in enumerate(values)}

    # -- damaged

    def _damaged(self, text: str) -> str:
        for _ in range(self._random.randint(1, 4)):
            start, end = sorted(self._random.randint(0, len(text)) for _ in range(2))
            trap = self._random.choice(TRAPS)
            text = self._random.choice(
                (
                    text[:start],
                    text[:start] + text[min(end, start + 9) :],
                    text[:start] + trap + text[start:],
                    text[:start] + trap * self._random.randint(1, 6) + text[start:],
                    text[:start] + text[start:end] * 2 + text[end:],
                    text + trap,
                    trap + text,
                )
            )[:LONGEST]
        return text
