"""What the page's process does at its start and, where it is ended in order, at its end.

At its start it takes over the log: what Streamlit and its web server say, in the form in which we
say it. Streamlit gives each of its loggers a handler of its own, those too that it makes later.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import streamlit.logger
from streamlit.starlette import App

from reasoning.logs import start_logging

at_end = ExitStack()  # atexit's would not be called: the web server dies of the SIGTERM it heard


@asynccontextmanager
async def lifespan(_: App) -> AsyncIterator[None]:
    start_logging()
    streamlit.logger.setup_formatter = _hand_on
    streamlit.logger.update_formatter()
    with at_end:
        yield


def _hand_on(logger: logging.Logger) -> None:
    """What the logger says goes to the one handler of the process."""
    logger.handlers.clear()
    logger.propagate = True
