"""A page with nothing but a run on it, for tests of how a run looks: with the page's headers."""

from pathlib import Path

from starlette.middleware import Middleware
from streamlit.starlette import App

from page.security_headers import SecurityHeaders

app = App(Path(__file__).with_name("script.py"), middleware=[Middleware(SecurityHeaders)])
