"""The tasks: questions with their graders, the same each time for the same seed.

* reasoning-gym's generators (github.com/open-thought/reasoning-gym), each at up to three levels
* "tutorial": what the tutorials of step-by-step reasoning ask
* GSM8K and MATH from the user's own files, as published: JSONL with `question` and `answer`
  ("... #### 18"), or with `problem` and `solution` ("... \\boxed{18}")

Who grades is reasoning-gym's own `score_answer`, or math-verify; never we.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evals.answers import REQUEST, from_answer_on, read_line, read_result
from reasoning.boxes import find_boxes


@dataclass(frozen=True, slots=True)
class Mark:
    """A grader's mark from 0 to 1, and the answer that it was given; 1 is correct."""

    score: float
    answer: str

    @property
    def correct(self) -> bool:
        return self.score >= 1


@dataclass(frozen=True, slots=True)
class Problem:
    """`text` is what the model is asked, `target` the right answer."""

    number: int
    text: str
    target: str
    entry: dict[str, Any] = field(default_factory=dict)  # as reasoning-gym made it


@dataclass(frozen=True, slots=True)
class ProblemSet:
    """Some problems of a kind; `grade` marks a whole reply to one of them."""

    name: str
    problems: tuple[Problem, ...]
    grade: Callable[[str, Problem], Mark]


@dataclass(frozen=True, slots=True)
class Generator:
    """One of reasoning-gym's: how its answers are read, and what it is given at each level."""

    read: Callable[[str], str]
    levels: dict[str, dict[str, Any]]


def _levels(*names: str, easy: Any, medium: Any, hard: Any) -> dict[str, dict[str, Any]]:
    """The levels of a generator whose parameters are `names`, in their order."""
    given = {"easy": easy, "medium": medium, "hard": hard}
    return {level: dict(zip(names, values, strict=True)) for level, values in given.items()}


def _range(name: str, *others: str, easy: Any, medium: Any, hard: Any) -> dict[str, dict[str, Any]]:
    """The same for parameters that come as min_ and max_."""
    names = [f"{bound}_{one}" for one in (name, *others) for bound in ("min", "max")]
    return _levels(*names, easy=easy, medium=medium, hard=hard)


GENERATORS = {
    "letter_counting": Generator(
        read_result, _range("words", easy=(1, 2), medium=(5, 8), hard=(15, 25))
    ),
    "chain_sum": Generator(
        read_result,
        _range("terms", "digits", easy=(2, 2, 1, 1), medium=(3, 4, 2, 3), hard=(5, 7, 4, 5)),
    ),
    "basic_arithmetic": Generator(
        read_result,
        _range("terms", "digits", easy=(2, 2, 1, 1), medium=(3, 4, 1, 2), hard=(5, 6, 2, 4)),
    ),
    "products": Generator(read_result, _range("digits", easy=(1, 1), medium=(2, 2), hard=(3, 4))),
    "gcd": Generator(
        read_result,
        _levels("max_numbers", "max_value", easy=(2, 20), medium=(2, 200), hard=(3, 2000)),
    ),
    "leg_counting": Generator(
        read_result,
        _range(
            "animals", "instances", easy=(1, 2, 1, 3), medium=(3, 5, 1, 10), hard=(6, 10, 1, 15)
        ),
    ),
    "simple_equations": Generator(
        read_result,
        _levels("max_terms", "max_value", easy=(2, 10), medium=(3, 50), hard=(5, 100)),
    ),
    "count_bits": Generator(
        read_result, _levels("max_n", easy=(15,), medium=(255,), hard=(65535,))
    ),
    "number_sequence": Generator(
        read_result, _levels("max_complexity", easy=(1,), medium=(2,), hard=(3,))
    ),
    "simple_geometry": Generator(
        read_result, _range("sides", easy=(3, 3), medium=(4, 5), hard=(6, 8))
    ),
    "gsm_symbolic": Generator(
        read_result, {"medium": {}}
    ),  # reasoning-gym 0.1.25 has one difficulty
    "spell_backward": Generator(
        read_line, _range("word_len", easy=(3, 3), medium=(4, 6), hard=(8, 10))
    ),
    "family_relationships": Generator(
        read_line, _range("family_size", easy=(3, 4), medium=(5, 7), hard=(8, 12))
    ),
    "knights_knaves": Generator(
        read_line,
        _levels(
            "n_people",
            "depth_constraint",
            "width_constraint",
            easy=(2, 2, 2),
            medium=(3, 2, 2),
            hard=(4, 3, 3),
        ),
    ),
}

TUTORIAL = (  # what the tutorials' readers try first, and their right answers
    ("How many Rs are in strawberry?", "3"),
    ("Which number is larger, .9 or .11?", "0.9"),
    ("Which is larger, 9.11 or 9.9?", "9.9"),
    ("A farmer has 17 sheep. All but 9 run away. How many sheep are left?", "9"),
    ("5 machines make 5 toys in 5 minutes. How many minutes do 100 machines need for 100?", "5"),
    ("A bat and a ball cost $1.10; the bat costs $1 more. How many cents is the ball?", "5"),
    ("A train goes 60 km in 45 minutes. What is its speed in km/h?", "80"),
    ("What is 15% of 240?", "36"),
)
FILES = {"gsm8k": ("question", "answer"), "math": ("problem", "solution")}


def known_tasks() -> list[str]:
    """The names that `task` takes, those of files with a PATH to be filled in."""
    made = [f"{name}:{level}" for name, one in GENERATORS.items() for level in one.levels]
    return [*made, "tutorial", *(f"{name}:PATH" for name in FILES)]


def check_name(name: str) -> None:
    """Raises ValueError, in one line, where `task` could not make that task."""
    kind, _, level = name.partition(":")
    if kind in FILES:
        if not Path(level).is_file():
            raise ValueError(f"{name}: expected a JSONL file, as in {kind}:path/to/test.jsonl")
    elif kind in GENERATORS:
        levels = GENERATORS[kind].levels
        if level not in levels:
            expected = " or ".join(f"{kind}:{one}" for one in levels)
            raise ValueError(f"There is no task called {name}; expected {expected}.")
    elif name != "tutorial":
        raise ValueError(f"There is no task called {name}. --list shows them.")


def task(name: str, limit: int, seed: int) -> ProblemSet:
    """At most `limit` problems of that kind.

    Raises ValueError, in one line, for a file that is not as published.
    """
    kind, _, level = name.partition(":")
    if kind in GENERATORS:
        return _generated(name, GENERATORS[kind], limit, seed)
    rows = _rows(kind, Path(level)) if kind in FILES else list(TUTORIAL)
    if kind in FILES and len(rows) > limit:
        rows = random.Random(seed).sample(rows, limit)
    problems = [
        Problem(number, question + REQUEST, target)
        for number, (question, target) in enumerate(rows[:limit], 1)
    ]
    return ProblemSet(name, tuple(problems), verified)


# -- reasoning-gym's


def _generated(name: str, generator: Generator, limit: int, seed: int) -> ProblemSet:
    import reasoning_gym  # takes seconds, and --list needs none of it

    kind, _, level = name.partition(":")
    made = reasoning_gym.create_dataset(kind, size=limit, seed=seed, **generator.levels[level])
    problems = [
        Problem(number, entry["question"].strip() + REQUEST, entry["answer"], entry)
        for number, entry in enumerate(made, 1)
    ]

    def grade(content: str, problem: Problem) -> Mark:
        answer = generator.read(content)
        return Mark(float(made.score_answer(answer, problem.entry)), answer)

    return ProblemSet(name, tuple(problems), grade)


# -- math-verify's


def verified(content: str, problem: Problem) -> Mark:
    """math-verify's mark, which finds the answer by itself in what the reply tells as such."""
    from math_verify import parse, verify  # loads sympy

    found = parse(from_answer_on(content))
    correct = verify(parse(f"${problem.target}$"), found)
    return Mark(float(correct), str(found[-1]) if found else "")


def _rows(kind: str, path: Path) -> list[tuple[str, str]]:
    """The questions of a published file with their right answers."""
    asked, solved = FILES[kind]
    rows = []
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
            rows.append((row[asked], _target(row[solved])))
        except (ValueError, LookupError, TypeError) as error:
            raise ValueError(
                f'{path}, line {number}: expected {{"{asked}": ..., "{solved}": ...}} with a final '
                f'answer behind "####" or in a box: {error!r:.80}'
            ) from None
    return rows


def _target(solution: str) -> str:
    """The final answer of a published solution."""
    _, mark, behind = solution.rpartition("####")
    return behind.strip().replace(",", "") if mark else find_boxes(solution)[-1]
