"""What an operator gets wrong on a command line: told in one to five lines, soon, by its exit code.

Each is a real start, in an environment of its own and an empty folder for models. On a machine
that others use the wall clock tells of them; so the time that counts is the command's CPU time,
which is what an idle machine takes.
"""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from statistics import median
from tempfile import TemporaryDirectory

from bench.faults.promise import Effort, Promise, Tally
from tests.processes import ROOT, free_port, start
from tests.stub import Stub, says, status

SERVE = "./serve.sh"
TERMINAL, GATEWAY, EVALS = ("-m", "reasoning"), ("-m", "gateway"), ("-m", "evals")
DOWNLOAD = ("model_download.py",)
LINES, SECONDS = 5, 2.0
GIVEN_UP = 60.0  # seconds of wall clock
FORGOTTEN = ("OPENAI_", "VLLM_", "STEPWISE_", "OTEL_", "HTTP", "ALL_PROXY", "MODEL")
GUESSABLE = "changeme" * 5


@dataclass(frozen=True, slots=True)
class Mistake:
    """A command line; `code` is the exit status it must end in, `says` a part of what it must say.

    In the words and the environment {folder} is an empty folder, {file} a text file, {busy} a
    port in use, {free} one that is not, {stub} a model server's URL, {html} a web server's,
    {nobody} an address where nothing listens.
    """

    command: tuple[str, ...]
    code: int
    says: str
    environment: Mapping[str, str] = field(default_factory=dict)


def _serve(words: str, code: int, says: str, **environment: str) -> Mistake:
    return Mistake((SERVE, *words.split()), code, says, environment)


def _python(
    module: Sequence[str], words: Sequence[str], code: int, says: str, **environment: str
) -> Mistake:
    given = {"OPENAI_BASE_URL": "{nobody}", **environment}
    return Mistake((sys.executable, *module, *words), code, says, given)


def _ask(words: str, code: int, says: str, **environment: str) -> Mistake:
    return _python(TERMINAL, words.split(), code, says, **environment)


MISTAKES = (
    _serve("--modle x", 2, "--modle"),
    _serve("--model no-such-model", 2, "no-such-model"),
    _serve("--model ./no-such-folder", 2, "no folder"),
    _serve("--model {folder}", 2, "config.json"),
    _serve("--model {file}", 2, "folder"),
    _serve("--port 0", 2, "port"),
    _serve("--port 99999", 2, "port"),
    _serve("--port soon", 2, "port"),
    _serve("--port {busy}", 1, "in use"),
    _serve("--ui --ui-port 8000", 2, "cannot both have port 8000"),
    _serve("--max-model-len -5", 2, "tokens"),
    _serve("--precision int3", 2, "int3"),
    _serve("--source nohub", 2, "nohub"),
    _serve("--share host:port", 2, "--share"),
    _serve("--chat-template {folder}", 2, "Jinja"),
    _serve("--chat-template {folder}/none.jinja", 2, "Jinja"),
    _serve("--api-key-file {folder}", 2, "cannot be"),
    _serve("--api-key-file {file}", 2, "chmod 600"),
    _serve("--model smollm2-135m-instruct --no-download --port {free}", 1, "model_download.py"),
    _serve("-- --model x", 2, "--model before the --"),
    _serve("-- --api-key sesame", 2, "VLLM_API_KEY"),
    _serve("", 2, "blanks", VLLM_API_KEY=" "),
    _serve("--host 0.0.0.0", 2, "too easy to guess", VLLM_API_KEY="short"),
    _serve("--host 0.0.0.0", 2, "too easy to guess", VLLM_API_KEY=GUESSABLE),
    _serve("--host 192.0.2.77", 1, "192.0.2.77"),
    _serve("--model llama-3.3-70b-instruct", 1, "smaller"),
    _ask("", 2, "question"),
    _python(TERMINAL, [" "], 1, "empty"),
    _python(TERMINAL, ["x" * 8_001], 1, "8,001"),
    _ask("Why?", 1, "./serve.sh"),
    _ask("Why? --max-steps 0", 2, "max_steps"),
    _ask("Why? --min-steps 9 --max-steps 3", 2, "min_steps"),
    _ask("Why? --temperature warm", 2, "warm"),
    _ask("Why? --budget 0", 2, "budget"),
    _ask("Why? --chains 99", 2, "99"),
    _ask("Why? --way guess", 2, "guess"),
    _ask("Why? --step-seconds -1", 2, "step_seconds"),
    _ask(
        "Why?", 1, "STEPWISE_STEP_SECONDS", OPENAI_BASE_URL="{stub}", STEPWISE_STEP_SECONDS="soon"
    ),
    _ask("Why?", 1, "does not serve other", OPENAI_BASE_URL="{stub}", MODEL="other"),
    _ask("Why?", 1, "not an OpenAI", OPENAI_BASE_URL="{html}"),
    _ask("Why?", 1, "http://", OPENAI_BASE_URL="127.0.0.1:8000/v1"),
    _ask("Why?", 1, "port", OPENAI_BASE_URL="http://127.0.0.1:99999/v1"),
    _ask("Why?", 1, "OPENAI_BASE_URL", OPENAI_BASE_URL="http://[::1/v1"),
    _ask("Why?", 1, "not known", OPENAI_BASE_URL="http://no-such-host.invalid/v1"),
    _ask("Why?", 1, "OPENAI_API_KEY", OPENAI_API_KEY="two\nlines"),
    _ask("Why?", 1, "proxy", OPENAI_BASE_URL="http://h.invalid/v1", ALL_PROXY="socks5://p:99999"),
    _python(GATEWAY, ["--host", "0.0.0.0"], 2, "VLLM_API_KEY"),
    _python(GATEWAY, ["--host", "0.0.0.0"], 2, "32 characters", VLLM_API_KEY="short"),
    _python(GATEWAY, ["--port", "{busy}"], 1, "in use"),
    _python(GATEWAY, ["--port", "eighty"], 2, "port"),
    _python(GATEWAY, ["--por", "8001"], 2, "--por"),
    _python(DOWNLOAD, [], 2, "name"),
    _python(DOWNLOAD, ["no-such-model"], 1, "no-such-model"),
    _python(DOWNLOAD, ["smollm2-135m-instruct", "--source", "nohub"], 2, "nohub"),
    _python(DOWNLOAD, ["smollm2-135m-instruct", "--to", "{file}"], 1, "{file}"),
    _python(EVALS, ["--arms", "nonsense"], 1, "nonsense"),
    _python(EVALS, ["--tasks", "nonsense"], 1, "nonsense"),
    _python(EVALS, ["--limit", "0"], 2, "whole number"),
    _python(EVALS, ["--arms", "gateway"], 1, "--gateway"),
    _python(EVALS, ["--report", "{folder}"], 1, "{folder}"),
    _python(EVALS, ["--quick"], 1, "./serve.sh"),
)


def keep(effort: Effort, tally: Tally) -> None:
    seconds: list[float] = []
    try:
        with places() as known:
            for mistake in Random(1).sample(MISTAKES, effort.of(len(MISTAKES), 30)):
                problem, spent = _made(mistake, known)
                tally.note(
                    " ".join(mistake.command)[:80].replace(sys.executable, "python"), problem
                )
                seconds.append(spent)
    finally:
        if seconds:
            tally.tell(f"CPU seconds: median {median(seconds):.2f}, most {max(seconds):.2f}")


@contextmanager
def places() -> Iterator[Mapping[str, str]]:
    """What the mistakes name, for as long as they are made."""
    html = status(200, b"<html></html>", kind="text/html")
    with ExitStack() as stack:
        root = Path(stack.enter_context(TemporaryDirectory(prefix="stepwise-")))
        (root / "empty").mkdir()
        (root / "file").write_text("a text\n")
        stub = stack.enter_context(Stub(says("Hello")))
        web = stack.enter_context(Stub(models=html))
        yield {
            "folder": str(root / "empty"),
            "file": str(root / "file"),
            "busy": str(stub.port),
            "free": str(free_port()),
            "stub": stub.base_url,
            "html": web.base_url,
            "nobody": f"http://127.0.0.1:{free_port()}/v1",
            "root": str(root),
        }


def _made(mistake: Mistake, known: Mapping[str, str]) -> tuple[str, float]:
    """What is wrong with how it ended ("": nothing), and its seconds of CPU."""
    command = [word.format(**known) for word in mistake.command]
    environment = _environment(mistake, known)
    before = _cpu_seconds()
    process = start(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    said, problem = _outcome(process)
    spent = _cpu_seconds() - before
    return problem or _judged(mistake, process.returncode, said, spent, known), spent


def _outcome(process: subprocess.Popen[str]) -> tuple[str, str]:
    try:
        return process.communicate(timeout=GIVEN_UP)[0], ""
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.communicate()[0], f"it goes on after {GIVEN_UP:.0f} s"


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _environment(mistake: Mistake, known: Mapping[str, str]) -> dict[str, str]:
    kept = {name: it for name, it in os.environ.items() if not name.upper().startswith(FORGOTTEN)}
    own = {"STEPWISE_MODELS": f"{known['root']}/models", "XDG_STATE_HOME": f"{known['root']}/state"}
    given = {name: value.format(**known) for name, value in mistake.environment.items()}
    return {**kept, **own, **given}


def _judged(
    mistake: Mistake, code: int, said: str, seconds: float, known: Mapping[str, str]
) -> str:
    lines = [line for line in said.splitlines() if line.strip()]
    expected = mistake.says.format(**known)
    problems = [
        f"exit code {code}, expected {mistake.code}" if code != mistake.code else "",
        f"{len(lines)} lines" if not 1 <= len(lines) <= LINES else "",
        f"{seconds:.1f} s of CPU" if seconds > SECONDS else "",
        "a traceback" if "Traceback" in said else "",
        f"nothing of {expected!r} is said" if expected not in said else "",
    ]
    found = ", ".join(filter(None, problems))
    return f"{found}; it said {said[-300:]!r}" if found else ""


PROMISE = Promise(
    f"a mistake on the command line is told in one to {LINES} lines, in less than {SECONDS:.0f} s "
    "of an idle machine, with the right exit code and no traceback",
    keep,
)
