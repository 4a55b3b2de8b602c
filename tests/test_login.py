"""The table that says who may log in to the page: read, and what is wrong with it in one line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from serving.login import BadLogin, Login, auth_table, check_installed, read_login

PROVIDER = {
    "client_id": "stepwise",
    "client_secret": "s3cret",
    "server_metadata_url": "https://login.example/.well-known/openid-configuration",
}
SHARED = {"redirect_uri": "http://127.0.0.1:{port}/oauth2callback", "cookie_secret": "c" * 32}
WHOLE = {**SHARED, **PROVIDER}


@pytest.mark.parametrize(
    ("auth", "providers"),
    [
        (WHOLE, ("",)),
        ({**WHOLE, "client_kwargs": {"prompt": "login"}, "expose_tokens": "id"}, ("",)),
        ({**SHARED, "okta": PROVIDER, "google": PROVIDER}, ("okta", "google")),
        ({**WHOLE, "okta": PROVIDER}, ("", "okta")),
    ],
)
def test_a_whole_table_tells_where_and_by_whom_people_log_in(
    auth: dict[str, Any], providers: tuple[str, ...]
) -> None:
    assert read_login(auth, 8600) == Login("http://127.0.0.1:8600", providers)


def without(name: str) -> dict[str, Any]:
    return {key: value for key, value in WHOLE.items() if key != name}


@pytest.mark.parametrize(
    ("auth", "said"),
    [
        ({}, "no redirect_uri"),
        *((without(name), f"no {name}") for name in WHOLE),
        ({**WHOLE, "client_id": 7}, "no client_id"),
        ({**WHOLE, "cookie_secret": "s3cret"}, "cookie_secret of 32 characters"),
        ({**WHOLE, "redirect_uri": "http://127.0.0.1:8501/"}, "got 'http://127.0.0.1:8501/'"),
        ({**WHOLE, "redirect_uri": "127.0.0.1:8501/oauth2callback"}, "expected a redirect_uri"),
        ({**WHOLE, "server_metadata_url": "login.example"}, "server_metadata_url that begins"),
        ({**SHARED, "my_idp": PROVIDER}, "without an underscore"),
        ({**SHARED, "okta": {**PROVIDER, "client_secret": ""}}, "[auth.okta] of secrets.toml"),
        (SHARED, "no client_id"),
    ],
)
def test_what_is_wrong_is_said_in_a_line_that_holds_no_secret(
    auth: dict[str, Any], said: str
) -> None:
    with pytest.raises(BadLogin) as caught:
        read_login(auth, 8501)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_the_projects_table_comes_before_the_users(tmp_path: Path) -> None:
    users, projects = tmp_path / "home.toml", tmp_path / "project.toml"
    assert auth_table([users, projects]) is None
    users.write_text('other = 1\n[auth]\nclient_id = "a"\n')
    assert auth_table([users, projects]) == {"client_id": "a"}
    projects.write_text('[auth]\nclient_id = "b"\n')
    assert auth_table([users, projects]) == {"client_id": "b"}
    projects.write_text("no_auth = 1\n")
    assert auth_table([users, projects]) == {"client_id": "a"}


@pytest.mark.parametrize("text", ['[auth]\nclient_secret = "s3cret', "auth = 's3cret'", "[auth\n"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, text: str) -> None:
    file = tmp_path / "secrets.toml"
    file.write_text(text)
    with pytest.raises(BadLogin, match=r"secrets\.toml") as caught:
        auth_table([file])
    assert "s3cret" not in str(caught.value)


def test_without_authlib_the_command_that_installs_it_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("serving.login.find_spec", lambda name: None)
    with pytest.raises(BadLogin, match=r"install -r requirements-login\.txt"):
        check_installed()
