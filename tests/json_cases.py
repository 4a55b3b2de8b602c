"""JSONTestSuite's cases, as the text that a model might write: what parsers trip over.

By name: y_ is JSON, n_ is none, i_ is left to the parser. The bytes that are no UTF-8 are read as
a client reads them, with U+FFFD in their place.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

SUITE = Path(__file__).with_name("json_test_suite.json")


def json_cases() -> dict[str, str]:
    cases = json.loads(SUITE.read_text(encoding="utf-8"))["cases"]
    return {name: _written_out(case).decode("utf-8", "replace") for name, case in cases.items()}


def _written_out(case: Any) -> bytes:
    """The two that are long and say one thing are kept as that, and how often."""
    if isinstance(case, dict):
        case = case["text"] * case["times"] + case["then"]
    return str(case).encode("latin-1")
