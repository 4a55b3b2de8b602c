"""The login to the page: the [auth] table of Streamlit's secrets.toml, read and checked.

Streamlit does the login itself, by OpenID Connect with Authlib (requirements-login.txt). What it
would only notice when somebody clicks is said here, in a line.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from serving.catalogue import ROOT

FILES = (Path.home() / ".streamlit" / "secrets.toml", ROOT / ".streamlit" / "secrets.toml")
REQUIREMENTS = "requirements-login.txt"
SHARED = ("redirect_uri", "cookie_secret")
OF_PROVIDER = ("client_id", "client_secret", "server_metadata_url")
CALLBACK = "/oauth2callback"  # Streamlit's
LEAST = 32  # characters of the secret that signs the cookies: who guesses it is anybody he likes
LIKE = "docs/serving.md, The page for others, shows a whole one."


class BadLogin(Exception):
    """No login is possible: one line that says why and what to do. It holds no secret."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where people log in: `origin` is the page's address, to which the login leads back.

    `providers` are names of tables [auth.NAME]; "" is the one of [auth] itself.
    """

    origin: str
    providers: tuple[str, ...]


def auth_table(files: Iterable[Path] = FILES) -> Mapping[str, Any] | None:
    """The [auth] table of the last file that has one, as Streamlit takes it. Raises BadLogin."""
    found = [table for file in files if (table := _table(file)) is not None]
    return found[-1] if found else None


def _table(file: Path) -> Mapping[str, Any] | None:
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BadLogin(f"{file} cannot be read: {error.strerror}.") from None
    except ValueError:  # what is wrong may be beside a secret
        raise BadLogin(f"{file} is no TOML. {LIKE}") from None
    table = values.get("auth")
    if table is not None and not isinstance(table, dict):
        raise BadLogin(f"{file}: expected a table [auth], got a value. {LIKE}")
    return table


def read_login(auth: Mapping[str, Any], port: int) -> Login:
    """What the table says of a page on that port. Raises BadLogin."""
    _check(auth, SHARED, "[auth]")
    if len(auth["cookie_secret"]) < LEAST:
        raise BadLogin(f"[auth]: expected a cookie_secret of {LEAST} characters or more. {LIKE}")
    providers = {name: table for name, table in auth.items() if _is_provider(name, table)}
    if "client_id" in auth or not providers:
        providers = {"": auth, **providers}
    for name, table in providers.items():
        where = f"[auth.{name}]" if name else "[auth]"
        _check(table, OF_PROVIDER, where)
        if "_" in name:
            raise BadLogin(f"{where}: expected a name without an underscore, for Streamlit's sake.")
        if urlsplit(table["server_metadata_url"]).scheme not in ("http", "https"):
            raise BadLogin(f"{where}: expected a server_metadata_url that begins with https://.")
    return Login(_origin(auth["redirect_uri"].replace("{port}", str(port))), tuple(providers))


def _is_provider(name: str, table: Any) -> bool:
    return isinstance(table, dict) and name != "client_kwargs"


def _check(table: Mapping[str, Any], names: Iterable[str], where: str) -> None:
    for name in names:
        if not (isinstance(table.get(name), str) and table[name].strip()):
            raise BadLogin(f"{where} of secrets.toml has no {name}. {LIKE}")


def _origin(redirect_uri: str) -> str:
    parts = urlsplit(redirect_uri)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.path != CALLBACK:
        said = f"expected a redirect_uri such as https://host{CALLBACK}, got {redirect_uri!r}"
        raise BadLogin(f"[auth]: {said}.")
    return f"{parts.scheme}://{parts.netloc}"


def check_installed() -> None:
    """Raises BadLogin where Authlib is not there."""
    if find_spec("authlib") is None:
        install = f".venv/bin/python -m pip install -r {REQUIREMENTS}"
        raise BadLogin(f"A login needs Authlib, which is not installed: {install}")
