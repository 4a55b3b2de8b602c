"""The laws of the house, read from the imports."""

import ast
import re
import sys
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("reasoning", "serving", "history", "page", "gateway", "evals")
OURS = {*ROOMS, "bench", "tests", "app_reasoning", "model_download"}


@cache
def nodes(path: Path) -> list[ast.Import | ast.ImportFrom]:
    """The imports in a file, anywhere in it."""
    found = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
    return [node for node in found if isinstance(node, (ast.Import, ast.ImportFrom))]


def imports(path: Path) -> set[str]:
    """The modules that a file imports."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
        else:
            found.add(node.module or "")
    return found


def loaded(module: str) -> dict[str, tuple[str, ...]]:
    """All modules that come with one of ours, each with the way that leads to it."""
    ways: dict[str, tuple[str, ...]] = {module: (module,)}
    left = [module]
    while left:
        module = left.pop()
        for name in imported_by(module):
            if name not in ways:
                ways[name] = (*ways[module], name)
                left.append(name)
    return ways


def imported_by(module: str) -> set[str]:
    """What a module of ours imports, names of a package's modules included; of others nothing."""
    path = file_of(module)
    if path is None:
        return set()
    names = imports(path)
    packages = {name.rpartition(".")[0] for name in (module, *names)} - {""}
    return names | packages | {name for name in members(path) if file_of(name)}


def members(path: Path) -> set[str]:
    """Each name that a file imports from a module, as if it were a module of its own."""
    return {
        f"{node.module}.{name.name}"
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom)
        for name in node.names
    }


def file_of(module: str) -> Path | None:
    """The file of a module of ours."""
    place = ROOT.joinpath(*module.split("."))
    found = [it for it in (place.with_suffix(".py"), place / "__init__.py") if it.is_file()]
    return found[0] if found else None


def rooms(*names: str) -> list[Path]:
    return [path for name in names for path in sorted((ROOT / name).rglob("*.py"))]


def tops(path: Path) -> set[str]:
    return {module.split(".")[0] for module in imports(path)}


def test_the_readme_names_every_module() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").partition("## The files")[2]
    named = set(re.findall(r"\w+", tree))
    for path in rooms(*(room for room in ROOMS if room != "evals")):
        assert path.stem.startswith("__") or path.stem in named, path.relative_to(ROOT)


# What each package may import of ours: what stands above it in docs/code.md.
ABOVE = {
    "reasoning": set(),
    "serving": {"reasoning"},
    "history": {"reasoning"},
    "gateway": {"reasoning", "serving"},
    "page": {"reasoning", "serving", "history"},
    "evals": {"reasoning", "serving"},
}


@pytest.mark.parametrize("room", ABOVE)
def test_a_package_imports_only_from_those_above_it(room: str) -> None:
    for path in rooms(room):
        allowed = ABOVE[room] | {room}
        if path == ROOT / "reasoning" / "__main__.py":  # the terminal reads the catalogue
            allowed = allowed | {"serving"}
        assert tops(path) & OURS <= allowed, path.relative_to(ROOT)


def test_every_module_of_ours_that_is_imported_is_there() -> None:
    """mypy takes a module that it does not find for anything at all (ignore_missing_imports)."""
    for path in rooms(*ROOMS, "bench", "tests"):
        for module in imports(path):
            ours = module.split(".")[0] in OURS
            assert not ours or file_of(module) or ROOT.joinpath(*module.split(".")).is_dir(), (
                f"{path.relative_to(ROOT)} imports {module}"
            )


@pytest.mark.parametrize("path", rooms("reasoning"), ids=lambda path: path.name)
def test_the_core_knows_no_page_no_engine_and_no_web_framework(path: Path) -> None:
    assert not tops(path) & {"streamlit", "vllm", "fastapi", "starlette"}


@pytest.mark.parametrize("path", rooms(*ROOMS), ids=lambda path: path.name)
def test_only_the_endpoint_imports_the_client(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() != "reasoning/endpoint.py":
        assert "openai" not in tops(path)


PURE = (
    *("access", "health", "security_headers", "exports", "report", "html_export", "mathml", "i18n"),
    *("differences", "markdown", "path_chart", "wording", "step_marks", "palette"),
)


@pytest.mark.parametrize("name", PURE)
def test_what_tells_of_runs_loads_no_streamlit(name: str) -> None:
    """Neither itself nor by whatever of ours it imports."""
    ways = loaded(f"page.{name}")
    found = {module: ways[module] for module in ways if module.split(".")[0] == "streamlit"}
    assert not found, found


def test_the_law_follows_our_own_modules() -> None:
    """However a module is imported, and at whatever hand: else the law above says nothing."""
    assert "sqlalchemy" not in imports(ROOT / "page" / "actions.py")
    assert "sqlalchemy" in loaded("page.actions")  # by history/store.py
    assert "streamlit" in loaded("tests.test_page_actions")  # "from page import actions"


def test_only_the_store_imports_sqlalchemy_and_a_driver() -> None:
    found = {path.name for path in rooms(*ROOMS) if tops(path) & {"sqlalchemy", "psycopg"}}
    assert found == {"database.py", "index.py", "store.py", "tables.py"}


@pytest.mark.parametrize("path", rooms("history"), ids=lambda path: path.name)
def test_the_history_draws_nothing(path: Path) -> None:
    assert "streamlit" not in tops(path)


@pytest.mark.parametrize("path", rooms("gateway"), ids=lambda path: path.name)
def test_the_gateway_draws_nothing_and_has_no_client(path: Path) -> None:
    assert not tops(path) & {"streamlit", "vllm"}
    assert not tops(path) & {"httpx", "httpx2", "aiohttp"}  # the core's endpoint asks for it


def test_the_gate_needs_only_the_standard_library() -> None:
    for name in ("gate.py", "__init__.py"):  # vLLM imports both
        assert tops(ROOT / "serving" / name) <= sys.stdlib_module_names


@pytest.mark.parametrize("path", rooms("evals"), ids=lambda path: path.name)
def test_the_evaluation_draws_no_page(path: Path) -> None:
    assert "streamlit" not in tops(path)


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
