"""What axe-core finds on a page: faults that shut out who cannot see it or use a mouse.

axe-core comes inside the package axe-playwright-python; nothing is loaded from outside.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Page

SERIOUS = ("serious", "critical")
COLOURS = {"runOnly": ["color-contrast", "link-in-text-block"]}
FRESH = "() => !document.querySelector('[data-stale=\"true\"]')"


def serious(page: Page, within: str | None = None, **options: Any) -> list[str]:
    """The findings that shut somebody out, one line each: the rule, where, what to do.

    `options` are those of axe.run.
    """
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE_SCRIPT)
    found = _look(page, within, options)
    if found:  # what Streamlit draws anew meanwhile is faded, and has no contrast for that long
        page.wait_for_function(FRESH)
        found = _look(page, within, options)
    return found


def _look(page: Page, within: str | None, options: dict[str, Any]) -> list[str]:
    wanted = {"resultTypes": ["violations"], **options}
    place = json.dumps(within) if within else "document"
    found = page.evaluate(f"axe.run({place}, {json.dumps(wanted)}).then(it => it.violations)")
    return [line for rule in found if rule["impact"] in SERIOUS for line in _lines(rule)]


def _lines(rule: dict[str, Any]) -> Iterator[str]:
    for node in rule["nodes"]:
        place = " ".join(map(str, node["target"]))
        told = " ".join(node["failureSummary"].split())
        yield f"{rule['id']} ({rule['impact']}) at {place}: {told} | {node['html'][:160]}"
