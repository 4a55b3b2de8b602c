"""inspect-ai's logs of a run, read as marked answers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from inspect_ai.log import EvalSample, list_eval_logs, read_eval_log, read_eval_log_samples

from evals.outcomes import Marked

# Only the score matters here; a sample's whole chain would fill the memory for nothing.
_HEAVY = {"messages", "output", "store", "events", "attachments"}


def read_marked(folder: Path) -> list[Marked]:
    """All marked answers of a run; where a question was marked twice, the later one counts.

    Raises ValueError, in one line, when a run in progress replaces a log that is being read.
    """
    found: dict[tuple[str, str, int], Marked] = {}
    try:
        for one in _marked(folder):
            found[one.arm, one.task, one.number] = one
    except ValueError as error:
        raise ValueError(f"A log in {folder} cannot be read ({error}). Try again.") from None
    return list(found.values())


def _marked(folder: Path) -> Iterator[Marked]:
    for info in list_eval_logs(str(folder), descending=False):
        told = read_eval_log(info, header_only=True).eval.metadata or {}
        samples = read_eval_log_samples(info, all_samples_required=False, exclude_fields=_HEAVY)
        for sample in samples:
            yield from _of_sample(told, sample)


def _of_sample(told: dict[str, Any], sample: EvalSample) -> Iterator[Marked]:
    for score in (sample.scores or {}).values():
        cost = score.metadata or {}
        yield Marked(
            told["arm"],
            told["task"],
            int(sample.id),
            score.value == 1,
            score.answer or "",
            cost["tokens"],
            cost["seconds"],
            cost["steps"],
            cost["left"],
            cost["mended"],
        )
