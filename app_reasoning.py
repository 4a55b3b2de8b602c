"""The page's front door: streamlit run app_reasoning.py

What the page shows is in page/main.py; which model it asks is in the environment:
OPENAI_BASE_URL, OPENAI_API_KEY and MODEL (default: the server of ./serve.sh).
"""

from starlette.middleware import Middleware
from streamlit.starlette import App

from page.owner import BrowserCookie
from page.security_headers import SecurityHeaders

app = App("page/main.py", middleware=[Middleware(SecurityHeaders), Middleware(BrowserCookie)])
