"""A model in int8: which layers, by what arithmetic, and what its configuration says of it.

W8A8 in the form of compressed-tensors, which vLLM serves as it is: each weight matrix of the
decoder's layers and of the head becomes int8 with one scale for each output row; the activations
are quantised while it runs, one scale for each token. Embedding, norms and biases stay as they
are; a head that was the embedding becomes a matrix of its own. No data are needed for it. Decoding
on a CPU is bound by the bytes read for each token, of which this leaves half.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.tensors import EMBEDDING, HEAD, Safetensors, Source, Tensor
from serving.weights_errors import Unfit

if TYPE_CHECKING:
    import torch

BFLOAT16, INT8 = "bfloat16", "int8"
LARGEST = 127
CONFIG = "config.json"
QUANTISATION = "quantization_config"  # in that file
# The matrices of dense decoders, under the names that vLLM has for them. Experts are none of them:
# vLLM's CPU build has no int8 kernel for those.
LAYER = re.compile(
    r"model\.layers\.\d+\."
    r"(self_attn\.(q|k|v|o|qkv|out)_proj|self_attn\.dense"
    r"|mlp\.(gate|up|down|gate_up|c)_proj|mlp\.(fc1|fc2|c_fc))\.weight"
)
UNTOUCHED = {EMBEDDING, HEAD}
# The classes whose head vLLM can have apart from the embedding, and in int8.
HEADED = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"}


def is_layer(tensor: Tensor) -> bool:
    return LAYER.fullmatch(tensor.name) is not None and len(tensor.shape) == 2


def check_layers(tensors: tuple[Tensor, ...], where: str) -> None:
    """Raises Unfit, naming the tensor, where a part of the model has no int8 form on a CPU."""
    for tensor in tensors:
        known = tensor.name in UNTOUCHED or is_layer(tensor)
        if len(tensor.shape) > 1 and not known:
            raise _unfit(where, f"its layer {tensor.name} {list(tensor.shape)} is of another kind")
    if not any(is_layer(tensor) for tensor in tensors):
        raise _unfit(where, "none of its tensors is a layer of a decoder")


def _unfit(where: str, why: str) -> Unfit:
    return Unfit(
        f"{where} cannot be made int8 for vLLM's CPU build: {why}.",
        "Serve it with --precision bfloat16.",
    )


def is_quantised(folder: Path) -> bool:
    """Whether the model in the folder is quantised already. False where there is none."""
    config = _config(folder)
    return bool(config.get(QUANTISATION) or config.get("compression_config"))


def is_of_today(folder: Path) -> bool:
    """Whether a model that was made int8 here is in the form that is made of it today."""
    config = _config(folder)
    return bool(config.get(QUANTISATION) == quantised_config(config)[QUANTISATION])


def _config(folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return config if isinstance(config, dict) else {}


def int8_size(folder: Path) -> int:
    """How many bytes the int8 form of a folder's model takes. Raises Unfit as check_layers does."""
    config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    source = int8_source(Safetensors(folder), config)
    check_layers(source.tensors, str(folder))
    head = has_head(config)
    return sum(made.size for tensor in source.tensors for made in int8_form(tensor, head))


def has_head(config: Mapping[str, Any]) -> bool:
    """Whether the model of that config.json is one whose head becomes int8 as well."""
    return not HEADED.isdisjoint(config.get("architectures") or ())


class Untied:
    """A model whose head is its embedding, with the head as a tensor of its own."""

    def __init__(self, source: Source) -> None:
        self._source = source
        head = (replace(one, name=HEAD) for one in source.tensors if one.name == EMBEDDING)
        self.tensors = (*source.tensors, *head)

    def blocks(self, tensor: Tensor) -> Iterator[torch.Tensor]:
        name = EMBEDDING if tensor.name == HEAD else tensor.name
        return self._source.blocks(replace(tensor, name=name))


def int8_source(source: Source, config: Mapping[str, Any]) -> Source:
    """The model with all tensors that its int8 form is made of."""
    tied = all(tensor.name != HEAD for tensor in source.tensors)
    return Untied(source) if tied and has_head(config) else source


def int8_form(tensor: Tensor, head: bool) -> tuple[Tensor, ...]:
    """What becomes of a tensor: itself, or int8 rows [out, in] and their scales [out, 1]."""
    if not is_layer(tensor) and not (head and tensor.name == HEAD):
        return (tensor,)
    scale = Tensor(f"{tensor.name}_scale", (tensor.shape[0], 1), "BF16")
    return Tensor(tensor.name, tensor.shape, "I8"), scale


def int8_data(source: Source, tensor: Tensor) -> Iterator[torch.Tensor]:
    """The values of int8_form(tensor), in pieces and in that order, for a layer of the source."""
    import torch

    scales = []
    for block in source.blocks(tensor):
        rows, scale = quantise_rows(block.float())
        scales.append(scale)
        yield rows
    yield torch.cat(scales)


def quantise_rows(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A float matrix [out, in] as int8 [out, in] and bfloat16 scales [out, 1].

    A row's scale is its largest magnitude / 127. It is rounded to bfloat16 first and divided by
    afterwards, so that its rounding costs nothing. A row of zeros has the scale 1.
    """
    import torch

    scale = (weight.abs().amax(dim=1, keepdim=True) / LARGEST).to(torch.bfloat16)
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    rows = (weight / scale.float()).round().clamp(-LARGEST, LARGEST)
    return rows.to(torch.int8), scale


def quantised_config(config: dict[str, Any]) -> dict[str, Any]:
    """A model's config.json with what vLLM and transformers need to know of its int8 form."""
    eight = {"num_bits": 8, "type": "int", "symmetric": True, "group_size": None}
    head = has_head(config)
    group = {
        "targets": ["Linear", *(["re:lm_head"] if head else [])],
        "weights": {**eight, "strategy": "channel", "dynamic": False},
        "input_activations": {**eight, "strategy": "token", "dynamic": True},
        "output_activations": None,
    }
    return {
        **config,
        **({"tie_word_embeddings": False} if head else {}),
        QUANTISATION: {
            "quant_method": "compressed-tensors",
            "format": "int-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": [] if head else ["lm_head"],
            "kv_cache_scheme": None,
        },
    }
