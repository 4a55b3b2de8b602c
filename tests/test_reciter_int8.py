"""The tiny reciter in int8: made as ./serve.sh makes it, it says the same to the letter."""

from __future__ import annotations

import asyncio
import io
import os
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path
from shutil import copytree
from typing import Any

import pytest

from reasoning.endpoint import Endpoint, Request
from serving import hardware, weights
from serving.catalogue import Model, find, load
from serving.cpu import detect
from serving.precision import INT8_NEEDS
from serving.report import Report
from serving.weights_files import damaged, read_manifest
from tests import reciter as known
from tests.real_servers import Server

CPU = detect(hardware.read, os.sched_getaffinity(0))
END = "<|im_end|>"
ENDING = [
    pair for pair in known.transcripts() if pair[1].endswith(END)
]  # others end in their middle
on_int8 = pytest.mark.skipif(
    not CPU.int8, reason=f"vLLM's int8 layers need {INT8_NEEDS}, and this CPU has none of them"
)


@pytest.fixture(scope="module")
def original() -> Path:
    """The folder of the reciter as it was trained."""
    model = find("reciter", load(known.catalogue()))
    assert model.folder
    return model.folder


@pytest.fixture(scope="module")
def int8(original: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of its int8 form, made anew."""
    folder = tmp_path_factory.mktemp("models") / "reciter"
    model = Model("reciter", "Reciter", folder=Path(copytree(original, folder)))
    made = weights.fetch(model, folder.parent, None, Report(io.StringIO()), "int8")
    assert weights.present(model, folder.parent, "int8")
    return made


@pytest.mark.slow
def test_the_int8_folder_is_whole_and_its_hashes_are_right(int8: Path, original: Path) -> None:
    entries = read_manifest(int8)
    assert entries
    assert "model.safetensors" in entries
    assert damaged(int8, entries) == []
    assert _size(int8) < 0.8 * _size(original)  # of so few layers head and embedding are a third


def _size(folder: Path) -> int:
    return (folder / "model.safetensors").stat().st_size


@pytest.mark.slow
def test_by_hand_its_int8_form_writes_the_same_tokens(int8: Path, original: Path) -> None:
    """Weights out of the folder times their scales, activations rounded for each token as vLLM
    rounds them: after each prefix of a transcript the likeliest token is the right one.
    """
    import torch

    model, tokenizer = by_hand(int8, original), known.make_tokenizer()
    with torch.no_grad():
        for prompt, reply in known.transcripts():
            one = known.example(tokenizer, prompt, reply)
            likeliest = model(torch.tensor([one.tokens])).logits[0, one.start - 1 : -1].argmax(-1)
            assert likeliest.tolist() == one.tokens[one.start :]


def by_hand(int8: Path, original: Path) -> Any:
    """The model in float32, with what the int8 folder holds in the place of its weights."""
    import torch
    from safetensors.torch import load_file
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(
        original, dtype=torch.float32, tie_word_embeddings=False
    )
    held = load_file(int8 / "model.safetensors")
    scales = {name: held.pop(f"{name}_scale") for name in list(held) if f"{name}_scale" in held}
    assert len(scales) == 2 * 7 + 1  # the matrices of two layers, and the head
    assert {held[name].dtype for name in scales} == {torch.int8}
    floats = {name: value.float() * scales.get(name, 1) for name, value in held.items()}
    model.load_state_dict(floats)
    for name in scales:
        model.get_submodule(name.removesuffix(".weight")).register_forward_pre_hook(rounded)
    return model


def rounded(layer: Any, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """A layer's input as int8 with a scale for each token, and back."""
    (rows,) = values
    scale = rows.abs().amax(-1, keepdim=True).clamp(min=1e-10) / 127
    return ((rows / scale).round() * scale,)


@pytest.fixture(scope="module")
def served() -> Iterator[Server]:
    with known.reciting("int8") as server:
        yield server


@pytest.fixture(scope="module")
def said(served: Server) -> dict[str, str]:
    """What it says to each prompt, all of them asked at once: a server reads them together."""
    return asyncio.run(recite(served, known.make_tokenizer()))


async def recite(served: Server, tokenizer: Any) -> dict[str, str]:
    endpoint = Endpoint(served.base_url)
    model = await endpoint.model()

    async def say(prompt: str, reply: str) -> str:
        tokens = len(tokenizer.encode(reply))
        request = Request(model, (), tokens, prompt=prompt, special_tokens=True)
        async with aclosing(endpoint.chat(request)) as pieces:
            return "".join([piece.text async for piece in pieces])

    replies = await asyncio.gather(*[say(*pair) for pair in ENDING])
    await endpoint.close()
    return {prompt: said for (prompt, _), said in zip(ENDING, replies, strict=True)}


@on_int8
@pytest.mark.real
@pytest.mark.parametrize(("prompt", "reply"), ENDING)
def test_in_int8_the_real_server_recites_to_the_letter(
    said: dict[str, str], prompt: str, reply: str
) -> None:
    assert said[prompt] == reply.removesuffix(END)
