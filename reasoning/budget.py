"""What a chain may still spend of its completion tokens, and what of that is its answer's."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning.errors import BudgetSpent
from reasoning.events import Notice, Settings
from reasoning.metering import Meter

ENDLESS = 2**31  # tokens
LEAST_STEP = 128  # tokens: a step of two sentences and its title
SHORT_STEP = 48  # tokens: one sentence, where a chain could not afford any other thought
LEAST_ANSWER = 128  # tokens: a sentence that states it, and why
NEARLY_SPENT = Notice("budget", "The budget is nearly spent.")


@dataclass(frozen=True, slots=True)
class Budget:
    """The settings' bound, less what `meter` counts and what finished steps have cost `before`."""

    settings: Settings
    meter: Meter
    before: int = 0

    @property
    def left(self) -> int:
        """Completion tokens that it still holds; practically endless where none is set."""
        if self.settings.budget is None:
            return ENDLESS
        return self.settings.budget - self.before - self.meter.spent

    @property
    def answer_share(self) -> int:
        """What is kept for the answer: a quarter, no less than it needs, no more than half."""
        whole = self.settings.budget or 0
        return min(self.settings.answer_tokens, max(LEAST_ANSWER, whole // 4), whole // 2)

    @property
    def left_to_think(self) -> int:
        """Completion tokens that it still holds beside the answer's share."""
        return self.left - self.answer_share

    @property
    def least_step(self) -> int:
        """Tokens for which a step is asked for; the first may be shorter than none at all is."""
        begun = self.before or self.meter.spent
        return LEAST_STEP if begun else SHORT_STEP

    @property
    def may_think(self) -> bool:
        """Whether it holds another step, and then the answer."""
        return self.left_to_think >= self.least_step

    def allowed(self, tokens: int) -> int:
        """What a reply may take that asks for so many. Raises BudgetSpent where that is none."""
        allowed = min(tokens, self.left)
        if allowed < 1:
            message = f"The budget of {self.settings.budget} tokens is spent."
            raise BudgetSpent(message, "Ask again with a larger one.")
        return allowed
