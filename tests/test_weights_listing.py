"""What of a repository is taken, and which repositories are not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.weights_errors import Unfit
from serving.weights_listing import File, Listing, check_config, check_shards, choose
from tests.hub import model_files


def listing(*names: str) -> Listing:
    return Listing("acme/tiny", "main", tuple(File(name, 1) for name in names))


def chosen(*names: str) -> set[str]:
    return {file.name for file in choose(listing(*names))}


GOOD = ("config.json", "model.safetensors")


def test_what_vllm_does_not_read_stays_on_the_hub() -> None:
    assert chosen(*model_files()) == {
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors.index.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "LICENSE",
    }


@pytest.mark.parametrize("name", ["tokenizer.model", "merges.txt", "chat_template.jinja"])
def test_every_form_of_a_tokenizer_is_taken(name: str) -> None:
    assert name in chosen(*GOOD, name)


@pytest.mark.parametrize(
    "name", ["own.py", "model.onnx", "model.gguf", "flax_model.msgpack", "onnx/config.json", ".x"]
)
def test_code_and_other_formats_are_not_taken(name: str) -> None:
    assert chosen(*GOOD, name) == set(GOOD)


def test_the_same_weights_in_the_makers_format_are_not_taken_twice() -> None:
    assert "consolidated.safetensors" not in chosen(*GOOD, "consolidated.safetensors")
    assert "consolidated.safetensors" in chosen("config.json", "consolidated.safetensors")


def test_the_configuration_comes_first() -> None:
    files = choose(listing("a.json", "model.safetensors", "config.json"))
    assert files[0].name == "config.json"


@pytest.mark.parametrize(
    "name",
    [
        "../x.json",
        "a/../../x.json",
        "/etc/x.json",
        "//x.json",
        "a//x.json",
        "./x.json",
        "",
        "C:\\x.json",
        "C:x.json",
        "a\\x.json",
        "x\n.json",
        "x\0.json",
        "x\x1b[2J.json",
        "\ud800.json",
        "x" * 300 + ".json",
    ],
)
def test_a_name_that_leaves_the_folder_or_is_no_name_refuses_the_repository(name: str) -> None:
    with pytest.raises(Unfit, match="nothing was fetched"):
        choose(listing(*GOOD, name))


@given(st.lists(st.text(max_size=20), max_size=5))
def test_any_listing_is_refused_or_every_chosen_name_lies_in_the_folder(names: list[str]) -> None:
    try:
        files = choose(listing(*GOOD, *names))
    except Unfit:
        return
    assert all("/" not in file.name and file.name not in ("", ".", "..") for file in files)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("config.json", "pytorch_model.bin"), "pickle files only"),
        (("config.json", "consolidated.00.pth"), "pickle files only"),
        (("model.gguf",), "GGUF only"),
        (("README.md",), "no safetensors"),
        (("model.safetensors",), "no config.json"),
        (("config.json", "onnx/model.safetensors"), "no safetensors"),
    ],
)
def test_a_repository_that_cannot_be_served_says_why(names: tuple[str, ...], reason: str) -> None:
    with pytest.raises(Unfit, match=reason):
        choose(listing(*names))


@pytest.mark.parametrize(
    "text", ["[]", "{", "[" * 100_000, '{"weight_map": []}', '{"weight_map": {"a": 1}}', "{}"]
)
def test_an_index_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Unfit):
        check_shards("acme/tiny", text, set())


@pytest.mark.parametrize("name", ["../x.safetensors", "/x.safetensors", "a\\x", "..", ".x"])
def test_an_index_may_not_point_out_of_the_folder(name: str) -> None:
    text = json.dumps({"weight_map": {"a": name}})
    with pytest.raises(Unfit, match="outside its folder"):
        check_shards("acme/tiny", text, {name})


def test_own_code_is_asked_for_by_auto_map() -> None:
    check_config("acme/tiny", "config.json", '{"auto_map": {}}')
    with pytest.raises(Unfit, match="own Python code"):
        check_config("acme/tiny", "config.json", '{"auto_map": {"AutoModel": "x.Y"}}')
