"""The way in where Streamlit's secrets.toml has an [auth] table: a login, by OpenID Connect.

Nothing of the page is drawn before it. Whose history a person sees is in page/owner.py; what
the table must hold is in serving/login.py.
"""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import streamlit as st

from page.i18n import Words
from page.markdown import plain_line
from serving.login import BadLogin, Login, auth_table, check_installed, read_login

_log = logging.getLogger(__name__)


@cache
def login_asked() -> Login | BadLogin | None:
    """The login of this page, or why there can be none; None where nobody need log in.

    As the process found it: one that lost the table would otherwise be open to all.
    """
    try:
        if (auth := auth_table(map(Path, st.get_option("secrets.files")))) is None:
            return None
        check_installed()
        return read_login(auth, st.get_option("server.port"))
    except BadLogin as error:
        _log.error("Nobody can log in: %s", error)
        return error


def asks_for_login() -> bool:
    """Whether nobody comes in without one."""
    return login_asked() is not None


def let_in(words: Words) -> bool:
    """Whether the visitor may see the page; who may not is shown how to come in."""
    login = login_asked()
    if login is None or is_logged_in():
        return True
    if isinstance(login, BadLogin):
        st.error(plain_line(str(login)))
    else:
        _draw_door(login, words)
    return False


def is_logged_in() -> bool:
    return asks_for_login() and bool(st.user.to_dict().get("is_logged_in"))


def draw_logout(words: Words) -> None:
    """Who is logged in, and the way out."""
    if not is_logged_in():
        return
    person = st.user.to_dict()
    name = str(person.get("name") or person.get("email") or person.get("sub") or "")
    row = st.container(horizontal=True, vertical_alignment="center", key="person")
    row.caption(plain_line(name), width="stretch")
    row.button(
        words("logout"), key="logout", icon=":material/logout:", type="tertiary",
        on_click=st.logout,
    )  # fmt: skip


def _draw_door(login: Login, words: Words) -> None:
    st.title(words("title"), anchor=False)
    st.markdown(words("login_about"))
    here = urlsplit(st.context.url or login.origin)
    if f"{here.scheme}://{here.netloc}" != login.origin:  # its cookie would not be this page's
        st.info(words("login_elsewhere", address=login.origin))
        return
    for name in login.providers:
        label = words("login_with", name=plain_line(name)) if name else words("login")
        st.button(label, key=f"login-{name}", on_click=st.login, args=(name or None,))
