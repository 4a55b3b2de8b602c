"""./serve.sh's command line: checks what it can at once, then sets up and serves.

All that is answered before the set-up runs on the standard library alone.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any, NoReturn

from serving import hardware, listing, precision, replicas, sharing, speed, weights
from serving.catalogue import ROOT, CatalogueError, Model, find, load, models_root, sized
from serving.command import (
    GATEWAY_PORT,
    HOST,
    PORT,
    UI_PORT,
    Deployment,
    Options,
    context_problem,
    curl_lines,
    port_number,
    served_name,
    way_problem,
)
from serving.floors import version_problem
from serving.gate import KEY
from serving.hardware import Machine
from serving.keys import ApiKey, BadKey, choose_key
from serving.login import BadLogin, auth_table, read_login
from serving.precision import PRECISIONS, Precision, PrecisionError
from serving.report import Report
from serving.served import Served, describe_speed, publish
from serving.servers import Servers, servers
from serving.weights_errors import Unfit

BAD_USAGE = 2
FAILED = 1
STOPPED = 130
CALLED_FROM = "STEPWISE_CALLED_FROM"  # serve.sh's word for the folder that --model ./x starts in

EXAMPLES = """\
examples:
  ./serve.sh --ui                              the best model for this machine, and the page
  ./serve.sh --gateway                         step-by-step thinking for any OpenAI client
  ./serve.sh --list                            what there is, and whether it is here
  ./serve.sh --model satori-7b-round2          another one
  ./serve.sh --model ./my-llama                a folder; org/name is any model of a hub
  ./serve.sh --port 8080 -- --quantization fp8 what stands after -- goes to vLLM as it is
  ./serve.sh --replicas 4                      a server on each of four GPUs, behind one address

environment: VLLM_API_KEY (the key clients must send, of 32 characters or more where --host is
not this machine; without one a key is made and kept), HF_TOKEN (for gated models),
STEPWISE_MODELS (where the weights lie). docs/serving.md has the rest.
"""

# Ours to give to vLLM: a second value would make the addresses that we print lies.
OURS = ("--model", "--host", "--port", "--served-model-name")


class Refusal(Exception):
    """Ends the start with one message and an exit status."""

    def __init__(self, message: str, status: int = FAILED) -> None:
        super().__init__(message)
        self.status = status


def parser() -> argparse.ArgumentParser:
    flags = argparse.ArgumentParser(
        prog="./serve.sh",
        usage="./serve.sh [--model NAME] [--ui] [--gateway] [flags] [-- vLLM's own flags]",
        description="Serve a model behind an OpenAI-compatible API on this machine.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = flags.add_argument
    add("--model", metavar="NAME", help="a name from --list, a folder, or org/name of a hub")
    add("--list", action="store_true", help="show the models and what they need")
    add("--ui", action="store_true", help="start the page as well")
    add("--ui-host", metavar="HOST", help="the same, and where it listens; others need its link")
    add("--gateway", action="store_true", help="start the gateway too: NAME-steps, NAME-vote8")
    where = "[USER@]HOST[:PORT]"
    add("--share", type=sharing.tunnel, metavar=where, help="and an ssh tunnel to it from there")
    add("--host", default=HOST, help=f"where the API, or the gateway, listens ({HOST})")
    for flag, default, whose in (
        ("--port", PORT, "the API's"),
        ("--gateway-port", GATEWAY_PORT, "the gateway's"),
        ("--ui-port", UI_PORT, "the page's"),
    ):
        add(flag, type=port_number, default=default, metavar="PORT", help=f"{whose} ({default})")
    add("--api-key-file", type=Path, metavar="FILE", help="the key clients send; made if missing")
    said = "servers of the model, a GPU each, or a share of the cores"
    add("--replicas", type=replicas.replica_count, default=1, metavar="N", help=said)
    said = "a server of another machine, to share the work; repeatable"
    add(
        "--worker-url",
        type=replicas.worker_url,
        action="append",
        default=[],
        help=said,
        metavar="URL",
    )
    add("--max-model-len", type=_positive, metavar="TOKENS", help="the context's length")
    add("--served-model-name", metavar="NAME", help="what the API calls the model")
    add("--chat-template", type=Path, metavar="FILE", help="a Jinja file in place of the model's")
    add("--precision", choices=PRECISIONS, default="auto", help="what a CPU computes in (auto)")
    add("--source", choices=weights.SOURCES, help="the hub to fetch from")
    add("--no-download", action="store_true", help="fail when the weights are not here")
    add("--verify", action="store_true", help="compare each weights file with its hash first")
    add("--log-content", action="store_true", help="let our logs hold questions and answers")
    add("--dry-run", action="store_true", help="print the vLLM command and end")
    return flags


def _positive(text: str) -> int:
    if not (text.isdecimal() and int(text) > 0):
        raise argparse.ArgumentTypeError(f"expected a number of tokens, got {text!r}")
    return int(text)


def split(argv: Sequence[str]) -> tuple[list[str], tuple[str, ...]]:
    """Our flags, and those after -- that are vLLM's."""
    words = list(argv)
    if "--" not in words:
        return words, ()
    at = words.index("--")
    return words[:at], tuple(words[at + 1 :])


def _address(host: str) -> str:
    return "127.0.0.1" if host == "localhost" else host


def options_of(given: argparse.Namespace, extra: tuple[str, ...]) -> Options:
    return Options(
        host=_address(given.host),
        port=given.port,
        gateway=given.gateway,
        gateway_port=given.gateway_port,
        ui=given.ui or given.ui_host is not None or given.share is not None,
        ui_host=_address(given.ui_host or HOST),
        ui_port=given.ui_port,
        share=given.share is not None,
        max_model_len=given.max_model_len,
        served_model_name=given.served_model_name,
        chat_template=given.chat_template.expanduser().absolute() if given.chat_template else None,
        precision=given.precision,
        log_content=given.log_content,
        extra=extra,
        replicas=given.replicas,
        worker_urls=tuple(dict.fromkeys(given.worker_url)),
    )


def check(options: Options) -> None:
    """Refuses what can be refused without looking at the machine."""
    named = {word.split("=")[0].replace("_", "-") for word in options.extra}
    if "--api-key" in named:
        raise Refusal(
            "A key on the command line is seen by everybody on this machine: "
            "set VLLM_API_KEY in the environment, or give --api-key-file FILE.",
            BAD_USAGE,
        )
    if ours := [flag for flag in OURS if flag in named]:
        raise Refusal(f"Give {ours[0]} before the --, not after it.", BAD_USAGE)
    if options.precision != "auto" and precision.decide(options.extra):
        raise Refusal("Give --precision, or --dtype after the --, not both.", BAD_USAGE)
    for one, other in combinations(options.all_listeners, 2):
        if one.port == other.port:
            both = f"The {one.name} and the {other.name} cannot both have port {one.port}"
            raise Refusal(f"{both}: change one with {one.flag} or {other.flag}.", BAD_USAGE)
    if options.chat_template is not None:
        _check_template(options.chat_template)


def _check_template(file: Path) -> None:
    if file.is_dir():
        raise Refusal(f"{file} is a folder: --chat-template takes a Jinja file.", BAD_USAGE)
    if not os.access(file, os.R_OK):
        why = "cannot be read" if file.exists() else "is not there"
        raise Refusal(f"The file {file} {why}. --chat-template takes a Jinja file.", BAD_USAGE)


def with_login(options: Options) -> Options:
    """What was asked for, and the login to the page that secrets.toml tells of."""
    try:
        if not options.ui or (auth := auth_table()) is None:
            return options
        return replace(options, login=read_login(auth, options.ui_port))
    except BadLogin as error:
        raise Refusal(str(error), BAD_USAGE) from None


def check_share(to: sharing.Tunnel, login: bool, report: Report) -> None:
    """Says what a tunnel means before there is one."""
    if shutil.which("ssh") is None:
        raise Refusal("--share needs the ssh client: sudo apt-get install openssh-client")
    report.say(sharing.warning(to, login))


def check_replicas(model: Model, options: Options, here: Machine) -> None:
    if problem := replicas.find_problem(model, options, here, os.environ):
        raise Refusal(problem, BAD_USAGE)


def take_key(options: Options, file: Path | None, report: Report) -> ApiKey:
    """The key, put where every server finds it; a file that was made for it is named."""
    try:
        chosen = choose_key(options.host, file, os.environ)
    except BadKey as error:
        raise Refusal(str(error), BAD_USAGE) from None
    if chosen.file is not None:
        report.say(f"Clients must send the key in {chosen.file}.")
        os.environ[KEY] = chosen.key
    return chosen


def pick(name: str | None, catalogue: Mapping[str, Model], here: Machine) -> Model:
    """The model that was named, or the one this machine gets."""
    if name is not None:
        return find(name, catalogue)
    model = hardware.choose(catalogue.values(), here)
    if model is None:
        raise Refusal(f"No default model fits this machine ({here.description}): name one.")
    return model


def computes_in(model: Model, options: Options, here: Machine) -> Precision:
    """The precision, from what is known of the model by now."""
    if precision.decide(options.extra):
        return Precision()
    config = _config(weights.folder_of(model, models_root()))
    try:
        return precision.choose(options.precision, model, here, config)
    except PrecisionError as error:
        raise Refusal(str(error)) from None


def choice_line(
    model: Model, computed: Precision, here: Machine, tokens: float | None, times: int = 1
) -> str:
    """What is served, how fast each of them will be, why, and what to type for another."""
    expected = f", {describe_speed(tokens)}" if tokens else ""
    expected += f", {times} times" if times > 1 else ""
    kind = f" in {computed.name}" if computed.name else ""
    lacking = " without instructions for int8" if computed.name == "bfloat16" else ""
    return (
        f"Serving {model.served_name}{kind}{expected}: this machine has {here.description}"
        f"{lacking if not here.cpu.int8 else ''}. Another: --model NAME (--list shows them)."
    )


def expected(model: Model, computed: Precision, here: Machine) -> float | None:
    """Tokens/s of one stream, or None for a GPU and where the memory's speed is not known."""
    measured = None if here.gpus else speed.known_speed(here.cpu)
    return speed.expected_speed(model, computed.name, here.cpu, measured) if measured else None


def dry_run(
    model: Model, options: Options, here: Machine, share: sharing.Tunnel | None = None
) -> str:
    """The commands a start would run, a line each."""
    computed = computes_in(model, options, here)
    form = computed.name if computed.convert else ""
    folder = weights.folder_of(model, models_root(), form)
    deployment = Deployment(model, options, here, folder, _python(), os.environ, computed)
    started = servers(deployment).all
    tunnels = (sharing.tunnel_spec(share, options),) if share else ()
    return "\n".join(str(server.command) for server in (*started, *tunnels))


def _python() -> Path:
    return ROOT / ".venv" / "bin" / "python"


def start(
    model: Model,
    options: Options,
    here: Machine,
    given: argparse.Namespace,
    report: Report,
    key: ApiKey,
) -> int:
    """Everything after the checks that cost nothing: set-up, weights, servers."""
    if here.system != "Linux":
        raise Refusal(
            "vLLM needs Linux (on Windows: WSL2). The page can use a server elsewhere: "
            "OPENAI_BASE_URL=http://HOST:8000/v1 streamlit run app_reasoning.py"
        )
    from serving import ports  # not on Windows, and not for --list

    with ExitStack() as claims:
        try:
            for one in options.all_listeners:
                claims.enter_context(ports.take(one.host, one.port, one.flag))
        except ports.PortError as error:
            raise Refusal(str(error)) from None
        _set_up(model, options, here, given, report)
        folder, computed = _fetch(model, options, here, given.source, report)
        _check_context(model, options, folder)
        _check_way(model, folder)
        return _serve(model, options, here, folder, computed, report, key, given.share)


def _set_up(
    model: Model, options: Options, here: Machine, given: argparse.Namespace, report: Report
) -> None:
    """The environment, in which all goes on from here."""
    from serving import setup

    _check_weights(model, computes_in(model, options, here), given, report)
    try:
        python = setup.ensure(here, report, login=options.login is not None)
        setup.ensure_libnuma(here, report)
        if options.routed:
            setup.ensure_router(report)
        if Path(sys.prefix).resolve() != setup.Place().folder.resolve():
            _go_on_in(python, [] if given.model else ["--model", model.name])
    except setup.SetupError as error:
        raise Refusal(str(error)) from None
    if problem := version_problem():
        raise Refusal(f"{problem} Delete .venv and start again, and it is made as it should be.")


def _fetch(
    model: Model, options: Options, here: Machine, source: str | None, report: Report
) -> tuple[Path, Precision]:
    """The folder of the weights, in the precision that fits them; what that came to be."""
    root = models_root()
    try:
        if not model.size_gb:  # only the weights tell whether int8 is for them
            model = sized(model, weights.fetch(model, root, source, report))
        computed = computes_in(model, options, here)
        if not computed.convert:
            return weights.fetch(model, root, source, report), computed
        try:
            return weights.fetch(model, root, source, report, computed.name), computed
        except Unfit as error:
            if options.precision != "auto":
                raise
            report.say(f"{error.message} Serving it in bfloat16.")
            return weights.fetch(model, root, source, report), precision.BFLOAT16
    except weights.WeightsError as error:
        raise Refusal(str(error)) from None


def _check_weights(
    model: Model, computed: Precision, given: argparse.Namespace, report: Report
) -> None:
    if given.verify:
        try:
            form = computed.name if computed.convert else ""
            weights.verify(model, models_root(), report, form)
        except weights.WeightsError as error:
            raise Refusal(str(error)) from None
    made = computed.convert and weights.present(model, models_root(), computed.name)
    if given.no_download and not made and not weights.present(model, models_root()):
        raise Refusal(
            f"The weights of {model.name} are not in {weights.folder_of(model, models_root())}. "
            f"Fetch them: python model_download.py {model.name}"
        )


def _go_on_in(python: Path, more: list[str]) -> NoReturn:
    """The same start again, in the environment that is there now."""
    os.environ[CALLED_FROM] = os.getcwd()
    os.chdir(ROOT)
    sys.stdout.flush()
    os.execv(python, [str(python), "-m", "serving", *more, *sys.argv[1:]])


def _check_context(model: Model, options: Options, folder: Path) -> None:
    """vLLM says it too, half a minute later, unless it is told to take any length."""
    if "VLLM_ALLOW_LONG_MAX_MODEL_LEN" in os.environ:
        return
    length = options.max_model_len or model.max_model_len
    if problem := context_problem(_config(folder), length):
        raise Refusal(f"{problem} Give a smaller --max-model-len, or leave it out.")


def _check_way(model: Model, folder: Path) -> None:
    """Other weights under a model's name would think in a way that they cannot, and fail at it."""
    try:
        tokenizer = (folder / "tokenizer.json").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    if problem := way_problem(model, tokenizer, named=model.name in load()):
        raise Refusal(f"{problem} Set `way` in its table, or fetch the weights again: {folder}.")


def _config(folder: Path) -> dict[str, Any]:
    """The model's config.json; {} where there is none or it is broken, which is vLLM's to say."""
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def _serve(
    model: Model,
    options: Options,
    here: Machine,
    folder: Path,
    computed: Precision,
    report: Report,
    key: ApiKey,
    share: sharing.Tunnel | None,
) -> int:
    from serving.launch import LaunchPlan, log_of, serve

    if key.key:
        os.environ["OPENAI_API_KEY"] = key.key  # the page's client and ours
    token = sharing.new_token() if options.ui_for_others else ""
    python = Path(sys.executable)
    started = servers(Deployment(model, options, here, folder, python, os.environ, computed))
    tunnels = [sharing.tunnel_spec(share, options)] if share else []

    def ready() -> Sequence[str]:
        lines = ready_lines(model, options, key)
        said = log_of(tunnels[0]).read_text(errors="replace") if tunnels else ""
        links = sharing.page_links(options, token, share, said) if token else ()
        return (*lines, *links)

    plan = LaunchPlan(
        model=served_name(model, options),
        vllms=started.vllms,
        ready=ready,
        beside=(*started.beside, *tunnels),
        warm=partial(_warm, started) if model.way == "json_steps" else None,
    )
    one = replicas.one_of(options, here)
    with publish(known(model, options, one, computed), options.port):
        return serve(plan, report)


def known(model: Model, options: Options, here: Machine, computed: Precision) -> Served:
    """What the server itself does not tell of the model."""
    name, speed = served_name(model, options), expected(model, computed, here)
    return Served(name, model.title or name, computed.name, speed, by_us=True)


def ready_lines(model: Model, options: Options, key: ApiKey) -> tuple[str, ...]:
    name = served_name(model, options)
    first, *rest = curl_lines(model, options, key.shell)
    page = "The page: ./serve.sh --ui, or streamlit run app_reasoning.py"
    return (
        "",
        f"{name} answers{f', {options.replicas} times' if options.replicas > 1 else ''}.",
        *(f"  {one.name[0].upper() + one.name[1:]:<8} {one.url}" for one in options.listeners),
        *([f"The gateway's models: {name}-steps, {name}-vote8, {name}"] if options.gateway else []),
        "",
        "Ask it:",
        " \\\n    ".join([f"  {first}", *rest]),
        *([] if options.ui else ["", page]),
        "",
        "Ctrl-C stops everything.",
    )


def _warm(started: Servers, ready: Callable[[], None]) -> None:
    """In a thread of its own."""
    from serving.warmup import warm_ours

    warm_ours([one.address for one in started.vllms], ready)


def run(argv: Sequence[str], report: Report) -> int:
    ours, extra = split(argv)
    flags = parser()
    given, unknown = flags.parse_known_args(ours)
    if unknown:
        flags.error(f"{unknown[0]} is no flag of serve.sh; flags for vLLM go after --")
    catalogue = load()
    here = hardware.detect()
    if given.list:
        print(list_text(catalogue, here))
        return 0
    options = with_login(options_of(given, extra))
    check(options)
    own = replicas.one_of(options, here)
    model = pick(given.model, catalogue, own)
    check_replicas(model, options, here)
    computed = computes_in(model, options, own)
    told = Report(sys.stderr) if given.dry_run else report
    if given.share is not None:
        check_share(given.share, options.login is not None, told)
    told.say(choice_line(model, computed, here, expected(model, computed, own), options.replicas))
    notes = [
        note
        for note in (here.warning, hardware.explain_misfit(model, own, options.precision))
        if note
    ]
    if given.dry_run:
        for note in notes:
            print(note, file=sys.stderr)
        print(dry_run(model, options, here, given.share))
        return 0
    key = take_key(options, given.api_key_file, report)
    if options.log_content:
        report.say("The logs of page and gateway will hold questions and answers; vLLM's never do.")
    _judge(model, own, options, report)
    return start(model, options, here, given, report, key)


def list_text(catalogue: Mapping[str, Model], here: Machine) -> str:
    default = hardware.choose(catalogue.values(), here)
    root = models_root()
    return listing.format_table(
        catalogue.values(),
        here,
        default,
        lambda model: weights.present(model, root),
        lambda model: weights.int8_bytes(model, root),
        lambda model: _listed_speed(model, here),
    )


def _listed_speed(model: Model, here: Machine) -> float | None:
    """Only of what is worth offering here."""
    if not hardware.holds(model, here):
        return None
    return expected(model, computes_in(model, Options(), here), here)


def _judge(model: Model, here: Machine, options: Options, report: Report) -> None:
    """Refuses a model that cannot fit, unless flags for vLLM may make it fit."""
    if here.warning:
        report.say(here.warning)
    problem = hardware.explain_misfit(model, here, options.precision)
    if problem and options.replicas > 1 and not here.gpus:
        problem = f"Each of {options.replicas} replicas has its share of the memory. {problem}"
    if problem and options.extra:
        report.say(problem + " Trying, as flags for vLLM were given.")
    elif problem:
        raise Refusal(
            problem + " Take a smaller one (./serve.sh --list), or give vLLM flags that make it "
            "fit after --, such as --quantization fp8."
        )
    elif not here.gpus and model.gpu_gb is not None and model.cpu_gb is None:
        report.say(f"{model.name} is made for a GPU; without one it will be very slow.")


def main() -> int:
    if folder := os.environ.pop(CALLED_FROM, ""):
        os.chdir(folder)
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler)
    report = Report()
    try:
        return run(sys.argv[1:], report)
    except CatalogueError as error:
        print(error, file=sys.stderr)
        return BAD_USAGE
    except Refusal as refusal:
        print(refusal, file=sys.stderr)
        return refusal.status
    except KeyboardInterrupt:
        report.say("\nStopped. The next start goes on from here.")
        return STOPPED
    except BrokenPipeError:  # ./serve.sh --list | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


if __name__ == "__main__":
    sys.exit(main())
