"""Runs that were asked together: chains and their majority, the plain answer beside them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from streamlit.delta_generator import DeltaGenerator

from history.runs import Run
from page.actions import DIRECT, way_of
from page.context import PageContext
from page.copy_button import copy_button
from page.differences import mark_differences
from page.i18n import Words
from page.markdown import plain_line
from page.navigation import go_to
from page.wording import SEPARATOR, answer_text, total_line
from reasoning.events import Answer, Failed, Stopped
from reasoning.voting import Ballot, count_votes, same_final


@dataclass(frozen=True, slots=True)
class Group:
    """Runs asked together, in the order of asking; `votes_on` tells whether more may follow."""

    runs: tuple[Run, ...]
    votes_on: Callable[[], bool] = lambda: False

    @property
    def direct(self) -> Run | None:
        """The plain answer beside the steps."""
        chains = [run for run in self.runs if way_of(run) != DIRECT]
        plain = [run for run in self.runs if way_of(run) == DIRECT]
        return plain[-1] if chains and plain else None

    @property
    def chains(self) -> tuple[Run, ...]:
        return tuple(run for run in self.runs if run is not self.direct)

    @property
    def ended(self) -> bool:
        return all(run.ended for run in self.runs) and not self.votes_on()

    def both_answered(self, run: Run) -> bool:
        """Whether the plain answer and this chain's can be laid side by side."""
        if self.direct is None or self.direct is run:
            return False
        return bool(answer_text(run.trace) and answer_text(self.direct.trace))

    @property
    def ballots(self) -> tuple[Ballot, ...]:
        tokens = [run.trace.tokens for run in self.chains]
        return count_votes([answer_text(run.trace) for run in self.chains], tokens)

    @property
    def counted(self) -> int:
        """The chains that came to an end of their own: those that the share is of."""
        return sum(not isinstance(run.trace.end, Stopped) for run in self.chains)

    @property
    def most(self) -> int:
        """How many chains the vote might have drawn."""
        return self.chains[0].asked.most

    @property
    def wall_seconds(self) -> float:
        """Seconds from the first chain's begin to the last one's end."""
        spans = [_span(run) for run in self.chains]
        return max(end for _, end in spans) - min(begin for begin, _ in spans)


class GroupStatus:
    """A line that says how far each of the runs is; sent again when it changes."""

    def __init__(self, place: DeltaGenerator) -> None:
        self._slot, self._said = place.empty(), ""

    def write(self, context: PageContext, group: Group) -> None:
        if len(group.runs) < 2:
            return
        said = _status_line(group, context.words)
        if said != self._said:
            self._slot.caption(said)
            self._said = said


def draw_group_panel(
    context: PageContext, group: Group, run: Run, place: DeltaGenerator
) -> GroupStatus:
    """Above the chain that is shown: all chains, and what they voted for."""
    box = place.container(border=len(group.chains) > 1, key="chains")
    if len(group.chains) > 1:
        if group.ended:
            _draw_majority(group, context.words, box)
        _draw_chain_buttons(group, run, context.words, box)
    return GroupStatus(box)


def _status_line(group: Group, words: Words) -> str:
    """How far the chains are, and the plain answer beside them."""
    chains = [
        words.of("several", "chain_state", number=number, state=run_state(run, words))
        for number, run in enumerate(group.chains, 1)
    ]
    if group.direct is not None:
        chains.append(words.of("several", "direct_state", state=run_state(group.direct, words)))
    return SEPARATOR.join(chains if len(group.chains) > 1 else chains[-1:])


def _draw_majority(group: Group, words: Words, box: DeltaGenerator) -> None:
    ballots, bound = group.ballots, _vote_limit(group, words)
    if not ballots:
        box.markdown(words.of("several", "none", chains=len(group.chains), bound=bound))
    for place, ballot in enumerate(ballots):
        votes, chains = len(ballot.members), group.counted
        said = {"value": plain_line(ballot.shown), "votes": votes, "chains": chains}
        said |= {"share": f"{votes / chains:.0%}", "bound": bound, "by": _voters(ballot, words)}
        code = "minority" if place else "tie" if _tied(ballots) else "majority"
        box.markdown(words.of("several", code, **said))
    _draw_times(group, words, box)


def _vote_limit(group: Group, words: Words) -> str:
    """What stands behind a share of fewer chains than the reader allowed."""
    return words.of("several", "bound", most=group.most) if group.counted < group.most else ""


def _draw_times(group: Group, words: Words, box: DeltaGenerator) -> None:
    one = statistics.median(run.seconds() for run in group.chains)
    ratio = f"{group.wall_seconds / one:.1f}" if one else "1.0"
    figures = {"wall": words.seconds(group.wall_seconds), "one": words.seconds(one), "ratio": ratio}
    box.caption(words.of("several", "wall", **figures), help=words.of("several", "wall_help"))


def _voters(ballot: Ballot, words: Words) -> str:
    """The chains that voted for it, by number."""
    code = "by_one" if len(ballot.members) == 1 else "by_many"
    return words.of("several", code, members=", ".join(str(it + 1) for it in ballot.members))


def _tied(ballots: Sequence[Ballot]) -> bool:
    return len(ballots) > 1 and len(ballots[0].members) == len(ballots[1].members)


def _draw_chain_buttons(group: Group, run: Run, words: Words, box: DeltaGenerator) -> None:
    row = box.container(horizontal=True, gap="small", key="chain-buttons")
    for number, one in enumerate(group.chains, 1):
        row.button(
            words.of("several", "chain", number=number),
            key=f"chain-{number}",
            icon=run_icon(one) if group.ended else None,
            help=run_state(one, words) if group.ended else None,
            type="primary" if one.id == run.id else "secondary",
            on_click=go_to,
            args=(one.id,),
        )


def run_state(run: Run, words: Words) -> str:
    """In a few words how far the run is."""
    end = run.trace.end
    if isinstance(end, Answer):
        return words.seconds(run.trace.seconds)
    if isinstance(end, (Failed, Stopped)) or run.ended:
        return words.of("several", "broken", steps=words.steps(len(run.trace.steps)))
    return words.of("several", "thinking", number=len(run.trace.steps) + 1)


def run_icon(run: Run) -> str:
    if isinstance(run.trace.end, Answer):
        return ":material/check_circle:"
    return ":material/error:" if run.ended else ":material/pending:"


def draw_side_by_side(context: PageContext, run: Run, direct: Run, place: DeltaGenerator) -> None:
    """The chain's answer and the plain one, side by side, marked where they differ."""
    words, answers = context.words, (answer_text(run.trace), answer_text(direct.trace))
    box = place.container(key="beside")
    code = "same" if same_final(*answers) else "differ"
    box.markdown(f"#### {words.of('several', 'beside')}", anchors=False)
    box.markdown(words.of("several", code), help=words.of("several", "marks_help"))
    columns, texts = box.columns(2), mark_differences(*answers)
    _draw_answer(run, "in_steps", texts[0], words, columns[0])
    _draw_answer(direct, "directly", texts[1], words, columns[1])


def _draw_answer(run: Run, name: str, text: str, words: Words, column: DeltaGenerator) -> None:
    column.markdown(f"**{words.of('several', name)}**")
    column.caption(total_line(run.trace, words))
    column.markdown(text, anchors=False)
    label, done = words.of("remark", "copy_answer"), words.of("remark", "copied")
    copy_button(column, answer_text(run.trace), label, f"copy-{name}", done)


def _span(run: Run) -> tuple[float, float]:
    """When the run began and ended, in seconds since the epoch."""
    began = run.trace.started.at if run.trace.started else 0.0
    return began, began + run.seconds() + run.trace.waited
