"""The evaluation's own part: arms, budgets, reading and marking answers, figures, the report."""

import asyncio
import json
from collections.abc import Callable, Generator
from dataclasses import replace
from hashlib import sha256
from io import StringIO
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from evals.answers import read_line, read_result
from evals.arms import ARMS, Arm, Bounds, EvalServer, arm_named
from evals.figures import Difference, Mean, figures, mean_of, paired
from evals.outcomes import Marked, NotAsked, Outcome, of_trace, of_tutorial
from evals.plan import EvalPlan, read_plan, write_plan
from evals.progress import counting
from evals.report import report
from evals.tasks import Mark, Problem, check_name, known_tasks, task, verified
from evals.tutorial_loop import Call, Reply, TutorialChain, tutorial_calls
from reasoning.deadline import CHAIN, STEP
from reasoning.endpoint import Endpoint
from reasoning.events import Answer, Failed, Notice, Retry, Settings, Started, Step, Trace
from reasoning.prompts import prompt_text
from tests.stub import EVENTS, Play, Stub, chunk, says, status, step_text, usage

BUDGET = 1000
BOUNDS = Bounds(0.0, BUDGET, 7)


def ask(arm: Arm, *script: Any, bounds: Bounds = BOUNDS, **stub: Any) -> tuple[Outcome, Stub]:
    """What the arm makes of one question before a server that plays the script."""

    async def asked(base_url: str) -> Outcome:
        endpoint = Endpoint(base_url)
        try:
            model = await endpoint.model()
            return await arm.ask("How many?", EvalServer(endpoint, model), bounds)
        finally:
            await endpoint.close()

    with Stub(*script, **stub) as server:
        return asyncio.run(asked(server.base_url)), server


# -- the budget


def fills(request: dict[str, Any]) -> Play:
    """A reply of as many tokens as may be, with a new word each; the last is cut."""
    most = request["max_tokens"]
    text = f"{len(request.get('messages', ''))} {most} " + "and so on, " * most

    async def play(writer: Any) -> None:
        piece = {"index": 0, "text": text, "finish_reason": None}
        told = {"choices": [piece | {"delta": {"content": text}}]}
        writer.write(EVENTS + b"data: " + json.dumps(told).encode() + b"\n\n")
        writer.write(chunk(finish_reason="length") + usage(10, most) + b"data: [DONE]\n\n")

    return play


def steps_for_ever(request: dict[str, Any]) -> Play:
    """A good step each time it is asked for one, never the last, of 50 tokens."""
    number = str(request.get("messages", "")).count("of the chain. Work") + 1
    if "response_format" not in request and "stop" not in request:
        return says("Answer: 3")
    return says(step_text(f"T{number}", f"Work {number * 7} of the chain. " * 6))


@pytest.mark.parametrize("play", [fills, steps_for_ever])
@pytest.mark.parametrize("name", [*sorted(set(ARMS) - {"gateway", "native", "coat"}), "vote5"])
def test_no_arm_writes_more_than_its_budget(
    name: str, play: Callable[[dict[str, Any]], Play]
) -> None:
    outcome, server = ask(arm_named(name), play, max_model_len=8192)
    written = sum(request["max_tokens"] for request in server.requests)
    assert 0 < outcome.tokens <= BUDGET
    if play is fills and name != "cot_steps":  # it breaks off what rambles, uncounted here
        assert outcome.tokens == written


def test_satoris_arm_keeps_to_the_budget_too() -> None:
    actions = ("<|continue|>", "<|reflect|>", "<|explore|>")
    outcome, server = ask(ARMS["coat"], fills, max_model_len=8192, special=actions)
    assert outcome.tokens == sum(request["max_tokens"] for request in server.requests) <= BUDGET


def finished(
    calls: Generator[Call, Reply, TutorialChain], reply: Callable[[Call], Reply]
) -> TutorialChain:
    """The chain that comes of the tutorial's loop with such replies."""
    call = next(calls)
    while True:
        try:
            call = calls.send(reply(call))
        except StopIteration as end:
            chain: TutorialChain = end.value
            return chain


@pytest.mark.parametrize("budget", [100, 300, 399, 400, 799, 800, 2000, 10_000])
def test_the_tutorials_loop_has_an_answer_within_any_budget(budget: int) -> None:
    spent: list[int] = []

    def cut(call: Call) -> Reply:
        spent.append(call.max_tokens)
        return Reply("no step", call.max_tokens, "length")

    assert finished(tutorial_calls("Why?", budget=budget), cut).answer == "no step"
    assert sum(spent) <= budget


# -- what is sent


def test_every_arm_sends_the_same_temperature_and_a_seed() -> None:
    for name in ("direct", "cot", "tutorial", "json_steps", "cot_steps"):
        _, server = ask(arm_named(name), steps_for_ever, bounds=replace(BOUNDS, temperature=0.3))
        assert {request["temperature"] for request in server.requests} == {0.3}, name
        assert {request["seed"] for request in server.requests} == {7}, name


def test_think_step_by_step_is_asked_for_in_one_reply() -> None:
    _, server = ask(ARMS["cot"], says("Answer: 3"))
    (request,) = server.requests
    assert "step by step" in request["messages"][-1]["content"]
    assert request["max_tokens"] == BUDGET


def test_a_vote_answers_with_the_majority() -> None:
    answers = iter(("7", "5", "5", "7", "5"))

    def reply(request: dict[str, Any]) -> Play:
        if "response_format" in request:
            return says(step_text("T", f"Seed {request['seed']}.", "final_answer"))
        return says(f"The answer is {next(answers)}.")

    outcome, server = ask(arm_named("vote5"), reply, bounds=replace(BOUNDS, budget=50_000))
    assert outcome.content == "The answer is 5."
    assert len(outcome.traces) == 5
    answers_asked = [one for one in server.requests if "response_format" not in one]
    assert sorted(one["seed"] for one in answers_asked) == [7, 8, 9, 10, 11]


def test_a_vote_stops_when_it_is_decided_and_is_over_the_way_it_names() -> None:
    outcome, server = ask(arm_named("vote8_direct"), says("The answer is 5."))
    assert outcome.content == "The answer is 5."
    assert sorted(one["seed"] for one in server.requests) == [7, 8, 9]
    assert {one["max_tokens"] for one in server.requests} == {BUDGET // 8}
    assert len(outcome.traces) == 3
    assert arm_named("vote8_coat").needs == "coat"


def test_no_deadline_ends_a_chain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of a person who waits: here a slow server would give wrong answers."""
    monkeypatch.setenv(STEP, "0.001")
    monkeypatch.setenv(CHAIN, "0.001")
    final = says(step_text("Halve it", "It is 3.", "final_answer"))
    outcome, _ = ask(arm_named("json_steps"), final, says("Answer: 3"))
    assert outcome.content == "Answer: 3"


def test_a_servers_own_failure_is_no_wrong_answer() -> None:
    for name in ("direct", "tutorial", "json_steps", "vote2"):
        with pytest.raises(NotAsked, match="OPENAI_API_KEY"):
            ask(arm_named(name), status(401, {"error": "no"}))


def test_an_arm_that_is_not_there_is_named_with_those_that_are() -> None:
    with pytest.raises(ValueError, match=r"no arm called vote1\. .*json_steps"):
        arm_named("vote1")


# -- failures by kind


def trace(*events: Any, way: str = "json_steps", max_steps: int = 25) -> Trace:
    settings = Settings(max_steps=max_steps)
    return Trace((Started("q", "m", way, "en", 0.0, settings), *events))


def step(number: int, **more: Any) -> Step:
    return Step(number, "t", f"c{number}", "continue", 1.0, 10, **more)


ANSWER = Answer("5", 1.0, 10)


COPY = "Write one step at a time, each"  # of the prompt


@pytest.mark.parametrize(
    ("told", "left", "mended"),
    [
        (trace(step(1), ANSWER), {}, {}),
        (trace(Retry(1, 1, "cut", ""), step(1), ANSWER), {}, {"cut": 1}),
        (trace(Retry(1, 1, "repeat", ""), Retry(1, 2, "loop", ""), step(1)), {}, {"repeat": 2}),
        (trace(Retry(1, 1, "not_json", ""), step(1), ANSWER), {}, {"unusable": 1}),
        (trace(Retry(1, 1, "not_json", ""), step(1, cut=True), ANSWER), {"unusable": 1}, {}),
        (trace(step(1, cut=True), ANSWER), {"cut": 1}, {}),
        (
            trace(step(1), Retry(2, 1, "repeat", ""), Notice("repeat", ""), ANSWER),
            {"repeat": 1},
            {},
        ),
        (trace(Notice("unreadable", ""), ANSWER), {"unusable": 1}, {}),
        (trace(step(1), Notice("budget", ""), ANSWER), {"cap": 1}, {}),
        (trace(step(1), Notice("context", ""), ANSWER), {"cap": 1}, {}),
        (trace(*map(step, range(1, 4)), ANSWER, max_steps=3), {"cap": 1}, {}),
        (trace(*map(step, range(1, 4)), ANSWER, max_steps=3, way="coat"), {}, {}),
        (trace(step(1), replace(ANSWER, cut=True)), {"cut": 1}, {}),
        (trace(replace(step(1), content="2 + 3 = 6"), ANSWER), {"contradicted": 1}, {}),
        (trace(replace(step(1), content="It is $\\frac{10}{2}$."), ANSWER), {}, {}),
        (trace(replace(step(1), content="2 + 3 = 5"), step(2), ANSWER), {}, {}),
        (trace(replace(step(1), content="2 + 3 = 5"), replace(ANSWER, content="Five.")), {}, {}),
        (trace(replace(step(1), content="2 + 3 = 6, and 6 - 1"), ANSWER), {}, {}),
        (trace(replace(step(1), content="Five are left of 6."), ANSWER), {}, {}),
        (trace(replace(step(1), content=f"{COPY} I do."), ANSWER), {"copied": 1}, {}),
        (trace(replace(step(1), title=COPY), replace(step(2), title=COPY)), {"copied": 2}, {}),
        (trace(replace(step(1), content=prompt_text("en", "answer")), ANSWER), {}, {}),
        (trace(replace(step(1), content=COPY), ANSWER, way="direct"), {}, {}),
        (trace(Retry(1, 1, "empty", ""), Failed("empty", "", "")), {"no_answer": 1}, {}),
        (trace(Retry(1, 1, "unreachable", "", 0.5), step(1), ANSWER), {}, {}),
        (trace(Notice("format", "text"), step(1), ANSWER), {}, {}),
    ],
)
def test_a_chains_failures_are_counted_by_kind(
    told: Trace, left: dict[str, int], mended: dict[str, int]
) -> None:
    outcome = of_trace(told, 1.0)
    assert (outcome.left, outcome.mended) == (left, mended)


def tutorial_chain(*texts: str, finish_reason: str = "stop", cap: int = 25) -> TutorialChain:
    """The chain that comes of these replies, the last of them for ever."""
    said = chain(texts, repeat(texts[-1]))
    return finished(tutorial_calls("Why?", cap), lambda call: Reply(next(said), 50, finish_reason))


def test_the_tutorials_failures_are_counted_by_the_same_kinds() -> None:
    never = tutorial_chain(step_text("t", "the same words for ever and ever"))
    assert of_tutorial(never, 1.0).left == {"repeat": 24, "cap": 1}
    prose = tutorial_chain("no JSON", cap=3)
    assert of_tutorial(prose, 1.0).left == {"unusable": 4, "repeat": 2, "cap": 1}
    cut = tutorial_chain('{"title": "t", "cont', finish_reason="length", cap=1)
    assert of_tutorial(cut, 1.0).left == {"cut": 2, "cap": 1}
    copy = tutorial_chain(step_text("Identifying Key Information", "c", "final_answer"), "5")
    assert of_tutorial(copy, 1.0).left == {"copied": 1, "unusable": 1}
    good = tutorial_chain(step_text("t", "c", "final_answer"), step_text("t", "5"))
    assert of_tutorial(good, 1.0).left == {}
    assert good.answer == "5"


# -- reading answers and marking them


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("The sum is 12.", "12"),
        ("It is 12 at first.\n\nAnswer: 1,013", "1013"),
        ("So \\boxed{\\frac{1}{2}} it is. Answer: 3", "0.5"),
        ("I do not know it, the text of this riddle is far too long for me.", ""),
    ],
)
def test_a_result_is_read_as_votes_are_read(content: str, told: str) -> None:
    assert read_result(content) == told


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("I turn it around.\n\n**Answer:** nus.", "nus"),
        (
            "Answer:\n\nAda is a hero, and Bob is a villain.\n\nBecause he lies.",
            "Ada is a hero, and Bob is a villain",
        ),
        ("The answer is mother-in-law", "mother-in-law"),
        ("So it is \\boxed{\\text{aunt}}, no other answer: none", "aunt"),
        ("First this.\nnus\n", "nus"),
        ("Answer:", ""),
        ("", ""),
    ],
)
def test_words_are_read_from_behind_the_answers_mark(content: str, told: str) -> None:
    assert read_line(content) == told


def test_who_grades_is_reasoning_gym() -> None:
    import reasoning_gym

    made = task("knights_knaves:easy", 3, 1)
    theirs = reasoning_gym.create_dataset("knights_knaves", size=3, seed=1, n_people=2)
    for problem, entry in zip(made.problems, theirs, strict=True):
        assert problem.target == entry["answer"]
        half = problem.target.split(" and ")[0]
        for said in (problem.target, half, "nobody"):
            mark = made.grade(f"Answer: {said}", problem)
            assert mark.score == theirs.score_answer(mark.answer, entry)
    assert made.grade(f"Answer: {problem.target}", problem).correct
    assert not Mark(0.99, "").correct


@pytest.mark.parametrize("name", [name for name in known_tasks() if "PATH" not in name])
def test_every_task_takes_its_own_right_answers(name: str) -> None:
    made = task(name, 5, 3)
    assert len(made.problems) == 5
    for problem in made.problems:
        assert made.grade(f"I thought of 77.\n\nAnswer: {problem.target}", problem).correct
        assert not made.grade("Answer: -77.5", problem).correct


def problems_of(seed: int) -> str:
    names = [name for name in known_tasks() if "PATH" not in name]
    made = [(one.text, one.target) for name in names for one in task(name, 3, seed).problems]
    return sha256(repr(made).encode()).hexdigest()[:16]


def test_a_seed_gives_the_questions_that_it_has_always_given() -> None:
    """Else a run that goes on, or is compared with a published one, asks other questions."""
    assert problems_of(5) == "2010acb3fb6c5f1e"
    assert problems_of(6) != problems_of(5)


def jsonl(path: Path, *rows: dict[str, str]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_gsm8k_is_read_as_published(tmp_path: Path) -> None:
    row = {"question": "Janet sells 16 eggs.", "answer": "She sells.\n#### 1,018"}
    made = task(f"gsm8k:{jsonl(tmp_path / 'g.jsonl', row)}", 5, 1)
    (problem,) = made.problems
    assert problem.target == "1018"
    assert made.grade("She makes $1,018 a day.\n\nAnswer: $1,018", problem).correct
    assert not made.grade("Answer: 1019", problem).correct


def test_math_is_read_as_published_and_graded_by_math_verify(tmp_path: Path) -> None:
    row = {"problem": "Solve it.", "solution": "So $x = \\boxed{\\frac{3}{4}}$."}
    made = task(f"math:{jsonl(tmp_path / 'm.jsonl', row)}", 5, 1)
    (problem,) = made.problems
    assert made.grade("It follows that $x=\\boxed{0.75}$.", problem).correct
    assert made.grade("Answer: 3/4", problem).correct
    assert not made.grade("Answer: 4/3", problem).correct
    assert verified("no answer at all", Problem(1, "", "5")) == Mark(0.0, "")
    listed = "1. Read it.\n2. Ask.\n3. Count.\n\nAnswer: We cannot tell."
    assert not verified(listed, Problem(1, "", "3")).correct
    assert verified(listed.replace("We cannot tell", "**3**"), Problem(1, "", "3")).correct


def test_a_file_that_is_not_as_published_is_named_with_its_line(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "g.jsonl", {"question": "q", "answer": "#### 1"}, {"q": "no"})
    with pytest.raises(ValueError, match=r"g\.jsonl, line 2: expected .*question"):
        task(f"gsm8k:{path}", 5, 1)


@pytest.mark.parametrize("name", ["letters", "chain_sum:extreme", "gsm8k:nowhere.jsonl", "math"])
def test_a_task_that_is_not_there_is_said_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        check_name(name)


# -- the figures


def test_the_paired_interval_of_known_numbers() -> None:
    pairs = [(1.0, 0.0)] * 6 + [(0.0, 1.0)] * 2 + [(1.0, 1.0)] * 4 + [(0.0, 0.0)] * 4
    # mean 4/16; variance (8 - 16/16) / 15 = 7/15; standard error sqrt(7/15/16) = 0.170783
    assert paired(pairs) == Difference(
        0.25, pytest.approx(-0.084734, abs=1e-6), pytest.approx(0.584734, abs=1e-6), 16
    )


def test_the_interval_is_narrower_than_that_of_unpaired_arms() -> None:
    together = [(1.0, 1.0)] * 10 + [(0.0, 0.0)] * 9 + [(1.0, 0.0)]
    found = paired(together)
    assert found is not None
    one = mean_of([this for this, _ in together]).error or 0
    other = mean_of([base for _, base in together]).error or 0
    assert found.high - found.low < 2 * 1.96 * (one**2 + other**2) ** 0.5


def test_one_value_alone_has_no_error_and_no_interval() -> None:
    assert mean_of([1.0]) == Mean(1.0, None)
    assert paired([(1.0, 0.0)]) is None


def marked(arm: str, number: int, correct: bool, **more: Any) -> Marked:
    values = {"tokens": 100, "seconds": 2.0, "steps": 0, "left": {}, "mended": {}, **more}
    return Marked(arm, "chain_sum:easy", number, correct, "5", **values)


MARKED = [
    *(marked("direct", number, number <= 2) for number in range(1, 5)),
    *(
        marked("json_steps", number, number <= 3, tokens=400, steps=4, mended={"cut": 1}, left=left)
        for number, left in enumerate(({"copied": 2}, {}, {"copied": 1}, {}), start=1)
    ),
    marked("tutorial", 1, False, left={"repeat": 9, "cap": 1}),
    marked("tutorial", 2, True, left={"repeat": 2}),
]
PLAN = EvalPlan(
    "M", ("direct", "tutorial", "json_steps"), ("chain_sum:easy",), 4, 0.2, 600, 1, 4, "cmd"
)


def test_the_figures_of_known_answers() -> None:
    direct, tutorial, ours = figures(MARKED, PLAN.arms)
    assert direct.accuracy == Mean(0.5, pytest.approx(0.288675, abs=1e-6))
    assert direct.difference is None
    assert direct.per_correct == 200
    assert ours.difference is not None
    assert (ours.difference.value, ours.difference.pairs) == (0.25, 4)
    assert ours.mended == {"cut": 4}
    assert tutorial.touched == {"repeat": 1.0, "cap": 0.5}
    assert tutorial.left == {"repeat": 11, "cap": 1}
    assert tutorial.difference is not None
    assert tutorial.difference.pairs == 2  # of the questions that both answered


def test_the_table_tells_what_the_marked_answers_say() -> None:
    lines = report(PLAN, MARKED).splitlines()
    assert "| direct | 4 | 50.0 ± 28.9 |  | 0.0 | 100 | 2.0 | 200 |" in lines
    assert (
        "| json_steps | 4 | 75.0 ± 25.0 | +25.0 (-24.0 to +74.0) | 4.0 | 400 | 2.0 | 533 |" in lines
    )
    assert "| tutorial | - | 100% (11) | - | - | - | 50% (1) | - |" in lines
    assert "| json_steps | - | - | 50% (3) | - | -, 4 mended | - | - |" in lines
    assert "| chain_sum:easy | 50.0 ± 28.9 | 50.0 ± 50.0 | 75.0 ± 25.0 |" in lines
    assert "| chain_sum:easy | -50.0 (-148.0 to +48.0) | +25.0 (-24.0 to +74.0) |" in lines
    assert "Unfinished: 10 of 12 answers." in lines


def test_plain_thinking_is_the_yardstick_where_it_was_asked() -> None:
    arms = ("direct", "cot", "json_steps")
    asked = [replace(one, arm="cot") if one.arm == "tutorial" else one for one in MARKED]
    direct, cot, ours = figures(asked, arms)
    assert cot.difference is None
    assert (direct.difference, ours.difference) != (None, None)
    assert "difference to cot" in report(replace(PLAN, arms=arms), asked)


# -- the plan


def test_a_folder_takes_more_arms_but_no_other_settings(tmp_path: Path) -> None:
    write_plan(PLAN, tmp_path)
    more = write_plan(replace(PLAN, arms=("direct", "cot"), tasks=("gcd:easy",)), tmp_path)
    assert more.arms == ("direct", "tutorial", "json_steps", "cot")
    assert more.tasks == ("chain_sum:easy", "gcd:easy")
    assert read_plan(tmp_path) == more
    with pytest.raises(ValueError, match="holds a run with budget 600, not 700"):
        write_plan(replace(PLAN, budget=700), tmp_path)


def test_a_folder_without_a_run_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no run"):
        read_plan(tmp_path)
    (tmp_path / "plan.json").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match="cannot be read"):
        read_plan(tmp_path)


# -- how far it is


def test_a_file_is_told_how_far_it_is_in_twenty_lines_of_a_run_and_at_its_end() -> None:
    said = StringIO()
    with counting(45, 3, Console(file=said)) as answered:
        for _ in range(42):
            answered()
    lines = said.getvalue().splitlines()
    assert lines[0] == "4 of 45 questions answered"
    assert lines[-1] == "45 of 45 questions answered"
    assert len(lines) == 22


def test_a_terminal_has_a_bar_that_counts() -> None:
    said = StringIO()
    with counting(4, 3, Console(file=said, force_terminal=True)) as answered:
        answered()
    assert "4/4" in said.getvalue()
