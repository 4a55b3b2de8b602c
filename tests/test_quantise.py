"""int8: the arithmetic against a float matmul, the files it makes, and what it refuses."""

from __future__ import annotations

import io
import json
from pathlib import Path
from shutil import rmtree
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from serving import shards, weights
from serving.catalogue import Model
from serving.conversion import convert
from serving.quantise import (
    CONFIG,
    QUANTISATION,
    check_layers,
    int8_data,
    int8_size,
    is_quantised,
    quantise_rows,
)
from serving.report import Report
from serving.tensors import Gguf, Safetensors, Tensor
from serving.weights_errors import Damaged, NoSpace, Unfit
from serving.weights_files import check_folder, entry_of, read_manifest, write_manifest

LAYER = "model.layers.0.mlp.up_proj.weight"
QUERY = "model.layers.0.self_attn.q_proj.weight"
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"
NORM = "model.norm.weight"


def matrix(rows: int, columns: int, seed: int) -> torch.Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def small(seed: int = 1) -> dict[str, torch.Tensor]:
    kinds = {EMBEDDING: (50, 32), QUERY: (32, 32), LAYER: (64, 32)}
    model = {
        name: matrix(*shape, seed + n).bfloat16() for n, (name, shape) in enumerate(kinds.items())
    }
    return {**model, NORM: torch.ones(32).bfloat16()}


def a_model(folder: Path, tensors: dict[str, torch.Tensor], files: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = sorted(tensors)
    names_of = {f"model-{n}.safetensors": names[n::files] for n in range(files)}
    for file, held in names_of.items():
        save_file({name: tensors[name].contiguous() for name in held}, folder / file)
    if files > 1:
        table = {name: file for file, held in names_of.items() for name in held}
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    (folder / "config.json").write_text('{"architectures": ["LlamaForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "chat_template.jinja").write_text("template")
    (folder / "pytorch_model.py").write_text("code")
    return folder


def loaded(folder: Path) -> dict[str, torch.Tensor]:
    return {k: v for file in folder.glob("*.safetensors") for k, v in load_file(file).items()}


def error(got: torch.Tensor, due: torch.Tensor) -> float:
    return float((got - due).norm() / due.norm())


@given(st.integers(0, 10**6), st.integers(1, 48), st.sampled_from([64, 576, 1000]))
@settings(max_examples=25, deadline=None)
def test_the_output_differs_by_less_than_a_hundredth(seed: int, rows: int, columns: int) -> None:
    weight, activations = matrix(rows, columns, seed), matrix(8, columns, seed + 1)
    w, w_scale = quantise_rows(weight)
    x, x_scale = quantise_rows(activations)  # a scale for each token is a scale for each row
    out = (x.int() @ w.int().T).float() * x_scale.float() * w_scale.float().T
    assert error(out, activations @ weight.T) < 0.01 * max(1.0, (8 / rows) ** 0.5)


@given(st.integers(0, 10**6), st.floats(1e-6, 1e6))
@settings(max_examples=50, deadline=None)
def test_no_value_is_off_by_more_than_its_row_s_step(seed: int, size: float) -> None:
    """Half a step by rounding; the scale's own rounding may cut the largest by as much again."""
    weight = matrix(5, 64, seed) * size
    rows, scale = quantise_rows(weight)
    assert bool(((rows.float() * scale.float() - weight).abs() <= scale.float()).all())


def test_a_row_of_zeros_stays_one() -> None:
    rows, scale = quantise_rows(torch.zeros(2, 8))
    assert not rows.any()
    assert torch.isfinite(scale).all()


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("shard_bytes", [10**9, 3000])
def test_a_folder_becomes_int8_layer_by_layer_and_the_rest_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: int, shard_bytes: int
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", shard_bytes)
    tensors = small()
    source, made = a_model(tmp_path / "own", tensors, files), tmp_path / "made"
    made.mkdir()
    told: list[int] = []
    convert(source, made, "int8", told.append)
    check_folder(made)
    got = loaded(made)
    for name, of in ((QUERY, QUERY), (LAYER, LAYER), (HEAD, EMBEDDING)):
        rows, scale = quantise_rows(tensors[of].float())
        assert torch.equal(got[name], rows)
        assert torch.equal(got[f"{name}_scale"], scale)
    for name in (EMBEDDING, NORM):
        assert torch.equal(got[name], tensors[name])
    assert told[-1] == int8_size(source)
    assert len(list(made.glob("*.safetensors"))) == (1 if shard_bytes > 3000 else 3)


def test_a_head_of_its_own_is_taken_and_not_the_embedding(tmp_path: Path) -> None:
    tensors = small() | {HEAD: matrix(50, 32, 7).bfloat16()}
    got = loaded(converted(a_model(tmp_path / "own", tensors)))
    assert torch.equal(got[HEAD], quantise_rows(tensors[HEAD].float())[0])
    assert torch.equal(got[EMBEDDING], tensors[EMBEDDING])


@pytest.mark.parametrize("own_head", [True, False])
def test_the_head_of_another_family_stays_as_it_is(tmp_path: Path, own_head: bool) -> None:
    """vLLM may have no head apart from the embedding there, or none in int8."""
    tensors = small() | ({HEAD: matrix(50, 32, 7).bfloat16()} if own_head else {})
    source = a_model(tmp_path / "own", tensors)
    (source / "config.json").write_text('{"architectures": ["GemmaForCausalLM"]}')
    made = converted(source)
    config, got = json.loads((made / "config.json").read_text()), loaded(made)
    assert got.get(HEAD) is None or torch.equal(got[HEAD], tensors[HEAD])
    assert config["quantization_config"]["ignore"] == ["lm_head"]
    assert "tie_word_embeddings" not in config


def converted(source: Path) -> Path:
    made = source.parent / "made"
    made.mkdir()
    convert(source, made, "int8", lambda done: None)
    return made


def test_the_configuration_says_what_vllm_reads(tmp_path: Path) -> None:
    source = a_model(tmp_path / "own", small())
    made = converted(source)
    config = json.loads((made / "config.json").read_text())
    quantised = config["quantization_config"]
    group = quantised["config_groups"]["group_0"]
    assert config["architectures"] == ["LlamaForCausalLM"]
    assert (quantised["quant_method"], quantised["format"]) == (
        "compressed-tensors",
        "int-quantized",
    )
    assert (group["weights"]["strategy"], group["input_activations"]["strategy"]) == (
        "channel",
        "token",
    )
    assert (group["targets"], quantised["ignore"]) == (["Linear", "re:lm_head"], [])
    assert config["tie_word_embeddings"] is False
    assert is_quantised(made)
    assert not is_quantised(source)
    assert (made / "chat_template.jinja").read_text() == "template"


def test_a_matrix_is_read_in_blocks_of_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.tensors.BLOCK", 100)
    tensors = small()
    source = Safetensors(a_model(tmp_path, tensors))
    tensor = next(one for one in source.tensors if one.name == LAYER)
    blocks = list(source.blocks(tensor))
    assert [len(block) for block in blocks] == [3] * 21 + [1]
    assert torch.equal(torch.cat(blocks), tensors[LAYER])
    *rows, scale = int8_data(source, tensor)
    assert torch.equal(torch.cat(rows), quantise_rows(tensors[LAYER].float())[0])
    assert scale.shape == (64, 1)


def a_gguf(path: Path, family: str, head: bool) -> dict[str, numpy.ndarray]:
    import gguf

    values = {
        "token_embd.weight": matrix(50, 64, 1).numpy(),
        "output_norm.weight": numpy.ones(64, numpy.float32),
        "blk.0.attn_q.weight": matrix(64, 64, 2).numpy(),
        "blk.0.attn_k.weight": matrix(32, 64, 3).numpy(),
        "blk.0.ffn_up.weight": matrix(96, 64, 4).numpy(),
    }
    if head:
        values["output.weight"] = matrix(50, 64, 5).numpy()
    writer = gguf.GGUFWriter(path, family)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    for name, value in values.items():
        if value.ndim == 1:
            writer.add_tensor(name, value)
        else:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(value, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


@pytest.mark.parametrize("head", [True, False])
def test_a_gguf_file_is_read_under_the_names_that_vllm_knows(tmp_path: Path, head: bool) -> None:
    values = a_gguf(tmp_path / "m.gguf", "qwen2", head)
    source = Gguf(tmp_path / "m.gguf")
    got = {one.name: torch.cat(list(source.blocks(one))) for one in source.tensors}
    assert error(got[EMBEDDING], torch.from_numpy(values["token_embd.weight"])) < 0.01
    assert error(got[QUERY], torch.from_numpy(values["blk.0.attn_q.weight"])) < 0.01
    assert ("lm_head.weight" in got, source.tied) == (head, not head)
    check_layers(source.tensors, "m.gguf")


def test_a_llama_s_rotary_halves_are_put_back_as_transformers_has_them(tmp_path: Path) -> None:
    values = a_gguf(tmp_path / "m.gguf", "llama", False)
    source = Gguf(tmp_path / "m.gguf")
    key = next(one for one in source.tensors if one.name.endswith("k_proj.weight"))
    raw = torch.from_numpy(values["blk.0.attn_k.weight"])
    due = raw.reshape(2, 8, 2, 64).swapaxes(1, 2).reshape(32, 64)
    assert error(torch.cat(list(source.blocks(key))), due) < 0.01


def test_another_family_of_gguf_is_named(tmp_path: Path) -> None:
    a_gguf(tmp_path / "m.gguf", "mamba", False)
    with pytest.raises(Unfit, match=r"'mamba', expected one of llama"):
        Gguf(tmp_path / "m.gguf")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("model.layers.1.mlp.experts.0.up_proj.weight", (4, 4)),
        ("model.layers.1.mlp.experts.gate_up_proj", (2, 4, 4)),
        ("model.layers.0.conv1d.weight", (4, 1, 4)),
        ("vision_tower.blocks.0.attn.qkv.weight", (4, 4)),
    ],
)
def test_a_layer_that_cannot_be_int8_is_named(name: str, shape: tuple[int, ...]) -> None:
    tensors = (Tensor(LAYER, (4, 4), "BF16"), Tensor(name, shape, "BF16"))
    with pytest.raises(Unfit) as caught:
        check_layers(tensors, "own")
    assert name in str(caught.value)
    assert "--precision bfloat16" in str(caught.value)
    assert "\n" not in str(caught.value)


# -- through weights.fetch


def fetch(model: Model, root: Path) -> tuple[Path, str]:
    out = io.StringIO()
    return weights.fetch(model, root, None, Report(out), "int8"), out.getvalue()


def own(folder: Path) -> Model:
    return Model(name=folder.name, served_name=folder.name, folder=folder)


@pytest.mark.slow
def test_a_folder_gets_its_int8_form_beside_it_once(tmp_path: Path) -> None:
    model = own(a_model(tmp_path / "own", small()))
    assert not weights.present(model, tmp_path, "int8")
    folder, said = fetch(model, tmp_path)
    assert folder == tmp_path / "own-int8" == weights.folder_of(model, tmp_path, "int8")
    assert "int8 for this CPU, once" in said
    assert weights.present(model, tmp_path, "int8")
    assert weights.int8_bytes(model, tmp_path)
    assert fetch(model, tmp_path) == (folder, "")
    shard = folder / "model.safetensors"
    shard.write_bytes(shard.read_bytes()[:-1] + b"\0")
    assert not weights.present(model, tmp_path, "int8")
    assert "model.safetensors is damaged" in fetch(model, tmp_path)[1]


@pytest.mark.slow
def test_the_int8_form_of_a_folder_that_changed_is_made_anew(tmp_path: Path) -> None:
    model = own(a_model(tmp_path / "own", small(1)))
    fetch(model, tmp_path)
    a_model(tmp_path / "own", tensors := small(9))
    assert not weights.present(model, tmp_path, "int8")
    folder, _ = fetch(model, tmp_path)
    assert torch.equal(loaded(folder)[LAYER], quantise_rows(tensors[LAYER].float())[0])


@pytest.mark.slow
def test_what_an_earlier_version_made_is_made_anew_while_its_original_is_here(
    tmp_path: Path,
) -> None:
    model = own(a_model(tmp_path / "own", small()))
    folder, _ = fetch(model, tmp_path)
    form = as_an_earlier_version_made_it(folder)
    assert not weights.present(model, tmp_path, "int8")
    assert "int8 for this CPU, once" in fetch(model, tmp_path)[1]
    assert json.loads((folder / CONFIG).read_text())[QUANTISATION] != form
    assert fetch(model, tmp_path) == (folder, "")


@pytest.mark.slow
def test_what_an_earlier_version_made_of_something_gone_is_served_and_said_so(
    tmp_path: Path,
) -> None:
    folder, _ = fetch(own(a_model(tmp_path / "hub--own", small())), tmp_path)
    as_an_earlier_version_made_it(folder)
    rmtree(tmp_path / "hub--own")
    model = Model(name="hub/own", served_name="own", huggingface="hub/own")
    assert weights.present(model, tmp_path, "int8")
    served, said = fetch(model, tmp_path)
    assert served == folder
    assert f"Delete {folder} and start again" in said


def as_an_earlier_version_made_it(folder: Path) -> dict[str, Any]:
    """Its configuration with a head that is not int8, as it once was. Gives that form."""
    config = json.loads((folder / CONFIG).read_text())
    form: dict[str, Any] = config[QUANTISATION] | {"ignore": ["lm_head", "another"]}
    (folder / CONFIG).write_text(json.dumps(config | {QUANTISATION: form}))
    entries = read_manifest(folder)
    assert entries
    write_manifest(folder, {name: entry_of(folder / name) for name in entries})
    return form


def test_a_quantised_model_is_served_as_it_is(tmp_path: Path) -> None:
    folder = a_model(tmp_path / "own", small())
    (folder / "config.json").write_text('{"quantization_config": {"quant_method": "awq"}}')
    assert fetch(own(folder), tmp_path)[0] == folder
    assert not (tmp_path / "own-int8").exists()


def test_one_that_is_published_in_int8_has_one_folder() -> None:
    model = Model(name="w8a8", served_name="w8a8", precision="int8")
    assert weights.folder_of(model, Path("/models"), "int8") == Path("/models/w8a8")


def test_a_folder_that_is_no_model_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Unfit, match=r"config\.json"):
        fetch(own(tmp_path), tmp_path)
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"none")
    with pytest.raises(Damaged, match="not a whole safetensors file"):
        fetch(own(tmp_path), tmp_path)


def test_a_model_of_another_kind_makes_no_folder(tmp_path: Path) -> None:
    experts = {"model.layers.0.mlp.experts.w1": torch.zeros(2, 4, 4), LAYER: torch.zeros(4, 4)}
    with pytest.raises(Unfit, match="experts"):
        fetch(own(a_model(tmp_path / "own", experts)), tmp_path)
    assert not (tmp_path / "own-int8").exists()


def test_without_space_it_says_how_much_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "int8_size", lambda folder: 10**18)
    with pytest.raises(NoSpace, match=r"needs 1000000000\.00 GB"):
        fetch(own(a_model(tmp_path / "own", small())), tmp_path)
