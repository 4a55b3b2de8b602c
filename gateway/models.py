"""The names under which a served model can be asked, and what each of them means. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from reasoning.endpoint import ServedModel
from reasoning.self_consistency import MOST

MOST_CHAINS = 16  # of one request: more only wait for each other in the server's queue
LISTED = ("steps", f"vote{MOST}")
_ALIAS = re.compile(r"(?P<served>.+)-(?:steps|vote(?P<votes>[1-9][0-9]?))", re.S)


@dataclass(frozen=True, slots=True)
class ModelAlias:
    """What a model's name asks for: one chain, or the majority of at most `votes`."""

    name: str
    served: ServedModel
    votes: int = 1


def find_alias(name: str, served: Iterable[ServedModel]) -> ModelAlias | None:
    """What `<served>-steps` or `<served>-vote<n>` means (n from 2 to 16), if anything."""
    known = {model.name: model for model in served}
    match = _ALIAS.fullmatch(name)
    if match is None or match["served"] not in known:
        return None
    votes = int(match["votes"] or 1)
    if votes > MOST_CHAINS or match["votes"] == "1":
        return None
    return ModelAlias(name, known[match["served"]], votes)


Entry = Mapping[str, Any]  # as a server lists a model: a ModelEntry, and whatever else it tells


class ModelEntry(BaseModel):
    """What every listed model has; a server's own entry may say more."""

    model_config = ConfigDict(extra="allow")

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(BaseModel):
    object: Literal["list"]
    data: list[ModelEntry]


def list_entries(upstream: Sequence[Entry]) -> list[Entry]:
    """The server's entries as they are, and those of the aliases beside each."""
    return [
        one for entry in upstream for one in (entry, *(alias_entry(entry, kind) for kind in LISTED))
    ]


def find_entry(name: str, upstream: Sequence[Entry]) -> Entry | None:
    """The entry of any name that can be asked, listed or not."""
    by_name = {str(entry.get("id")): entry for entry in upstream}
    if name in by_name:
        return by_name[name]
    alias = find_alias(name, map(ServedModel, by_name))
    if alias is None:
        return None
    return alias_entry(by_name[alias.served.name], name.removeprefix(f"{alias.served.name}-"))


def alias_entry(entry: Entry, kind: str) -> Entry:
    """An entry beside the server's, in the shape that vLLM gives to what derives from a model."""
    name = str(entry.get("id"))
    made = {"id": f"{name}-{kind}", "object": "model", "created": entry.get("created") or 0}
    made |= {"owned_by": "stepwise", "root": name, "parent": name}
    if "max_model_len" in entry:
        made["max_model_len"] = entry["max_model_len"]
    return made
