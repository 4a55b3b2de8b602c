"""deploy/, each file by the tool that it is written for, and against the code that it starts.

The tools are in .venv-deploy (scripts/setup-deploy); scripts/lint runs all but what is slow.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import aclosing, contextmanager
from functools import cache
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from gateway.metrics import Metrics
from reasoning.endpoint import Endpoint, Request, ServedModel
from reasoning.metering import Meter
from serving.catalogue import load
from serving.command import Deployment, Options, vllm_command
from serving.hardware import Gpu, Machine
from tests import nginx
from tests.processes import free_port, until
from tests.stub import Play, Stub, says, status
from tests.test_laws import file_of, loaded

ROOT = Path(__file__).resolve().parent.parent
DEPLOY = ROOT / "deploy"
TOOLS = ROOT / ".venv-deploy" / "bin"
MANIFESTS = sorted(
    set(DEPLOY.glob("kubernetes/*.yaml")) - {DEPLOY / "kubernetes/kustomization.yaml"}
)
UNITS = sorted(DEPLOY.glob("systemd/*.service"))
EXPOSED = (
    40  # tenths of systemd's points for what a service could still do to the machine; 10.0 is all
)


@pytest.fixture(scope="session", autouse=True)
def tools() -> None:
    """Made when they are first asked for; a moment's look afterwards."""
    subprocess.run([ROOT / "scripts" / "setup-deploy"], check=True)


def check(tool: str, *argv: str | Path, where: Path = ROOT) -> None:
    """The tool has nothing to say against it."""
    path = os.pathsep.join([str(TOOLS), os.environ["PATH"]])
    program = shutil.which(tool, path=path)
    assert program, f"expected {tool}, found none: run scripts/setup-deploy"
    ran = subprocess.run([program, *map(str, argv)], cwd=where, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@cache
def documents(name: str) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all((DEPLOY / name).read_text(encoding="utf-8")))


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return dict(re.fullmatch(r"(.+)==(\S+)", line).groups() for line in lines if "==" in line)  # type: ignore[union-attr]


# -- by their own tools


def test_hadolint_finds_nothing_in_the_dockerfile() -> None:
    check("hadolint", DEPLOY / "Dockerfile")


def test_the_compose_file_is_of_the_compose_specification() -> None:
    schema = ("--builtin-schema", "vendor.compose-spec")
    check("check-jsonschema", *schema, DEPLOY / "compose.yaml")


def test_the_manifests_are_of_kubernetes_own_schemas() -> None:
    check("kubernetes-validate", "--strict", "--quiet", *MANIFESTS)


def test_promtool_takes_the_scrapes_and_the_alerts() -> None:
    # Only the syntax: the key's file is in the container alone.
    check("promtool", "check", "config", "--syntax-only", DEPLOY / "prometheus/prometheus.yml")
    check("promtool", "check", "rules", DEPLOY / "prometheus/alerts.yml")


def test_promtool_reads_each_query_of_the_dashboard(tmp_path: Path) -> None:
    rules = [{"record": f"query{n}", "expr": query} for n, query in enumerate(queries())]
    file = tmp_path / "queries.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    check("promtool", "check", "rules", file)


def test_nginx_takes_its_file(tmp_path: Path) -> None:
    nginx.check(tmp_path)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_takes_each_unit(unit: Path, tmp_path: Path) -> None:
    """As it is, but for the folder: systemd wants to see the programs that it names."""
    for program in ("serve.sh", ".venv/bin/python"):
        (tmp_path / program).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / program).touch(0o755)
    here = tmp_path / unit.name.replace("@.", "@8501.")
    here.write_text(unit.read_text(encoding="utf-8").replace("/opt/stepwise", str(tmp_path)))
    check("systemd-analyze", "verify", "--man=no", here)
    check("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSED}", here)


@pytest.mark.slow
@pytest.mark.long
def test_ray_loads_its_configuration() -> None:
    """Ray's own loaders, beside our vLLM: it imports one to know the models of its API."""
    code = """
import dataclasses, sys, yaml
from ray.serve.schema import ServeDeploySchema
from ray.llm._internal.serve.core.ingress.builder import LLMServingArgs
from ray.serve.config import RequestRouterConfig
from ray.llm._internal.serve.engines.vllm.vllm_models import VLLMEngineConfig
from vllm.config import StructuredOutputsConfig
from vllm.engine.arg_utils import AsyncEngineArgs
config = ServeDeploySchema.model_validate(yaml.safe_load(open(sys.argv[1])))
(model,) = LLMServingArgs.model_validate(config.applications[0].args).llm_configs
router = RequestRouterConfig(**model.deployment_config["request_router_config"])
assert router.get_request_router_class().__name__ == "PrefixCacheAffinityRouter"
engine = VLLMEngineConfig.from_llm_config(model)
assert engine.engine_kwargs.keys() <= {one.name for one in dataclasses.fields(AsyncEngineArgs)}
StructuredOutputsConfig(**engine.engine_kwargs["structured_outputs_config"])
front = {"enable_prompt_tokens_details", "enable_auto_tool_choice", "tool_call_parser"}
assert engine.frontend_kwargs.keys() == front, engine.frontend_kwargs
"""
    packages = next(TOOLS.parent.glob("lib/python*/site-packages"))
    begin = f"import sys; sys.path.append({str(packages)!r})"  # last: what both have is ours
    settings = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "HF_HUB_OFFLINE": "1"}
    ran = subprocess.run(
        [sys.executable, "-c", begin + code, str(DEPLOY / "ray.yaml")],
        env=settings,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr[-3000:]


# -- what they start


def compose() -> dict[str, Any]:
    services: dict[str, Any] = documents("compose.yaml")[0]["services"]
    return services


def pods() -> Iterator[dict[str, Any]]:
    for path in MANIFESTS:
        for one in documents(f"kubernetes/{path.name}"):
            if one["kind"] in ("Deployment", "StatefulSet"):
                yield one["spec"]["template"]["spec"]


def containers() -> dict[str, dict[str, Any]]:
    return {one["name"]: one for pod in pods() for one in pod["containers"]}


def pairs(words: Sequence[str]) -> set[tuple[str, ...]]:
    """Flags with their values."""
    return {tuple(one.split("\n")) for one in re.split(r"\n(?=--)", "\n".join(words))}


def flags_of_vllm() -> dict[str, list[str]]:
    """What each set-up starts vLLM with, the model's own name left out."""
    (stack,) = documents("production-stack.yaml")[0]["servingEngineSpec"]["modelSpec"]
    chart = ["--max-model-len", str(stack["vllmConfig"]["maxModelLen"])]
    chart += ["--tool-call-parser", stack["toolCallParser"], "--enable-auto-tool-choice"]
    return {
        "vllm-0": compose()["vllm-0"]["command"][1:],
        "vllm-1": compose()["vllm-1"]["command"][1:],
        "kubernetes": containers()["vllm"]["args"][1:],
        "production-stack": chart + stack["vllmConfig"]["extraArgs"],
    }


@pytest.mark.parametrize("where", ["vllm-0", "vllm-1", "kubernetes", "production-stack"])
def test_vllm_is_started_as_serve_sh_starts_it(where: str) -> None:
    """But for where it listens and for the guard, which is ours to install."""
    here = Machine(gpus=(Gpu("H100", 85.5),))
    model = load()["qwen2.5-7b-instruct"]
    deployment = Deployment(model, Options(), here, Path("weights"), Path("python"))
    argv = vllm_command(deployment).argv
    ours = pairs(argv[argv.index("--served-model-name") :])
    left_out = {"--host", "--port", "--middleware"}
    assert pairs(flags_of_vllm()[where]) == {pair for pair in ours if pair[0] not in left_out}


def test_the_served_model_is_one_of_the_catalogue() -> None:
    """So that page and gateway know its title and its way of thinking."""
    model = load()["qwen2.5-7b-instruct"]
    assert (model.served_name, model.huggingface) == (
        "Qwen2.5-7B-Instruct",
        "Qwen/Qwen2.5-7B-Instruct",
    )
    (llm,) = documents("ray.yaml")[0]["applications"][0]["args"]["llm_configs"]
    loading = llm["model_loading_config"]
    assert (loading["model_id"], loading["model_source"]) == (model.served_name, model.huggingface)


def test_each_image_of_vllm_is_of_the_version_that_we_install() -> None:
    version = pins("requirements.txt")["vllm"]
    (stack,) = documents("production-stack.yaml")[0]["servingEngineSpec"]["modelSpec"]
    images = {
        compose()["vllm-0"]["image"],
        containers()["vllm"]["image"],
        f"{stack['repository']}:{stack['tag']}",
    }
    assert images == {f"vllm/vllm-openai:v{version}"}


@pytest.mark.parametrize("where", ["compose", "kubernetes"])
def test_the_router_knows_its_flags(where: str) -> None:
    argv = compose()["router"]["command"] if where == "compose" else containers()["router"]["args"]
    code = (
        "import argparse, sys; from vllm_router.router_args import RouterArgs; "
        "flags = argparse.ArgumentParser(); RouterArgs.add_cli_args(flags); "
        "flags.parse_args(sys.argv[1:])"
    )
    check("python", "-c", code, *argv)
    version = pins("requirements-deploy.txt")["vllm-router"]
    assert f"vllm-router=={version}" in (DEPLOY / "Dockerfile").read_text(encoding="utf-8")


class Healthy(Stub):
    """One that a router takes for a server, by its /health."""

    def _play(self, lines: str, body: bytes) -> Play:
        return status(200, {}) if lines.split(" ")[1] == "/health" else super()._play(lines, body)


@contextmanager
def router(*servers: Stub) -> Iterator[str]:
    """vllm-router as compose.yaml starts it, in front of these: its address."""
    port = free_port()
    flags = [*compose()["router"]["command"], "--host", "127.0.0.1", "--port", str(port)]
    flags += ["--worker-urls", *(one.base_url.removesuffix("/v1") for one in servers)]
    flags += ["--prometheus-host", "127.0.0.1", "--prometheus-port", str(free_port())]
    with subprocess.Popen([TOOLS / "vllm-router", *flags], stdout=subprocess.DEVNULL) as process:
        try:
            until(lambda: listens(port))
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.kill()


def listens(port: int) -> bool:
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
async def test_behind_the_router_a_chain_stays_with_one_server() -> None:
    with Healthy(says("Hi")) as one, Healthy(says("Hi")) as other, router(one, other) as url:
        endpoint = Endpoint(url)
        chains = [Meter(endpoint) for _ in range(12)]
        for chain in chains * 3:
            question = {"role": "user", "content": f"{random.random()}"}
            async with aclosing(chain.chat(Request(ServedModel("stub"), (question,), 9))) as reply:
                assert "".join([piece.text async for piece in reply]) == "Hi"
        await endpoint.close()
    first, second = ({session_of(head) for head in stub.headers} for stub in (one, other))
    assert first | second == {chain.session for chain in chains}
    assert not first & second
    assert len(one.requests) + len(other.requests) == 36


def session_of(head: str) -> str:
    return re.findall(r"x-session-id: (\S+)", head.lower())[0]


def test_only_the_gateway_is_open_to_the_network() -> None:
    """It alone has a guard and a key."""
    ports = {(name, port) for name, one in compose().items() for port in one.get("ports", [])}
    open_to_all = {name for name, port in ports if not port.startswith("127.0.0.1:")}
    assert open_to_all == {"gateway"}


def test_what_is_ours_runs_without_root_and_writes_nothing() -> None:
    for name in ("router", "gateway", "page"):
        service, container = compose()[name], containers()[name]
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert container["securityContext"]["readOnlyRootFilesystem"], name
    assert (DEPLOY / "Dockerfile").read_text(encoding="utf-8").count("USER 10001:10001") == 2


def test_the_kustomization_names_each_manifest() -> None:
    (one,) = documents("kubernetes/kustomization.yaml")
    assert sorted(one["resources"]) == [path.name for path in MANIFESTS]


# -- the image


def test_the_image_has_the_pins_of_the_project() -> None:
    ours = pins("requirements-common.txt")
    for name, version in pins("deploy/requirements.txt").items():
        assert ours.get(name) == version, name


def test_the_image_has_every_module_that_page_and_gateway_load() -> None:
    copied = re.findall(r"^COPY (?!--)(.+)", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    taken = {word for line in copied for word in line.split()[:-1]}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    for start in ("gateway.__main__", "page.main", "app_reasoning"):
        for module in loaded(start):
            if file := file_of(module):
                top = file.relative_to(ROOT).parts[0]
                assert {top} <= taken, module
                assert f"!{top}" in ignored, module
    for name in taken:
        assert (ROOT / name).exists(), name


@pytest.mark.slow
def test_page_and_gateway_load_without_what_serves_a_model() -> None:
    """What the image leaves out is imported nowhere on their way."""
    left_out = pins("requirements-common.txt").keys() - pins("deploy/requirements.txt").keys()
    distributions = {**{name: [name] for name in ("torch", "vllm")}, **packages_distributions()}
    names = [
        name
        for name, of in distributions.items()
        if {"torch", "vllm", *left_out} & {one.lower().replace("-", "_") for one in of}
    ]
    assert {"gguf", "transformers", "modelscope"} <= set(names)
    pages = [f"page.{path.stem}" for path in (ROOT / "page").glob("*.py") if path.stem != "main"]
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({names!r}))\n"
        f"import gateway.__main__, app_reasoning, {', '.join(sorted(pages))}"
    )
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr


# -- the figures

BY_ROUTER = {  # seen at version 0.1.17's own /metrics
    "vllm_router_worker_health",
    "vllm_router_processed_requests_total",
    "vllm_router_request_errors_total",
}


def queries() -> list[str]:
    dashboard = json.loads((DEPLOY / "grafana/stepwise.json").read_text(encoding="utf-8"))
    targets = [one for panel in dashboard["panels"] for one in panel.get("targets", [])]
    return [one["expr"].replace("$__rate_interval", "5m") for one in targets]


def by_gateway() -> set[str]:
    """Each name as Prometheus meets it: with its _total, its _bucket."""
    suffixes = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "gauge": ("",)}
    families = Metrics().registry.collect()
    return {one.name + end for one in families for end in suffixes.get(one.type, ("",))}


def by_vllm() -> set[str]:
    """By the source: to import it takes half a minute."""
    found = find_spec("vllm")
    assert found
    assert found.submodule_search_locations
    files = Path(found.submodule_search_locations[0], "v1", "metrics").glob("*.py")
    text = "".join(file.read_text(encoding="utf-8") for file in files)
    names = set(re.findall(r'name="(vllm:\w+)"', text))
    return names | {name + end for name in names for end in ("_total", "_bucket")}


def test_each_figure_of_the_dashboard_and_the_alerts_is_exported() -> None:
    (rules,) = documents("prometheus/alerts.yml")
    alerts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    named = set(
        re.findall(r"\b(?:vllm:|vllm_router_|stepwise_)\w+", " ".join([*queries(), *alerts]))
    )
    assert len(named) > 15
    assert named <= by_gateway() | by_vllm() | BY_ROUTER
