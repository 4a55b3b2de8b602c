"""The page's front door: streamlit run app_reasoning.py

What the page shows is in page/main.py; which model it asks is in the environment:
OPENAI_BASE_URL, OPENAI_API_KEY and MODEL (default: the server of ./serve.sh). Who may open it is
there as well, where ./serve.sh opens it to others (page/access.py), or in .streamlit/secrets.toml,
where people log in (page/login.py).
"""

from starlette.middleware import Middleware
from streamlit.starlette import App

from page.access import TokenAccess
from page.lifespan import lifespan
from page.login import asks_for_login
from page.owner import BrowserCookie
from page.security_headers import SecurityHeaders

MIDDLEWARE = [
    Middleware(SecurityHeaders),
    Middleware(TokenAccess, login=asks_for_login),
    Middleware(BrowserCookie),
]
app = App("page/main.py", lifespan=lifespan, middleware=MIDDLEWARE)
