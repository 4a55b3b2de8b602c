"""How many examples hypothesis tries: the profile says it, and a rule with many corners more."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("usual", deadline=None, max_examples=50)  # two cores, other work beside
settings.register_profile("long", deadline=None, max_examples=2000)


def examples(times: float) -> settings:
    """So many times the examples of the profile that is in force."""
    return settings(max_examples=int(times * settings.default.max_examples))
