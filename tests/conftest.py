"""What the tests share: the real servers, one browser and one page for each worker.

The servers are started as a user starts them, by ./serve.sh, the first time a test asks for
one, and are the same for all workers.
"""

from __future__ import annotations

import fcntl
import os
import random
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serving.supervisor import die_with_parent
from tests import failures
from tests.examples import settings
from tests.processes import OUTPUT, free_port
from tests.real_servers import Server, locked, wait_for_the_end
from tests.switch import Switch

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext

    from tests.page_browser import PageServer, Visitor

MARKS = {"real": {"reciter"}, "browser": {"home"}}  # by what a test asks for
WORKER = os.environ.get("PYTEST_XDIST_WORKER", "alone")
settings.load_profile("usual")

# What a usual run finds is the change's doing, not chance's; a long one looks further each time.
SEED = "1"


# -- the run


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """SIGTERM is Ctrl-C; a worker does not outlive who started it. One seed for all examples."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    os.environ["XDG_STATE_HOME"] = str(OUTPUT / "state")  # a busy machine's speed is not kept
    if hasattr(config, "workerinput"):
        die_with_parent()
        config.option.hypothesis_seed = config.workerinput["seed"]
        return
    if config.option.hypothesis_seed is None:
        explores = config.option.hypothesis_profile == "long"
        config.option.hypothesis_seed = str(random.randrange(2**32)) if explores else SEED


def pytest_sessionstart(session: pytest.Session) -> None:
    if not hasattr(session.config, "workerinput"):
        failures.forget_the_last_run()


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["seed"] = node.config.option.hypothesis_seed


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what needs a model server or a browser, and deals out the longest of it."""
    for item in items:
        asked = set(getattr(item, "fixturenames", ()))
        for mark, fixtures in MARKS.items():
            if asked & fixtures:
                item.add_marker(mark)
    items[:] = dealt(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def dealt(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The order in which the first two workers begin with a half each of what needs a server.

    Each begins with an equal part of the list. Two chains at once cost a server little more
    than one, and the other workers keep the rest of the machine busy: first with what is long,
    lest one of them is still at it when all others have ended.
    """
    real = [item for item in items if item.get_closest_marker("real")]
    rest = [item for item in items if not item.get_closest_marker("real")]
    rest.sort(key=lambda item: item.get_closest_marker("long") is None)
    half = -(-len(real) // min(workers, 2))
    room = max(0, len(items) // workers - half)
    return [*real[:half], *rest[:room], *real[half:], *rest[room:]]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Who counts what the real server works on has it alone; the others share it."""
    if not item.get_closest_marker("real"):
        return (yield)
    how = fcntl.LOCK_EX if item.get_closest_marker("alone") else fcntl.LOCK_SH
    with locked(OUTPUT / "servers" / "reciter.turn", how):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.failed:
        failures.keep(item, report)
    return report


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        wait_for_the_end()


# -- the servers


@pytest.fixture(scope="session")
def reciter() -> Iterator[Server]:
    """A served model whose every word is known."""
    from tests.reciter import reciting  # which is slow to import

    with reciting() as server:
        yield server


# -- the page


@pytest.fixture(scope="session")
def port() -> int:
    """Where the worker's page looks for a model server, which comes and goes."""
    return free_port()


@pytest.fixture(scope="session")
def workers_page(port: int) -> Iterator[PageServer]:
    from tests.page_browser import page_server  # as is this

    with page_server(f"http://127.0.0.1:{port}/v1", f"page-{WORKER}.log") as page:
        yield page


@pytest.fixture
def staged(workers_page: PageServer) -> PageServer:
    """The worker's page as on its first day: nothing was asked and nothing chosen."""
    workers_page.forget()
    return workers_page


@pytest.fixture
def page(staged: PageServer) -> str:
    """The same, for whom its address is enough."""
    return staged.address


@pytest.fixture
def real_page(staged: PageServer, reciter: Server, port: int) -> Iterator[PageServer]:
    """The same in front of a real server, which is led in short chains of JSON steps."""
    from tests.page_browser import LED

    staged.prefer(**LED, min_steps=1, max_steps=2, step_tokens=100)
    with Switch(reciter.base_url, port):
        yield staged


@pytest.fixture(scope="session")
def profile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the worker's browser keeps the page, compiled."""
    return tmp_path_factory.mktemp("chromium")


@pytest.fixture(scope="module")  # the loop that Playwright runs lets no asynchronous test run
def home(profile: Path) -> Iterator[BrowserContext]:
    from tests.page_browser import chromium

    with chromium(profile) as home:
        yield home


@pytest.fixture
def browser(home: BrowserContext) -> Browser:
    """For who wants a context of its own."""
    assert home.browser
    return home.browser


@pytest.fixture
def visitors(
    home: BrowserContext, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Visitor]]:
    """Sends people to a page, and looks that their browsers loaded nothing from outside."""
    from tests.page_browser import visiting

    with visiting(home, request.node.stash.setdefault(failures.VISITORS, [])) as visit:
        yield visit
