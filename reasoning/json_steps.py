"""Steps in JSON: an object with a title, the content and what comes next.

The schema is the controller: which `next_action` a step may end in decides how long
the chain is, so at most `max_steps` and at least `min_steps` hold by grammar where
the server constrains the model, and by the loop where it does not.
"""

from __future__ import annotations

import json

from reasoning.events import Answer, Emit
from reasoning.replies import KEYS, Reply, answer_text, parse_reply, read_partial, step_schema
from reasoning.step_loop import StepForm, StepLoop, ends
from reasoning.task import Task
from reasoning.way import ALL_SETTINGS, ALL_STEERS, Way

GO_ON = step_schema("continue")
DECIDE = step_schema("continue", "final_answer")
CONCLUDE = step_schema("final_answer")
# Constant, so that a server compiles each grammar once; in the order in which chains need them.
SCHEMAS = (DECIDE, CONCLUDE, GO_ON)


def written(reply: Reply) -> str:
    """The step as compact as a server writes it."""
    values = dict(zip(KEYS, (reply.title, reply.content, reply.action), strict=True))
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


JSON = StepForm(
    prompt="step",
    hints={
        "cut": "retry_cut", "loop": "retry_cut", "repeat": "retry_repeat", "": "retry_format",
    },
    read=parse_reply,
    draft=read_partial,
    write=written,
    read_answer=lambda text, whole: answer_text(text),
    gap="\n",
    schemas={tuple(schema["properties"]["next_action"]["enum"]): schema for schema in SCHEMAS},
)  # fmt: skip


async def json_steps(task: Task, emit: Emit) -> Answer:
    """A chain of JSON steps, and its answer. Raises StepwiseError."""
    return await StepLoop(task, JSON, emit).answer()


JSON_STEPS = Way(
    json_steps,
    prompts=("step", "next", "doubt", "retry_cut", "retry_format", "retry_repeat", "answer"),
    steers=ALL_STEERS,
    settings=ALL_SETTINGS,
    ends=ends,
)
