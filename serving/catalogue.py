"""The models Stepwise knows by name: the tables of models.toml as values.

No network, no machine, no weights on disk are looked at here, only the file
itself and, for a folder given instead of a name, that folder. Sizes are in GB
of 10**9 bytes.
"""

from __future__ import annotations

import difflib
import json
import logging
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CATALOGUE = ROOT / "models.toml"

REMOTE_CODE = re.compile(r"--trust[-_]remote[-_]code\b")
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_log = logging.getLogger(__name__)


class CatalogueError(Exception):
    """The name or the file cannot be used: one line that says what to do."""


@dataclass(frozen=True, slots=True)
class Model:
    """One model: where its weights come from, what it needs, how it thinks.

    `gpu_gb` is the memory it needs on each of `gpus` cards, `cpu_gb` what it
    needs of a machine without one (None: not worth trying). `default`
    says that it may be chosen when nobody named a model. The flags go to vLLM as they are.
    """

    name: str
    served_name: str
    title: str = ""  # what people call it; "": by its served name
    way: str = "json_steps"  # a key of WAYS in reasoning/think.py
    size_gb: float = 0.0  # 0: unknown until a hub is asked
    modelscope: str | None = None
    huggingface: str | None = None
    package: str | None = None  # a key of BUNDLES in serving/bundles.py
    precision: str = "bfloat16"  # of the weights as they are published; or int8
    gated: bool = False
    gpu_gb: float | None = None
    gpus: int = 1
    cpu_gb: float | None = None
    default: bool = False
    max_model_len: int | None = None  # None: what the model's own config says
    chat_template: str | None = None  # a file, from the project's root
    tool_parser: str | None = None  # vLLM's, for the form in which it calls tools
    flags: tuple[str, ...] = ()
    gpu_flags: tuple[str, ...] = ()
    cpu_flags: tuple[str, ...] = ()
    folder: Path | None = None  # that holds the weights; from the catalogue's own folder


def models_root() -> Path:
    """The folder that holds every model's folder."""
    return Path(os.environ.get("STEPWISE_MODELS") or ROOT / "models").expanduser().absolute()


def state_root() -> Path:
    """The folder of what this machine is known to do; it may be deleted at any time."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state"
    return Path(state) / "stepwise"


def load(path: Path | None = None) -> dict[str, Model]:
    """The tables of models.toml, or of the file that STEPWISE_CATALOGUE names."""
    path = path or Path(os.environ.get("STEPWISE_CATALOGUE") or CATALOGUE).expanduser()
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise CatalogueError(f"{path} cannot be read: {error}.") from None
    if not tables:
        raise CatalogueError(f"{path} names no model: expected a table for each, as [my-model].")
    return {name: _model(name, values, path) for name, values in tables.items()}


def ways() -> dict[str, str]:
    """How each model of the catalogue thinks, by the name it is served under."""
    return {model.served_name: model.way for model in load().values()}


def readable_ways() -> dict[str, str]:
    """The same for a program that works without: nothing where the catalogue cannot be read."""
    try:
        return ways()
    except CatalogueError as error:
        _log.warning("No way of thinking is taken from the catalogue: %s", error)
        return {}


@cache
def readable_titles() -> dict[str, str]:
    """What people call each model, by the name it is served under."""
    try:
        return {model.served_name: model.title for model in load().values() if model.title}
    except CatalogueError:
        return {}


_TYPES: dict[str, tuple[type, ...]] = {
    "served_name": (str,),
    "title": (str,),
    "way": (str,),
    "size_gb": (int, float),
    "modelscope": (str,),
    "huggingface": (str,),
    "package": (str,),
    "precision": (str,),
    "gated": (bool,),
    "gpu_gb": (int, float),
    "gpus": (int,),
    "cpu_gb": (int, float),
    "default": (bool,),
    "max_model_len": (int,),
    "chat_template": (str,),
    "tool_parser": (str,),
    "flags": (list,),
    "gpu_flags": (list,),
    "cpu_flags": (list,),
    "folder": (str,),
}


def _model(name: str, values: object, path: Path) -> Model:
    where = f"{path.name}, [{name}]"
    if not isinstance(values, dict):
        raise CatalogueError(f"{path.name}: expected a table [{name}], got {name} = {values!r}.")
    for key, value in values.items():
        _check(where, key, value)
        if isinstance(value, list) and any(REMOTE_CODE.match(flag) for flag in value):
            typed = "./serve.sh ... -- --trust-remote-code"
            raise CatalogueError(f"{where}: no table may run a repository's own code; type {typed}")
    given = {"served_name": name, **values, "name": name}
    given |= {key: tuple(value) for key, value in values.items() if isinstance(value, list)}
    if "folder" in values:
        given["folder"] = path.absolute().parent / Path(values["folder"]).expanduser()
    return Model(**given)


def _check(where: str, key: str, value: Any) -> None:
    expected = _TYPES.get(key)
    if expected is None:
        raise CatalogueError(f"{where}: {key!r} is no setting; there are {', '.join(_TYPES)}.")
    strings = not isinstance(value, list) or all(isinstance(item, str) for item in value)
    right = isinstance(value, expected) and (bool in expected or not isinstance(value, bool))
    if not (right and strings):
        kinds = " or ".join(kind.__name__ for kind in expected)
        of = " of strings" if list in expected else ""
        raise CatalogueError(f"{where}: expected {key} to be a {kinds}{of}, got {value!r}.")


def find(name: str, catalogue: Mapping[str, Model]) -> Model:
    """The model meant by a table's name, a served name, a folder or a hub id."""
    if name in catalogue:
        return catalogue[name]
    for model in catalogue.values():
        if name.lower() in (model.name.lower(), model.served_name.lower()):
            return model
    if _looks_like_a_folder(name):
        return _from_folder(Path(name).expanduser())
    for model in catalogue.values():
        if name in (model.modelscope, model.huggingface):
            return model
    if HUB_ID.fullmatch(name):
        return Model(name=name, served_name=name.split("/")[1], modelscope=name, huggingface=name)
    raise CatalogueError(_unknown(name, catalogue))


def _looks_like_a_folder(name: str) -> bool:
    return name.startswith((".", "/", "~")) or (name != "" and Path(name).is_dir())


def _from_folder(folder: Path) -> Model:
    folder = folder.absolute()
    if not folder.is_dir():
        raise CatalogueError(f"There is no folder {folder}. Give a folder with a model's files.")
    config = folder / "config.json"
    try:
        json.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CatalogueError(
            f"{folder} holds no config.json. Give the model's own folder."
        ) from None
    except (OSError, ValueError) as error:
        raise CatalogueError(f"{config} cannot be read: {error}. Fetch the model again.") from None
    name = folder.name or "model"
    return sized(Model(name=name, served_name=name, folder=folder), folder)


def sized(model: Model, folder: Path) -> Model:
    """The model with the size of the weights that lie in the folder."""
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    return replace(model, size_gb=weights / 1e9)


def _unknown(name: str, catalogue: Mapping[str, Model]) -> str:
    names = {model.lower(): model for model in catalogue}
    close = difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    close += [key for key in names if name and name.lower() in key and key not in close]
    meant = f" Did you mean {' or '.join(names[key] for key in close[:3])}?" if close else ""
    return f"There is no model {name!r}.{meant} ./serve.sh --list shows them all."
