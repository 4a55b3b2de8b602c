"""What a chain may still spend of its completion tokens, and what of that is its answer's."""

from __future__ import annotations

from dataclasses import dataclass

from reasoning.errors import BudgetSpent
from reasoning.events import Notice, Settings
from reasoning.metering import Meter

ENDLESS = 2**31  # tokens
LEAST_STEP = 128  # tokens: a step of two sentences and its title
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
    def left_to_think(self) -> int:
        """The same without the answer's share: a quarter of the budget, no less than it needs."""
        share = max(LEAST_ANSWER, (self.settings.budget or 0) // 4)
        return self.left - min(self.settings.answer_tokens, share)

    @property
    def may_think(self) -> bool:
        """Whether it holds another step, and then the answer."""
        return self.left_to_think >= LEAST_STEP

    def allowed(self, tokens: int) -> int:
        """What a reply may take that asks for so many. Raises BudgetSpent where that is none."""
        allowed = min(tokens, self.left)
        if allowed < 1:
            message = f"The budget of {self.settings.budget} tokens is spent."
            raise BudgetSpent(message, "Ask again with a larger one.")
        return allowed
