"""What axe-core finds on a page: faults that shut out who cannot see it or use a mouse.

axe-core comes inside the package axe-playwright-python; nothing is loaded from outside.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page

SERIOUS = ("serious", "critical")


def serious(page: Page, within: str | None = None) -> list[str]:
    """The findings that shut somebody out, one line each: the rule, where, what to do."""
    found = Axe().run(page, context=within).response["violations"]
    return [line for rule in found if rule["impact"] in SERIOUS for line in _lines(rule)]


def _lines(rule: dict[str, Any]) -> Iterator[str]:
    for node in rule["nodes"]:
        place = " ".join(map(str, node["target"]))
        told = " ".join(node["failureSummary"].split())
        yield f"{rule['id']} ({rule['impact']}) at {place}: {told} | {node['html'][:160]}"
