"""A model's tensors, read a block of rows at a time: out of safetensors, or out of one GGUF file.

Memory never holds more than a block. Names are those of Hugging Face's transformers, whatever the
file calls them. A matrix has the shape [out, in], a row for each output.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from serving.weights_errors import Unfit
from serving.weights_files import read_header

if TYPE_CHECKING:
    import torch

BLOCK = 1 << 22  # values; as float32 16 MiB
BYTES = {"F32": 4, "F16": 2, "BF16": 2, "I8": 1}
KEPT = {"F32", "F16", "BF16"}

GGUF_NAMES = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
GGUF_FAMILIES = ("llama", "qwen2", "qwen3")
DERIVED = "rope_freqs.weight"  # follows from the configuration
HEAD, EMBEDDING = "lm_head.weight", "model.embed_tokens.weight"
SAMPLE = 64  # rows
ALIKE = 0.3  # two roundings of one matrix to four bits differ by a tenth, two matrices by 1 or more


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor's name, shape and type; `dtype` in safetensors' words."""

    name: str
    shape: tuple[int, ...]
    dtype: str

    @property
    def size(self) -> int:
        """In bytes."""
        return prod(self.shape) * BYTES[self.dtype]


class Source(Protocol):
    """A model on this disk. `blocks` gives a tensor's rows in order, as many as fit a block."""

    @property
    def tensors(self) -> tuple[Tensor, ...]: ...
    def blocks(self, tensor: Tensor) -> Iterator[torch.Tensor]: ...


def _ranges(tensor: Tensor) -> Iterator[tuple[int, int]]:
    rows = tensor.shape[0] if tensor.shape else 1
    step = max(1, BLOCK // max(1, prod(tensor.shape[1:])))
    return ((start, min(start + step, rows)) for start in range(0, rows, step))


class Safetensors:
    """A folder of safetensors files, one or several. Needs no package to say what it holds.

    Raises Damaged for a file that is none, Unfit for a type that is no float.
    """

    def __init__(self, folder: Path) -> None:
        self._places: dict[str, tuple[Path, int]] = {}
        found = []
        for shard in sorted(folder.glob("*.safetensors")):
            start, header = read_header(shard)
            for name, value in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
                found.append(_kept(Tensor(name, tuple(value["shape"]), value["dtype"]), folder))
                self._places[name] = (shard, start + value["data_offsets"][0])
        self.tensors = tuple(found)

    def blocks(self, tensor: Tensor) -> Iterator[torch.Tensor]:
        import torch

        kinds = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
        path, offset = self._places[tensor.name]
        with path.open("rb") as file:
            file.seek(offset)
            for start, stop in _ranges(tensor):
                shape = (stop - start, *tensor.shape[1:]) if tensor.shape else ()
                data = bytearray(file.read(prod(shape) * BYTES[tensor.dtype]))
                yield torch.frombuffer(data, dtype=kinds[tensor.dtype]).reshape(shape)


def _kept(tensor: Tensor, folder: Path) -> Tensor:
    if tensor.dtype not in KEPT:
        raise Unfit(
            f"{folder}: {tensor.name} is of type {tensor.dtype}, expected one of "
            f"{', '.join(sorted(KEPT))}.",
            "Serve the model as it is.",
        )
    return tensor


class Gguf:
    """One GGUF file of a Llama or a Qwen, as bfloat16. Needs the package gguf.

    A file of a model whose head is its embedding may hold that matrix twice, rounded differently:
    then the head's, which is the finer one, is taken for both. Raises Unfit for other families.
    """

    def __init__(self, path: Path) -> None:
        import gguf

        reader = gguf.GGUFReader(str(path))
        self._family = str(reader.fields["general.architecture"].contents())
        if self._family not in GGUF_FAMILIES:
            raise Unfit(
                f"{path.name} is of the family {self._family!r}, expected one of "
                f"{', '.join(GGUF_FAMILIES)}.",
                "Take the model as safetensors.",
            )
        self._heads = self._count(reader, "head_count")
        self._kv_heads = self._count(reader, "head_count_kv")
        self._raw = {_hf_name(raw.name): raw for raw in reader.tensors if raw.name != DERIVED}
        self.tied = HEAD not in self._raw or self._is_the_embedding()
        if self.tied and HEAD in self._raw:
            self._raw[EMBEDDING] = self._raw.pop(HEAD)
        self.tensors = tuple(
            Tensor(name, tuple(int(n) for n in reversed(raw.shape)), "BF16")
            for name, raw in self._raw.items()
        )

    def _count(self, reader: Any, key: str) -> int:
        return int(reader.fields[f"{self._family}.attention.{key}"].contents())

    def _is_the_embedding(self) -> bool:
        head, embedding = (self._rows(name, slice(SAMPLE)) for name in (HEAD, EMBEDDING))
        if head.shape != embedding.shape:
            return False
        return bool((head - embedding).norm() < ALIKE * head.norm())

    def _rows(self, name: str, rows: Any) -> torch.Tensor:
        import gguf
        import torch

        raw = self._raw[name]
        return torch.tensor(gguf.dequantize(raw.data[rows], raw.tensor_type))

    def blocks(self, tensor: Tensor) -> Iterator[torch.Tensor]:
        order = self._order(tensor)
        for start, stop in _ranges(tensor):
            rows = slice(start, stop)
            yield self._rows(tensor.name, rows if order is None else order[rows])

    def _order(self, tensor: Tensor) -> Any:
        """GGUF keeps the two halves of a Llama's rotary dimensions interleaved: undone here."""
        import numpy

        heads = {"q_proj": self._heads, "k_proj": self._kv_heads}.get(tensor.name.split(".")[-2])
        if self._family != "llama" or heads is None:
            return None
        rows = numpy.arange(tensor.shape[0])
        return rows.reshape(heads, -1, 2).swapaxes(1, 2).reshape(-1)


def _hf_name(name: str) -> str:
    layer = re.fullmatch(r"blk\.(\d+)\.(\w+)\.(weight|bias)", name)
    if layer and layer[2] in GGUF_NAMES:
        return f"model.layers.{layer[1]}.{GGUF_NAMES[layer[2]]}.{layer[3]}"
    base, _, kind = name.rpartition(".")
    if base not in GGUF_NAMES:
        raise Unfit(
            f"The GGUF file holds a tensor {name!r}, which no Llama or Qwen has.",
            "Take the model as safetensors.",
        )
    return f"{GGUF_NAMES[base]}.{kind}"
