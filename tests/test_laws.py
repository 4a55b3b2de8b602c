"""The laws of the house, read from the imports."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("reasoning", "serving", "history", "page", "gateway", "evals")
OURS = {*ROOMS, "bench", "tests", "app_reasoning", "model_download"}


def imports(path: Path) -> set[str]:
    """The modules that a file imports, anywhere in it."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def rooms(*names: str) -> list[Path]:
    return [path for name in names for path in sorted((ROOT / name).rglob("*.py"))]


def tops(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


@pytest.mark.parametrize("path", rooms("reasoning"), ids=lambda path: path.name)
def test_the_core_knows_no_page_no_engine_and_no_web_framework(path: Path) -> None:
    assert not tops(path) & {"streamlit", "vllm", "fastapi", "starlette"}
    assert not tops(path) & {"history", "page", "gateway", "evals"}
    if path.name != "__main__.py":  # the terminal reads the catalogue
        assert "serving" not in tops(path)


@pytest.mark.parametrize("path", rooms(*ROOMS), ids=lambda path: path.name)
def test_only_the_endpoint_imports_the_client(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() != "reasoning/endpoint.py":
        assert "openai" not in tops(path)


DRAWS_NOTHING = (
    *("health", "security_headers", "exports", "report", "html_export", "mathml"),
    *("differences", "markdown", "path_chart", "wording", "step_marks", "palette", "i18n"),
)


@pytest.mark.parametrize("name", DRAWS_NOTHING)
def test_what_tells_of_runs_knows_no_streamlit(name: str) -> None:
    assert "streamlit" not in tops(ROOT / "page" / f"{name}.py")


def test_only_the_store_imports_sqlalchemy_and_a_driver() -> None:
    found = {path.name for path in rooms(*ROOMS) if tops(path) & {"sqlalchemy", "psycopg"}}
    assert found == {"database.py", "store.py"}


@pytest.mark.parametrize("path", rooms("history"), ids=lambda path: path.name)
def test_the_history_knows_no_page(path: Path) -> None:
    assert not tops(path) & {"streamlit", "page", "serving"}


@pytest.mark.parametrize("path", rooms("gateway"), ids=lambda path: path.name)
def test_the_gateway_knows_no_page_no_history_and_no_client(path: Path) -> None:
    assert not tops(path) & {"streamlit", "page", "history", "evals", "openai", "vllm"}
    assert not tops(path) & {"httpx", "httpx2", "aiohttp"}  # the core's endpoint asks for it


def test_the_gate_needs_only_the_standard_library() -> None:
    for name in ("gate.py", "__init__.py"):  # vLLM imports both
        assert tops(ROOT / "serving" / name) <= sys.stdlib_module_names


@pytest.mark.parametrize("path", rooms("evals"), ids=lambda path: path.name)
def test_the_evaluation_knows_no_page(path: Path) -> None:
    assert not tops(path) & {"streamlit", "page"}


@pytest.mark.parametrize("name", ["events.py", "errors.py", "repeats.py"])
def test_the_values_import_nothing_of_ours(name: str) -> None:
    assert not tops(ROOT / "reasoning" / name) & OURS


@pytest.mark.parametrize("name", ["events.py", "errors.py"])
def test_the_values_need_only_the_standard_library(name: str) -> None:
    assert tops(ROOT / "reasoning" / name) <= sys.stdlib_module_names


def test_model_text_is_never_html() -> None:
    for path in [*rooms("page"), ROOT / "app_reasoning.py"]:
        code = path.read_text(encoding="utf-8").replace("st.html(STYLE)", "")  # our own CSS file
        assert not re.search(r"unsafe_allow|components\.v1|st\.html", code), path
